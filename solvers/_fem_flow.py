"""Taylor-Hood elements for plane incompressible flow: Newton's method, and semi-implicit BDF2 in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import block_array, csr_array
from skfem import BilinearForm, LinearForm

from pdelab.domain import AbstractDomain
from pdelab.errors import IncompatibleProblem
from pdelab.linear import AbstractLinearSolver, linear_solve
from pdelab.mesh import Mesh
from pdelab.pde import AbstractFlowProblem, Dirichlet, Initial, Neumann, Observations, Value
from pdelab.solution import Solution, Status
from pdelab.solver import Context, Progress
from pdelab.solvers._fem_coefficients import coordinates, values_at
from pdelab.solvers._fem_diffusion import Outcome
from pdelab.solvers._fem_space import Space, interpolated
from pdelab.solvers.linear.direct import Direct

MAX_NEWTON = 25
TOLERANCE = 1e-10  # of the last correction, relative to the solution
LADDER = 6  # viscosities tried at most, each 3 times the next


@BilinearForm
def _stiffness(u, v, _):
    return u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]


@BilinearForm
def _mass(u, v, w):
    return w["weight"] * u * v


@BilinearForm
def _transport(u, v, w):
    return (w["u"] * u.grad[0] + w["v"] * u.grad[1]) * v


@BilinearForm
def _slope_x(u, q, _):
    return u.grad[0] * q


@BilinearForm
def _slope_y(u, q, _):
    return u.grad[1] * q


@LinearForm
def _load(v, w):
    return w["value"] * v


class Flow:
    """One flow problem in one pair of spaces; vectors are (u, v, p), velocities at the nodes of order 2.

        int (u_t + u . grad u) . w + viscosity grad u : grad w - p div w = int force . w + int over open parts of t . w
        int q div u = 0,     t = viscosity slope - p_out n, from Neumann values of u, v and Dirichlet values of p

    Where two Dirichlet conditions meet, the later one holds.
    """

    def __init__(self, problem: AbstractFlowProblem, space: Space, solver: AbstractLinearSolver[Any]):
        self.problem, self.space, self.solver = problem, space, solver
        self.basis, self.pressure = space.basis, space.of_order(1)
        self.n, self.m = int(self.basis.N), int(self.pressure.N)
        self.x = np.asarray(self.basis.global_coordinates())
        self.stiffness = csr_array(_stiffness.assemble(self.basis))
        self.mass = csr_array(_mass.assemble(self.basis, weight=1.0))
        self.slope_x = csr_array(_slope_x.assemble(self.basis, self.pressure))
        self.slope_y = csr_array(_slope_y.assemble(self.basis, self.pressure))
        self.given: list[tuple[int, np.ndarray, Value]] = []
        self.tractions: list[tuple[int | None, Any, Value]] = []
        self.initial: dict[int, Value] = {}
        self.anchor: Observations | None = None
        for condition in problem.conditions():
            self._add(condition)
        fixed = np.concatenate([i * self.n + dofs for i, dofs, _ in self.given]) if self.given else np.zeros(0, int)
        rim = space.dofs_on(None)
        self.closed = bool(np.isin(np.concatenate([rim, self.n + rim]), fixed).all())
        # In a closed vessel the pressure has a free constant: one value is held, the constant is set at the end.
        held = [2 * self.n] if self.closed else []
        self.free = np.setdiff1d(np.arange(2 * self.n + self.m), np.concatenate([fixed, held]).astype(int))
        self.worst_residual, self.solves = 0.0, 0

    def _add(self, condition: Any) -> None:
        names = self.problem.components
        i = names.index(condition.component)
        if isinstance(condition, Initial):
            self.initial[i] = condition.value
        elif isinstance(condition, Observations):
            if names[i] != "p" or len(condition.values) != 1:
                raise IncompatibleProblem("fem: in a flow only one value of the pressure may be observed")
            self.anchor = condition
        elif isinstance(condition, Neumann):
            if condition.transfer != 0.0 or names[i] == "p":
                raise IncompatibleProblem("fem: in a flow a Neumann condition gives the slope of a velocity component")
            self.tractions.append((i, self.space.boundary_basis(condition.part), condition.value))
        elif isinstance(condition, Dirichlet) and names[i] == "p":
            self.tractions.append((None, self.space.boundary_basis(condition.part), condition.value))
        else:
            self.given.append((i, self.space.dofs_on(condition.part), condition.value))

    @property
    def n_dofs(self) -> int:
        """Velocities and pressure."""
        return 2 * self.n + self.m

    def impose(self, w: np.ndarray, t: float | None) -> np.ndarray:
        """The vector with the given velocities at time t."""
        w = w.copy()
        for i, dofs, value in self.given:
            w[i * self.n + dofs] = values_at(value, self.space.places[dofs].T, t, self.problem.axes)
        return w

    def start(self) -> np.ndarray:
        """Initial velocities, zero without a condition."""
        w = np.zeros(self.n_dofs)
        for i, value in self.initial.items():
            t = self.problem.time[0] if self.problem.time else None
            w[i * self.n : (i + 1) * self.n] = values_at(value, self.space.places.T, t, self.problem.axes)
        return w

    def load(self, t: float | None) -> np.ndarray:
        """Body force and tractions, tested with every velocity function."""
        places, shape = coordinates(self.x, t, self.problem.axes), self.x.shape[1:]
        given = [torch.as_tensor(f, dtype=torch.float64).detach() for f in self.problem.force(places)]
        forces = [f.expand(len(places)).numpy().reshape(shape) for f in given]
        parts = [_load.assemble(self.basis, value=force) for force in forces]
        for component, basis, value in self.tractions:
            there = values_at(value, np.asarray(basis.global_coordinates()), t, self.problem.axes)
            if component is not None:
                parts[component] = parts[component] + _load.assemble(basis, value=self.problem.viscosity * there)
                continue
            for axis in range(2):
                parts[axis] = parts[axis] - _load.assemble(basis, value=there * np.asarray(basis.normals)[axis])
        return np.concatenate([*parts, np.zeros(self.m)])

    def transport(self, w: np.ndarray) -> csr_array:
        """The matrix of (velocity . grad) in the velocity space."""
        (u, _), (v, _) = self._velocity(w)
        return csr_array(_transport.assemble(self.basis, u=u, v=v))

    def system(self, block: csr_array, couple: list[list[csr_array | None]] | None = None) -> csr_array:
        """The saddle-point matrix with `block` for both velocities, and extra velocity blocks."""
        extra = couple or [[None, None], [None, None]]
        first = block if extra[0][0] is None else block + extra[0][0]
        second = block if extra[1][1] is None else block + extra[1][1]
        return csr_array(
            block_array(
                [
                    [first, extra[0][1], -self.slope_x.T],
                    [extra[1][0], second, -self.slope_y.T],
                    [-self.slope_x, -self.slope_y, None],
                ],
                format="csr",
            )
        )

    def newton_terms(self, w: np.ndarray) -> list[list[csr_array | None]]:
        """Derivative of the transport by the velocity that carries."""
        return [
            [csr_array(_mass.assemble(self.basis, weight=gradient[axis])) for axis in range(2)]
            for _, gradient in self._velocity(w)
        ]

    def solve(self, A: csr_array, b: np.ndarray, state: Any = None) -> np.ndarray:
        """The correction of the free unknowns, zero elsewhere; A and b hold the free ones only.

        Raises:
            Outcome: the linear solve failed.
        """
        result = linear_solve(A, b, self.solver, state=state)
        self.solves += 1
        if np.isfinite(result.stats["residual"]):
            self.worst_residual = max(self.worst_residual, result.stats["residual"])
        if not result.status.ok:
            status = Status.NONFINITE if result.status is Status.NONFINITE else Status.LINEAR_SOLVE_FAILED
            raise Outcome(status, f"linear solver {self.solver.name!r}: {result.message}")
        delta = np.zeros(self.n_dofs)
        delta[self.free] = result.x
        return delta

    def steady(self) -> np.ndarray:
        """Newton's method from the Stokes flow; if it fails, down a ladder of viscosities.

        Raises:
            Outcome: it does not converge on the longest ladder either.
        """
        outcome = None
        for length in range(LADDER):
            try:
                w = self._stokes()
                for rung in reversed(range(length + 1)):
                    w = self._newton(w, self.problem.viscosity * 3.0**rung)
                return w
            except Outcome as failed:
                if failed.status is not Status.MAX_ITERATIONS:
                    raise
                outcome = failed
        assert outcome is not None
        raise outcome

    def forces(self, w: np.ndarray) -> dict[str, float]:
        """Force of a steady flow of density 1 on each part without slip, by the residual of the momentum equations."""
        r = self.system(self.problem.viscosity * self.stiffness + self.transport(w)) @ w - self.load(None)
        found: dict[str, float] = {}
        given = [np.concatenate([np.zeros(0, int), *(d for i, d, _ in self.given if i == c)]) for c in (0, 1)]
        for part in self.problem.domain.parts:
            dofs = self.space.dofs_on(part)
            held = all(np.isin(dofs, given[c]).all() and not w[c * self.n + dofs].any() for c in (0, 1))
            if held:
                found |= {f"force_{axis} {part}": -float(r[c * self.n + dofs].sum()) for c, axis in enumerate("xy")}
        return found

    def _stokes(self) -> np.ndarray:
        w = self.impose(np.zeros(self.n_dofs), None)
        A = self.system(self.problem.viscosity * self.stiffness)
        r = A @ w - self.load(None)
        return w + self.solve(A[self.free][:, self.free], -r[self.free])

    def _newton(self, w: np.ndarray, viscosity: float) -> np.ndarray:
        load = self.load(None)
        for _ in range(MAX_NEWTON):
            block = viscosity * self.stiffness + self.transport(w)
            r = self.system(block) @ w - load
            if not np.isfinite(r).all():
                raise Outcome(Status.NONFINITE, "the velocity is not finite")
            A = self.system(block, self.newton_terms(w))
            delta = self.solve(A[self.free][:, self.free], -r[self.free])
            w = w + delta
            velocity = slice(0, 2 * self.n)
            size = np.abs(delta[velocity]).max() / max(np.abs(w[velocity]).max(), 1e-300)
            if size <= TOLERANCE:
                return w
            if size > 1e3:
                break
        raise Outcome(Status.MAX_ITERATIONS, f"Newton's method did not converge at viscosity {viscosity:g}")

    def unsteady(self, times: np.ndarray, report: Callable[[int], None]) -> tuple[list[np.ndarray], Outcome | None]:
        """The flow at equally spaced times: BDF2, the transport extrapolated from two steps; the first by Euler.

            (3 w - 4 w' + w'')/(2 dt) + 2 N(w') - N(w'') = viscosity Lap w - grad p + force,     div w = 0

        One factorisation serves all steps. The transport is explicit: |velocity| dt/h should stay below about 1/2.

        Source: Ascher, Ruuth & Wetton, SIAM J. Numer. Anal. 32 (1995) 797-823, the method SBDF2.
        """
        dt = float(times[1] - times[0])
        found, moved = [self.impose(self.start(), float(times[0]))], []
        state = matrix = None
        for step, t in enumerate(times[1:].tolist()):
            w = found[-1]
            u, v = w[: self.n], w[self.n : 2 * self.n]
            carried = self.transport(w)
            moved.append(np.concatenate([carried @ u, carried @ v, np.zeros(self.m)]))
            weight, history, push = 1.0 / dt, w / dt, moved[-1]
            if step:
                weight, history = 1.5 / dt, (2.0 * w - 0.5 * found[-2]) / dt
                push = 2.0 * moved[-1] - moved[-2]
            full = self.system(weight * self.mass + self.problem.viscosity * self.stiffness)
            if step < 2:
                matrix = full[self.free][:, self.free]
                state = self.solver.init(matrix)
            new = self.impose(w, t)
            inertia = np.concatenate(
                [self.mass @ history[: self.n], self.mass @ history[self.n : 2 * self.n], np.zeros(self.m)]
            )
            r = full @ new - self.load(t) - inertia + push
            if not np.isfinite(r).all() or np.abs(new).max() > 1e30:
                return found, Outcome(Status.NONFINITE, "the flow grew without bound; use more time steps")
            try:
                found.append(new + self.solve(matrix, -r[self.free], state))
            except Outcome as outcome:
                return found, outcome
            report(step + 1)
        if len(found) > 2:
            # No equation gives the first pressure: it is extrapolated.
            found[0][2 * self.n :] = 2.0 * found[1][2 * self.n :] - found[2][2 * self.n :]
        return found, None

    def nodal(self, w: np.ndarray) -> np.ndarray:
        """u, v, p at the nodes of order 2, (n, 3)."""
        p = w[2 * self.n :]
        corners = p[: self.m]
        values = np.empty(self.n)
        values[self.basis.nodal_dofs[0]] = corners[self.pressure.nodal_dofs[0]]
        ends = self.space.mesh.facets
        values[self.basis.facet_dofs[0]] = corners[self.pressure.nodal_dofs[0][ends]].mean(axis=0)
        return np.column_stack([w[: self.n], w[self.n : 2 * self.n], values])

    def _velocity(self, w: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Values and gradients of u and v at the quadrature points."""
        return [interpolated(self.basis, w[i * self.n : (i + 1) * self.n]) for i in range(2)]


def solve_flow(
    problem: AbstractFlowProblem,
    mesh: Mesh,
    domain: AbstractDomain | None,
    refinements: int,
    n_steps: int,
    solver: AbstractLinearSolver[Any] | None,
    context: Context,
) -> Solution:
    """The steady flow, or the unsteady one at n_steps + 1 times."""
    start = time.process_time()
    space = Space(mesh, 2, domain, refinements)
    flow = Flow(problem, space, solver or Direct())
    ready = time.process_time()
    status, message, times, extra = Status.CONVERGED, "", None, {}
    if problem.time is None:
        try:
            w = flow.steady()
            extra = flow.forces(w)
        except Outcome as outcome:
            w, status, message = flow.start(), outcome.status, outcome.message
        values = flow.nodal(w)[None]
    else:
        times = np.linspace(*problem.time, n_steps + 1)
        found, ended = flow.unsteady(
            times, lambda step: context.report(Progress(step, n_steps, {"t": float(times[step])}))
        )
        if ended is not None:
            status, message = ended.status, f"at t = {times[len(found) - 1]:g}: {ended.message}"
            found += [found[-1]] * (len(times) - len(found))
        values = np.stack([flow.nodal(w) for w in found])
    if flow.closed:
        values[..., 2] -= _constant(flow, values, times)[:, None]
    stats = {
        "dofs": flow.n_dofs,
        "linear_solves": flow.solves,
        "linear_residual": flow.worst_residual,
        "setup_s": ready - start,
        "solve_s": time.process_time() - ready,
    }
    field = space.field(values[0] if times is None else values, times)
    return Solution(problem, field, status, message, stats | extra, mesh=space.output_mesh, times=times)


def _constant(flow: Flow, values: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """What to subtract from the pressure of a closed vessel at each time: its mean, or its miss at the given point."""
    if flow.anchor is None:
        weights = _load.assemble(flow.basis, value=1.0)
        return values[..., 2] @ weights / weights.sum()
    clock = np.zeros(1) if times is None else times
    at = np.column_stack([np.repeat(flow.anchor.points[:, :2], len(clock), axis=0), clock])
    field = flow.space.field(values[0], None) if times is None else flow.space.field(values, times)
    found = field(torch.as_tensor(at[:, :2] if times is None else at))[:, 2].numpy()
    return found - flow.anchor.values[0]

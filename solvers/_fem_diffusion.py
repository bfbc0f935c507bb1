"""Galerkin's method for mass du/dt + velocity . grad u - div(diffusion grad u) = source: Newton, and SDIRK in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from skfem import BilinearForm, LinearForm

from pdelab.errors import IncompatibleProblem
from pdelab.linear import AbstractLinearSolver, linear_solve
from pdelab.pde import AbstractDiffusionProblem, Dirichlet, Initial, Neumann, Periodic, Value
from pdelab.solution import Status
from pdelab.solvers._fem_coefficients import Local, coefficients_at, values_at
from pdelab.solvers._fem_space import Space, interpolated
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.direct import Direct

MAX_NEWTON = 40
NEWTON_TOLERANCE = 1e-10  # of the last correction, relative to the solution
MANY, MANY_IN_SPACE = 100_000, 5_000  # unknowns from which on multigrid is chosen if the matrix is definite
GAMMA = 1.0 - math.sqrt(0.5)  # L-stable SDIRK of order 2


@LinearForm
def _load(v, w):
    return w["value"] * v + sum(w["flux"][i] * v.grad[i] for i in range(len(w["flux"])))


@LinearForm
def _plain_load(v, w):
    return w["value"] * v


@BilinearForm
def _reaction_form(u, v, w):
    return w["value"] * u * v


@BilinearForm
def _advection_form(u, v, w):
    return sum(w["velocity"][i] * u.grad[i] for i in range(len(w["velocity"]))) * v


@BilinearForm
def _flux_form(u, v, w):
    return u * sum(w["flux"][i] * v.grad[i] for i in range(len(w["flux"])))


@BilinearForm
def _diffusion_form(u, v, w):
    return sum(w["diffusion"][i] * u.grad[i] * v.grad[i] for i in range(len(w["diffusion"])))


@dataclass(frozen=True, eq=False)
class Flow:
    """A Neumann condition at the quadrature points of its facets, arrays (F, Q)."""

    basis: Any
    u: np.ndarray
    diffusion: np.ndarray
    slope: np.ndarray  # of the diffusion by u
    value: np.ndarray
    transfer: np.ndarray


@dataclass(frozen=True, eq=False)
class Here:
    """An iterate at the quadrature points: gradient (d, C, Q), rate of change (C, Q) or None, coefficients."""

    local: Local
    gradient: np.ndarray
    rate: np.ndarray | None
    flows: list[Flow]


class Outcome(Exception):
    """The run cannot go on."""

    def __init__(self, status: Status, message: str):
        self.status, self.message = status, message
        super().__init__(message)


class Diffusion:
    """One problem in one space: residual, Jacobian, Newton's method.

    The weak form, for all test functions w that vanish where u is given:

        int mass (u - known)/tau w + (velocity . grad u - source) w + diffusion grad u . grad w
          = int over the boundary of diffusion (value - transfer u) w

    Where two Dirichlet conditions meet, the later one holds.
    """

    def __init__(self, problem: AbstractDiffusionProblem, space: Space, solver: AbstractLinearSolver[Any] | None):
        self.problem, self.space, self.solver = problem, space, solver
        self.axes = problem.axes
        conditions = problem.conditions()
        self.given = [(c, space.dofs_on(c.part)) for c in conditions if isinstance(c, Dirichlet)]
        self.flows = [(c, space.boundary_basis(c.part)) for c in conditions if isinstance(c, Neumann)]
        self.initial = [c for c in conditions if isinstance(c, Initial)]
        periods = _periods(problem)
        fixed = np.unique(np.concatenate([dofs for _, dofs in self.given])) if self.given else np.zeros(0, dtype=int)
        self.P = space.reduction(fixed, periods)
        self.x = np.asarray(space.basis.global_coordinates())
        self.solves, self.worst_residual = 0, 0.0
        self._key: list[np.ndarray] | None = None
        self._matrix: tuple[csr_array, Any] | None = None

    @property
    def n_free(self) -> int:
        """Number of unknowns of the linear systems."""
        return self.P.shape[1]

    def start(self) -> np.ndarray:
        """The initial values at the nodes, zero without an initial condition."""
        u = np.zeros(self.space.n_dofs)
        for condition in self.initial:
            u = self._at_nodes(condition.value, np.arange(self.space.n_dofs), self._first_time)
        return u

    def solve_stage(
        self, u: np.ndarray, t: float | None, known: np.ndarray | None = None, tau: float = 0.0
    ) -> np.ndarray:
        """Solve mass (u - known)/tau + F(t, u) = 0 from the guess u; without `known` F(t, u) = 0.

        Raises:
            Outcome: Newton's method or a linear solve failed.
        """
        u = u.copy()
        for condition, dofs in self.given:
            u[dofs] = self._at_nodes(condition.value, dofs, t)
        here = self.evaluate(u, t, known, tau)
        residual = self.residual(here)
        for _ in range(MAX_NEWTON):
            delta = self._correction(here, tau, residual)
            if here.local.linear:
                return u + delta
            scale = max(float(np.abs(u + delta).max()), 1e-300)
            if float(np.abs(delta).max()) <= NEWTON_TOLERANCE * scale:
                return u + delta
            before = float(np.linalg.norm(residual))
            for halvings in range(9):
                trial = u + delta * 0.5**halvings
                here = self.evaluate(trial, t, known, tau)
                residual = self.residual(here)
                # Near the solution round-off may keep the residual from falling: the step is then taken whole.
                if float(np.linalg.norm(residual)) < before or np.abs(delta).max() < 1e-6 * scale:
                    break
            else:
                raise Outcome(Status.MAX_ITERATIONS, "Newton's method found no step that lowers the residual")
            u = trial
        raise Outcome(Status.MAX_ITERATIONS, f"Newton's method did not converge in {MAX_NEWTON} steps")

    def evaluate(self, u: np.ndarray, t: float | None, known: np.ndarray | None = None, tau: float = 0.0) -> Here:
        """Everything at the quadrature points; the arguments are those of `solve_stage`."""
        basis = self.space.basis
        values, gradient = interpolated(basis, u)
        rate = None if known is None else interpolated(basis, (u - known) / tau)[0]
        local = coefficients_at(self.problem, self.x, t, values)
        return Here(local, gradient, rate, [self._flow(c, b, u, t) for c, b in self.flows])

    def residual(self, here: Here) -> np.ndarray:
        """The weak form for the test functions of the free unknowns.

        Raises:
            Outcome: it is not finite.
        """
        local = here.local
        value = -local.source
        if local.velocity is not None:
            value = value + (local.velocity * here.gradient).sum(axis=0)
        if here.rate is not None:
            value = value + local.mass * here.rate
        total = _load.assemble(self.space.basis, value=value, flux=local.diffusion * here.gradient)
        for flow in here.flows:
            total -= _plain_load.assemble(flow.basis, value=flow.diffusion * (flow.value - flow.transfer * flow.u))
        if not np.isfinite(total).all():
            raise Outcome(Status.NONFINITE, "a coefficient or the solution is not finite")
        return self.P.T @ total

    def jacobian(self, here: Here, tau: float) -> tuple[csr_array, Any]:
        """Derivative of the residual by the free unknowns, and the solver's state for it.

        Both are kept as long as the coefficients stay the same.

        Raises:
            Outcome: it is not finite.
        """
        local, basis = here.local, self.space.basis
        reaction = np.zeros_like(local.source)
        if local.source_slope is not None:
            reaction = reaction - local.source_slope
        if local.velocity_slope is not None:
            reaction = reaction + (local.velocity_slope * here.gradient).sum(axis=0)
        if here.rate is not None:
            reaction = reaction + local.mass / tau
            if local.mass_slope is not None:
                reaction = reaction + local.mass_slope * here.rate
        flux = None if local.diffusion_slope is None else local.diffusion_slope * here.gradient
        exchange = [f.diffusion * f.transfer - f.slope * (f.value - f.transfer * f.u) for f in here.flows]
        key = [reaction, local.diffusion, *exchange, *(a for a in (local.velocity, flux) if a is not None)]
        if self._key is not None and len(key) == len(self._key) and all(map(np.array_equal, key, self._key)):
            assert self._matrix is not None
            return self._matrix
        A = _diffusion_form.assemble(basis, diffusion=local.diffusion)
        if reaction.any():
            A = A + _reaction_form.assemble(basis, value=reaction)
        if local.velocity is not None:
            A = A + _advection_form.assemble(basis, velocity=local.velocity)
        if flux is not None:
            A = A + _flux_form.assemble(basis, flux=flux)
        for flow, weight in zip(here.flows, exchange, strict=True):
            if weight.any():
                A = A + _reaction_form.assemble(flow.basis, value=weight)
        if not np.isfinite(A.data).all():
            raise Outcome(Status.NONFINITE, "the Jacobian is not finite")
        A = csr_array(self.P.T @ csr_array(A) @ self.P)
        if self.solver is None:
            definite = local.velocity is None and flux is None and local.diffusion.min() > 0 and reaction.min() >= 0
            definite = definite and all(weight.min() >= 0 for weight in exchange)
            large = self.n_free > (MANY_IN_SPACE if self.space.dimension == 3 else MANY)
            self.solver = AMG() if definite and large else Direct()
        self._key, self._matrix = key, (A, self.solver.init(A))
        return self._matrix

    def _correction(self, here: Here, tau: float, residual: np.ndarray) -> np.ndarray:
        matrix, state = self.jacobian(here, tau)
        assert self.solver is not None
        result = linear_solve(matrix, -residual, self.solver, state=state)
        self.solves += 1
        if np.isfinite(result.stats["residual"]):
            self.worst_residual = max(self.worst_residual, result.stats["residual"])
        if not result.status.ok:
            status = Status.NONFINITE if result.status is Status.NONFINITE else Status.LINEAR_SOLVE_FAILED
            raise Outcome(status, f"linear solver {self.solver.name!r}: {result.message}")
        return self.P @ result.x

    def _flow(self, condition: Neumann, basis: Any, u: np.ndarray, t: float | None) -> Flow:
        x = np.asarray(basis.global_coordinates())
        here, _ = interpolated(basis, u)
        local = coefficients_at(self.problem, x, t, here)
        normals = np.asarray(basis.normals)
        if not local.isotropic and (np.abs(normals).max(axis=0) < 1.0 - 1e-9).any():
            raise IncompatibleProblem(
                "fem: with anisotropic diffusion a Neumann condition must lie on facets along the axes"
            )
        slope = np.zeros_like(here) if local.diffusion_slope is None else local.diffusion_slope * normals**2
        return Flow(
            basis,
            here,
            (local.diffusion * normals**2).sum(axis=0),
            slope if slope.ndim == 2 else slope.sum(axis=0),
            values_at(condition.value, x, t, self.axes),
            values_at(condition.transfer, x, t, self.axes),
        )

    @property
    def _first_time(self) -> float | None:
        return self.problem.time[0] if self.problem.time else None

    def _at_nodes(self, value: Value, dofs: np.ndarray, t: float | None) -> np.ndarray:
        return values_at(value, self.space.places[dofs].T, t, self.axes)


def integrate(
    discrete: Diffusion, times: np.ndarray, report: Callable[[int], None]
) -> tuple[list[np.ndarray], Outcome | None]:
    """The solution at equally spaced times, by the L-stable, stiffly accurate SDIRK method with two stages and order 2.

        stage at t + gamma dt, then at t + dt; gamma = 1 - 1/sqrt(2)

    Returns:
        One vector for each time reached, and why the run ended early, if it did.

    Source: Alexander, SIAM J. Numer. Anal. 14 (1977) 1006-1021.
    """
    found = [discrete.start()]
    # One number for all steps: differences of the times differ by round-off, and so would the matrices.
    dt = float(times[-1] - times[0]) / (len(times) - 1)
    for step, t in enumerate(times[:-1].tolist()):
        u = found[-1]
        try:
            first = discrete.solve_stage(u, t + GAMMA * dt, u, GAMMA * dt)
            known = u + (1.0 - GAMMA) / GAMMA * (first - u)
            found.append(discrete.solve_stage(first, t + dt, known, GAMMA * dt))
        except Outcome as outcome:
            return found, outcome
        report(step + 1)
    return found, None


def _periods(problem: AbstractDiffusionProblem) -> list[tuple[int, float]]:
    lower, upper = problem.domain.bounds
    axes = [problem.axes.index(c.axis) for c in problem.conditions() if isinstance(c, Periodic)]
    return [(i, float(upper[i] - lower[i])) for i in axes]

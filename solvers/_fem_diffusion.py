"""Galerkin's method for mass du/dt + velocity . grad u - div(diffusion grad u) = source: Newton, and SDIRK in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from skfem import BilinearForm, LinearForm

from pdelab.calculus import Coordinates
from pdelab.errors import IncompatibleProblem
from pdelab.linear import AbstractLinearSolver, linear_solve
from pdelab.pde import AbstractDiffusionProblem, Dirichlet, Initial, Neumann, Periodic, Value, evaluate
from pdelab.solution import Status
from pdelab.solvers._fem_space import Space
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
class Local:
    """Coefficients at quadrature points, arrays (C, Q), and their derivatives by the unknown (None: zero)."""

    mass: np.ndarray
    source: np.ndarray
    velocity: np.ndarray | None  # (d, C, Q)
    diffusion: np.ndarray  # (d, C, Q)
    mass_slope: np.ndarray | None
    source_slope: np.ndarray | None
    velocity_slope: np.ndarray | None
    diffusion_slope: np.ndarray | None
    isotropic: bool
    linear: bool


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

    def solve_stage(self, u: np.ndarray, t: float | None, known: np.ndarray | None = None, tau: float = 0.0):
        """Solve mass (u - known)/tau + F(t, u) = 0 from the guess u; without `known` F(t, u) = 0.

        Raises:
            Outcome: Newton's method or a linear solve failed.
        """
        u = u.copy()
        for condition, dofs in self.given:
            u[dofs] = self._at_nodes(condition.value, dofs, t)
        local = self._local(u, t)
        residual = self._residual(u, t, local, known, tau)
        for _ in range(MAX_NEWTON):
            delta = self._correction(u, t, local, known, tau, residual)
            if local.linear:
                return u + delta
            scale = max(float(np.abs(u + delta).max()), 1e-300)
            if float(np.abs(delta).max()) <= NEWTON_TOLERANCE * scale:
                return u + delta
            u, local, residual = self._line_search(u, delta, t, known, tau, residual)
        raise Outcome(Status.MAX_ITERATIONS, f"Newton's method did not converge in {MAX_NEWTON} steps")

    def _line_search(self, u, delta, t, known, tau, residual):
        """Halve the correction until the residual falls."""
        before = float(np.linalg.norm(residual))
        for halvings in range(9):
            trial = u + delta * 0.5**halvings
            local = self._local(trial, t)
            new = self._residual(trial, t, local, known, tau)
            # Near the solution round-off may keep the residual from falling: the last step is then taken whole.
            if float(np.linalg.norm(new)) < before or np.abs(delta).max() < 1e-6 * np.abs(u).max():
                return trial, local, new
        raise Outcome(Status.MAX_ITERATIONS, "Newton's method found no step that lowers the residual")

    def _correction(self, u, t, local, known, tau, residual) -> np.ndarray:
        matrix, state = self._jacobian(u, t, local, known, tau)
        assert self.solver is not None
        result = linear_solve(matrix, -residual, self.solver, state=state)
        self.solves += 1
        if np.isfinite(result.stats["residual"]):
            self.worst_residual = max(self.worst_residual, result.stats["residual"])
        if not result.status.ok:
            status = Status.NONFINITE if result.status is Status.NONFINITE else Status.LINEAR_SOLVE_FAILED
            raise Outcome(status, f"linear solver {self.solver.name!r}: {result.message}")
        return self.P @ result.x

    def _residual(self, u, t, local: Local, known, tau) -> np.ndarray:
        basis = self.space.basis
        here = basis.interpolate(u)
        gradient = np.asarray(here.grad)
        value = -local.source
        if local.velocity is not None:
            value = value + (local.velocity * gradient).sum(axis=0)
        if known is not None:
            value = value + local.mass * np.asarray(basis.interpolate((u - known) / tau))
        total = _load.assemble(basis, value=value, flux=local.diffusion * gradient)
        for flow in self._boundary(u, t):
            total -= _plain_load.assemble(flow.basis, value=flow.diffusion * (flow.value - flow.transfer * flow.u))
        if not np.isfinite(total).all():
            raise Outcome(Status.NONFINITE, "a coefficient or the solution is not finite")
        return self.P.T @ total

    def _jacobian(self, u, t, local: Local, known, tau) -> tuple[csr_array, Any]:
        """The matrix and the solver's state; both are kept as long as the coefficients stay the same."""
        basis = self.space.basis
        gradient = np.asarray(basis.interpolate(u).grad)
        reaction = np.zeros_like(local.source)
        if local.source_slope is not None:
            reaction = reaction - local.source_slope
        if local.velocity_slope is not None:
            reaction = reaction + (local.velocity_slope * gradient).sum(axis=0)
        if known is not None:
            reaction = reaction + local.mass / tau
            if local.mass_slope is not None:
                reaction = reaction + local.mass_slope * np.asarray(basis.interpolate((u - known) / tau))
        flux = None if local.diffusion_slope is None else local.diffusion_slope * gradient
        flows = list(self._boundary(u, t))
        exchange = [f.diffusion * f.transfer - f.slope * (f.value - f.transfer * f.u) for f in flows]
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
        for flow, weight in zip(flows, exchange, strict=True):
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

    def _local(self, u: np.ndarray, t: float | None) -> Local:
        return coefficients_at(self.problem, self.x, t, np.asarray(self.space.basis.interpolate(u)))

    def _boundary(self, u: np.ndarray, t: float | None):
        for condition, basis in self.flows:
            x = np.asarray(basis.global_coordinates())
            here = np.asarray(basis.interpolate(u))
            local = coefficients_at(self.problem, x, t, here)
            normals = np.asarray(basis.normals)
            if not local.isotropic and (np.abs(normals).max(axis=0) < 1.0 - 1e-9).any():
                raise IncompatibleProblem(
                    "fem: with anisotropic diffusion a Neumann condition must lie on facets along the axes"
                )
            slope = 0.0 * here if local.diffusion_slope is None else (local.diffusion_slope * normals**2).sum(axis=0)
            yield _Flow(
                basis,
                here,
                (local.diffusion * normals**2).sum(axis=0),
                slope,
                values_at(condition.value, x, t, self.axes),
                values_at(condition.transfer, x, t, self.axes),
            )

    @property
    def _first_time(self) -> float | None:
        return self.problem.time[0] if self.problem.time else None

    def _at_nodes(self, value: Value, dofs: np.ndarray, t: float | None) -> np.ndarray:
        return values_at(value, self.space.places[dofs].T, t, self.axes)


@dataclass(frozen=True, eq=False)
class _Flow:
    """A Neumann condition at the quadrature points of its facets, arrays (F, Q)."""

    basis: Any
    u: np.ndarray
    diffusion: np.ndarray
    slope: np.ndarray  # of the diffusion
    value: np.ndarray
    transfer: np.ndarray


def integrate(
    discrete: Diffusion, times: np.ndarray, report: Callable[[int], None]
) -> tuple[list[np.ndarray], Outcome | None]:
    """The solution at the times, by the L-stable, stiffly accurate SDIRK method with two stages and order 2.

        stage at t + gamma dt, then at t + dt; gamma = 1 - 1/sqrt(2)

    Returns:
        One vector for each time reached, and why the run ended early, if it did.

    Source: Alexander, SIAM J. Numer. Anal. 14 (1977) 1006-1021.
    """
    found = [discrete.start()]
    for step, (t, dt) in enumerate(zip(times[:-1], np.diff(times), strict=True)):
        u = found[-1]
        try:
            first = discrete.solve_stage(u, t + GAMMA * dt, u, GAMMA * dt)
            known = u + (1.0 - GAMMA) / GAMMA * (first - u)
            found.append(discrete.solve_stage(first, t + dt, known, GAMMA * dt))
        except Outcome as outcome:
            return found, outcome
        report(step + 1)
    return found, None


def coefficients_at(problem: AbstractDiffusionProblem, x: np.ndarray, t: float | None, u: np.ndarray) -> Local:
    """Coefficients at points x (d, C, Q) with values u (C, Q) of the unknown, and their derivatives by u."""
    shape, d = u.shape, len(x)
    value = torch.tensor(u.ravel(), requires_grad=True)
    with torch.enable_grad():
        c = problem.coefficients(_coordinates(x, t, problem.axes), value)
        linear = True

        def split(entry) -> tuple[np.ndarray, np.ndarray | None]:
            nonlocal linear
            if not (isinstance(entry, torch.Tensor) and entry.requires_grad):
                plain = torch.as_tensor(entry, dtype=torch.float64).detach()
                return plain.expand(value.shape).numpy().reshape(shape), None
            (slope,) = torch.autograd.grad(entry.expand(value.shape).sum(), value, create_graph=True, allow_unused=True)
            plain = entry.detach().expand(value.shape).numpy().reshape(shape)
            if slope is None:
                return plain, None
            # Only a source that is affine in u leaves the problem linear.
            linear = linear and entry is c.source and not slope.requires_grad
            return plain, slope.detach().numpy().reshape(shape)

        def stack(entries) -> tuple[np.ndarray, np.ndarray | None]:
            plain, slopes = zip(*map(split, entries), strict=True)
            if all(s is None for s in slopes):
                return np.stack(plain), None
            return np.stack(plain), np.stack([np.zeros(shape) if s is None else s for s in slopes])

        mass, mass_slope = split(c.mass)
        source, source_slope = split(c.source)
        velocity, velocity_slope = (None, None) if c.velocity is None else stack(c.velocity)
        isotropic = not isinstance(c.diffusion, tuple)
        diffusion, diffusion_slope = stack((c.diffusion,) * d if isotropic else c.diffusion)
    return Local(
        mass,
        source,
        velocity,
        diffusion,
        mass_slope,
        source_slope,
        velocity_slope,
        diffusion_slope,
        isotropic,
        linear,
    )


def values_at(value: Value, x: np.ndarray, t: float | None, axes: tuple[str, ...]) -> np.ndarray:
    """A value of a condition at points x (d, ...), shape (...)."""
    return evaluate(value, _coordinates(x, t, axes)).detach().numpy().reshape(x.shape[1:])


def _coordinates(x: np.ndarray, t: float | None, axes: tuple[str, ...]) -> Coordinates:
    columns = [*x.reshape(len(x), -1)]
    if t is not None:
        columns.append(np.full_like(columns[0], t))
    return Coordinates(torch.as_tensor(np.stack(columns, axis=1)), axes)


def _periods(problem: AbstractDiffusionProblem) -> list[tuple[int, float]]:
    lower, upper = problem.domain.bounds
    axes = [problem.axes.index(c.axis) for c in problem.conditions() if isinstance(c, Periodic)]
    return [(i, float(upper[i] - lower[i])) for i in axes]

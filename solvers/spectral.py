"""Spectral solvers: Fourier series and exponential time stepping where periodic, else Chebyshev collocation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pdelab.calculus import Coordinates
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.fields import GridField
from pdelab.pde import AbstractPeriodicProblem, AbstractProblem, Initial, evaluate
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractInstanceSolver, Context, Progress
from pdelab.solvers.collocation import chebyshev_solve
from pdelab.solvers.etdrk4 import ETDRK4
from pdelab.solvers.fourier import FourierGrid
from pdelab.solvers.grid_system import refusal

N_POINTS, N_LEVELS, REFINEMENT = (1536, 128, 32), (401, 101, 51), (2, 1, 1)  # Fourier, by dimension
N_CELLS = (64, 32, 12)  # Chebyshev, by dimension
N_STEPS_FOURIER, N_STEPS_CHEBYSHEV = 2000, 100


@dataclass(frozen=True)
class Spectral(AbstractInstanceSolver):
    """Spectral methods on boxes of one to three dimensions: Fourier with ETDRK4, or Chebyshev with Newton and Radau.

    An `AbstractPeriodicProblem` is solved by Fourier series in space and ETDRK4 in time: spectral accuracy
    for smooth solutions, fourth order in the time step, products de-aliased by the 2/3 rule.
    `validity["spectral_tail"]` is the largest share of a coefficient in the upper half of the kept modes
    at the last time, relative to the largest one: 1e-6 and below is well resolved.

    Any other problem is solved by collocation at Chebyshev nodes, Newton's method, and Radau IIA (order 5)
    in time: spectral accuracy for smooth solutions, dense matrices of n^d unknowns per component.

    Args:
        n: points (Fourier) or cells (Chebyshev) per axis, at least 8; None means 1536, 128, 32 or 64, 32, 12
            in one, two, three dimensions.
        n_steps: time steps, at least 1; None means 2000 (Fourier) or 100 (Chebyshev). Fourier rounds them up
            to a multiple of `n_levels - 1`.
        n_levels: of Fourier: stored time levels, at least 8, evenly spaced; None means 401, 101 or 51. Between
            them the field is interpolated with order 8, so that they must resolve the passage of a front.
        refinement: of Fourier: the field is stored on `refinement * n` points per axis, at least 1, because local
            interpolation of order 8 needs a finer grid than Fourier series; None means 2 in one dimension, else 1.
    """

    n: int | None = None
    n_steps: int | None = None
    n_levels: int | None = None
    refinement: int | None = None

    name: ClassVar[str] = "spectral"
    accepts: ClassVar[type] = AbstractProblem

    def __post_init__(self) -> None:
        """Check the ranges."""
        for key, least in (("n", 8), ("n_steps", 1), ("n_levels", 8), ("refinement", 1)):
            if getattr(self, key) is not None:
                check_range(key, getattr(self, key), least=least)

    def refuses(self, problem: AbstractProblem) -> str:
        """See `AbstractSolver.refuses`: boxes of at most three dimensions, and all initial values."""
        if not isinstance(problem, AbstractPeriodicProblem):
            return refusal(problem)
        if not isinstance(problem.domain, Box) or problem.domain.dimension > 3:
            return "it needs a box of one to three dimensions"
        if problem.time is None:
            return "it needs a time interval"
        missing = set(problem.components) - {c.component for c in problem.conditions() if isinstance(c, Initial)}
        return f"it needs an initial value of {', '.join(sorted(missing))}" if missing else ""

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """March from the initial values, or solve for all nodes at once; a blow-up ends with `Status.NONFINITE`."""
        if isinstance(problem, AbstractPeriodicProblem):
            return _evolve(problem, self, context)
        cells = self.n or N_CELLS[problem.domain.dimension - 1]
        return chebyshev_solve(problem, cells, context, self.n_steps or N_STEPS_CHEBYSHEV)


def _evolve(problem: AbstractPeriodicProblem, settings: Spectral, context: Context) -> Solution:
    assert problem.time is not None and isinstance(problem.domain, Box)
    began = context.clock.seconds
    d, m = problem.domain.dimension, len(problem.components)
    n, n_levels = settings.n or N_POINTS[d - 1], settings.n_levels or N_LEVELS[d - 1]
    refinement = settings.refinement or REFINEMENT[d - 1]
    grid = FourierGrid(problem.domain, n)
    per_level = math.ceil((settings.n_steps or N_STEPS_FOURIER) / (n_levels - 1))
    times = np.linspace(*problem.time, n_levels)

    def nonlinear(v: np.ndarray) -> np.ndarray:
        return grid.forward(problem.nonlinear(grid.backward(v), grid.differentiate))

    v = grid.forward(_initial_values(problem, grid))
    # Modes that are held at zero get L = 0: their exponentials are never used and must not overflow.
    linear = np.where(grid.kept, problem.symbol(grid.wavenumbers), 0.0)
    step = ETDRK4(linear, (times[1] - times[0]) / per_level, nonlinear)
    stored = np.full((n_levels, m, *[refinement * n] * d), np.nan)
    stored[0] = grid.backward(v, refinement)
    status, message, steps = Status.CONVERGED, "", 0
    with np.errstate(over="ignore", invalid="ignore"):
        for level in range(1, n_levels):
            for _ in range(per_level):
                v = step(v)
            steps += per_level
            stored[level] = grid.backward(v, refinement)
            if not np.isfinite(stored[level]).all():
                status, message = Status.NONFINITE, f"blew up before t = {times[level]:.4g}; raise n_steps, or n"
                break
            context.report(Progress(steps, per_level * (n_levels - 1), {"t": float(times[level])}))

    fine = FourierGrid(problem.domain, refinement * n)
    field = GridField(
        (*fine.axes, times),
        np.ascontiguousarray(np.moveaxis(stored, (0, 1), (-2, -1))),
        periods={i: float(side) for i, side in enumerate(grid.sides)},
    )
    stats = {"dofs": float(m * n**d), "steps": float(steps), "solve_s": context.clock.seconds - began}
    return Solution(problem, field, status, message, stats, times=times, validity={"spectral_tail": _tail(v, grid)})


def _initial_values(problem: AbstractPeriodicProblem, grid: FourierGrid) -> np.ndarray:
    """The initial values of all components on the grid, (m, *grid)."""
    assert problem.time is not None
    points = torch.as_tensor(grid.points)
    p = Coordinates(torch.cat([points, torch.full((len(points), 1), problem.time[0])], dim=1), problem.axes)
    given = {c.component: c.value for c in problem.conditions() if isinstance(c, Initial)}
    shape = [len(a) for a in grid.axes]
    return np.stack([evaluate(given[name], p).numpy().reshape(shape) for name in problem.components])


def _tail(v: np.ndarray, grid: FourierGrid) -> float:
    """Largest coefficient in the upper half of the kept modes over the largest of all, worst component."""
    index = np.max([np.abs(k) * s / (2 * math.pi) for k, s in zip(grid.wavenumbers, grid.sides, strict=True)], axis=0)
    size = np.abs(v).reshape(len(v), -1)
    high = size[:, (6 * index >= grid.n).ravel()].max(axis=1)
    return float(np.max(high / np.maximum(size.max(axis=1), np.finfo(float).tiny)))

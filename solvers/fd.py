"""Finite differences on boxes: the classical solver for any equation that a problem can state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pdelab.errors import SettingsError, check_range
from pdelab.pde import AbstractProblem
from pdelab.solution import Solution
from pdelab.solver import AbstractInstanceSolver, Context
from pdelab.solvers.axes import Axis, difference_axis
from pdelab.solvers.collocation import grid_axes, solve_in_time, solve_steady
from pdelab.solvers.grid_system import refusal


@dataclass(frozen=True)
class FD(AbstractInstanceSolver):
    """Finite differences of order 2 or 4 on a box; Newton's method, and Radau IIA (order 5) in time.

    Steady problems of more than 64 cells per axis are solved on grids of n/4, n/2, ... cells first (those above
    32), which spares Newton's method the search from zero on the finest one. The error falls like n^-order for smooth
    solutions, and like n_steps^-5 (n_steps^-3 to ^-4 where boundary values change in time).

    Args:
        n: cells, at least 8: one number for all axes, or one for each. Every step solves a sparse system of n^d
            unknowns per component: seconds in two dimensions up to n = 128, in three up to n = 24.
        n_steps: time steps; ignored for steady problems.
        order: of the differences, 2 or 4.
        tolerance: of Newton's method, on the largest change relative to 1 + max |u|.
        clustering: in [0, 1); the cells at both ends of each axis are smaller by 1 - clustering.
        grading: >= 1; time levels t0 + (t1 - t0) (k/n_steps)^grading, for data that do not fit together at
            the first time (3 suits a jump between initial and boundary values).
    """

    n: int | tuple[int, ...] = 64
    n_steps: int = 100
    order: Literal[2, 4] = 4
    tolerance: float = 1e-9
    clustering: float = 0.0
    grading: float = 1.0

    name: ClassVar[str] = "fd"
    accepts: ClassVar[type] = AbstractProblem

    def __post_init__(self) -> None:
        """Check the ranges."""
        for cells in self.n if isinstance(self.n, tuple) else (self.n,):
            check_range("n", cells, least=8)
        check_range("n_steps", self.n_steps, least=1)
        check_range("tolerance", self.tolerance, above=0.0)
        check_range("clustering", self.clustering, least=0.0, most=0.99)
        check_range("grading", self.grading, least=1.0)
        if self.order not in (2, 4):
            raise SettingsError(f"order: expected 2 or 4, got {self.order!r}")

    def refuses(self, problem: AbstractProblem) -> str:
        """Only boxes of at most three dimensions; see `grid_system.refusal`."""
        if isinstance(self.n, tuple) and len(self.n) != problem.domain.dimension:
            return f"n = {self.n} does not give one number of cells for each of its {problem.domain.dimension} axes"
        return refusal(problem)

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """Solve on the grid, or on each of the time levels."""
        finest = self.n if isinstance(self.n, tuple) else (self.n,) * problem.domain.dimension
        if problem.time is not None:
            t0, t1 = problem.time
            times = t0 + (t1 - t0) * np.linspace(0.0, 1.0, self.n_steps + 1) ** self.grading
            return solve_in_time(problem, self._axes(problem, finest), times, self.tolerance, context)
        sizes = [finest]
        while max(sizes[0]) > 64 and all(n % 2 == 0 and n >= 16 for n in sizes[0]):
            sizes.insert(0, tuple(n // 2 for n in sizes[0]))
        return solve_steady(problem, [self._axes(problem, cells) for cells in sizes], self.tolerance, context)

    def _axes(self, problem: AbstractProblem, cells: tuple[int, ...]) -> list:
        def make(lower: float, upper: float, number: int, periodic: bool) -> Axis:
            return difference_axis(
                lower, upper, cells[number], self.order, periodic=periodic, clustering=self.clustering
            )

        return grid_axes(problem, make)

"""The linear solver that the structure of the matrix suggests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.errors import InputError, check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._axes import fast_transform
from pdelab.solvers.linear._grid_batches import grid_level
from pdelab.solvers.linear._symmetry import asymmetry
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.dcdm import DCDM
from pdelab.solvers.linear.direct import Direct
from pdelab.solvers.linear.fast_poisson import FastPoisson, lines
from pdelab.solvers.linear.multigrid import Multigrid
from pdelab.stencil import recognise

SMALL = 20_000
"""Unknowns up to which factors are chosen for symmetric matrices of more than one dimension."""

NARROW = 4
"""Distance from the diagonal up to which a matrix is one of a line; its factors are as sparse."""

SHORT = 256
"""Cells on an axis up to which products with its eigenvectors are chosen where no fast transform has them."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """A solver, its state and why it was chosen."""

    solver: AbstractLinearSolver[Any]
    state: Any
    reason: str


@dataclass(frozen=True)
class Auto(AbstractLinearSolver[Chosen]):
    """Chooses by structure: fast transforms on full boxes, factors if small, cycles on grids with obstacles, else amg.

    Grids of two axes go to the learned cycle of dcdm, those of three to multigrid, whose set-up is shorter there.

    `init(A).reason` tells why; so does the message of a failure.

    Args:
        tolerance: relative residual, > 0; handed on.
    """

    tolerance: float = 1e-9

    name: ClassVar[str] = "auto"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)

    def init(self, A: csr_array) -> Chosen:
        """The solver chosen and its state."""
        solver, reason = choose(A, self.tolerance)
        return Chosen(solver, solver.init(A), reason)

    def compute(self, state: Chosen, b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        return _told(state, state.solver.compute(state.state, b))

    def compute_batch(self, state: Chosen, B: np.ndarray) -> list[LinearResult]:
        """Solve for all columns of B (n, k) as the chosen solver does."""
        return [_told(state, result) for result in state.solver.compute_batch(state.state, B)]

    def apply(self, state: Chosen, r: np.ndarray) -> np.ndarray:
        """One application of the chosen solver, r (n,) -> (n,)."""
        return state.solver.apply(state.state, r)


def choose(A: csr_array, tolerance: float) -> tuple[AbstractLinearSolver[Any], str]:
    """The solver for A (n, n) with this tolerance, and the reason in a few words."""
    n = A.shape[0]
    if asymmetry(A) > 1e-8 * (abs(A).max() if A.nnz else 0.0):
        return Direct(tolerance=tolerance), "the matrix is not symmetric"
    box = _box(A)
    if box:
        return FastPoisson(shape=box, tolerance=tolerance), f"a full box of {' x '.join(map(str, box))} cells"
    filled = np.diff(A.indptr) > 0
    if (A.diagonal()[filled] <= 0).any():
        return Direct(tolerance=tolerance), "symmetric, but not positive on the diagonal"
    if n <= SMALL:
        return Direct(tolerance=tolerance), f"symmetric with {n} <= {SMALL} unknowns"
    grid = _grid(A)
    if grid:
        solver = DCDM if len(grid) == 2 else Multigrid
        return solver(shape=grid, tolerance=tolerance), (
            f"a grid of {' x '.join(map(str, grid))} cells with obstacles or coefficients, {n} > {SMALL} unknowns"
        )
    entries = A.tocoo()
    if int(np.abs(entries.row - entries.col).max()) <= NARROW:
        return Direct(tolerance=tolerance), "a narrow band about the diagonal"
    return AMG(tolerance=tolerance), f"symmetric, positive on the diagonal, {n} > {SMALL} unknowns"


def _box(A: csr_array) -> tuple[int, ...] | None:
    """Cells along each axis if fast-poisson is a good choice."""
    try:
        stencil = recognise(A)
        _, each = lines(stencil)
    except InputError:
        return None
    fast = all(line[0].size <= SHORT or fast_transform(*line, 1) is not None for line in each)
    return stencil.shape if fast else None


def _grid(A: csr_array) -> tuple[int, ...] | None:
    """Cells along two or three axes if multigrid can coarsen the grid."""
    try:
        level = grid_level(A, None, "cpu", "multigrid")
    except InputError:
        return None
    return level.shape if level.d > 1 else None


def _told(state: Chosen, result: LinearResult) -> LinearResult:
    if result.status.ok:
        return result
    why = f"auto chose {state.solver.name}: {state.reason}"
    return replace(result, message=f"{result.message}; {why}" if result.message else why)

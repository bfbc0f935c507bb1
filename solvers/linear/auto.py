"""The linear solver that the structure of the matrix suggests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.errors import InputError, check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._axes import fast_transform
from pdelab.solvers.linear._symmetry import asymmetry
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.direct import Direct
from pdelab.solvers.linear.fast_poisson import FastPoisson, lines
from pdelab.solvers.linear.mic_cg import MICCG
from pdelab.solvers.linear.multigrid import Multigrid
from pdelab.stencil import Stencil, recognise

SMALL = 20_000
"""Unknowns up to which factors are chosen for symmetric matrices of more than one dimension."""

SMALL_3D = 2_000
"""The same for the 7-point stencil, whose factors fill in more."""

LARGE_3D = 100_000
"""Unknowns up to which incomplete factors are chosen for the 7-point stencil."""

CONTRAST = 1e6
"""Ratio of the largest to the least coupling up to which incomplete factors are chosen for the 7-point stencil."""

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
    """Chooses by structure: fast-poisson on full boxes, multigrid on other grids, direct if small, else amg.

    The limits come from CPU seconds, set-up and one right-hand side to 1e-8, one thread: with varying coefficient in
    two dimensions multigrid is the fastest from 2 10^4 unknowns on (400^2 with obstacles: multigrid 0.42 s, dcdm 0.42,
    direct 1.1, amg 1.3, mic-cg 2.0); on the 7-point stencil mic-cg is from 2 10^3 to 10^5 unknowns (28^3: direct 1.3 s,
    amg 0.16, mic-cg 0.04), then multigrid (64^3: dcdm 0.96 s, multigrid 0.97, mic-cg 1.3, amg 2.7). For many
    right-hand sides with one matrix dcdm is ahead of multigrid on large grids.
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
    stencil = _stencil(A)
    if stencil is not None and _separable(stencil):
        cells = " x ".join(map(str, stencil.shape))
        return FastPoisson(shape=stencil.shape, tolerance=tolerance), f"a full box of {cells} cells"
    filled = np.diff(A.indptr) > 0
    if (A.diagonal()[filled] <= 0).any():
        return Direct(tolerance=tolerance), "symmetric, but not positive on the diagonal"
    if stencil is not None and _even(stencil):
        cells, d = " x ".join(map(str, stencil.shape)), len(stencil.shape)
        if n > (SMALL if d == 2 else LARGE_3D) and not any(stencil.periodic):
            return Multigrid(shape=stencil.shape, tolerance=tolerance), f"a grid of {cells} cells, no full box"
        if d == 3 and n > SMALL_3D:
            return MICCG(tolerance=tolerance), "7-point stencil, couplings of one sign and not too unlike"
    if n <= SMALL:
        return Direct(tolerance=tolerance), f"symmetric with {n} <= {SMALL} unknowns"
    entries = A.tocoo()
    if int(np.abs(entries.row - entries.col).max()) <= NARROW:
        return Direct(tolerance=tolerance), "a narrow band about the diagonal"
    return AMG(tolerance=tolerance), f"symmetric, positive on the diagonal, {n} > {SMALL} unknowns"


def _stencil(A: csr_array) -> Stencil | None:
    try:
        return recognise(A)
    except InputError:
        return None


def _separable(stencil: Stencil) -> bool:
    """Whether fast-poisson takes it and is fast."""
    try:
        _, each = lines(stencil)
    except InputError:
        return False
    return all(line[0].size <= SHORT or fast_transform(*line, 1) is not None for line in each)


def _even(stencil: Stencil) -> bool:
    """Whether mic-cg or multigrid is fast: couplings >= 0, the positive ones of like size, excess >= 0."""
    couplings = np.concatenate([face[face != 0] for face in stencil.faces])
    if len(stencil.shape) < 2 or not couplings.size or couplings.min() < 0:
        return False
    dominant = stencil.excess.min() >= -1e-12 * stencil.diagonal.max()
    return bool(dominant and couplings.max() <= CONTRAST * couplings.min())


def _told(state: Chosen, result: LinearResult) -> LinearResult:
    if result.status.ok:
        return result
    why = f"auto chose {state.solver.name}: {state.reason}"
    return replace(result, message=f"{result.message}; {why}" if result.message else why)

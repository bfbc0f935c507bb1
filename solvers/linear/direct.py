"""Sparse LU factorisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import splu

from pdelab.compatibility import null_space
from pdelab.errors import check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solution import Status


@dataclass(frozen=True, eq=False)
class Factors:
    """LU factors of the rows and columns `kept` of A, both bool (n,); None: all."""

    lu: Any
    kept: np.ndarray | None


@dataclass(frozen=True)
class Direct(AbstractLinearSolver[Factors | str]):
    """Sparse LU factorisation (SuperLU) with a fill-reducing ordering, for any regular matrix.

    Matrices of symmetric structure with a full diagonal are ordered by minimum degree on A + A^T and pivoted on the
    diagonal where that is safe; all others by column minimum degree with partial pivoting. Up to about 10^5
    unknowns in two dimensions and 10^4 in three it is the fastest choice; beyond that memory grows quickly.

    Rows that are empty together with their column are left out, and where the constants over a connected part of a
    symmetric matrix are in its kernel, the first unknown of the part: x is 0 in both.

    Args:
        tolerance: largest relative residual that counts as solved; round-off grows with the condition number.

    Source: Li, ACM Trans. Math. Softw. 31 (2005) 302-325.
    """

    tolerance: float = 1e-9

    name: ClassVar[str] = "direct"

    def __post_init__(self) -> None:
        """Check the tolerance."""
        check_range("tolerance", self.tolerance, above=0.0)

    def init(self, A: csr_array) -> Factors | str:
        """The factors, or what SuperLU said if the matrix is singular."""
        kept = _kept(A)
        if kept is not None:
            A = csr_array(A[kept][:, kept])
        try:
            if A.shape[0] == 0:
                return Factors(None, kept)
            if _symmetric_structure(A):
                options = {"SymmetricMode": True}
                return Factors(
                    splu(A.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options=options), kept
                )
            return Factors(splu(A.tocsc(), permc_spec="COLAMD"), kept)
        except RuntimeError as error:
            return str(error)

    def compute(self, state: Factors | str, b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        return self.compute_batch(state, b[:, None])[0]

    def compute_batch(self, state: Factors | str, B: np.ndarray) -> list[LinearResult]:
        """Solve for all columns of B (n, k) with the same factors."""
        X = np.zeros(B.shape)
        if isinstance(state, str):
            return [LinearResult(x, Status.LINEAR_SOLVE_FAILED, state) for x in X.T]
        if state.kept is None:
            X = state.lu.solve(np.ascontiguousarray(B))
        elif state.lu is not None:
            X[state.kept] = state.lu.solve(B[state.kept])
        return [LinearResult(np.ascontiguousarray(x)) for x in X.T]


def _kept(A: csr_array) -> np.ndarray | None:
    """What is factorised: all but empty rows and one unknown of each part with the constants in the kernel."""
    kernel = null_space(A)
    if not kernel.empty.any() and not kernel.sizes.size:
        return None
    out = kernel.empty.copy()
    if out.any():
        filled = np.zeros(A.shape[0], dtype=bool)
        filled[A.indices[A.data != 0]] = True
        out &= ~filled
    parts, first = np.unique(kernel.part, return_index=True)
    out[first[parts >= 0]] = True
    return ~out


def _symmetric_structure(A: csr_array) -> bool:
    if not A.diagonal().all():
        return False
    pattern = csr_array((np.ones(A.nnz, dtype=np.int8), A.indices, A.indptr), A.shape)
    return bool((pattern != pattern.T).nnz == 0)

"""Incomplete Cholesky factors without fill, plain and modified, compiled; imported only where one is made."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy.sparse import csc_array, csr_array, tril

from pdelab.errors import InputError

SHIFTS = (0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Relative shifts of the diagonal that are tried in turn."""

NEGLIGIBLE = 1e-10
"""Pivots below this part of the diagonal are zero to round-off: the matrix has a kernel, as with pure Neumann walls."""


@dataclass(frozen=True, eq=False)
class IncompleteCholesky:
    """The factor L of L L^T ~ A on the pattern of A.

    Attributes:
        inverse: 1 / L_kk, (n,); 0 where the row of A is empty.
        start: where the columns of L begin in `rows`, (n + 1,).
        rows: row of each entry below the diagonal, ascending within a column.
        values: the entries of L below the diagonal.
        shift: L L^T approximates A + shift diag(A).
    """

    inverse: np.ndarray
    start: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    shift: float

    def solve(self, r: np.ndarray) -> np.ndarray:
        """The solution z (n,) of L L^T z = r; zero where the row of A is empty."""
        z = np.array(r, dtype=np.float64)
        _substitute(self.inverse, self.start, self.rows, self.values, z)
        return z


def factorise(A: csr_array, solver: str, *, relaxation: float, guard: float) -> IncompleteCholesky:
    """Incomplete Cholesky factor of a symmetric matrix on its own pattern, IC(0) or MIC(0).

    Fill outside the pattern is dropped; `relaxation` times it is added to the diagonal entries of its row and its
    column, so that with 1 the factor has the row sums of A. With guard > 0 a pivot below guard a_kk is replaced by
    a_kk. If a pivot is negative, the factorisation starts again with a larger diagonal.

    Args:
        A: (n, n) symmetric; only what lies on and below the diagonal is read. Empty rows are left out.
        solver: for error messages.
        relaxation: 0 for IC(0), up to 1 for MIC(0).
        guard: smallest pivot that is used, relative to the diagonal entry.

    Raises:
        InputError: a diagonal entry of a row that is not empty is not positive, or no shift of the diagonal helps.

    Source: Meijerink & van der Vorst, Math. Comp. 31 (1977) 148-162; Gustafsson, BIT 18 (1978) 142-156; Bridson,
    Fluid Simulation for Computer Graphics, 2nd ed., CRC Press 2015, section 5.4 (the guard); Manteuffel,
    Math. Comp. 34 (1980) 473-497 (the shift).
    """
    below = csc_array(tril(A, k=-1))
    below.sum_duplicates()
    below.eliminate_zeros()
    diagonal = A.diagonal().astype(np.float64)
    touched = np.zeros(A.shape[0], dtype=bool)
    touched[below.indices] = True
    touched |= np.diff(below.indptr) > 0
    bad = np.flatnonzero((diagonal < 0) | (touched & (diagonal <= 0)))
    if bad.size:
        raise InputError(
            f"{solver} needs a positive definite matrix, but the diagonal entry of row {bad[0]} is "
            f"{diagonal[bad[0]]:g}; use the direct solver"
        )
    for shift in SHIFTS:
        values, inverse = below.data.astype(np.float64), np.empty_like(diagonal)
        failed = _factorise(
            (1.0 + shift) * diagonal, below.indptr, below.indices, values, inverse, relaxation, guard, NEGLIGIBLE
        )
        if failed < 0 and np.isfinite(values).all():
            return IncompleteCholesky(inverse, below.indptr, below.indices, values, shift)
    raise InputError(
        f"{solver}: the incomplete factorisation breaks down in row {failed} even with a diagonal {1 + SHIFTS[-1]:g} "
        "times as large; use amg or the direct solver"
    )


@numba.njit(cache=True)
def _factorise(diagonal, start, rows, values, inverse, relaxation, guard, negligible):  # type: ignore[no-untyped-def]
    """Factorise in place, column by column; the row that broke down, or -1."""
    n = diagonal.size
    pivots = diagonal.copy()
    for k in range(n):
        if diagonal[k] == 0.0:
            inverse[k] = 0.0
            continue
        pivot = pivots[k]
        if (guard > 0.0 and pivot < guard * diagonal[k]) or abs(pivot) <= negligible * diagonal[k]:
            pivot = diagonal[k]
        if not pivot > 0.0:
            return k
        inverse[k] = 1.0 / np.sqrt(pivot)
        end = start[k + 1]
        for p in range(start[k], end):
            values[p] *= inverse[k]
        for p in range(start[k], end):
            j = rows[p]
            pivots[j] -= values[p] * values[p]
            at, last = start[j], start[j + 1]
            for q in range(p + 1, end):
                i = rows[q]
                fill = values[p] * values[q]
                while at < last and rows[at] < i:
                    at += 1
                if at < last and rows[at] == i:
                    values[at] -= fill
                else:
                    pivots[i] -= relaxation * fill
                    pivots[j] -= relaxation * fill
    return -1


@numba.njit(cache=True)
def _substitute(inverse, start, rows, values, z):  # type: ignore[no-untyped-def]
    """Forward and backward substitution in place."""
    n = inverse.size
    for k in range(n):
        z[k] *= inverse[k]
        for p in range(start[k], start[k + 1]):
            z[rows[p]] -= values[p] * z[k]
    for k in range(n - 1, -1, -1):
        total = z[k]
        for p in range(start[k], start[k + 1]):
            total -= values[p] * z[rows[p]]
        z[k] = total * inverse[k]

"""Null spaces of linear systems: empty rows, and connected parts of a matrix on which the constants solve A x = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

ROW_SUM = 1e-12
"""Row sums below this part of the diagonal entry are zero."""

REACHABLE = (1e-12, 1e-6)
"""Least and largest relative residual from which on a right-hand side counts as one without solution."""


NO_SOLUTION = "b has no solution"
"""How the message of every contradiction begins."""


@dataclass(frozen=True, eq=False)
class NullSpace:
    """What of the kernel of A (n, n) its structure shows.

    Attributes:
        empty: rows without an entry other than zero, bool (n,).
        part: number of the connected part on which the constants are in the kernel, (n,) int; -1 where there is none.
        sizes: unknowns of each such part.
    """

    empty: np.ndarray
    part: np.ndarray
    sizes: np.ndarray

    def means(self, b: np.ndarray) -> np.ndarray:
        """Mean of b (n,) over each part with constants in the kernel, one number per part."""
        inside = self.part >= 0
        return np.asarray(np.bincount(self.part[inside], weights=b[inside], minlength=self.sizes.size) / self.sizes)

    def without_means(self, b: np.ndarray) -> np.ndarray:
        """b (n,) minus its mean over each part; b itself where there is no such part."""
        if not self.sizes.size:
            return b
        return np.asarray(b - np.append(self.means(b), 0.0)[self.part])


def null_space(A: csr_array) -> NullSpace:
    """Find empty rows, and the connected parts of a symmetric A on which the constants are in the kernel.

    Costs a few products with A at most; matrices without row of sum zero cost one.
    """
    if not A.has_canonical_format or not A.data.all():
        A = A.copy()
        A.sum_duplicates()
        A.eliminate_zeros()
    empty = np.diff(A.indptr) == 0
    none = NullSpace(empty, np.full(A.shape[0], -1), np.zeros(0, dtype=np.int64))
    balanced = ~empty & (np.abs(A.sum(axis=1)) <= ROW_SUM * np.abs(A.diagonal()))
    if not balanced.any():
        return none
    n_parts, label = connected_components(A, directed=False)
    whole = np.bincount(label, weights=balanced, minlength=n_parts) == np.bincount(label, minlength=n_parts)
    if not whole.any() or not _symmetric(A):
        return none
    number = np.where(whole, np.cumsum(whole) - 1, -1)
    return NullSpace(empty, number[label], np.bincount(label, minlength=n_parts)[whole])


def contradiction(kernel: NullSpace, b: np.ndarray, tolerance: float) -> str:
    """Why A x = b has no solution, as far as the null space tells; empty if it may have one.

    Where constants are in the kernel, no x leaves a smaller residual than the mean of b there: b is refused if that is
    above the tolerance, relative to |b|, or above 1e-6 of it whatever the tolerance.

    Args:
        kernel: the null space of A.
        b: right-hand side (n,), not zero.
        tolerance: relative residual that is wanted.
    """
    wrong = np.flatnonzero(kernel.empty & (b != 0))
    if wrong.size:
        more = f", as in {wrong.size - 1} other rows" if wrong.size > 1 else ""
        return f"{NO_SOLUTION}: row {wrong[0]} of A is empty, but b is {b[wrong[0]]:g} there{more}; set it to 0"
    if not kernel.sizes.size:
        return ""
    means = kernel.means(b)
    least = float(np.sqrt(np.sum(kernel.sizes * means**2)) / np.linalg.norm(b))
    if least <= min(max(tolerance, REACHABLE[0]), REACHABLE[1]):
        return ""
    worst = int(np.argmax(kernel.sizes * means**2))
    where = "all unknowns"
    if kernel.sizes[worst] < b.size:
        first = int(np.argmax(kernel.part == worst))
        where = f"the {kernel.sizes[worst]} unknowns connected with row {first}"
    return (
        f"{NO_SOLUTION}: the constants over {where} are in the kernel of A, but b sums there to "
        f"{means[worst] * kernel.sizes[worst]:.3g}; subtract its mean over them"
    )


def round_off(A: csr_array, x: np.ndarray, b: np.ndarray) -> float:
    """Relative residual of A x = b to which float64 rounds: eps (|A|_inf |x| + |b|) / |b|, Euclidean norms.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM 2002, section 7.1.
    """
    size = float(np.linalg.norm(b))
    largest = float(abs(A).sum(axis=1).max())
    return float(np.finfo(np.float64).eps) * (largest * float(np.linalg.norm(x)) + size) / size


def _symmetric(A: csr_array) -> bool:
    skew = abs(A - A.T)
    return not skew.nnz or bool(skew.max() <= ROW_SUM * abs(A).max())

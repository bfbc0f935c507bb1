"""What the symmetric solvers ask of a matrix."""

from __future__ import annotations

from scipy.sparse import csr_array

from pdelab.errors import InputError


def check_symmetric(A: csr_array, solver: str) -> None:
    """Refuse A if it is not symmetric to 1e-8 of its largest entry.

    Raises:
        InputError: with the largest difference.
    """
    skew = abs(A - A.T)
    worst = skew.max() if skew.nnz else 0.0
    if worst > 1e-8 * abs(A).max():
        raise InputError(
            f"{solver} needs a symmetric matrix, but |A - A^T| is up to {worst:.2e}; use the direct solver"
        )

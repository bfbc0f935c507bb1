"""The check of symmetry that the solvers for symmetric matrices share."""

from __future__ import annotations

from scipy.sparse import csr_array

from pdelab.errors import InputError


def asymmetry(A: csr_array) -> float:
    """Largest entry of |A - A^T|."""
    skew = abs(A - A.T)
    return float(skew.max()) if skew.nnz else 0.0


def check_symmetric(A: csr_array, solver: str) -> None:
    """Refuse matrices that are not symmetric to 1e-8 of their largest entry.

    Raises:
        InputError: A is not symmetric; the message names the solver.
    """
    worst = asymmetry(A)
    if worst > 1e-8 * abs(A).max():
        raise InputError(
            f"{solver} needs a symmetric matrix, but |A - A^T| is up to {worst:.2e}; use the direct solver"
        )

"""Conjugate gradients without preconditioner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.errors import check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._conjugate_gradients import conjugate_gradients


@dataclass(frozen=True)
class CG(AbstractLinearSolver[csr_array]):
    """Conjugate gradients: one product with A per iteration, for symmetric positive definite matrices.

    The error in the energy norm falls at least by (sqrt(c) - 1)/(sqrt(c) + 1) per iteration, c the condition number
    of A: about 2 n iterations for Poisson's equation on an n x n grid.

    Args:
        tolerance: relative residual, > 0.
        max_iterations: when to give up.

    Source: Hestenes & Stiefel, J. Res. Nat. Bur. Standards 49 (1952) 409-436.
    """

    tolerance: float = 1e-10
    max_iterations: int = 10_000

    name: ClassVar[str] = "cg"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)
        check_range("max_iterations", self.max_iterations, least=1)

    def init(self, A: csr_array) -> csr_array:
        """The matrix itself."""
        return A

    def compute(self, state: csr_array, b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        return conjugate_gradients(state, b, lambda r: r, self.tolerance, self.max_iterations)

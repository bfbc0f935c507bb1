"""Conjugate gradients preconditioned by incomplete Cholesky factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.errors import check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._conjugate_gradients import conjugate_gradients
from pdelab.solvers.linear._symmetry import check_symmetric


@dataclass(frozen=True)
class ICCG(AbstractLinearSolver[Any]):
    """Conjugate gradients with incomplete Cholesky factors on the pattern of A, IC(0), as preconditioner.

    For symmetric positive definite matrices; iterations grow as those of plain conjugate gradients, about a third
    of them. Empty rows are passed through.

    Args:
        tolerance: relative residual, > 0.
        max_iterations: when to give up.

    Source: Meijerink & van der Vorst, Math. Comp. 31 (1977) 148-162.
    """

    tolerance: float = 1e-10
    max_iterations: int = 10_000

    name: ClassVar[str] = "ic-cg"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)
        check_range("max_iterations", self.max_iterations, least=1)

    def init(self, A: csr_array) -> tuple[csr_array, Any]:
        """The matrix and its factor.

        Raises:
            InputError: A is not symmetric (to 1e-8 of its largest entry), or its diagonal is not positive.
        """
        from pdelab.solvers.linear._incomplete_cholesky import factorise

        check_symmetric(A, self.name)
        return A, factorise(A, self.name, relaxation=0.0, guard=0.0)

    def compute(self, state: tuple[csr_array, Any], b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        A, factor = state
        return conjugate_gradients(A, b, factor.solve, self.tolerance, self.max_iterations)

    def apply(self, state: tuple[csr_array, Any], r: np.ndarray) -> np.ndarray:
        """Both triangular solves, r (n,) -> (n,)."""
        return np.asarray(state[1].solve(r))

"""Conjugate gradients preconditioned by modified incomplete Cholesky factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.errors import check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._conjugate_gradients import conjugate_gradients
from pdelab.solvers.linear._symmetry import check_symmetric

GUARD = 0.25
"""Pivots below this part of the diagonal entry are replaced by it."""


@dataclass(frozen=True)
class MICCG(AbstractLinearSolver[Any]):
    """Conjugate gradients with modified incomplete Cholesky factors, MIC(0), as preconditioner.

    The fill that IC(0) drops is added to the diagonal, for the most part: for Poisson's equation on a grid of n cells
    on each axis the iterations then grow as sqrt(n), not as n. For symmetric positive definite matrices, best those
    with positive diagonal and couplings <= 0. Empty rows are passed through.

    Args:
        tolerance: relative residual, > 0.
        max_iterations: when to give up.
        relaxation: which part of the dropped fill goes to the diagonal, 0 <= relaxation <= 1; 0 is IC(0) with a
            guard of the pivots.

    Source: Gustafsson, BIT 18 (1978) 142-156; Bridson, Fluid Simulation for Computer Graphics, 2nd ed., CRC Press
    2015, section 5.4.
    """

    tolerance: float = 1e-10
    max_iterations: int = 10_000
    relaxation: float = 0.97

    name: ClassVar[str] = "mic-cg"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)
        check_range("max_iterations", self.max_iterations, least=1)
        check_range("relaxation", self.relaxation, least=0.0, most=1.0)

    def init(self, A: csr_array) -> tuple[csr_array, Any]:
        """The matrix and its factor.

        Raises:
            InputError: A is not symmetric (to 1e-8 of its largest entry), or its diagonal is not positive.
        """
        from pdelab.solvers.linear._incomplete_cholesky import factorise

        check_symmetric(A, self.name)
        return A, factorise(A, self.name, relaxation=self.relaxation, guard=GUARD)

    def compute(self, state: tuple[csr_array, Any], b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        A, factor = state
        return conjugate_gradients(A, b, factor.solve, self.tolerance, self.max_iterations)

    def apply(self, state: tuple[csr_array, Any], r: np.ndarray) -> np.ndarray:
        """Both triangular solves, r (n,) -> (n,)."""
        return np.asarray(state[1].solve(r))

"""The linear solver that measurements recommend for the structure of a matrix."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.errors import InputError, check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._symmetry import asymmetry
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.dcdm import DCDM
from pdelab.solvers.linear.direct import Direct
from pdelab.solvers.linear.fast_poisson import FastPoisson
from pdelab.solvers.linear.multigrid import Multigrid

SMALL = 20_000
"""Unknowns up to which a factorisation is the fastest, one right-hand side and set-up counted."""


@dataclass(frozen=True)
class Auto(AbstractLinearSolver[tuple[AbstractLinearSolver[Any], Any, str]]):
    """The solver that was the fastest on matrices of the same structure; it says which and why in the message.

    Boxes without obstacles and with coefficients that allow it: fast transforms. Grids with obstacles: the learned
    cycle in the plane, plain multigrid in space, which needs less set-up. Small or unsymmetric matrices: a
    factorisation. Other symmetric ones with a positive diagonal: algebraic multigrid.

    Args:
        tolerance: relative residual, > 0.
    """

    tolerance: float = 1e-9

    name: ClassVar[str] = "auto"

    def __post_init__(self) -> None:
        """Check the tolerance."""
        check_range("tolerance", self.tolerance, above=0.0)

    def init(self, A: csr_array) -> tuple[AbstractLinearSolver[Any], Any, str]:
        """The chosen solver, its state and the reason."""
        solver, state, reason = choose(A, self.tolerance)
        return solver, state, f"{solver.name}, because {reason}"

    def compute(self, state: tuple[AbstractLinearSolver[Any], Any, str], b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        return self.compute_batch(state, b[:, None])[0]

    def compute_batch(self, state: tuple[AbstractLinearSolver[Any], Any, str], B: np.ndarray) -> list[LinearResult]:
        """As the chosen solver does it."""
        solver, inner, reason = state
        return [
            dataclasses.replace(result, message=f"{reason}; {result.message}" if result.message else reason)
            for result in solver.compute_batch(inner, B)
        ]

    def apply(self, state: tuple[AbstractLinearSolver[Any], Any, str], r: np.ndarray) -> np.ndarray:
        """As the chosen solver does it."""
        return state[0].apply(state[1], r)


def choose(A: csr_array, tolerance: float) -> tuple[AbstractLinearSolver[Any], Any, str]:
    """The solver for A, its state and why it was chosen, as the end of a sentence."""
    if asymmetry(A) > 1e-8 * abs(A).max():
        return _made(Direct(tolerance), A, "the matrix is not symmetric")
    if float(A.diagonal().min()) < 0:
        return _made(Direct(tolerance), A, "the matrix is not positive definite")
    try:
        return _made(FastPoisson(tolerance), A, "the matrix is a sum of one along each axis of a box")
    except InputError:
        pass
    n = A.shape[0]
    for solver in (DCDM(tolerance), Multigrid(tolerance)):
        if n <= SMALL:
            break
        try:
            made = solver.init(A)
        except InputError:
            continue
        in_space = made[0].d == 3
        if in_space == (solver.name == "multigrid"):
            return solver, made, f"it is a grid of {made[0].d} axes with obstacles or coefficients, {n} cells"
    if n <= SMALL:
        return _made(Direct(tolerance), A, f"{n} rows are few enough to factorise")
    return _made(AMG(tolerance), A, f"it is symmetric, no grid, with {n} rows")


def _made(solver: Any, A: csr_array, reason: str) -> tuple[AbstractLinearSolver[Any], Any, str]:
    return solver, solver.init(A), reason

"""Conjugate gradients preconditioned by algebraic multigrid."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.compatibility import NullSpace, null_space
from pdelab.errors import check_choice, check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._conjugate_gradients import conjugate_gradients
from pdelab.solvers.linear._symmetry import check_symmetric

Cycle = Callable[[np.ndarray], np.ndarray]

COARSENINGS = ("smoothed-aggregation", "ruge-stuben")


@dataclass(frozen=True)
class AMG(AbstractLinearSolver[tuple[csr_array, Cycle]]):
    """Conjugate gradients with one algebraic multigrid V-cycle (PyAMG) as preconditioner.

    For symmetric positive definite matrices of elliptic problems: about 10 to 25 iterations whatever their size.

    Args:
        tolerance: relative residual, > 0.
        max_iterations: when to give up.
        coarsening: "smoothed-aggregation" (the rule) or "ruge-stuben" (M-matrices, strongly varying coefficients).

    Source: Vanek, Mandel & Brezina, Computing 56 (1996) 179-196; Bell, Olson & Schroder, JOSS 7 (2022) 4142.
    """

    tolerance: float = 1e-10
    max_iterations: int = 200
    coarsening: str = "smoothed-aggregation"

    name: ClassVar[str] = "amg"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)
        check_range("max_iterations", self.max_iterations, least=1)
        check_choice("coarsening", self.coarsening, COARSENINGS)

    def init(self, A: csr_array) -> tuple[csr_array, Cycle]:
        """The matrix and a V-cycle of its multigrid hierarchy; empty rows are left out of it.

        Raises:
            InputError: A is not symmetric (to 1e-8 of its largest entry).
        """
        import pyamg
        from scipy.sparse import csr_matrix

        check_symmetric(A, self.name)
        kernel = null_space(A)
        kept = ~kernel.empty
        if not kept.any():
            return A, np.zeros_like
        inner = A if kept.all() else csr_array(A[kept][:, kept])
        build = (
            pyamg.smoothed_aggregation_solver if self.coarsening == "smoothed-aggregation" else pyamg.ruge_stuben_solver
        )
        # PyAMG compares with fixed small numbers: it gets entries up to 1, by a power of two, which rounds nothing.
        exponent = int(np.frexp(abs(inner).max())[1])
        inner = csr_array((np.ldexp(inner.data, -exponent), inner.indices, inner.indptr), inner.shape)
        with _fixed_global_stream():
            cycle = functools.partial(_scaled, build(csr_matrix(inner)).aspreconditioner().matvec, exponent)
        singular = kernel.sizes.size or not kept.all()
        return A, functools.partial(_cycle_across, cycle, kernel) if singular else cycle

    def compute(self, state: tuple[csr_array, Cycle], b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        A, cycle = state
        return conjugate_gradients(A, b, cycle, self.tolerance, self.max_iterations)

    def apply(self, state: tuple[csr_array, Cycle], r: np.ndarray) -> np.ndarray:
        """One V-cycle, r (n,) -> (n,)."""
        return np.asarray(state[1](r))


def _scaled(cycle: Cycle, exponent: int, r: np.ndarray) -> np.ndarray:
    return np.ldexp(cycle(r), -exponent)


def _cycle_across(cycle: Cycle, kernel: NullSpace, r: np.ndarray) -> np.ndarray:
    """A cycle across the null space: round-off on the coarsest grid would bring large constants."""
    z, kept = np.zeros_like(r), ~kernel.empty
    z[kept] = cycle(kernel.without_means(r)[kept])
    return kernel.without_means(z)


@contextlib.contextmanager
def _fixed_global_stream() -> Iterator[None]:
    """PyAMG estimates spectral radii from NumPy's global stream: the same matrix shall give the same hierarchy."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(20311)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002

"""The conjugate gradient loop that the symmetric solvers share; they differ in the preconditioner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from pdelab.linear import LinearResult
from pdelab.solution import Status


def conjugate_gradients(
    A: csr_array,
    b: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
    max_iterations: int,
) -> LinearResult:
    """Preconditioned conjugate gradients from x = 0; A and the preconditioner symmetric positive definite.

    Stops when the recursive residual is below tolerance |b|; then the true one is formed, and if it is larger the
    iteration starts again from it, so that round-off cannot pretend convergence.

    Source: Saad, Iterative Methods for Sparse Linear Systems, 2nd ed., SIAM 2003, algorithm 9.1.
    """
    x, r, size = np.zeros_like(b), b.copy(), float(np.linalg.norm(b))
    z = precondition(r)
    p, rz = z, float(r @ z)
    history = [1.0]
    status, message = Status.MAX_ITERATIONS, f"{max_iterations} iterations spent"
    for _ in range(max_iterations):
        q = A @ p
        curvature = float(p @ q)
        if not (curvature > 0 and rz > 0):
            status, message = Status.LINEAR_SOLVE_FAILED, "the matrix is not positive definite; use the direct solver"
            break
        alpha = rz / curvature
        x = x + alpha * p
        r = r - alpha * q
        history.append(float(np.linalg.norm(r)) / size)
        restart = history[-1] <= tolerance
        if restart:
            r = b - A @ x
            history[-1] = float(np.linalg.norm(r)) / size
            if history[-1] <= tolerance:
                status, message = Status.CONVERGED, ""
                break
        z = precondition(r)
        rz_old, rz = rz, float(r @ z)
        p = z if restart else z + rz / rz_old * p
    return LinearResult(x, status, message, tuple(history), {"iterations": len(history) - 1})

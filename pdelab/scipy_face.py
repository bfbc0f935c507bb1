"""Linear solvers as SciPy knows them: preconditioners, and functions with the signature of `cg`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator

from pdelab.errors import InputError
from pdelab.linear import AbstractLinearSolver, linear_solve


def preconditioner(A: Any, solver: AbstractLinearSolver[Any]) -> LinearOperator:
    """What approximates A^-1, (n, n): a cycle, a pair of triangular solves, or a whole solve; set up once.

    Args:
        A: sparse matrix (n, n).
        solver: whose `apply` is used.
    """
    A = csr_array(A).astype(np.float64)
    state = solver.init(A)

    def matvec(r: np.ndarray) -> np.ndarray:
        return solver.apply(state, np.ascontiguousarray(r, dtype=np.float64).reshape(-1))

    return LinearOperator(A.shape, matvec=matvec, rmatvec=matvec, dtype=np.float64)


def scipy_function(solver: AbstractLinearSolver[Any]) -> Callable[..., tuple[np.ndarray, int]]:
    """A function that is called like `scipy.sparse.linalg.cg` and solves with `solver`.

    It returns (x, info); info is 0 if |b - A x| <= max(rtol |b|, atol), else the number of iterations, at least 1.
    """

    def solve(
        A: Any,
        b: np.ndarray,
        x0: np.ndarray | None = None,
        *,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        M: Any = None,
        callback: Callable[[np.ndarray], None] | None = None,
    ) -> tuple[np.ndarray, int]:
        """Solve A x = b; `callback` is called once, with the answer.

        Raises:
            InputError: M is given; choose a solver with the preconditioner instead.
        """
        if M is not None:
            raise InputError(f"M: {solver.name} has its own preconditioner; leave M out, or pass one to scipy's cg")
        b = np.asarray(b, dtype=np.float64).reshape(-1)
        start = np.zeros_like(b) if x0 is None else np.asarray(x0, dtype=np.float64).reshape(-1)
        r = b - A @ start if x0 is not None else b
        goal, size = max(rtol * float(np.linalg.norm(b)), atol), float(np.linalg.norm(r))
        if size <= goal:
            return start, 0
        settings: dict[str, Any] = {"tolerance": goal / size}
        if maxiter is not None and hasattr(solver, "max_iterations"):
            settings["max_iterations"] = maxiter
        result = linear_solve(A, r, dataclasses.replace(solver, **settings))  # type: ignore[type-var]
        x = start + result.x
        if callback is not None:
            callback(x)
        return x, 0 if result.status.ok else max(1, int(result.stats.get("iterations", 1)))

    solve.__name__ = solver.name.replace("-", "_")
    return solve

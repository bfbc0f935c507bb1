"""Linear solvers as SciPy knows them: preconditioners and functions of A and b."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from pdelab.errors import InputError, check_range, check_shape
from pdelab.linear import AbstractLinearSolver, checked_matrix, linear_solve, named_solver


def preconditioner(A: Any, solver: AbstractLinearSolver[Any] | str | Mapping[str, Any]) -> LinearOperator:
    """The approximate inverse of A that the solver applies once, for the argument M of SciPy's iterative solvers.

    Args:
        A: square real matrix (n, n), any scipy.sparse format.
        solver: with which settings; also a registered name, or {"name": ..., setting: value}. Its `apply` is used: a
            cycle or a pair of triangular solves, else a whole solve.

    Returns:
        Operator (n, n); its set-up is done once, here.

    Raises:
        InputError: A is not square, has entries that are complex or not finite, or is refused by the solver.
    """
    method, matrix = named_solver(solver), checked_matrix(A)
    state = method.init(matrix)

    def apply(r: np.ndarray) -> np.ndarray:
        r = np.asarray(r, dtype=np.float64).ravel()
        return method.apply(state, r) if r.any() else np.zeros_like(r)

    return LinearOperator(matrix.shape, matvec=apply, dtype=np.float64)


def scipy_function(
    solver: AbstractLinearSolver[Any] | str | Mapping[str, Any],
) -> Callable[..., tuple[np.ndarray, int]]:
    """A function that is called, and answers, as `scipy.sparse.linalg.cg`.

    Args:
        solver: with which settings; also a registered name, or {"name": ..., setting: value}.

    Returns:
        function(A, b, x0=None, *, rtol=1e-5, atol=0.0, maxiter=None, M=None, callback=None) -> (x, info).
        x (n,) has |b - A x| <= max(rtol |b|, atol) and info is 0, or info is the number of iterations after which
        that was not reached, at least 1. `maxiter` counts where the solver has `max_iterations`. `callback` is called
        once, with the final x. A solver brings its own preconditioner: M other than None is an InputError.
    """
    method = named_solver(solver)

    def function(
        A: Any,
        b: np.ndarray,
        x0: np.ndarray | None = None,
        *,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        M: Any = None,
        callback: Callable[[np.ndarray], Any] | None = None,
    ) -> tuple[np.ndarray, int]:
        if M is not None:
            raise InputError(f"M: {method.name} has a preconditioner of its own, expected None; or use scipy's cg")
        if isinstance(A, LinearOperator):
            raise InputError(f"A: {method.name} needs the entries of a sparse matrix, got a LinearOperator")
        check_range("rtol", rtol, least=0.0)
        check_range("atol", atol, least=0.0)
        matrix, b = checked_matrix(A), np.asarray(b)
        n = matrix.shape[0]
        b = b.ravel() if b.shape == (n, 1) else b
        check_shape("b", b, (n,))
        start = np.zeros(n) if x0 is None else np.array(x0, dtype=np.float64).ravel()
        check_shape("x0", start, (n,))
        wanted = max(rtol * float(np.linalg.norm(b)), atol)
        rest = b - matrix @ start if start.any() else b
        size = float(np.linalg.norm(rest))
        x, info = start, 0
        if size > wanted:
            result = linear_solve(matrix, rest, _with(method, max(wanted / size, np.finfo(float).tiny), maxiter))
            x = start + result.x
            info = 0 if result.status.ok else max(1, int(result.stats.get("iterations", 1)))
        if callback is not None:
            callback(x)
        return x, info

    return function


def _with(solver: AbstractLinearSolver[Any], tolerance: float, max_iterations: int | None) -> AbstractLinearSolver[Any]:
    """The solver with these settings, as far as it has them."""
    asked = {"tolerance": tolerance} | ({} if max_iterations is None else {"max_iterations": int(max_iterations)})
    if not dataclasses.is_dataclass(solver):
        return solver
    fields = [f.name for f in dataclasses.fields(solver) if f.init]
    return dataclasses.replace(solver, **{key: value for key, value in asked.items() if key in fields})

"""Linear systems A x = b with a sparse matrix: the contract of the solvers, and the driver that judges them."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.compatibility import NO_SOLUTION, contradiction, null_space, round_off
from pdelab.errors import InputError, SettingsError, ShapeError, check_shape
from pdelab.solution import Status

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class LinearResult:
    """The answer to one right-hand side.

    Attributes:
        x: the solution, (n,).
        status: how it ended; the driver overrules a solver that claims too much.
        message: one line on the particular case; may be empty.
        residuals: relative residual norms |b - A x_k| / |b|, the first guess first; empty for direct solvers.
        stats: numbers: iterations, and from the driver residual (the true one), setup_s, solve_s (CPU seconds).
    """

    x: np.ndarray
    status: Status = Status.CONVERGED
    message: str = ""
    residuals: tuple[float, ...] = ()
    stats: Mapping[str, float] = field(default_factory=dict)


class AbstractLinearSolver(abc.ABC, Generic[State]):
    """Solves A x = b; whatever depends on the matrix alone is the state, made once for many right-hand sides.

    Concrete solvers are frozen dataclasses; their fields are the settings, `tolerance` among them.
    """

    name: ClassVar[str]
    tolerance: float
    """Largest relative residual |b - A x| / |b| (Euclidean norms) that counts as solved."""

    @abc.abstractmethod
    def init(self, A: csr_array) -> State:
        """Factorisation, preconditioner or whatever A alone decides; A is square with finite entries."""

    @abc.abstractmethod
    def compute(self, state: State, b: np.ndarray) -> LinearResult:
        """Solve for one right-hand side (n,), finite and not zero; must not change `state` or `b`."""

    def compute_batch(self, state: State, B: np.ndarray) -> list[LinearResult]:
        """Solve for the columns of B (n, k), each finite and not zero; one after the other unless overridden."""
        return [self.compute(state, np.ascontiguousarray(b)) for b in B.T]

    def apply(self, state: State, r: np.ndarray) -> np.ndarray:
        """One application to r (n,) as a preconditioner: a cycle or a pair of triangular solves, else a whole solve."""
        return self.compute(state, r).x

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """As a setting of something else: an object, a registered name, or {"name": ..., setting: value}."""
        if source is not AbstractLinearSolver:
            return handler(source)
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(named_solver)


def linear_solve(
    A: Any,
    b: np.ndarray,
    solver: AbstractLinearSolver[Any] | str | Mapping[str, Any],
    *,
    state: Any = None,
) -> LinearResult:
    """Solve A x = b and judge the answer by its true residual.

    Where the constants over a connected part of a symmetric A are in its kernel, x has mean zero there; b must have
    mean zero, too, else there is no solution. In empty rows b must be 0, and x is whatever the solver has there.

    Args:
        A: square real matrix (n, n), any scipy.sparse format.
        b: real right-hand side (n,).
        solver: with which settings; also a registered name, or {"name": ..., setting: value}.
        state: what `solver.init(A)` returned for this very matrix; made here if None.

    Returns:
        The result; its status is CONVERGED only if |b - A x| <= tolerance |b|. Failures are not raised.

    Raises:
        InputError: A is not square, shapes differ, or an entry is complex or not finite.
    """
    solver, A = named_solver(solver), checked_matrix(A)
    b = _real("b", b)
    check_shape("b", b, (A.shape[0],))
    return _solve(A, b[:, None], solver, state)[0]


def linear_solve_batch(
    A: Any,
    B: np.ndarray,
    solver: AbstractLinearSolver[Any] | str | Mapping[str, Any],
    *,
    state: Any = None,
) -> list[LinearResult]:
    """Solve A X = B for all columns with one set-up; each is judged as by `linear_solve`.

    Args:
        A: square real matrix (n, n), any scipy.sparse format.
        B: real right-hand sides (n, k).
        solver: with which settings; also a registered name, or {"name": ..., setting: value}.
        state: what `solver.init(A)` returned for this very matrix; made here if None.

    Returns:
        One result per column. The CPU seconds in `stats` are those of the whole batch.

    Raises:
        InputError: A is not square, shapes differ, or an entry is complex or not finite.
    """
    solver, A = named_solver(solver), checked_matrix(A)
    B = _real("B", B)
    check_shape("B", B, (A.shape[0], None))
    return _solve(A, B, solver, state)


def checked_matrix(A: Any) -> csr_array:
    """A (n, n) as compressed rows of float64, columns ascending and each entry once.

    Raises:
        InputError: A is not square, or an entry is complex or not finite.
    """
    A = A if hasattr(A, "ndim") else np.asarray(A)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ShapeError(f"A: expected a square matrix, got shape {A.shape}")
    matrix = csr_array(A)
    _real("A", matrix.data)
    matrix = matrix.astype(np.float64, copy=False)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def _real(what: str, given: Any) -> np.ndarray:
    entries = np.asarray(given)
    if entries.dtype.kind == "c":
        raise InputError(
            f"{what}: expected real entries, got {entries.dtype}; solve for the real and the imaginary part as one "
            "system of twice the size"
        )
    if entries.dtype.kind not in "fiub":
        raise InputError(f"{what}: expected numbers, got entries of type {entries.dtype}")
    real: np.ndarray = entries.astype(np.float64, copy=False)
    if not np.isfinite(real).all():
        raise InputError(f"{what}: {int((~np.isfinite(real)).sum())} of {real.size} entries are not finite")
    return real


def _solve(A: csr_array, B: np.ndarray, solver: AbstractLinearSolver[Any], state: Any) -> list[LinearResult]:
    """Solve for the columns of B that are not zero and have a solution, and judge all."""
    start = time.process_time()
    kernel = null_space(A)
    if state is None and A.shape[0]:
        state = solver.init(A)
    exponents = [_exponent(b) for b in B.T]
    if any(exponents):
        B = np.ldexp(B, -np.array(exponents))
    ready = time.process_time()
    results: list[LinearResult | None] = [None] * B.shape[1]
    for k, b in enumerate(B.T):
        why = contradiction(kernel, b, solver.tolerance) if b.any() else ""
        if why or not b.any():
            status = Status.LINEAR_SOLVE_FAILED if why else Status.CONVERGED
            results[k] = LinearResult(np.zeros(b.size), status, why, stats={"iterations": 0})
    open_ = [k for k, result in enumerate(results) if result is None]
    if len(open_) == 1:
        results[open_[0]] = solver.compute(state, np.array(kernel.without_means(B[:, open_[0]])))
    elif open_:
        wanted = np.column_stack([kernel.without_means(B[:, k]) for k in open_])
        for k, result in zip(open_, solver.compute_batch(state, wanted), strict=True):
            results[k] = result
    done = time.process_time()
    seconds = {"setup_s": ready - start, "solve_s": done - ready}
    judged = [
        _judged(A, b, replace(result, x=kernel.without_means(result.x)), solver.tolerance, seconds)
        for b, result in zip(B.T, results, strict=True)
        if result is not None
    ]
    return [replace(r, x=np.ldexp(r.x, e)) if e else r for r, e in zip(judged, exponents, strict=True)]


def _exponent(b: np.ndarray) -> int:
    """Power of two to divide b by where the squares of its entries would overflow or vanish, else 0."""
    exponent = int(np.frexp(np.abs(b).max(initial=0.0))[1])
    return exponent if abs(exponent) > 300 else 0


def named_solver(value: Any) -> AbstractLinearSolver[Any]:
    """A solver from itself, its registered name, or {"name": ..., setting: value}.

    Raises:
        SettingsError: none of these, or a setting is wrong.
        UnknownName: no linear solver of that name.
    """
    from pdelab import registry
    from pdelab.config import build

    if isinstance(value, AbstractLinearSolver):
        return value
    values = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise SettingsError(f"linear solver: expected a name such as 'amg', or name and settings, got {value!r}")
    return build(registry.load("linear_solvers", name), values)


def _judged(
    A: csr_array, b: np.ndarray, result: LinearResult, tolerance: float, seconds: Mapping[str, float]
) -> LinearResult:
    size = float(np.linalg.norm(b))
    residual = float(np.linalg.norm(b - A @ result.x)) / size if size > 0 else 0.0
    result = replace(result, stats={**result.stats, "residual": residual, **seconds})
    if not np.isfinite(result.x).all() or not np.isfinite(residual):
        return replace(result, status=Status.NONFINITE, message=result.message or "the solution is not finite")
    if residual <= tolerance:
        return replace(result, status=Status.CONVERGED, message=result.message if result.status.ok else "")
    # Of a solver that knew of its failure the reason is kept.
    status = Status.LINEAR_SOLVE_FAILED if result.status.ok else result.status
    if result.message.startswith(NO_SOLUTION):
        return replace(result, status=Status.LINEAR_SOLVE_FAILED)
    reasons = [f"relative residual {residual:.2e}, wanted {tolerance:.0e}", result.message]
    reach = round_off(A, result.x, b)
    if residual <= 10 * reach:
        reasons.append(f"float64 cannot reach {tolerance:.0e} for this system, only about {reach:.0e}")
    return replace(result, status=status, message="; ".join(r for r in reasons if r))

"""Linear systems A x = b with a sparse matrix: the contract of the solvers, and the driver that judges them."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from scipy.sparse import csr_array

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

        return core_schema.no_info_plain_validator_function(find_linear_solver)


def linear_solve(
    A: Any, b: np.ndarray, solver: AbstractLinearSolver[Any] | str | Mapping[str, Any], *, state: Any = None
) -> LinearResult:
    """Solve A x = b and judge the answer by its true residual.

    Args:
        A: square sparse matrix (n, n), any scipy.sparse format.
        b: right-hand side (n,).
        solver: an object, a registered name such as "amg", or {"name": ..., setting: value}.
        state: what `solver.init(A)` returned for this very matrix; made here if None.

    Returns:
        The result; its status is CONVERGED only if |b - A x| <= tolerance |b|. Failures are not raised.

    Raises:
        InputError: A is not square, shapes differ, or an entry is complex or not finite.
        UnknownName: no such solver.
    """
    b = np.asarray(b)
    if b.ndim != 1:
        check_shape("b", b, (A.shape[0],))
    return linear_solve_batch(A, b[:, None], solver, state=state)[0]


def linear_solve_batch(
    A: Any, B: np.ndarray, solver: AbstractLinearSolver[Any] | str | Mapping[str, Any], *, state: Any = None
) -> list[LinearResult]:
    """The same for the columns of B (n, k), together where the solver can; `solve_s` is the mean over the columns."""
    solver = find_linear_solver(solver)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ShapeError(f"A: expected a square matrix, got shape {A.shape}")
    A, B = csr_array(A), np.asarray(B)
    if B.ndim != 2 or len(B) != A.shape[0]:
        raise ShapeError(f"b: expected shape ({A.shape[0]}), got ({', '.join(map(str, B.shape[:1]))})")
    for what, entries in (("A", A.data), ("b", B)):
        if np.iscomplexobj(entries):
            raise InputError(f"{what}: complex entries; solve for the real and imaginary parts, or use scipy's spsolve")
        if not np.isfinite(entries).all():
            raise InputError(f"{what}: {int((~np.isfinite(entries)).sum())} of {entries.size} entries are not finite")
    A, B = A.astype(np.float64), B.astype(np.float64)
    start = time.process_time()
    if state is None:
        state = solver.init(A)
    ready = time.process_time()
    sizes = np.linalg.norm(B, axis=0)
    posed = np.flatnonzero(sizes > 0)
    found = iter(solver.compute_batch(state, B[:, posed]) if len(posed) else [])
    seconds = (time.process_time() - ready) / max(1, len(posed))
    judged = []
    for b, size in zip(B.T, sizes, strict=True):
        result = next(found) if size > 0 else LinearResult(np.zeros(len(b)), stats={"iterations": 0})
        residual = float(np.linalg.norm(b - A @ result.x)) / size if size > 0 else 0.0
        stats = {**result.stats, "residual": residual, "setup_s": ready - start, "solve_s": seconds}
        judged.append(replace(result, stats=stats, **_judged(result, residual, solver.tolerance)))
    return judged


def find_linear_solver(value: Any) -> AbstractLinearSolver[Any]:
    """The object itself, or the solver of a registered name, or of {"name": ..., setting: value}.

    Raises:
        UnknownName: no such solver or setting; the nearest names are offered.
        SettingsError: a setting is of the wrong type or out of range.
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


def _judged(result: LinearResult, residual: float, tolerance: float) -> dict[str, Any]:
    if not np.isfinite(result.x).all() or not np.isfinite(residual):
        return {"status": Status.NONFINITE, "message": result.message or "the solution is not finite"}
    if residual <= tolerance:
        return {"status": Status.CONVERGED, "message": result.message if result.status.ok else ""}
    # Of a solver that knew of its failure the reason is kept.
    status = Status.LINEAR_SOLVE_FAILED if result.status.ok else result.status
    message = f"relative residual {residual:.2e}, wanted {tolerance:.0e}"
    return {"status": status, "message": f"{message}; {result.message}" if result.message else message}

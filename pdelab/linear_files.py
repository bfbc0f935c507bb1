"""Linear systems in files: Matrix Market, and the binary matrices, vectors and flags of grid solvers in C."""

from __future__ import annotations

import gzip
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import mmread, mmwrite
from scipy.sparse import coo_array, csr_array, issparse

from pdelab.errors import InputError, OutputError
from pdelab.files import write_bytes
from pdelab.linear import AbstractLinearSolver, LinearResult, checked_matrix, linear_solve, named_solver

FLAGS = (0, 1, 2, 3)
"""Flags of cells: 0 and 1 solid, 2 fluid, 3 air."""


@dataclass(frozen=True, eq=False)
class FileSolve:
    """A system that was read from files and solved.

    Attributes:
        solver: with which settings.
        reason: why it was chosen; empty if it was named.
        b: the right-hand side (n,).
        result: the answer.
    """

    solver: AbstractLinearSolver[Any]
    reason: str
    b: np.ndarray
    result: LinearResult


def solve_files(
    matrix: Path, vector: Path | None, solver: str, settings: Mapping[str, Any], tolerance: float | None
) -> FileSolve:
    """Read A and b and solve.

    Args:
        matrix: file of A, see `read_matrix`.
        vector: file of b, see `read_vector`; None: b = A times ones.
        solver: registered name.
        settings: of the solver.
        tolerance: relative residual; None leaves that of the solver.

    Raises:
        InputError: a file is missing, damaged or no square real system, or the solver refuses the matrix.
    """
    asked = {} if tolerance is None else {"tolerance": tolerance}
    method = named_solver({"name": solver, **settings, **asked})
    A = checked_matrix(read_matrix(matrix))
    b = _times_ones(A) if vector is None else read_vector(vector)
    if b.shape != (A.shape[0],):
        raise InputError(f"{vector}: expected {A.shape[0]} numbers, as many as {matrix} has rows, got {b.size}")
    start = time.process_time()
    state = method.init(A)
    seconds = time.process_time() - start
    result = linear_solve(A, b, method, state=state)
    stats = {**result.stats, "setup_s": result.stats["setup_s"] + seconds}
    chosen = getattr(state, "solver", method)
    return FileSolve(
        chosen,
        getattr(state, "reason", ""),
        b,
        LinearResult(result.x, result.status, result.message, result.residuals, stats),
    )


def read_matrix(path: Path) -> csr_array:
    """A square real matrix from .mtx, .mtx.gz (Matrix Market, any symmetry) or .bin.

    .bin is 5 int32 (rows, columns, entries, outer size, inner size), the entries as float32 or float64 by the size of
    the file, int32 where each of the outer-size rows begins, and int32 the column of each entry; little endian.

    Raises:
        InputError: the file is missing, damaged, complex, not square or not finite.
    """
    found = _binary_matrix(path) if path.suffix == ".bin" else csr_array(_market(path))
    if found.shape[0] != found.shape[1]:
        raise InputError(f"{path}: expected a square matrix, got shape {found.shape}")
    return _finite(path, found)


def read_vector(path: Path) -> np.ndarray:
    """A real vector (n,) from .mtx, .mtx.gz (n x 1 or 1 x n, array or coordinate) or .bin.

    .bin is the length as 8-byte integer and float64 numbers; little endian.

    Raises:
        InputError: the file is missing, damaged, complex, no vector or not finite.
    """
    if path.suffix == ".bin":
        return np.asarray(_finite(path, _counted(path, "<f8")))
    found = _market(path)
    array = np.asarray(found.toarray() if issparse(found) else found)
    if array.ndim != 2 or 1 not in array.shape:
        raise InputError(f"{path}: expected a vector, n x 1, got shape {array.shape}")
    return np.asarray(_finite(path, array.ravel()), dtype=np.float64)


def read_flags(path: Path) -> np.ndarray:
    """Flags of cells (n,), int32: 0 and 1 solid, 2 fluid, 3 air; the length as 8-byte integer comes first.

    Raises:
        InputError: the file is missing or damaged, or has other flags.
    """
    flags = _counted(path, "<i4")
    other = np.setdiff1d(flags, FLAGS)
    if other.size:
        raise InputError(f"{path}: expected flags 0 to 3 (0 and 1 solid, 2 fluid, 3 air), got {other[0]}")
    return flags


def check_free(path: Path, force: bool) -> None:
    """Refuse to write where something is, or where there is no folder.

    Raises:
        OutputError: the file exists and `force` is not given, or it cannot be made.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise OutputError(f"{path}: cannot be written: {'is a folder' if path.is_dir() else f'no {path.parent}'}")
    if path.exists() and not force:
        raise OutputError(f"{path}: exists; choose another file or give --force")


def write_vector(path: Path, x: np.ndarray) -> None:
    """Write x (n,) as Matrix Market array n x 1, all digits, compressed if the name ends in .gz; whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    text = io.BytesIO()
    mmwrite(text, np.asarray(x)[:, None], precision=17)
    data = text.getvalue()
    try:
        write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from None


def _times_ones(A: csr_array) -> np.ndarray:
    """Row sums, 0 where only round-off is left of them: noise may be no right-hand side of a closed box."""
    sums, sizes = A.sum(axis=1), abs(A).sum(axis=1)
    return np.where(np.abs(sums) <= 1e-14 * sizes, 0.0, sums)


def _market(path: Path) -> Any:
    _checked_name(path)
    try:
        found = mmread(io.BytesIO(gzip.decompress(_bytes(path))) if path.suffix == ".gz" else io.BytesIO(_bytes(path)))
    except InputError:
        raise
    except (ValueError, OverflowError, EOFError, OSError, StopIteration, TypeError, MemoryError) as error:
        raise InputError(f"{path}: cannot be read as Matrix Market: {error}; is the file whole?") from None
    return coo_array(found) if issparse(found) else found


def _checked_name(path: Path) -> None:
    if not path.name.endswith((".mtx", ".mtx.gz")):
        raise InputError(f"{path}: expected a name in .mtx, .mtx.gz (Matrix Market) or .bin")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _finite(path: Path, found: Any) -> Any:
    values = found.data if issparse(found) else found
    if values.dtype.kind == "c":
        raise InputError(f"{path}: expected real numbers, got complex ones")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{path}: {bad} of {values.size} entries are not finite")
    return found


def _binary_matrix(path: Path) -> csr_array:
    data = _bytes(path)
    if len(data) < 20:
        raise InputError(f"{path}: expected 5 int32 numbers first, got a file of {len(data)} bytes; is it whole?")
    rows, columns, entries, outer, inner = (int(k) for k in np.frombuffer(data, "<i4", 5))
    if min(rows, columns, entries, outer, inner) < 0 or outer != rows or inner != columns:
        raise InputError(
            f"{path}: no matrix by rows: {rows} rows, {columns} columns, {entries} entries, outer size {outer}, "
            f"inner size {inner}"
        )
    sizes = {20 + entries * (width + 4) + 4 * outer: width for width in (4, 8)}
    if len(data) not in sizes:
        wanted = " or ".join(str(size) for size in sizes)
        raise InputError(f"{path}: {entries} entries need {wanted} bytes (float32 or float64), got {len(data)}")
    width = sizes[len(data)]
    values = np.frombuffer(data, f"<f{width}", entries, 20)
    starts = np.frombuffer(data, "<i4", outer, 20 + width * entries)
    indices = np.frombuffer(data, "<i4", entries, 20 + width * entries + 4 * outer)
    pointers = np.append(starts, entries)
    if pointers[0] != 0 or (np.diff(pointers) < 0).any() or (entries and indices.min() < 0):
        raise InputError(f"{path}: the rows do not begin one after the other, or a column is negative")
    if entries and indices.max() >= columns:
        raise InputError(f"{path}: column {indices.max()} of {columns}")
    found = csr_array((values.astype(np.float64), indices.astype(np.int32), pointers.astype(np.int32)), (rows, columns))
    found.sum_duplicates()
    return found


def _counted(path: Path, kind: str) -> np.ndarray:
    data = _bytes(path)
    count = int(np.frombuffer(data, "<i8", 1)[0]) if len(data) >= 8 else -1
    wanted = 8 + count * np.dtype(kind).itemsize
    if count < 0 or len(data) != wanted:
        what = f"{count} numbers need {wanted} bytes" if count >= 0 else "expected the length as 8-byte integer first"
        raise InputError(f"{path}: {what}, got {len(data)}; is the file whole?")
    return np.frombuffer(data, kind, count, 8).copy()

"""Matrices and vectors in files: Matrix Market, and the binary form of the programs of Kaneda et al. and Lan et al."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp

from pdelab.errors import InputError, OutputError
from pdelab.files import write_bytes


def read_matrix(path: Path) -> sp.csr_array:
    """A square sparse matrix from .mtx, .mtx.gz (Matrix Market) or .bin.

    Raises:
        InputError: no such file, damaged, complex, or no square matrix.
    """
    A = read_binary_matrix(path) if path.suffix == ".bin" else sp.csr_array(_market(path))
    if A.shape[0] != A.shape[1]:
        raise InputError(f"{path}: expected a square matrix, got {A.shape[0]} x {A.shape[1]}")
    return A


def read_vector(path: Path) -> np.ndarray:
    """A vector (n,) from .mtx, .mtx.gz (n x 1 or 1 x n) or .bin.

    Raises:
        InputError: no such file, damaged, complex, or no vector.
    """
    if path.suffix == ".bin":
        return read_binary_vector(path)
    found = _market(path)
    dense = found.toarray() if sp.issparse(found) else np.asarray(found)
    if dense.ndim != 2 or 1 not in dense.shape:
        raise InputError(f"{path}: expected n x 1 entries, got {' x '.join(map(str, dense.shape))}")
    return np.asarray(dense, dtype=np.float64).ravel()


def write_vector(path: Path, x: np.ndarray) -> None:
    """Write x (n,) as an n x 1 array of Matrix Market, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, x[:, None], precision=17)
    try:
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from None


def read_binary_matrix(path: Path) -> sp.csr_array:
    """Matrix of rows, cols, nnz, outer and inner size (5 int32), values, row pointers without the last, columns.

    Values are float32 or float64, as the size of the file tells; pointers and columns are int32.

    Source: the programs of Kaneda et al., ICML 2023, and of Lan et al., ICML 2024.

    Raises:
        InputError: no such file, or its size or entries do not fit its head.
    """
    data = _bytes(path)
    if len(data) < 20:
        raise InputError(f"{path}: expected at least 20 bytes of head, got {len(data)}; the file is cut off")
    rows, columns, nnz, outer, _ = (int(n) for n in np.frombuffer(data, "<i4", 5))
    width = {20 + nnz * (w + 4) + 4 * outer: w for w in (4, 8)}.get(len(data))
    if min(rows, columns, nnz, outer) < 0 or outer != rows or width is None:
        raise InputError(
            f"{path}: {len(data)} bytes do not fit a {rows} x {columns} matrix of {nnz} entries; it is cut off"
        )
    values = np.frombuffer(data, f"<f{width}", nnz, 20).astype(np.float64)
    pointers = np.frombuffer(data, "<i4", outer, 20 + width * nnz)
    indices = np.frombuffer(data, "<i4", nnz, 20 + width * nnz + 4 * outer)
    ends = np.append(pointers, nnz)
    if (np.diff(ends) < 0).any() or (nnz and (indices.min() < 0 or indices.max() >= columns)):
        raise InputError(f"{path}: row pointers or columns are out of range; not a matrix of this form")
    return sp.csr_array((values, indices, ends), shape=(rows, columns))


def read_binary_vector(path: Path) -> np.ndarray:
    """Vector (n,) of a length (8 bytes) and float64 numbers.

    Raises:
        InputError: no such file, or of another size.
    """
    return _counted(path, "<f8")


def read_binary_cells(path: Path) -> np.ndarray:
    """Kinds of cells (n,) of a length (8 bytes) and int32 flags: `stencil.SOLID` for 0 and 1, FLUID for 2, AIR for 3.

    Raises:
        InputError: no such file, of another size, or with other flags.
    """
    flags = _counted(path, "<i4")
    if len(flags) and not (flags.min() >= 0 and flags.max() <= 3):
        raise InputError(f"{path}: expected flags 0 to 3, got {flags.min()} to {flags.max()}")
    return np.where(flags == 1, 0, flags)


def _counted(path: Path, kind: str) -> np.ndarray:
    data = _bytes(path)
    n = int(np.frombuffer(data, "<u8", 1)[0]) if len(data) >= 8 else -1
    if n < 0 or len(data) != 8 + n * np.dtype(kind).itemsize:
        raise InputError(f"{path}: {len(data)} bytes do not hold a length and {max(n, 0)} numbers; the file is cut off")
    return np.frombuffer(data, kind, n, 8).copy()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _market(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        found = scipy.io.mmread(path, spmatrix=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise InputError(f"{path}: not a Matrix Market file: {error}") from None
    if np.iscomplexobj(found.data if sp.issparse(found) else found):
        raise InputError(f"{path}: complex entries; only real systems are solved")
    return found

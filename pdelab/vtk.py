"""VTK XML files for ParaView: images (.vti), unstructured meshes (.vtu), lines (.vtp), time collections (.pvd).

Binary data is appended raw, little endian, in zlib blocks or plain. Every file appears whole or not at all.

Source: VTK file formats, XML formats with appended data, https://docs.vtk.org/en/latest/vtk_file_formats/.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from pdelab.errors import InputError, ShapeError, check_shape
from pdelab.files import write_bytes, write_text
from pdelab.mesh import Mesh

CELL_CODES = {"line": 3, "triangle": 5, "quad": 9, "tetra": 10, "triangle6": 22, "quad8": 23, "tetra10": 24}
"""VTK's number of each of our cell types; the local node order is the same."""

_BLOCK = 1 << 20
_TYPES = {"f8": "Float64", "i8": "Int64", "i4": "Int32", "u1": "UInt8"}


@dataclass(frozen=True)
class Grid:
    """A regular grid of points over a box of one to three dimensions, both ends of each axis included.

    Args:
        lower, upper: corners of the box.
        shape: number of points on each axis, at least 2.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the dimension."""
        if not 1 <= len(self.shape) <= 3 or not len(self.lower) == len(self.upper) == len(self.shape):
            raise ShapeError(f"grid: one to three axes needed, got {self.lower}, {self.upper}, {self.shape}")
        if min(self.shape) < 2:
            raise InputError(f"grid: at least 2 points on each axis needed, got {self.shape}")

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """The coordinates along each axis."""
        return tuple(np.linspace(a, b, n) for a, b, n in zip(self.lower, self.upper, self.shape, strict=True))

    @property
    def points(self) -> np.ndarray:
        """All points (N, d) in the order of VTK: the first coordinate runs fastest."""
        mesh = np.meshgrid(*self.axes, indexing="ij")
        return np.stack([m.ravel(order="F") for m in mesh], axis=1)

    @property
    def n_points(self) -> int:
        """Number of points N."""
        return math.prod(self.shape)


def write_vti(
    path: Path, grid: Grid, arrays: Mapping[str, np.ndarray], *, time: float | None = None, compress: bool = True
) -> Path:
    """Write point arrays on a regular grid; missing axes are padded to one point.

    Args:
        path: the file, ending in .vti.
        grid: where the values are.
        arrays: name -> (N,) or (N, k) in the order of `grid.points`; two components are padded to three.
        time: stored as the field array TimeValue.
        compress: zlib blocks; plain otherwise.

    Raises:
        ShapeError: an array has another length than the grid.
        OSError: the file cannot be written; nothing is left behind then.
    """
    shape = (*grid.shape, 1, 1)[:3]
    spacing = [(b - a) / (n - 1) for a, b, n in zip(grid.lower, grid.upper, grid.shape, strict=True)]
    extent = " ".join(f"0 {n - 1}" for n in shape)
    origin, steps = (" ".join(repr(float(v)) for v in [*part, *fill][:3]) for part, fill in _padded(grid, spacing))
    body = _Body(compress)
    body.open("ImageData", f'WholeExtent="{extent}" Origin="{origin}" Spacing="{steps}"', time)
    body.lines.append(f'<Piece Extent="{extent}">')
    body.section("PointData", _checked(arrays, grid.n_points))
    body.lines.append("</Piece>")
    write_bytes(path, body.close("ImageData"))
    return path


def write_vtu(
    path: Path,
    mesh: Mesh,
    arrays: Mapping[str, np.ndarray],
    *,
    cell_arrays: Mapping[str, np.ndarray] | None = None,
    time: float | None = None,
    compress: bool = True,
) -> Path:
    """Write point and cell arrays on a mesh; points of one or two dimensions are padded by zeros.

    The cell regions of the mesh become the cell array `region`: 0 outside all of them, else the position
    of the region's name in `mesh.regions`, counted from 1.

    Args:
        path: the file, ending in .vtu.
        mesh: any cell type of `pdelab.mesh`.
        arrays: name -> (N,) or (N, k) at the nodes; two components are padded to three.
        cell_arrays: name -> (C,) or (C, k).
        time: stored as the field array TimeValue.
        compress: zlib blocks; plain otherwise.

    Raises:
        ShapeError: an array has another length than the mesh.
        OSError: the file cannot be written; nothing is left behind then.
    """
    n_cells, per_cell = mesh.cells.shape
    whole = np.int32 if mesh.cells.size < 2**31 else np.int64
    cells = {
        "connectivity": mesh.cells.ravel().astype(whole),
        "offsets": np.arange(per_cell, n_cells * per_cell + 1, per_cell, dtype=whole),
        "types": np.full(n_cells, CELL_CODES[mesh.cell_type], dtype=np.uint8),
    }
    on_cells = _checked(cell_arrays or {}, n_cells)
    if mesh.regions:
        on_cells["region"] = region_numbers(mesh)
    body = _Body(compress)
    body.open("UnstructuredGrid", "", time)
    body.lines.append(f'<Piece NumberOfPoints="{mesh.n_points}" NumberOfCells="{n_cells}">')
    body.section("PointData", _checked(arrays, mesh.n_points))
    body.section("CellData", on_cells)
    body.section("Points", {"points": padded(mesh.points)})
    body.section("Cells", cells)
    body.lines.append("</Piece>")
    write_bytes(path, body.close("UnstructuredGrid"))
    return path


def write_vtp(
    path: Path, points: np.ndarray, lengths: np.ndarray, arrays: Mapping[str, np.ndarray], *, compress: bool = True
) -> Path:
    """Write point arrays on lines; points of two coordinates are padded by zeros.

    Args:
        path: the file, ending in .vtp.
        points: of one line after another, (N, 2 or 3).
        lengths: number of points of each line, (K,), together N.
        arrays: name -> (N,) or (N, k); two components are padded to three.
        compress: zlib blocks; plain otherwise.

    Raises:
        ShapeError: the lengths do not add up, or an array has another length than the points.
        OSError: the file cannot be written; nothing is left behind then.
    """
    n = len(points)
    check_shape("points", points, (int(lengths.sum()), None))
    body = _Body(compress)
    body.open("PolyData", "", None)
    counts = f'NumberOfVerts="0" NumberOfLines="{len(lengths)}" NumberOfStrips="0" NumberOfPolys="0"'
    body.lines.append(f'<Piece NumberOfPoints="{n}" {counts}>')
    body.section("PointData", _checked(arrays, n))
    body.section("Points", {"points": padded(points)})
    body.section("Lines", {"connectivity": np.arange(n, dtype=np.int64), "offsets": np.cumsum(lengths, dtype=np.int64)})
    body.lines.append("</Piece>")
    write_bytes(path, body.close("PolyData"))
    return path


def write_pvd(path: Path, steps: Sequence[tuple[float, Path]]) -> Path:
    """Write a collection of files with their times; the names are stored relative to the collection."""
    lines = ['<?xml version="1.0"?>', '<VTKFile type="Collection" version="1.0" byte_order="LittleEndian">']
    lines.append("<Collection>")
    for time, file in steps:
        name = quoteattr(Path(os.path.relpath(file, path.parent)).as_posix())
        lines.append(f'<DataSet timestep="{float(time)!r}" part="0" file={name}/>')
    lines += ["</Collection>", "</VTKFile>", ""]
    write_text(path, "\n".join(lines))
    return path


def region_numbers(mesh: Mesh) -> np.ndarray:
    """The region of each cell, (C,) int32: 0 for none, else its position in `mesh.regions` from 1."""
    numbers = np.zeros(len(mesh.cells), dtype=np.int32)
    for number, cells in enumerate(mesh.regions.values(), start=1):
        numbers[cells] = number
    return numbers


def padded(vectors: np.ndarray) -> np.ndarray:
    """(N, k) with k < 3 -> (N, 3), zeros added; ParaView's vectors and points have three components."""
    return np.pad(vectors, ((0, 0), (0, 3 - vectors.shape[1])))


def _padded(grid: Grid, spacing: list[float]) -> tuple[tuple, tuple]:
    return (grid.lower, (0.0, 0.0)), (spacing, (1.0, 1.0))


def _checked(arrays: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Arrays of known type and length; float64 unless they hold whole numbers."""
    found = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.str[1:] not in _TYPES:
            array = array.astype(np.float64)
        check_shape(name, array, (n, None) if array.ndim > 1 else (n,))
        found[name] = padded(array) if array.ndim == 2 and array.shape[1] == 2 else array
    return found


class _Body:
    """The header lines and the appended block of one file."""

    def __init__(self, compress: bool):
        self.lines: list[str] = []
        self._compress = compress
        self._appended: list[bytes | memoryview] = []
        self._offset = 0

    def open(self, kind: str, attributes: str, time: float | None) -> None:
        compressor = ' compressor="vtkZLibDataCompressor"' if self._compress else ""
        self.lines += [
            '<?xml version="1.0"?>',
            f'<VTKFile type="{kind}" version="1.0" byte_order="LittleEndian" header_type="UInt64"{compressor}>',
            f"<{kind} {attributes}>".replace(" >", ">"),
        ]
        if time is not None:
            self.lines.append("<FieldData>")
            self._array("TimeValue", np.array([time], dtype=np.float64), 'NumberOfTuples="1"')
            self.lines.append("</FieldData>")

    def section(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        self.lines.append(f"<{kind}>")
        for name, array in arrays.items():
            width = f'NumberOfComponents="{array.shape[1]}"' if array.ndim > 1 else ""
            self._array(name, array, width)
        self.lines.append(f"</{kind}>")

    def close(self, kind: str) -> bytes:
        self.lines += [f"</{kind}>", '<AppendedData encoding="raw">', "_"]
        head = "\n".join(self.lines).encode()
        return b"".join([head, *self._appended, b"\n</AppendedData>\n</VTKFile>\n"])

    def _array(self, name: str, array: np.ndarray, attributes: str) -> None:
        kind = _TYPES[array.dtype.str[1:]]
        self.lines.append(
            f'<DataArray type="{kind}" Name={quoteattr(name)} {attributes} format="appended" offset="{self._offset}"/>'
        )
        # "<" is a no-op on little-endian machines: no copy is made there.
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        raw = little.reshape(-1).view(np.uint8).data
        parts: list[bytes | memoryview] = _zlib_blocks(raw) if self._compress else [struct.pack("<Q", len(raw)), raw]
        self._appended += parts
        self._offset += sum(len(p) for p in parts)


def _zlib_blocks(raw: memoryview) -> list[bytes | memoryview]:
    """Number of blocks, block size, size of the last partial block, compressed sizes; then the blocks."""
    pieces = [raw[i : i + _BLOCK] for i in range(0, len(raw), _BLOCK)]
    # Data that hardly shrinks (noise in the mantissas) is stored: level 0 is still a valid zlib stream.
    trial = zlib.compress(raw[: 1 << 16], 1)
    level = 1 if len(trial) < 0.8 * min(len(raw), 1 << 16) else 0
    blocks = [zlib.compress(p, level) for p in pieces]
    sizes = [len(pieces), _BLOCK, len(raw) % _BLOCK, *map(len, blocks)]
    return [struct.pack(f"<{len(sizes)}Q", *sizes), *blocks]

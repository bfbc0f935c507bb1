"""VTKHDF files: a long series on one fixed mesh, in which the mesh is stored once.

ParaView reads such series from version 5.12 on; `pdelab.vtk` writes what every ParaView reads.

Source: VTKHDF file format, version 2.0, temporal unstructured grid, https://docs.vtk.org/en/latest/vtk_file_formats/.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pdelab.errors import InputError, check_shape
from pdelab.files import write_bytes
from pdelab.mesh import Mesh
from pdelab.vtk import CELL_CODES, Grid, padded


def write_vtkhdf(path: Path, mesh: Mesh, times: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write point arrays at several times on a mesh that does not change.

    Args:
        path: the file, ending in .vtkhdf.
        mesh: any cell type of `pdelab.mesh`.
        times: the times, (k,), at least one.
        arrays: name -> (k, N) or (k, N, c), float64; two components are padded to three.

    Raises:
        ShapeError: an array does not fit the times and the mesh.
        OSError: the file cannot be written; nothing is left behind then.
    """
    import h5py

    times = np.asarray(times, dtype=np.float64)
    check_shape("times", times, (None,))
    if not len(times):
        raise InputError("times: at least one is needed, got none")
    k, (n_cells, per_cell) = len(times), mesh.cells.shape
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        root = file.create_group("VTKHDF")
        root.attrs["Version"] = np.array([2, 0], dtype=np.int64)
        # The type must be a fixed-length ASCII string; h5py's own strings have variable length.
        root.attrs.create("Type", b"UnstructuredGrid", dtype=h5py.string_dtype("ascii", 16))
        for name, count in (("Points", mesh.n_points), ("Cells", n_cells), ("ConnectivityIds", mesh.cells.size)):
            root[f"NumberOf{name}"] = np.array([count], dtype=np.int64)
        packed = {"compression": "gzip", "compression_opts": 1}
        root.create_dataset("Points", data=padded(mesh.points), **packed)
        root.create_dataset("Connectivity", data=mesh.cells.ravel(), **packed)
        root.create_dataset("Offsets", data=np.arange(0, mesh.cells.size + 1, per_cell, dtype=np.int64), **packed)
        root.create_dataset("Types", data=np.full(n_cells, CELL_CODES[mesh.cell_type], dtype=np.uint8), **packed)
        steps = root.create_group("Steps")
        steps.attrs["NSteps"] = k
        steps["Values"] = times
        steps["NumberOfParts"] = np.ones(k, dtype=np.int64)
        # Every step begins at the same place: that is how the mesh is shared.
        steps["PartOffsets"] = steps["PointOffsets"] = np.zeros(k, dtype=np.int64)
        steps["CellOffsets"] = steps["ConnectivityIdOffsets"] = np.zeros((k, 1), dtype=np.int64)
        data, offsets = root.create_group("PointData"), steps.create_group("PointDataOffsets")
        for name, array in arrays.items():
            array = np.asarray(array, dtype=np.float64)
            check_shape(name, array, (k, mesh.n_points, None) if array.ndim == 3 else (k, mesh.n_points))
            rows = array.reshape(k * mesh.n_points, *array.shape[2:])
            rows = padded(rows) if rows.ndim == 2 and rows.shape[1] == 2 else rows
            chunk = (min(mesh.n_points, 65536), *rows.shape[1:])
            data.create_dataset(name, data=rows, chunks=chunk, **packed)
            offsets[name] = np.arange(k, dtype=np.int64) * mesh.n_points
    write_bytes(path, memory.getvalue())
    return path


def grid_mesh(grid: Grid) -> Mesh:
    """The cells of a grid as lines or quadrilaterals, points in the order of the grid.

    Raises:
        InputError: the grid has three dimensions, for which `pdelab.mesh` has no cell.
    """
    d = len(grid.shape)
    if d == 3:
        raise InputError("a .vtkhdf file holds a mesh, and three-dimensional grids stay images; use the .vti files")
    number = np.arange(grid.n_points).reshape(grid.shape, order="F")
    if d == 1:
        return Mesh(grid.points, np.stack([number[:-1], number[1:]], axis=1), "line")
    corners = (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:])
    return Mesh(grid.points, np.stack([c.ravel() for c in corners], axis=1), "quad")

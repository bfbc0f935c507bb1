"""Meshes to and from PyVista grids and PyTorch Geometric graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pdelab.errors import MeshError, check_shape
from pdelab.mesh import CELL_TYPES, Mesh
from pdelab.meshes.shape import TETRA_EDGES, corner_count

if TYPE_CHECKING:
    import pyvista
    from torch_geometric.data import Data

# cell type -> number in VTK
_VTK = {"line": 3, "triangle": 5, "quad": 9, "tetra": 10, "triangle6": 22, "quad8": 23, "tetra10": 24}

_FACET, _REGION = "facets:", "region:"


def to_pyvista(mesh: Mesh, values: Mapping[str, np.ndarray] | None = None) -> pyvista.UnstructuredGrid:
    """The mesh as a grid in space (missing coordinates 0) with nodal values (N,) or (N, m) as point data.

    Regions become cell data "region:NAME" (0 or 1); boundary parts become field data "facets:NAME".

    Raises:
        ShapeError: values of another length.
    """
    import pyvista

    points = np.zeros((mesh.n_points, 3))
    points[:, : mesh.dimension] = mesh.points
    grid = pyvista.UnstructuredGrid({_VTK[mesh.cell_type]: mesh.cells}, points)
    for name, array in (values or {}).items():
        array = np.asarray(array)
        check_shape(name, array, (mesh.n_points, *[None] * (array.ndim - 1)))
        grid.point_data[name] = array
    for name, numbers in mesh.regions.items():
        grid.cell_data[_REGION + name] = np.isin(np.arange(len(mesh.cells)), numbers).astype(np.uint8)
    for name, facets in mesh.facets.items():
        grid.field_data[_FACET + name] = facets
    return grid


def from_pyvista(grid: pyvista.UnstructuredGrid) -> tuple[Mesh, dict[str, np.ndarray]]:
    """The mesh and point data of a grid: the inverse of `to_pyvista`.

    Raises:
        MeshError: the cells are not all of one known type, or a planar mesh is not in the plane z = 0.
    """
    kinds = {number: name for name, number in _VTK.items()}
    found = grid.cells_dict
    if len(found) != 1 or next(iter(found)) not in kinds:
        raise MeshError(f"grid: cells of one type out of VTK's {sorted(kinds)} needed, got types {sorted(found)}")
    ((number, cells),) = found.items()
    kind = kinds[int(number)]
    dimension = CELL_TYPES[kind][0]
    points = np.asarray(grid.points, dtype=np.float64)
    if points[:, dimension:].any():
        raise MeshError(f"grid: {kind} cells must lie in the first {dimension} coordinates, the others be 0")
    regions = {
        name.removeprefix(_REGION): np.flatnonzero(grid.cell_data[name])
        for name in grid.cell_data
        if name.startswith(_REGION)
    }
    width = len(CELL_TYPES[kind][3][0])
    facets = {
        name.removeprefix(_FACET): np.asarray(grid.field_data[name]).reshape(-1, width)
        for name in grid.field_data
        if name.startswith(_FACET)
    }
    mesh = Mesh(points[:, :dimension], np.asarray(cells), kind, facets, regions)
    return mesh, {name: np.asarray(grid.point_data[name]) for name in grid.point_data}


def to_graph(mesh: Mesh, values: Mapping[str, np.ndarray] | None = None) -> Data:
    """The mesh as a graph whose edges are those of the cells, in both directions.

    The graph has `pos` (N, d) float64, `edge_index` (2, E) sorted, `boundary` (N,) bool, `cells` (C, k),
    `cell_type`, the named `facets` and `regions`, and each nodal array under its name. Nodes on the edges of
    second-order cells are joined to the ends of their edge, the ends not to each other.

    Raises:
        ShapeError: values of another length.
        MeshError: a name that the graph uses itself.
    """
    import torch
    from torch_geometric.data import Data

    pairs = np.concatenate([mesh.cells[:, list(pair)] for pair in _edges(mesh.cell_type)])
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    boundary = np.zeros(mesh.n_points, dtype=bool)
    boundary[mesh.boundary_facets()] = True
    graph = Data(
        pos=torch.as_tensor(mesh.points),
        edge_index=torch.as_tensor(both.T.copy()),
        boundary=torch.as_tensor(boundary),
        cells=torch.as_tensor(mesh.cells),
        cell_type=mesh.cell_type,
        facets={name: torch.as_tensor(f) for name, f in mesh.facets.items()},
        regions={name: torch.as_tensor(r) for name, r in mesh.regions.items()},
    )
    for name, array in (values or {}).items():
        if name in graph:
            raise MeshError(f"graph: the name {name!r} is taken; rename the values")
        tensor = torch.as_tensor(array)
        check_shape(name, tensor, (mesh.n_points, *[None] * (tensor.ndim - 1)))
        graph[name] = tensor
    return graph


def from_graph(graph: Data) -> Mesh:
    """The mesh of a graph made by `to_graph`.

    Raises:
        MeshError: the graph has no cells.
    """
    if "cells" not in graph or "cell_type" not in graph:
        raise MeshError("graph: no attributes cells and cell_type; only graphs made by to_graph hold a mesh")
    named: list[dict[str, Any]] = [{k: v.numpy() for k, v in graph[g].items()} for g in ("facets", "regions")]
    return Mesh(graph.pos.numpy(), graph.cells.numpy(), graph.cell_type, *named)


def _edges(cell_type: str) -> list[tuple[int, int]]:
    """Local node pairs that are joined."""
    corners = corner_count(cell_type)
    if cell_type == "line":
        return [(0, 1)]
    if cell_type == "tetra":
        return [(i, j) for i in range(4) for j in range(i)]
    if cell_type == "tetra10":
        return [(end, 4 + i) for i, ends in enumerate(TETRA_EDGES) for end in ends]
    ring = [(i, (i + 1) % corners) for i in range(corners)]
    if cell_type in ("triangle6", "quad8"):
        return [(end, corners + i) for i, ends in enumerate(ring) for end in ends]
    return ring

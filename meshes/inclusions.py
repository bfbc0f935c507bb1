"""Triangulated periodic cells whose edges follow the inclusions in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pdelab.domain import AbstractDomain, Box
from pdelab.errors import MeshError, SettingsError, check_range
from pdelab.mesh import Mesh
from pdelab.meshes.generate import _build, _gmsh, _named

REGIONS = ("matrix", "inclusion")
FINER = 3  # the strain of the softer material is steep beside the stiffer one


def inclusion_mesh(box: Box, inclusions: Sequence[AbstractDomain], size: float, order: int = 1) -> Mesh:
    """A mesh of a rectangle with edges along the boundaries of inclusions and equal nodes on opposite sides.

    Edges along inclusions are a third as long as those far away, curved ones at least 12 a turn; with order 2 they are
    bent, the others straight. The mesh is a function of the arguments only. Facets are named by the parts of the
    box; the regions are "matrix" and, if there are any inclusions, "inclusion".

    Args:
        box: in two dimensions.
        inclusions: boxes, balls, ellipses, polygons and combinations of them, inside the box and apart.
        size: target length of the edges far from inclusions, > 0, in the unit of the box.
        order: 1 for triangle, 2 for triangle6.

    Raises:
        SettingsError: size is not positive, asks for more than about 1e6 cells, or order is not 1 or 2.
        MeshError: the box is not in the plane, an inclusion reaches its sides, or Gmsh fails or is in use.
    """
    check_range("size", size, above=0.0)
    if order not in (1, 2):
        raise SettingsError(f"order: expected 1 or 2, got {order!r}")
    if box.dimension != 2:
        raise MeshError(f"inclusions: expected a box in 2 dimensions, got {box.dimension}")
    if box.measure / (0.43 * size**2) > 1e6:
        raise SettingsError(f"size: {size} asks for more than 1e6 cells; use a larger size")
    lower, upper = box.bounds
    for inclusion in inclusions:
        low, high = inclusion.bounds
        if (low <= lower).any() or (high >= upper).any():
            raise MeshError(f"{inclusion} reaches the sides of the cell {lower.tolist()}..{upper.tolist()}")
    with _gmsh() as gmsh:
        try:
            gmsh.option.setNumber("Mesh.MeshSizeMax", size)
            gmsh.option.setNumber("Mesh.ElementOrder", order)
            cell = _build(box, gmsh)
            bodies = [tag for inclusion in inclusions for tag in _build(inclusion, gmsh)]
            if bodies:
                _, pieces = gmsh.model.occ.fragment(cell, bodies)
                bodies = [tag for piece in pieces[1:] for tag in piece]
            gmsh.model.occ.synchronize()
            for axis in range(2):
                _join(gmsh, lower, upper, axis)
            # Without this, Gmsh makes no edge longer than a tenth of the model.
            gmsh.model.mesh.setSize(gmsh.model.getEntities(0), size)
            corners = gmsh.model.getBoundary(bodies, combined=False, recursive=True)
            gmsh.model.mesh.setSize(corners, size / FINER)
            gmsh.model.mesh.generate(2)
        except Exception as error:  # Gmsh raises nothing more specific
            raise MeshError(f"Gmsh cannot mesh {box} with {len(inclusions)} inclusions: {error}") from error
        numbers, coordinates, _ = gmsh.model.mesh.getNodes()
        _, cell_nodes = gmsh.model.mesh.getElementsByType({1: 2, 2: 9}[order])
    place = np.argsort(numbers)
    used, cells = np.unique(place[np.searchsorted(numbers, cell_nodes, sorter=place)], return_inverse=True)
    points = coordinates.reshape(-1, 3)[used, :2]
    cells = cells.reshape(-1, {1: 3, 2: 6}[order])
    mesh = Mesh(points, cells, {1: "triangle", 2: "triangle6"}[order])
    turned = mesh.volumes() < 0
    cells[turned] = cells[turned][:, {1: [0, 2, 1], 2: [0, 2, 1, 5, 4, 3]}[order]]
    centres = torch.as_tensor(points[cells[:, :3]].mean(axis=1))
    inside = np.zeros(len(cells), dtype=bool)
    for inclusion in inclusions:
        inside |= inclusion.inside(centres.numpy())
    regions = {name: np.flatnonzero(inside == (name == "inclusion")) for name in REGIONS} if inclusions else {}
    return Mesh(points, cells, mesh.cell_type, _named(Mesh(points, cells, mesh.cell_type), box).facets, regions)


def _join(gmsh: Any, lower: np.ndarray, upper: np.ndarray, axis: int) -> None:
    """Make Gmsh give the two sides across an axis the same nodes."""
    margin = 1e-6 * (upper - lower).max()

    def side(at: float) -> list[int]:
        low, high = lower.copy(), upper.copy()
        low[axis] = high[axis] = at
        box = [*(low - margin), -margin, *(high + margin), margin]
        return [tag for _, tag in gmsh.model.getEntitiesInBoundingBox(*box, 1)]

    shift = np.eye(4)
    shift[axis, 3] = upper[axis] - lower[axis]
    gmsh.model.mesh.setPeriodic(1, side(upper[axis]), side(lower[axis]), shift.ravel().tolist())

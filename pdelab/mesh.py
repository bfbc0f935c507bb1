"""Meshes: points, cells of one type, named facets and cell regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pdelab.errors import MeshError, MeshTangled, check_shape

# cell type -> (space dimension of the reference cell, nodes, facet type, local node numbers of each facet)
CELL_TYPES: dict[str, tuple[int, int, str, tuple[tuple[int, ...], ...]]] = {
    "line": (1, 2, "vertex", ((0,), (1,))),
    "triangle": (2, 3, "line", ((0, 1), (1, 2), (2, 0))),
    "quad": (2, 4, "line", ((0, 1), (1, 2), (2, 3), (3, 0))),
    "tetra": (3, 4, "triangle", ((0, 2, 1), (0, 1, 3), (1, 2, 3), (0, 3, 2))),
    "triangle6": (2, 6, "line3", ((0, 1, 3), (1, 2, 4), (2, 0, 5))),
    "quad8": (2, 8, "line3", ((0, 1, 4), (1, 2, 5), (2, 3, 6), (3, 0, 7))),
    "tetra10": (3, 10, "triangle6", ((0, 2, 1, 6, 5, 4), (0, 1, 3, 4, 8, 7), (1, 2, 3, 5, 9, 8), (0, 3, 2, 7, 9, 6))),
}
"""Local numbering is that of meshio and VTK."""


LARGEST_KEY = 2**62


@dataclass(frozen=True, eq=False)
class Mesh:
    """Points (N, d) float64, cells (C, k) int64 of one type, facets by boundary name (F, j) node numbers.

    `regions` names sets of cells (material, body): name -> cell numbers. Cells are positively oriented;
    `meshes.measure` computes volumes and quality, `meshes.read` repairs what comes from files.
    """

    points: np.ndarray
    cells: np.ndarray
    cell_type: str = "triangle"
    facets: Mapping[str, np.ndarray] = field(default_factory=dict)
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check types, shapes and node numbers."""
        object.__setattr__(self, "points", np.ascontiguousarray(self.points, dtype=np.float64))
        object.__setattr__(self, "cells", np.ascontiguousarray(self.cells, dtype=np.int64))
        if self.cell_type not in CELL_TYPES:
            raise MeshError(f"cell type: expected one of {', '.join(CELL_TYPES)}, got {self.cell_type!r}")
        dimension, nodes, _, local = CELL_TYPES[self.cell_type]
        check_shape("points", self.points, (None, dimension))
        check_shape("cells", self.cells, (None, nodes))
        if not len(self.cells):
            raise MeshError("cells: the mesh has none")
        if not np.isfinite(self.points).all():
            raise MeshError(
                f"points: {int((~np.isfinite(self.points)).any(axis=1).sum())} of {len(self.points)} not finite"
            )
        if self.cells.min() < 0 or self.cells.max() >= len(self.points):
            low, high = self.cells.min(), self.cells.max()
            raise MeshError(f"cells: node numbers must lie in 0..{len(self.points) - 1}, got {low}..{high}")
        facets = {name: _numbers(f"facets {name!r}", f, self.n_points) for name, f in self.facets.items()}
        for name, f in facets.items():
            check_shape(f"facets {name!r}", f, (None, len(local[0])))
        object.__setattr__(self, "facets", facets)
        regions = {name: _numbers(f"region {name!r}", r, len(self.cells)) for name, r in self.regions.items()}
        object.__setattr__(self, "regions", regions)

    @property
    def n_points(self) -> int:
        """Number of nodes N."""
        return len(self.points)

    @property
    def dimension(self) -> int:
        """Number of space coordinates d."""
        return self.points.shape[1]

    def volumes(self) -> np.ndarray:
        """Signed length, area or volume of each cell by its corner nodes, (C,)."""
        corners = {"triangle6": 3, "quad8": 4, "tetra10": 4}.get(self.cell_type, self.cells.shape[1])
        p = self.points[self.cells[:, :corners]]
        if self.dimension == 1:
            return p[:, 1, 0] - p[:, 0, 0]
        if self.dimension == 2:
            x, y = p[..., 0], p[..., 1]
            return 0.5 * (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)
        return np.linalg.det(p[:, 1:] - p[:, :1]) / 6.0

    def moved(self, points: np.ndarray) -> Mesh:
        """The same cells on other points (N, d).

        Raises:
            MeshTangled: a cell's volume changed its sign or became zero.
        """
        moved = Mesh(points, self.cells, self.cell_type, self.facets, self.regions)
        check_shape("points", moved.points, self.points.shape)
        ratio = moved.volumes() / self.volumes()
        if not (ratio > 0).all():
            raise MeshTangled(
                f"{int((~(ratio > 0)).sum())} of {len(ratio)} cells inverted, worst volume ratio {ratio.min():.3g}"
            )
        return moved

    def boundary_facets(self) -> np.ndarray:
        """Facets that belong to one cell only, (F, j) node numbers, outward orientation."""
        return self._boundary()[0]

    def boundary_cells(self) -> np.ndarray:
        """The cell of each of the `boundary_facets`, (F,)."""
        return self._boundary()[1]

    def _boundary(self) -> tuple[np.ndarray, np.ndarray]:
        """Facets that occur once, in order of local number and cell, and their cells."""
        local = CELL_TYPES[self.cell_type][3]
        every = np.concatenate([self.cells[:, list(f)] for f in local])
        corners = every[:, : self.dimension]
        _, first, counts = np.unique(node_set_keys(corners), return_index=True, return_counts=True)
        single = np.sort(first[counts == 1])
        return every[single], single % len(self.cells)


def node_set_keys(rows: np.ndarray) -> np.ndarray:
    """One number for each row of node numbers (n, j), equal where rows hold the same nodes in any order, (n,)."""
    ordered = np.sort(rows, axis=1)
    base = int(ordered.max(initial=0)) + 1
    key, bound = ordered[:, 0], base
    for column in ordered.T[1:]:
        if bound > LARGEST_KEY // base:  # renumbered, so that the key cannot overflow
            key, bound = np.unique(key, return_inverse=True)[1], len(key)
        key, bound = key * base + column, bound * base
    return key


def _numbers(name: str, array: np.ndarray, count: int) -> np.ndarray:
    """The array as int64, with every entry in 0..count-1."""
    numbers = np.ascontiguousarray(array, dtype=np.int64)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        raise MeshError(f"{name}: numbers must lie in 0..{count - 1}, got {numbers.min()}..{numbers.max()}")
    return numbers

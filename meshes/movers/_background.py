"""A nodal field on the mesh before it moves, looked up at the moved nodes in each iteration."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from pdelab.mesh import CELL_TYPES, Mesh, node_set_keys

INSIDE = -1e-9  # smallest barycentric coordinate of a point that counts as in the cell
CANDIDATES = 12


class Background:
    """Piecewise linear interpolation of nodal values (N,), for the moved nodes of the same mesh.

    Each node walks from a cell of its own through the facet that it lies farthest behind; where it meets the
    boundary, as it may around a hole, the cells with the nearest centres are tried. Values stay between those of the
    cell, also outside the mesh.

    Attributes:
        origin, inverse: of each cell, (C, d) and (C, d, d): barycentric coordinates are inverse (x - origin), and what
            is missing to 1.
    """

    def __init__(self, mesh: Mesh, values: np.ndarray):
        self.mesh, self.values = mesh, np.asarray(values, dtype=float)
        corners = mesh.points[mesh.cells]
        self.origin = corners[:, 0]
        self.inverse = _inverses((corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1))
        self._start = np.zeros(mesh.n_points, dtype=np.int64)
        self._start[mesh.cells.ravel()] = np.repeat(np.arange(len(mesh.cells)), mesh.cells.shape[1])
        self._neighbours = _neighbours(mesh)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (N,) at the places (N, d) of the moved nodes."""
        cells, weights = self.located(points)
        weights = np.maximum(weights, 0.0)
        values = self.values[self.mesh.cells[cells]]
        return (weights * values).sum(axis=1) / weights.sum(axis=1)

    def located(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cell (N,) of each moved node and its barycentric coordinates there (N, d + 1), negative outside."""
        cells = self._start.copy()
        weights = self._weights(points, cells)
        open_, lost = np.arange(len(points)), []
        for _ in range(50 + 4 * int(np.sqrt(len(self.origin)))):
            worst = weights[open_].argmin(axis=1)
            out = weights[open_, worst] < INSIDE
            open_, worst = open_[out], worst[out]
            ahead = self._neighbours[cells[open_], worst]
            lost.append(open_[ahead < 0])
            open_, ahead = open_[ahead >= 0], ahead[ahead >= 0]
            if not len(open_):
                break
            cells[open_] = ahead
            weights[open_] = self._weights(points[open_], ahead)
        missing = np.concatenate([*lost, open_])
        if len(missing):
            cells[missing], weights[missing] = self._nearest(points[missing])
        return cells, weights

    def _weights(self, points: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Barycentric coordinates (n, d + 1) in the cells beside the points."""
        inner = np.matmul(self.inverse[cells], (points - self.origin[cells])[:, :, None])[:, :, 0]
        return np.concatenate([1.0 - inner.sum(axis=1, keepdims=True), inner], axis=1)

    def _nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the cells with the nearest centres the one that holds each point best, and the weights there."""
        k = min(CANDIDATES, len(self.origin))
        near = self._tree.query(points, k=k)[1].reshape(len(points), k)
        weights = np.stack([self._weights(points, column) for column in near.T], axis=1)
        best = weights.min(axis=2).argmax(axis=1)
        rows = np.arange(len(points))
        return near[rows, best], weights[rows, best]

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.mesh.points[self.mesh.cells].mean(axis=1))


def _inverses(A: np.ndarray) -> np.ndarray:
    """Of small matrices (C, d, d); those of two rows at a quarter of the time that the general way takes."""
    if A.shape[1] != 2:
        return np.linalg.inv(A)
    (a, b), (c, d) = A[:, 0].T, A[:, 1].T
    return (np.stack([d, -b, -c, a], axis=1) / (a * d - b * c)[:, None]).reshape(-1, 2, 2)


def _neighbours(mesh: Mesh) -> np.ndarray:
    """The cell behind the facet opposite to each corner, (C, d + 1); -1 on the boundary."""
    local = CELL_TYPES[mesh.cell_type][3]
    count, n_cells = mesh.cells.shape[1], len(mesh.cells)
    opposite = np.array([next(i for i in range(count) if i not in facet) for facet in local])
    keys = node_set_keys(np.concatenate([mesh.cells[:, list(facet)] for facet in local]))
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    one, other = order[first], order[first + 1]
    found = np.full((n_cells, count), -1, dtype=np.int64)
    found[one % n_cells, opposite[one // n_cells]] = other % n_cells
    found[other % n_cells, opposite[other // n_cells]] = one % n_cells
    return found

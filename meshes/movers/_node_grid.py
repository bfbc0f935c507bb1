"""Nodal fields of a mesh of triangles on a regular grid about as fine as the mesh, and back."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pdelab.mesh import Mesh

SPACING = 1.25  # of the grid over the leg of a right-angled triangle of mean area
MARGIN = 2  # grid cells around the bounds: a cubic spline reaches so far
LEAST = 1e-3  # share of a grid cell that the mesh must cover to count


class NodeGrid:
    """Cubic B-splines on the square cells of a regular grid over the bounds of a mesh.

    Their values at the nodes, 16 for each node, sum to one. A field goes from the nodes to the grid as the mean over a
    spline's support, nodes weighted by their area; from the grid to the nodes as the sum of the splines, which has two
    continuous derivatives. Both cost O(N).

    Attributes:
        spacing: of the grid, H, in units of the mesh.
        shape: cells along x and y, even.
        cover: share of each cell that is covered by the mesh, (1, 1, *shape), 0 to 1.
        node_areas: a third of the cells around each node, (N,).
    """

    def __init__(self, mesh: Mesh):
        areas = mesh.volumes()
        lower, upper = mesh.points.min(axis=0), mesh.points.max(axis=0)
        extent, wanted = upper - lower, SPACING * math.sqrt(2.0 * areas.mean())
        self.spacing = float(extent.max() / max(1.0, np.round(extent.max() / wanted)))
        count = np.ceil(extent / self.spacing - 1e-9).astype(np.int64) + 2 * MARGIN
        count += count % 2
        self.shape = (int(count[0]), int(count[1]))
        origin = (lower + upper) / 2 - count * self.spacing / 2
        place = (mesh.points - origin) / self.spacing - 0.5
        first = np.floor(place).astype(np.int64)
        wx, wy = (_cubic(place[:, k] - first[:, k]) for k in (0, 1))
        ix, iy = (first[:, k, None] + np.arange(-1, 3) for k in (0, 1))
        self._index = (ix[:, :, None] * count[1] + iy[:, None, :]).reshape(-1, 16)
        self._weights = (wx[:, :, None] * wy[:, None, :]).reshape(-1, 16)
        self._tensors = torch.as_tensor(self._index), torch.as_tensor(self._weights, dtype=torch.float32)
        self.node_areas = np.bincount(mesh.cells.ravel(), np.repeat(areas / 3, 3), mesh.n_points)
        self._mass = self._sums(self.node_areas)
        cover = np.minimum(self._mass / self.spacing**2, 1.0)
        self._covered = cover > LEAST
        self.cover = torch.as_tensor(cover * self._covered, dtype=torch.float32).reshape(1, 1, *self.shape)

    def to_grid(self, values: np.ndarray) -> Tensor:
        """Nodal values (N,) as (1, 1, *shape) float32, 0 where there is no mesh."""
        mean = self._sums(self.node_areas * values) / np.maximum(self._mass, 1e-300)
        return torch.as_tensor(mean * self._covered, dtype=torch.float32).reshape(1, 1, *self.shape)

    def to_nodes(self, grid: Tensor) -> Tensor:
        """Fields (1, c, *shape) at the nodes, (N, c)."""
        index, weights = self._tensors
        return (grid.reshape(grid.shape[1], -1)[:, index] * weights).sum(dim=-1).T

    def _sums(self, values: np.ndarray) -> np.ndarray:
        n_cells = self.shape[0] * self.shape[1]
        return np.bincount(self._index.ravel(), (self._weights * values[:, None]).ravel(), n_cells)


def _cubic(t: np.ndarray) -> np.ndarray:
    """Values of the four cubic B-splines around a place with fraction t (N,) of a cell, (N, 4)."""
    s = 1.0 - t
    return np.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3], axis=1) / 6.0

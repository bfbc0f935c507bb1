"""Displacements made smaller where they would fold the mesh, and only there."""

from __future__ import annotations

import numpy as np

from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion

SWEEPS = 80
SMALLEST = 0.001  # of a cell's volume that is kept in any case: monitors to max / mean of 50 ask for 0.02
FLATTEST = 0.001  # of a cell's shape (volume over squared edges) likewise
LESS, NEAR = 0.7, 0.9  # what is left of the displacement of nodes of bad cells, and of their neighbours


class Limiter:
    """Makes displacements valid: x = xi + s * displacement with s at each node, 1 wherever that will do.

    Cells that would be inverted, or lose nearly all of their volume or shape, have s multiplied by 0.7 at their nodes and by
    0.9 at the nodes next to them, until there is none. In domains with corners that point inward the gradient of
    the potential is unbounded there, and the cells around them need it; elsewhere only for too large steps.
    """

    def __init__(self, mesh: Mesh, boundary: BoundaryMotion):
        self.mesh, self.boundary = mesh, boundary
        self.volumes = mesh.volumes()
        self._shape = self.volumes / self._size(mesh.points)

    def bad(self, points: np.ndarray) -> np.ndarray:
        """Cells (C,) that are inverted, too small or too flat with the nodes at points (N, d)."""
        moved = self.moved_volumes(points)
        return ~((moved > SMALLEST * self.volumes) & (moved > FLATTEST * self._shape * self._size(points)))

    def valid(self, points: np.ndarray) -> bool:
        """Whether no cell is bad and no boundary edge turned round."""
        return not self.bad(points).any() and not len(self.boundary.turned(points))

    def limited(self, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Valid points (N, d) for displacements (N, d), and the share s of each (N,)."""
        xi, share = self.mesh.points, np.ones(self.mesh.n_points)
        for _ in range(SWEEPS):
            points = self.boundary.placed(xi + share[:, None] * shift)
            nodes = np.concatenate([self.mesh.cells[self.bad(points)].ravel(), self.boundary.turned(points)])
            if not len(nodes):
                return points, share
            near = np.zeros(len(share), dtype=bool)
            near[nodes] = True
            around = near[self.mesh.cells].any(axis=1)
            wide = np.zeros(len(share), dtype=bool)
            wide[self.mesh.cells[around]] = True
            share[wide] *= NEAR
            share[near] *= LESS / NEAR
        # The line from xi to x keeps all volumes positive near xi.
        while not self.valid(points):
            share *= 0.5
            points = self.boundary.placed(xi + share[:, None] * shift)
        return points, share

    def moved_volumes(self, points: np.ndarray) -> np.ndarray:
        """Signed volumes (C,) of the cells with the nodes at points (N, d)."""
        edges = self._edges(points)
        if self.mesh.dimension == 2:
            return 0.5 * (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
        return np.linalg.det(edges) / 6.0

    def _edges(self, points: np.ndarray) -> np.ndarray:
        corners = points[self.mesh.cells]
        return corners[:, 1:] - corners[:, :1]

    def _size(self, points: np.ndarray) -> np.ndarray:
        """Mean square distance of the corners of each cell from their middle, as a volume (C,)."""
        corners = points[self.mesh.cells]
        return ((corners - corners.mean(axis=1, keepdims=True)) ** 2).mean(axis=(1, 2)) ** (self.mesh.dimension / 2)

"""Whether moved nodes still make a mesh."""

from __future__ import annotations

import numpy as np

from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion

SMALLEST = 0.002  # share of a cell's volume below which it counts as lost: monitors to max / mean of 50 ask for 0.02
FLATTEST = 0.01  # share of a cell's shape (volume over squared edges) likewise
SPREADING = 4  # rings of neighbours that share what is done to a bad cell
LONGEST = 2.0  # length of an edge of a curve over that before: what it cuts off grows with the third power


class Validity:
    """The cells of a mesh before, and what has become of them with other points."""

    def __init__(self, mesh: Mesh, boundary: BoundaryMotion):
        self.mesh, self.boundary = mesh, boundary
        self.volumes = mesh.volumes()
        self._shape = self.volumes / self._size(mesh.points)

    def moved_volumes(self, points: np.ndarray) -> np.ndarray:
        """Signed volumes (C,) of the cells with the nodes at points (N, d)."""
        corners = points[self.mesh.cells]
        edges = corners[:, 1:] - corners[:, :1]
        if self.mesh.dimension == 2:
            return 0.5 * (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
        return np.linalg.det(edges) / 6.0

    def valid(self, points: np.ndarray) -> bool:
        """Whether no cell is inverted and no boundary edge turned round."""
        return bool((self.moved_volumes(points) > 0).all()) and not len(self.boundary.turned(points))

    def sound(self, points: np.ndarray) -> bool:
        """Whether, besides, no cell has lost nearly all of its volume or shape, and curves have kept theirs."""
        return not len(self._unsound_nodes(points))

    def stepped_back(self, points: np.ndarray) -> np.ndarray:
        """The points (N, d) if they are sound, else xi + s (points - xi) with the first s of 1/2, 1/4, ... that is.

        There is one: the line from a valid mesh keeps all volumes positive near it.
        """
        shift, share = points - self.mesh.points, 1.0
        while not self.sound(points):
            share /= 2
            points = self.boundary.placed(self.mesh.points + share * shift)
        return points

    def repaired(self, points: np.ndarray) -> np.ndarray:
        """The points (N, d) if they are sound, else xi + s (points - xi) with one share s of each node.

        Nodes of cells that are not sound, of boundary edges that have turned, and of curves that are too long get half
        of their share, and all others at most 3/2 of the least share of a neighbour, until all is sound. Shares only
        fall, and the mesh before is sound: it ends. Far from bad cells nothing changes.
        """
        shift, share, cells = points - self.mesh.points, np.ones(self.mesh.n_points), self.mesh.cells
        while len(bad := self._unsound_nodes(points)):
            share[bad] /= 2
            for _ in range(SPREADING):
                least = np.full(len(share), np.inf)
                np.minimum.at(least, cells.ravel(), np.repeat(share[cells].min(axis=1), cells.shape[1]))
                share = np.minimum(share, 1.5 * least)
            if share.max() < 2.0**-40:
                return self.mesh.points
            points = self.boundary.placed(self.mesh.points + share[:, None] * shift)
        return points

    def _unsound_nodes(self, points: np.ndarray) -> np.ndarray:
        """Nodes of what keeps the points from being `sound`."""
        curves = self.boundary.bent[self.boundary.stretch(points) > LONGEST].ravel()
        cells = self.mesh.cells[~self._sound_cells(points)].ravel()
        return np.unique(np.concatenate([cells, self.boundary.turned(points), curves]))

    def _sound_cells(self, points: np.ndarray) -> np.ndarray:
        moved = self.moved_volumes(points)
        return (moved > SMALLEST * self.volumes) & (moved > FLATTEST * self._shape * self._size(points))

    def _size(self, points: np.ndarray) -> np.ndarray:
        """Mean square distance of the corners of each cell from their middle, as a volume (C,)."""
        corners = points[self.mesh.cells]
        return ((corners - corners.mean(axis=1, keepdims=True)) ** 2).mean(axis=(1, 2)) ** (self.mesh.dimension / 2)

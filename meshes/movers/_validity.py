"""Whether moved nodes still make a mesh."""

from __future__ import annotations

import numpy as np

from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion

SMALLEST = 0.002  # share of a cell's volume below which it counts as lost: monitors to max / mean of 50 ask for 0.02
FLATTEST = 0.01  # share of a cell's shape (volume over squared edges) likewise
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
        moved = self.moved_volumes(points)
        good = (moved > SMALLEST * self.volumes) & (moved > FLATTEST * self._shape * self._size(points))
        curves = self.boundary.stretch(points) <= LONGEST
        return bool(good.all()) and bool(curves.all()) and not len(self.boundary.turned(points))

    def stepped_back(self, points: np.ndarray) -> np.ndarray:
        """The points (N, d) if they are sound, else xi + s (points - xi) with the first s of 1/2, 1/4, ... that is.

        There is one: the line from a valid mesh keeps all volumes positive near it.
        """
        shift, share = points - self.mesh.points, 1.0
        while not self.sound(points):
            share /= 2
            points = self.boundary.placed(self.mesh.points + share * shift)
        return points

    def _size(self, points: np.ndarray) -> np.ndarray:
        """Mean square distance of the corners of each cell from their middle, as a volume (C,)."""
        corners = points[self.mesh.cells]
        return ((corners - corners.mean(axis=1, keepdims=True)) ** 2).mean(axis=(1, 2)) ** (self.mesh.dimension / 2)

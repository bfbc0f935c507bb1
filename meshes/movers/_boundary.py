"""How boundary nodes may move: along straight sides, along curves, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from pdelab.errors import MeshError, UnknownName
from pdelab.mesh import Mesh
from pdelab.meshes.closest import facet_normals

STRAIGHT = 1e-6  # radians between neighbouring facets of one straight side or plane
CURVED = math.radians(31)  # a larger turn is a corner; `domain_mesh` gives a circle at least 12 edges

ROUND = 1e-9  # relative distance from a circle of nodes that lie on it


class BoundaryMotion:
    """The directions in which each node of a mesh may move, and the way back onto a curved boundary.

    A node inside is free. On a boundary it may move at right angles to the normals of its facets: along a straight
    side or a plane; not at all where sides of two directions (in space three) meet. A node of the plane
    where the boundary turns by less than 31 degrees, and one of whose neighbours turns likewise, is on a curve: it
    moves along the tangent and is put back on the curve, which is a circle if its nodes lie on one, else the polygon
    of the boundary. In space curved surfaces are fixed.

    Attributes:
        basis: (d N, free), orthonormal columns, the components one after the other: displacements are `basis @ y`.
        curved: whether a node is on a curve (N,).
        bent: edges of curves (B, 2).
        facets: the boundary facets (F, d), outward.

    Raises:
        MeshError: a boundary that is not closed, or touches itself in a point.
        UnknownName: a part in `fixed` that the mesh does not have.
    """

    def __init__(self, mesh: Mesh, fixed: Sequence[str] = ()):
        self.mesh, self.facets = mesh, mesh.boundary_facets()
        for name in fixed:
            if name not in mesh.facets:
                raise UnknownName("boundary part", name, mesh.facets)
        d, n = mesh.dimension, mesh.n_points
        directions = np.broadcast_to(np.eye(d), (n, d, d)).copy()  # rows span the free directions, or are zero
        normals = facet_normals(mesh.points[self.facets])
        nodes = np.unique(self.facets)
        self._ahead, self._behind = np.full(n, -1), np.full(n, -1)
        self.curved = np.zeros(n, dtype=bool)
        if d == 2:
            self._chain(nodes)
            directions[nodes] = self._plane(nodes, normals)
        else:
            directions[nodes] = _free_of(nodes, self.facets, normals, n)
        for name in fixed:
            directions[np.unique(mesh.facets[name])] = 0.0
            self.curved[np.unique(mesh.facets[name])] = False
        self._round = np.zeros(n, dtype=bool)
        self._centre, self._radius = np.zeros((n, 2)), np.ones(n)
        for arc in self._arcs():
            self._fit(arc)
        self._polygonal = np.flatnonzero(self.curved & ~self._round)
        self._round &= self.curved
        self._directions = directions
        bent = self.facets[self.curved[self.facets].any(axis=1)] if d == 2 else np.empty((0, 2), dtype=np.int64)
        self.bent, self._before = bent, np.linalg.norm(mesh.points[bent[:, 1]] - mesh.points[bent[:, 0]], axis=1)
        self.basis = self.basis_at(mesh.points)

    def basis_at(self, points: np.ndarray) -> csr_array:
        """The free directions with the nodes at points (N, d), as columns (d N, free): tangents of circles turn."""
        if not self._round.any():
            return _basis(self._directions)
        directions = self._directions.copy()
        x, y = _unit(points[self._round] - self._centre[self._round]).T
        directions[self._round, 0] = np.stack([-y, x], axis=1)
        return _basis(directions)

    def projections(self) -> np.ndarray:
        """Onto the free directions of each node where it is now: (N, d, d), the identity inside."""
        return np.einsum("nij,nik->njk", self._directions, self._directions)

    def placed(self, points: np.ndarray) -> np.ndarray:
        """The points (N, d), those of curves put back on them."""
        if not self.curved.any():
            return points
        points = points.copy()
        centre = self._centre[self._round]
        points[self._round] = centre + self._radius[self._round, None] * _unit(points[self._round] - centre)
        if len(self._polygonal):
            points[self._polygonal] = self._on_polygon(self._polygonal, points[self._polygonal])
        return points

    def stretch(self, points: np.ndarray) -> np.ndarray:
        """Lengths of the edges of curves over those before, (B,): long ones cut off what the curve encloses."""
        return np.linalg.norm(points[self.bent[:, 1]] - points[self.bent[:, 0]], axis=1) / self._before

    def turned(self, points: np.ndarray) -> np.ndarray:
        """Nodes of the boundary edges of a mesh in the plane that have turned round."""
        if self.mesh.dimension != 2:
            return np.empty(0, dtype=np.int64)
        before = self.mesh.points[self.facets[:, 1]] - self.mesh.points[self.facets[:, 0]]
        after = points[self.facets[:, 1]] - points[self.facets[:, 0]]
        # On a curve an edge may turn by more than a right angle on its way round.
        free = self.curved[self.facets].any(axis=1)
        return self.facets[((before * after).sum(axis=1) <= 0) & ~free].ravel()

    def _chain(self, nodes: np.ndarray) -> None:
        """The next and the previous node of each boundary node."""
        start, end = self.facets.T
        for what, column in (("begin", start), ("end", end)):
            count = np.bincount(column, minlength=self.mesh.n_points)[nodes]
            if (count != 1).any():
                at = self.mesh.points[nodes[count != 1][0]]
                raise MeshError(
                    f"boundary: expected closed lines, but {count[count != 1][0]} boundary edges {what} at the node "
                    f"({at[0]:.6g}, {at[1]:.6g}); orient all cells alike, and separate parts that touch in one point"
                )
        self._ahead[start], self._behind[end] = end, start

    def _arcs(self) -> list[np.ndarray]:
        """Nodes of each curve, with those at its ends."""
        nodes = np.flatnonzero(self._ahead >= 0)
        joined = self.curved[nodes] | self.curved[self._ahead[nodes]]
        n = self.mesh.n_points
        links = coo_array((np.ones(int(joined.sum())), (nodes[joined], self._ahead[nodes[joined]])), (n, n))
        _, label = connected_components(links, directed=False)
        return [np.flatnonzero(label == k) for k in np.unique(label[self.curved])]

    def _fit(self, arc: np.ndarray) -> None:
        """The circle through the nodes of a curve, if there is one."""
        x = self.mesh.points[arc]
        middle, size = x.mean(axis=0), float(np.ptp(x, axis=0).max())
        y = (x - middle) / size
        # |y|^2 = 2 c . y + e, linear in the centre c and in e (Kasa 1976).
        (a, b, e), *_ = np.linalg.lstsq(np.column_stack([2 * y, np.ones(len(y))]), (y**2).sum(axis=1), rcond=None)
        radius = math.sqrt(max(float(e + a * a + b * b), 0.0))
        if len(arc) > 3 and np.abs(np.linalg.norm(y - (a, b), axis=1) - radius).max() <= ROUND * radius:
            self._round[arc] = True
            self._centre[arc], self._radius[arc] = middle + size * np.array([a, b]), size * radius

    def _plane(self, nodes: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Free directions (b, 2, 2) of the boundary nodes of a mesh in the plane."""
        x, ahead, behind = self.mesh.points, self._ahead[nodes], self._behind[nodes]
        out, back = _unit(x[ahead] - x[nodes]), _unit(x[nodes] - x[behind])
        turn = np.zeros(self.mesh.n_points)
        turn[nodes] = np.abs(np.arctan2(back[:, 0] * out[:, 1] - back[:, 1] * out[:, 0], (back * out).sum(axis=1)))
        bent = (turn > STRAIGHT) & (turn < CURVED)
        self.curved[nodes] = bent[nodes] & (bent[ahead] | bent[behind])
        free = (turn[nodes] <= STRAIGHT) | self.curved[nodes]
        directions = np.zeros((len(nodes), 2, 2))
        # The longer edge gives the direction of a straight side more exactly than the mean of both.
        longer = np.linalg.norm(x[ahead] - x[nodes], axis=1) >= np.linalg.norm(x[nodes] - x[behind], axis=1)
        side = np.where(longer[:, None], out, back)
        tangent = np.where(self.curved[nodes][:, None], _unit(out + back), side)
        directions[free, 0] = tangent[free]
        return directions

    def _on_polygon(self, nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The nearest place of the boundary polygon, going from each node's own place along the polygon."""
        x, best = self.mesh.points, np.full(len(nodes), np.inf)
        found = points.copy()
        first, second = nodes, nodes
        reach = np.linalg.norm(points - x[nodes], axis=1)
        gone = np.zeros(len(nodes))
        # Both ways at once, until every way is longer than the displacement.
        while True:
            for start, end in ((first, self._ahead[first]), (self._behind[second], second)):
                place = _on_segment(points, x[start], x[end])
                distance = np.linalg.norm(points - place, axis=1)
                better = distance < best
                best[better], found[better] = distance[better], place[better]
            step = np.minimum(
                np.linalg.norm(x[self._ahead[first]] - x[first], axis=1),
                np.linalg.norm(x[self._behind[second]] - x[second], axis=1),
            )
            gone += step
            if (gone > 2 * reach).all():
                return found
            first, second = self._ahead[first], self._behind[second]


def _free_of(nodes: np.ndarray, facets: np.ndarray, normals: np.ndarray, n: int) -> np.ndarray:
    """Rows that span what is at right angles to all normals of the facets around each node, (b, d, d)."""
    d = normals.shape[1]
    total = np.zeros((n, d, d))
    for column in facets.T:
        np.add.at(total, column, normals[:, :, None] * normals[:, None, :])
    size, vectors = np.linalg.eigh(total[nodes])
    rows = vectors.transpose(0, 2, 1) * (size <= STRAIGHT * size[:, -1:])[:, :, None]
    return rows


def _basis(directions: np.ndarray) -> csr_array:
    """Free directions (N, d, d), rows that may be zero, as columns of a matrix (d N, free)."""
    n, d, _ = directions.shape
    node, row = np.nonzero(np.abs(directions).max(axis=2) > 0)
    vectors = directions[node, row]  # (free, d)
    rows = (node[:, None] + n * np.arange(d)).ravel()
    columns = np.repeat(np.arange(len(node)), d)
    matrix = csr_array(coo_array((vectors.ravel(), (rows, columns)), (d * n, len(node))))
    matrix.eliminate_zeros()
    return matrix


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)


def _on_segment(p: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    along = b - a
    t = ((p - a) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-300)
    return a + np.clip(t, 0.0, 1.0)[:, None] * along

"""The Monge-Ampere equation on regular grids of boxes, by central differences and cosine transforms."""

from __future__ import annotations

import math

import numpy as np
from scipy.fft import dctn, idctn

from pdelab.errors import MeshError
from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._equation import Iterate
from pdelab.meshes.movers._validity import Validity
from pdelab.meshes.movers.monitor import Monitor, checked_monitor

REGULAR = 1e-9  # of the extent: nodes nearer to a place of the grid than this are on it


class GridEquation:
    """The equation at the nodes of a regular grid, with what relaxation needs of `_equation.MongeAmpereEquation`.

    Derivatives are central differences. phi is mirrored at the faces, so its normal derivative is zero there: nodes
    slide along faces and edges. The Laplacian is that of five or seven points, which cosine transforms of the first
    kind make diagonal; there is no mass matrix, so nothing is factorised.

    Args:
        mesh: triangles or tetrahedra whose nodes are a regular grid of a box, in any order.
        boundary: of the mesh, without fixed parts.
        monitor: evaluated at the moved nodes.

    Raises:
        MeshError: the nodes form no such grid.
    """

    def __init__(self, mesh: Mesh, boundary: BoundaryMotion, monitor: Monitor):
        self.mesh, self.boundary, self.monitor = mesh, boundary, monitor
        self.validity = Validity(mesh, boundary)
        self._shape, self._spacing, self._order = _grid(mesh)
        weights, eigenvalues = np.full((), np.prod(self._spacing)), np.zeros(())
        for n, h in zip(self._shape, self._spacing, strict=True):
            share = np.ones(n)
            share[[0, -1]] = 0.5
            weights = weights[..., None] * share
            eigenvalues = eigenvalues[..., None] + (2 - 2 * np.cos(np.pi * np.arange(n) / (n - 1))) / h**2
        self._weights, self._eigenvalues = weights, eigenvalues

    def evaluate(self, phi: np.ndarray) -> Iterate:
        """Everything about a potential (N,)."""
        d, n = self.mesh.dimension, self.mesh.n_points
        H = self._second_differences(self._on_grid(phi))
        points = self.mesh.points + self._displacement(phi)
        m = checked_monitor(self.monitor(points))
        density = self._on_grid(m) * _determinant(H)
        theta = float((self._weights * density).sum() / self._weights.sum())
        defect = self._weights * (density - theta)
        q = self._mass(points, m)
        return Iterate(
            phi,
            np.stack([self._on_mesh(h) for h in H.reshape(d * d, *self._shape)]).reshape(d, d, n),
            points,
            m,
            self._on_mesh(defect),
            float(np.linalg.norm(defect) / np.linalg.norm(theta * self._weights)),
            float(q.max() / q.min()) if q.min() > 0 else math.inf,
            float(q.std() / q.mean()),
            self.validity.valid(points),
        )

    def spread(self, points: np.ndarray) -> float:
        """sigma / mu of q_K with the nodes at points (N, d)."""
        q = self._mass(points, checked_monitor(self.monitor(points)))
        return float(q.std() / q.mean())

    def correction(self, defect: np.ndarray) -> np.ndarray:
        """The solution u (N,) without mean of  - Laplace u = defect / weights,  for a defect (N,) whose sum is zero."""
        modes = dctn(self._on_grid(defect) / self._weights, type=1)
        modes.flat[0] = 0.0
        return self._on_mesh(idctn(modes / np.maximum(self._eigenvalues, 1e-300), type=1))

    def _mass(self, points: np.ndarray, m: np.ndarray) -> np.ndarray:
        return self.validity.moved_volumes(points) * m[self.mesh.cells].mean(axis=1) / self.validity.volumes

    def _displacement(self, phi: np.ndarray) -> np.ndarray:
        """grad phi, (N, d)."""
        grid = self._on_grid(phi)
        return np.stack([self._on_mesh(_central(grid, k, h)) for k, h in enumerate(self._spacing)], axis=1)

    def _second_differences(self, grid: np.ndarray) -> np.ndarray:
        """(d, d, *shape)."""
        d = grid.ndim
        found = np.zeros((d, d, *grid.shape))
        for k, h in enumerate(self._spacing):
            slope = _central(grid, k, h)
            for j in range(k):
                found[j, k] = found[k, j] = _central(slope, j, self._spacing[j])
            ahead, behind = _neighbours(grid, k)
            found[k, k] = (ahead - 2 * grid + behind) / h**2
        return found

    def _on_grid(self, nodal: np.ndarray) -> np.ndarray:
        return nodal[self._order].reshape(self._shape)

    def _on_mesh(self, grid: np.ndarray) -> np.ndarray:
        nodal = np.empty(self.mesh.n_points)
        nodal[self._order] = grid.ravel()
        return nodal


def _determinant(H: np.ndarray) -> np.ndarray:
    """det(I + H), (*shape,), for H (d, d, *shape)."""
    if len(H) == 2:
        return (1 + H[0, 0]) * (1 + H[1, 1]) - H[0, 1] * H[1, 0]
    return np.linalg.det(np.eye(len(H)) + np.moveaxis(H, (0, 1), (-2, -1)))


def _grid(mesh: Mesh) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Nodes on each axis, spacing (d,), and the node at each place of the grid, the first axis slowest, (N,)."""
    lower, extent = mesh.points.min(axis=0), np.ptp(mesh.points, axis=0)
    tolerance = REGULAR * extent.max()
    shape = tuple(1 + int((np.diff(np.sort(column)) > tolerance).sum()) for column in mesh.points.T)
    if math.prod(shape) == mesh.n_points:
        spacing = extent / (np.array(shape) - 1)
        place = np.rint((mesh.points - lower) / spacing).astype(np.int64)
        order = np.lexsort(place.T[::-1])
        regular = np.abs(lower + place * spacing - mesh.points).max() <= tolerance
        full = bool(np.isclose(mesh.volumes().sum(), extent.prod(), rtol=1e-9))
        if regular and full and (place[order] == np.indices(shape).reshape(len(shape), -1).T).all():
            return shape, spacing, order
    raise MeshError("method dct: expected nodes on a regular grid of a box; use method=relaxation")


def _neighbours(grid: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Values ahead and behind along an axis, mirrored at both ends."""
    n = grid.shape[axis]
    ahead, behind = [*range(1, n), n - 2], [1, *range(n - 1)]
    return grid.take(ahead, axis), grid.take(behind, axis)


def _central(grid: np.ndarray, axis: int, spacing: float) -> np.ndarray:
    ahead, behind = _neighbours(grid, axis)
    return (ahead - behind) / (2 * spacing)

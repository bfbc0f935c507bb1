"""The nearest facet of a set, and the distance to it: points in 1-D, segments in 2-D, triangles in 3-D."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

PAIRS = 1_000_000  # point-facet pairs tested at a time, about 100 MB


class ClosestFacet:
    """Finds the facet nearest to each point, exactly.

    Facets are sorted into classes of similar size, a tree of centres each. A facet of radius r with centre c is
    no nearer than |x - c| - r; centres are asked for in growing numbers until that bound passes the best distance.

    Args:
        corners: (F, d, d), the d corners of each facet in d dimensions.
    """

    def __init__(self, corners: np.ndarray):
        self.corners = np.asarray(corners, dtype=float)
        centres = self.corners.mean(axis=1)
        radii = np.linalg.norm(self.corners - centres[:, None], axis=2).max(axis=1)
        size = np.floor(np.log2(np.maximum(radii, 1e-3 * radii.max() + 1e-300)))
        self._classes = []
        for value in np.unique(size)[::-1]:
            members = np.flatnonzero(size == value)
            self._classes.append((members, cKDTree(centres[members]), float(radii[members].max())))

    def find(self, points: np.ndarray) -> np.ndarray:
        """(n, d) -> facet numbers (n,)."""
        best = np.full(len(points), np.inf)
        facet = np.zeros(len(points), dtype=np.int64)
        for members, tree, radius in self._classes:
            open_ = np.arange(len(points))
            k = min(8, len(members))
            while len(open_):
                left = []
                for rows in np.array_split(open_, max(1, len(open_) * k // PAIRS)):
                    reach, near = tree.query(points[rows], k=k)
                    reach, near = reach.reshape(len(rows), k), near.reshape(len(rows), k)
                    _improve(points, rows, members[near], self.corners, best, facet)
                    left.append(rows[reach[:, -1] - radius < best[rows]])
                if k == len(members):
                    break
                open_, k = np.concatenate(left), min(4 * k, len(members))
        return facet


def closest_points(x: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """The point of each facet nearest to each point, and whether it is off the facet's rim; differentiable.

    Args:
        x: points (n, d).
        corners: one facet for each point, (n, d, d).

    Returns:
        Nearest points (n, d), and a mask (n,): True where it is the foot of the perpendicular to the facet.
    """
    d = x.shape[1]
    if d == 1:
        return corners[:, 0], torch.ones(len(x), dtype=torch.bool)
    if d == 2:
        return _on_segment(x, corners[:, 0], corners[:, 1])
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    u, v, w = b - a, c - a, x - a
    uu, uv, vv, wu, wv = ((p * q).sum(1) for p, q in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    scale = 1.0 / (uu * vv - uv * uv).clamp(min=1e-300)
    s, t = (vv * wu - uv * wv) * scale, (uu * wv - uv * wu) * scale
    foot = (s >= 0) & (t >= 0) & (s + t <= 1)
    edges = torch.stack([_on_segment(x, p, q)[0] for p, q in ((a, b), (b, c), (c, a))])
    nearest = (edges.detach() - x.detach()).square().sum(2).argmin(0)
    rim = edges[nearest, torch.arange(len(x))]
    return torch.where(foot[:, None], a + s[:, None] * u + t[:, None] * v, rim), foot


def facet_normals(corners: np.ndarray) -> np.ndarray:
    """Unit normals (F, d) of facets (F, d, d), outward for the orientation of `Mesh.boundary_facets`.

    In one dimension the facet alone does not tell its side; ones are returned.
    """
    d = corners.shape[1]
    if d == 1:
        return np.ones((len(corners), 1))
    if d == 2:
        along = corners[:, 1] - corners[:, 0]
        normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
    else:
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)


def facet_measures(corners: np.ndarray) -> np.ndarray:
    """Lengths or areas (F,) of facets (F, d, d); points count 1."""
    d = corners.shape[1]
    if d == 1:
        return np.ones(len(corners))
    if d == 2:
        return np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
    return 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)


def _on_segment(x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    along = b - a
    t = ((x - a) * along).sum(1) / along.square().sum(1).clamp(min=1e-300)
    return a + t.clamp(0, 1)[:, None] * along, (t >= 0) & (t <= 1)


def _improve(
    points: np.ndarray,
    rows: np.ndarray,
    candidates: np.ndarray,
    corners: np.ndarray,
    best: np.ndarray,
    facet: np.ndarray,
) -> None:
    """Update the best squared-free distance and facet of the points `rows` with candidates (rows, k)."""
    k = candidates.shape[1]
    x = torch.as_tensor(np.repeat(points[rows], k, axis=0))
    nearest, _ = closest_points(x, torch.as_tensor(corners[candidates.ravel()]))
    distance = torch.linalg.norm(x - nearest, dim=1).numpy().reshape(-1, k)
    column = distance.argmin(axis=1)
    distance = distance[np.arange(len(rows)), column]
    better = distance < best[rows]
    best[rows[better]] = distance[better]
    facet[rows[better]] = candidates[np.arange(len(rows)), column][better]

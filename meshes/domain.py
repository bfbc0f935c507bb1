"""Domains given by meshes: the union of the cells, or the inside of a closed surface."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pdelab.domain import Seed, rejection_sample
from pdelab.errors import InputError, MeshError, check_shape
from pdelab.mesh import Mesh, node_set_keys
from pdelab.meshes.closest import facet_normals
from pdelab.meshes.facets import AbstractFacetDomain, Facets, uniform_in_simplices
from pdelab.meshes.interpolate import Locator
from pdelab.meshes.read import read_mesh, read_surface
from pdelab.meshes.shape import simplicial

REST = "boundary"
"""Name of the part made of the boundary facets that have no name."""

SOLID_ANGLES = 2_000_000  # point-triangle pairs at a time


@dataclass(frozen=True, eq=False)
class MeshDomain(AbstractFacetDomain):
    """The union of the cells of a mesh; named facets on its boundary are its parts.

    Curved edges are replaced by two straight ones (`shape.simplicial`). Named facets between two cells
    (interfaces) are no boundary and no part. A facet with two names belongs to the first.
    """

    mesh: Mesh

    @classmethod
    def read(cls, path: str | Path) -> MeshDomain:
        """The domain of a mesh file, see `read.read_mesh`."""
        return cls(read_mesh(path))

    def __repr__(self) -> str:
        return f"MeshDomain({self.mesh.n_points} points, {len(self.mesh.cells)} cells, sha256 {self.checksum})"

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of all arrays and names, hexadecimal."""
        mesh = self.mesh
        named = [(name, a) for group in (mesh.facets, mesh.regions) for name, a in sorted(group.items())]
        return _digest([(mesh.cell_type, mesh.cells), ("points", mesh.points), *named])

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """See `AbstractDomain.bounds`."""
        return self._used.min(axis=0), self._used.max(axis=0)

    @cached_property
    def measure(self) -> float:
        """See `AbstractDomain.measure`."""
        return float(np.abs(self._flat.volumes()).sum())

    def sample(self, n: int, seed: Seed, method: str = "sobol") -> np.ndarray:
        """n points, (n, d), uniform over the cells; "grid" is a regular grid over the bounds, cut to the cells.

        Raises:
            InputError: n < 1.
        """
        if n < 1:
            raise InputError(f"n: expected at least 1 point, got {n}")
        if method == "grid":
            return rejection_sample(n, *self.bounds, self.measure, self.inside, seed, method)
        volume = np.abs(self._flat.volumes())
        number, weights = uniform_in_simplices(volume, self.dimension, n, seed, method)
        return np.einsum("nj,njd->nd", weights, self._flat.points[self._flat.cells[number]])

    def _holds(self, points: np.ndarray, foot: np.ndarray, plane: np.ndarray) -> np.ndarray:
        return self._locator.locate(points)[1]

    @cached_property
    def _flat(self) -> Mesh:
        return simplicial(self.mesh)[0]

    @cached_property
    def _used(self) -> np.ndarray:
        return self.mesh.points[np.unique(self.mesh.cells)]

    @cached_property
    def _locator(self) -> Locator:
        return Locator(self._flat)

    @cached_property
    def _parts(self) -> dict[str, Facets]:
        mesh = self._flat
        boundary = mesh.boundary_facets()
        corners = mesh.points[boundary]
        normals = facet_normals(corners)
        if mesh.dimension == 1:
            normals = np.sign(corners[:, 0] - mesh.points[mesh.cells[mesh.boundary_cells()]].mean(axis=1))
        free = np.ones(len(boundary), dtype=bool)
        parts = {}
        for name, facets in mesh.facets.items():
            keys = node_set_keys(np.concatenate([boundary, facets]))
            mine = np.isin(keys[: len(boundary)], keys[len(boundary) :]) & free
            free &= ~mine
            if mine.any():
                parts[name] = Facets(corners[mine], normals[mine])
        if free.any():
            rest = REST if REST not in parts else f"{REST}-unnamed"
            parts[rest] = Facets(corners[free], normals[free])
        return parts


@dataclass(frozen=True, eq=False)
class SurfaceDomain(AbstractFacetDomain):
    """The inside of a closed triangulated surface in space, of any genus, with one part, "boundary".

    A point whose nearest facet is met at right angles is inside by the side of that facet; else it is inside
    where the generalised winding number, the sum of the solid angles of the triangles over 4 pi, is above 1/2.
    The surface must not cross itself, which is not checked. Triangles are turned outward together if the
    enclosed volume is negative; cavities are kept.

    Args:
        points: (N, 3).
        triangles: node numbers (F, 3).

    Raises:
        MeshError: the surface is open, not consistently oriented, or encloses nothing.

    Source: van Oosterom & Strackee, IEEE Trans. Biomed. Eng. 30 (1983), equation 8, for the solid angle.
    """

    points: np.ndarray
    triangles: np.ndarray

    def __post_init__(self) -> None:
        """Check that every edge is shared by two triangles that run along it in opposite directions."""
        check_shape("points", self.points, (None, 3))
        check_shape("triangles", self.triangles, (None, 3))
        edges = np.concatenate([self.triangles[:, [i, (i + 1) % 3]] for i in range(3)])
        _, number, counts = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
        if (counts % 2).any():
            raise MeshError(f"the surface is open: {int((counts % 2).sum())} edges border an odd number of triangles")
        direction = np.bincount(number.ravel(), np.where(edges[:, 0] < edges[:, 1], 1, -1))
        if direction.any():
            raise MeshError(
                f"neighbouring triangles are not turned the same way at {int((direction != 0).sum())} edges"
            )
        if not abs(self._volume) > 0:
            raise MeshError("the surface encloses no volume")

    @classmethod
    def read(cls, path: str | Path) -> SurfaceDomain:
        """The inside of a surface file, see `read.read_surface`."""
        points, triangles = read_surface(path)
        try:
            return cls(points, triangles)
        except MeshError as error:
            raise MeshError(f"{path}: {error}") from error

    def __repr__(self) -> str:
        return f"SurfaceDomain({len(self.points)} points, {len(self.triangles)} triangles, sha256 {self.checksum})"

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of both arrays, hexadecimal."""
        return _digest([("points", self.points), ("triangles", self.triangles)])

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """See `AbstractDomain.bounds`."""
        used = self.points[np.unique(self.triangles)]
        return used.min(axis=0), used.max(axis=0)

    @property
    def measure(self) -> float:
        """See `AbstractDomain.measure`."""
        return abs(self._volume)

    @cached_property
    def _volume(self) -> float:
        p = self.points[self.triangles] - self.points[self.triangles[0, 0]]
        return float(np.linalg.det(p).sum() / 6.0)

    @cached_property
    def _parts(self) -> dict[str, Facets]:
        turned = self.triangles if self._volume > 0 else self.triangles[:, ::-1]
        corners = self.points[turned]
        return {REST: Facets(corners, facet_normals(corners))}

    def _holds(self, points: np.ndarray, foot: np.ndarray, plane: np.ndarray) -> np.ndarray:
        # A closed surface without folds: the side of the nearest facet decides, but not at edges and corners.
        held = plane < 0
        corners = self._parts[REST].corners
        block = max(1, SOLID_ANGLES // len(corners))
        open_ = np.flatnonzero(~foot)
        for start in range(0, len(open_), block):
            rows = open_[start : start + block]
            held[rows] = _winding(points[rows], corners) > 0.5
        return held


def _winding(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Winding number of outward triangles (F, 3, 3) around points (n, 3), (n,)."""
    a, b, c = (corners[None, :, i] - points[:, None] for i in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=2) for v in (a, b, c))
    top = (a * np.cross(b, c)).sum(axis=2)
    bottom = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
    return np.arctan2(top, bottom).sum(axis=1) / (2.0 * math.pi)


def _digest(arrays: list[tuple[str, np.ndarray]]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

"""Meshes of twenty kinds and steep monitors on them, for finding out whether a mover ever folds a cell."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from pdelab.csg import Difference, Union
from pdelab.domain import AbstractDomain, Box
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, domain_mesh
from pdelab.shapes import Annulus, Disk, Ellipse, Polygon

SHARPEST = 1e4  # power of the field; its inverse is the least one


@cache
def stress_meshes() -> tuple[Mesh, ...]:
    """Twenty meshes of triangles with 80 to 600 nodes.

    Regular, turned, stretched, skewed and graded squares, Delaunay meshes of boxes, of domains with corners that point
    inward, with acute corners, with curved sides, and with holes.
    """
    square = Box((0.0, 0.0), (1.0, 1.0))
    regular = box_mesh(square, 16)
    domains: list[tuple[AbstractDomain, float]] = [
        (square, 0.1),
        (square, 0.05),
        (Box((0.0, 0.0), (6.0, 1.0)), 0.16),
        (_less(square, Box((0.5, 0.5), (1.1, 1.1))), 0.05),
        (_less(square, Box((0.35, 0.4), (0.65, 1.1))), 0.05),
        (Union(Box((0.0, 0.4), (1.0, 0.6)), Box((0.4, 0.0), (0.6, 1.0))), 0.035),
        (Polygon(_star(5, 0.25)), 0.05),
        (Polygon(((0.0, 0.0), (1.0, 0.1), (0.3, 0.5))), 0.03),
        (Polygon(_star(7, 0.45)), 0.05),
        (Disk((0.0, 0.0), 1.0), 0.11),
        (Ellipse((0.0, 0.0), (1.0, 0.3)), 0.06),
        (Annulus((0.0, 0.0), 0.4, 1.0), 0.1),
        (_less(square, Disk((0.3, 0.3), 0.12), Disk((0.7, 0.65), 0.1)), 0.055),
        (_less(Box((0.0, 0.0), (2.2, 0.41)), Disk((0.2, 0.2), 0.05)), 0.05),
        (_less(Polygon(_star(6, 0.5)), Disk((0.0, 0.0), 0.15)), 0.06),
    ]
    graded = np.stack([regular.points[:, 0] ** 2.0, np.sin(0.5 * math.pi * regular.points[:, 1])], axis=1)
    return (
        box_mesh(square, 8),
        regular,
        _mapped(regular, regular.points @ np.array([[0.8, 0.6], [-0.6, 0.8]])),
        _mapped(regular, regular.points @ np.array([[1.0, 0.0], [0.7, 0.6]])),
        _mapped(regular, graded),
        *(domain_mesh(domain, size) for domain, size in domains),
    )


def stress_monitor(field: np.ndarray, peak: float) -> np.ndarray:
    """m = 1 + 10 peak (u / max u)^p at the nodes (N,), with the power p at which max m / mean m is `peak`.

    Args:
        field: u at the nodes (N,), positive somewhere.
        peak: > 1; as much of it as N nodes allow.
    """
    u = np.maximum(field, 0.0) / field.max()

    def ratio(p: float) -> float:
        m = 1 + 10 * peak * u**p
        return float(m.max() / m.mean())

    low, high = -math.log(SHARPEST), math.log(SHARPEST)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if ratio(math.exp(middle)) < peak else (low, middle)
    return 1 + 10 * peak * u ** math.exp(low)


def _less(domain: AbstractDomain, *holes: AbstractDomain) -> AbstractDomain:
    for hole in holes:
        domain = Difference(domain, hole)
    return domain


def _mapped(mesh: Mesh, points: np.ndarray) -> Mesh:
    return Mesh(points, mesh.cells, mesh.cell_type, mesh.facets, mesh.regions)


def _star(points: int, inner: float) -> tuple[tuple[float, float], ...]:
    """Corners at distances 1/2 and inner from the origin, in turns."""
    angles = math.pi * np.arange(2 * points) / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 0.5, inner)
    return tuple((float(r * math.cos(a)), float(r * math.sin(a))) for r, a in zip(radii, angles, strict=True))

"""Meshes with monitors that `um2n` learns from: squares, L-shapes and random polygons with holes, of many sizes."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

from pdelab.csg import Difference
from pdelab.domain import AbstractDomain, Box
from pdelab.errors import MeshError
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, domain_mesh
from pdelab.meshes.movers.monitor import monitor_at_nodes
from pdelab.shapes import Disk, Polygon

LAWS = ("smooth", "sharp", "front", "layer")


def training_cases(seed: int, n: int) -> list[tuple[Mesh, np.ndarray]]:
    """n meshes with monitors (N, 1): of ten 3 are regular squares, 3 Delaunay squares, 1 L-shape, 3 random polygons.

    Edges are a 10th to a 26th of the side of a square of equal area, for one square in six a 30th to an 80th, so that
    the network meets the levels of fine meshes; every second mesh is turned by a random angle. Fields are sums of
    Gaussians, sharper ones, fronts, and layers along the boundary; monitors those of the gradient or the second
    derivatives (squared or not), with strengths from 1 to 20, equally likely in the logarithm.
    """
    rng = np.random.default_rng([seed, 40961])
    return [_case(number % 10, rng) for number in range(n)]


def gaussian_sum(
    points: np.ndarray, rng: np.random.Generator, least: float = 1 / 8, spread: float = 1 / 6
) -> np.ndarray:
    """1 to 6 Gaussians with centres in [0, 1]^2, heights in [0, 1], widths max(N(2 least, spread), least): (N,).

    Source: the law of the training data of Zhang et al., UM2N, NeurIPS 2024.
    """
    u = np.zeros(len(points))
    for _ in range(int(rng.integers(1, 7))):
        height, centre = rng.random(), rng.random(2)
        width = np.maximum(rng.normal(2 * least, spread, 2), least)
        u += height * np.exp(-(((points - centre) / width) ** 2).sum(axis=1))
    return u


def random_polygon(rng: np.random.Generator) -> AbstractDomain:
    """A polygon of 5 to 9 corners with 0 to 2 round holes, in a square of side 1.2 around (0.5, 0.5)."""
    corners = int(rng.integers(5, 10))
    angles = 2 * math.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
    radii = rng.uniform(0.4, 0.6, corners)
    places = 0.5 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shape: AbstractDomain = Polygon(tuple((float(x), float(y)) for x, y in places))
    turn = rng.uniform(0, 2 * math.pi)
    for k in range(int(rng.integers(0, 3))):
        side = turn + k * math.pi
        shape = Difference(
            shape, Disk((0.5 + 0.16 * math.cos(side), 0.5 + 0.16 * math.sin(side)), rng.uniform(0.05, 0.1))
        )
    return shape


def _case(kind: int, rng: np.random.Generator) -> tuple[Mesh, np.ndarray]:
    for _ in range(10):
        mesh = _mesh(kind, rng)
        m = _monitor(mesh, rng)
        if m.max() / m.min() > 1.2:
            turned = _turned(mesh, rng.uniform(0, 2 * math.pi)) if rng.random() < 0.5 else mesh
            return turned, m[:, None]
    raise MeshError("no field of ten had a monitor that varies; choose another seed")


def _mesh(kind: int, rng: np.random.Generator) -> Mesh:
    square, count = Box((0.0, 0.0), (1.0, 1.0)), int(rng.integers(10, 27))
    if kind < 6 and rng.random() < 1 / 6:
        count = int(30 * (80 / 30) ** rng.random())
    if kind < 3:
        return box_mesh(square, count)
    if kind < 6:
        return domain_mesh(square, 1 / count)
    if kind == 6:
        return domain_mesh(Difference(square, Box((0.5, 0.5), (1.1, 1.1))), 0.87 / count)
    return domain_mesh(random_polygon(rng), 0.85 / count)


def _monitor(mesh: Mesh, rng: np.random.Generator) -> np.ndarray:
    law = LAWS[int(rng.integers(4))]
    kinds = ("gradient",) if law in ("front", "layer") else ("hessian", "hessian-norm", "gradient")
    if law == "layer":
        boundary = mesh.points[np.unique(mesh.boundary_facets())]
        u = np.exp(-cKDTree(boundary).query(mesh.points)[0] / rng.uniform(0.05, 0.2))
    elif law == "front":
        centre, radius = rng.uniform(-0.2, 1.2, 2), rng.uniform(0.15, 0.8)
        steepness = rng.uniform(3.0, 15.0)
        u = np.tanh(steepness * (np.linalg.norm(mesh.points - centre, axis=1) - radius))
    else:
        u = gaussian_sum(mesh.points, rng, *((1 / 8, 1 / 6) if law == "smooth" else (1 / 16, 1 / 16)))
    strength = math.exp(rng.uniform(0.0, math.log(20.0)))
    return monitor_at_nodes(mesh, u[:, None], kinds[int(rng.integers(len(kinds)))], strength)


def _turned(mesh: Mesh, angle: float) -> Mesh:
    c, s = math.cos(angle), math.sin(angle)
    return Mesh(mesh.points @ np.array([[c, s], [-s, c]]), mesh.cells, mesh.cell_type, mesh.facets, mesh.regions)

"""Meshes of domains: structured ones of boxes, unstructured ones of every shape by Gmsh."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from pdelab import csg, shapes
from pdelab.domain import AbstractDomain, Box
from pdelab.errors import InputError, MeshError, SettingsError, check_choice, check_range
from pdelab.mesh import Mesh
from pdelab.meshes.domain import SurfaceDomain

KINDS = ("structured", "unstructured")


def box_mesh(box: Box, n: int | Sequence[int], kind: str = "structured") -> Mesh:
    """A mesh of a box with n (one for all axes, or one for each) edges a side: lines, triangles or tetrahedra.

    structured: a regular grid. In two dimensions each rectangle is cut in two, by diagonals that alternate
    like the colours of a chessboard, the first rising; for even n every corner is touched by one. In three
    dimensions each cuboid is cut into six tetrahedra around its diagonal (Kuhn).
    unstructured: by `domain_mesh`, with the longest of the structured edges for size.

    Facets are named by the parts of the box.

    Raises:
        SettingsError: n < 1 or not one or d numbers, or an unknown kind.
        MeshError: the box has more than three dimensions.
    """
    check_choice("kind", kind, KINDS)
    counts = _counts(box, n)
    if kind == "unstructured":
        lower, upper = box.bounds
        return domain_mesh(box, float(((upper - lower) / counts).max()))
    points, corners = _grid(box, counts)
    if box.dimension == 1:
        return _named(Mesh(points, corners, "line"), box)
    if box.dimension == 2:
        # Corners are numbered like bits, last axis first: 0 = (0, 0), 1 = (0, 1), 2 = (1, 0), 3 = (1, 1).
        rising = (np.indices(counts).sum(axis=0).ravel() % 2 == 0)[:, None, None]
        cells = np.where(rising, corners[:, [[0, 2, 3], [0, 3, 1]]], corners[:, [[0, 2, 1], [2, 3, 1]]])
        return _named(Mesh(points, cells.reshape(-1, 3), "triangle"), box)
    # Each order of the axes is one path along edges from corner 0 to corner 7: one tetrahedron.
    paths = np.array([np.cumsum([0, *(4 >> axis for axis in order)]) for order in itertools.permutations(range(3))])
    return _named(Mesh(points, _positive(points, corners[:, paths].reshape(-1, 4)), "tetra"), box)


def quad_mesh(box: Box, n: int | Sequence[int]) -> Mesh:
    """A regular mesh of a box in the plane with n (or n for each axis) rectangles a side; facets as in `box_mesh`.

    Raises:
        SettingsError: n < 1, or not one or two numbers.
        MeshError: the box has not two dimensions.
    """
    if box.dimension != 2:
        raise MeshError(f"quadrilaterals: expected a box in 2 dimensions, got {box.dimension}")
    points, corners = _grid(box, _counts(box, n))
    return _named(Mesh(points, corners[:, [0, 2, 3, 1]], "quad"), box)


def domain_mesh(domain: AbstractDomain, size: float) -> Mesh:
    """An unstructured mesh of a domain with edges of about the given length: triangles or tetrahedra.

    Curved boundaries have at least 12 edges a turn, shorter ones if need be; boundary nodes lie on the
    boundary. The mesh is a function of the arguments only. Facets are named by the parts of the domain.
    A domain that has a `mesh` has that one for every size.

    Args:
        domain: of boxes, balls, ellipses, polygons and what `pdelab.csg` makes of them, or the inside of a
            triangulated surface, whose triangles are split until half of their edges are that short.
        size: target length of the edges, > 0, in the unit of the domain.

    Raises:
        SettingsError: size is not a positive number.
        InputError: size asks for more than about 2e7 cells.
        MeshError: the domain has more than three dimensions or is of another kind, or Gmsh fails or is in use.
    """
    own = getattr(domain, "mesh", None)
    if isinstance(own, Mesh):
        return own
    check_range("size", size, above=0, most=1e300)
    d = domain.dimension
    if d > 3:
        raise MeshError(f"meshes have 1 to 3 dimensions, the domain has {d}")
    # A regular triangle fills 0.43 size^2, a regular tetrahedron 0.12 size^3.
    expected = domain.measure / ((1.0, 0.43, 0.12)[d - 1] * size**d)
    if expected > 2e7:
        raise InputError(f"size: {size} asks for about {expected:.1g} cells, more than 2e7; use a larger size")
    if d == 1:
        return _line_mesh(domain, size)
    with _gmsh() as gmsh:
        try:
            gmsh.option.setNumber("Mesh.MeshSizeMax", size)
            _build(domain, gmsh)
            gmsh.model.occ.synchronize()
            # Without this, Gmsh makes no edge longer than a tenth of the model.
            gmsh.model.mesh.setSize(gmsh.model.getEntities(0), size)
            gmsh.model.mesh.generate(d)
        except MeshError:
            raise
        except Exception as error:  # Gmsh raises nothing more specific
            raise MeshError(f"Gmsh cannot mesh {domain} with size {size}: {error}") from error
        numbers, coordinates, _ = gmsh.model.mesh.getNodes()
        _, cell_nodes = gmsh.model.mesh.getElementsByType(2 if d == 2 else 4)
    order = np.argsort(numbers)
    used, cells = np.unique(order[np.searchsorted(numbers, cell_nodes, sorter=order)], return_inverse=True)
    points = coordinates.reshape(-1, 3)[used, :d]
    cells = _positive(points, cells.reshape(-1, d + 1))
    return _named(Mesh(points, cells, "triangle" if d == 2 else "tetra"), domain)


def _counts(box: Box, n: int | Sequence[int]) -> tuple[int, ...]:
    """Cells along each axis."""
    if box.dimension > 3:
        raise MeshError(f"meshes have 1 to 3 dimensions, the box has {box.dimension}")
    counts: tuple[Any, ...] = (n,) * box.dimension if np.isscalar(n) else tuple(n)  # type: ignore[arg-type]
    if len(counts) != box.dimension or not all(float(c).is_integer() and c >= 1 for c in counts):
        raise SettingsError(f"n: expected a whole number >= 1, or {box.dimension} of them, got {n}")
    return tuple(int(c) for c in counts)


def _grid(box: Box, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Points of a regular grid (N, d), x slowest, and the 2^d corners of each of its cells (C, 2^d)."""
    axes = [np.linspace(a, b, c + 1) for a, b, c in zip(*box.bounds, counts, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(counts))
    nodes = np.arange(len(points)).reshape([c + 1 for c in counts])
    corners = [
        nodes[tuple(slice(bit, bit + c) for bit, c in zip(bits, counts, strict=True))].ravel()
        for bits in itertools.product((0, 1), repeat=len(counts))
    ]
    return points, np.stack(corners, axis=1)


def _positive(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Triangles or tetrahedra with positive orientation."""
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    cells = cells.copy()
    flip = np.linalg.det(edges) < 0
    cells[flip, -2:] = cells[flip, :-3:-1]
    return cells


def _named(mesh: Mesh, domain: AbstractDomain) -> Mesh:
    """The mesh with each boundary facet under the part that its nodes and its middle are closest to."""
    facets = mesh.boundary_facets()
    corners = torch.as_tensor(mesh.points[facets])
    places = torch.cat([corners, corners.mean(dim=1, keepdim=True)], dim=1)
    flat = places.reshape(-1, mesh.dimension)
    distances = torch.stack([domain.part_distance(flat, part) for part in domain.parts])
    part = distances.reshape(len(distances), *places.shape[:2]).sum(dim=2).argmin(dim=0).numpy()
    named = {name: facets[part == i] for i, name in enumerate(domain.parts) if (part == i).any()}
    return Mesh(mesh.points, mesh.cells, mesh.cell_type, named)


def _line_mesh(domain: AbstractDomain, size: float) -> Mesh:
    """Equal edges on each of the intervals that a domain in one dimension consists of."""
    # A part of an interval has at most two points, and samples repeat them.
    ends = np.sort(domain.sample_boundary(8 * len(domain.parts), 0).points[:, 0])
    ends = ends[np.concatenate([[True], np.diff(ends) > 0])].reshape(-1, 2)
    points: list[np.ndarray] = []
    cells: list[np.ndarray] = []
    for a, b in ends:
        count = max(1, math.ceil((b - a) / size - 1e-9))
        first = sum(map(len, points))
        points.append(np.linspace(a, b, count + 1))
        cells.append(first + np.stack([np.arange(count), np.arange(1, count + 1)], axis=1))
    return _named(Mesh(np.concatenate(points)[:, None], np.concatenate(cells), "line"), domain)


@contextlib.contextmanager
def _gmsh() -> Iterator[Any]:
    """Gmsh, silent, with fixed options; closed again whatever happens."""
    import gmsh

    if gmsh.isInitialized():
        raise MeshError("Gmsh is in use in this process; call gmsh.finalize() first")
    gmsh.initialize(argv=[], readConfigFiles=False, run=False, interruptible=False)
    try:
        for option, value in _OPTIONS.items():
            gmsh.option.setNumber(option, value)
        gmsh.model.add("domain")
        yield gmsh
    finally:
        gmsh.finalize()


_OPTIONS = {
    "General.Terminal": 0,
    "General.NumThreads": 1,
    "Mesh.RandomSeed": 1,
    "Mesh.Algorithm": 6,  # frontal Delaunay, the best triangles
    "Mesh.MeshSizeFromCurvature": 12,
}

_Tags = list[tuple[int, int]]


def _split(points: np.ndarray, triangles: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Every triangle into four by the middles of its edges, until the median edge is at most about `size`."""
    while True:
        edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], axis=2).reshape(-1, 2)
        edges, number = np.unique(edges, axis=0, return_inverse=True)
        ends = points[edges]
        if np.median(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)) <= 1.4 * size:
            return points, triangles
        middle = len(points) + number.reshape(-1, 3)
        points = np.concatenate([points, ends.mean(axis=1)])
        a, b, c = triangles.T
        ab, bc, ca = middle.T
        quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        triangles = np.concatenate([np.stack(q, axis=1) for q in quarters])


@functools.singledispatch
def _build(domain: AbstractDomain, gmsh: Any) -> _Tags:
    """Make the domain with Gmsh's OpenCASCADE kernel; its surfaces or volumes."""
    raise MeshError(
        f"{type(domain).__name__} cannot be meshed, only boxes, balls, ellipses, polygons and their unions, "
        "intersections and differences; read a mesh of it from a file"
    )


@_build.register
def _(domain: Box, gmsh: Any) -> _Tags:
    lower, upper = domain.bounds
    if domain.dimension == 2:
        return [(2, gmsh.model.occ.addRectangle(*lower, 0, *(upper - lower)))]
    return [(3, gmsh.model.occ.addBox(*lower, *(upper - lower)))]


@_build.register
def _(domain: shapes.Ball, gmsh: Any) -> _Tags:
    if domain.dimension == 2:
        return [(2, gmsh.model.occ.addDisk(*domain.centre, 0, domain.radius, domain.radius))]
    return [(3, gmsh.model.occ.addSphere(*domain.centre, domain.radius))]


@_build.register
def _(domain: shapes.Ellipse, gmsh: Any) -> _Tags:
    # Gmsh wants the larger radius first, along an axis that it is given.
    axis = [1, 0, 0] if domain.radii[0] >= domain.radii[1] else [0, 1, 0]
    large, small = max(domain.radii), min(domain.radii)
    return [(2, gmsh.model.occ.addDisk(*domain.centre, 0, large, small, zAxis=[0, 0, 1], xAxis=axis))]


@_build.register
def _(domain: shapes.Polygon, gmsh: Any) -> _Tags:
    corners = [gmsh.model.occ.addPoint(x, y, 0) for x, y in domain.vertices]
    sides = [gmsh.model.occ.addLine(a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    return [(2, gmsh.model.occ.addPlaneSurface([gmsh.model.occ.addCurveLoop(sides)]))]


@_build.register
def _(domain: SurfaceDomain, gmsh: Any) -> _Tags:
    # The surface keeps its shape: its triangles are only split, Gmsh meshes the inside.
    points, triangles = _split(domain.points, domain.triangles, gmsh.option.getNumber("Mesh.MeshSizeMax"))
    gmsh.model.addDiscreteEntity(2, 1)
    gmsh.model.mesh.addNodes(2, 1, np.arange(1, len(points) + 1), points.ravel())
    gmsh.model.mesh.addElementsByType(1, 2, [], triangles.ravel() + 1)
    volume = gmsh.model.geo.addVolume([gmsh.model.geo.addSurfaceLoop([1])])
    gmsh.model.geo.synchronize()
    return [(3, volume)]


@_build.register
def _(domain: csg.Union, gmsh: Any) -> _Tags:
    return gmsh.model.occ.fuse(_build(domain.first, gmsh), _build(domain.second, gmsh))[0]


@_build.register
def _(domain: csg.Intersection, gmsh: Any) -> _Tags:
    return gmsh.model.occ.intersect(_build(domain.first, gmsh), _build(domain.second, gmsh))[0]


@_build.register
def _(domain: csg.Difference, gmsh: Any) -> _Tags:
    return gmsh.model.occ.cut(_build(domain.first, gmsh), _build(domain.second, gmsh))[0]

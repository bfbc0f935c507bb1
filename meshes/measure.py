"""Measures of a mesh: volumes, Jacobians, shape quality, angles, boundary length, and defects of its numbering."""

from __future__ import annotations

import math

import numpy as np

from pdelab.errors import MeshError, UnknownName
from pdelab.mesh import CELL_TYPES, Mesh, node_set_keys
from pdelab.meshes.closest import facet_measures
from pdelab.meshes.shape import SIMPLICES, corner_count, reference_nodes, shape_gradients

_EDGES = {
    "line": ((0, 1),),
    "triangle": ((0, 1), (1, 2), (2, 0)),
    "quad": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetra": ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)),
}


def jacobians(mesh: Mesh, at: np.ndarray) -> np.ndarray:
    """Determinant of the map from the reference cell at reference points (q, d), (C, q); unit length**d."""
    slopes = np.stack(shape_gradients(mesh.cell_type, at), axis=2)
    return np.linalg.det(np.einsum("ckd,qke->cqde", mesh.points[mesh.cells], slopes))


def min_jacobian(mesh: Mesh) -> np.ndarray:
    """Smallest Jacobian of each cell over its nodes and quadrature points, (C,); positive for a valid cell.

    Exact for simplices and quad, whose Jacobian is constant or takes its minimum at a corner; for triangle6,
    quad8 and tetra10 a sample (nodes and 6, 9 or 5 points) that a fold between the sampled places could escape.
    """
    at = reference_nodes(mesh.cell_type)
    if mesh.cell_type in SIMPLICES:
        return jacobians(mesh, at[:1])[:, 0]
    return jacobians(mesh, np.concatenate([at, _quadrature(mesh.cell_type)[0]])).min(axis=1)


def volumes(mesh: Mesh) -> np.ndarray:
    """Signed length, area or volume of each cell, (C,), with its curved edges: the integral of the Jacobian."""
    at, weights = _quadrature(mesh.cell_type)
    return jacobians(mesh, at) @ weights


def validity(mesh: Mesh) -> dict[str, float]:
    """Whether the mesh is tangled: its smallest Jacobian and the number of cells where it is not positive."""
    smallest = min_jacobian(mesh)
    return {"min_jacobian": float(smallest.min()), "inverted_cells": int((~(smallest > 0)).sum())}


def quality(mesh: Mesh) -> np.ndarray:
    """Shape of each cell, (C,): 1 at best (equilateral, square), 0 for a flat cell, negative for an inverted one.

        triangle   4 sqrt(3) area / sum of squared edges
        tetra      12 (3 volume)^(2/3) / sum of squared edges
        quad       smallest sine of a corner angle; quad8 the same with the tangents of its curved edges
        triangle6, tetra10  that of the corners times smallest over largest Jacobian

    A line is always 1 (or -1). Source: the mean ratio of Liu & Joe, BIT 34 (1994), and the scaled Jacobian
    of Knupp, SIAM J. Sci. Comput. 23 (2001).
    """
    kind = mesh.cell_type
    if kind == "line":
        return np.sign(mesh.volumes())
    if kind in ("quad", "quad8"):
        slopes = np.stack(shape_gradients(kind, reference_nodes(kind)[:4]), axis=2)
        tangents = np.einsum("ckd,qke->cqde", mesh.points[mesh.cells], slopes)
        lengths = np.linalg.norm(tangents, axis=2).prod(axis=2)
        return (np.linalg.det(tangents) / np.maximum(lengths, 1e-300)).min(axis=1)
    squares = (_edge_lengths(mesh) ** 2).sum(axis=1)
    volume = mesh.volumes()
    shape = 4.0 * math.sqrt(3.0) * volume / squares
    if mesh.dimension == 3:
        shape = np.sign(volume) * 12.0 * (3.0 * np.abs(volume)) ** (2 / 3) / squares
    if kind not in SIMPLICES:
        each = jacobians(mesh, np.concatenate([reference_nodes(kind), _quadrature(kind)[0]]))
        shape = shape * each.min(axis=1) / np.maximum(np.abs(each).max(axis=1), 1e-300)
    return shape


def smallest_angle(mesh: Mesh) -> np.ndarray:
    """Smallest angle of each cell by its corners, (C,), radians: between edges in 2-D, between faces in 3-D.

    Raises:
        MeshError: the mesh is one-dimensional.
    """
    p = _corners(mesh)
    if mesh.dimension == 1:
        raise MeshError("smallest angle: a mesh of lines has no angles")
    if mesh.dimension == 2:
        ahead, behind = np.roll(p, -1, axis=1) - p, np.roll(p, 1, axis=1) - p
        cosine = (ahead * behind).sum(axis=2)
        sine = np.abs(ahead[..., 0] * behind[..., 1] - ahead[..., 1] * behind[..., 0])
        return np.arctan2(sine, cosine).min(axis=1)
    faces = p[:, np.array(CELL_TYPES["tetra"][3])]
    normals = np.cross(faces[:, :, 1] - faces[:, :, 0], faces[:, :, 2] - faces[:, :, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-300)
    pairs = np.array(_EDGES["tetra"])
    # Outward normals: the angle inside the cell is the supplement of the angle between them.
    cosine = -(normals[:, pairs[:, 0]] * normals[:, pairs[:, 1]]).sum(axis=2)
    return np.arccos(np.clip(cosine, -1.0, 1.0)).min(axis=1)


def aspect(mesh: Mesh) -> np.ndarray:
    """Longest edge over the size across, (C,), 1 at best and large for flat cells, by the corners.

    triangle  longest edge * perimeter / (4 sqrt(3) area)
    quad      longest edge * perimeter / (4 area)
    tetra     longest edge / (2 sqrt(6) inradius)
    """
    if mesh.dimension == 1:
        return np.ones(len(mesh.cells))
    edges, volume = _edge_lengths(mesh), np.maximum(np.abs(mesh.volumes()), 1e-300)
    if mesh.dimension == 2:
        scale = 4.0 * (math.sqrt(3.0) if corner_count(mesh.cell_type) == 3 else 1.0)
        return edges.max(axis=1) * edges.sum(axis=1) / (scale * volume)
    faces = _corners(mesh)[:, np.array(CELL_TYPES["tetra"][3])]
    surface = facet_measures(faces.reshape(-1, 3, 3)).reshape(-1, 4).sum(axis=1)
    return edges.max(axis=1) * surface / (6.0 * math.sqrt(6.0) * volume)


def boundary_measure(mesh: Mesh, part: str | None = None) -> float:
    """Length or area of a named boundary part (None: of the whole boundary), with curved edges; points count 1.

    Raises:
        UnknownName: no part of that name.
    """
    if part is not None and part not in mesh.facets:
        raise UnknownName("boundary part", part, mesh.facets)
    facets = mesh.boundary_facets() if part is None else np.asarray(mesh.facets[part])
    nodes = mesh.points[facets]
    if nodes.shape[1] == mesh.dimension:
        return float(facet_measures(nodes).sum())
    # Edges a + b s + c s^2 through (first, last, middle) node, s in [-1, 1]: speed |b + 2 c s|.
    s, weights = np.polynomial.legendre.leggauss(8)
    b = 0.5 * (nodes[:, 1] - nodes[:, 0])
    c = 0.5 * (nodes[:, 1] + nodes[:, 0]) - nodes[:, 2]
    speed = np.linalg.norm(b[:, None] + 2.0 * c[:, None] * s[:, None], axis=2)
    return float((speed @ weights).sum())


def unreferenced_points(mesh: Mesh) -> np.ndarray:
    """Numbers of the points that no cell uses."""
    return np.setdiff1d(np.arange(mesh.n_points), mesh.cells)


def duplicate_cells(cells: np.ndarray) -> np.ndarray:
    """Numbers of the cells (C, k) that have the same nodes, in any order, as an earlier one."""
    _, first = np.unique(node_set_keys(cells), return_index=True)
    return np.setdiff1d(np.arange(len(cells)), first)


def overlapping_facets(mesh: Mesh) -> int:
    """Number of facets that more than two cells share; 0 for a mesh that can be laid out in space."""
    local = CELL_TYPES[mesh.cell_type][3]
    every = np.concatenate([mesh.cells[:, list(f)] for f in local])
    counts = np.unique(node_set_keys(every), return_counts=True)[1]
    return int((counts > 2).sum())


def _corners(mesh: Mesh) -> np.ndarray:
    return mesh.points[mesh.cells[:, : corner_count(mesh.cell_type)]]


def _edge_lengths(mesh: Mesh) -> np.ndarray:
    """Straight lengths between the corners, (C, edges)."""
    kind = {"triangle6": "triangle", "quad8": "quad", "tetra10": "tetra"}.get(mesh.cell_type, mesh.cell_type)
    p, pairs = _corners(mesh), np.array(_EDGES[kind])
    return np.linalg.norm(p[:, pairs[:, 1]] - p[:, pairs[:, 0]], axis=2)


def _quadrature(cell_type: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (q, d) and weights (q,) on the reference cell, exact for its Jacobian."""
    if cell_type in SIMPLICES:
        d = CELL_TYPES[cell_type][0]
        return reference_nodes(cell_type).mean(axis=0, keepdims=True), np.array([1.0 / math.factorial(d)])
    if cell_type == "triangle6":
        # Strang & Fix, three interior points, exact to degree 2; the other three only sample.
        points = [(1 / 6, 1 / 6), (2 / 3, 1 / 6), (1 / 6, 2 / 3), (0.45, 0.45), (0.1, 0.45), (0.45, 0.1)]
        return np.array(points), np.array([1 / 6] * 3 + [0.0] * 3)
    if cell_type == "tetra10":
        # Keast, exact to degree 3.
        corners = np.full((4, 3), 1 / 6)
        corners[range(1, 4), range(3)] = 1 / 2
        return np.vstack([np.full(3, 1 / 4), corners]), np.array([-4 / 5] + [9 / 20] * 4) / 6.0
    s, w = np.polynomial.legendre.leggauss(3)
    x, y = np.meshgrid(s, s, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1), np.outer(w, w).ravel()

"""Shape functions of the cell types on their reference cells, and straight simplices that cover curved cells.

Reference cells: [0, 1], the unit triangle and tetrahedron (corners at the origin and the unit vectors), [-1, 1]^2.
The functions accept NumPy arrays and torch tensors alike, so that the same formula serves measures and fields.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pdelab.mesh import CELL_TYPES, Mesh

SIMPLICES = ("line", "triangle", "tetra")
TETRA_EDGES = ((0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3))
"""Corners of the edges of a tetrahedron, in the order of the nodes on them (tetra10)."""

# cell type -> (reference nodes, exponents of the monomials that span the shape functions)
_BASIS: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[tuple[int, ...], ...]]] = {
    "line": (((0,), (1,)), ((0,), (1,))),
    "triangle": (((0, 0), (1, 0), (0, 1)), ((0, 0), (1, 0), (0, 1))),
    "tetra": (
        ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ),
    "quad": (((-1, -1), (1, -1), (1, 1), (-1, 1)), ((0, 0), (1, 0), (0, 1), (1, 1))),
    "triangle6": (
        ((0, 0), (1, 0), (0, 1), (0.5, 0), (0.5, 0.5), (0, 0.5)),
        ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)),
    ),
    "quad8": (
        ((-1, -1), (1, -1), (1, 1), (-1, 1), (0, -1), (1, 0), (0, 1), (-1, 0)),
        ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (2, 1), (1, 2)),
    ),
    "tetra10": (
        (
            *((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
            *((0.5, 0, 0), (0.5, 0.5, 0), (0, 0.5, 0), (0, 0, 0.5), (0.5, 0, 0.5), (0, 0.5, 0.5)),
        ),
        (
            *((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
            *((2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (1, 0, 1), (0, 1, 1)),
        ),
    ),
}

# cell type -> local nodes of the simplices that cover it, by the nodes on its edges
_COVER: dict[str, tuple[tuple[int, ...], ...]] = {
    "quad": ((0, 1, 2), (0, 2, 3)),
    "triangle6": ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
    "quad8": ((0, 4, 7), (4, 1, 5), (5, 2, 6), (6, 3, 7), (4, 5, 6), (4, 6, 7)),
    "tetra10": (
        *((0, 4, 6, 7), (4, 1, 5, 8), (6, 5, 2, 9), (7, 8, 9, 3)),
        *((4, 9, 6, 5), (4, 9, 7, 6), (4, 9, 8, 7), (4, 9, 5, 8)),
    ),
}


def reference_nodes(cell_type: str) -> np.ndarray:
    """Nodes of the reference cell, (k, d)."""
    return np.array(_BASIS[cell_type][0], dtype=float)


def reference_centre(cell_type: str) -> np.ndarray:
    """Mean of the corners of the reference cell, (d,)."""
    corners = corner_count(cell_type)
    return reference_nodes(cell_type)[:corners].mean(axis=0)


def corner_count(cell_type: str) -> int:
    """Number of corner nodes, which come first."""
    return {"triangle6": 3, "quad8": 4, "tetra10": 4}.get(cell_type, CELL_TYPES[cell_type][1])


def shape_functions(cell_type: str, at: Any) -> Any:
    """Values of the k shape functions at reference points (n, d), (n, k)."""
    monomials = [_monomial(at, exponents) for exponents in _BASIS[cell_type][1]]
    return _combine(monomials, cell_type, at)


def shape_gradients(cell_type: str, at: Any) -> list[Any]:
    """Derivatives of the shape functions along each reference axis, d arrays (n, k)."""
    result = []
    for axis in range(at.shape[1]):
        monomials = []
        for exponents in _BASIS[cell_type][1]:
            lower = tuple(e - (i == axis) for i, e in enumerate(exponents))
            factor = exponents[axis]
            monomials.append(factor * _monomial(at, lower) if factor else 0.0 * at[:, 0])
        result.append(_combine(monomials, cell_type, at))
    return result


def simplicial(mesh: Mesh) -> tuple[Mesh, np.ndarray]:
    """The same points with straight simplices, and the cell that each simplex comes from.

    Quadrilaterals are cut in two; cells with nodes on their edges are cut along those nodes (4 triangles
    for triangle6, 6 for quad8, 8 tetrahedra for tetra10), so that a curved edge becomes two straight ones. Named
    facets follow.
    """
    if mesh.cell_type in SIMPLICES:
        return mesh, np.arange(len(mesh.cells))
    local = np.array(_COVER[mesh.cell_type])
    cells = mesh.cells[:, local].reshape(-1, local.shape[1])
    facets = {name: _halved(np.asarray(f)) for name, f in mesh.facets.items()}
    parent = np.repeat(np.arange(len(mesh.cells)), len(local))
    return Mesh(mesh.points, cells, SIMPLICES[mesh.dimension - 1], facets), parent


def _halved(facets: np.ndarray) -> np.ndarray:
    """Facets with nodes on their edges as straight ones: (F, 3) -> (2 F, 2), (F, 6) -> (4 F, 3)."""
    if facets.shape[1] == 2:
        return facets
    if facets.shape[1] == 6:
        return facets[:, np.array(_COVER["triangle6"])].reshape(-1, 3)
    return np.stack([facets[:, [0, 2]], facets[:, [2, 1]]], axis=1).reshape(-1, 2)


def _monomial(at: Any, exponents: tuple[int, ...]) -> Any:
    """The product of powers, (n,); written as products, whose derivatives of any order are finite at 0."""
    result = 0.0 * at[:, 0] + 1.0
    for axis, exponent in enumerate(exponents):
        for _ in range(exponent):
            result = result * at[:, axis]
    return result


def _combine(monomials: list[Any], cell_type: str, at: Any) -> Any:
    coefficients = _coefficients(cell_type)
    if isinstance(at, np.ndarray):
        return np.stack(monomials, axis=1) @ coefficients
    import torch

    return torch.stack(monomials, dim=1) @ torch.as_tensor(coefficients)


@cache
def _coefficients(cell_type: str) -> np.ndarray:
    """Inverse of the Vandermonde matrix of the nodes: each shape function is 1 at its node, 0 at the others."""
    nodes = reference_nodes(cell_type)
    matrix = np.stack([_monomial(nodes, e) for e in _BASIS[cell_type][1]], axis=1)
    return np.linalg.inv(matrix)

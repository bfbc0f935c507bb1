"""Point location in a mesh, and fields given by nodal values on a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pdelab.errors import InputError, MeshError, check_shape
from pdelab.fields import GridField
from pdelab.mesh import Mesh
from pdelab.meshes.closest import ClosestFacet
from pdelab.meshes.shape import (
    SIMPLICES,
    corner_count,
    reference_centre,
    reference_nodes,
    shape_functions,
    shape_gradients,
    simplicial,
)

TOLERANCE = 1e-9  # a point is in a simplex if all its barycentric coordinates are at least -TOLERANCE
CRACK = 1e-6  # the same for points that no simplex holds but that lie in the bounding box of one
NEIGHBOURS = 8
PAIRS = 2_000_000


class Locator:
    """Which cell holds a point: the cells with the nearest centres are tried first, then all whose box fits.

    Cells with curved edges or four corners are located by the straight simplices that cover them
    (`shape.simplicial`). A point outside gets the cell of the nearest boundary facet.

    Raises:
        MeshError: a cell has no volume.
    """

    def __init__(self, mesh: Mesh):
        self._flat, self._parent = simplicial(mesh)
        corners = self._flat.points[self._flat.cells]
        edges = (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
        if not (np.abs(self._flat.volumes()) > 0).all():
            raise MeshError("a cell has no volume, so points cannot be located in it; see meshes.measure")
        self._origin, self._inverse = corners[:, 0], np.linalg.inv(edges)
        self._low, self._high = corners.min(axis=1), corners.max(axis=1)
        self._tree = cKDTree(corners.mean(axis=1))

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cell numbers (n,) and whether the cell holds the point (n,), for points (n, d).

        Raises:
            InputError: a coordinate is not finite.
        """
        simplex, inside = self.locate_simplex(points)
        return self._parent[simplex], inside

    def locate_simplex(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `locate`, with the numbers of the covering simplices."""
        points = np.ascontiguousarray(points, dtype=float)
        check_shape("points", points, (None, self._flat.dimension))
        if not np.isfinite(points).all():
            raise InputError("points: a coordinate is not finite")
        found = np.full(len(points), -1, dtype=np.int64)
        inside = np.zeros(len(points), dtype=bool)
        open_ = self._try_nearest(points, found)
        open_ = self._try_boxes(points, open_, found)
        inside[found >= 0] = True
        if len(open_):
            found[open_] = self._boundary_cells[self._boundary.find(points[open_])]
        return found, inside

    def _depth(self, points: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Smallest barycentric coordinate of each point in the simplex beside it, (n,)."""
        inner = np.einsum("nij,nj->ni", self._inverse[cells], points - self._origin[cells])
        return np.minimum(inner.min(axis=1), 1.0 - inner.sum(axis=1))

    def _try_nearest(self, points: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Fill `found` from the nearest centres; return the numbers of the points that are left."""
        open_ = np.arange(len(points))
        k = min(NEIGHBOURS, len(self._origin))
        if not len(points):
            return open_
        near = self._tree.query(points, k=k)[1].reshape(len(points), k)
        for column in range(k):
            cells = near[open_, column]
            good = self._depth(points[open_], cells) >= -TOLERANCE
            found[open_[good]] = cells[good]
            open_ = open_[~good]
        return open_

    def _try_boxes(self, points: np.ndarray, open_: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Fill `found` from all simplices in the same bin; return the numbers of the points that are left."""
        low, width, shape, start, members = self._bins
        place = np.floor((points[open_] - low) / width).astype(np.int64)
        open_ = open_[((place >= 0) & (place < shape)).all(axis=1)]
        outside = np.setdiff1d(np.flatnonzero(found < 0), open_, assume_unique=True)
        bins = np.ravel_multi_index(np.floor((points[open_] - low) / width).astype(np.int64).T, shape)
        counts = start[bins + 1] - start[bins]
        left = [outside, open_[counts == 0]]
        open_, bins, counts = open_[counts > 0], bins[counts > 0], counts[counts > 0]
        if not len(open_):
            return np.concatenate(left)
        for rows in np.array_split(np.arange(len(open_)), max(1, int(counts.sum()) // PAIRS)):
            number = counts[rows]
            first = np.cumsum(number) - number
            within = np.arange(number.sum()) - np.repeat(first, number)
            cells = members[np.repeat(start[bins[rows]], number) + within]
            depth = self._depth(points[np.repeat(open_[rows], number)], cells)
            best = np.maximum.reduceat(depth, first)
            # The first candidate that attains the best depth of its point.
            winner = np.flatnonzero(depth == np.repeat(best, number))
            winner = winner[np.unique(np.repeat(np.arange(len(rows)), number)[winner], return_index=True)[1]]
            good = best >= -CRACK
            found[open_[rows][good]] = cells[winner[good]]
            left.append(open_[rows][~good])
        return np.concatenate(left)

    @cached_property
    def _bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Lower corner, bin widths, bins per axis, and the simplices of each bin (CSR: start, members)."""
        d = self._flat.dimension
        low, high = self._low.min(axis=0), self._high.max(axis=0)
        margin = 1e-9 * (high - low).max()
        low, high = low - margin, high + margin
        side = (np.prod(high - low) / len(self._low)) ** (1 / d)
        shape = np.clip(np.ceil((high - low) / side), 1, 4096).astype(np.int64)
        width = (high - low) / shape
        first = np.clip(np.floor((self._low - margin - low) / width).astype(np.int64), 0, shape - 1)
        last = np.clip(np.floor((self._high + margin - low) / width).astype(np.int64), 0, shape - 1)
        extent = last - first + 1
        counts = extent.prod(axis=1)
        owner = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        place = np.empty((len(owner), d), dtype=np.int64)
        for axis in reversed(range(d)):
            within, place[:, axis] = np.divmod(within, extent[owner, axis])
        bins = np.ravel_multi_index((first[owner] + place).T, shape)
        order = np.argsort(bins, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=int(shape.prod())))])
        return low, width, shape, start, owner[order]

    @cached_property
    def _boundary(self) -> ClosestFacet:
        return ClosestFacet(self._flat.points[self._flat.boundary_facets()])

    @cached_property
    def _boundary_cells(self) -> np.ndarray:
        return self._flat.boundary_cells()


class MeshField:
    """Interpolation of nodal values by the shape functions of the cells, differentiable in the points.

    P1 on line, triangle and tetra, P2 on triangle6 and tetra10, bilinear on quad, serendipity on quad8; curved and
    four-cornered cells by Newton's method for the reference point. In time, the up to 8 stored times next
    to the point carry a Lagrange polynomial (`GridField`). A point outside the mesh is given the polynomial
    of the nearest cell: first or second order accurate near a curved boundary, useless far away.

    Derivatives across cell borders jump; inside a cell they are those of the polynomial.

    Args:
        mesh: the mesh.
        values: (N, m), or (K, N, m) with K times, float64.
        times: increasing, (K,); the points then have the time as their last coordinate.
    """

    kind = "mesh"

    def __init__(self, mesh: Mesh, values: np.ndarray, times: np.ndarray | None = None):
        self.mesh = mesh
        self.values = np.ascontiguousarray(values, dtype=float)
        self.times = None if times is None else np.asarray(times, dtype=float)
        if self.times is None:
            check_shape("values", self.values, (mesh.n_points, None))
        else:
            check_shape("values", self.values, (len(self.times), mesh.n_points, None))
            self._clock = GridField((self.times,), np.zeros((len(self.times), 1)))

    @property
    def n_components(self) -> int:
        """Number of fields m."""
        return self.values.shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m) float64, in blocks so that memory stays below about 300 MB."""
        check_shape("points", x, (None, self.mesh.dimension + (self.times is not None)))
        width = self.mesh.cells.shape[1] * self.n_components * (1 if self.times is None else 8)
        block = max(1, 8_000_000 // width)
        return torch.cat([self._interpolate(part.to(torch.float64).cpu()) for part in x.split(block)]).to(x.device)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays, for storage; names of facets and regions are not stored."""
        stored = {"points": self.mesh.points, "cells": self.mesh.cells, "cell_type": np.array(self.mesh.cell_type)}
        return stored | {"values": self.values} | ({} if self.times is None else {"times": self.times})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> MeshField:
        """The inverse of `arrays`."""
        mesh = Mesh(arrays["points"], arrays["cells"], str(arrays["cell_type"]))
        return cls(mesh, arrays["values"], arrays.get("times"))

    @cached_property
    def _locator(self) -> Locator:
        return Locator(self.mesh)

    @cached_property
    def _affine(self) -> bool:
        """Whether every cell is an affine image of its reference cell."""
        kind = self.mesh.cell_type
        if kind in SIMPLICES:
            return True
        if kind not in ("triangle6", "tetra10"):
            return False
        nodes, d = self.mesh.points[self.mesh.cells], self.mesh.dimension
        flat = shape_functions(SIMPLICES[d - 1], reference_nodes(kind))
        straight = np.einsum("kc,ncd->nkd", flat, nodes[:, : d + 1])
        return bool(np.abs(nodes - straight).max() <= 1e-12 * np.ptp(nodes, axis=(0, 1)).max())

    def _interpolate(self, x: Tensor) -> Tensor:
        d = self.mesh.dimension
        place = x[:, :d]
        nodes = self.mesh.cells[self._locator.locate(place.detach().numpy())[0]]
        number = torch.as_tensor(nodes)
        weights = shape_functions(self.mesh.cell_type, self._reference(place, nodes))
        values = torch.as_tensor(self.values)
        if self.times is None:
            return torch.einsum("nk,nkm->nm", weights, values[number])
        index, factor = self._clock._stencil(x[:, d], 0)
        return torch.einsum("ns,nk,nskm->nm", factor, weights, values[index[:, :, None], number[:, None]])

    def _reference(self, x: Tensor, nodes: np.ndarray) -> Tensor:
        """Reference points (n, d) of points in the cells with the given nodes (n, k)."""
        kind = self.mesh.cell_type
        corners = torch.as_tensor(self.mesh.points[nodes])
        if self._affine:
            edges = (corners[:, 1 : corner_count(SIMPLICES[x.shape[1] - 1])] - corners[:, :1]).transpose(1, 2)
            return torch.linalg.solve(edges, (x - corners[:, 0])[:, :, None])[:, :, 0]
        at = torch.as_tensor(reference_centre(kind)).expand(len(x), -1)
        with torch.no_grad():
            for _ in range(12):
                # Four-cornered cells of any shape: far steps are cut, they come back.
                at = _newton(kind, at, x, corners).clamp(-2, 2)
        # Two more steps with the graph make first and second derivatives exact.
        return _newton(kind, _newton(kind, at, x, corners), x, corners)


def recovered_gradient(mesh: Mesh, values: np.ndarray) -> np.ndarray:
    """Nodal gradients of a P1 field: means of the cell gradients around a node, weighted by cell volume.

    Args:
        mesh: a mesh of lines, triangles or tetrahedra.
        values: nodal values (N, m).

    Returns:
        (N, m, d); exact for linear fields, second order inside regular meshes, first order at the boundary.

    Raises:
        MeshError: the cells are of another type.
    """
    if mesh.cell_type not in SIMPLICES:
        raise MeshError(f"recovered gradient: cells of type {', '.join(SIMPLICES)} needed, got {mesh.cell_type}")
    check_shape("values", values, (mesh.n_points, None))
    corners = mesh.points[mesh.cells]
    slopes = values[mesh.cells[:, 1:]] - values[mesh.cells[:, :1]]
    gradients = np.linalg.solve(corners[:, 1:] - corners[:, :1], slopes)
    volume = np.abs(mesh.volumes())
    total = np.zeros((mesh.n_points, mesh.dimension, values.shape[1]))
    weight = np.zeros(mesh.n_points)
    for column in mesh.cells.T:
        np.add.at(total, column, volume[:, None, None] * gradients)
        np.add.at(weight, column, volume)
    return (total / np.maximum(weight, 1e-300)[:, None, None]).transpose(0, 2, 1)


def _newton(kind: str, at: Tensor, x: Tensor, nodes: Tensor) -> Tensor:
    """One step towards the reference point whose image is x."""
    miss = torch.einsum("nk,nkd->nd", shape_functions(kind, at), nodes) - x
    slopes = torch.stack(shape_gradients(kind, at), dim=2)
    jacobian = torch.einsum("nkd,nke->nde", nodes, slopes)
    return at - torch.linalg.solve(jacobian, miss[:, :, None])[:, :, 0]

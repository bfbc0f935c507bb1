"""Lagrange finite elements on our meshes: degrees of freedom, boundary parts, constraints, fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import skfem
import torch
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from pdelab.domain import AbstractDomain
from pdelab.errors import MeshError
from pdelab.fields import GridField
from pdelab.mesh import Mesh
from pdelab.meshes.closest import ClosestFacet
from pdelab.meshes.interpolate import MeshField

_MESHES: dict[str, Any] = {"line": skfem.MeshLine1, "triangle": skfem.MeshTri1, "tetra": skfem.MeshTet1}
_ELEMENTS: dict[tuple[int, int], Any] = {
    (1, 1): skfem.ElementLineP1,
    (1, 2): skfem.ElementLineP2,
    (2, 1): skfem.ElementTriP1,
    (2, 2): skfem.ElementTriP2,
    (3, 1): skfem.ElementTetP1,
    (3, 2): skfem.ElementTetP2,
}


class Space:
    """Continuous piecewise polynomials of order 1 or 2 on lines, triangles or tetrahedra.

    Elements of order 2 on a domain have edges that follow its boundary (isoparametric); on a `triangle6` mesh they
    follow the edges of that mesh. Without a domain edges are straight.

    Args:
        mesh: cells of type line, triangle, triangle6 or tetra, with facets named like the boundary parts.
        order: 1 or 2.
        domain: whose boundary the mid-edge nodes are moved to, or None.
        refinements: how often the mesh is refined first; cells with curved edges are taken as straight for it.

    Raises:
        MeshError: the cells are of another type.
    """

    def __init__(self, mesh: Mesh, order: int, domain: AbstractDomain | None = None, refinements: int = 0):
        corners, self.facets = _with_corners_only(mesh)
        if corners.cell_type not in _MESHES:
            raise MeshError(f"fem works on {', '.join(_MESHES)} and triangle6 cells, got {mesh.cell_type!r}")
        self.order, self.dimension = order, mesh.dimension
        # scikit-fem warns if it has to copy the arrays itself.
        p, t = np.ascontiguousarray(corners.points.T), np.ascontiguousarray(corners.cells.T)
        self.mesh = _MESHES[corners.cell_type](p, t)
        if refinements:
            self._refine(refinements, domain)
        if order == 2 and mesh.dimension == 2:
            self._bend(mesh if not refinements else None, domain)
        self.basis = skfem.Basis(self.mesh, self.element, intorder=2 * order)

    def _refine(self, refinements: int, domain: AbstractDomain | None) -> None:
        """Cut every cell; new nodes on the rim move to the boundary of the domain, named facets follow."""
        names = list(self.facets)
        coarse = np.concatenate([np.empty((0, self.dimension), dtype=int), *self.facets.values()])
        owner = np.repeat(np.arange(len(names)), [len(f) for f in self.facets.values()])
        corners = self.mesh.p.T[coarse]
        self.mesh = self.mesh.refined(refinements)
        rim = self.mesh.facets.T[self.mesh.boundary_facets()]
        if names:
            # The middle of a fine facet lies in the coarse one that it is a part of.
            nearest = owner[ClosestFacet(corners).find(self.mesh.p.T[rim].mean(axis=1))]
            self.facets = {name: rim[nearest == i] for i, name in enumerate(names)}
        if domain is not None:
            nodes, where = np.unique(rim), self.mesh.p.copy()
            where[:, nodes] = _on_boundary(domain, where[:, nodes].T).T
            self.mesh = type(self.mesh)(where, self.mesh.t)

    def _bend(self, mesh: Mesh | None, domain: AbstractDomain | None) -> None:
        """Move mid-edge nodes to the curved boundary, if there is any."""
        bent = skfem.MeshTri2.from_mesh(self.mesh)
        where = bent.doflocs.copy()
        if mesh is not None and mesh.cell_type == "triangle6":
            middles, at = np.unique(mesh.cells[:, 3:], return_index=True)
            edges = np.sort(mesh.cells[:, :3][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)[at], axis=1)
            corner_numbers = np.unique(mesh.cells[:, :3])
            where[:, self.mesh.p.shape[1] + self._facet_numbers(np.searchsorted(corner_numbers, edges))] = mesh.points[
                middles
            ].T
        elif domain is not None:
            rim = self.mesh.p.shape[1] + self.mesh.boundary_facets()
            where[:, rim] = _on_boundary(domain, where[:, rim].T).T
        if np.abs(where - bent.doflocs).max() > 1e-10 * np.ptp(where):
            self.mesh = skfem.MeshTri2(where, bent.t)

    @property
    def element(self) -> Any:
        """A new element of this order."""
        return _ELEMENTS[(self.dimension, self.order)]()

    @property
    def n_dofs(self) -> int:
        """Number of degrees of freedom."""
        return int(self.basis.N)

    @property
    def places(self) -> np.ndarray:
        """Nodes of the degrees of freedom, (n_dofs, d)."""
        return self.basis.doflocs.T

    def of_order(self, order: int) -> Any:
        """A basis of another order on the same cells and quadrature points."""
        return self.basis.with_element(_ELEMENTS[(self.dimension, order)]())

    def facet_numbers(self, part: str | None) -> np.ndarray:
        """Facets of a boundary part (None: the whole boundary).

        Raises:
            MeshError: the mesh has no facets of that name.
        """
        if part is None:
            return self.mesh.boundary_facets()
        if part not in self.facets:
            known = ", ".join(self.facets) or "none"
            raise MeshError(f"a condition needs facets named {part!r}; the mesh has {known}")
        return self._facet_numbers(self.facets[part])

    def dofs_on(self, part: str | None) -> np.ndarray:
        """Degrees of freedom on a boundary part (None: the whole boundary)."""
        return self.basis.get_dofs(facets=self.facet_numbers(part)).flatten()

    def boundary_basis(self, part: str | None) -> Any:
        """Facet basis on a boundary part, with the quadrature of the cells."""
        return skfem.FacetBasis(
            self.mesh, self.element, facets=self.facet_numbers(part), intorder=max(2, 2 * self.order)
        )

    def reduction(self, fixed: np.ndarray, periods: Sequence[tuple[int, float]] = ()) -> csr_array:
        """The matrix P (n_dofs, n_free) with u = P y + values at fixed degrees of freedom.

        Args:
            fixed: numbers of the given degrees of freedom.
            periods: (axis, period) pairs; nodes at the upper end share the unknown of those at the lower end.

        Raises:
            MeshError: the nodes at both ends of a periodic axis do not match.
        """
        owner = periodic_owners(self.places, periods)
        free = np.zeros(self.n_dofs, dtype=bool)
        free[owner] = True
        free[fixed] = False
        number = np.cumsum(free) - 1
        rows = np.flatnonzero(free[owner])
        return csr_array((np.ones(len(rows)), (rows, number[owner[rows]])), shape=(self.n_dofs, int(free.sum())))

    def field(self, values: np.ndarray, times: np.ndarray | None = None) -> MeshField | GridField:
        """The field with nodal values (n_dofs, m), or (K, n_dofs, m) at times (K,)."""
        if self.order == 2 and self.dimension == 1:
            order = np.argsort(self.places[:, 0])
            x = self.places[order, 0]
            if times is None:
                return GridField((x,), values[order])
            return GridField((x, times), values[:, order].transpose(1, 0, 2))
        return MeshField(self.output_mesh, values, times)

    @cached_property
    def output_mesh(self) -> Mesh:
        """A mesh whose nodes are the degrees of freedom; in one dimension with cells of order 1."""
        t = self.mesh.t.T.copy()
        facets = {name: self.mesh.facets.T[self._facet_numbers(f)] for name, f in self.facets.items()}
        if self.dimension == 1 and self.order == 2:
            order = np.argsort(self.places[:, 0])
            return Mesh(self.places, np.stack([order[:-1], order[1:]], axis=1), "line", facets)
        if self.order == 1:
            cells = _oriented(Mesh(self.mesh.p.T, t, {1: "line", 2: "triangle", 3: "tetra"}[self.dimension]))
            return Mesh(self.mesh.p.T, cells, {1: "line", 2: "triangle", 3: "tetra"}[self.dimension], facets)
        # Both number the corners first, then the edges; their local order is (01, 12, 02) and (01, 12, 20).
        middle = self.basis.facet_dofs[0]
        x = self.places
        p = x[t]
        first, second = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
        turned = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0
        cells = np.hstack([t, middle[self.mesh.t2f.T]])
        cells[turned] = cells[turned][:, [0, 2, 1, 5, 4, 3]]
        facets = {
            name: np.column_stack([self.mesh.facets.T[n], middle[n]])
            for name, n in ((name, self._facet_numbers(f)) for name, f in self.facets.items())
        }
        return Mesh(x, cells, "triangle6", facets)

    def _facet_numbers(self, nodes: np.ndarray) -> np.ndarray:
        """Numbers of facets given by their corner nodes (F, d)."""
        every, wanted = np.sort(self.mesh.facets.T, axis=1), np.sort(nodes, axis=1)
        _, key = np.unique(np.concatenate([every, wanted]), axis=0, return_inverse=True)
        key = key.ravel()
        place = np.full(key.max() + 1, -1)
        place[key[: len(every)]] = np.arange(len(every))
        found = place[key[len(every) :]]
        if (found < 0).any():
            raise MeshError(f"{int((found < 0).sum())} named facets are no facets of the mesh")
        return found


def periodic_owners(x: np.ndarray, periods: Sequence[tuple[int, float]]) -> np.ndarray:
    """Which node gives each of the nodes x (N, d) its unknown: itself, or the one opposite on the lower side, (N,).

    Args:
        x: places of the nodes.
        periods: (axis, period) pairs; nodes at the upper end share the unknown of those at the lower end.

    Raises:
        MeshError: the nodes at both ends of a periodic axis do not match.
    """
    owner = np.arange(len(x))
    for axis, period in periods:
        low, high = x[:, axis].min(), x[:, axis].max()
        upper = np.flatnonzero(x[:, axis] > high - 1e-9 * period)
        lower = np.flatnonzero(x[:, axis] < low + 1e-9 * period)
        shift = np.zeros(x.shape[1])
        shift[axis] = period
        apart, twin = cKDTree(x[lower]).query(x[upper] - shift)
        if len(lower) != len(upper) or apart.max() > 1e-8 * period:
            raise MeshError(
                f"periodic axis {axis}: the {len(lower)} and {len(upper)} nodes at its ends differ by up to "
                f"{apart.max():.2e}; use a box mesh"
            )
        owner[upper] = owner[lower[twin]]
    # A corner of several periodic axes leads to its owner in as many steps.
    for _ in range(len(periods)):
        owner = owner[owner]
    return owner


def interpolated(basis: Any, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, Q) and gradients (d, C, Q) of a finite element function at the quadrature points of a basis."""
    # scikit-fem's own method sorts the degrees of freedom on each call, which dominates on small boundary parts.
    columns = [u[dofs][:, None] for dofs in basis.element_dofs]
    functions = [function[0] for function in basis.basis]
    values = sum(c * np.asarray(f) for c, f in zip(columns, functions, strict=True))
    return values, sum(c * np.asarray(f.grad) for c, f in zip(columns, functions, strict=True))


def _with_corners_only(mesh: Mesh) -> tuple[Mesh, dict[str, np.ndarray]]:
    """The mesh of the corner nodes, numbered anew, and its named facets."""
    if mesh.cell_type != "triangle6":
        return mesh, {name: np.asarray(f) for name, f in mesh.facets.items()}
    used, cells = np.unique(mesh.cells[:, :3], return_inverse=True)
    facets = {name: np.searchsorted(used, np.asarray(f)[:, :2]) for name, f in mesh.facets.items()}
    return Mesh(mesh.points[used], cells.reshape(-1, 3), "triangle"), facets


def _on_boundary(domain: AbstractDomain, points: np.ndarray) -> np.ndarray:
    """Points (n, d) near the boundary moved onto it, along the gradient of the signed distance."""
    x = torch.as_tensor(points, dtype=torch.float64)
    for _ in range(3):
        x = x.detach().requires_grad_(True)
        distance = domain.signed_distance(x)
        # On a straight side the gradient of the distance may not exist, and there is nothing to do.
        off = distance.detach().abs() > 1e-12 * np.ptp(points)
        (slope,) = torch.autograd.grad(distance[off].sum(), x)
        step = distance[:, None] * slope / slope.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
        x = torch.where(off[:, None], x - step, x)
    return x.detach().numpy()


def _oriented(mesh: Mesh) -> np.ndarray:
    """The cells with positive volume."""
    cells = mesh.cells.copy()
    turned = mesh.volumes() < 0
    cells[turned] = cells[turned][:, [1, 0, *range(2, cells.shape[1])]]
    return cells

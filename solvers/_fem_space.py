"""Lagrange finite elements on our meshes: degrees of freedom, boundary parts, constraints, fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import skfem
import torch
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from skfem.mapping import MappingIsoparametric

from pdelab.domain import AbstractDomain
from pdelab.errors import MeshError
from pdelab.fields import GridField
from pdelab.mesh import Mesh, node_set_keys
from pdelab.meshes.closest import ClosestFacet
from pdelab.meshes.interpolate import MeshField
from pdelab.meshes.measure import jacobians
from pdelab.meshes.shape import TETRA_EDGES, reference_nodes

_MESHES: dict[str, Any] = {"line": skfem.MeshLine1, "triangle": skfem.MeshTri1, "tetra": skfem.MeshTet1}
FOLDED = 0.2
"""Edges stay straight around a cell whose smallest Jacobian would fall below this share of its straight form's."""
_BENT: dict[int, Any] = {2: skfem.MeshTri2, 3: skfem.MeshTet2}
_KINDS = {1: ("line",), 2: ("triangle", "triangle6"), 3: ("tetra", "tetra10")}
"""Cell types by dimension, of order 1 and 2."""
_TURNED = {"triangle6": [0, 2, 1, 5, 4, 3], "tetra10": [0, 2, 1, 3, 6, 5, 4, 7, 9, 8]}
"""Nodes of a cell of order 2 with the other orientation."""
_ELEMENTS: dict[tuple[int, int], Any] = {
    (1, 1): skfem.ElementLineP1,
    (1, 2): skfem.ElementLineP2,
    (2, 1): skfem.ElementTriP1,
    (2, 2): skfem.ElementTriP2,
    (3, 1): skfem.ElementTetP1,
    (3, 2): skfem.ElementTetP2,
}


class _BentTetrahedra(MappingIsoparametric):
    """Tetrahedra of order 2, whose reference points Newton's method finds from the middle."""

    def invF(self, x: np.ndarray, tind: np.ndarray | None = None) -> np.ndarray:  # noqa: N802, scikit-fem's name
        """Reference points of x, (3, F, Q)."""
        at = np.full(x.shape, 0.25)
        for _ in range(12):
            at = at + np.einsum("ijkl,jkl->ikl", self.invDF(at, tind), x - self.F(at, tind))
        return at


class Space:
    """Continuous piecewise polynomials of order 1 or 2 on lines, triangles or tetrahedra.

    Elements of order 2 on a domain have edges that follow its boundary (isoparametric); on a mesh of `triangle6`
    or `tetra10` they follow the edges of that mesh. Without a domain edges are straight.

    Args:
        mesh: cells of type line, triangle, triangle6, tetra or tetra10, with facets named like the boundary parts.
        order: 1 or 2.
        domain: whose boundary the mid-edge nodes are moved to, or None.
        refinements: how often the mesh is refined first; cells with curved edges are taken as straight for it.

    Raises:
        MeshError: the cells are of another type.
    """

    def __init__(self, mesh: Mesh, order: int, domain: AbstractDomain | None = None, refinements: int = 0):
        corners, self.facets = _with_corners_only(mesh)
        if corners.cell_type not in _MESHES:
            raise MeshError(f"fem works on {', '.join(_MESHES)}, triangle6 and tetra10 cells, got {mesh.cell_type!r}")
        self.order, self.dimension = order, mesh.dimension
        # scikit-fem warns if it has to copy the arrays itself.
        p, t = np.ascontiguousarray(corners.points.T), np.ascontiguousarray(corners.cells.T)
        self.mesh = _MESHES[corners.cell_type](p, t)
        if refinements:
            self._refine(refinements, domain)
        if order == 2 and mesh.dimension > 1:
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
        bent = _BENT[self.dimension].from_mesh(self.mesh)
        where, n = bent.doflocs.copy(), self.mesh.p.shape[1]
        k = self.dimension + 1
        if mesh is not None and mesh.cell_type in _TURNED:
            middles, at = np.unique(mesh.cells[:, k:], return_index=True)
            edges = mesh.cells[:, np.array(TETRA_EDGES[: 3 * (k - 2)])].reshape(-1, 2)[at]
            corner_numbers = np.unique(mesh.cells[:, :k])
            where[:, n + self._edge_numbers(np.searchsorted(corner_numbers, edges))] = mesh.points[middles].T
        elif domain is not None:
            rim = n + (self.mesh.boundary_facets() if self.dimension == 2 else self.mesh.boundary_edges())
            where[:, rim] = _on_boundary(domain, where[:, rim].T).T
            edges = n + (self.mesh.t2f if self.dimension == 2 else self.mesh.t2e)
            where = _unfolded(where, bent.doflocs, np.vstack([self.mesh.t, edges]).T, _KINDS[self.dimension][1])
        if np.abs(where - bent.doflocs).max() > 1e-10 * np.ptp(where):
            self.mesh = _BENT[self.dimension](where, bent.t)

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
        bent = isinstance(self.mesh, skfem.MeshTet2)
        mapping = _BentTetrahedra(self.mesh, self.mesh.elem(), self.mesh.bndelem) if bent else None
        return skfem.FacetBasis(
            self.mesh, self.element, mapping, max(2, 2 * self.order), facets=self.facet_numbers(part)
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
        kind = _KINDS[self.dimension][self.order - 1]
        if self.order == 1:
            return Mesh(self.mesh.p.T, _oriented(Mesh(self.mesh.p.T, t, kind)), kind, facets)
        # Both number the corners first, then the edges, in the same order: 02 and 20 are one edge.
        plane = self.dimension == 2
        middle = self.basis.facet_dofs[0] if plane else self.basis.edge_dofs[0]
        cells = np.hstack([t, middle[(self.mesh.t2f if plane else self.mesh.t2e).T]])
        turned = Mesh(self.places, cells, kind).volumes() < 0
        cells[turned] = cells[turned][:, _TURNED[kind]]
        ends = np.array(TETRA_EDGES[: 1 if plane else 3])
        facets = {
            name: np.hstack([f, middle[self._edge_numbers(f[:, ends].reshape(-1, 2))].reshape(len(f), -1)])
            for name, f in facets.items()
        }
        return Mesh(self.places, cells, kind, facets)

    def _facet_numbers(self, nodes: np.ndarray) -> np.ndarray:
        """Numbers of facets given by their corner nodes (F, d)."""
        return _row_numbers(self.mesh.facets.T, nodes)

    def _edge_numbers(self, nodes: np.ndarray) -> np.ndarray:
        """Numbers of edges given by their ends (E, 2)."""
        return _row_numbers((self.mesh.facets if self.dimension == 2 else self.mesh.edges).T, nodes)


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


def _unfolded(bent: np.ndarray, straight: np.ndarray, cells: np.ndarray, kind: str) -> np.ndarray:
    """The nodes (d, N), with straight edges again around cells that the bent ones fold, or nearly so."""
    bent = bent.copy()
    while True:
        mesh = Mesh(bent.T, cells, kind)
        size = math.factorial(mesh.dimension) * mesh.volumes()
        folded = cells[(jacobians(mesh, reference_nodes(kind)) / size[:, None]).min(axis=1) < FOLDED]
        if (bent[:, folded] == straight[:, folded]).all():
            return bent
        bent[:, folded] = straight[:, folded]


def _row_numbers(every: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of the rows of node numbers (F, j) hold the same nodes as the wanted ones, in any order."""
    key = np.unique(node_set_keys(np.concatenate([every, wanted])), return_inverse=True)[1]
    place = np.full(key.max() + 1, -1)
    place[key[: len(every)]] = np.arange(len(every))
    found = place[key[len(every) :]]
    if (found < 0).any():
        raise MeshError(f"{int((found < 0).sum())} named facets are no facets of the mesh")
    return found


def interpolated(basis: Any, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, Q) and gradients (d, C, Q) of a finite element function at the quadrature points of a basis."""
    # scikit-fem's own method sorts the degrees of freedom on each call, which dominates on small boundary parts.
    columns = [u[dofs][:, None] for dofs in basis.element_dofs]
    functions = [function[0] for function in basis.basis]
    values = sum(c * np.asarray(f) for c, f in zip(columns, functions, strict=True))
    return values, sum(c * np.asarray(f.grad) for c, f in zip(columns, functions, strict=True))


def _with_corners_only(mesh: Mesh) -> tuple[Mesh, dict[str, np.ndarray]]:
    """The mesh of the corner nodes, numbered anew, and its named facets."""
    if mesh.cell_type not in _TURNED:
        return mesh, {name: np.asarray(f) for name, f in mesh.facets.items()}
    d = mesh.dimension
    used, cells = np.unique(mesh.cells[:, : d + 1], return_inverse=True)
    facets = {name: np.searchsorted(used, np.asarray(f)[:, :d]) for name, f in mesh.facets.items()}
    return Mesh(mesh.points[used], cells.reshape(-1, d + 1), _KINDS[d][0]), facets


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

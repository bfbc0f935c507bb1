"""Maps of a mesh one after another: what is left of a monitor after a map is the monitor of the next one."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.spatial import cKDTree
from torch import Tensor

from pdelab.mesh import Mesh
from pdelab.meshes.movers._background import Background
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._cycle_net import CycleNet
from pdelab.meshes.movers._node_grid import NodeGrid

RINGS = 8  # of nodes that feel what the boundary takes away
LEAST = 0.05  # of the monitor mass of a node over its mean: what a folded cell counts


class Composition:
    """Maps xi -> x(xi) of the nodes of a mesh, x piecewise linear on the mesh as it was, made of small ones.

        q(xi) = m(x(xi)) det x'(xi);   x_new(xi) = x(xi + eta(xi))   =>   q_new(xi) = q(xi + eta) det(I + eta')

    So the map eta that equidistributes q on the mesh as it was makes x_new equidistribute m: the same task again, with
    a monitor that is nearly constant.

    Attributes:
        grid: between nodes and grid.
        monitor: m in the cells of the mesh before, for looking up.
    """

    def __init__(self, mesh: Mesh, monitor: np.ndarray, boundary: BoundaryMotion):
        self.mesh, self.boundary, self.grid = mesh, boundary, NodeGrid(mesh)
        self.monitor = Background(mesh, monitor)
        self._areas = mesh.volumes()
        self._xi, self._free = torch.as_tensor(mesh.points), torch.as_tensor(boundary.projections())
        self._mean = _neighbour_mean(mesh)
        self._reach = torch.as_tensor(_distance_to_pinned(mesh, boundary) ** 2)

    def swept(self, network: CycleNet, x: np.ndarray | None) -> Tensor:
        """The next map (N, 2) after x (N, 2), None for the mesh as it was; nothing is repaired.

        Its argument is the logarithm of q over its mean, smoothed onto the grid.
        """
        r, device = self._log_monitor() if x is None else self._residual(self.masses(x)), network.out.weight.device
        on_grid = network(self.grid.to_grid(r).to(device), self.grid.cover.to(device))
        return self.composed(x, self.displacements(on_grid.cpu()))

    def displacements(self, on_grid: Tensor) -> Tensor:
        """eta at the nodes (N, 2) from displacements d on the grid, in its units; tangential on the boundary.

            f = d - e,   e = P mean of e over the neighbours + (1 - P) d,   eta = f / (1 + (|f| / rho)^4)^(1/4)

        P projects on the directions in which a node may move: what the boundary takes away from d, it takes away from
        the nodes near by too, less and less with each ring. rho is the distance to the nearest node that may not move
        at all, such as a corner: no node passes it.
        """
        d = self.grid.to_nodes(on_grid).to(self._free) * self.grid.spacing
        barred = d - torch.einsum("nij,nj->ni", self._free, d)
        e = barred
        for _ in range(RINGS):
            e = torch.einsum("nij,nj->ni", self._free, self._mean @ e) + barred
        f = d - e
        return f * (1.0 + (f.square().sum(dim=1) / self._reach).square()).pow(-0.25)[:, None]

    def composed(self, x: np.ndarray | None, eta: Tensor) -> Tensor:
        """x(xi + eta) at the nodes (N, 2), differentiable in eta; x (N, 2), None for the mesh as it was."""
        places = self._xi + eta
        if x is None:
            return places
        cells = self.monitor.located(places.detach().numpy())[0]
        return self._interpolated(torch.as_tensor(x), cells, places)

    def masses(self, x: np.ndarray) -> np.ndarray:
        """q of each cell (C,) with the nodes at x (N, 2), negative where it is folded."""
        m = self.monitor(x)[self.mesh.cells].mean(axis=1)
        return m * signed_areas(torch.as_tensor(x), self.mesh.cells).numpy() / self._areas

    def monitor_at(self, x: Tensor) -> Tensor:
        """m at places (N, 2), differentiable."""
        cells = self.monitor.located(x.detach().numpy())[0]
        return self._interpolated(torch.as_tensor(self.monitor.values)[:, None], cells, x)[:, 0]

    def _residual(self, q: np.ndarray) -> np.ndarray:
        """log of q (C,) over its mean, at the nodes (N,)."""
        cells, n = self.mesh.cells, self.mesh.n_points
        nodal = np.bincount(cells.ravel(), np.repeat(q * self._areas / 3, 3), n) / self.grid.node_areas
        return np.log(np.maximum(nodal / (q @ self._areas / self._areas.sum()), LEAST))

    def _log_monitor(self) -> np.ndarray:
        """The residual (N,) of the mesh as it was: log of m over its mean."""
        m = self.monitor.values
        return np.log(m / (self.grid.node_areas @ m / self.grid.node_areas.sum()))

    def _interpolated(self, values: Tensor, cells: np.ndarray, places: Tensor) -> Tensor:
        """Nodal values (N, k), linear in the cells (n,), at places (n, 2); continued linearly outside the cells."""
        corners = values[torch.as_tensor(self.mesh.cells[cells])]
        inverse, origin = (torch.as_tensor(a[cells]) for a in (self.monitor.inverse, self.monitor.origin))
        inner = torch.einsum("nij,nj->ni", inverse, places - origin)
        return corners[:, 0] + torch.einsum("nik,ni->nk", corners[:, 1:] - corners[:, :1], inner)


def _distance_to_pinned(mesh: Mesh, boundary: BoundaryMotion) -> np.ndarray:
    """Of each node to the nearest one that may not move, (N,), at least 1e-9; infinite without such nodes."""
    pinned = ~boundary.projections().any(axis=(1, 2))
    if not pinned.any():
        return np.full(mesh.n_points, np.inf)
    return np.maximum(cKDTree(mesh.points[pinned]).query(mesh.points)[0], 1e-9)


def _neighbour_mean(mesh: Mesh) -> Tensor:
    """A nodal field's mean over the neighbours of each node, a sparse matrix (N, N)."""
    n, cells = mesh.n_points, mesh.cells
    ends = cells.ravel(), cells[:, [1, 2, 0]].ravel()
    links = csr_array(coo_array((np.ones(2 * cells.size), (np.concatenate(ends), np.concatenate(ends[::-1]))), (n, n)))
    counts = np.diff(links.indptr)
    values = np.repeat(1.0 / counts, counts)
    rows, columns = (torch.as_tensor(index, dtype=torch.int64) for index in (links.indptr, links.indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR")  # it has been called a beta for years
        return torch.sparse_csr_tensor(rows, columns, torch.as_tensor(values), (n, n), check_invariants=False)


def signed_areas(x: Tensor, cells: np.ndarray) -> Tensor:
    """Of triangles (C, 3) with the nodes at x (N, 2): (C,)."""
    a, b, c = (x[torch.as_tensor(column)] for column in cells.T)
    u, v = b - a, c - a
    return 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])

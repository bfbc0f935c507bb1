"""P1 matrices on the computational mesh of a mover: assembled once, factorised once, the same for all iterations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array, eye_array, kron, vstack
from scipy.sparse.linalg import splu

from pdelab.mesh import Mesh
from pdelab.meshes.closest import facet_measures, facet_normals

# Barycentric coordinates and weights, relative to the volume. Triangle: Strang & Fix, degree 4. Tetrahedron: Keast,
# degree 3.
_A, _B = 0.44594849091596489, 0.091576213509770743
_RULES = {
    2: (
        [(_A, _A, 1 - 2 * _A), (_A, 1 - 2 * _A, _A), (1 - 2 * _A, _A, _A)]
        + [(_B, _B, 1 - 2 * _B), (_B, 1 - 2 * _B, _B), (1 - 2 * _B, _B, _B)],
        [0.22338158967801147] * 3 + [0.10995174365532187] * 3,
    ),
    3: (
        [(1 / 4,) * 4, *(tuple(1 / 2 if i == j else 1 / 6 for i in range(4)) for j in range(4))],
        [-4 / 5] + [9 / 20] * 4,
    ),
}


class P1Matrices:
    """Matrices of the continuous piecewise linear functions psi_i on a mesh of triangles or tetrahedra.

        mass          int psi_i psi_j
        stiffness     int grad psi_i . grad psi_j
        gradient      G_k  = int psi_i d_k psi_j, stacked, (d N, N)
        hessian       R_kl = - int d_l psi_i d_k psi_j + boundary int psi_i t_k(psi_j) n_l, stacked, (d d N, N)

    t is the tangential gradient on the boundary, which is where d phi / dn = 0 enters. M^-1 R_kl u is the
    recovered second derivative of a potential; fields that are not bound to the condition go to `recovery`.

    Source: McRae, Cotter & Budd, SIAM J. Sci. Comput. 40 (2018).
    """

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        d, corners = mesh.dimension, mesh.points[mesh.cells]
        self.volumes = mesh.volumes()
        # Rows are the gradients of the barycentric coordinates: (C, d + 1, d).
        inner = np.linalg.inv(corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
        self.slopes = np.concatenate([-inner.sum(axis=1, keepdims=True), inner], axis=1)
        local_mass = (np.ones((d + 1, d + 1)) + np.eye(d + 1)) / ((d + 1) * (d + 2))
        self.mass = self._assemble(self.volumes[:, None, None] * local_mass)
        self.stiffness = self._assemble(np.einsum("c,cik,cjk->cij", self.volumes, self.slopes, self.slopes))
        weights, places = np.array(_RULES[d][1]), np.array(_RULES[d][0])
        self.weights, self.values_at = weights, places  # (q,), (q, d + 1)

    @cached_property
    def gradient(self) -> csr_array:
        """G, (d N, N)."""
        d = self.mesh.dimension
        share = (self.volumes / (d + 1))[:, None, None]
        blocks = [self._assemble(np.broadcast_to(share * self.slopes[:, None, :, k], self._local)) for k in range(d)]
        return _stacked(blocks)

    @cached_property
    def hessian(self) -> csr_array:
        """R, (d d N, N)."""
        d, mesh = self.mesh.dimension, self.mesh
        inside = -np.einsum("c,cil,cjk->klcij", self.volumes, self.slopes, self.slopes)
        facets, owners = mesh.boundary_facets(), mesh.boundary_cells()
        corners = mesh.points[facets]
        normals, slopes = facet_normals(corners), self.slopes[owners]
        slopes = slopes - np.einsum("fjm,fm,fk->fjk", slopes, normals, normals)
        # int psi_i over a facet is its measure over d.
        border = np.einsum("f,fjk,fl->klfj", facet_measures(corners) / d, slopes, normals)
        rows = np.repeat(facets, d + 1, axis=1).ravel()
        columns = np.tile(mesh.cells[owners], d).ravel()
        n, blocks = mesh.n_points, []
        for k in range(d):
            for m in range(d):
                every = np.repeat(border[k, m][:, None], d, axis=1).ravel()
                blocks.append(self._assemble(inside[k, m]) + csr_array(coo_array((every, (rows, columns)), (n, n))))
        return _stacked(blocks)

    @cached_property
    def integrals(self) -> np.ndarray:
        """Integral of psi_i, (N,)."""
        share = np.repeat(self.volumes / (self.mesh.dimension + 1), self.mesh.cells.shape[1])
        return np.bincount(self.mesh.cells.ravel(), share, self.mesh.n_points)

    @cached_property
    def solve_mass(self) -> Callable[[np.ndarray], np.ndarray]:
        """M^-1, for right-hand sides (N,) or (N, k)."""
        return factorised(self.mass)

    @cached_property
    def solve_poisson(self) -> Callable[[np.ndarray], np.ndarray]:
        """The solution of K u = r with mean zero over the domain, for r (N,) whose sum is zero."""
        solve, total = factorised(self.stiffness[1:, 1:]), self.integrals.sum()

        def solved(r: np.ndarray) -> np.ndarray:
            u = np.concatenate([[0.0], solve(r[1:])])
            return u - self.integrals @ u / total

        return solved

    def second_derivatives(self, phi: np.ndarray) -> np.ndarray:
        """Recovered d_k d_l phi, (d, d, N), for nodal phi (N,) with d phi / dn = 0."""
        d, n = self.mesh.dimension, self.mesh.n_points
        return self.solve_mass((self.hessian @ phi).reshape(d * d, n).T).T.reshape(d, d, n)

    def gradients(self, u: np.ndarray) -> np.ndarray:
        """Recovered d_k u, (d, N): the L2 projection of the gradient, for nodal u (N,)."""
        d, n = self.mesh.dimension, self.mesh.n_points
        return self.solve_mass((self.gradient @ u).reshape(d, n).T).T

    def at_quadrature(self, u: np.ndarray) -> np.ndarray:
        """Nodal values (..., N) at the quadrature points, (..., C, q)."""
        return u[..., self.mesh.cells] @ self.values_at.T

    def load(self, f: np.ndarray) -> np.ndarray:
        """Integrals of f psi_i, (N,), for f at the quadrature points (C, q)."""
        each = (f * self.weights * self.volumes[:, None]) @ self.values_at
        return np.bincount(self.mesh.cells.ravel(), each.ravel(), self.mesh.n_points)

    def weighted_mass(self, f: np.ndarray) -> csr_array:
        """Integrals of f psi_i psi_j for f at the quadrature points (C, q)."""
        products = np.einsum("q,qi,qj->qij", self.weights, self.values_at, self.values_at)
        return self._assemble(np.tensordot(f * self.volumes[:, None], products, axes=1))

    @property
    def _local(self) -> tuple[int, int, int]:
        count = self.mesh.cells.shape[1]
        return len(self.mesh.cells), count, count

    def _assemble(self, local: np.ndarray) -> csr_array:
        """Sum of the cell matrices (C, d + 1, d + 1)."""
        rows, columns = self._places
        n = self.mesh.n_points
        return csr_array(coo_array((local.ravel(), (rows, columns)), (n, n)))

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        cells, count = self.mesh.cells, self.mesh.cells.shape[1]
        return np.repeat(cells, count, axis=1).ravel(), np.tile(cells, count).ravel()


def factorised(A: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A^-1 of a symmetric positive definite sparse matrix as a function of right-hand sides."""
    options = {"SymmetricMode": True}
    return splu(csc_array(A), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve


def in_each_direction(A: csr_array, d: int) -> csr_array:
    """A for each of d components, (d N, d N)."""
    return csr_array(kron(eye_array(d), A))


def _stacked(blocks: list[csr_array]) -> csr_array:
    return csr_array(vstack(blocks))

"""The Monge-Ampere equation on a mesh: everything that an iteration needs to know of a potential."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._matrices import P1Matrices, factorised, in_each_direction
from pdelab.meshes.movers._validity import Validity
from pdelab.meshes.movers.monitor import Monitor, checked_monitor


@dataclass(frozen=True, eq=False)
class Iterate:
    """A potential and what follows from it.

    Attributes:
        potential: phi (N,).
        hessian: recovered second derivatives (d, d, N).
        points: x = xi + grad phi, on the boundary where they have to be, (N, d).
        monitor: m(x) at the nodes (N,).
        defect: r_i = int psi_i (m det(I + H) - theta), (N,); its sum is zero.
        residual: |r| / |int psi_i theta|, Euclidean norms.
        volume_ratio: max / min of q_K = int of m over the moved cell / volume of the cell before.
        spread: sigma / mu of q_K.
        valid: no cell is inverted, no boundary edge turned round.
    """

    potential: np.ndarray
    hessian: np.ndarray
    points: np.ndarray
    monitor: np.ndarray
    defect: np.ndarray
    residual: float
    volume_ratio: float
    spread: float
    valid: bool


class MongeAmpereEquation:
    """m(x) det(I + D^2 phi) = theta with x = xi + grad phi, d phi / dn = 0, on the mesh of the xi.

    All integrals are over that mesh. The displacement is the projection of grad phi on piecewise linear fields that
    the boundary allows; where sides are parallel to the axes each component is projected by itself.

    Source: McRae, Cotter & Budd, SIAM J. Sci. Comput. 40 (2018); the library movement of Wallwork et al. for the
        boundary.
    """

    def __init__(self, matrices: P1Matrices, boundary: BoundaryMotion, monitor: Monitor):
        self.matrices, self.boundary, self.monitor = matrices, boundary, monitor
        self.validity = Validity(matrices.mesh, boundary)
        basis = boundary.basis
        self._basis_t = basis.T.tocsr()
        self._project = factorised(self._basis_t @ in_each_direction(matrices.mass, self.mesh.dimension) @ basis)
        self._gradient = self._basis_t @ matrices.gradient

    @property
    def mesh(self) -> Mesh:
        """The mesh before it moves."""
        return self.matrices.mesh

    def displacement(self, phi: np.ndarray) -> np.ndarray:
        """grad phi (N, d), as far as the boundary allows."""
        d, n = self.mesh.dimension, self.mesh.n_points
        return (self.boundary.basis @ self._project(self._gradient @ phi)).reshape(d, n).T

    def correction(self, defect: np.ndarray) -> np.ndarray:
        """The solution (N,) without mean of K u = defect (N,), whose sum is zero."""
        return self.matrices.solve_poisson(defect)

    def evaluate(self, phi: np.ndarray) -> Iterate:
        """Everything about a potential (N,)."""
        mat = self.matrices
        H = mat.second_derivatives(phi)
        points = self.boundary.placed(self.mesh.points + self.displacement(phi))
        moved = self.validity.moved_volumes(points)
        m = checked_monitor(self.monitor(points))
        density = mat.at_quadrature(m) * self.determinant(H)
        theta = float((density * mat.weights * mat.volumes[:, None]).sum() / mat.volumes.sum())
        defect = mat.load(density - theta)
        q = moved * m[self.mesh.cells].mean(axis=1) / mat.volumes
        return Iterate(
            phi,
            H,
            points,
            m,
            defect,
            float(np.linalg.norm(defect) / np.linalg.norm(mat.integrals * theta)),
            float(q.max() / q.min()) if q.min() > 0 else math.inf,
            float(q.std() / q.mean()),
            self.validity.valid(points),
        )

    def spread(self, points: np.ndarray) -> float:
        """sigma / mu of q_K with the nodes at points (N, d)."""
        m = checked_monitor(self.monitor(points))
        q = self.validity.moved_volumes(points) * m[self.mesh.cells].mean(axis=1) / self.matrices.volumes
        return float(q.std() / q.mean())

    def determinant(self, H: np.ndarray) -> np.ndarray:
        """det(I + H) at the quadrature points (C, q), for nodal H (d, d, N)."""
        A = self.deformation(H)
        if len(A) == 2:
            return A[0][0] * A[1][1] - A[0][1] * A[1][0]
        first = self.cofactors(H)[0]
        return A[0][0] * first[0] + A[0][1] * first[1] + A[0][2] * first[2]

    def cofactors(self, H: np.ndarray) -> list[list[np.ndarray]]:
        """Cofactor matrix of I + H at the quadrature points, [d][d] (C, q)."""
        A = self.deformation(H)
        if len(A) == 2:
            return [[A[1][1], -A[1][0]], [-A[0][1], A[0][0]]]
        return [
            [
                A[(i + 1) % 3][(j + 1) % 3] * A[(i + 2) % 3][(j + 2) % 3]
                - A[(i + 1) % 3][(j + 2) % 3] * A[(i + 2) % 3][(j + 1) % 3]
                for j in range(3)
            ]
            for i in range(3)
        ]

    def deformation(self, H: np.ndarray) -> list[list[np.ndarray]]:
        """I + H at the quadrature points, [d][d] (C, q)."""
        at, d = self.matrices.at_quadrature(H), len(H)
        return [[at[i, j] + (1.0 if i == j else 0.0) for j in range(d)] for i in range(d)]

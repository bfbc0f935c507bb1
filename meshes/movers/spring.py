"""Mesh movement by springs along the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import coo_array, csr_array

from pdelab.errors import check_choice, check_range
from pdelab.mesh import Mesh
from pdelab.meshes.movers._background import Background
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._input import checked_mesh, checked_values
from pdelab.meshes.movers._matrices import factorised
from pdelab.meshes.movers._validity import Validity
from pdelab.meshes.movers.monitor import MONITORS, monitor_at_nodes
from pdelab.mover import AbstractMonitorMover
from pdelab.solver import Context

LEAST = 1e-3  # of a step; below it the springs have found no better mesh
SHIFT = 1e-10  # of the diagonal: keeps nodes that no spring holds where they are


@dataclass(frozen=True)
class Spring(AbstractMonitorMover[None]):
    """Spring mover: edges are bars whose rest lengths follow the monitor; a baseline, cheap and rough.

        stiffness 1 / L_e,   rest length l_e = c L_e m_e^(-1/d),   c such that sum l_e = sum L_e

    L_e is the length before, m_e the mean of m at both ends. The bar matrix is (1 / L) [c^2 cs; cs s^2] for an edge
    with direction (c, s); each step solves for its equilibrium and is halved until no cell is lost. With a constant
    monitor all forces are zero. Nodes slide along straight sides and on curves. It moves nodes the right way, but
    does not equidistribute: see monge-ampere.

    Args:
        monitor: what is made of the values, see `monitor.monitor_at_nodes`; with "given" they are the monitor.
        strength: a of the monitor, >= 0.
        smoothing: of the monitor, >= 0; 0 for none.
        steps: largest number of steps, >= 0.
        tolerance: smallest displacement in a step, relative to the mean edge, at which to go on, > 0.
        fixed: names of boundary parts whose nodes stay where they are.

    Source: Farhat, Degand, Koobus & Lesoinne, Comput. Methods Appl. Mech. Engrg. 163 (1998), the lineal part; the
        rest lengths are ours.
    """

    monitor: str = "hessian"
    strength: float = 5.0
    smoothing: float = 0.0
    steps: int = 20
    tolerance: float = 1e-3
    fixed: tuple[str, ...] = ()
    name: ClassVar[str] = "spring"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("monitor", self.monitor, MONITORS)
        check_range("strength", self.strength, least=0)
        check_range("smoothing", self.smoothing, least=0)
        check_range("steps", self.steps, least=0)
        check_range("tolerance", self.tolerance, above=0)

    def prepare(self, cases: Sequence[tuple[Mesh, np.ndarray]], *, context: Context) -> None:
        """Nothing to do."""

    def monitor_at_nodes(self, mesh: Mesh, values: np.ndarray) -> np.ndarray:
        """The monitor (N,) that the values (N, m) ask for."""
        checked_mesh(mesh)
        return monitor_at_nodes(mesh, checked_values(mesh, values), self.monitor, self.strength, self.smoothing)

    def move(self, mesh: Mesh, values: np.ndarray, state: None = None) -> Mesh:
        """The moved mesh for nodal values (N, m).

        Raises:
            MeshError: the cells are no triangles or tetrahedra, or the boundary is not closed.
            MeshTangled: the mesh is tangled already.
            InputError: the values have another length or are not finite; a given monitor is not positive.
            UnknownName: a part in `fixed` that the mesh does not have.
        """
        m = Background(mesh, self.monitor_at_nodes(mesh, values))
        boundary = BoundaryMotion(mesh, self.fixed)
        validity, edges = Validity(mesh, boundary), _edges(mesh)
        before = _lengths(mesh.points, edges)
        points = mesh.points
        for _ in range(self.steps):
            rest = before * m(points)[edges].mean(axis=1) ** (-1 / mesh.dimension)
            step = _equilibrium(points, edges, rest * (before.sum() / rest.sum()), boundary.basis_at(points))
            share = 1.0
            while not validity.sound(trial := boundary.placed(points + share * step)):
                share /= 2
                if share < LEAST:
                    return _moved(mesh, points)
            moved = float(np.abs(trial - points).max())
            points = trial
            if moved < self.tolerance * before.mean():
                break
        return _moved(mesh, points)


def _moved(mesh: Mesh, points: np.ndarray) -> Mesh:
    return mesh if points is mesh.points else mesh.moved(points)


def _edges(mesh: Mesh) -> np.ndarray:
    """Each edge once, (E, 2)."""
    k = mesh.cells.shape[1]
    every = np.concatenate([mesh.cells[:, [i, j]] for i in range(k) for j in range(i + 1, k)])
    return np.unique(np.sort(every, axis=1), axis=0)


def _lengths(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[edges[:, 1]] - points[edges[:, 0]], axis=1)


def _equilibrium(points: np.ndarray, edges: np.ndarray, rest: np.ndarray, basis: csr_array) -> np.ndarray:
    """Displacements (N, d) that balance bars of the given rest lengths, to first order."""
    n, d = points.shape
    length = _lengths(points, edges)
    direction = (points[edges[:, 1]] - points[edges[:, 0]]) / length[:, None]
    pull = ((length - rest) / length)[:, None] * direction
    # An imbalance that is round-off would move a mesh at rest.
    pull[np.abs(length - rest) <= 1e-14 * length] = 0.0
    force = np.zeros((n, d))
    np.add.at(force, edges[:, 0], pull)
    np.add.at(force, edges[:, 1], -pull)
    block = direction[:, :, None] * direction[:, None, :] / length[:, None, None]
    # Twice the stiffness of a bar in the diagonal blocks and once, negative, off them.
    ends = [(0, 0, 1.0), (1, 1, 1.0), (0, 1, -1.0), (1, 0, -1.0)]
    offset = n * np.arange(d)
    rows = np.concatenate([np.repeat(edges[:, i, None] + offset, d, axis=1).ravel() for i, _, _ in ends])
    columns = np.concatenate([np.tile(edges[:, j, None] + offset, d).ravel() for _, j, _ in ends])
    data = np.concatenate([sign * block.ravel() for _, _, sign in ends])
    K = basis.T @ csr_array(coo_array((data, (rows, columns)), (d * n, d * n))) @ basis
    K = K.tocsr()
    K.setdiag(K.diagonal() * (1.0 + SHIFT))
    right = basis.T @ force.T.ravel()
    if not math.isfinite(float(np.abs(right).sum())) or not right.any():
        return np.zeros((n, d))
    return (basis @ factorised(K)(right)).reshape(d, n).T

"""Periodic cells of nonlinear elastic materials: isoparametric elements, Newton's method, homogenised stress."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from skfem.quadrature import get_quadrature
from skfem.refdom import RefQuad, RefTri

from pdelab.domain import Box
from pdelab.errors import MeshError
from pdelab.linear import AbstractLinearSolver, linear_solve
from pdelab.mesh import Mesh
from pdelab.meshes.domain import MeshDomain
from pdelab.meshes.interpolate import MeshField
from pdelab.meshes.shape import shape_functions, shape_gradients
from pdelab.pde import AbstractElasticityProblem, AbstractProblem
from pdelab.restate import on_domain
from pdelab.solution import Solution, Status
from pdelab.solver import Context, Progress
from pdelab.solvers._fem_coefficients import coordinates
from pdelab.solvers._fem_diffusion import Outcome
from pdelab.solvers._fem_space import periodic_owners
from pdelab.solvers.linear.direct import Direct

MAX_NEWTON = 25
TOLERANCE = 1e-10  # of the nodal forces, relative to the first ones
ROUND_OFF = 1e-13  # of the nodal forces, relative to the sum of their magnitudes
ACCURACY = {"triangle": 2, "triangle6": 4, "quad": 3, "quad8": 5}
"""Cell types, and the degree that the quadrature is exact for: 3 and 6 points, 2 x 2 and 3 x 3 of Gauss."""
SHARES = {"1": 0.0, "matrix": 0.0, "2": 1.0, "inclusion": 1.0}
"""Regions of a mesh, and the share of the inclusions' material in them."""
FOREIGN = 0.02  # of the area; the edges of coarse meshes cut less from an inclusion


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """A cell in equilibrium under a mean strain.

    Attributes:
        fluctuation: of the displacement at the nodes, periodic, 0 in the lower corner, (N, 2).
        strain: (xx, yy, gamma_xy) at the quadrature points, (C, Q, 3).
        stress: (xx, yy, xy) there, (C, Q, 3).
        homogenised: mean stress, (3,).
        steps: of Newton's method.
        imbalance: nodal forces that are left, relative to the sum of their magnitudes.
    """

    fluctuation: np.ndarray
    strain: np.ndarray
    stress: np.ndarray
    homogenised: np.ndarray
    steps: int
    imbalance: float


class Cell:
    """A periodic cell on a mesh; the nodes of the mesh are the degrees of freedom, twice.

        int stress(E + strain(w)) . strain(v) = 0 for all periodic v

    Nodes on the upper sides have the unknowns of those on the lower sides. The material of a quadrature point is that
    of the region of its element if the mesh has such regions (`SHARES`), else that of the problem at the point.

    Args:
        problem: whose laws and geometry; its mean strain is that of `solve` unless another is given.
        mesh: of triangles or quadrilaterals, straight or curved, with equal nodes on opposite sides.
        solver: for the linear systems.

    Raises:
        MeshError: other elements, folded ones, or sides that do not match.
    """

    def __init__(self, problem: AbstractElasticityProblem, mesh: Mesh, solver: AbstractLinearSolver[Any] | None = None):
        if mesh.cell_type not in ACCURACY:
            raise MeshError(f"elastic cells: elements of type {', '.join(ACCURACY)} needed, got {mesh.cell_type!r}")
        self.problem, self.mesh, self.solver = problem, mesh, solver or Direct()
        self.shapes, slopes, self.weights = _quadrature(mesh)
        self.matrix = _strain_matrix(slopes)
        self.share = self._share()
        lower = mesh.points.min(axis=0)
        self.corner = int(np.abs(mesh.points - lower).sum(axis=1).argmin())
        period = mesh.points.max(axis=0) - lower
        owner = periodic_owners(mesh.points, list(enumerate(period)))
        used = np.unique(owner[mesh.cells])
        self.n_free = 2 * (len(used) - 1)
        # One node is held while the others move: its pair of numbers is negative.
        self.number = np.searchsorted(used, owner).clip(max=len(used) - 1)[:, None] * 2 + np.arange(2) - 2
        self.dofs = self.number[mesh.cells].reshape(len(mesh.cells), -1)
        self.worst_residual, self.solves = 0.0, 0

    @cached_property
    def area(self) -> float:
        """Of the cell."""
        return float(self.weights.sum())

    @cached_property
    def places(self) -> np.ndarray:
        """Quadrature points, (C, Q, 2)."""
        return np.einsum("qk,ckd->cqd", self.shapes, self.mesh.points[self.mesh.cells])

    def strain(self, fluctuation: np.ndarray, macro: np.ndarray) -> np.ndarray:
        """Strain (C, Q, 3) of the mean strain (3,) and the nodal fluctuation (N, 2)."""
        local = fluctuation[self.mesh.cells].reshape(len(self.mesh.cells), -1, 1)
        return macro + (self.matrix @ local).reshape(*self.weights.shape, 3)

    def stress(self, strain: np.ndarray) -> np.ndarray:
        """Stress (C, Q, 3) of a strain (C, Q, 3)."""
        return self._law(self.problem.stress, strain).reshape(strain.shape)

    def forces(self, stress: np.ndarray) -> np.ndarray:
        """Nodal forces of a stress (C, Q, 3) on the free unknowns, (n_free,): 0 in equilibrium."""
        loads = (self.weights[:, :, None] * stress).reshape(len(stress), 1, -1)
        return self._gathered((loads @ self.matrix)[:, 0])

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over the cell of values at the quadrature points, (C, Q, ...) -> (...)."""
        return np.einsum("cq,cq...->...", self.weights, values) / self.area

    def solve(self, macro: np.ndarray | None = None, start: np.ndarray | None = None) -> Equilibrium:
        """Newton's method for a mean strain (3,), from zero or the fluctuation `start` (N, 2).

        Raises:
            Outcome: it does not converge, or a linear solve failed.
        """
        macro = np.asarray(self.problem.macro_strain if macro is None else macro, dtype=float)
        w = np.zeros((self.mesh.n_points, 2)) if start is None else start.copy()
        first = None
        for step in range(MAX_NEWTON + 1):
            strain = self.strain(w, macro)
            stress = self.stress(strain)
            force = self.forces(stress)
            size, scale = float(np.linalg.norm(force)), float(np.linalg.norm(self._magnitudes(stress)))
            if not np.isfinite(size):
                raise Outcome(Status.NONFINITE, "the stress is not finite")
            first = size if first is None else first
            if size <= max(TOLERANCE * first, ROUND_OFF * scale):
                return Equilibrium(
                    w - w[self.corner], strain, stress, self.mean(stress), step, size / scale if scale else 0.0
                )
            K, _ = self._stiffness(strain)
            w = w - self._spread(self._solved(K, force, None))
        raise Outcome(Status.MAX_ITERATIONS, f"Newton's method did not converge in {MAX_NEWTON} steps")

    def homogenised_tangent(self, strain: np.ndarray) -> np.ndarray:
        """Derivative (3, 3) of the mean stress by the mean strain in equilibrium with this strain (C, Q, 3).

            mean(C) - L^T K^-1 L / area,     L = int B^T C

        Raises:
            Outcome: a linear solve failed.
        """
        K, tangent = self._stiffness(strain)
        weighted = self.weights[:, :, None, None] * tangent
        stacked = weighted.reshape(len(strain), -1, 3)
        loads = np.stack(
            [self._gathered(load) for load in (self.matrix.transpose(0, 2, 1) @ stacked).transpose(2, 0, 1)]
        )
        state = self.solver.init(K)
        moved = np.stack([self._solved(K, load, state) for load in loads])
        return (weighted.sum(axis=(0, 1)) - loads @ moved.T) / self.area

    def work_error(self, found: Equilibrium, macro: np.ndarray) -> float:
        """|mean(stress . strain) - mean stress . mean strain| relative to the latter (Hill and Mandel)."""
        inner = float(self.mean((found.stress * found.strain).sum(axis=2)))
        outer = float(found.homogenised @ macro)
        return abs(inner - outer) / abs(outer) if outer else abs(inner)

    def intended_share(self) -> np.ndarray:
        """Share of the inclusions' material at the quadrature points, (C, Q), by the problem alone."""
        at = coordinates(self.places.transpose(2, 0, 1), None, self.problem.axes)
        return self.problem.share(at).detach().numpy().reshape(self.weights.shape)

    def _share(self) -> np.ndarray:
        """Share of the inclusions' material at the quadrature points, (C, Q)."""
        regions = {name: numbers for name, numbers in self.mesh.regions.items() if name in SHARES}
        per_cell = np.full(len(self.mesh.cells), np.nan)
        for name, numbers in regions.items():
            per_cell[numbers] = SHARES[name]
        if not np.isnan(per_cell).any():
            return np.broadcast_to(per_cell[:, None], self.weights.shape)
        if regions:
            missing = int(np.isnan(per_cell).sum())
            raise MeshError(f"{missing} of {len(per_cell)} cells lie in none of the regions {', '.join(SHARES)}")
        return self.intended_share()

    def _law(self, law: Any, strain: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return law(torch.as_tensor(strain.reshape(-1, 3)), torch.tensor(self.share.ravel())).numpy()

    def _stiffness(self, strain: np.ndarray) -> tuple[csr_array, np.ndarray]:
        """Derivative of the forces by the free unknowns, and of the stress by the strain, (C, Q, 3, 3)."""
        C = self._law(self.problem.tangent, strain).reshape(*strain.shape, 3)
        cells, points, _ = strain.shape
        B = self.matrix.reshape(cells, points, 3, -1)
        weighted = (self.weights[:, :, None, None] * C @ B).reshape(cells, points * 3, -1)
        local = self.matrix.transpose(0, 2, 1) @ weighted
        width = self.dofs.shape[1]
        rows, columns = np.repeat(self.dofs, width, axis=1).ravel(), np.tile(self.dofs, width).ravel()
        free = (rows >= 0) & (columns >= 0)
        K = coo_array((local.ravel()[free], (rows[free], columns[free])), shape=(self.n_free, self.n_free))
        return csr_array(K), C

    def _solved(self, K: csr_array, b: np.ndarray, state: Any) -> np.ndarray:
        result = linear_solve(K, b, self.solver, state=state)
        self.solves += 1
        if np.isfinite(result.stats["residual"]):
            self.worst_residual = max(self.worst_residual, result.stats["residual"])
        if not result.status.ok:
            status = Status.NONFINITE if result.status is Status.NONFINITE else Status.LINEAR_SOLVE_FAILED
            raise Outcome(status, f"linear solver {self.solver.name!r}: {result.message}")
        return result.x

    def _gathered(self, local: np.ndarray) -> np.ndarray:
        """Sums of values at the unknowns of each element (C, 2 k) over the elements, (n_free,)."""
        return np.bincount(self.dofs.ravel() + 2, weights=local.ravel(), minlength=self.n_free + 2)[2:]

    def _magnitudes(self, stress: np.ndarray) -> np.ndarray:
        """As `forces`, with the magnitude of every contribution of a quadrature point."""
        loads = (self.weights[:, :, None] * np.abs(stress)).reshape(len(stress), 1, -1)
        return self._gathered((loads @ np.abs(self.matrix))[:, 0])

    def _spread(self, free: np.ndarray) -> np.ndarray:
        """Nodal values (N, 2) of free unknowns."""
        return np.concatenate([np.zeros(2), free])[self.number + 2]


def solve_cell(
    problem: AbstractElasticityProblem, mesh: Mesh, solver: AbstractLinearSolver[Any] | None, context: Context
) -> Solution:
    """The fluctuation of the displacement, with the homogenised stress among the numbers."""
    start = time.process_time()
    cell = Cell(problem, mesh, solver)
    ready = time.process_time()
    macro = np.asarray(problem.macro_strain)
    status, message = Status.CONVERGED, ""
    stats: dict[str, float] = {"dofs": cell.n_free, "setup_s": ready - start}
    stats["inclusion_fraction"] = float(cell.mean(cell.share))
    validity = {}
    solved: AbstractProblem = problem
    foreign = float(cell.mean(np.abs(cell.share - cell.intended_share())))
    if foreign > FOREIGN and isinstance(problem.domain, Box):
        message = f"the regions of the mesh give {foreign:.0%} of the cell the other material"
        domain = MeshDomain(mesh)
        # The reference of the problem is none of this one.
        solved = on_domain(problem, domain, identity=domain.checksum[:16])
    try:
        found = cell.solve(macro)
        w = found.fluctuation
        stats |= {f"stress_{name}": float(s) for name, s in zip(("xx", "yy", "xy"), found.homogenised, strict=True)}
        stats["newton_steps"] = found.steps
        validity = {"equilibrium_residual": found.imbalance, "hill_mandel_error": cell.work_error(found, macro)}
        context.report(Progress(1, 1, {"newton_steps": found.steps}))
    except Outcome as outcome:
        w, status, message = np.zeros((mesh.n_points, 2)), outcome.status, outcome.message
    stats |= {"linear_solves": cell.solves, "linear_residual": cell.worst_residual}
    stats["solve_s"] = time.process_time() - ready
    return Solution(solved, MeshField(mesh, w), status, message, stats, mesh=mesh, validity=validity)


def _quadrature(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape functions (Q, k), their gradients in space (C, Q, k, 2), and weights times area (C, Q)."""
    kind = mesh.cell_type
    square = kind.startswith("quad")
    at, weights = get_quadrature(RefQuad if square else RefTri, ACCURACY[kind])
    at = at.T
    if square:  # our reference square is [-1, 1]^2
        at, weights = 2.0 * at - 1.0, 4.0 * weights
    local = np.stack(shape_gradients(kind, at), axis=2)
    jacobian = np.einsum("qke,ckd->cqed", local, mesh.points[mesh.cells])
    volume = np.linalg.det(jacobian)
    if not (volume > 0).all():
        raise MeshError(f"{int((volume <= 0).any(axis=1).sum())} of {len(volume)} elements are folded or inverted")
    return (
        shape_functions(kind, at),
        (np.linalg.inv(jacobian) @ local.transpose(0, 2, 1)).swapaxes(2, 3),
        volume * weights,
    )


def _strain_matrix(slopes: np.ndarray) -> np.ndarray:
    """Strains (xx, yy, gamma_xy) at the quadrature points by the nodal displacements of an element, (C, 3 Q, 2 k)."""
    cells, points, nodes, _ = slopes.shape
    B = np.zeros((cells, points, 3, nodes, 2))
    B[:, :, 0, :, 0] = B[:, :, 2, :, 1] = slopes[..., 0]
    B[:, :, 1, :, 1] = B[:, :, 2, :, 0] = slopes[..., 1]
    return B.reshape(cells, 3 * points, 2 * nodes)

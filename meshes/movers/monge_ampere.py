"""Mesh movement by optimal transport: the Monge-Ampere equation."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pdelab.errors import SettingsError, check_choice, check_range
from pdelab.mesh import Mesh
from pdelab.meshes.movers._background import Background
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._dct import GridEquation
from pdelab.meshes.movers._equation import Iterate, MongeAmpereEquation
from pdelab.meshes.movers._functional import minimise
from pdelab.meshes.movers._input import checked_mesh, checked_values
from pdelab.meshes.movers._matrices import P1Matrices
from pdelab.meshes.movers._quasi_newton import quasi_newton
from pdelab.meshes.movers._relaxation import relax
from pdelab.meshes.movers.monitor import MONITORS, Monitor, monitor_at_nodes
from pdelab.mover import AbstractMonitorMover
from pdelab.solution import Status
from pdelab.solver import Context

_log = logging.getLogger(__name__)
METHODS = ("auto", "relaxation", "quasi-newton", "dct", "functional")


@dataclass(frozen=True, eq=False)
class Movement:
    """A moved mesh, and how it came about.

    Attributes:
        mesh: the best valid mesh that was found.
        status: CONVERGED, or STAGNATED or MAX_ITERATIONS with a mesh that is valid but not where it should be.
        residuals: relative residual of the equation, the unmoved mesh first.
        volume_ratios: max / min of q_K = int of m over the moved cell / volume of the cell before, likewise.
        spreads: sigma / mu of q_K, likewise, and then for each step of the functional, if it took over.
        steps: pseudo-time steps or shares of Newton's step, one for each iteration of the equation.
        spread: sigma / mu of q_K of `mesh`.
        potential: phi at the nodes (N,), None if the functional took over.
    """

    mesh: Mesh
    status: Status
    residuals: tuple[float, ...]
    volume_ratios: tuple[float, ...]
    spreads: tuple[float, ...]
    steps: tuple[float, ...]
    spread: float
    potential: np.ndarray | None


@dataclass(frozen=True)
class MongeAmpere(AbstractMonitorMover[None]):
    """Monge-Ampere mover: cells of equal monitor mass, moved as little as possible.

        m(x) det(I + D^2 phi) = theta,   x = xi + grad phi,   d phi / dn = 0 on the boundary

    Nodes slide along straight sides and on curves; corners stay. The mesh that is returned is valid in any case:
    iterates with inverted cells are not taken.

    Args:
        monitor: what is made of the values, see `monitor.monitor_at_nodes`; with "given" they are the monitor.
        strength: a of the monitor, >= 0.
        smoothing: of the monitor, >= 0; 0 for none.
        method: relaxation (cheap iterations), quasi-newton (few iterations), dct (relaxation by differences and cosine
            transforms, for regular grids of boxes without fixed parts), functional (no equation: a functional of
            the cells is lowered, whose minimum is a valid mesh in any domain), or auto: relaxation, and the
            functional where that folds cells.
        tolerance: relative residual at which to stop, > 0. 1e-3 puts sigma / mu within 1 % of where it ends.
        max_iterations: >= 0.
        step: first pseudo-time step of the relaxation, > 0; it adapts.
        damping: largest share of a quasi-Newton step, in (0, 1].
        fixed: names of boundary parts whose nodes stay where they are.

    Source: McRae, Cotter & Budd, SIAM J. Sci. Comput. 40 (2018); Wallwork et al., the library movement.
    """

    monitor: str = "hessian"
    strength: float = 5.0
    smoothing: float = 0.0
    method: str = "auto"
    tolerance: float = 1e-3
    max_iterations: int = 500
    step: float = 0.1
    damping: float = 0.8
    fixed: tuple[str, ...] = ()
    name: ClassVar[str] = "monge-ampere"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("monitor", self.monitor, MONITORS)
        check_choice("method", self.method, METHODS)
        check_range("strength", self.strength, least=0)
        check_range("smoothing", self.smoothing, least=0)
        check_range("tolerance", self.tolerance, above=0)
        check_range("max_iterations", self.max_iterations, least=0)
        check_range("step", self.step, above=0)
        check_range("damping", self.damping, above=0, most=1)

    def prepare(self, cases: Sequence[tuple[Mesh, np.ndarray]], *, context: Context) -> None:
        """Nothing to do."""

    def move(self, mesh: Mesh, values: np.ndarray, state: None = None) -> Mesh:
        """The moved mesh for nodal values (N, m), see `movement`; a warning tells if it is not where it should be."""
        found = self.movement(mesh, values)
        if not found.status.ok:
            _log.warning(
                "monge-ampere: %s after %d iterations, relative residual %.2g; the best valid mesh is returned",
                found.status.name,
                len(found.steps),
                min(found.residuals),
            )
        return found.mesh

    def monitor_at_nodes(self, mesh: Mesh, values: np.ndarray) -> np.ndarray:
        """The monitor (N,) that the values (N, m) ask for."""
        checked_mesh(mesh)
        return monitor_at_nodes(mesh, checked_values(mesh, values), self.monitor, self.strength, self.smoothing)

    def movement(self, mesh: Mesh, values: np.ndarray | Monitor) -> Movement:
        """Move the mesh and tell how it went.

        Args:
            mesh: triangles, or tetrahedra with flat sides (their curved sides stay fixed).
            values: nodal fields (N, m), or a monitor in closed form, which the settings of the monitor do not concern.

        Raises:
            MeshError: the mesh has other cells, or a boundary that is not closed, or for dct is no regular grid.
            SettingsError: fixed parts with dct.
            MeshTangled: the mesh is tangled already.
            InputError: the values have another length or are not finite; a given monitor is not positive.
            UnknownName: a part in `fixed` that the mesh does not have.
        """
        checked_mesh(mesh)
        if self.method == "dct" and self.fixed:
            raise SettingsError(f"fixed: method dct cannot hold {', '.join(self.fixed)}; use method=relaxation")
        boundary, matrices = BoundaryMotion(mesh, self.fixed), P1Matrices(mesh)
        if callable(values):
            monitor: Monitor = values
        else:
            u = checked_values(mesh, values)
            monitor = Background(mesh, monitor_at_nodes(mesh, u, self.monitor, self.strength, self.smoothing, matrices))
        if self.method == "dct":
            return self._solve(GridEquation(mesh, boundary, monitor))
        return self._solve(MongeAmpereEquation(matrices, boundary, monitor))

    def _solve(self, equation: MongeAmpereEquation | GridEquation) -> Movement:
        first = equation.evaluate(np.zeros(equation.mesh.n_points))
        iterates, steps, status = [first], [], Status.CONVERGED
        if first.residual >= self.tolerance and self.method != "functional":
            status = Status.STAGNATED
            for iterate, step in itertools.islice(self._iterates(equation, first), self.max_iterations):
                iterates.append(iterate)
                steps.append(step)
                if iterate.residual < self.tolerance:
                    status = Status.CONVERGED
                    break
            else:
                status = Status.MAX_ITERATIONS if len(steps) == self.max_iterations else Status.STAGNATED
        lowest = min(iterates, key=lambda i: i.residual)
        points, spreads = lowest.points, [i.spread for i in iterates]
        spread = lowest.spread
        potential: np.ndarray | None = lowest.potential
        unsolved = self.method == "functional" and first.residual >= self.tolerance
        good = status.ok and spread <= first.spread and equation.validity.sound(points)
        if isinstance(equation, MongeAmpereEquation) and (unsolved or (self.method == "auto" and not good)):
            points, spread, status, more = self._minimised(equation, iterates)
            spreads += more
            potential = None
        elif lowest is not first:
            points = equation.validity.stepped_back(points)
            spread = equation.spread(points)
        return Movement(
            equation.mesh if lowest is first and not len(spreads) > len(iterates) else equation.mesh.moved(points),
            status,
            tuple(i.residual for i in iterates),
            tuple(i.volume_ratio for i in iterates),
            tuple(spreads),
            tuple(steps),
            spread,
            potential,
        )

    def _minimised(
        self, equation: MongeAmpereEquation, iterates: list[Iterate]
    ) -> tuple[np.ndarray, float, Status, list[float]]:
        """The functional from the best sound mesh: points (N, d) of the lowest spread, that, how it ended, all."""
        start = min((i for i in iterates if equation.validity.sound(i.points)), key=lambda i: i.spread)
        best, lowest, spreads = start.points, start.spread, []
        for points, spread in itertools.islice(minimise(equation, start.points), self.max_iterations):
            spreads.append(spread)
            if spread < lowest:
                best, lowest = points, spread
        ended = len(spreads) < self.max_iterations
        return best, lowest, Status.CONVERGED if ended else Status.MAX_ITERATIONS, spreads

    def _iterates(
        self, equation: MongeAmpereEquation | GridEquation, first: Iterate
    ) -> Iterator[tuple[Iterate, float]]:
        if self.method == "quasi-newton" and isinstance(equation, MongeAmpereEquation):
            return quasi_newton(equation, first, damping=self.damping)
        return relax(equation, first, step=self.step)

"""A network that moves the mesh of any domain in the plane at once, trained on Monge-Ampere meshes: UM2N."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pdelab.errors import MeshError, check_choice, check_range
from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._composition import Composition
from pdelab.meshes.movers._cycle_net import CycleNet
from pdelab.meshes.movers._input import checked_mesh, checked_values
from pdelab.meshes.movers._polish import polished
from pdelab.meshes.movers._validity import Validity
from pdelab.meshes.movers.monitor import MONITORS, monitor_at_nodes
from pdelab.mover import AbstractLearnedMover
from pdelab.solver import Budget, Context


@dataclass(frozen=True)
class UM2N(AbstractLearnedMover[CycleNet]):
    """Universal mesh mover: a network maps a monitor to displacements, zero-shot for any mesh of triangles.

        x_0 = xi,   x_k(xi) = x_{k-1}(xi + eta(xi)),   eta = network(log q_{k-1}),   q = m(x) |K| / |K_0|

    Each sweep equidistributes what the last one left, see `Composition`; the network is `CycleNet`, on a grid about as
    fine as the mesh. Nodes slide along straight sides and on curves, corners stay. Where cells come out folded or
    nearly flat, the nodes around them step back, and a sweep that does not lower sigma / mu of q is not taken: the
    mesh that is returned is valid in any case. A constant monitor moves nothing. The cost is O(N).

    Trained on `training_cases` to meet the meshes of `MongeAmpere` in area and place of the cells, and for equal
    monitor mass.

    Differences from the source, whose form is `um2n-published`: the encoder is a V-cycle on a grid instead of attention
    between all pairs of nodes, O(N) instead of O(N^2), with weights that do not know the size of the mesh; the decoder
    is a spline instead of graph attention over four rings of neighbours, which no node of a fine mesh can leave; it is
    applied again to what it left; the boundary slides; nothing is told of absolute places.

    Args:
        monitor: what is made of the values, see `monitor.monitor_at_nodes`; with "given" they are the monitor.
        strength: a of the monitor, >= 0; the weights know 1 to 20.
        smoothing: of the monitor, >= 0; 0 for none.
        sweeps: how often the network is applied at most, >= 1.
        polish: iterations of the Monge-Ampere relaxation afterwards, >= 0.
        fixed: names of boundary parts whose nodes stay where they are.
        width: channels of a network to be trained.
        n_cases: meshes to train on.
        weights: file of `pdelab train um2n`; None takes those of the package.

    Source: Zhang et al., Towards Universal Mesh Movement Networks, NeurIPS 2024; network, composition and training
        are ours.
    """

    monitor: str = "hessian"
    strength: float = 5.0
    smoothing: float = 0.0
    sweeps: int = 2
    polish: int = 0
    fixed: tuple[str, ...] = ()
    width: int = 16
    n_cases: int = 800
    weights: str | None = None

    name: ClassVar[str] = "um2n"
    default_budget: ClassVar[Budget] = Budget(steps=5_000)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("monitor", self.monitor, MONITORS)
        check_range("strength", self.strength, least=0)
        check_range("smoothing", self.smoothing, least=0)
        check_range("sweeps", self.sweeps, least=1)
        check_range("polish", self.polish, least=0)
        check_range("width", self.width, least=1)
        check_range("n_cases", self.n_cases, least=1)

    def cases(self, seed: int) -> Sequence[tuple[Mesh, np.ndarray]]:
        """See `training_cases`: the values are monitors (N, 1)."""
        from pdelab.meshes.movers.um2n_cases import training_cases

        return training_cases(seed, self.n_cases)

    def blank(self) -> CycleNet:
        """The network before training."""
        return CycleNet(self.width)

    def prepare(self, cases: Sequence[tuple[Mesh, np.ndarray]], *, context: Context) -> CycleNet:
        """Train on meshes with monitors (N, 1); their Monge-Ampere meshes are computed first."""
        from pdelab.meshes.movers.um2n_training import train

        return train(self.blank(), cases, self.default_budget, context)

    def monitor_at_nodes(self, mesh: Mesh, values: np.ndarray) -> np.ndarray:
        """The monitor (N,) that the values (N, m) ask for.

        Raises:
            MeshError: no mesh of triangles, or its boundary is not closed.
            MeshTangled: the mesh is tangled already.
            InputError: the values have another length or are not finite; a given monitor is not positive.
        """
        if checked_mesh(mesh).cell_type != "triangle":
            raise MeshError(f"cells of type {mesh.cell_type}: um2n moves triangles; use monge-ampere")
        return monitor_at_nodes(mesh, checked_values(mesh, values), self.monitor, self.strength, self.smoothing)

    def move(self, mesh: Mesh, values: np.ndarray, state: CycleNet | None = None) -> Mesh:
        """The moved mesh for nodal values (N, m).

        Raises:
            MeshError: no mesh of triangles, or its boundary is not closed.
            MeshTangled: the mesh is tangled already.
            InputError: the values have another length or are not finite; a given monitor is not positive.
            UnknownName: a part in `fixed` that the mesh does not have.
            CheckpointError: the weights cannot be read or are of another mover.
        """
        m = self.monitor_at_nodes(mesh, values)
        network = state or self.trained()
        boundary = BoundaryMotion(mesh, self.fixed)
        composition, validity = Composition(mesh, m, boundary), Validity(mesh, boundary)
        best, lowest = mesh.points, _spread(m[mesh.cells].mean(axis=1))
        for number in range(self.sweeps):
            with torch.inference_mode():
                raw = composition.swept(network, best if number else None).numpy()
            points = validity.repaired(boundary.placed(raw))
            spread = _spread(composition.masses(points))
            if spread >= lowest:
                break
            best, lowest = points, spread
        if self.polish:
            best = polished(mesh, m, boundary, best, self.polish)
        return mesh if best is mesh.points else mesh.moved(best)


def _spread(q: np.ndarray) -> float:
    """sigma / mu of the monitor mass q (C,)."""
    return float(q.std() / q.mean())

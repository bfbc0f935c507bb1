"""UM2N in the form that was released, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from pdelab.domain import Box
from pdelab.errors import MeshError, check_choice, check_range
from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._input import checked_mesh, checked_values
from pdelab.meshes.movers._validity import Validity
from pdelab.meshes.movers.monitor import MONITORS, monitor_at_nodes
from pdelab.mover import AbstractLearnedMover
from pdelab.solver import Budget, Context

if TYPE_CHECKING:
    from pdelab.meshes.movers._graph_net import GraphNet


@dataclass(frozen=True)
class PublishedUM2N(AbstractLearnedMover["GraphNet"]):
    """UM2N as released: graph transformer, edge encoder, four layers of deformable graph attention; boundary pinned.

        loss = 300 sum over cells | |K| - |K*| | + 100 Chamfer distance of the nodes,   K* of Monge-Ampere meshes

    with K counted negative where it is inverted against K*. No weights ship: `pdelab train um2n-published --out FILE`
    and --set weights=FILE. A node cannot leave four rings of neighbours, so that meshes much finer than those of the
    training move too little; attention between all nodes takes O(N^2) memory.

    Differences from the source: the Chamfer distance is that of each mesh, not of the batch as one cloud; meshes of a
    batch may differ in size; cells that come out inverted are repaired, as a mover must.

    Args:
        monitor: what is made of the values, see `monitor.monitor_at_nodes`; with "given" they are the monitor.
        strength: a of the monitor, >= 0.
        smoothing: of the monitor, >= 0; 0 for none.
        width: of the first layer of graph attention, >= 18 and even; 256 is the released size.
        n_cases: meshes to train on.
        weights: file of `pdelab train um2n-published`.

    Source: Zhang et al., Towards Universal Mesh Movement Networks, NeurIPS 2024, and its released code.
    """

    monitor: str = "hessian"
    strength: float = 5.0
    smoothing: float = 0.0
    width: int = 256
    n_cases: int = 450
    weights: str | None = None

    name: ClassVar[str] = "um2n-published"
    default_budget: ClassVar[Budget] = Budget(steps=90_000)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("monitor", self.monitor, MONITORS)
        check_range("strength", self.strength, least=0)
        check_range("smoothing", self.smoothing, least=0)
        check_range("width", self.width, least=18)
        check_range("n_cases", self.n_cases, least=1)

    def cases(self, seed: int) -> Sequence[tuple[Mesh, np.ndarray]]:
        """Sums of Gaussians on Delaunay meshes of the unit square with edges of 0.05 and 0.055: monitors (N, 1)."""
        from pdelab.meshes.generate import domain_mesh
        from pdelab.meshes.movers.um2n_cases import gaussian_sum

        rng = np.random.default_rng([seed, 63])
        meshes = [domain_mesh(Box((0.0, 0.0), (1.0, 1.0)), size) for size in (0.05, 0.055)]
        chosen = [meshes[k % 2] for k in range(self.n_cases)]
        return [(mesh, monitor_at_nodes(mesh, gaussian_sum(mesh.points, rng)[:, None])[:, None]) for mesh in chosen]

    def blank(self) -> GraphNet:
        """The network before training."""
        from pdelab.meshes.movers._graph_net import GraphNet

        return GraphNet(self.width)

    def prepare(self, cases: Sequence[tuple[Mesh, np.ndarray]], *, context: Context) -> GraphNet:
        """Train on meshes with monitors (N, 1); their Monge-Ampere meshes are computed first."""
        from pdelab.meshes.movers.um2n_published_training import train

        return train(self.blank(), cases, self.default_budget, context)

    def monitor_at_nodes(self, mesh: Mesh, values: np.ndarray) -> np.ndarray:
        """The monitor (N,) that the values (N, m) ask for; errors as in `move`."""
        if checked_mesh(mesh).cell_type != "triangle":
            raise MeshError(f"cells of type {mesh.cell_type}: um2n-published moves triangles; use monge-ampere")
        return monitor_at_nodes(mesh, checked_values(mesh, values), self.monitor, self.strength, self.smoothing)

    def move(self, mesh: Mesh, values: np.ndarray, state: GraphNet | None = None) -> Mesh:
        """The moved mesh for nodal values (N, m).

        Raises:
            MeshError: no mesh of triangles, or its boundary is not closed.
            MeshTangled: the mesh is tangled already.
            InputError: the values have another length or are not finite; a given monitor is not positive.
            CheckpointError: the weights cannot be read or are of another mover.
        """
        m = self.monitor_at_nodes(mesh, values)
        network = state or self.trained()
        with torch.inference_mode():
            moved = network(*network_input(mesh, m)).double().numpy()
        edge = np.unique(mesh.boundary_facets())
        moved[edge] = mesh.points[edge]  # float32 has rounded them
        return mesh.moved(Validity(mesh, BoundaryMotion(mesh)).repaired(moved))


def network_input(mesh: Mesh, monitor: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Places (N, 2), monitor (N,), boundary (N,) and directed edges (2, E) for `GraphNet`."""
    from pdelab.meshes.convert import to_graph

    graph = to_graph(mesh)
    return graph.pos.float(), torch.as_tensor(monitor, dtype=torch.float32), graph.boundary, graph.edge_index

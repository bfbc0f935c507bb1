"""Training of `um2n-published` with the losses and the rate of the released code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pdelab.errors import InputError, MeshTangled
from pdelab.mesh import Mesh
from pdelab.meshes.movers._composition import signed_areas
from pdelab.meshes.movers._input import checked_values
from pdelab.meshes.movers.monge_ampere import MongeAmpere
from pdelab.meshes.movers.um2n_published import network_input
from pdelab.objective import Losses, Terms
from pdelab.schedule import Phase
from pdelab.solver import Budget, Context
from pdelab.train import Trainer

if TYPE_CHECKING:
    from pdelab.meshes.movers._graph_net import GraphNet

BATCH, RATE, DECAY = 5, 5e-5, 5e-4
AREA, CHAMFER = 300.0, 100.0


def area_loss(x: Tensor, target: Tensor, cells: np.ndarray) -> Tensor:
    """Sum over the cells of | |K| - |K*| |, K negative where its sign is not that of K*."""
    wanted = signed_areas(target, cells)
    return (signed_areas(x, cells) * wanted.sign() - wanted.abs()).abs().sum()


def chamfer_distance(p: Tensor, q: Tensor) -> Tensor:
    """mean_i min_j |p_i - q_j|^2 + mean_j min_i |p_i - q_j|^2 of two clouds (n, 2) and (m, 2)."""
    squares = (p[:, None] - q[None]).square().sum(dim=2)
    return squares.min(dim=1).values.mean() + squares.min(dim=0).values.mean()


def train(network: GraphNet, cases: Sequence[tuple[Mesh, np.ndarray]], default: Budget, context: Context) -> GraphNet:
    """Adam with weight decay at a constant rate, five meshes a step.

    Raises:
        InputError: no case has a Monge-Ampere mesh.
    """
    examples = [example for mesh, monitor in cases if (example := _example(mesh, monitor)) is not None]
    if not examples:
        raise InputError(f"cases: none of {len(cases)} has a Monge-Ampere mesh to learn from; give other meshes")
    network.to(context.device).train()

    def losses(step: int) -> Terms:
        chosen = np.random.default_rng([context.seed, 7, step]).integers(0, len(examples), BATCH)
        area, distance = [], []
        for inputs, target, cells in (examples[int(i)] for i in chosen):
            x, goal = network(*(each.to(context.device) for each in inputs)), target.to(context.device)
            area.append(area_loss(x, goal, cells))
            distance.append(chamfer_distance(x, goal))
        # Weight decay of Adam is the gradient of this term.
        decay = torch.stack([p.square().sum() for p in network.parameters()]).sum()
        return {
            "area": AREA * torch.stack(area).mean(),
            "chamfer": CHAMFER * torch.stack(distance).mean(),
            "decay": 0.5 * DECAY * decay,
        }

    trainer = Trainer(context, default)
    objective = Losses(losses, redrawn_every=1)
    network.report = trainer.minimise(list(network.parameters()), objective, [Phase("adam", 1.0, RATE)])
    return network.to("cpu").eval()


def _example(mesh: Mesh, monitor: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor, np.ndarray] | None:
    m = checked_values(mesh, monitor)
    try:
        found = MongeAmpere(monitor="given").movement(mesh, m)
    except MeshTangled:
        return None
    if not found.status.ok:
        return None
    return network_input(mesh, m[:, 0]), torch.as_tensor(found.mesh.points, dtype=torch.float32), mesh.cells

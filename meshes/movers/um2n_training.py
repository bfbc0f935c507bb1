"""How the weights of `um2n` come about: meshes of the Monge-Ampere mover as targets, and equal monitor mass."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pdelab.errors import InputError, MeshTangled
from pdelab.mesh import Mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._composition import Composition, signed_areas
from pdelab.meshes.movers._cycle_net import CycleNet
from pdelab.meshes.movers._input import checked_values
from pdelab.meshes.movers.monge_ampere import MongeAmpere
from pdelab.objective import Losses, Terms
from pdelab.schedule import Phase
from pdelab.solver import Budget, Context, Progress
from pdelab.train import Trainer

_log = logging.getLogger(__name__)
BATCH, SWEEPS, RATE = 8, 2, 4e-3
WEIGHTS = {"area": 1.0, "place": 0.3, "flat": 30.0, "mass": 0.1}
FLAT = 0.1  # of the target area, below which a cell is told to grow
HELPED = 0.7  # targets must have at most that share of the spread before


@dataclass(frozen=True, eq=False)
class Example:
    """A mesh to move, and where to: the points of the target (N, 2) and its areas over those before (C,)."""

    composition: Composition
    target: Tensor
    areas: Tensor

    @classmethod
    def of(cls, mesh: Mesh, monitor: np.ndarray) -> Example | None:
        """With the mesh of `MongeAmpere` as target, None where that fails or helps little."""
        m = checked_values(mesh, monitor)
        try:
            found = MongeAmpere(monitor="given").movement(mesh, m)
        except MeshTangled:
            return None
        if found.spread > HELPED * found.spreads[0]:
            return None
        composition = Composition(mesh, m[:, 0], BoundaryMotion(mesh))
        target = torch.as_tensor(found.mesh.points)
        return cls(composition, target, signed_areas(target, mesh.cells) / torch.as_tensor(mesh.volumes()))

    def losses(self, x: Tensor) -> Terms:
        """What is wrong with the nodes at x (N, 2): areas, places, flat cells, unequal monitor mass.

        area   mean |a - a*|                  a: areas of cells over those before, a* of the target
        place  mean |x - x*| / H              H: spacing of the grid
        flat   mean max(0.1 min(a*, 1) - a, 0)
        mass   mean (q / mean q - 1)^2        q = m(x) a
        """
        c = self.composition
        cells = torch.as_tensor(c.mesh.cells)
        areas = signed_areas(x, c.mesh.cells) / torch.as_tensor(c.mesh.volumes())
        q = c.monitor_at(x)[cells].mean(dim=1).clamp(min=float(c.monitor.values.min())) * areas
        return {
            "area": (areas - self.areas).abs().mean(),
            "place": (x - self.target).norm(dim=1).mean() / c.grid.spacing,
            "flat": functional.relu(FLAT * self.areas.clamp(max=1.0) - areas).mean(),
            "mass": (q / q.mean().detach() - 1).square().mean(),
        }


def train(network: CycleNet, cases: Sequence[tuple[Mesh, np.ndarray]], default: Budget, context: Context) -> CycleNet:
    """Adam on the losses after each of two sweeps, eight meshes a step; gradients do not go from sweep to sweep.

    Raises:
        InputError: no case has a target.
    """
    examples = []
    for number, (mesh, monitor) in enumerate(cases):
        if (example := Example.of(mesh, monitor)) is not None:
            examples.append(example)
        context.report(Progress(0, None, {"targets": float(number + 1)}))
    if not examples:
        raise InputError(f"cases: none of {len(cases)} has a Monge-Ampere mesh to learn from; give other meshes")
    _log.info("um2n: %d of %d cases have targets", len(examples), len(cases))
    network.to(context.device)

    def losses(step: int) -> Terms:
        chosen = np.random.default_rng([context.seed, 7, step]).integers(0, len(examples), BATCH)
        each = [_swept(network, examples[int(i)]) for i in chosen]
        return {key: WEIGHTS[key] * torch.stack([terms[key] for terms in each]).mean() for key in WEIGHTS}

    trainer = Trainer(context, default)
    phases = [Phase("adam", 1.0, RATE, "cosine", warm_up=0.03, final=0.01)]
    network.report = trainer.minimise(list(network.parameters()), Losses(losses, redrawn_every=1), phases)
    return network.to("cpu")


def _swept(network: CycleNet, example: Example) -> Terms:
    """The losses after each sweep, added up."""
    x, total = None, dict.fromkeys(WEIGHTS, torch.zeros((), dtype=torch.float64))
    for _ in range(SWEEPS):
        moved = example.composition.swept(network, x)
        total = {key: total[key] + value for key, value in example.losses(moved).items()}
        x = moved.detach().numpy()
    return total

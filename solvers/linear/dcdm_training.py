"""How the weights of `dcdm` and `dcdm-published` come about: self-supervised, from matrices alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdelab.solvers.linear._hierarchy import Level, finest, hierarchy, pseudo_inverse
from pdelab.solvers.linear._learned_cycle import LearnedCycle
from pdelab.solvers.linear._published_net import PublishedNet
from pdelab.solvers.linear._training_vectors import box_mixtures, mixtures, ritz_pairs
from pdelab.stencil import FLUID, SOLID, Stencil, poisson_stencil

Report = Callable[[int, int, float], None]
KINDS = ("neumann", "dirichlet", "face-dirichlet")


def direction_loss(matvec: Callable[[Tensor], Tensor], b: Tensor, f: Tensor) -> Tensor:
    """mean |b - a A f|^2, a = f^T b / (f^T A f): what is left of b of norm 1 after one step along f, whatever its size.

    Args:
        matvec: A, on fields.
        b: right-hand sides of norm 1, (k, *shape).
        f: the directions, of the same shape.

    Source: Kaneda et al., ICML 2023.
    """
    image = matvec(f)
    a = (f * b).flatten(1).sum(1) / (f * image).flatten(1).sum(1)
    return ((b - a.reshape(-1, *(1,) * (b.ndim - 1)) * image) ** 2).flatten(1).sum(1).mean()


@dataclass(frozen=True)
class CycleRecipe:
    """Training of `LearnedCycle`; about 4 minutes of one core in the plane, 6 in space.

    Each step takes one of the matrices and right-hand sides of one kind: exact eigenvector mixtures on boxes or Ritz
    vectors where there are obstacles, white noise, or residuals after 1 to 6 steps of the network itself, renewed as it
    learns. Obstacles are discs or balls; the loss is `direction_loss`.

    Args:
        shapes: of the grids.
        n_matrices: of random walls and obstacles, a third of them without obstacles.
        n_steps: of Adam; the rate falls from `rate` to a fiftieth as a cosine.
        batch: right-hand sides in a step.
        n_ritz: Lanczos steps for each matrix with obstacles.
        rate: of Adam at the start.
        seed: of everything.
    """

    shapes: Sequence[tuple[int, ...]]
    n_matrices: int = 48
    n_steps: int = 6000
    batch: int = 6
    n_ritz: int = 120
    rate: float = 5e-3
    seed: int = 48109

    def train(self, report: Report = lambda step, total, loss: None) -> tuple[LearnedCycle, dict[str, str]]:
        """The network and a summary: seconds, and the loss on white noise for all matrices before and after."""
        rng = np.random.default_rng(self.seed)
        torch.manual_seed(self.seed)
        d, start = len(self.shapes[0]), time.process_time()
        net = LearnedCycle(d)
        pool = [
            _Task.draw(self.shapes[i % len(self.shapes)], i % 3 > 0, self.n_ritz, rng) for i in range(self.n_matrices)
        ]
        optimizer = torch.optim.Adam(net.parameters(), self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.n_steps, self.rate / 50)
        before = _mean_loss(net, pool, self.seed)
        for step in range(self.n_steps):
            task = pool[int(rng.integers(len(pool)))]
            cycle = net.on(task.levels, task.coarsest)
            b = task.batch(self.batch, rng)
            loss = direction_loss(task.levels[0].matvec, b, cycle(b))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 4 == 3:
                task.visit(net)
            report(step + 1, self.n_steps, loss.item())
        return net, {
            "recipe": repr(self),
            "loss_before": f"{before:.3e}",
            "loss_after": f"{_mean_loss(net, pool, self.seed):.3e}",
            "cpu_seconds": f"{time.process_time() - start:.0f}",
            "torch": torch.__version__,
        }


@dataclass(frozen=True)
class PublishedRecipe:
    """Training of `PublishedNet` on one empty box, by the paper's data and loss.

    Reduced: 64^2 or 32^3 cells, fewer Lanczos steps and samples, a larger rate that falls linearly.

    Args:
        shape: of the box.
        walls: "dirichlet", with u = 0 one cell beyond them, or "neumann".
        m, theta, n_samples: Lanczos steps, Ritz vectors weighted beyond half, and training vectors.
        epochs, batch, rate, last_rate: of Adam.
        seed: of everything.

    Source: Kaneda et al., ICML 2023: 64^3, m = 10000, theta = 500, 20000 samples, rate 1e-4, batch 10.
    """

    shape: tuple[int, ...] = (64, 64)
    walls: str = "dirichlet"
    m: int = 500
    theta: int = 25
    n_samples: int = 2000
    epochs: int = 10
    batch: int = 10
    rate: float = 1e-3
    last_rate: float = 5e-5
    seed: int = 48109

    def train(self, report: Report = lambda step, total, loss: None) -> tuple[PublishedNet, dict[str, str]]:
        """The network and a summary: seconds, loss on the held-out tenth of the samples."""
        rng = np.random.default_rng(self.seed)
        torch.manual_seed(self.seed)
        start = time.process_time()
        stencil = poisson_stencil(self.shape, walls=self.walls)
        A, level = stencil.matrix(), finest(stencil, torch.float32)
        _, vectors = ritz_pairs(lambda v: A @ v, A @ rng.standard_normal(A.shape[0]), self.m)
        samples = torch.as_tensor(mixtures(vectors, self.n_samples, self.theta, rng), dtype=torch.float32)
        samples = samples.reshape(-1, *self.shape)
        held, used = samples[: self.n_samples // 10], samples[self.n_samples // 10 :]
        net = PublishedNet(len(self.shape))
        optimizer = torch.optim.Adam(net.parameters(), self.rate)
        total = self.epochs * math.ceil(len(used) / self.batch)
        step = 0
        for _ in range(self.epochs):
            for chosen in torch.as_tensor(rng.permutation(len(used))).split(self.batch):
                optimizer.param_groups[0]["lr"] = self.rate + (self.last_rate - self.rate) * step / total
                loss = direction_loss(level.matvec, used[chosen], net(used[chosen]))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                report(step, total, loss.item())
        with torch.no_grad():
            losses = [float(direction_loss(level.matvec, b, net(b))) for b in held.split(self.batch)]
        return net, {
            "recipe": repr(self),
            "loss_held_out": f"{np.mean(losses):.3e}",
            "cpu_seconds": f"{time.process_time() - start:.0f}",
            "torch": torch.__version__,
        }


RECIPES: dict[str, CycleRecipe | PublishedRecipe] = {
    "dcdm-2d": CycleRecipe(((64, 64), (96, 80), (128, 128))),
    "dcdm-3d": CycleRecipe(((24, 24, 24), (32, 32, 32), (40, 32, 24)), n_matrices=30, n_steps=3000, batch=3, n_ritz=60),
    "dcdm-published-dirichlet-2d": PublishedRecipe(),
    "dcdm-published-neumann-2d": PublishedRecipe(walls="neumann"),
    "dcdm-published-dirichlet-3d": PublishedRecipe((32, 32, 32), "dirichlet", 300, 15, 500, 5, 4),
}
"""Name of the weights file -> how it was made."""


@dataclass(eq=False)
class _Task:
    """One matrix: its levels in float32, training vectors, and residuals that the network has met."""

    levels: list[Level]
    coarsest: Tensor
    vectors: Tensor
    met: Tensor

    @classmethod
    def draw(cls, shape: tuple[int, ...], obstacles: bool, n_ritz: int, rng: np.random.Generator) -> _Task:
        """With random walls, closed half the time; without obstacles both ends of an axis are alike."""
        closed = rng.random() < 0.5
        ends = []
        for _ in shape:
            first = str(rng.choice(KINDS))
            last = str(rng.choice(KINDS)) if obstacles else first
            ends.append(("neumann", "neumann") if closed else (first, last))
        stencil = poisson_stencil(shape, walls=ends, cells=_balls(shape, rng) if obstacles else None)
        vectors = _ritz(stencil, n_ritz, rng) if obstacles else box_mixtures(shape, ends, 60, rng)
        level = finest(stencil)
        levels = [each.to(torch.float32, "cpu") for each in hierarchy(level, coarsest=20)]
        data = torch.as_tensor(vectors, dtype=torch.float32).reshape(-1, *shape)
        return cls(levels, pseudo_inverse(levels[-1]), data, data[:0])

    def batch(self, k: int, rng: np.random.Generator) -> Tensor:
        """Unit right-hand sides of one kind."""
        kind = rng.integers(3)
        if kind == 0:
            return self.vectors[torch.as_tensor(rng.integers(len(self.vectors), size=k))]
        if kind == 1 and len(self.met):
            return self.met[torch.as_tensor(rng.integers(len(self.met), size=k))]
        return self.noise(k)

    def visit(self, net: LearnedCycle) -> None:
        """Renew the residuals: white noise after 1 to 6 steps along the network's directions."""
        with torch.no_grad():
            cycle, r, kept = net.on(self.levels, self.coarsest), self.noise(2), []
            for _ in range(6):
                f = cycle(r)
                image = self.levels[0].matvec(f)
                a = (f * r).flatten(1).sum(1) / (f * image).flatten(1).sum(1)
                r = _unit(r - a.reshape(-1, *(1,) * (r.ndim - 1)) * image)
                kept.append(r)
            self.met = torch.cat(kept)

    def noise(self, k: int) -> Tensor:
        """White noise of norm 1 in the unknowns, orthogonal to the constants if they are in the kernel."""
        level = self.levels[0]
        b = torch.randn(k, *level.shape) * level.active
        if not level.excess.any():
            b = (b - b.flatten(1).sum(1).reshape(-1, *(1,) * level.d) / level.active.sum()) * level.active
        return _unit(b)


def _mean_loss(net: LearnedCycle, pool: Sequence[_Task], seed: int) -> float:
    """Over the matrices, on white noise; the stream of the training stays as it is."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        losses = []
        for task in pool:
            b = task.noise(2)
            losses.append(float(direction_loss(task.levels[0].matvec, b, net.on(task.levels, task.coarsest)(b))))
    return float(np.mean(losses))


def _ritz(stencil: Stencil, m: int, rng: np.random.Generator) -> np.ndarray:
    A = stencil.matrix()
    _, vectors = ritz_pairs(lambda v: A @ v, A @ rng.standard_normal(A.shape[0]), m)
    return mixtures(vectors, 60, m // 20, rng)


def _balls(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One to five solid discs or balls of radius 0.05 to 0.15 of the first side, anywhere."""
    cells = np.full(shape, FLUID)
    places = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    for _ in range(int(rng.integers(1, 6))):
        centre = rng.uniform(0.05, 0.95, len(shape)) * shape
        cells[np.linalg.norm(places - centre, axis=-1) < rng.uniform(0.05, 0.15) * shape[0]] = SOLID
    return cells


def _unit(b: Tensor) -> Tensor:
    size: Any = b.flatten(1).norm(dim=1).clamp(min=1e-30)
    return b / size.reshape(-1, *(1,) * (b.ndim - 1))

"""A training so small that the loop around it can be tested."""

import torch

from pdelab.objective import AbstractLeastSquares
from pdelab.solver import Budget, Context

SEED = 48109


class Toy(AbstractLeastSquares):
    """Fit sin(3x) on points that are drawn anew every `every` steps, with a second term at 0."""

    def __init__(self, every=0):
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1)).double()
        self.every, self.draw, self.stop_at, self.refreshed = every, -1, None, 0

    def residuals(self):
        return {
            "residual": self.net(self.x)[:, 0] - torch.sin(3 * self.x[:, 0]),
            "dirichlet": self.net(torch.zeros(1, 1, dtype=torch.float64))[:, 0],
        }

    def refresh(self, step, quasi_newton):
        if step == self.stop_at:
            raise Killed
        draw = step // self.every if self.every else 0
        changed, self.draw = draw != self.draw, draw
        generator = torch.Generator().manual_seed(SEED + draw)
        self.x = torch.rand(40, 1, generator=generator, dtype=torch.float64) * 2 - 1
        return changed

    def state_dict(self):
        return {"draw": self.draw}

    def load_state_dict(self, state):
        self.draw = state["draw"]


class Killed(Exception):
    """Raised by `Toy` at the step `stop_at`."""


def context(steps, store=None, **more):
    return Context(seed=SEED, budget=Budget(steps=steps), checkpoints=store, **more)


def bowl(start=(3.0, -2.0), power=2):
    w = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    return w, lambda step: {"bowl": (w**power).sum()}

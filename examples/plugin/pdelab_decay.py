"""A plug-in for pdelab: one problem and one solver."""

from dataclasses import dataclass
from typing import ClassVar

import torch

import pdelab


@dataclass(frozen=True)
class Decay(pdelab.AbstractProblem):
    """Exponential decay at every point of [0, 1]: u_t = -rate u, u(x, 0) = 1."""

    rate: float = 2.0

    name: ClassVar = "decay"
    domain: ClassVar = pdelab.Interval(0.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def residual(self, f):
        return f.u_t + self.rate * f.u

    def conditions(self):
        return (pdelab.Initial("u", 1.0),)

    def reference(self):
        return pdelab.Exact(lambda p: torch.exp(-self.rate * p.t))


@dataclass(frozen=True)
class Constant(pdelab.AbstractInstanceSolver):
    """The answer is the same number everywhere."""

    value: float = 1.0

    name: ClassVar = "constant"

    def run(self, problem, state, *, context):
        m = len(problem.components)
        return pdelab.Solution(problem, lambda x: torch.full((len(x), m), self.value), pdelab.Status.CONVERGED)

"""Small problems that between them have every kind of condition."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pdelab.domain import Box, Interval
from pdelab.pde import AbstractProblem, Dirichlet, Exact, Initial, Neumann, Observations, Periodic
from pdelab.shapes import Ball


@dataclass(frozen=True)
class Wave(AbstractProblem):
    """u_tt = u_xx on [0, 2] x [0, 3] with moving ends: u = sin(x) cos(t) + 1 + x t."""

    name: ClassVar[str] = "toy-wave"
    domain: ClassVar = Interval(0.0, 2.0)
    time: ClassVar = (0.0, 3.0)

    def exact(self, p):
        return torch.sin(p.x) * torch.cos(p.t) + 1 + p.x * p.t

    def residual(self, f):
        return f.u_tt - f.u_xx

    def conditions(self):
        ends = Dirichlet("u", self.exact, "left"), Dirichlet("u", self.exact, "right")
        return *ends, Initial("u", self.exact), Initial("u", lambda p: p.x, order=1)


@dataclass(frozen=True)
class Mixed(AbstractProblem):
    """Two components on a box: u given on three sides with different values, v on one, a flux on the fourth."""

    name: ClassVar[str] = "toy-mixed"
    components: ClassVar = ("u", "v")
    domain: ClassVar = Box((0.0, -1.0), (2.0, 1.0))

    def residual(self, f):
        return f.u_xx + f.u_yy, f.v_x - f.u

    def conditions(self):
        return (
            Dirichlet("u", lambda p: p.y**2, "left"),
            Dirichlet("u", lambda p: 1 + torch.sin(p.x), "bottom"),
            Dirichlet("u", lambda p: torch.exp(p.x), "top"),
            Neumann("u", 0.5, "right"),
            Dirichlet("v", 2.0, "right"),
        )


@dataclass(frozen=True)
class Lid(AbstractProblem):
    """A lid over resting walls: values that do not agree in the corners."""

    name: ClassVar[str] = "toy-lid"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def residual(self, f):
        return f.u_xx + f.u_yy

    def conditions(self):
        return *(Dirichlet("u", 0.0, part) for part in ("left", "right", "bottom")), Dirichlet("u", 1.0, "top")


@dataclass(frozen=True)
class Disc(AbstractProblem):
    """Heat on a disc, u = 1/4 on the boundary, a paraboloid above it at first."""

    name: ClassVar[str] = "toy-disc"
    domain: ClassVar = Ball((0.5, 0.0), 0.7)
    time: ClassVar = (0.0, 1.0)

    def residual(self, f):
        return f.u_t - f.u_xx - f.u_yy

    def conditions(self):
        return Dirichlet("u", 0.25), Initial("u", lambda p: 0.74 - (p.x - 0.5) ** 2 - p.y**2)


@dataclass(frozen=True)
class Ring(AbstractProblem):
    """Advection around a ring: u_t + u_x = 0, u = sin(x - t)."""

    name: ClassVar[str] = "toy-ring"
    domain: ClassVar = Interval(0.0, 2 * math.pi)
    time: ClassVar = (0.0, 1.0)

    def residual(self, f):
        return f.u_t + f.u_x

    def conditions(self):
        return Initial("u", lambda p: torch.sin(p.x)), Periodic("x")

    def reference(self):
        return Exact(lambda p: torch.sin(p.x - p.t))


@dataclass(frozen=True)
class Decay(AbstractProblem):
    """u_x = -k u with data; k = 1.7 is to be found."""

    name: ClassVar[str] = "toy-decay"
    domain: ClassVar = Interval(0.0, 1.0)
    unknowns: ClassVar = {"k": 1.0}

    def residual(self, f):
        return f.u_x + f.k * f.u

    def conditions(self):
        x = np.linspace(0.05, 0.95, 12)
        return (Observations("u", x[:, None], np.exp(-1.7 * x)),)

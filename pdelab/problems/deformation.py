"""Transport by a vortex that turns back: what it draws out into a filament comes together again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.pde import AbstractProblem, Dirichlet, Exact, Initial

CENTRE = (0.5, 0.75)
_STEPS = 12
_SUBSTEPS = (2, 4, 6, 8, 10)


@dataclass(frozen=True)
class Deformation(AbstractProblem):
    """A Gaussian in a vortex that turns back, on [0, 1]^2 x [0, period]: u_t + a u_x + b u_y = 0.

        a = sin^2(pi x) sin(2 pi y) cos(pi t/period),    b = -sin^2(pi y) sin(2 pi x) cos(pi t/period)

    u(X, 0) = exp(-|X - C|^2 / (2 width^2)) with C = (0.5, 0.75). The flow is at rest on the boundary, where the
    initial values stay for ever; at half the period the Gaussian is drawn out most, at the end it is back. Time enters
    through s = period/pi sin(pi t/period) alone: u is the initial value of the place to which the flow of t = 0, run
    backwards for a time s, leads.

    Args:
        period: time until everything is back, 0.1 to 4; the filament is the finer the longer it is.
        width: standard deviation of the Gaussian, length, from 0.05 to 0.2; narrow is hard.

    Source: R. LeVeque, SIAM J. Numer. Anal. 33 (1996) 627-665 (the flow; there with a cosine bell).
    """

    period: float = 1.5
    width: float = 0.1

    name: ClassVar[str] = "deformation"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("period", self.period, least=0.1, most=4.0)
        check_range("width", self.width, least=0.05, most=0.2)

    @property
    def time(self) -> tuple[float, float]:
        """One period."""
        return 0.0, self.period

    def initial(self, p: Coordinates) -> Tensor:
        """The Gaussian, (n,)."""
        return self._bell(p.x, p.y)

    def exact(self, p: Coordinates) -> Tensor:
        """The Gaussian where places come from, (n,)."""
        time = self.period / math.pi * torch.sin(math.pi / self.period * p.t)
        origin = traced_back(torch.stack([p.x, p.y], dim=1), time, vortex)
        return self._bell(*origin.unbind(dim=1))

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + cos(pi t/period) (a u_x + b u_y)."""
        a, b = vortex(torch.stack([f.x, f.y], dim=1)).unbind(dim=1)
        return f.u_t + torch.cos(math.pi / self.period * f.t) * (a * f.u_x + b * f.u_y)

    def conditions(self) -> tuple:
        """The initial values, which stay on the boundary."""
        return Initial("u", self.initial), Dirichlet("u", self.initial)

    def reference(self) -> Exact:
        """Characteristics, traced backwards."""
        return Exact(self.exact, floor=1e-10)

    def _bell(self, x: Tensor, y: Tensor) -> Tensor:
        squared = (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2
        return torch.exp(-squared / (2.0 * self.width**2))


def vortex(places: Tensor) -> Tensor:
    """Velocity at t = 0, (n, 2) -> (n, 2)."""
    (sin_x, sin_y), (cos_x, cos_y) = (f(math.pi * places).unbind(dim=1) for f in (torch.sin, torch.cos))
    return 2.0 * torch.stack([sin_x**2 * sin_y * cos_y, -(sin_y**2) * sin_x * cos_x], dim=1)


def traced_back(places: Tensor, time: Tensor, velocity: Callable[[Tensor], Tensor]) -> Tensor:
    """Where a steady flow has brought places from, by extrapolated midpoint rules of order 10.

    Args:
        places: (n, d).
        time: how long ago, (n,).
        velocity: (n, d) -> (n, d).

    Source: E. Hairer, S. Norsett, G. Wanner, Solving Ordinary Differential Equations I, Springer 1993, section II.9.
    """
    h = -time[:, None] / _STEPS
    for _ in range(_STEPS):
        table: list[Tensor] = []
        for j, n in enumerate(_SUBSTEPS):
            row = [_midpoint(places, h, velocity, n)]
            for k, before in enumerate(table):
                row.append(row[k] + (row[k] - before) / ((n / _SUBSTEPS[j - k - 1]) ** 2 - 1.0))
            table = row
        places = table[-1]
    return places


def _midpoint(p: Tensor, h: Tensor, velocity: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """One step of Gragg's smoothed midpoint rule in n parts."""
    part = h / n
    a, b = p, p + part * velocity(p)
    for _ in range(n - 1):
        a, b = b, a + 2.0 * part * velocity(b)
    return 0.5 * (a + b + part * velocity(b))

"""Transport by a given velocity: a constant one, a rotation, and a vortex that winds up a front."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box, Interval
from pdelab.errors import check_range
from pdelab.pde import AbstractPeriodicProblem, AbstractProblem, Dirichlet, Exact, Initial, Periodic


@dataclass(frozen=True)
class Convection(AbstractPeriodicProblem):
    """Transport of a sine, 2 pi-periodic on [0, 2 pi] x [0, 1]: u_t + velocity u_x = 0, u = sin(x - velocity t).

    Args:
        velocity: length/time, 0 to 200; networks trained without care fail from about 30 on.
    """

    velocity: float = 50.0

    name: ClassVar[str] = "convection"
    domain: ClassVar = Interval(0.0, 2 * math.pi)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the velocity."""
        check_range("velocity", self.velocity, least=0.0, most=200.0)

    def exact(self, p: Coordinates) -> Tensor:
        """sin(x - velocity t), (n,)."""
        return torch.sin(p.x - self.velocity * p.t)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + velocity u_x."""
        return f.u_t + self.velocity * f.u_x

    def conditions(self) -> tuple:
        """Initial sine, equal values at both ends."""
        return Initial("u", self.exact), Periodic("x", 1)

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-i velocity k."""
        return -1j * self.velocity * wavenumbers[0][None]

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """Nothing."""
        return np.zeros_like(values)


@dataclass(frozen=True)
class Advection(AbstractProblem):
    """A Gaussian carried once around the origin on [-1, 1]^2 x [0, 1]: u_t - 2 pi y u_x + 2 pi x u_y = 0.

    u = exp(-|X - C(t)|^2 / (2 width^2)) with the centre C(t) = 0.4 (cos 2 pi t, sin 2 pi t). On the
    boundary, at least 0.6 away from the centre, the exact value is given (below 2e-8 for the default width).

    Args:
        width: standard deviation of the Gaussian, length, from 0.02 to 0.2; narrow is hard.
    """

    width: float = 0.1

    name: ClassVar[str] = "advection"
    domain: ClassVar = Box((-1.0, -1.0), (1.0, 1.0))
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the width."""
        check_range("width", self.width, least=0.02, most=0.2)

    def exact(self, p: Coordinates) -> Tensor:
        """The rotated Gaussian, (n,)."""
        angle = 2.0 * math.pi * p.t
        squared = (p.x - 0.4 * torch.cos(angle)) ** 2 + (p.y - 0.4 * torch.sin(angle)) ** 2
        return torch.exp(-squared / (2.0 * self.width**2))

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - 2 pi y u_x + 2 pi x u_y."""
        return f.u_t + 2.0 * math.pi * (f.x * f.u_y - f.y * f.u_x)

    def conditions(self) -> tuple:
        """The exact value at the first time and on the boundary."""
        return Initial("u", self.exact), Dirichlet("u", self.exact)

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)


@dataclass(frozen=True)
class FlowMixing(AbstractProblem):
    """A front wound up by a vortex on [-4, 4]^2 x [0, 4]: u_t + a u_x + b u_y = 0, u(X, 0) = -tanh(y/2).

    The velocity is tangential, (a, b) = omega(r) (-y, x), with the angular velocity

        omega(r) = sech^2(r) tanh(r) / (0.385 r),    omega(0) = 1/0.385,

    whose speed peaks at 1 near r = 0.66. Hence u = -tanh(y/2 cos(omega t) - x/2 sin(omega t)).

    Source: Tamamidis & Assanis, Int. J. Numer. Methods Fluids 16 (1993) 931-948.
    """

    name: ClassVar[str] = "flow-mixing"
    domain: ClassVar = Box((-4.0, -4.0), (4.0, 4.0))
    time: ClassVar = (0.0, 4.0)

    def exact(self, p: Coordinates) -> Tensor:
        """The initial front in coordinates turned back by omega t, (n,)."""
        angle = _angular_velocity(p) * p.t
        return -torch.tanh(0.5 * (p.y * torch.cos(angle) - p.x * torch.sin(angle)))

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + omega (x u_y - y u_x)."""
        return f.u_t + _angular_velocity(f) * (f.x * f.u_y - f.y * f.u_x)

    def conditions(self) -> tuple:
        """The exact value at the first time and on the boundary."""
        return Initial("u", self.exact), Dirichlet("u", self.exact)

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)


def _angular_velocity(p: Coordinates) -> Tensor:
    # The tiny number keeps r off 0, where tanh(r)/r would be 0/0; it changes no other value.
    r = torch.sqrt(p.x**2 + p.y**2 + 1e-30)
    return torch.tanh(r) / (torch.cosh(r) ** 2 * 0.385 * r)

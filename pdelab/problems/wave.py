"""Wave equations with closed forms: a string, an anisotropic membrane, and Klein-Gordon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box, Interval
from pdelab.errors import check_range
from pdelab.pde import AbstractProblem, Dirichlet, Exact, Initial


@dataclass(frozen=True)
class Wave(AbstractProblem):
    """Two standing waves of a string on [0, 1] x [0, 1]: u_tt = speed^2 u_xx, u = 0 at both ends.

    u = sin(pi x) cos(speed pi t) + 1/2 sin(4 pi x) cos(4 speed pi t), at rest at first.

    Args:
        speed: wave speed, length/time, > 0; the usual value is 2.

    Source: Hao et al., PINNacle, arXiv 2306.08827, case Wave 1d-C.
    """

    speed: float = 2.0

    name: ClassVar[str] = "wave"
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the speed."""
        check_range("speed", self.speed, above=0.0)

    def exact(self, p: Coordinates) -> Tensor:
        """The sum of both waves, (n,)."""
        rate = self.speed * math.pi
        first = torch.sin(math.pi * p.x) * torch.cos(rate * p.t)
        return first + 0.5 * torch.sin(4.0 * math.pi * p.x) * torch.cos(4.0 * rate * p.t)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_tt - speed^2 u_xx."""
        return f.u_tt - self.speed**2 * f.u_xx

    def conditions(self) -> tuple:
        """Value and velocity at first, zero at both ends."""
        return Initial("u", self.exact), Initial("u", 0.0, order=1), Dirichlet("u", 0.0)

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)


@dataclass(frozen=True)
class Wave2D(AbstractProblem):
    """A standing wave of an anisotropic membrane on [0, 1]^2: u_tt = u_xx + 2 u_yy, u = 0 on the boundary.

    u = sin(pi x) sin(2 pi y) cos(3 pi t), a solution because 1^2 + 2 * 2^2 = 3^2; at rest at first.

    Args:
        final_time: > 0; the wave has period 2/3, and the usual value 100 makes a long run.

    Source: after Hao et al., PINNacle, arXiv 2306.08827, case Wave 2d-MS, whose stated solution (version 1)
    does not satisfy its equation; this one does, hence version 2.
    """

    final_time: float = 100.0

    name: ClassVar[str] = "wave-2d"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the final time."""
        check_range("final_time", self.final_time, above=0.0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """First and last time."""
        return 0.0, self.final_time

    def exact(self, p: Coordinates) -> Tensor:
        """sin(pi x) sin(2 pi y) cos(3 pi t), (n,)."""
        return torch.sin(math.pi * p.x) * torch.sin(2.0 * math.pi * p.y) * torch.cos(3.0 * math.pi * p.t)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_tt - u_xx - 2 u_yy."""
        return f.u_tt - f.u_xx - 2.0 * f.u_yy

    def conditions(self) -> tuple:
        """Value and velocity at first, zero on the boundary."""
        return Initial("u", self.exact), Initial("u", 0.0, order=1), Dirichlet("u", 0.0)

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)


@dataclass(frozen=True)
class KleinGordon(AbstractProblem):
    """Nonlinear Klein-Gordon equation on [-1, 1]^2 x [0, final_time]: u_tt - u_xx - u_yy + u^2 = f.

    f = u*^2 - 4 u*, so that u* = (x + y) cos(2 t) + x y sin(2 t); boundary values from it.

    Args:
        final_time: > 0; the usual value is 10.
        start_velocity: False leaves the initial velocity out, as published comparisons did: any small wave between
            resting walls may be added to a solution then.

    Source: Cho et al., Separable Physics-Informed Neural Networks, NeurIPS 2023; the initial velocity 2 x y,
    without which the problem has many solutions, is given here.
    """

    final_time: float = 10.0
    start_velocity: bool = True

    name: ClassVar[str] = "klein-gordon"
    domain: ClassVar = Box((-1.0, -1.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the final time."""
        check_range("final_time", self.final_time, above=0.0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """First and last time."""
        return 0.0, self.final_time

    def exact(self, p: Coordinates) -> Tensor:
        """(x + y) cos(2 t) + x y sin(2 t), (n,)."""
        return (p.x + p.y) * torch.cos(2.0 * p.t) + p.x * p.y * torch.sin(2.0 * p.t)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_tt - u_xx - u_yy + u^2 - f."""
        known = self.exact(f)
        return f.u_tt - f.u_xx - f.u_yy + f.u**2 - (known**2 - 4.0 * known)

    def conditions(self) -> tuple:
        """Value and velocity at first, the solution's values on the boundary."""
        velocity = Initial("u", lambda p: 2.0 * p.x * p.y, order=1)
        return Initial("u", self.exact), *[velocity] * self.start_velocity, Dirichlet("u", self.exact)

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)

"""The viscous Burgers equation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Interval
from pdelab.errors import check_range
from pdelab.pde import AbstractPeriodicProblem, Dirichlet, Exact, Initial


@dataclass(frozen=True)
class Burgers(AbstractPeriodicProblem):
    """Viscous Burgers equation on [-1, 1] x [0, 1]: u_t + u u_x = viscosity u_xx, u(x, 0) = -sin(pi x).

    A front of width about viscosity forms at x = 0 around t = 1/pi. The data are odd, so the zero
    boundary values are those of the 2-periodic solution.

    Args:
        viscosity: kinematic viscosity, length^2/time, > 0; the usual value is 0.01/pi.

    Source: the reference is the Cole-Hopf formula, E. Hopf, Comm. Pure Appl. Math. 3 (1950) 201-230.
    """

    viscosity: float = 0.01 / math.pi

    name: ClassVar[str] = "burgers"
    domain: ClassVar = Interval(-1.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the viscosity."""
        check_range("viscosity", self.viscosity, least=1e-3)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + u u_x - viscosity u_xx."""
        return f.u_t + f.u * f.u_x - self.viscosity * f.u_xx

    def conditions(self) -> tuple:
        """Initial sine, zero at both ends."""
        return Initial("u", lambda p: -torch.sin(math.pi * p.x)), Dirichlet("u", 0.0)

    def reference(self) -> Exact:
        """Cole-Hopf by the trapezoid rule."""
        return Exact(self._cole_hopf, floor=1e-12)

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-viscosity k^2."""
        return -self.viscosity * wavenumbers[0][None] ** 2

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-(u^2/2)_x."""
        return -0.5 * differentiate(values[0] ** 2, 0)[None]

    def _cole_hopf(self, p: Coordinates) -> Tensor:
        # u = -int sin(pi(x - s)) w ds / int w ds,  w = exp(-cos(pi(x - s))/(2 pi nu) - s^2/(4 nu t))
        nodes = torch.linspace(-1.0, 1.0, 1601, dtype=p.points.dtype)
        parts = []
        for x, t in zip(p.x.split(2048), p.t.split(2048), strict=True):
            width = 12.0 * torch.sqrt(4.0 * self.viscosity * t.clamp(min=1e-12))[:, None]
            s = width * nodes
            angle = math.pi * (x[:, None] - s)
            exponent = -torch.cos(angle) / (2.0 * math.pi * self.viscosity) - (12.0 * nodes) ** 2
            # Without its maximum the exponential would overflow for small viscosity.
            w = torch.exp(exponent - exponent.detach().amax(dim=1, keepdim=True))
            parts.append(-(torch.sin(angle) * w).sum(dim=1) / w.sum(dim=1))
        return torch.cat(parts)

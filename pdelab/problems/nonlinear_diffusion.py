"""Nonlinear diffusion of three heaps, the porous-medium equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.pde import AbstractDiffusionProblem, Coefficients, Computed, Dirichlet, Initial


@dataclass(frozen=True)
class NonlinearDiffusion(AbstractDiffusionProblem):
    """Three heaps that spread on [-1, 1]^2 x [0, 1]: u_t = diffusivity div(u grad u), u = 0 on the boundary.

    The diffusion vanishes with u: the heaps spread with steep feet, and the total is kept until a foot
    arrives at the boundary.

    Args:
        diffusivity: of u = 1, length^2/time, > 0; the usual value is 0.05.

    Source: Cho et al., Separable Physics-Informed Neural Networks, NeurIPS 2023.
    """

    diffusivity: float = 0.05

    name: ClassVar[str] = "nonlinear-diffusion"
    domain: ClassVar = Box((-1.0, -1.0), (1.0, 1.0))
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the diffusivity."""
        check_range("diffusivity", self.diffusivity, above=0.0)

    def start(self, p: Coordinates) -> Tensor:
        """Three Gaussian heaps, (n,)."""
        first = 0.25 * torch.exp(-10.0 * ((p.x - 0.3) ** 2 + (p.y - 0.2) ** 2))
        second = 0.4 * torch.exp(-15.0 * ((p.x + 0.5) ** 2 + (p.y + 0.1) ** 2))
        return first + second + 0.3 * torch.exp(-20.0 * (p.x**2 + (p.y + 0.5) ** 2))

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - diffusivity (u_x^2 + u_y^2 + u (u_xx + u_yy))."""
        return f.u_t - self.diffusivity * (f.u_x**2 + f.u_y**2 + f.u * (f.u_xx + f.u_yy))

    def conditions(self) -> tuple:
        """The heaps at first, zero on the boundary."""
        return Initial("u", self.start), Dirichlet("u", 0.0)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion proportional to u."""
        return Coefficients(diffusion=self.diffusivity * u)

    def reference(self) -> Computed:
        """Finite differences on two grids."""
        return Computed("fd", fine={"n": 96, "n_steps": 20}, coarse={"n": 64, "n_steps": 14})

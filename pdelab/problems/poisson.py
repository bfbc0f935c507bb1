"""Poisson's equation with smooth closed forms: on a square, and on a box of any dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.pde import AbstractDiffusionProblem, Coefficients, Dirichlet, Exact


@dataclass(frozen=True)
class Poisson(AbstractDiffusionProblem):
    """Poisson's equation on the unit square: -(u_xx + u_yy) = f, u = 0 on the boundary.

    f = 2 (pi k)^2 sin(pi k x) sin(pi k y), so that u = sin(pi k x) sin(pi k y).

    Args:
        wavenumber: k, a positive whole number, dimensionless; larger is harder (1 to 8 are useful).
    """

    wavenumber: int = 1

    name: ClassVar[str] = "poisson"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the wave number."""
        check_range("wavenumber", self.wavenumber, least=1, most=64)

    def exact(self, p: Coordinates) -> Tensor:
        """sin(pi k x) sin(pi k y), (n,)."""
        k = math.pi * self.wavenumber
        return torch.sin(k * p.x) * torch.sin(k * p.y)

    def source(self, p: Coordinates) -> Tensor:
        """f, (n,)."""
        return 2.0 * (math.pi * self.wavenumber) ** 2 * self.exact(p)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_xx + u_yy + f."""
        return f.u_xx + f.u_yy + self.source(f)

    def conditions(self) -> tuple:
        """Zero on the boundary."""
        return (Dirichlet("u", 0.0),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1, source f."""
        return Coefficients(source=self.source(p))

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)


@dataclass(frozen=True)
class PoissonND(AbstractDiffusionProblem):
    """Poisson's equation in many dimensions on [0, 1]^d: Lap u + (pi^2/4) sum_i sin(pi x_i/2) = 0.

    u = sum_i sin(pi x_i/2); its values are given on the boundary.

    Args:
        dimension: d, 1 to 10; 5 is usual.

    Source: Hao et al., PINNacle, arXiv 2306.08827, case PNd.
    """

    dimension: int = 5

    name: ClassVar[str] = "poisson-nd"

    def __post_init__(self) -> None:
        """Check the dimension."""
        check_range("dimension", self.dimension, least=1, most=10)

    @property
    def domain(self) -> Box:  # type: ignore[override]
        """The unit box."""
        return Box((0.0,) * self.dimension, (1.0,) * self.dimension)

    def exact(self, p: Coordinates) -> Tensor:
        """sum_i sin(pi x_i/2), (n,)."""
        return torch.sin(0.5 * math.pi * p.points).sum(dim=1)

    def residual(self, f: AbstractJet) -> Tensor:
        """Lap u + (pi^2/4) sum_i sin(pi x_i/2)."""
        return f.laplacian("u") + 0.25 * math.pi**2 * self.exact(f)

    def conditions(self) -> tuple:
        """The closed form on the boundary."""
        return (Dirichlet("u", self.exact),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1."""
        return Coefficients(source=0.25 * math.pi**2 * self.exact(p))

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)

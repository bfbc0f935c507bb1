"""The Helmholtz equation on a square, with a smooth closed form."""

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
class Helmholtz(AbstractDiffusionProblem):
    """Helmholtz equation on [-1, 1]^2: u_xx + u_yy + k^2 u = q, u = 0 on the boundary.

    q = (k^2 - pi^2 (a1^2 + a2^2)) sin(a1 pi x) sin(a2 pi y), so that u = sin(a1 pi x) sin(a2 pi y).
    The operator is indefinite for k > pi/sqrt(2) and singular where k^2 = (pi/2)^2 (i^2 + j^2), i, j >= 1.

    Args:
        a1: wave number in x, a positive whole number, dimensionless; (1, 4) is usual, (6, 6) hard.
        a2: wave number in y.
        k: >= 0, 1/length.
    """

    a1: int = 1
    a2: int = 4
    k: float = 1.0

    name: ClassVar[str] = "helmholtz"
    domain: ClassVar = Box((-1.0, -1.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the wave numbers."""
        check_range("a1", self.a1, least=1, most=64)
        check_range("a2", self.a2, least=1, most=64)
        check_range("k", self.k, least=0.0)

    def exact(self, p: Coordinates) -> Tensor:
        """sin(a1 pi x) sin(a2 pi y), (n,)."""
        return torch.sin(self.a1 * math.pi * p.x) * torch.sin(self.a2 * math.pi * p.y)

    def source(self, p: Coordinates) -> Tensor:
        """q, (n,)."""
        return (self.k**2 - math.pi**2 * (self.a1**2 + self.a2**2)) * self.exact(p)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_xx + u_yy + k^2 u - q."""
        return f.u_xx + f.u_yy + self.k**2 * f.u - self.source(f)

    def conditions(self) -> tuple:
        """Zero on the boundary."""
        return (Dirichlet("u", 0.0),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1, source k^2 u - q."""
        return Coefficients(source=self.k**2 * u - self.source(p))

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)

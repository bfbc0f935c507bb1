"""Elliptic equations whose solution is a random sum of Gaussians: the data that mesh movers are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.pde import AbstractDiffusionProblem, AbstractFamily, AbstractProblem, Coefficients, Dirichlet, Exact


@dataclass(frozen=True)
class GaussianSum(AbstractDiffusionProblem):
    """-(u_xx + u_yy) + reaction u = f on the unit square with a sum of Gaussians as solution.

        u = sum over i of height_i exp(-(x - cx_i)^2/sx_i^2 - (y - cy_i)^2/sy_i^2)

    1 to 6 bumps, equally likely; heights and centres uniform in [0, 1]; widths max(N(1/4, 1/6), 1/8). f follows from u,
    u is given on the boundary.

    Args:
        member: number of the draw, a whole number >= 0.
        reaction: 1/length^2, >= 0; 0 is Poisson's equation.

    Source: the law of the training data of Zhang et al., Towards Universal Mesh Movement Networks, NeurIPS 2024.
    """

    member: int = 0
    reaction: float = 1.0

    name: ClassVar[str] = "gaussian-sum"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("member", self.member, least=0)
        check_range("reaction", self.reaction, least=0.0)

    @cached_property
    def bumps(self) -> np.ndarray:
        """One row for each bump: height, cx, cy, sx, sy."""
        rng = np.random.default_rng([self.member, 7481])
        count = int(rng.integers(1, 7))
        height, centres = rng.random((count, 1)), rng.random((count, 2))
        widths = np.maximum(rng.normal(1.0 / 4.0, 1.0 / 6.0, (count, 2)), 1.0 / 8.0)
        return np.hstack([height, centres, widths])

    def exact(self, p: Coordinates) -> Tensor:
        """The sum of the bumps, (n,)."""
        return sum(g for g, _ in self._terms(p))  # type: ignore[return-value]

    def source(self, p: Coordinates) -> Tensor:
        """f = reaction u - Lap u, (n,)."""
        return sum(self.reaction * g - g * curvature for g, curvature in self._terms(p))  # type: ignore[return-value]

    def residual(self, f: AbstractJet) -> Tensor:
        """u_xx + u_yy - reaction u + f."""
        return f.u_xx + f.u_yy - self.reaction * f.u + self.source(f)

    def conditions(self) -> tuple:
        """The solution on the boundary."""
        return (Dirichlet("u", self.exact),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1, a source that falls with u."""
        return Coefficients(source=self.source(p) - self.reaction * u)

    def reference(self) -> Exact:
        """The sum of the bumps."""
        return Exact(self.exact)

    def _terms(self, p: Coordinates) -> list[tuple[Tensor, Tensor]]:
        """Each bump g and Lap g / g, (n,)."""
        terms = []
        for height, cx, cy, sx, sy in self.bumps.tolist():
            a, b = (p.x - cx) / sx, (p.y - cy) / sy
            curvature = (4.0 * a**2 - 2.0) / sx**2 + (4.0 * b**2 - 2.0) / sy**2
            terms.append((height * torch.exp(-(a**2) - b**2), curvature))
        return terms


@dataclass(frozen=True)
class GaussianSumsFamily(AbstractFamily):
    """Elliptic problems with random sums of Gaussians as solutions; `encode` gives the right-hand side.

    Args:
        reaction: see `GaussianSum`; 1 for the Helmholtz-type problem of the source, 0 for Poisson's equation.
    """

    reaction: float = 1.0

    name: ClassVar[str] = "gaussian-sums"

    def sample(self, seed: int) -> GaussianSum:
        """The member with this number."""
        return GaussianSum(seed, self.reaction)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """Right-hand side at sensors (s, 2) -> (s, 1)."""
        assert isinstance(problem, GaussianSum), "not a member of the family"
        p = Coordinates(torch.as_tensor(sensors, dtype=torch.float64), problem.domain.axes)
        return problem.source(p).numpy()[:, None]

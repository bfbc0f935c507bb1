"""Logistic growth on an interval, with and without diffusion."""

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
from pdelab.pde import AbstractPeriodicProblem, Computed, Exact, Initial, Periodic


@dataclass(frozen=True)
class ReactionDiffusion(AbstractPeriodicProblem):
    """Fisher's equation, 2 pi-periodic on [0, 2 pi] x [0, 1]: u_t = diffusion u_xx + growth u (1 - u).

    u(x, 0) = exp(-(x - pi)^2 / (2 (pi/4)^2)).

    Args:
        diffusion: length^2/time, from 0.1 to 20.
        growth: rate, 1/time, from 0 to 20.
    """

    diffusion: float = 5.0
    growth: float = 5.0

    name: ClassVar[str] = "reaction-diffusion"
    domain: ClassVar = Interval(0.0, 2 * math.pi)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the coefficients."""
        check_range("diffusion", self.diffusion, least=0.1, most=20.0)
        check_range("growth", self.growth, least=0.0, most=20.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - diffusion u_xx - growth u (1 - u)."""
        return f.u_t - self.diffusion * f.u_xx - self.growth * f.u * (1.0 - f.u)

    def conditions(self) -> tuple:
        """Initial bump, periodic with the first derivative."""
        return Initial("u", _bump), Periodic("x")

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        fine = {"n": 256, "n_steps": 800, "n_levels": 801}
        return Computed("spectral", fine, coarse={"n": 128, "n_steps": 400, "n_levels": 401})

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Growth - diffusion k^2."""
        return self.growth - self.diffusion * wavenumbers[0][None] ** 2

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-growth u^2."""
        return -self.growth * values**2


@dataclass(frozen=True)
class Reaction(AbstractPeriodicProblem):
    """Logistic growth at each point of [0, 2 pi] x [0, 1]: u_t = growth u (1 - u), u(0) = u(2 pi).

    u(x, 0) = exp(-(x - pi)^2 / (2 (pi/4)^2)); without diffusion the front of the saturated region stays
    steep. The slopes at the two ends differ in sign, so only the value is periodic.

    Args:
        growth: rate, 1/time, from 0 to 20; networks trained without care fail from 5 on.
    """

    growth: float = 5.0

    name: ClassVar[str] = "reaction"
    domain: ClassVar = Interval(0.0, 2 * math.pi)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the rate."""
        check_range("growth", self.growth, least=0.0, most=20.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - growth u (1 - u)."""
        return f.u_t - self.growth * f.u * (1.0 - f.u)

    def conditions(self) -> tuple:
        """Initial bump, equal values at both ends."""
        return Initial("u", _bump), Periodic("x", 1)

    def reference(self) -> Exact:
        """The logistic curve through the initial value."""
        return Exact(self._logistic)

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """Growth, the same for every wave number."""
        return np.full((1, *wavenumbers[0].shape), self.growth)

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-growth u^2."""
        return -self.growth * values**2

    def _logistic(self, p: Coordinates) -> Tensor:
        start, factor = _bump(p), torch.exp(self.growth * p.t)
        return start * factor / (start * factor + 1.0 - start)


def _bump(p: Coordinates) -> Tensor:
    return torch.exp(-((p.x - math.pi) ** 2) / (2.0 * (math.pi / 4.0) ** 2))

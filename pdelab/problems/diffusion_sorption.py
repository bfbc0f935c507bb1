"""Diffusion with sorption in a porous column, and its family of initial levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Interval
from pdelab.errors import InputError, check_range
from pdelab.pde import (
    AbstractDiffusionProblem,
    AbstractFamily,
    AbstractProblem,
    Coefficients,
    Computed,
    Dirichlet,
    Initial,
    Neumann,
)

DIFFUSIVITY = 5e-4
POROSITY = 0.29
BULK_DENSITY = 2880.0
FREUNDLICH_COEFFICIENT = 3.5e-4
FREUNDLICH_EXPONENT = 0.874


@dataclass(frozen=True)
class DiffusionSorption(AbstractDiffusionProblem):
    """Diffusion slowed by sorption on [0, 1] x [0, 500]: u_t = D/R(u) u_xx.

        R(u) = 1 + (1 - phi)/phi rho k n_f (u + 1e-6)^(n_f - 1)
        u(x, 0) = level,  u(0, t) = 1,  u(1, t) = -D u_x(1, t)

    with D = 5e-4 (length^2/time), porosity phi = 0.29, bulk density rho = 2880, Freundlich's k = 3.5e-4 and
    n_f = 0.874. Initial and boundary values do not fit together: both corners at the first time, x < 0.05 or
    x > 0.95 with t < 10, are not scored. The right condition is often written u = D u_x, under which
    disturbances at the right end would grow like exp(t/(D R)); the data of the benchmark have this sign.

    Args:
        level: initial concentration, in [0, 0.2], relative to that of the inflow.

    Source: Takamoto et al., PDEBench, NeurIPS 2022 (whose finite volumes shift the conditions by half a cell).
    """

    level: float = 0.1

    name: ClassVar[str] = "diffusion-sorption"
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (0.0, 500.0)

    def __post_init__(self) -> None:
        """Check the level."""
        check_range("level", self.level, least=0.0, most=0.2)

    def retardation(self, u: Tensor) -> Tensor:
        """R(u) >= 1, (n,); concentrations below 0, which trial fields may have, count as 0."""
        solid = (1.0 - POROSITY) / POROSITY * BULK_DENSITY * FREUNDLICH_COEFFICIENT * FREUNDLICH_EXPONENT
        return 1.0 + solid * (u.clamp(min=0.0) + 1e-6) ** (FREUNDLICH_EXPONENT - 1.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - D/R(u) u_xx."""
        return f.u_t - DIFFUSIVITY / self.retardation(f.u) * f.u_xx

    def conditions(self) -> tuple:
        """A constant at first, 1 on the left, and u + D u_x = 0 on the right."""
        outflow = Neumann("u", 0.0, "right", transfer=1.0 / DIFFUSIVITY)
        return Initial("u", self.level), Dirichlet("u", 1.0, "left"), outflow

    def profile(self, component: str) -> Callable[[Coordinates], Tensor]:
        """The similarity solutions of both ends for a constant R(1/2), which meet the inflow and the initial level.

        level + (1 - level) erfc(x/s) - level x erfc((1 - x)/s),    s = 2 sqrt(D t/R(1/2))
        """
        slow = float(self.retardation(torch.tensor(0.5, dtype=torch.float64)))

        def value(p: Coordinates) -> Tensor:
            s = 2.0 * (DIFFUSIVITY / slow * p.t + 1e-30) ** 0.5
            inflow = (1.0 - self.level) * torch.erfc(p.x / s)
            return self.level + inflow - self.level * p.x * torch.erfc((1.0 - p.x) / s)

        return value

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Mass R(u), diffusion D."""
        return Coefficients(mass=self.retardation(u), diffusion=DIFFUSIVITY)

    def reference(self) -> Computed:
        """Finite differences with cells and steps that shrink towards the discontinuities."""
        settings = {"clustering": 0.9, "grading": 4.0}
        return Computed(
            "fd", fine=settings | {"n": 256, "n_steps": 160}, coarse=settings | {"n": 128, "n_steps": 80}, order=2
        )

    def scored(self, points: np.ndarray) -> np.ndarray:
        """Not the surroundings of the discontinuities."""
        return ((points[:, 0] >= 0.05) & (points[:, 0] <= 0.95)) | (points[:, 1] >= 10.0)


@dataclass(frozen=True)
class DiffusionSorptionFamily(AbstractFamily):
    """Diffusion-sorption columns with a random initial level, uniform in [0, 0.2]."""

    name: ClassVar[str] = "diffusion-sorption"
    shares_equations: ClassVar[bool] = True

    def sample(self, seed: int) -> DiffusionSorption:
        """The column of this number."""
        return DiffusionSorption(level=float(np.random.default_rng(seed).uniform(0.0, 0.2)))

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """The initial level at every sensor, (s, d) -> (s, 1)."""
        if not isinstance(problem, DiffusionSorption):
            raise InputError(f"problem: expected a member of {self.name!r}, got {problem.name!r}")
        return np.full((len(sensors), 1), problem.level)

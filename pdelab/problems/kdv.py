"""The Korteweg-de Vries equation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet
from pdelab.domain import Interval
from pdelab.errors import check_range
from pdelab.pde import AbstractPeriodicProblem, Computed, Initial, Periodic


@dataclass(frozen=True)
class KdV(AbstractPeriodicProblem):
    """Korteweg-de Vries equation, 2-periodic on [-1, 1] x [0, 1]: u_t + u u_x + dispersion^2 u_xxx = 0, u = cos(pi x).

    The initial wave steepens until t = 1/pi and then breaks up into a train of solitons of width about
    `dispersion`. The integrals of u and of u^2 stay constant.

    Args:
        dispersion: length^(3/2)/time^(1/2), from 0.015 to 1; 0.022 is the value of the source.

    Source: Zabusky & Kruskal, Phys. Rev. Lett. 15 (1965) 240-243.
    """

    dispersion: float = 0.022

    name: ClassVar[str] = "kdv"
    domain: ClassVar = Interval(-1.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the dispersion."""
        check_range("dispersion", self.dispersion, least=0.015, most=1.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + u u_x + dispersion^2 u_xxx."""
        return f.u_t + f.u * f.u_x + self.dispersion**2 * f.u_xxx

    def conditions(self) -> tuple:
        """Initial cosine, periodic with two derivatives."""
        return Initial("u", lambda p: torch.cos(math.pi * p.x)), Periodic("x", 3)

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        return Computed(
            "spectral",
            fine={"n": 768, "n_steps": 4000, "n_levels": 201},
            coarse={"n": 512, "n_steps": 2000, "n_levels": 101},
        )

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """i dispersion^2 k^3."""
        return 1j * self.dispersion**2 * wavenumbers[0][None] ** 3

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-(u^2/2)_x."""
        return -0.5 * differentiate(values[0] ** 2, 0)[None]

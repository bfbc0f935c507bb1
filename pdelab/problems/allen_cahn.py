"""The Allen-Cahn equation."""

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
class AllenCahn(AbstractPeriodicProblem):
    """Allen-Cahn equation, 2-periodic on [-1, 1] x [0, 1]: u_t = diffusion u_xx + 5 (u - u^3), u(x, 0) = x^2 cos(pi x).

    The solution is driven towards the states -1 and 1, with interfaces of width about sqrt(diffusion).
    The initial function has a kink at the ends, since its slope there is -2 and 2.

    Args:
        diffusion: length^2/time, from 5e-5 to 1; 1e-4 is the usual value, some data sets have 1e-3.
    """

    diffusion: float = 1e-4

    name: ClassVar[str] = "allen-cahn"
    domain: ClassVar = Interval(-1.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the diffusion."""
        check_range("diffusion", self.diffusion, least=5e-5, most=1.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - diffusion u_xx - 5 (u - u^3)."""
        return f.u_t - self.diffusion * f.u_xx - 5.0 * (f.u - f.u**3)

    def conditions(self) -> tuple:
        """Initial value, periodic with the first derivative."""
        return Initial("u", lambda p: p.x**2 * torch.cos(math.pi * p.x)), Periodic("x")

    def reference(self) -> Computed:
        """Fourier series; many points, and second order only, because of the kink in the initial function."""
        fine = {"n": 4096, "n_steps": 1000, "n_levels": 201, "refinement": 1}
        return Computed("spectral", fine, coarse={"n": 2048, "n_steps": 600, "n_levels": 101}, order=2)

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """5 - diffusion k^2."""
        return 5.0 - self.diffusion * wavenumbers[0][None] ** 2

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-5 u^3."""
        return -5.0 * values**3

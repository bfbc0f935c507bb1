"""The Kuramoto-Sivashinsky equation."""

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

ADVECTION, GROWTH, DAMPING = 100 / 16, 100 / 16**2, 100 / 16**4


@dataclass(frozen=True)
class KuramotoSivashinsky(AbstractPeriodicProblem):
    """Kuramoto-Sivashinsky equation: u_t + 100/16 u u_x + 100/16^2 u_xx + 100/16^4 u_xxxx = 0, 2 pi-periodic.

    On [0, 2 pi] x [0, final_time] from u(x, 0) = cos(x) (1 + sin(x)). Chaotic: modes below |k| = 16 grow, and a small
    difference grows as well, a few hundred times from t = 0.4 to t = 1, so that errors of any solver grow with time.

    Args:
        final_time: T, time, above 0 and at most 1; 0.4 is before chaos, 1 the hard case.
    """

    final_time: float = 0.4

    name: ClassVar[str] = "kuramoto-sivashinsky"
    domain: ClassVar = Interval(0.0, 2 * math.pi)

    def __post_init__(self) -> None:
        """Check the time."""
        check_range("final_time", self.final_time, above=0.0, most=1.0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """From 0 to the final time."""
        return 0.0, self.final_time

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + 100/16 u u_x + 100/16^2 u_xx + 100/16^4 u_xxxx."""
        return f.u_t + ADVECTION * f.u * f.u_x + GROWTH * f.u_xx + DAMPING * f.u_xxxx

    def conditions(self) -> tuple:
        """Initial value, periodic with three derivatives."""
        return Initial("u", lambda p: torch.cos(p.x) * (1.0 + torch.sin(p.x))), Periodic("x", 4)

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        steps = max(500, round(2500 * self.final_time))
        fine = {"n": 512, "n_steps": 2 * steps, "n_levels": 601}
        return Computed("spectral", fine, coarse={"n": 384, "n_steps": steps, "n_levels": 401})

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """100/16^2 k^2 - 100/16^4 k^4."""
        k = wavenumbers[0][None]
        return GROWTH * k**2 - DAMPING * k**4

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-100/16 (u^2/2)_x."""
        return -0.5 * ADVECTION * differentiate(values[0] ** 2, 0)[None]

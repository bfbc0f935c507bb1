"""The Gray-Scott equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.pde import AbstractPeriodicProblem, Computed, Initial, Periodic

DIFFUSION_U, DIFFUSION_V = 1e-5, 5e-6
FEED, REMOVAL = 0.04, 0.1


@dataclass(frozen=True)
class GrayScott(AbstractPeriodicProblem):
    """Gray-Scott equations, 2-periodic on [-1, 1]^2 x [0, final_time]: a substance v that feeds on u.

        u_t = 1e-5 (u_xx + u_yy) + 0.04 (1 - u) - u v^2
        v_t = 5e-6 (v_xx + v_yy) - 0.1 v + u v^2
        u(x, y, 0) = 1 - exp(-80 ((x + 0.05)^2 + (y + 0.02)^2))
        v(x, y, 0) = exp(-80 ((x - 0.05)^2 + (y - 0.02)^2))

    Fronts are about 0.02 wide, so that the reference up to 200, the time of the usual benchmark, needs about a
    minute and half a gigabyte; up to 20 v has formed a spreading ring, and the reference takes seconds.

    Args:
        final_time: T, dimensionless, above 0 and at most 200.
    """

    final_time: float = 20.0

    name: ClassVar[str] = "gray-scott"
    components: ClassVar[tuple[str, ...]] = ("u", "v")
    domain: ClassVar = Box((-1.0, -1.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the time."""
        check_range("final_time", self.final_time, above=0.0, most=200.0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """From 0 to the final time."""
        return 0.0, self.final_time

    def residual(self, f: AbstractJet) -> tuple[Tensor, Tensor]:
        """Both equations."""
        reaction = f.u * f.v**2
        return (
            f.u_t - DIFFUSION_U * f.laplacian("u") - FEED * (1.0 - f.u) + reaction,
            f.v_t - DIFFUSION_V * f.laplacian("v") + REMOVAL * f.v - reaction,
        )

    def conditions(self) -> tuple:
        """Two bumps, periodic along both axes."""
        return (
            Initial("u", lambda p: 1.0 - _bump(p, -0.05, -0.02)),
            Initial("v", lambda p: _bump(p, 0.05, 0.02)),
            Periodic("x"),
            Periodic("y"),
        )

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        steps = max(120, round(6 * self.final_time))
        fine = {"n": 320, "n_steps": steps, "n_levels": steps // 4 + 1}
        return Computed("spectral", fine, coarse={"n": 256, "n_steps": steps, "n_levels": steps // 5 + 1})

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-diffusion |k|^2 - decay, for both."""
        square = wavenumbers[0] ** 2 + wavenumbers[1] ** 2
        return np.stack([-DIFFUSION_U * square - FEED, -DIFFUSION_V * square - REMOVAL])

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """feed - u v^2, and u v^2."""
        u, v = values
        reaction = u * v**2
        return np.stack([FEED - reaction, reaction])


def _bump(p: Coordinates, x: float, y: float) -> Tensor:
    return torch.exp(-80.0 * ((p.x - x) ** 2 + (p.y - y) ** 2))

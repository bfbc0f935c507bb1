"""Decaying two-dimensional turbulence: the vorticity of a random initial flow, without force."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import special
from torch import Tensor

from pdelab.calculus import AbstractJet
from pdelab.domain import Box
from pdelab.errors import InputError, check_range
from pdelab.pde import AbstractFamily, AbstractPeriodicProblem, AbstractProblem, Computed, Initial, Periodic
from pdelab.problems.fourier_series import FourierSeries, gaussian_field, inverse_laplacian

MODES = 5


@dataclass(frozen=True)
class Vorticity(AbstractPeriodicProblem):
    """Decaying flow, 1-periodic on [0, 1]^2 x [0, final_time]: vorticity w and streamfunction psi.

        w_t + psi_y w_x - psi_x w_y = viscosity (w_xx + w_yy)
        psi_xx + psi_yy = -w

    The velocity is (psi_y, -psi_x). The initial vorticity is a draw of the Gaussian field with the periodic kernel

        exp(-2 (sin^2(pi dx) + sin^2(pi dy))/length_scale^2)

    without its mean, cut off at five waves along an axis. psi is defined up to a constant and has mean zero at first.

    Args:
        viscosity: length^2/time, from 1e-5 to 1.
        length_scale: of the kernel, from 0.4 to 2, dimensionless.
        final_time: time, above 0 and at most 10.
        member: number of the initial field, a whole number >= 0.

    Source: N. Chalapathi, Y. Du, A. Krishnapriyan, ICLR 2024, section 4.2, which does not give the variance; here 1.
    """

    viscosity: float = 1e-4
    length_scale: float = 0.8
    final_time: float = 5.0
    member: int = 0

    name: ClassVar[str] = "vorticity"
    components: ClassVar[tuple[str, ...]] = ("w", "psi")
    gauge: ClassVar[tuple[str, ...]] = ("psi",)
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("viscosity", self.viscosity, least=1e-5, most=1.0)
        check_range("length_scale", self.length_scale, least=0.4, most=2.0)
        check_range("final_time", self.final_time, above=0.0, most=10.0)
        check_range("member", self.member, least=0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """From 0 to the final time."""
        return 0.0, self.final_time

    def residual(self, f: AbstractJet) -> tuple[Tensor, Tensor]:
        """The vorticity equation and psi_xx + psi_yy + w."""
        transport = f.psi_y * f.w_x - f.psi_x * f.w_y
        return f.w_t + transport - self.viscosity * f.laplacian("w"), f.laplacian("psi") + f.w

    def conditions(self) -> tuple:
        """Initial vorticity with its streamfunction, periodic along both axes."""
        w = self.initial()
        psi = w.scaled(1.0 / np.maximum((w.wavevectors**2).sum(axis=1), 1.0))
        return Initial("w", w), Initial("psi", psi), Periodic("x"), Periodic("y")

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        steps = max(60, round(60 * self.final_time))
        fine = {"n": 128, "n_steps": steps, "n_levels": steps // 2 + 1}
        return Computed("spectral", fine, coarse={"n": 96, "n_steps": steps // 2, "n_levels": steps // 4 + 1})

    def initial(self) -> FourierSeries:
        """The initial vorticity of this member, mean zero."""
        white = gaussian_field(self.domain, np.ones_like, MODES, [self.member, 9173])
        waves = np.abs(np.rint(white.wavevectors / (2.0 * math.pi)))
        # exp(cos(2 pi d) z) has the Fourier coefficients I_n(z); ive is I_n(z) exp(-z), so that they sum to 1.
        share = special.ive(waves, self.length_scale**-2.0).prod(axis=1)
        return white.scaled(np.sqrt(share) * waves.any(axis=1))

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-viscosity |k|^2, the same for both."""
        return np.stack([-self.viscosity * (wavenumbers[0] ** 2 + wavenumbers[1] ** 2)] * 2)

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """Transport of the vorticity; for the streamfunction its inverse Laplacian."""
        w, psi = values
        change = differentiate(psi, 0) * differentiate(w, 1) - differentiate(psi, 1) * differentiate(w, 0)
        return np.stack([change, inverse_laplacian(-change, 1.0)])


@dataclass(frozen=True)
class VorticityFamily(AbstractFamily):
    """Decaying flows that differ in their initial vorticity; `encode` gives that vorticity.

    Args:
        viscosity, length_scale, final_time: of every member, see `Vorticity`.
    """

    viscosity: float = 1e-4
    length_scale: float = 0.8
    final_time: float = 5.0

    name: ClassVar[str] = "vorticity"
    shares_equations: ClassVar[bool] = True

    def sample(self, seed: int) -> Vorticity:
        """The member with this number."""
        return Vorticity(self.viscosity, self.length_scale, self.final_time, seed)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """w(x, y, 0) at sensors (s, 2 or, with time, 3) -> (s, 1)."""
        if not isinstance(problem, Vorticity):
            raise InputError(f"problem: expected a member of {self.name!r}, got {problem.name!r}")
        return problem.initial().at(torch.as_tensor(sensors)).numpy()[:, None]

"""Incompressible flows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.pde import (
    AbstractFamily,
    AbstractFlowProblem,
    AbstractPeriodicProblem,
    AbstractProblem,
    Computed,
    Dirichlet,
    Initial,
    Periodic,
)
from pdelab.problems.fourier_series import FourierSeries, gaussian_field, inverse_laplacian
from pdelab.shapes import Ball, Polygon


@dataclass(frozen=True)
class KolmogorovFlow(AbstractPeriodicProblem):
    """Kolmogorov flow, 2 pi-periodic on [0, 2 pi]^2 x [0, final_time]: vorticity w and streamfunction psi.

        w_t + psi_y w_x - psi_x w_y = viscosity (w_xx + w_yy) - drag w - waves cos(waves y)
        psi_xx + psi_yy = -w

    The velocity is (psi_y, -psi_x), the force (sin(waves y), 0), all in units of its amplitude and of the box.
    The initial vorticity is a Gaussian field of modes up to four waves along an axis with standard deviations
    proportional to |k| exp(-|k|^2/8), scaled to a mean square of 2^2. The streamfunction is defined up to
    a constant and has mean zero at the first time.

    Args:
        viscosity: 1/Re, from 1e-3 to 1; the floor of the reference rises from 3e-6 at 0.02 to 5e-4 at 1e-3.
        drag: linear friction of the ground, 1/time, from 0 to 10.
        waves: waves of the force in y, a whole number from 1 to 8.
        final_time: T, time, above 0 and at most 20.
        member: number of the initial field, a whole number >= 0.
    """

    viscosity: float = 0.02
    drag: float = 0.1
    waves: int = 4
    final_time: float = 1.0
    member: int = 0

    name: ClassVar[str] = "kolmogorov-flow"
    components: ClassVar[tuple[str, ...]] = ("w", "psi")
    gauge: ClassVar[tuple[str, ...]] = ("psi",)
    domain: ClassVar = Box((0.0, 0.0), (2 * math.pi, 2 * math.pi))

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("viscosity", self.viscosity, least=1e-3, most=1.0)
        check_range("drag", self.drag, least=0.0, most=10.0)
        check_range("waves", self.waves, least=1, most=8)
        check_range("final_time", self.final_time, above=0.0, most=20.0)
        check_range("member", self.member, least=0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """From 0 to the final time."""
        return 0.0, self.final_time

    def residual(self, f: AbstractJet) -> tuple[Tensor, Tensor]:
        """The vorticity equation and psi_xx + psi_yy + w."""
        force = -self.waves * torch.cos(self.waves * f.y)
        transport = f.psi_y * f.w_x - f.psi_x * f.w_y
        return (
            f.w_t + transport - self.viscosity * f.laplacian("w") + self.drag * f.w - force,
            f.laplacian("psi") + f.w,
        )

    def conditions(self) -> tuple:
        """Initial vorticity with its streamfunction, periodic along both axes."""
        w = self.initial()
        psi = w.scaled(1.0 / np.maximum((w.wavevectors**2).sum(axis=1), 1.0))
        return Initial("w", w), Initial("psi", psi), Periodic("x"), Periodic("y")

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        steps = max(120, round(200 * self.final_time))
        fine = {"n": 128, "n_steps": steps, "n_levels": steps // 5 + 1}
        return Computed("spectral", fine, coarse={"n": 96, "n_steps": steps // 2, "n_levels": steps // 10 + 1})

    def initial(self) -> FourierSeries:
        """The initial vorticity of this member, mean zero."""
        field = gaussian_field(self.domain, lambda k: k * np.exp(-(k**2) / 8), 4, self.member)
        # Mean square of a series: half the sum of all squared amplitudes.
        return field.scaled(2.0 / math.sqrt(0.5 * float((field.cosines**2 + field.sines**2).sum())))

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-viscosity |k|^2 - drag, the same for both."""
        return np.stack([-self.viscosity * (wavenumbers[0] ** 2 + wavenumbers[1] ** 2) - self.drag] * 2)

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """Transport and force of the vorticity; for the streamfunction their inverse Laplacian."""
        w, psi = values
        y = 2 * math.pi * np.arange(w.shape[1]) / w.shape[1]
        transport = differentiate(psi, 1) * differentiate(w, 0) - differentiate(psi, 0) * differentiate(w, 1)
        change = -transport - self.waves * np.cos(self.waves * y)
        return np.stack([change, inverse_laplacian(-change, 2 * math.pi)])


@dataclass(frozen=True)
class KolmogorovFamily(AbstractFamily):
    """Kolmogorov flows that differ in their initial vorticity; `encode` gives that vorticity.

    Args:
        viscosity, drag, waves, final_time: of every member, see `KolmogorovFlow`.
    """

    viscosity: float = 0.02
    drag: float = 0.1
    waves: int = 4
    final_time: float = 1.0

    name: ClassVar[str] = "kolmogorov"
    shares_equations: ClassVar[bool] = True

    def sample(self, seed: int) -> KolmogorovFlow:
        """The member with this number."""
        return KolmogorovFlow(self.viscosity, self.drag, self.waves, self.final_time, seed)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """w(x, y, 0) at sensors (s, 2 or, with time, 3) -> (s, 1)."""
        assert isinstance(problem, KolmogorovFlow), "a member of this family"
        return problem.initial().at(torch.as_tensor(sensors)).numpy()[:, None]


@dataclass(frozen=True)
class BackwardStep(AbstractFlowProblem):
    """Steady flow over a backward-facing step: [0, 4] x [0, 2] without the block x < 2, y > 1.

        (u, v) . grad (u, v) + grad p = viscosity Lap (u, v),     u_x + v_y = 0

    Inlet u = 4 y (1 - y), v = 0 at x = 0; no slip on the walls; v = 0, p = 0 at the outlet x = 4. The pressure is
    unbounded at the edge of the step, (2, 1).

    Args:
        viscosity: kinematic, length^2/time, from 0.005 to 1; Reynolds number 2/(3 viscosity) by step and mean velocity.

    Source: Hao et al., PINNacle, NeurIPS 2024, case NS2d-CG, which says nothing of v at the outlet.
    """

    viscosity: float = 0.01

    name: ClassVar[str] = "backward-step"
    domain: ClassVar = Polygon(
        ((0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (2.0, 2.0), (2.0, 1.0), (0.0, 1.0)),
        ("wall", "outlet", "wall", "wall", "wall", "inlet"),
    )

    def __post_init__(self) -> None:
        """Check the viscosity."""
        check_range("viscosity", self.viscosity, least=0.005, most=1.0)

    def conditions(self) -> tuple:
        """Inlet, walls and outlet."""
        return (
            Dirichlet("u", lambda p: 4.0 * p.y * (1.0 - p.y), "inlet"),
            Dirichlet("v", 0.0, "inlet"),
            Dirichlet("u", 0.0, "wall"),
            Dirichlet("v", 0.0, "wall"),
            Dirichlet("v", 0.0, "outlet"),
            Dirichlet("p", 0.0, "outlet"),
        )

    def reference(self) -> Computed:
        """Taylor-Hood elements; the edge of the step spoils the order."""
        return Computed("fem", fine={"resolution": 40}, coarse={"resolution": 20}, order=1)


@dataclass(frozen=True)
class Cylinder(AbstractFlowProblem):
    """Steady flow past a cylinder in a channel: [0, 2.2] x [0, 0.41] without a disc of radius 0.05 around (0.2, 0.2).

        (u, v) . grad (u, v) + grad p = viscosity Lap (u, v),     u_x + v_y = 0

    Inlet u = 6 mean_velocity y (0.41 - y)/0.41^2, v = 0; no slip on walls and cylinder; v = 0, p = 0 at the outlet.
    Force coefficients are those of the solver's force on the part "cylinder", times 2/(0.1 mean_velocity^2); for the
    default they are 5.5795 (drag) and 0.0106 (lift).

    Args:
        mean_velocity: length/time, from 0.01 to 0.4; Reynolds number 100 mean_velocity, 20 by default. The real flow is
            steady up to about 0.47.

    Source: Schaefer & Turek, Notes Numer. Fluid Mech. 52 (1996) 547-566, test case 2D-1, there with a free outlet.
    """

    mean_velocity: float = 0.2

    name: ClassVar[str] = "cylinder"
    domain: ClassVar = Box((0.0, 0.0), (2.2, 0.41)) - Ball((0.2, 0.2), 0.05, "cylinder")
    viscosity: ClassVar = 1e-3

    def __post_init__(self) -> None:
        """Check the velocity."""
        check_range("mean_velocity", self.mean_velocity, least=0.01, most=0.4)

    def inflow(self, p: Coordinates) -> Tensor:
        """The parabola of the inlet, (n,)."""
        return 6.0 * self.mean_velocity * p.y * (0.41 - p.y) / 0.41**2

    def conditions(self) -> tuple:
        """Inlet, walls, cylinder and outlet."""
        walls = [Dirichlet(c, 0.0, part) for part in ("bottom", "top", "cylinder") for c in ("u", "v")]
        inlet = (Dirichlet("u", self.inflow, "left"), Dirichlet("v", 0.0, "left"))
        return *inlet, Dirichlet("v", 0.0, "right"), Dirichlet("p", 0.0, "right"), *walls

    def reference(self) -> Computed:
        """Taylor-Hood elements with curved edges at the cylinder."""
        return Computed("fem", fine={"resolution": 24}, coarse={"resolution": 12}, order=2)

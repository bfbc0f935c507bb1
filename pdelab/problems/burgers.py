"""The viscous Burgers equation: the sine on an interval, random initial functions, and two dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box, Interval
from pdelab.errors import check_range
from pdelab.pde import (
    AbstractFamily,
    AbstractPeriodicProblem,
    AbstractProblem,
    Computed,
    Dirichlet,
    Exact,
    Initial,
    Periodic,
)
from pdelab.problems.fourier_series import FourierSeries, gaussian_field


@dataclass(frozen=True)
class Burgers(AbstractPeriodicProblem):
    """Viscous Burgers equation on [-1, 1] x [0, 1]: u_t + u u_x = viscosity u_xx, u(x, 0) = -sin(pi x).

    A front of width about viscosity forms at x = 0 around t = 1/pi. The data are odd, so the zero
    boundary values are those of the 2-periodic solution.

    Args:
        viscosity: kinematic viscosity, length^2/time, > 0; the usual value is 0.01/pi.

    Source: the reference is the Cole-Hopf formula, E. Hopf, Comm. Pure Appl. Math. 3 (1950) 201-230.
    """

    viscosity: float = 0.01 / math.pi

    name: ClassVar[str] = "burgers"
    domain: ClassVar = Interval(-1.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the viscosity."""
        check_range("viscosity", self.viscosity, least=1e-3)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + u u_x - viscosity u_xx."""
        return f.u_t + f.u * f.u_x - self.viscosity * f.u_xx

    def conditions(self) -> tuple:
        """Initial sine, zero at both ends."""
        return Initial("u", lambda p: -torch.sin(math.pi * p.x)), Dirichlet("u", 0.0)

    def reference(self) -> Exact:
        """Cole-Hopf by the trapezoid rule."""
        return Exact(self._cole_hopf, floor=1e-12)

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-viscosity k^2."""
        return -self.viscosity * wavenumbers[0][None] ** 2

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-(u^2/2)_x."""
        return -0.5 * differentiate(values[0] ** 2, 0)[None]

    def _cole_hopf(self, p: Coordinates) -> Tensor:
        return sine_wave(p.x, p.t, self.viscosity, -1.0, math.pi)


@dataclass(frozen=True)
class BurgersMoving(AbstractPeriodicProblem):
    """Viscous Burgers equation in a fast frame, 2 pi-periodic on [0, 2 pi] x [0, 1]: u_t + (speed + u) u_x = nu u_xx.

    u(x, 0) = sin x; a front forms around t = 1, at a place that moves with `speed`. With v = speed + u it is
    v_t + v v_x = nu v_xx; written for u, errors are relative to the wave and not to the speed.

    Args:
        speed: length/time, 0 to 200; the solution is that of speed 0, moved.
        viscosity: nu, length^2/time, from 1e-3 to 1.

    Source: R. Mojgani, M. Balajewicz, P. Hassanzadeh, Comput. Methods Appl. Mech. Eng. 404 (2023) 115810.
    """

    speed: float = 50.0
    viscosity: float = 0.01

    name: ClassVar[str] = "burgers-moving"
    domain: ClassVar = Interval(0.0, 2 * math.pi)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("speed", self.speed, least=0.0, most=200.0)
        check_range("viscosity", self.viscosity, least=1e-3, most=1.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + (speed + u) u_x - viscosity u_xx."""
        return f.u_t + (self.speed + f.u) * f.u_x - self.viscosity * f.u_xx

    def conditions(self) -> tuple:
        """Initial sine, periodic."""
        return Initial("u", lambda p: torch.sin(p.x)), Periodic("x")

    def reference(self) -> Exact:
        """Cole-Hopf by the trapezoid rule."""
        return Exact(lambda p: sine_wave(p.x - self.speed * p.t, p.t, self.viscosity, 1.0, 1.0), floor=1e-12)

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-i speed k - viscosity k^2."""
        return -1j * self.speed * wavenumbers[0][None] - self.viscosity * wavenumbers[0][None] ** 2

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-(u^2/2)_x."""
        return -0.5 * differentiate(values[0] ** 2, 0)[None]


def sine_wave(x: Tensor, t: Tensor, viscosity: float, amplitude: float, wavenumber: float) -> Tensor:
    """The solution of u_t + u u_x = viscosity u_xx that starts from amplitude sin(wavenumber x), (n,).

        u = int u0(x - s) w ds / int w ds,  w = exp(amplitude cos(k(x - s))/(2 nu k) - s^2/(4 nu t)),  k = wavenumber

    Args:
        x: places, (n,).
        t: times, (n,), >= 0.
        viscosity: nu, at least 1e-3 times |amplitude| / k for all digits.
        amplitude: of the sine.
        wavenumber: k.

    Source: E. Hopf, Comm. Pure Appl. Math. 3 (1950) 201-230.
    """
    # Every maximum of w lies within |amplitude| t of x; 6.5 widths of the Gaussian further out it is below 1e-18.
    # The peaks are at least 1.5 node distances wide, where the trapezoid rule is exact to round-off.
    nodes = torch.linspace(-1.0, 1.0, 401, dtype=x.dtype)
    parts = []
    for x_, t_ in zip(x.split(2048), t.split(2048), strict=True):
        spread = torch.sqrt(4.0 * viscosity * t_.clamp(min=1e-12))[:, None]
        s = (abs(amplitude) * t_[:, None] + 6.5 * spread) * nodes
        angle = wavenumber * (x_[:, None] - s)
        exponent = amplitude * torch.cos(angle) / (2.0 * viscosity * wavenumber) - (s / spread) ** 2
        # Without its maximum the exponential would overflow for small viscosity.
        w = torch.exp(exponent - exponent.detach().amax(dim=1, keepdim=True))
        parts.append(amplitude * (torch.sin(angle) * w).sum(dim=1) / w.sum(dim=1))
    return torch.cat(parts)


@dataclass(frozen=True)
class Burgers2D(AbstractPeriodicProblem):
    """Two-dimensional Burgers equations, 4-periodic on [0, 4]^2 x [0, final_time], velocity (u, v).

        u_t + u u_x + v u_y = viscosity (u_xx + u_yy)
        v_t + u v_x + v v_y = viscosity (v_xx + v_yy)

    Each component of the random initial field is a Gaussian field of Fourier modes up to two waves along an axis with
    standard deviations proportional to exp(-|k|^2/4), scaled to a mean square of 0.2^2. Fronts steepen but stay
    resolvable until t = 1: the floor of the reference is then between 1e-9 and 1e-4, depending on the member.

    Args:
        viscosity: length^2/time, from 5e-4 to 1.
        member: number of the initial field, a whole number >= 0.
        final_time: time, above 0 and at most 10; fronts go on steepening after 1, see the floor.
    """

    viscosity: float = 1e-3
    member: int = 0
    final_time: float = 1.0

    name: ClassVar[str] = "burgers-2d"
    components: ClassVar[tuple[str, ...]] = ("u", "v")
    domain: ClassVar = Box((0.0, 0.0), (4.0, 4.0))

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("viscosity", self.viscosity, least=5e-4, most=1.0)
        check_range("member", self.member, least=0)
        check_range("final_time", self.final_time, above=0.0, most=10.0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """From 0 to the final time."""
        return 0.0, self.final_time

    def residual(self, f: AbstractJet) -> tuple[Tensor, Tensor]:
        """Both momentum equations."""
        return (
            f.u_t + f.u * f.u_x + f.v * f.u_y - self.viscosity * f.laplacian("u"),
            f.v_t + f.u * f.v_x + f.v * f.v_y - self.viscosity * f.laplacian("v"),
        )

    def conditions(self) -> tuple:
        """Initial fields, periodic along both axes."""
        return Initial("u", self.initial(0)), Initial("v", self.initial(1)), Periodic("x"), Periodic("y")

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        longer = max(1, math.ceil(self.final_time))
        fine = {"n": 256, "n_steps": 200 * longer, "n_levels": 40 * longer + 1}
        return Computed("spectral", fine, coarse={"n": 192, "n_steps": 120 * longer, "n_levels": 20 * longer + 1})

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-viscosity |k|^2, twice."""
        return np.stack([-self.viscosity * (wavenumbers[0] ** 2 + wavenumbers[1] ** 2)] * 2)

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-(velocity . grad) velocity."""
        u, v = values
        return np.stack([-u * differentiate(c, 0) - v * differentiate(c, 1) for c in values])

    def initial(self, component: int) -> FourierSeries:
        """The initial function of u, 0, or v, 1, of this member."""
        field = gaussian_field(self.domain, lambda k: np.exp(-(k**2) / 4) * (k > 0), 2, [self.member, component])
        # Mean square of a series: half the sum of all squared amplitudes.
        return field.scaled(0.2 / math.sqrt(0.5 * float((field.cosines**2 + field.sines**2).sum())))


@dataclass(frozen=True)
class BurgersRandom(AbstractPeriodicProblem):
    """Viscous Burgers equation, 1-periodic on [0, 1] x [0, 1], with a random initial function: u_t + u u_x = nu u_xx.

    u(x, 0) is drawn from N(0, (1 - d^2/dx^2/25)^-decay), cut off at 16 waves.

    Args:
        viscosity: nu, length^2/time, from 5e-3 to 1.
        member: number of the initial function, a whole number >= 0.
        decay: of the spectrum, from 2 to 8; 2 is the usual 625 (-d^2/dx^2 + 25)^-2, 4 the smoother
            625^2 (-d^2/dx^2 + 25)^-4 of PDE-CL.
    """

    viscosity: float = 0.01
    member: int = 0
    decay: float = 2.0

    name: ClassVar[str] = "burgers-random"
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("viscosity", self.viscosity, least=5e-3, most=1.0)
        check_range("member", self.member, least=0)
        check_range("decay", self.decay, least=2.0, most=8.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + u u_x - viscosity u_xx."""
        return f.u_t + f.u * f.u_x - self.viscosity * f.u_xx

    def conditions(self) -> tuple:
        """The initial function, periodic with the first derivative."""
        return Initial("u", self.initial()), Periodic("x")

    def reference(self) -> Computed:
        """Fourier series; the whole distance of both runs is the floor."""
        fine = {"n": 512, "n_steps": 1600, "n_levels": 801}
        return Computed("spectral", fine, coarse={"n": 384, "n_steps": 800, "n_levels": 401})

    def initial(self) -> FourierSeries:
        """The initial function of this member."""
        return gaussian_field(self.domain, lambda k: (25.0 / (k**2 + 25.0)) ** (self.decay / 2), 16, self.member)

    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """-viscosity k^2."""
        return -self.viscosity * wavenumbers[0][None] ** 2

    def nonlinear(self, values: np.ndarray, differentiate) -> np.ndarray:
        """-(u^2/2)_x."""
        return -0.5 * differentiate(values[0] ** 2, 0)[None]


@dataclass(frozen=True)
class BurgersFamily(AbstractFamily):
    """Burgers equations that differ in their random initial function; `encode` gives that function.

    Args:
        viscosity: nu of every member, length^2/time, from 5e-3 to 1.
        decay: of the spectrum of every member, see `BurgersRandom`.
    """

    viscosity: float = 0.01
    decay: float = 2.0

    name: ClassVar[str] = "burgers-random"
    shares_equations: ClassVar[bool] = True

    def sample(self, seed: int) -> BurgersRandom:
        """The member with this number."""
        return BurgersRandom(self.viscosity, seed, self.decay)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """u(x, 0) at sensors (s, 1 or, with time, 2) -> (s, 1)."""
        assert isinstance(problem, BurgersRandom), "a member of this family"
        return problem.initial().at(torch.as_tensor(sensors)).numpy()[:, None]


@dataclass(frozen=True)
class Burgers2DFamily(AbstractFamily):
    """Burgers equations in two dimensions that differ in their random initial field; `encode` gives that field.

    The longer time lets fronts form, the larger viscosity is to keep them resolved.

    Args:
        viscosity, final_time: of every member, see `Burgers2D`.
    """

    viscosity: float = 0.01
    final_time: float = 3.0

    name: ClassVar[str] = "burgers-2d"
    shares_equations: ClassVar[bool] = True

    def sample(self, seed: int) -> Burgers2D:
        """The member with this number."""
        return Burgers2D(self.viscosity, seed, self.final_time)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """u and v at (x, y, 0) at sensors (s, 2 or, with time, 3) -> (s, 2)."""
        assert isinstance(problem, Burgers2D), "a member of this family"
        points = torch.as_tensor(sensors)
        return torch.stack([problem.initial(c).at(points) for c in (0, 1)], dim=1).numpy()

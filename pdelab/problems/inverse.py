"""Inverse problems: coefficients to be found from noisy observations of the solution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import Box, Interval
from pdelab.errors import check_range
from pdelab.pde import AbstractProblem, Dirichlet, Exact, Initial, Observations
from pdelab.problems.burgers import Burgers


def _observed(problem: AbstractProblem, points: np.ndarray, noise: float, member: int) -> Observations:
    """The first component of the exact solution at points, with normal noise."""
    exact = problem.reference()
    assert isinstance(exact, Exact)
    values = exact.function(Coordinates(torch.as_tensor(points), problem.axes))
    first = (values[0] if isinstance(values, tuple) else values).numpy()
    rng = np.random.default_rng([member, 6133])
    return Observations(problem.components[0], points, first + noise * rng.standard_normal(len(first)), noise)


@dataclass(frozen=True)
class PoissonInverse(AbstractProblem):
    """Find the conductivity a(x, y) from noisy observations of u: -div(a grad u) = f on the unit square.

    u = sin(pi x) sin(pi y), a = 1/(1 + x^2 + y^2 + (x - 1)^2 + (y - 1)^2); u is observed on a regular 50 x 50 grid,
    a is known on the boundary.

    Args:
        noise: standard deviation of the observations, unit of u, >= 0.
        member: number of the draw of the noise, a whole number >= 0.

    Source: Hao et al., PINNacle, NeurIPS 2024, case PInv. Its source term has the factors (2x + 1), (2y + 1) where
    grad a gives (2x - 1), (2y - 1); version 2 of this problem has the latter, so that the pair above solves it.
    """

    noise: float = 0.1
    member: int = 0

    name: ClassVar[str] = "poisson-inverse"
    components: ClassVar[tuple[str, ...]] = ("u", "a")
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("noise", self.noise, least=0.0)
        check_range("member", self.member, least=0)

    def exact(self, p: Coordinates) -> tuple[Tensor, Tensor]:
        """u and a, (n,) each."""
        return torch.sin(math.pi * p.x) * torch.sin(math.pi * p.y), self.conductivity(p)

    def conductivity(self, p: Coordinates) -> Tensor:
        """a, (n,)."""
        return 1.0 / (1.0 + p.x**2 + p.y**2 + (p.x - 1.0) ** 2 + (p.y - 1.0) ** 2)

    def source(self, p: Coordinates) -> Tensor:
        """f, (n,)."""
        u, a = self.exact(p)
        u_x = math.pi * torch.cos(math.pi * p.x) * torch.sin(math.pi * p.y)
        u_y = math.pi * torch.sin(math.pi * p.x) * torch.cos(math.pi * p.y)
        # a_x = -2 (2x - 1) a^2
        return 2.0 * math.pi**2 * a * u + 2.0 * a**2 * ((2.0 * p.x - 1.0) * u_x + (2.0 * p.y - 1.0) * u_y)

    def residual(self, f: AbstractJet) -> Tensor:
        """div(a grad u) + f."""
        return f.a * (f.u_xx + f.u_yy) + f.a_x * f.u_x + f.a_y * f.u_y + self.source(f)

    def conditions(self) -> tuple:
        """Observations of u inside, a on the boundary."""
        return self._data, Dirichlet("a", self.conductivity)

    def reference(self) -> Exact:
        """The pair that made the data."""
        return Exact(self.exact)

    @cached_property
    def _data(self) -> Observations:
        side = np.linspace(0.0, 1.0, 50)
        points = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
        return _observed(self, points, self.noise, self.member)


@dataclass(frozen=True)
class HeatInverse(AbstractProblem):
    """Find the conductivity a(x, y) from noisy observations of a temperature: u_t - div(a grad u) = f.

    On [-1, 1]^2 x [0, 1] with u = exp(-t) sin(pi x) sin(pi y), a = 2 + sin(pi x) sin(pi y); u is observed at 2500
    random points of space and time, a is known on the boundary. As a component of this problem a may depend on time.

    Args:
        noise: standard deviation of the observations, unit of u, >= 0.
        member: number of the draw of points and noise, a whole number >= 0.

    Source: Hao et al., PINNacle, NeurIPS 2024, case HInv.
    """

    noise: float = 0.1
    member: int = 0

    name: ClassVar[str] = "heat-inverse"
    components: ClassVar[tuple[str, ...]] = ("u", "a")
    domain: ClassVar = Box((-1.0, -1.0), (1.0, 1.0))
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("noise", self.noise, least=0.0)
        check_range("member", self.member, least=0)

    def exact(self, p: Coordinates) -> tuple[Tensor, Tensor]:
        """u and a, (n,) each."""
        wave = torch.sin(math.pi * p.x) * torch.sin(math.pi * p.y)
        return torch.exp(-p.t) * wave, 2.0 + wave

    def source(self, p: Coordinates) -> Tensor:
        """f, (n,)."""
        u, a = self.exact(p)
        # grad a . grad u = exp(-t) |grad wave|^2
        slopes = (torch.cos(math.pi * p.x) * torch.sin(math.pi * p.y)) ** 2
        slopes = slopes + (torch.sin(math.pi * p.x) * torch.cos(math.pi * p.y)) ** 2
        return -u + 2.0 * math.pi**2 * a * u - math.pi**2 * torch.exp(-p.t) * slopes

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - div(a grad u) - f."""
        return f.u_t - f.a * (f.u_xx + f.u_yy) - f.a_x * f.u_x - f.a_y * f.u_y - self.source(f)

    def conditions(self) -> tuple:
        """Observations of u, a on the boundary."""
        return self._data, Dirichlet("a", lambda p: self.exact(p)[1])

    def reference(self) -> Exact:
        """The pair that made the data."""
        return Exact(self.exact)

    @cached_property
    def _data(self) -> Observations:
        rng = np.random.default_rng([self.member, 4007])
        points = rng.uniform([-1.0, -1.0, 0.0], [1.0, 1.0, 1.0], (2500, 3))
        return _observed(self, points, self.noise, self.member)


@dataclass(frozen=True)
class BurgersInverse(AbstractProblem):
    """Find the viscosity of Burgers' equation from noisy observations: u_t + u u_x = viscosity u_xx.

    On [-1, 1] x [0, 1] with u(x, 0) = -sin(pi x) and zero at both ends, as in `Burgers`; u is observed at random
    points of space and time.

    Args:
        viscosity: the true one that made the data, length^2/time; the search starts at 0.02.
        n_observations: number of points.
        noise: standard deviation of the observations, unit of u, >= 0.
        member: number of the draw of points and noise, a whole number >= 0.

    Source: Raissi, Perdikaris & Karniadakis, J. Comput. Phys. 378 (2019) 686-707, section 4, with both parameters free.
    """

    viscosity: float = 0.01 / math.pi
    n_observations: int = 2000
    noise: float = 0.01
    member: int = 0

    name: ClassVar[str] = "burgers-inverse"
    unknowns: ClassVar = {"viscosity": 0.02}
    domain: ClassVar = Interval(-1.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("viscosity", self.viscosity, least=1e-3)
        check_range("n_observations", self.n_observations, least=1)
        check_range("noise", self.noise, least=0.0)
        check_range("member", self.member, least=0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t + u u_x - viscosity u_xx, with the viscosity sought."""
        return f.u_t + f.u * f.u_x - f.viscosity * f.u_xx

    def conditions(self) -> tuple:
        """Initial sine, zero at both ends, observations."""
        return Initial("u", lambda p: -torch.sin(math.pi * p.x)), Dirichlet("u", 0.0), self._data

    def reference(self) -> Exact:
        """Cole-Hopf with the true viscosity."""
        return Burgers(self.viscosity).reference()

    @cached_property
    def _data(self) -> Observations:
        rng = np.random.default_rng([self.member, 4007])
        points = rng.uniform([-1.0, 0.0], [1.0, 1.0], (self.n_observations, 2))
        return _observed(self, points, self.noise, self.member)

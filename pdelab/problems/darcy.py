"""Flow through porous media with random permeability: Darcy's law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import AbstractDomain, Box
from pdelab.errors import check_range
from pdelab.pde import AbstractDiffusionProblem, AbstractFamily, AbstractProblem, Coefficients, Computed, Dirichlet
from pdelab.shapes import Ball

_UNIT_SQUARE = Box((0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True, eq=False)
class CosineSeries:
    """g(x, y) = sum over k, l of amplitudes[k, l] cos(pi k x) cos(pi l y): zero normal slope on the unit square."""

    amplitudes: np.ndarray

    def __call__(self, p: Coordinates, along_x: int = 0, along_y: int = 0) -> Tensor:
        """The function, or its first derivative (1 for one of the axes), (n,)."""
        amplitudes = torch.as_tensor(self.amplitudes, dtype=p.points.dtype, device=p.points.device)
        first, second = self._waves(p.x, along_x), self._waves(p.y, along_y)
        return ((first @ amplitudes) * second).sum(dim=1)

    def _waves(self, x: Tensor, derivative: int) -> Tensor:
        k = math.pi * torch.arange(len(self.amplitudes), dtype=x.dtype, device=x.device)
        phase = x[:, None] * k
        return -k * torch.sin(phase) if derivative else torch.cos(phase)


def random_field(member: int, modes: int) -> CosineSeries:
    """A draw of the Gaussian field with covariance (-Lap + 9)^-2 (no flux at the boundary), of mean 0 and variance 1.

    Cosines of up to modes - 1 half waves along an axis; the variance is the mean one over the square.
    """
    rng = np.random.default_rng([member, 2305])
    k = np.pi * np.arange(modes)
    deviation = 1.0 / (k[:, None] ** 2 + k**2 + 9.0)
    deviation[0, 0] = 0.0
    deviation /= np.sqrt((deviation**2).sum())
    # Normalised eigenfunctions: every cosine that is not constant has a mean square of 1/2.
    norm = np.where(np.arange(modes) > 0, math.sqrt(2.0), 1.0)
    return CosineSeries(rng.standard_normal((modes, modes)) * deviation * norm[:, None] * norm)


@dataclass(frozen=True)
class Darcy(AbstractDiffusionProblem):
    """Pressure in a medium of smooth, log-normal permeability: -div(a grad u) = 1 on the unit square, u = 0 around.

    log a is a draw of the Gaussian field with covariance (-Lap + 9)^-2, cut off at 15 half waves along an axis.

    Args:
        member: number of the permeability, a whole number >= 0.
        deviation: standard deviation of log a, from 0 to 2; 1 makes a vary about a hundredfold.
    """

    member: int = 0
    deviation: float = 1.0

    name: ClassVar[str] = "darcy"
    domain: ClassVar[AbstractDomain] = _UNIT_SQUARE

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("member", self.member, least=0)
        check_range("deviation", self.deviation, least=0.0, most=2.0)

    @cached_property
    def _log(self) -> CosineSeries:
        return CosineSeries(self.deviation * random_field(self.member, 16).amplitudes)

    def permeability(self, p: Coordinates) -> Tensor:
        """a, > 0, (n,)."""
        return torch.exp(self._log(p))

    def residual(self, f: AbstractJet) -> Tensor:
        """div(a grad u) + 1, divided by a: Lap u + grad log a . grad u + 1/a."""
        slopes = self._log(f, along_x=1) * f.u_x + self._log(f, along_y=1) * f.u_y
        return f.u_xx + f.u_yy + slopes + 1.0 / self.permeability(f)

    def conditions(self) -> tuple:
        """Zero on the boundary."""
        return (Dirichlet("u", 0.0),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion a, source 1."""
        return Coefficients(self.permeability(p), 1.0)

    def reference(self) -> Computed:
        """Quadratic elements."""
        return Computed("fem", fine={"resolution": 96, "order": 2}, coarse={"resolution": 48, "order": 2}, order=3)


@dataclass(frozen=True)
class DarcyHoles(Darcy):
    """Pressure in a medium of smooth, log-normal permeability with three wells: -div(a grad u) = 1, u = 0 on all edges.

    The unit square without the discs of radius 0.12 around (0.3, 0.3), 0.1 around (0.7, 0.4), 0.14 around (0.45, 0.75).
    The permeability is that of `Darcy`; arguments as there.
    """

    name: ClassVar[str] = "darcy-holes"
    domain: ClassVar[AbstractDomain] = (
        _UNIT_SQUARE
        - Ball((0.3, 0.3), 0.12, "well-1")
        - Ball((0.7, 0.4), 0.1, "well-2")
        - Ball((0.45, 0.75), 0.14, "well-3")
    )

    def reference(self) -> Computed:
        """Quadratic elements with curved edges at the wells."""
        return Computed("fem", fine={"resolution": 64, "order": 2}, coarse={"resolution": 32, "order": 2}, order=2)


@dataclass(frozen=True)
class PiecewiseDarcy(AbstractDiffusionProblem):
    """Pressure in a medium of two materials: -div(a grad u) = 1 on the unit square, u = 0 around, a = 3 or 12.

    a is constant on each pixel of a regular grid, 12 where a Gaussian field with covariance (-Lap + 9)^-2 is positive
    at the pixel's centre. Between pixels a du/dn is continuous and grad u jumps; the residual knows the inside of
    the pixels only, so that solvers of the pointwise equations are refused.

    Args:
        member: number of the permeability, a whole number >= 0.
        pixels: along an axis, from 4 to 128; grids and meshes should have a multiple of them.

    Source: the law is that of Li et al., Fourier Neural Operator for Parametric PDEs, ICLR 2021.
    """

    member: int = 0
    pixels: int = 32

    name: ClassVar[str] = "darcy-piecewise"
    domain: ClassVar = _UNIT_SQUARE
    weak: ClassVar = "the jump of grad u between pixels"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("member", self.member, least=0)
        check_range("pixels", self.pixels, least=4, most=128)

    @cached_property
    def _table(self) -> np.ndarray:
        """Permeability of each pixel, (pixels, pixels), x first."""
        centres = (np.arange(self.pixels) + 0.5) / self.pixels
        points = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
        field = random_field(self.member, 32)(Coordinates(torch.as_tensor(points), self.axes)).numpy()
        return np.where(field >= 0.0, 12.0, 3.0).reshape(self.pixels, self.pixels)

    def permeability(self, p: Coordinates) -> Tensor:
        """a, 3 or 12, (n,)."""
        table = torch.as_tensor(self._table, dtype=p.points.dtype, device=p.points.device)
        i, j = ((c.detach() * self.pixels).long().clamp(0, self.pixels - 1) for c in (p.x, p.y))
        return table[i, j]

    def residual(self, f: AbstractJet) -> Tensor:
        """Lap u + 1/a, inside the pixels."""
        return f.u_xx + f.u_yy + 1.0 / self.permeability(f)

    def conditions(self) -> tuple:
        """Zero on the boundary."""
        return (Dirichlet("u", 0.0),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion a, source 1."""
        return Coefficients(self.permeability(p), 1.0)

    def reference(self) -> Computed:
        """Quadratic elements on the pixels, each cut in two or four along an axis; corners spoil the order."""
        fine, coarse = ({"resolution": k * self.pixels, "order": 2} for k in (4, 2))
        return Computed("fem", fine, coarse, order=1)


@dataclass(frozen=True)
class DarcyFamily(AbstractFamily):
    """Darcy flows that differ in their smooth permeability; `encode` gives its logarithm.

    Args:
        deviation: of log a, see `Darcy`.
    """

    deviation: float = 1.0

    name: ClassVar[str] = "darcy"

    def sample(self, seed: int) -> Darcy:
        """The member with this number."""
        return Darcy(seed, self.deviation)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """Log a at sensors (s, 2) -> (s, 1)."""
        return _encoded(problem, sensors)


@dataclass(frozen=True)
class DarcyHolesFamily(DarcyFamily):
    """Darcy flows around three wells that differ in their smooth permeability; `encode` gives its logarithm.

    Args:
        deviation: of log a, see `Darcy`.
    """

    name: ClassVar[str] = "darcy-holes"

    def sample(self, seed: int) -> DarcyHoles:
        """The member with this number."""
        return DarcyHoles(seed, self.deviation)


@dataclass(frozen=True)
class PiecewiseDarcyFamily(AbstractFamily):
    """Darcy flows that differ in the places of their two materials; `encode` gives the log of the permeability.

    Args:
        pixels: see `PiecewiseDarcy`.
    """

    pixels: int = 32

    name: ClassVar[str] = "darcy-piecewise"

    def sample(self, seed: int) -> PiecewiseDarcy:
        """The member with this number."""
        return PiecewiseDarcy(seed, self.pixels)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """Log a at sensors (s, 2) -> (s, 1)."""
        return _encoded(problem, sensors)


def _encoded(problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
    assert isinstance(problem, Darcy | PiecewiseDarcy), "not a member of the family"
    p = Coordinates(torch.as_tensor(sensors, dtype=torch.float64), problem.domain.axes)
    return problem.permeability(p).log().numpy()[:, None]

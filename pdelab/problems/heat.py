"""Heat equations: one mode, two scales, a long run with a reaction, a variable coefficient, many holes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import AbstractDomain, Box, Interval
from pdelab.errors import check_range
from pdelab.fields import GridField
from pdelab.pde import (
    AbstractDiffusionProblem,
    AbstractProblem,
    Coefficients,
    Computed,
    Dirichlet,
    Exact,
    Initial,
    Neumann,
)
from pdelab.shapes import Ball


@dataclass(frozen=True)
class Heat(AbstractDiffusionProblem):
    """Heat equation on [0, 1] x [0, 1]: u_t = diffusivity u_xx, u(x, 0) = sin(pi x), u = 0 at both ends.

    u = sin(pi x) exp(-diffusivity pi^2 t).

    Args:
        diffusivity: length^2/time, > 0; the usual value is 1/4.
    """

    diffusivity: float = 0.25

    name: ClassVar[str] = "heat"
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the diffusivity."""
        check_range("diffusivity", self.diffusivity, above=0.0)

    def exact(self, p: Coordinates) -> Tensor:
        """sin(pi x) exp(-diffusivity pi^2 t), (n,)."""
        return torch.sin(math.pi * p.x) * torch.exp(-self.diffusivity * math.pi**2 * p.t)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - diffusivity u_xx."""
        return f.u_t - self.diffusivity * f.u_xx

    def conditions(self) -> tuple:
        """A sine at first, zero at both ends."""
        return Initial("u", self.exact), Dirichlet("u", 0.0)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Constant diffusion."""
        return Coefficients(diffusion=self.diffusivity)

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)


@dataclass(frozen=True)
class HeatMultiscale(AbstractDiffusionProblem):
    """Heat with very unequal axes on [0, 1]^2 x [0, 5]: u_t = u_xx/(500 pi)^2 + u_yy/pi^2.

    u(x, y, 0) = sin(20 pi x) sin(pi y), u = 0 on the boundary, so that
    u = sin(20 pi x) sin(pi y) exp(-(1 + 0.04^2) t).

    Source: Hao et al., PINNacle, arXiv 2306.08827, case Heat 2d-MS.
    """

    name: ClassVar[str] = "heat-multiscale"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))
    time: ClassVar = (0.0, 5.0)

    def exact(self, p: Coordinates) -> Tensor:
        """sin(20 pi x) sin(pi y) exp(-(1 + 0.04^2) t), (n,)."""
        waves = torch.sin(20.0 * math.pi * p.x) * torch.sin(math.pi * p.y)
        return waves * torch.exp(-(1.0 + 0.04**2) * p.t)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - u_xx/(500 pi)^2 - u_yy/pi^2."""
        return f.u_t - f.u_xx / (500.0 * math.pi) ** 2 - f.u_yy / math.pi**2

    def conditions(self) -> tuple:
        """The waves at first, zero on the boundary."""
        return Initial("u", self.exact), Dirichlet("u", 0.0)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """One diffusion for each axis."""
        return Coefficients(diffusion=((500.0 * math.pi) ** -2, math.pi**-2))

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)


@dataclass(frozen=True)
class HeatLong(AbstractDiffusionProblem):
    """Heat with an oscillating reaction over a long time on [0, 1]^2: u_t = 0.001 Laplacian(u) + r.

    r = 5 sin(u^2) (1 + 2 sin(pi t/4)) sin(4 pi x) sin(2 pi y), u(x, y, 0) = sin(4 pi x) sin(3 pi y), and
    u = 0 on the boundary. The reaction turns sign within each period of 8; layers are about 0.02 wide.

    Args:
        final_time: > 0; the reference takes about 6 CPU seconds per unit of time, ten minutes for the benchmark's 100.

    Source: Hao et al., PINNacle, arXiv 2306.08827, case Heat 2d-LT (there final_time = 100).
    """

    final_time: float = 4.0

    name: ClassVar[str] = "heat-long"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        """Check the final time."""
        check_range("final_time", self.final_time, above=0.0)

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """First and last time."""
        return 0.0, self.final_time

    def reaction(self, p: Coordinates, u: Tensor) -> Tensor:
        """r, (n,)."""
        phase = 1.0 + 2.0 * torch.sin(0.25 * math.pi * p.t)
        return 5.0 * torch.sin(u**2) * phase * torch.sin(4.0 * math.pi * p.x) * torch.sin(2.0 * math.pi * p.y)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - 0.001 (u_xx + u_yy) - r."""
        return f.u_t - 0.001 * (f.u_xx + f.u_yy) - self.reaction(f, f.u)

    def conditions(self) -> tuple:
        """Waves at first, zero on the boundary."""
        start = Initial("u", lambda p: torch.sin(4.0 * math.pi * p.x) * torch.sin(3.0 * math.pi * p.y))
        return start, Dirichlet("u", 0.0)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Constant diffusion, the reaction as source."""
        return Coefficients(diffusion=0.001, source=self.reaction(p, u))

    def reference(self) -> Computed:
        """Finite differences on a quarter of the period in x, which symmetry continues; the order seen is above 4."""
        steps = math.ceil(16 * self.final_time)
        return Computed(
            "fd",
            fine={"n": (48, 192), "n_steps": steps + steps // 4, "tolerance": 1e-6},
            coarse={"n": (32, 128), "n_steps": steps, "tolerance": 1e-6},
            order=2,
            problem=HeatLongQuarter(self.final_time),
            transform=_continued,
        )


@dataclass(frozen=True)
class HeatLongQuarter(AbstractProblem):
    """`HeatLong` on [0, 1/4] x [0, 1]: odd about x = 0 and x = 1/4, like its data."""

    final_time: float = 4.0

    name: ClassVar[str] = "heat-long-quarter"
    domain: ClassVar = Box((0.0, 0.0), (0.25, 1.0))

    @property
    def time(self) -> tuple[float, float]:  # type: ignore[override]
        """First and last time."""
        return 0.0, self.final_time

    def residual(self, f: AbstractJet) -> Tensor:
        """That of `HeatLong`."""
        return HeatLong(self.final_time).residual(f)

    def conditions(self) -> tuple:
        """Those of `HeatLong`; x = 1/4 is a line of zeros."""
        return HeatLong(self.final_time).conditions()


def _continued(quarter: GridField) -> GridField:
    """Odd reflection about x = 1/4, then period 1/2."""
    x, *others = quarter.axes
    values = np.concatenate([quarter.values, -quarter.values[-2:0:-1]])
    return GridField([np.concatenate([x, 0.5 - x[-2:0:-1]]), *others], values, periods={0: 0.5})


@dataclass(frozen=True)
class HeatVariable(AbstractDiffusionProblem):
    """Heat in a random medium on [0, 1]^2 x [0, 5]: u_t - a Laplacian(u) = f, u = 0 at first and on the boundary.

    f = 200 sin(pi x) sin(5 pi y) sin(pi t), and log a is a smooth random field,

        log a = contrast sum_ij c_ij cos(i pi x) cos(j pi y),  0 <= i, j <= 4,

    with normal c_ij of standard deviation proportional to (1 + i^2 + j^2)^-1, their squares summing to 1
    on average. A one-time build of `a` is a pure function of the seed.

    Args:
        contrast: standard deviation of log a, dimensionless, >= 0; 0 gives a = 1.
        seed: of the medium.

    Source: after Hao et al., PINNacle, arXiv 2306.08827, case Heat 2d-VC, which reads `a` from a file.
    """

    contrast: float = 1.0
    seed: int = 7341

    name: ClassVar[str] = "heat-variable"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))
    time: ClassVar = (0.0, 5.0)

    def __post_init__(self) -> None:
        """Check the contrast."""
        check_range("contrast", self.contrast, least=0.0, most=2.0)

    def medium(self, p: Coordinates) -> Tensor:
        """a, length^2/time, (n,)."""
        number = np.arange(5)
        decay = 1.0 / (1.0 + number[:, None] ** 2 + number**2)
        draws = np.random.default_rng(self.seed).standard_normal((5, 5)) * decay / np.linalg.norm(decay)
        weights = torch.as_tensor(draws, dtype=p.points.dtype, device=p.points.device)
        modes = math.pi * torch.arange(5, dtype=p.points.dtype, device=p.points.device)
        along_x, along_y = torch.cos(p.x[:, None] * modes), torch.cos(p.y[:, None] * modes)
        return torch.exp(self.contrast * ((along_x @ weights) * along_y).sum(dim=1))

    def source(self, p: Coordinates) -> Tensor:
        """f, (n,)."""
        return 200.0 * torch.sin(math.pi * p.x) * torch.sin(5.0 * math.pi * p.y) * torch.sin(math.pi * p.t)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - a (u_xx + u_yy) - f."""
        return f.u_t - self.medium(f) * (f.u_xx + f.u_yy) - self.source(f)

    def conditions(self) -> tuple:
        """Zero at first and on the boundary."""
        return Initial("u", 0.0), Dirichlet("u", 0.0)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """The equation divided by a: mass 1/a, diffusion 1, source f/a."""
        medium = self.medium(p)
        return Coefficients(mass=1.0 / medium, source=self.source(p) / medium)

    def reference(self) -> Computed:
        """Finite differences on two grids."""
        return Computed("fd", fine={"n": 64, "n_steps": 120}, coarse={"n": 48, "n_steps": 90}, order=1)


_LARGE = ((0.0, 0.0), (0.0, -6.0), (0.0, 6.0), *((x, y) for x in (-4.0, 4.0) for y in (-9.0, -3.0, 3.0, 9.0)))
_SMALL = tuple((x, y) for x in (-3.2, 3.2) for y in (-6.0, 0.0, 6.0))


def _plate() -> AbstractDomain:
    plate: AbstractDomain = Box((-8.0, -12.0), (8.0, 12.0))
    for size, radius, centres in (("large", 1.0, _LARGE), ("small", 0.4, _SMALL)):
        for i, centre in enumerate(centres, start=1):
            plate = plate - Ball(centre, radius, f"{size}-{i}")
    return plate


@dataclass(frozen=True)
class HeatComplex(AbstractDiffusionProblem):
    """Heat in a plate with 17 round holes that are hotter than the plate: u_t = u_xx + u_yy, u = 0 at first.

    [-8, 8] x [-12, 12] without 11 discs of radius 1 and 6 of radius 0.4, 0 < t < 3. Heat is exchanged with the
    surroundings, du/dn = 5 - u at the large holes, 1 - u at the small ones, 0.1 - u outside.

    Source: Hao et al., PINNacle, NeurIPS 2024, case Heat2d-CG.
    """

    name: ClassVar[str] = "heat-complex"
    domain: ClassVar = _plate()
    time: ClassVar = (0.0, 3.0)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_t - (u_xx + u_yy)."""
        return f.u_t - (f.u_xx + f.u_yy)

    def conditions(self) -> tuple:
        """Cold at first, Robin conditions everywhere."""
        warmth = {"large": 5.0, "small": 1.0}
        exchange = [
            Neumann("u", warmth.get(part.partition("-")[0], 0.1), part, transfer=1.0) for part in self.domain.parts
        ]
        return Initial("u", 0.0), *exchange

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1."""
        return Coefficients()

    def reference(self) -> Computed:
        """Quadratic elements with curved edges; the sudden start spoils the order in time."""
        fine = {"resolution": 48, "order": 2, "n_steps": 320}
        return Computed("fem", fine, coarse={"resolution": 32, "order": 2, "n_steps": 160}, order=1)

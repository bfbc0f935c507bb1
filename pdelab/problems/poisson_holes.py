"""Elliptic equations on domains that no grid fits: holes, a re-entrant corner, cavities in a cube."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.csg import Difference
from pdelab.domain import AbstractDomain, Box
from pdelab.pde import AbstractDiffusionProblem, Coefficients, Computed, Dirichlet, Exact, Neumann
from pdelab.shapes import Ball, Polygon


def with_holes(box: Box, holes: tuple[tuple[tuple[float, ...], float], ...]) -> Difference:
    """A box without the balls (centre, radius); their boundaries are the parts hole-1, hole-2, ..."""
    domain: AbstractDomain = box
    for i, (centre, radius) in enumerate(holes, start=1):
        domain = domain - Ball(centre, radius, f"hole-{i}")
    return domain  # type: ignore[return-value]


@dataclass(frozen=True)
class PoissonHoles(AbstractDiffusionProblem):
    """Laplace's equation on a square with four round holes: u_xx + u_yy = 0, u = 1 outside, 0 on the holes.

    [-1/2, 1/2]^2 without discs of radius 0.1 around (+-0.3, +-0.3).

    Source: Hao et al., PINNacle, NeurIPS 2024, case Poisson2d-C.
    """

    name: ClassVar[str] = "poisson-holes"
    domain: ClassVar = with_holes(
        Box((-0.5, -0.5), (0.5, 0.5)), tuple(((0.3 * i, 0.3 * j), 0.1) for i in (-1, 1) for j in (-1, 1))
    )

    def residual(self, f: AbstractJet) -> Tensor:
        """u_xx + u_yy."""
        return f.u_xx + f.u_yy

    def conditions(self) -> tuple:
        """1 on the square, 0 on the holes."""
        return tuple(Dirichlet("u", 0.0 if part.startswith("hole") else 1.0, part) for part in self.domain.parts)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1."""
        return Coefficients()

    def reference(self) -> Computed:
        """Quadratic elements with curved edges."""
        return Computed("fem", fine={"resolution": 80, "order": 2}, coarse={"resolution": 40, "order": 2}, order=3)


@dataclass(frozen=True)
class PoissonBoltzmann(AbstractDiffusionProblem):
    """Linear Poisson-Boltzmann equation on a square with four round holes, oscillating source.

        -(u_xx + u_yy) + 64 u = 10 (17 + x^2 + y^2) sin(pi x) sin(4 pi y)

    on [-1, 1]^2 without discs around (0.5, 0.5), (0.4, -0.4), (-0.2, -0.7), (-0.6, 0.5) of radius 0.2, 0.4, 0.1, 0.3;
    u = 0.2 outside, 1 on the holes. Boundary layers are 1/8 wide.

    Source: Hao et al., PINNacle, NeurIPS 2024, case Poisson2d-CG.
    """

    name: ClassVar[str] = "poisson-boltzmann"
    domain: ClassVar = with_holes(
        Box((-1.0, -1.0), (1.0, 1.0)),
        (((0.5, 0.5), 0.2), ((0.4, -0.4), 0.4), ((-0.2, -0.7), 0.1), ((-0.6, 0.5), 0.3)),
    )

    def source(self, p: Coordinates) -> Tensor:
        """Right-hand side, (n,)."""
        waves = torch.sin(math.pi * p.x) * torch.sin(4.0 * math.pi * p.y)
        return 10.0 * (17.0 + p.x**2 + p.y**2) * waves

    def residual(self, f: AbstractJet) -> Tensor:
        """u_xx + u_yy - 64 u + source."""
        return f.u_xx + f.u_yy - 64.0 * f.u + self.source(f)

    def conditions(self) -> tuple:
        """0.2 on the square, 1 on the holes."""
        return tuple(Dirichlet("u", 1.0 if part.startswith("hole") else 0.2, part) for part in self.domain.parts)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1, a source that falls with u."""
        return Coefficients(source=self.source(p) - 64.0 * u)

    def reference(self) -> Computed:
        """Quadratic elements with curved edges."""
        return Computed("fem", fine={"resolution": 96, "order": 2}, coarse={"resolution": 48, "order": 2}, order=3)


@dataclass(frozen=True)
class PoissonBalls(AbstractDiffusionProblem):
    """Reaction and diffusion in a unit cube with four ball-shaped cavities, no flux anywhere.

        -Lap u + k^2 u = 20 exp(sin(pi x) + sin(10 pi y) + sin(5 pi z)) (r^2 - 1)/(r^2 + 1)
                         + 100 sin(pi x) sin(10 pi y) sin(5 pi z),     r^2 = x^2 + y^2 + z^2

    k = 8 for z < 1/2, 10 above; cavities around (0.4, 0.3, 0.6), (0.6, 0.7, 0.6), (0.2, 0.8, 0.7), (0.6, 0.2, 0.3) of
    radius 0.2, 0.2, 0.1, 0.1; du/dn = 0.

    Source: Hao et al., PINNacle, NeurIPS 2024, case Poisson3d-CG.
    """

    name: ClassVar[str] = "poisson-3d"
    domain: ClassVar = with_holes(
        Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        (((0.4, 0.3, 0.6), 0.2), ((0.6, 0.7, 0.6), 0.2), ((0.2, 0.8, 0.7), 0.1), ((0.6, 0.2, 0.3), 0.1)),
    )

    def source(self, p: Coordinates) -> Tensor:
        """Right-hand side, (n,)."""
        waves = [torch.sin(m * math.pi * x) for m, x in ((1, p.x), (10, p.y), (5, p.z))]
        square = p.x**2 + p.y**2 + p.z**2
        smooth = torch.exp(waves[0] + waves[1] + waves[2]) * (square - 1.0) / (square + 1.0)
        return 20.0 * smooth + 100.0 * waves[0] * waves[1] * waves[2]

    def reaction(self, p: Coordinates) -> Tensor:
        """k^2, 1/length^2, (n,)."""
        return torch.where(p.z < 0.5, 64.0, 100.0).to(p.points.dtype)

    def residual(self, f: AbstractJet) -> Tensor:
        """Lap u - k^2 u + source."""
        return f.laplacian("u") - self.reaction(f) * f.u + self.source(f)

    def conditions(self) -> tuple:
        """No flux."""
        return (Neumann("u", 0.0),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1, a source that falls with u."""
        return Coefficients(source=self.source(p) - self.reaction(p) * u)

    def reference(self) -> Computed:
        """Quadratic elements; the mesh does not respect z = 1/2, which u feels in its second derivative only."""
        return Computed("fem", fine={"resolution": 32, "order": 2}, coarse={"resolution": 16, "order": 2}, order=3)


@dataclass(frozen=True)
class PoissonLShape(AbstractDiffusionProblem):
    """Laplace's equation on the L-shaped domain with the singular solution of its re-entrant corner.

    u = r^(2/3) sin(2 angle/3) on (-1, 1)^2 without the quadrant x > 0 > y, the angle measured from the positive x-axis;
    u_xx + u_yy = 0 and u is given on the boundary. The gradient is infinite at the origin, so that the error of
    finite elements on uniform meshes falls as h^(4/3) only.
    """

    name: ClassVar[str] = "poisson-lshape"
    domain: ClassVar = Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (0.0, -1.0)))

    def exact(self, p: Coordinates) -> Tensor:
        """r^(2/3) sin(2 angle/3), (n,)."""
        # Seen from the bisector of the domain the jump of the angle lies in the quadrant that is left out.
        along, across = (p.y - p.x) / math.sqrt(2.0), (-p.x - p.y) / math.sqrt(2.0)
        angle = torch.atan2(across, along) + 0.75 * math.pi
        return (p.x**2 + p.y**2) ** (1.0 / 3.0) * torch.sin(2.0 / 3.0 * angle)

    def residual(self, f: AbstractJet) -> Tensor:
        """u_xx + u_yy."""
        return f.u_xx + f.u_yy

    def conditions(self) -> tuple:
        """The solution on the boundary."""
        return (Dirichlet("u", self.exact),)

    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """Diffusion 1."""
        return Coefficients()

    def reference(self) -> Exact:
        """The closed form."""
        return Exact(self.exact)

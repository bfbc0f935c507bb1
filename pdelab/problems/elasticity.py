"""Representative volume elements of composites: the microscopic problem of computational homogenisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates
from pdelab.domain import AbstractDomain, Box
from pdelab.errors import InputError, SettingsError, check_range
from pdelab.pde import AbstractElasticityProblem, AbstractFamily, AbstractProblem, Computed
from pdelab.shapes import Ball

MATRIX_BULK = 4.78e3  # N/mm^2
MATRIX_STRESS, MATRIX_STRAIN = 50.0, 0.06  # N/mm^2, dimensionless: shear stress saturates at the first
INCLUSION_BULK, INCLUSION_SHEAR = 4.3452381e4, 2.99180328e4  # N/mm^2
LARGEST_STRAIN = 0.04

_DEVIATOR = torch.tensor([[2 / 3, -1 / 3, 0.0], [-1 / 3, 2 / 3, 0.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
_TRACE = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)


@dataclass(frozen=True)
class NonlinearElasticRVE(AbstractElasticityProblem):
    """A stiff round inclusion in a matrix of saturating shear under a mean strain: div stress = 0, periodic.

        matrix:     stress = K tr(e) I + a/(b + |dev e|) dev e,   K = 4780, a = 50 N/mm^2, b = 0.06
        inclusion:  stress = K tr(e) I + 2 G dev e,               K = 43452.381, G = 29918.0328 N/mm^2

    in the cell [-1/2, 1/2]^2 (any unit of length; displacements have the same), plane strain; |dev e| is the norm of
    the deviator in space, dev e_zz = -tr(e)/3 included. Both laws are gradients of a convex energy density,
    K tr^2/2 + a (n - b ln(1 + n/b)) with n = |dev e|, and K tr^2/2 + G n^2, so that there is one solution up to a
    translation. Unknown is the periodic fluctuation (ux, uy) of the displacement E x + (ux, uy).

    Across the edge of the inclusion the traction stress . n is continuous and the strain jumps. With `transition` 0
    the residual knows the inside of the two materials only, where no fluctuation at all satisfies it: solvers of the
    pointwise equations are refused. Solve the weak form (`fem`), or give the edge a thickness; then the residual is
    the whole equation.

    Args:
        strain_xx: mean strain e_xx, from -0.04 to 0.04, as the next two.
        strain_yy: mean strain e_yy.
        shear_xy: mean shear gamma_xy = 2 e_xy.
        radius: of the inclusion, from 0 (none) to 0.45.
        transition: thickness of the layer in which one material goes over into the other, 0 (a sharp edge) or more;
            it must fit between the middle and the sides of the cell.

    Source: the laws are those of Eivazi et al., EquiNO, arXiv 2504.07976, with the deviator taken in space.
    """

    strain_xx: float = 0.02
    strain_yy: float = -0.01
    shear_xy: float = 0.03
    radius: float = 0.25
    transition: float = 0.0

    name: ClassVar[str] = "rve"
    domain: ClassVar = Box((-0.5, -0.5), (0.5, 0.5))

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in zip(("strain_xx", "strain_yy", "shear_xy"), self.macro_strain, strict=True):
            check_range(name, value, least=-LARGEST_STRAIN, most=LARGEST_STRAIN)
        check_range("radius", self.radius, least=0.0, most=0.45)
        check_range("transition", self.transition, least=0.0)
        room = 2.0 * min(self.radius, 0.5 - self.radius)
        if self.transition > room:
            raise SettingsError(
                f"transition: a layer around radius {self.radius} may be {room:.3g} thick, got {self.transition}"
            )

    @property
    def macro_strain(self) -> tuple[float, float, float]:
        """The mean strain, (3,)."""
        return self.strain_xx, self.strain_yy, self.shear_xy

    @property
    def inclusions(self) -> tuple[AbstractDomain, ...]:
        """The disc, if its edge is sharp."""
        return (Ball((0.0, 0.0), self.radius),) if self.radius and not self.transition else ()

    def share(self, p: Coordinates) -> Tensor:
        """1 in the disc, 0 outside; in the layer 6 s^5 - 15 s^4 + 10 s^3 with s from 0 to 1."""
        return self._blend(p)[0]

    def energy(self, strain: Tensor, share: Tensor) -> Tensor:
        """Energy density, the potential of the stress, N/mm^2, (n,)."""
        trace, _, n = _split(strain)
        matrix = 0.5 * MATRIX_BULK * trace**2 + MATRIX_STRESS * (n - MATRIX_STRAIN * torch.log1p(n / MATRIX_STRAIN))
        inclusion = 0.5 * INCLUSION_BULK * trace**2 + INCLUSION_SHEAR * n**2
        return (1.0 - share) * matrix + share * inclusion

    def stress(self, strain: Tensor, share: Tensor) -> Tensor:
        """N/mm^2, (n, 3)."""
        trace, deviator, n = _split(strain)
        bulk = (1.0 - share) * MATRIX_BULK + share * INCLUSION_BULK
        shear = (1.0 - share) * MATRIX_STRESS / (MATRIX_STRAIN + n) + share * 2.0 * INCLUSION_SHEAR
        return (bulk * trace)[:, None] * _TRACE.to(strain) + shear[:, None] * deviator

    def tangent(self, strain: Tensor, share: Tensor) -> Tensor:
        """K (1 1^T) + g P + g'/n d d^T with g the factor of the deviator d, N/mm^2, (n, 3, 3)."""
        _, deviator, n = _split(strain)
        bulk = (1.0 - share) * MATRIX_BULK + share * INCLUSION_BULK
        shear = (1.0 - share) * MATRIX_STRESS / (MATRIX_STRAIN + n) + share * 2.0 * INCLUSION_SHEAR
        slope = -(1.0 - share) * MATRIX_STRESS / (MATRIX_STRAIN + n) ** 2 / n
        one = _TRACE.to(strain)
        isotropic = bulk[:, None, None] * (one[:, None] * one) + shear[:, None, None] * _DEVIATOR.to(strain)
        return isotropic + slope[:, None, None] * deviator[:, :, None] * deviator[:, None, :]

    def residual(self, f: AbstractJet) -> tuple[Tensor, ...]:
        """The divergence of the stress: tangent times the gradient of the strain, and what the layer adds, N/mm^3."""
        strain = self.strain(f)
        share, share_x, share_y = self._blend(f)
        tangent = self.tangent(strain, share)
        strain_x = torch.stack([f.ux_xx, f.uy_xy, f.ux_xy + f.uy_xx], dim=1)
        strain_y = torch.stack([f.ux_xy, f.uy_yy, f.ux_yy + f.uy_xy], dim=1)
        jump = self.stress(strain, torch.ones_like(share)) - self.stress(strain, torch.zeros_like(share))
        stress_x = (tangent @ strain_x[:, :, None])[:, :, 0] + share_x[:, None] * jump
        stress_y = (tangent @ strain_y[:, :, None])[:, :, 0] + share_y[:, None] * jump
        return stress_x[:, 0] + stress_y[:, 2], stress_x[:, 2] + stress_y[:, 1]

    def reference(self) -> Computed:
        """Quadratic elements whose edges follow the inclusion, or smaller ones where there is no edge to follow."""
        fine, coarse = ({"resolution": n, "order": 2} for n in ((32, 16) if self.inclusions else (64, 32)))
        return Computed("fem", fine, coarse, order=3)

    def _blend(self, p: Coordinates) -> tuple[Tensor, Tensor, Tensor]:
        """The share of the inclusion and its two derivatives, (n,) each."""
        x, y = p.x, p.y
        r = (x**2 + y**2).clamp(min=1e-30).sqrt()
        if not self.transition:
            return (r < self.radius).to(x.dtype), torch.zeros_like(x), torch.zeros_like(x)
        s = (0.5 + (self.radius - r) / self.transition).clamp(0.0, 1.0)
        slope = -30.0 * (s * (1.0 - s)) ** 2 / self.transition / r
        return s**3 * (10.0 - 15.0 * s + 6.0 * s**2), slope * x, slope * y


@dataclass(frozen=True)
class RVEFamily(AbstractFamily):
    """Nonlinear elastic cells with a random mean strain, each component uniform in [-largest, largest].

    Args:
        radius: see `NonlinearElasticRVE`.
        largest: dimensionless, above 0, at most 0.04.
    """

    radius: float = 0.25
    largest: float = LARGEST_STRAIN

    name: ClassVar[str] = "rve"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("radius", self.radius, least=0.0, most=0.45)
        check_range("largest", self.largest, above=0.0, most=LARGEST_STRAIN)

    def sample(self, seed: int) -> NonlinearElasticRVE:
        """The cell of this number."""
        xx, yy, shear = np.random.default_rng([seed, 4409]).uniform(-self.largest, self.largest, 3).tolist()
        return NonlinearElasticRVE(xx, yy, shear, self.radius)

    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """The mean strain at every sensor, (s, d) -> (s, 3)."""
        if not isinstance(problem, NonlinearElasticRVE):
            raise InputError(f"problem: expected a member of {self.name!r}, got {problem.name!r}")
        return np.tile(problem.macro_strain, (len(sensors), 1))


def _split(strain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Trace (n,), deviator (xx, yy, xy) (n, 3) and its norm in space (n,), away from 0 for the sake of its slope."""
    xx, yy, shear = strain.unbind(1)
    trace = xx + yy
    deviator = torch.stack([xx - trace / 3.0, yy - trace / 3.0, 0.5 * shear], dim=1)
    square = deviator[:, 0] ** 2 + deviator[:, 1] ** 2 + trace**2 / 9.0 + 2.0 * deviator[:, 2] ** 2
    return trace, deviator, square.clamp(min=1e-30).sqrt()

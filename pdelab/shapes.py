"""Primitive domains besides the box: ball, ellipse, polygon. `pdelab.csg` combines them.

plate = Box((0.0, 0.0), (1.0, 1.0)) - Disk((0.5, 0.5), 0.2, name="hole")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pdelab.domain import AbstractDomain, BoundarySample, Seed, check_count, check_part, like, safe_sqrt, unit_sample
from pdelab.errors import SettingsError, check_range
from pdelab.polygon import Polygon

if TYPE_CHECKING:
    from pdelab.csg import Difference

__all__ = ["Annulus", "Ball", "Disk", "Ellipse", "Polygon"]


@dataclass(frozen=True)
class Ball(AbstractDomain):
    """The open ball |x - centre| < radius, in any dimension; a disk in two.

    Its boundary is one part: `name`, or if that is not given "circle" in two dimensions, else "sphere".
    """

    centre: tuple[float, ...]
    radius: float
    name: str | None = None

    def __post_init__(self) -> None:
        """Check centre and radius."""
        _check_finite("ball: centre", self.centre)
        _check_length("ball: radius", self.radius)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """See `AbstractDomain.bounds`."""
        centre = np.array(self.centre, dtype=float)
        return centre - self.radius, centre + self.radius

    @property
    def parts(self) -> tuple[str, ...]:
        """See `AbstractDomain.parts`."""
        return (self.name or ("circle" if len(self.centre) == 2 else "sphere"),)

    @property
    def measure(self) -> float:
        """pi^(d/2) / Gamma(d/2 + 1) radius^d."""
        d = len(self.centre)
        return math.pi ** (d / 2) / math.gamma(d / 2 + 1) * self.radius**d

    def boundary_measure(self, part: str | None = None) -> float:
        """The derivative of the measure with respect to the radius."""
        check_part(self, part)
        return self.measure * len(self.centre) / self.radius

    def signed_distance(self, x: Tensor) -> Tensor:
        """Exact distance; its derivatives at the centre, where it has none, are 0."""
        return safe_sqrt((x - like(self.centre, x)).square().sum(dim=1)) - self.radius

    def part_distance(self, x: Tensor, part: str) -> Tensor:
        """See `AbstractDomain.part_distance`."""
        check_part(self, part)
        return self.signed_distance(x).abs()

    def sample_boundary(self, n: int, seed: Seed, part: str | None = None, method: str = "sobol") -> BoundarySample:
        """See `AbstractDomain.sample_boundary`."""
        check_part(self, part)
        normals = _directions(n, len(self.centre), seed, method)
        return _one_part(np.array(self.centre) + self.radius * normals, normals, self.parts[0])


def Disk(centre: tuple[float, float], radius: float, name: str = "circle") -> Ball:  # noqa: N802 - a domain
    """The disk |x - centre| < radius, a ball in two dimensions."""
    if len(centre) != 2:
        raise SettingsError(f"disk: centre: expected 2 coordinates, got {centre}; a Ball takes any number")
    return Ball(centre, radius, name)


def Annulus(centre: tuple[float, ...], inner: float, outer: float) -> Difference:  # noqa: N802 - a domain
    """The ring (in three dimensions the shell) inner < |x - centre| < outer; its parts are "outer" and "inner"."""
    if not 0 < inner < outer:
        raise SettingsError(f"annulus: expected radii 0 < inner < outer, got {inner} and {outer}")
    return Ball(centre, outer, "outer") - Ball(centre, inner, "inner")


@dataclass(frozen=True)
class Ellipse(AbstractDomain):
    """The open ellipse ((x - cx) / rx)^2 + ((y - cy) / ry)^2 < 1, its axes along x and y.

    Its boundary is one part, `name`.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    name: str = "ellipse"

    def __post_init__(self) -> None:
        """Check centre and radii."""
        if len(self.centre) != 2 or len(self.radii) != 2:
            raise SettingsError(f"ellipse: two coordinates and two radii needed, got {self.centre} and {self.radii}")
        _check_finite("ellipse: centre", self.centre)
        for radius in self.radii:
            _check_length("ellipse: radii", radius)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """See `AbstractDomain.bounds`."""
        centre, radii = np.array(self.centre, dtype=float), np.array(self.radii, dtype=float)
        return centre - radii, centre + radii

    @property
    def parts(self) -> tuple[str, ...]:
        """See `AbstractDomain.parts`."""
        return (self.name,)

    @property
    def measure(self) -> float:
        """pi rx ry."""
        return math.pi * self.radii[0] * self.radii[1]

    def boundary_measure(self, part: str | None = None) -> float:
        """4 a E(m), the complete elliptic integral at m = 1 - (b/a)^2."""
        from scipy.special import ellipe

        check_part(self, part)
        a, b, _ = self._major
        return 4 * a * float(ellipe(1 - (b / a) ** 2))

    def signed_distance(self, x: Tensor) -> Tensor:
        """Distance to the closest point of the ellipse, exact to about 1e-12 of the smaller radius.

        With semi-axes a >= b, a^2 - b^2 = c and squared coordinates P, Q along them, the closest point is
        that of the largest root s > 0 of

            a^2 P / (s + c)^2 + b^2 Q / s^2 = 1,

        and the distance is (s - b^2) sqrt(P / (s + c)^2 + Q / s^2): smooth in P and Q, no case distinction.

        Source: Eberly, Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid, 2013, for the
        equation and the start; the derivatives are ours: two more Newton steps are recorded, which make the
        derivatives of s right up to the third.
        """
        a, b, long = self._major
        c = a**2 - b**2
        squares = (x - like(self.centre, x)).square()
        # The shift keeps s off 0 on the segment between the centres of curvature, where the distance has a kink.
        P, Q = squares[:, long], squares[:, 1 - long] + (1e-12 * b) ** 2
        with torch.no_grad():
            s = torch.maximum(b * Q.sqrt(), a * P.sqrt() - c)
            # From the left of the root of a convex decreasing function Newton's steps only grow.
            for _ in range(_NEWTON_STEPS):
                s = _newton_step(s, a**2 * P, b**2 * Q, c)
        for _ in range(2):
            s = _newton_step(s, a**2 * P, b**2 * Q, c)
        return (s - b**2) * (P / (s + c).square() + Q / s.square()).sqrt()

    def part_distance(self, x: Tensor, part: str) -> Tensor:
        """See `AbstractDomain.part_distance`."""
        check_part(self, part)
        return self.signed_distance(x).abs()

    def sample_boundary(self, n: int, seed: Seed, part: str | None = None, method: str = "sobol") -> BoundarySample:
        """Uniform in arc length, see `AbstractDomain.sample_boundary`."""
        from scipy.special import ellipeinc

        check_part(self, part)
        a, b, long = self._major
        m = 1 - (b / a) ** 2
        table = np.linspace(0.0, 2 * math.pi, 4097)
        arc = unit_sample(n, 1, seed, method)[:, 0] * self.boundary_measure() / a
        angle = np.interp(arc, ellipeinc(table, m), table)
        for _ in range(2):
            angle -= (ellipeinc(angle, m) - arc) / np.sqrt(1 - m * np.sin(angle) ** 2)
        unit = np.empty((len(angle), 2))
        unit[:, long], unit[:, 1 - long] = np.sin(angle), np.cos(angle)
        normals = unit / np.array(self.radii)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return _one_part(np.array(self.centre) + unit * np.array(self.radii), normals, self.name)

    @property
    def _major(self) -> tuple[float, float, int]:
        """Larger radius, smaller radius, axis of the larger."""
        long = int(self.radii[1] > self.radii[0])
        return self.radii[long], self.radii[1 - long], long


_NEWTON_STEPS = 20
"""From the start above, ellipses with radii up to 1:1000 need at most about 16."""


def _newton_step(s: Tensor, A: Tensor, B: Tensor, c: float) -> Tensor:
    """s of A / (s + c)^2 + B / s^2 = 1, one step nearer."""
    far, near = A / (s + c).square(), B / s.square()
    return s + (far + near - 1) / (2 * (far / (s + c) + near / s))


def _directions(n: int, d: int, seed: Seed, method: str) -> np.ndarray:
    """Uniform unit vectors (n, d), by area-preserving maps up to three dimensions, else by normal deviates."""
    from scipy.special import ndtri

    if d == 1:
        check_count(n)
        return 1.0 - 2.0 * (np.arange(n) % 2)[:, None]
    cube = unit_sample(n, d if d > 3 else d - 1, seed, method)
    angle = 2 * math.pi * cube[:, 0]
    if d == 2:
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if d == 3:
        height = 2 * cube[:, 1] - 1
        radius = np.sqrt(1 - height**2)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    deviates = ndtri(cube.clip(1e-15, 1 - 1e-15))
    deviates[~deviates.any(axis=1), 0] = 1.0  # the middle of a grid has no direction
    return deviates / np.linalg.norm(deviates, axis=1, keepdims=True)


def _one_part(points: np.ndarray, normals: np.ndarray, part: str) -> BoundarySample:
    return BoundarySample(points, normals, np.full(len(points), part))


def _check_finite(name: str, values: Sequence[float]) -> None:
    if not len(values) or not all(math.isfinite(v) for v in values):
        raise SettingsError(f"{name}: expected finite numbers, got {values}")


def _check_length(name: str, value: float) -> None:
    check_range(name, value, above=0)
    _check_finite(name, (value,))

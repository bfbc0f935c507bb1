"""Domains in space: what every domain promises, and the box. Time is kept apart, in the problem.

Points are float64 arrays of shape (n, d). Distances are signed, negative inside, and differentiable
(torch), so that hard constraints can use them. Sampling is a pure function of a seed.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pdelab.errors import InputError, SettingsError, UnknownName, check_choice

if TYPE_CHECKING:
    from pdelab import csg

Seed = int | Sequence[int]

SAMPLERS = ("sobol", "lhs", "uniform", "grid")


@dataclass(frozen=True, eq=False)
class BoundarySample:
    """Points on the boundary (n, d), outward unit normals (n, d), and the name of each point's part (n,)."""

    points: np.ndarray
    normals: np.ndarray
    parts: np.ndarray


class AbstractDomain(abc.ABC):
    """A bounded region of space with named boundary parts."""

    @property
    @abc.abstractmethod
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of a box that holds the domain, (d,) each."""

    @property
    @abc.abstractmethod
    def parts(self) -> tuple[str, ...]:
        """Names of the boundary parts."""

    @property
    @abc.abstractmethod
    def measure(self) -> float:
        """Length, area or volume."""

    @abc.abstractmethod
    def boundary_measure(self, part: str | None = None) -> float:
        """Measure of a boundary part (None: all of it); points count 1 in one dimension."""

    @abc.abstractmethod
    def signed_distance(self, x: Tensor) -> Tensor:
        """(n, d) -> (n,), negative inside; differentiable almost everywhere.

        Exact for primitives; for unions and differences a bound of the right sign.
        """

    @abc.abstractmethod
    def part_distance(self, x: Tensor, part: str) -> Tensor:
        """Distance to one boundary part, (n, d) -> (n,), at least 0, differentiable off the part."""

    @abc.abstractmethod
    def sample_boundary(self, n: int, seed: Seed, part: str | None = None, method: str = "sobol") -> BoundarySample:
        """About uniform points on a boundary part (None: all of it); at least n, at least one on each part."""

    def __or__(self, other: AbstractDomain) -> csg.Union:
        """The points of either domain."""
        from pdelab import csg

        return csg.Union(self, other)

    def __and__(self, other: AbstractDomain) -> csg.Intersection:
        """The points of both domains."""
        from pdelab import csg

        return csg.Intersection(self, other)

    def __sub__(self, other: AbstractDomain) -> csg.Difference:
        """The points of this domain that are not in the other: a hole."""
        from pdelab import csg

        return csg.Difference(self, other)

    @property
    def dimension(self) -> int:
        """Number of space coordinates."""
        return len(self.bounds[0])

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the coordinates: x, y, z, or x1 ... xd beyond three."""
        d = self.dimension
        return ("x", "y", "z")[:d] if d <= 3 else tuple(f"x{i + 1}" for i in range(d))

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,) bool; True in the open domain."""
        return (self.signed_distance(torch.as_tensor(points, dtype=torch.float64)) < 0).numpy()

    def sample(self, n: int, seed: Seed, method: str = "sobol") -> np.ndarray:
        """n points in the open domain, (n, d): unit-cube samples in the bounds, those outside rejected.

        Raises:
            InputError: the domain fills less than 1/1000 of its bounds, or n < 1.
        """
        return rejection_sample(n, *self.bounds, self.measure, self.inside, seed, method)


@dataclass(frozen=True)
class Box(AbstractDomain):
    """The open box lower < x < upper, in any dimension; an interval in one.

    Boundary parts: left, right (x), bottom, top (y), front, back (z); x4-min, x4-max, ... beyond.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the corners."""
        if len(self.lower) != len(self.upper) or not self.lower:
            raise SettingsError(f"box: corners of equal length needed, got {self.lower} and {self.upper}")
        if not all(
            math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(self.lower, self.upper, strict=True)
        ):
            raise SettingsError(f"box: finite lower < upper needed on each axis, got {self.lower} and {self.upper}")

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """See `AbstractDomain.bounds`."""
        return np.array(self.lower, dtype=float), np.array(self.upper, dtype=float)

    @property
    def parts(self) -> tuple[str, ...]:
        """See `AbstractDomain.parts`; two per axis, lower end first."""
        names = ["left", "right", "bottom", "top", "front", "back"]
        if len(self.lower) > 3:
            names = [f"{a}-{end}" for a in self.axes for end in ("min", "max")]
        return tuple(names[: 2 * len(self.lower)])

    @property
    def measure(self) -> float:
        """See `AbstractDomain.measure`."""
        return float(np.prod(self._sides))

    def boundary_measure(self, part: str | None = None) -> float:
        """See `AbstractDomain.boundary_measure`."""
        each = [self.measure / side for side in self._sides for _ in range(2)]
        return float(sum(each)) if part is None else float(each[self._index(part)])

    def signed_distance(self, x: Tensor) -> Tensor:
        """Exact distance, see `AbstractDomain.signed_distance`."""
        lower, upper = (like(b, x) for b in self.bounds)
        q = torch.maximum(lower - x, x - upper)
        outside = q.clamp(min=0).square().sum(dim=1)
        return torch.where(outside > 0, safe_sqrt(outside), q.amax(dim=1))

    def part_distance(self, x: Tensor, part: str) -> Tensor:
        """Exact distance, in the box that to the plane of the side; see `AbstractDomain.part_distance`."""
        axis, end = divmod(self._index(part), 2)
        across = x[:, axis] - (self.upper if end else self.lower)[axis]
        lower, upper = (like(b, x) for b in self.bounds)
        beyond = torch.maximum(lower - x, x - upper).clamp(min=0)
        beside = beyond.square().sum(dim=1) - beyond[:, axis].square()
        return torch.where(beside > 0, safe_sqrt(beside + across.square()), across.abs())

    def sample_boundary(self, n: int, seed: Seed, part: str | None = None, method: str = "sobol") -> BoundarySample:
        """See `AbstractDomain.sample_boundary`; sides get points by their measure, at least one each."""
        parts = self.parts if part is None else (self.parts[self._index(part)],)
        counts = split_count(n, [self.boundary_measure(p) for p in parts])
        d = self.dimension
        lower, upper = self.bounds
        points, normals = [], []
        for name, count in zip(parts, counts, strict=True):
            axis, end = divmod(self._index(name), 2)
            other = [i for i in range(d) if i != axis]
            cube = unit_sample(count, d - 1, stream(seed, self._index(name)), method) if other else np.empty((count, 0))
            p = np.empty((len(cube), d))
            p[:, axis] = (upper if end else lower)[axis]
            p[:, other] = lower[other] + cube * (upper - lower)[other]
            normal = np.zeros((len(cube), d))
            normal[:, axis] = 1.0 if end else -1.0
            points.append(p)
            normals.append(normal)
        names = np.repeat(np.array(parts), [len(p) for p in points])
        return BoundarySample(np.concatenate(points), np.concatenate(normals), names)

    @property
    def _sides(self) -> list[float]:
        return [b - a for a, b in zip(self.lower, self.upper, strict=True)]

    def _index(self, part: str) -> int:
        check_part(self, part)
        return self.parts.index(part)


def Interval(lower: float, upper: float) -> Box:  # noqa: N802 - a domain, named like one
    """The interval lower < x < upper, a box in one dimension."""
    return Box((lower,), (upper,))


def unit_sample(n: int, dimension: int, seed: Seed, method: str) -> np.ndarray:
    """n points in the open unit cube, (n, dimension); `method` is one of `SAMPLERS`.

    sobol: scrambled Sobol sequence; lhs: Latin hypercube; uniform: independent; grid: cell centres of
    the coarsest regular grid with at least n cells, all of them.

    Raises:
        InputError: n < 1.
        SettingsError: no such method.
    """
    from scipy.stats import qmc

    check_choice("sampler", method, SAMPLERS)
    check_count(n)
    rng = np.random.default_rng(stream(seed))
    if method == "grid":
        per_axis = math.ceil(n ** (1 / dimension) - 1e-9)
        centres = (np.arange(per_axis) + 0.5) / per_axis
        return np.stack(np.meshgrid(*[centres] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    if method == "uniform":
        return rng.random((n, dimension))
    if method == "lhs":
        return qmc.LatinHypercube(dimension, rng=rng).random(n)
    # Drawn as a power of two, then cut: the sequence is balanced only so, and SciPy warns otherwise.
    return qmc.Sobol(dimension, rng=rng).random_base2(max(0, math.ceil(math.log2(n))))[:n]


def rejection_sample(
    n: int,
    lower: np.ndarray,
    upper: np.ndarray,
    measure: float,
    inside: Callable[[np.ndarray], np.ndarray],
    seed: Seed,
    method: str,
) -> np.ndarray:
    """n points with inside(points) True, (n, d), from samples of the box lower..upper.

    Raises:
        InputError: n < 1, or too few points of the box are inside (a share below about 1/1000).
    """
    check_count(n)
    fill = max(measure / float(np.prod(upper - lower)), 1e-3)
    kept: list[np.ndarray] = []
    found = 0
    for attempt in range(12):
        # A full box is filled by exactly n Sobol points, which keeps the set balanced.
        ask = n if fill >= 1 and not attempt else math.ceil((n - found) / fill * 1.1) + 16
        points = lower + unit_sample(ask, len(lower), stream(seed, attempt), method) * (upper - lower)
        points = points[inside(points)]
        kept.append(points)
        found += len(points)
        if found >= n:
            points = np.concatenate(kept)
            return points[chosen(n, len(points), seed, method)]
    raise InputError(f"found only {found} of {n} points inside; is the domain empty? bounds {lower} to {upper}")


def chosen(n: int, count: int, seed: Seed, method: str) -> np.ndarray:
    """Which n of `count` samples to keep, (n,), rising: the first ones, but any of a grid, else one end were empty."""
    if method != "grid":
        return np.arange(n)
    return np.sort(np.random.default_rng(stream(seed, count)).choice(count, n, replace=False))


def split_count(n: int, weights: Sequence[float]) -> list[int]:
    """n in whole parts about proportional to the weights, each at least 1, the sum at least n.

    Raises:
        InputError: n < 1.
    """
    check_count(n)
    total = sum(weights)
    return [max(1, math.ceil(n * w / total)) for w in weights]


def stream(seed: Seed, *more: int) -> list[int]:
    """The seed of an independent stream of random numbers: the seed and further whole numbers."""
    return [*([seed] if isinstance(seed, int | np.integer) else seed), *more]


def safe_sqrt(squares: Tensor) -> Tensor:
    """The square root; below 1e-30 it is 0 with derivatives 0, where sqrt has infinite ones."""
    positive = squares > 1e-30
    return torch.where(positive, squares.where(positive, torch.ones_like(squares)).sqrt(), torch.zeros_like(squares))


def like(values: Sequence | np.ndarray, x: Tensor) -> Tensor:
    """Numbers as a tensor of the type and place of x."""
    return torch.as_tensor(np.asarray(values), dtype=x.dtype, device=x.device)


def check_part(domain: AbstractDomain, part: str | None) -> None:
    """Raise `UnknownName` unless `part` is None or a boundary part of the domain."""
    if part is not None and part not in domain.parts:
        raise UnknownName("boundary part", part, domain.parts)


def check_count(n: int) -> None:
    """Raise `InputError` unless n >= 1."""
    if n < 1:
        raise InputError(f"n: expected at least 1 point, got {n}")

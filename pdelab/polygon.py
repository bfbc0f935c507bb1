"""Simple polygons."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdelab.domain import (
    AbstractDomain,
    BoundarySample,
    Seed,
    check_part,
    like,
    safe_sqrt,
    split_count,
    stream,
    unit_sample,
)
from pdelab.errors import SettingsError


@dataclass(frozen=True)
class Polygon(AbstractDomain):
    """The inside of a simple polygon; vertices in either sense of rotation, no crossing and no touching sides.

    Side i runs from vertex i to the next. Its part is names[i], or "side<i>" if no names are given; sides
    of the same name are one part.
    """

    vertices: tuple[tuple[float, float], ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check vertices and names."""
        k = len(self.vertices)
        if k < 3 or any(len(v) != 2 for v in self.vertices):
            raise SettingsError(f"polygon: at least 3 vertices (x, y) needed, got {self.vertices}")
        if not np.isfinite(np.array(self.vertices, dtype=float)).all():
            raise SettingsError(f"polygon: vertices: expected finite numbers, got {self.vertices}")
        if self.names and len(self.names) != k:
            raise SettingsError(f"polygon: names: expected none or {k}, one a side, got {len(self.names)}")
        crossing = _crossing_sides(np.array(self.vertices, dtype=float))
        if crossing is not None:
            i, j = crossing
            raise SettingsError(
                f"polygon: sides {i} and {j} cross or touch; order the vertices along the boundary, each of them once"
            )

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """See `AbstractDomain.bounds`."""
        vertices = np.array(self.vertices, dtype=float)
        return vertices.min(axis=0), vertices.max(axis=0)

    @property
    def parts(self) -> tuple[str, ...]:
        """See `AbstractDomain.parts`."""
        return tuple(dict.fromkeys(self._side_names))

    @property
    def measure(self) -> float:
        """Area by the shoelace formula."""
        return abs(self._signed_area)

    def boundary_measure(self, part: str | None = None) -> float:
        """See `AbstractDomain.boundary_measure`."""
        return float(self._lengths[self._sides(part)].sum())

    def signed_distance(self, x: Tensor) -> Tensor:
        """Exact distance, see `AbstractDomain.signed_distance`; linear where a side is closest."""
        distance, across, along = self._closest(x, self._sides(None))
        with torch.no_grad():
            sign = 1.0 - 2.0 * self._crossings_odd(x)
        return torch.where(along, across, sign * distance)

    def part_distance(self, x: Tensor, part: str) -> Tensor:
        """Exact distance to the sides of the part, see `AbstractDomain.part_distance`."""
        distance, across, along = self._closest(x, self._sides(part))
        return torch.where(along, across.abs(), distance)

    def sample_boundary(self, n: int, seed: Seed, part: str | None = None, method: str = "sobol") -> BoundarySample:
        """See `AbstractDomain.sample_boundary`; sides get points by their length, at least one each."""
        sides = self._sides(part)
        counts = split_count(n, self._lengths[sides].tolist())
        start, edge = np.array(self.vertices, dtype=float), self._edges
        t = [unit_sample(count, 1, stream(seed, int(i)), method) for i, count in zip(sides, counts, strict=True)]
        points = np.concatenate([start[i] + s * edge[i] for i, s in zip(sides, t, strict=True)])
        which = np.repeat(sides, [len(s) for s in t])
        return BoundarySample(points, self._normals[which], np.array(self._side_names)[which])

    @functools.cached_property
    def _side_names(self) -> tuple[str, ...]:
        return self.names or tuple(f"side{i}" for i in range(len(self.vertices)))

    @functools.cached_property
    def _edges(self) -> np.ndarray:
        vertices = np.array(self.vertices, dtype=float)
        return np.roll(vertices, -1, axis=0) - vertices

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        return np.linalg.norm(self._edges, axis=1)

    @functools.cached_property
    def _signed_area(self) -> float:
        x, y = (np.array(self.vertices, dtype=float) - np.array(self.vertices[0])).T
        return 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())

    @functools.cached_property
    def _normals(self) -> np.ndarray:
        right = np.stack([self._edges[:, 1], -self._edges[:, 0]], axis=1) / self._lengths[:, None]
        return right * math.copysign(1.0, self._signed_area)

    def _sides(self, part: str | None) -> np.ndarray:
        """Numbers of the sides of a part."""
        check_part(self, part)
        return np.array([i for i, name in enumerate(self._side_names) if part in (None, name)])

    def _closest(self, x: Tensor, sides: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Of the closest side: distance (n,), signed distance to its line (n,), whether its foot is no vertex (n,)."""
        start, edge = like(self.vertices, x)[sides], like(self._edges, x)[sides]
        with torch.no_grad():
            w = x[:, None] - start
            t = ((w * edge).sum(dim=2) / edge.square().sum(dim=1)).clamp(0, 1)
            best = (w - t[..., None] * edge).square().sum(dim=2).argmin(dim=1)
            foot = t.gather(1, best[:, None])
        w, edge = x - start[best], edge[best]
        distance = safe_sqrt((w - foot * edge).square().sum(dim=1))
        across = (w * like(self._normals, x)[sides][best]).sum(dim=1)
        return distance, across, (foot[:, 0] > 0) & (foot[:, 0] < 1)

    def _crossings_odd(self, x: Tensor) -> Tensor:
        """Whether a ray to the right of each point crosses an odd number of sides, (n,) of 0 or 1."""
        start, edge = like(self.vertices, x), like(self._edges, x)
        above = start[:, 1] > x[:, 1:]
        spans = above != above.roll(-1, dims=1)
        rise = torch.where(edge[:, 1] == 0, torch.ones_like(edge[:, 1]), edge[:, 1])
        right = x[:, :1] < start[:, 0] + (x[:, 1:] - start[:, 1]) / rise * edge[:, 0]
        return ((spans & right).sum(dim=1) % 2).to(x.dtype)


def _crossing_sides(vertices: np.ndarray) -> tuple[int, int] | None:
    """Two sides of a closed chain (k, 2) that cross, touch or fold back on each other, or None."""
    k = len(vertices)
    start, edge = vertices, np.roll(vertices, -1, axis=0) - vertices
    number = np.arange(k)
    length = (edge**2).sum(axis=1)
    small = 1e-12 * float(np.ptp(vertices, axis=0).max())
    if (length <= small**2).any():
        i = int(length.argmin())
        return i, (i + 1) % k
    # A vertex on a side that does not end there.
    w = vertices[None] - start[:, None]
    t = ((w * edge[:, None]).sum(axis=2) / length[:, None]).clip(0, 1)
    near = np.linalg.norm(w - t[..., None] * edge[:, None], axis=2) <= small
    near[number, number] = near[number, (number + 1) % k] = False
    # Ends of each side on strictly different sides of the line of the other.
    cross = edge[:, None, 0] * w[..., 1] - edge[:, None, 1] * w[..., 0]
    parted = cross * np.roll(cross, -1, axis=1) < 0
    bad = np.argwhere(near | (parted & parted.T))
    return (int(bad[0, 0]), int(bad[0, 1])) if len(bad) else None

"""Blocks of space and time: which expert a point belongs to, and where neighbours meet.

The blocks are boxes that tile the bounds of the problem, time being one more axis: a domain of any shape cuts them. A
point on the plane between two belongs to the upper one. On a periodic axis the last block meets the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdelab import sampling
from pdelab.domain import Box, Seed, rejection_sample, stream, unit_sample
from pdelab.errors import InputError, SettingsError, UnknownName
from pdelab.lines import Lines
from pdelab.pde import AbstractProblem
from pdelab.solvers._nets import embeddable
from pdelab.taylor import Series

_CANDIDATES, _SEED, _BALANCE, _JUMPS = 16, 4211, 4096, 64


@dataclass(frozen=True, eq=False)
class Interfaces:
    """Points between pairs of blocks.

    Attributes:
        left, right: blocks of each pair, (P,); the right one lies above along `axis`.
        axis: across which axis they meet, (P,).
        points: (P, q, d).
        weight: 1, or 0 where a point is there to fill up only, (P, q).
    """

    left: np.ndarray
    right: np.ndarray
    axis: np.ndarray
    points: np.ndarray
    weight: np.ndarray


_FAR = 200.0
"""In a logistic function as good as infinity, for it and for all its derivatives."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """K boxes that tile the bounds of a problem.

    Attributes:
        lower, upper: their corners, (K, d).
    """

    lower: np.ndarray
    upper: np.ndarray

    def __len__(self) -> int:
        return len(self.lower)

    @classmethod
    def equal(cls, problem: AbstractProblem, counts: Mapping[str, int]) -> Blocks:
        """Each axis cut into so many equal parts; 1 unless given.

        Raises:
            UnknownName: no such axis.
            SettingsError: a count is below 1.
        """
        for axis, count in counts.items():
            if axis not in problem.axes:
                raise UnknownName("axis", axis, problem.axes)
            if count < 1:
                raise SettingsError(f"experts: expected a whole number >= 1 along {axis!r}, got {count}")
        lower, upper = bounds(problem)
        n = np.array([counts.get(axis, 1) for axis in problem.axes])
        place = np.stack(np.meshgrid(*[np.arange(k) for k in n], indexing="ij"), axis=-1).reshape(-1, len(n))
        return cls(lower + place / n * (upper - lower), lower + (place + 1) / n * (upper - lower))

    @classmethod
    def balanced(cls, problem: AbstractProblem, count: int) -> Blocks:
        """So many blocks with about the same share of the domain: the fullest one is halved along its longest axis.

        Raises:
            SettingsError: the count is below 1.
        """
        if count < 1:
            raise SettingsError(f"experts: expected a whole number >= 1, got {count}")
        lower, upper = bounds(problem)
        points = sampling.interior(problem, _BALANCE, _SEED)
        found = cls(lower[None], upper[None])
        while len(found) < count:
            label = found.label(torch.as_tensor(points)).numpy()
            fullest = int(np.bincount(label, minlength=len(found)).argmax())
            mine = points[label == fullest]
            axis = int(((mine.max(axis=0) - mine.min(axis=0)) / (upper - lower)).argmax())
            found = found.split(fullest, axis, float(np.median(mine[:, axis])))
        return found

    def split(self, number: int, axis: int, at: float) -> Blocks:
        """Block `number` cut in two across an axis; its upper part is the last of all."""
        if not self.lower[number, axis] < at < self.upper[number, axis]:
            raise SettingsError(f"split: {at} is not inside block {number} along axis {axis}")
        lower, upper = (np.concatenate([corner, corner[number : number + 1]]) for corner in (self.lower, self.upper))
        upper[number, axis] = lower[-1, axis] = at
        return Blocks(lower, upper)

    def label(self, points: Tensor) -> Tensor:
        """Which block each point (n, d) belongs to, (n,); points outside belong to the nearest block."""
        lower, upper = (torch.as_tensor(c, dtype=points.dtype, device=points.device) for c in (self.lower, self.upper))
        x = points.detach()[:, None]
        # Above the highest plane a block is closed; elsewhere it ends where the next one begins.
        beyond = (lower - x).clamp(min=0.0) + torch.where(x >= upper, x - upper + 1e-300, torch.zeros_like(x))
        top = upper >= upper.amax(dim=0)
        beyond = torch.where(top & (x <= upper) & (x >= lower), torch.zeros_like(beyond), beyond)
        return beyond.sum(dim=2).argmin(dim=1)


def partition_of_unity(blocks: Blocks, x: Tensor, width: float) -> Tensor:
    """Smooth weights of the blocks at points, (n, d) -> (n, K), of sum 1: half at a face, one inside.

        p_k ~ product over the axes of s(4 (x - lower_k)/w) s(4 (upper_k - x)/w),    s(z) = 1/(1 + exp(-z))

    with w = width times the extent of the block. At outer faces, those at the ends of a period included, nothing falls.

    Source: B. Moseley, A. Markham, T. Nissen-Meyer, Adv. Comput. Math. 49 (2023) 62 (windows of finite-basis PINNs).
    """
    like = x.value if isinstance(x, Series) else x
    lower, upper = (torch.as_tensor(c, dtype=like.dtype, device=like.device) for c in (blocks.lower, blocks.upper))
    w = 0.25 * width * (upper - lower)
    first = _FAR * (lower <= lower.amin(dim=0))
    last = _FAR * (upper >= upper.amax(dim=0))
    above = torch.sigmoid((x[:, None] - lower) / w + first)
    below = torch.sigmoid((upper - x[:, None]) / w + last)
    weights = (above * below).prod(dim=2)
    return weights / weights.sum(dim=1)[:, None]


class BlockPoints:
    """Points of a problem in its blocks and between them, the same number for each.

    Args:
        problem: whose domain cuts the blocks.
        blocks: see `Blocks`.
        latest: times beyond are left out; None for all.

    Attributes:
        shares: measure of each block within the domain over that of all, (K,).

    Raises:
        InputError: a block has no part in the domain.
    """

    def __init__(self, problem: AbstractProblem, blocks: Blocks, latest: float | None = None):
        self._problem, self._blocks = problem, blocks
        self._upper = blocks.upper.copy()
        if latest is not None and problem.time is not None:
            self._upper[:, -1] = np.minimum(self._upper[:, -1], latest)
        sizes = self._upper - blocks.lower
        if not (sizes > 0).all():
            late = int((sizes <= 0).any(axis=1).argmax())
            raise InputError(
                f"expert {late} has no points: its times begin at {blocks.lower[late, -1]:g}, not before {latest:g}"
            )
        candidates = self._mapped(unit_sample(512, sizes.shape[1], _SEED, "sobol"))
        self._fill = self._inside(candidates).mean(axis=1)
        if not self._fill.all():
            k = int(self._fill.argmin())
            box = f"{blocks.lower[k].tolist()} to {blocks.upper[k].tolist()}"
            raise InputError(f"expert {k} has no points: its block {box} is outside the domain; use fewer experts")
        measures = np.prod(sizes, axis=1) * self._fill
        self.shares = measures / measures.sum()
        self._faces = self._find_faces()

    def interior(self, n: int, seed: Seed) -> np.ndarray:
        """n points in each block, (K, n, d)."""
        ask = n if self._fill.min() == 1.0 else math.ceil(1.2 * n / self._fill.min()) + 16
        x = self._mapped(unit_sample(ask, self._upper.shape[1], seed, "sobol"))
        inside = self._inside(x)
        if ask == n and inside.all():
            return x
        found = []
        for k, (a, b) in enumerate(zip(self._blocks.lower, self._upper, strict=True)):
            kept = x[k][inside[k]][:n]
            if len(kept) < n:
                measure = float(np.prod(b - a) * self._fill[k])
                kept = rejection_sample(n, a, b, measure, self._is_inside, stream(seed, k), "sobol")
            found.append(kept)
        return np.stack(found)

    def interfaces(self, n: int, seed: Seed) -> Interfaces | None:
        """n points on each face that two blocks share within the domain; None if there are none."""
        if not self._faces:
            return None
        left, right, axis, lower, upper = (np.array(column) for column in zip(*self._faces, strict=True))
        box = isinstance(self._problem.domain, Box)
        cube = unit_sample(n if box else _CANDIDATES * n, lower.shape[1], seed, "sobol")
        x = lower[:, None] + cube * (upper - lower)[:, None]
        if box:
            return Interfaces(left, right, axis, x, np.ones(x.shape[:2]))
        inside = self._inside(x)
        order = np.argsort(~inside, axis=1, kind="stable")[:, :n]
        weight = np.take_along_axis(inside, order, axis=1).astype(float)
        points = np.take_along_axis(x, np.where(weight > 0, order, order[:, :1])[..., None], axis=1)
        kept = weight.any(axis=1)
        return Interfaces(left[kept], right[kept], axis[kept], points[kept], weight[kept]) if kept.any() else None

    def _mapped(self, cube: np.ndarray) -> np.ndarray:
        lower, upper = self._blocks.lower, self._upper
        return lower[:, None] + cube * (upper - lower)[:, None]

    def _is_inside(self, points: np.ndarray) -> np.ndarray:
        return self._problem.domain.inside(points[:, : self._problem.domain.dimension])

    def _inside(self, x: np.ndarray) -> np.ndarray:
        """(K, n, d) -> (K, n)."""
        return self._is_inside(x.reshape(-1, x.shape[-1])).reshape(x.shape[:2])

    def _find_faces(self) -> list[tuple[int, int, int, np.ndarray, np.ndarray]]:
        """left, right, axis, and the corners of the face that they share."""
        lowest, highest = bounds(self._problem)
        closed = {self._problem.axes.index(c.axis) for c in self._problem.conditions() if embeddable(c)}
        lower, upper = self._blocks.lower, self._upper
        found = []
        for axis in range(len(lowest)):
            other = [i for i in range(len(lowest)) if i != axis]
            for left in range(len(lower)):
                meets = lower[:, axis] == self._blocks.upper[left, axis]
                if axis in closed and upper[left, axis] == highest[axis]:
                    # A block does not meet itself: its basis is periodic.
                    meets |= (lower[:, axis] == lowest[axis]) & (np.arange(len(lower)) != left)
                a, b = np.maximum(lower[left], lower), np.minimum(upper[left], upper)
                meets &= (a[:, other] < b[:, other]).all(axis=1)
                for right in np.flatnonzero(meets):
                    corner, opposite = a[right].copy(), b[right].copy()
                    corner[axis] = opposite[axis] = lower[right, axis]
                    found.append((left, int(right), axis, corner, opposite))
        return found


def bounds(problem: AbstractProblem) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the bounding box in space and time, (d,) each."""
    lower, upper = problem.domain.bounds
    if problem.time is None:
        return lower, upper
    return np.append(lower, problem.time[0]), np.append(upper, problem.time[1])


def edges(problem: AbstractProblem, blocks: Blocks) -> dict[str, Lines]:
    """Outlines of the blocks, in (x, t) or in the plane, as "experts"; nothing for one block or in other dimensions."""
    columns = [0, 1]
    if len(blocks) == 1 or 2 not in (len(problem.axes), problem.domain.dimension):
        return {}
    lower, upper = blocks.lower[:, columns], blocks.upper[:, columns]
    corners = np.stack([lower, np.c_[upper[:, 0], lower[:, 1]], upper, np.c_[lower[:, 0], upper[:, 1]], lower], axis=1)
    return {"experts": Lines(corners.reshape(-1, 2), np.full(len(blocks), 5))}


def visible_jump(problem: AbstractProblem, found: Any, cells: int) -> float | None:
    """How much the interfaces of a field show on a grid of so many cells along each axis; None without interfaces.

        mean |u(x + h/2) - u(x - h/2)|  over  mean of  |u(x + 5h/2) - u(x + 3h/2)|  and its mirror image

    with x on an interface and h the width of a cell across it.

    Args:
        problem: whose domain it is.
        found: the field, (n, d) -> (n, m), with its `blocks`.
        cells: along each axis.
    """
    places = BlockPoints(problem, found.blocks).interfaces(_JUMPS, _SEED)
    if places is None:
        return None
    lower, upper = bounds(problem)
    step = np.zeros_like(places.points)
    for i, axis in enumerate(places.axis):
        step[i, :, axis] = (upper - lower)[axis] / cells
    kept = places.weight > 0
    x, h = places.points[kept], step[kept]
    inside = (x - 2.5 * h >= lower).all(axis=1) & (x + 2.5 * h <= upper).all(axis=1)
    for share in (-2.5, 2.5):
        inside &= problem.domain.inside((x + share * h)[:, : problem.domain.dimension])
    x, h = x[inside], h[inside]
    if not len(x):
        return None
    shares = (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)
    with torch.no_grad():
        device = found.omega.device
        u = torch.stack([found(torch.as_tensor(x + s * h, device=device)) for s in shares])
    u = u / u.std(dim=(0, 1)).clamp(min=1e-300)
    differences = (u[1:] - u[:-1]).abs().mean(dim=(1, 2))
    return float(differences[2] / (0.5 * (differences[0] + differences[4])).clamp(min=1e-300))

"""Paths of labels: where they go, what they carry, and how much their cells are stretched on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pdelab.lines import Lines
from pdelab.pde import AbstractProblem
from pdelab.solvers._labels import EulerianField
from pdelab.solvers._transport import periodic_axes

LABELS = {1: 20, 2: 9, 3: 5}
"""How many along each axis, by space dimension."""
TIMES = 200
DETERMINANT = "det_F"


def followed(problem: AbstractProblem, fields: Sequence[EulerianField], times: Sequence[float]) -> Lines | None:
    """Paths of labels that are spread evenly over the domain at first; None beyond three space dimensions.

        x(a, 0) = a;    in each slab  x = s + drift (t - t0) + D(s, t),  where s = x(a, t0)

    Arrays: the components, `time`, and `det_F`, the determinant of dx/da, which is the product of those of the slabs.

    Args:
        problem: the whole problem.
        fields: one for each slab.
        times: where slabs begin and end, one more than fields.
    """
    d = len(problem.domain.axes)
    if d not in LABELS:
        return None
    like = next(fields[0].parameters())
    s = torch.as_tensor(_spread(problem, LABELS[d])).to(like)
    stretch = torch.ones_like(s[:, 0])
    parts: list[Tensor] = []
    for i, field in enumerate(fields):
        levels = torch.linspace(times[i], times[i + 1], 1 + -(-TIMES // len(fields)), dtype=s.dtype, device=s.device)
        at = torch.cat([s[:, None].expand(-1, len(levels), -1), levels[None, :, None].expand(len(s), -1, 1)], dim=2)
        places, values, determinant = field.carried(at.reshape(-1, d + 1))
        found = torch.cat([places, at.reshape(-1, d + 1)[:, d:], values, determinant[:, None]], dim=1)
        # (labels, times, columns): one path after another.
        found = found.reshape(len(s), len(levels), -1)
        found[..., -1] *= stretch[:, None]
        parts.append(found if i == 0 else found[:, 1:])
        # Where a slab ends the places of its labels are those of the next one.
        s, stretch = found[:, -1, :d], found[:, -1, -1]
    table = torch.cat(parts, dim=1).cpu().numpy()
    points, lengths = _folded_back(problem, table[..., : d + 1])
    columns = table[..., d + 1 :].reshape(len(points), -1).T
    arrays = dict(zip((*problem.components, DETERMINANT), columns, strict=True))
    # Lines in the plane and in space are drawn there, with time as an array.
    return Lines(points if d == 1 else points[:, :-1], lengths, {**arrays, "time": points[:, -1]})


def _spread(problem: AbstractProblem, n: int) -> np.ndarray:
    """The middles of n^d equal cells of the domain's bounds, (n^d, d)."""
    lower, upper = problem.domain.bounds
    axes = [a + (b - a) * (np.arange(n) + 0.5) / n for a, b in zip(lower, upper, strict=True)]
    return np.stack([m.ravel() for m in np.meshgrid(*axes, indexing="ij")], axis=1)


def _folded_back(problem: AbstractProblem, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (labels, times, d) within the domain along periodic axes, (N, d), and the lengths of unbroken lines."""
    points = points.copy()
    lower, upper = problem.domain.bounds
    laps = np.zeros(points.shape[:2] + (len(lower),))
    for i, axis in enumerate(problem.domain.axes):
        if axis in periodic_axes(problem):
            laps[..., i] = np.floor((points[..., i] - lower[i]) / (upper[i] - lower[i]))
    points[..., :-1] -= laps * (upper - lower)
    begins = np.ones(points.shape[:2], dtype=bool)
    begins[:, 1:] = (laps[:, 1:] != laps[:, :-1]).any(axis=2)
    lengths = np.diff(np.append(np.flatnonzero(begins), begins.size))
    return points.reshape(begins.size, -1), lengths

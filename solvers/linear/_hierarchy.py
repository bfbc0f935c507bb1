"""Coarser and coarser stencils of one matrix as tensors, and the transfer between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pdelab.stencil import Stencil

COARSEST = 300  # unknowns that are solved for by a dense pseudo-inverse


@dataclass(frozen=True, eq=False)
class Level:
    """One stencil on a grid; fields are (k, n_1, ..., n_d) for k right-hand sides.

    Attributes:
        diagonal, excess, active: of the grid's shape; active is 0 or 1.
        faces: for each axis, one entry less along it than the grid.
    """

    diagonal: Tensor
    excess: Tensor
    active: Tensor
    faces: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(self.diagonal.shape)

    @property
    def d(self) -> int:
        """Number of axes."""
        return self.diagonal.ndim

    @cached_property
    def inverse_diagonal(self) -> Tensor:
        """1/diagonal, 0 in cells that are no unknowns."""
        return self.active / torch.where(self.active > 0, self.diagonal, 1.0)

    def matvec(self, u: Tensor) -> Tensor:
        """A u."""
        y = self.diagonal * u
        for axis, face in enumerate(self.faces, 1):
            n = u.shape[axis] - 1
            y.narrow(axis, 0, n).sub_(face * u.narrow(axis, 1, n))
            y.narrow(axis, 1, n).sub_(face * u.narrow(axis, 0, n))
        return y

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Level:
        """The same in another precision or on another device."""
        faces = tuple(f.to(device, dtype) for f in self.faces)
        diagonal, excess, active = (t.to(device, dtype) for t in (self.diagonal, self.excess, self.active))
        return Level(diagonal, excess, active, faces)

    @cached_property
    def reach(self) -> Tensor:
        """Where interpolation may take a value: the grid with one more cell on each side.

        1 in unknowns and in the cells beyond a boundary with u = 0; 0 in solid cells and beyond closed walls.
        """
        pads = (1, 1) * self.d
        active, at_zero = (torch.nn.functional.pad(t, pads) for t in (self.active, (self.excess > 0) * self.active))
        beyond = at_zero
        for axis in range(self.d):  # diagonal neighbours too: interpolation at a corner looks there
            beyond = torch.maximum(beyond, torch.maximum(beyond.roll(1, axis), beyond.roll(-1, axis)))
        return torch.maximum(active, beyond * (1 - active))


def finest(stencil: Stencil, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Level:
    """The stencil as tensors; it must not be periodic."""
    faces = tuple(torch.as_tensor(np.ascontiguousarray(np.delete(f, -1, axis))) for axis, f in enumerate(stencil.faces))
    parts = (torch.as_tensor(np.asarray(p, dtype=np.float64)) for p in (stencil.diagonal, stencil.excess))
    diagonal, excess = parts
    # What round-off leaves of the sums of couplings is no condition u = 0.
    excess = torch.where(excess > 1e-12 * diagonal, excess, 0.0)
    return Level(diagonal, excess, torch.as_tensor(stencil.active.astype(np.float64)), faces).to(dtype, device)


def hierarchy(level: Level, coarsest: int = COARSEST) -> list[Level]:
    """The level and coarser ones, each of half the cells along each axis, down to `coarsest` cells."""
    levels = [level]
    while levels[-1].diagonal.numel() > coarsest and max(levels[-1].shape) > 2:
        levels.append(_coarser(levels[-1]))
    return levels


def prolong(coarse: Tensor, level: Level, coarser: Level) -> Tensor:
    """Linear interpolation between cell centres, from (k, *coarse shape) to (k, *fine shape).

    Values of solid cells and of cells beyond a wall without flux do not count; the others share their weights.
    """
    return _weights(level, coarser) * _crop(_spread(coarse * coarser.active), level.shape)


def restrict(fine: Tensor, level: Level, coarser: Level) -> Tensor:
    """The transpose of `prolong`, times 4/2^d: what a coarse correction in units of its own cells needs."""
    fine = _pad_even(_weights(level, coarser) * fine, level.shape)
    for axis in range(1, fine.ndim):
        fine = _gather(fine, axis)
    return fine * coarser.active * (4.0 / 2.0**level.d)


def pseudo_inverse(level: Level) -> Tensor:
    """Dense pseudo-inverse of the matrix of a small level, (n, n)."""
    n = level.diagonal.numel()
    unit = torch.eye(n, dtype=torch.float64).reshape(n, *level.shape)
    A = level.to(torch.float64, "cpu").matvec(unit).reshape(n, n)
    inverse = torch.linalg.pinv(0.5 * (A + A.T), rtol=1e-10, hermitian=True)
    return inverse.to(level.diagonal)


def _coarser(level: Level) -> Level:
    """Couplings are means over the joint faces; a wall with u = 0 moves away with the centre of the coarse cell.

    In units of the cell's width a wall at distance s < 1 couples with 1/s; of the coarse cell it is at (s + 1/2)/2.
    A matrix does not say which of the closed faces of a cell has u = 0: they share the excess of its diagonal.
    """
    d = level.d
    faces = [
        _pad_even(torch.cat([f, torch.zeros_like(f.narrow(a, 0, 1))], a)[None], level.shape)[0]
        for a, f in enumerate(level.faces)
    ]
    active, excess = (_pad_even(t[None], level.shape)[0] for t in (level.active, level.excess))
    closed, coupling = torch.zeros_like(active), torch.zeros_like(active)
    for axis, face in enumerate(faces):
        for side in (face, face.roll(1, axis)):
            closed += (side == 0) * active
            coupling += side
    mean = coupling / torch.clamp(2 * d - closed, min=1.0)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    share = excess / (torch.clamp(closed, min=1.0) * mean)
    at_walls = closed * mean * 4.0 * share / (2.0 + share) / 2.0 ** (d - 1)
    within = excess * 4.0 / 2.0**d
    excess = _sum_cells(torch.where(closed > 0, at_walls, within))
    coarse_faces = []
    for axis, face in enumerate(faces):
        n = face.shape[axis]
        face = _every_other(face.narrow(axis, 0, n - 1), axis, 1)
        for other in range(d):
            if other != axis:
                face = 0.5 * (_every_other(face, other, 0) + _every_other(face, other, 1))
        coarse_faces.append(face)
    diagonal = excess.clone()
    for axis, face in enumerate(coarse_faces):
        n = face.shape[axis]
        diagonal.narrow(axis, 0, n).add_(face)
        diagonal.narrow(axis, 1, n).add_(face)
    return Level(diagonal, excess, (diagonal > 0).to(diagonal), tuple(coarse_faces))


def _sum_cells(values: Tensor) -> Tensor:
    for axis in range(values.ndim):
        values = _every_other(values, axis, 0) + _every_other(values, axis, 1)
    return values


def _every_other(values: Tensor, axis: int, first: int) -> Tensor:
    return values[(slice(None),) * axis + (slice(first, None, 2),)]


def _weights(level: Level, coarser: Level) -> Tensor:
    """One over the interpolated indicator of what may be used, 0 in cells that are no unknowns."""
    kept = level.__dict__.get("_weights")
    if kept is None:
        found = coarser.reach[None]
        for axis in range(1, found.ndim):
            found = _interleave(found, axis)
        found = _crop(found, level.shape)[0]
        kept = level.active / torch.where(found > 0, found, 1.0)
        level.__dict__["_weights"] = kept
    return kept


def _spread(values: Tensor) -> Tensor:
    values = torch.nn.functional.pad(values, (1, 1) * (values.ndim - 1))
    for axis in range(1, values.ndim):
        values = _interleave(values, axis)
    return values


def _interleave(padded: Tensor, axis: int) -> Tensor:
    """Interpolation along one axis from n + 2 cells, the ends beyond the grid, to 2 n."""
    n = padded.shape[axis] - 2
    middle = 0.75 * padded.narrow(axis, 1, n)
    pair = (middle + 0.25 * padded.narrow(axis, 0, n), middle + 0.25 * padded.narrow(axis, 2, n))
    return torch.stack(pair, axis + 1).flatten(axis, axis + 1)


def _gather(fine: Tensor, axis: int) -> Tensor:
    """The transpose of `_interleave` after padding with zeros."""
    n = fine.shape[axis] // 2
    pair = fine.unflatten(axis, (n, 2))
    even, odd = pair.select(axis + 1, 0), pair.select(axis + 1, 1)
    found = 0.75 * (even + odd)
    if n > 1:
        found.narrow(axis, 0, n - 1).add_(0.25 * even.narrow(axis, 1, n - 1))
        found.narrow(axis, 1, n - 1).add_(0.25 * odd.narrow(axis, 0, n - 1))
    return found


def _crop(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    for axis, n in enumerate(shape, 1):
        values = values.narrow(axis, 0, n)
    return values


def _pad_even(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Add a cell of zeros at the end of axes with an odd number of cells."""
    if not any(n % 2 for n in shape):
        return values
    return torch.nn.functional.pad(values, [p for n in reversed(shape) for p in (0, n % 2)])

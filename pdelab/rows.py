"""Jacobians of residual vectors in the parameters, all rows from one backward pass.

A row r_i depends on its own point only. Where a linear layer maps the channels a_c of that point to
z_c = W a_c (+ b for the value), one backward pass of sum_i r_i gives every dr_i/dz_c at once, and

    dr_i/dW = sum over channels c of  dr_i/dz_c  a_c',      dr_i/db = dr_i/dz_0.

This is exact, and costs one backward pass and one batched product instead of one pass per row. A parameter that acts
otherwise is given a copy for each point (`pdelab.copies`), and one backward pass gives the rows of all copies.

Source: F. Dangel, F. Kunstner, P. Hennig, BackPACK, ICLR 2020, section 2.2 (for values; here also for derivatives).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdelab.calculus import Field
from pdelab.copies import Copies
from pdelab.errors import SettingsError
from pdelab.taylor import AbstractMap, Use

_TOGETHER = 512  # rows that are put together at once, few enough to stay in the cache
_TOLERANCE = 1e-8
_PASSES = 16  # at once
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Residual:
    """A residual vector with what tells its rows apart.

    Attributes:
        name: for errors.
        values: (n,), with their graph, which is kept.
        maps: what was recorded while they were computed, at n points, or at k n: row i then depends on the points
            i, n + i, ...
        scalars: id of a parameter with one entry -> the copy of it (k n,) that each point used.
        field: whose residual it is.
        again: the residual of another field.
    """

    name: str
    values: Tensor
    maps: Sequence[AbstractMap]
    scalars: Mapping[int, Tensor]
    field: Field
    again: Callable[[Field], Tensor]


@dataclass(frozen=True)
class _Sources:
    """Where the columns come from: parameters by number, each use added up; and what gives all `others` at once."""

    uses: dict[int, list[Use]]
    others: tuple[int, ...]
    blocks: Callable[[int, int], Sequence[Tensor]]


class Rows:
    """Residual vectors with their Jacobians, block by block.

    Args:
        parameters: in the order of the columns.
        most: rows of a block, at most; above 512 in whole multiples of it.
        out: (rows in all, P) where the blocks are written one after another; without, each has its own memory.
        known: which parameters act otherwise than through linear layers in the first, second, ... residual, where
            this has been found out; the rest is added.
    """

    def __init__(self, parameters: Sequence[Tensor], most: int, out: Tensor | None, known: dict[int, tuple[int, ...]]):
        self._parameters = list(parameters)
        self._numbers = {id(p): i for i, p in enumerate(self._parameters)}
        ends = torch.tensor([0, *(p.numel() for p in self._parameters)]).cumsum(dim=0).tolist()
        self._columns = [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        self._piece = min(most, _TOGETHER)
        self._most = most // self._piece * self._piece
        self._out, self._written = out, 0
        self._known, self._position = known, 0

    def blocks(self, residual: Residual, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of scale * r and of its Jacobian, (rows,) and (rows, P), without a graph.

        Raises:
            SettingsError: a row depends on the points of other rows.
        """
        return self._assembled(residual.values, self._sources(residual, scale), scale)

    def one_by_one(self, values: Tensor, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
        """The same for any residual (n,), by one backward pass for each row."""
        everything = tuple(range(len(self._parameters)))
        return self._assembled(values, _Sources({}, everything, self._slow(values, everything, scale)), scale)

    def _assembled(self, values: Tensor, sources: _Sources, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
        n, r = len(values), scale * values.detach()
        for start in range(0, n, self._most):
            stop = min(start + self._most, n)
            J = self._room(r, stop - start)
            for first in range(start, stop, self._piece):
                last = min(first + self._piece, stop)
                self._fill(J[first - start : last - start], sources, first, last)
            yield r[start:stop], J

    def _room(self, like: Tensor, n: int) -> Tensor:
        """Memory for the next n rows."""
        if self._out is None:
            return like.new_empty(n, self._columns[-1].stop)
        self._written += n
        return self._out[self._written - n : self._written]

    def _fill(self, J: Tensor, sources: _Sources, start: int, stop: int) -> None:
        """Rows start ... stop of a Jacobian."""
        for i, columns in enumerate(self._columns):
            uses = sources.uses.get(i, [])
            if uses:
                J[:, columns] = uses[0](start, stop)
            elif i not in sources.others:
                J[:, columns] = 0.0
            for use in uses[1:]:
                J[:, columns] += use(start, stop)
        if sources.others:
            for i, block in zip(sources.others, sources.blocks(start, stop), strict=True):
                J[:, self._columns[i]] = block

    def _sources(self, residual: Residual, scale: float) -> _Sources:
        position, self._position = self._position, self._position + 1
        values = residual.values
        if not values.requires_grad:
            return _Sources({}, (), lambda start, stop: [])
        first = position not in self._known
        if first:
            _check_maps(residual.name, values, [m.outputs for m in residual.maps if m.outputs.requires_grad])
        uses = self._uses(residual, scale)
        if first:
            self._known[position] = self._missed(residual, uses, scale)
        others = self._known[position]
        uses = {i: found for i, found in uses.items() if i not in others}
        return _Sources(uses, others, self._generic(residual, others, scale, first))

    def _uses(self, residual: Residual, scale: float) -> dict[int, list[Use]]:
        """What acts through linear layers, and the coefficients that each point has its own copy of."""
        n = len(residual.values)
        # Layers that are not asked for may give outputs without a gradient.
        maps = [
            m for m in residual.maps if m.outputs.requires_grad and any(id(p) in self._numbers for p in m.parameters)
        ]
        asked = [m.outputs for m in maps] + list(residual.scalars.values())
        if not asked:
            return {}
        found = torch.autograd.grad(scale * residual.values.sum(), asked, retain_graph=True, allow_unused=True)
        uses: dict[int, list[Use]] = {}
        for m, g in zip(maps, found, strict=False):
            for shift in range(0, 0 if g is None else g.shape[1], n):
                for p, use in zip(m.parameters, m.uses(g[:, shift : shift + n], shift), strict=True):
                    if (i := self._numbers.get(id(p))) is not None:
                        uses.setdefault(i, []).append(use)
        for key, g in zip(residual.scalars, found[len(maps) :], strict=True):
            if g is not None:
                uses[self._numbers[key]] = [_column(g.reshape(-1, n).sum(dim=0))]
        return uses

    def _missed(self, residual: Residual, uses: Mapping[int, Sequence[Use]], scale: float) -> tuple[int, ...]:
        """Parameters whose rows, with some weights, do not sum up to the gradient of the weighted sum."""
        n = len(residual.values)
        weights = torch.cos(torch.arange(1, n + 1, dtype=residual.values.dtype, device=residual.values.device))
        trained = [p for p in self._parameters if p.requires_grad]
        totals = torch.autograd.grad(scale * (weights @ residual.values), trained, retain_graph=True, allow_unused=True)
        missed = []
        for p, total in zip(trained, totals, strict=True):
            i = self._numbers[id(p)]
            if total is None:
                continue
            gap, size = total.reshape(-1).clone(), total.reshape(-1).abs()
            for use in uses.get(i, []):
                for start in range(0, n, self._piece):
                    stop = min(start + self._piece, n)
                    block = use(start, stop)
                    gap -= weights[start:stop] @ block
                    size += block.abs().sum(dim=0)
            if bool((gap.abs() > math.sqrt(torch.finfo(gap.dtype).eps) * size).any()):
                missed.append(i)
        return tuple(missed)

    def _generic(
        self, residual: Residual, others: tuple[int, ...], scale: float, first: bool
    ) -> Callable[[int, int], Sequence[Tensor]]:
        """Parameters that act otherwise, by copies; one pass for each row where there can be none."""
        if not others:
            return lambda start, stop: []
        try:
            parameters = [self._parameters[i] for i in others]
            copies = Copies(residual.field, parameters, len(residual.values), self._piece)
            values = scale * residual.again(copies)
        except (LookupError, RuntimeError, ValueError) as error:
            if first:
                _log.warning("%s: one backward pass for each row, slow: %s", residual.name, str(error).split("\n")[0])
            return self._slow(residual.values, others, scale)
        if first:
            row = len(values) // 2
            _check_sizes(residual.name, copies.influences(values, row), len(values), row)
        return lambda start, stop: copies.gradients(values, start, stop)

    def _slow(self, values: Tensor, numbers: Sequence[int], scale: float) -> Callable[[int, int], Sequence[Tensor]]:
        parameters = [self._parameters[i] for i in numbers]
        sizes = [p.numel() for p in parameters]
        return lambda start, stop: (scale * dense_jacobian(values[start:stop], parameters)).split(sizes, dim=1)


def dense_jacobian(residual: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """dr/d(parameters), (n, P), by one backward pass per row: for any residual (n,), slow for many rows."""
    n = len(residual)
    if not residual.requires_grad:
        return residual.new_zeros(n, sum(p.numel() for p in parameters))
    blocks = []
    for each in torch.eye(n, dtype=residual.dtype, device=residual.device).split(_PASSES):
        found = torch.autograd.grad(
            residual, list(parameters), each, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        both = zip(found, parameters, strict=True)
        blocks.append(
            torch.cat(
                [each.new_zeros(len(each), p.numel()) if g is None else g.reshape(len(each), -1) for g, p in both],
                dim=1,
            )
        )
    return torch.cat(blocks)


def _column(g: Tensor) -> Use:
    """Of a number, from the derivatives in each point's copy of it (n,)."""
    return lambda start, stop: g[start:stop, None]


def _check_maps(name: str, values: Tensor, outputs: Sequence[Tensor]) -> None:
    if not outputs:
        return
    row = len(values) // 2
    found = torch.autograd.grad(values[row], outputs, retain_graph=True, allow_unused=True)
    each = [g.abs().transpose(0, 1).flatten(1).amax(dim=1) for g in found if g is not None]
    if each:
        _check_sizes(name, torch.stack(each).amax(dim=0), len(values), row)


def _check_sizes(name: str, sizes: Tensor, n: int, row: int) -> None:
    """Refuse a row whose derivatives at the points, sizes (k n,), do not vanish at the points of other rows.

    Raises:
        SettingsError: with the name of the residual.
    """
    mixes = len(sizes) % n != 0
    if not mixes:
        own = float(sizes[row::n].max())
        sizes[row::n] = 0.0
        mixes = float(sizes.max()) > _TOLERANCE * own
    if mixes:
        raise SettingsError(
            f"gauss-newton: residual {name!r} mixes its rows, each must depend on one point only; "
            f"use optimizer=ssbroyden or lbfgs"
        )

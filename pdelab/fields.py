"""Fields given by values on a tensor-product grid: what grid solvers return and references store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractDifferentiableField
from pdelab.errors import InputError, check_shape

STENCIL = 8


class GridField(AbstractDifferentiableField):
    """Piecewise polynomial interpolation of grid values, differentiable in the points.

    On each axis the `STENCIL` nodes nearest to the point carry a Lagrange polynomial (order 8 in the
    spacing); a periodic axis wraps around; an axis in `spectral` uses all of its nodes, which for
    Chebyshev nodes keeps spectral accuracy.

    Args:
        axes: nodes of each axis, increasing, time last; a periodic axis leaves out its right end.
        values: (n_0, ..., n_{d-1}, m) float64.
        periods: axis number -> period.
        spectral: axis numbers that use all nodes.
    """

    kind = "grid"

    def __init__(
        self,
        axes: Sequence[np.ndarray],
        values: np.ndarray,
        periods: Mapping[int, float] | None = None,
        spectral: Sequence[int] = (),
    ):
        self.axes = tuple(np.asarray(a, dtype=float) for a in axes)
        self.values = np.asarray(values, dtype=float)
        self.periods = dict(periods or {})
        self.spectral = tuple(spectral)
        check_shape("values", self.values, (*[len(a) for a in self.axes], None))
        if any(len(a) < 2 or (np.diff(a) <= 0).any() for a in self.axes):
            raise InputError("axes: at least two increasing nodes needed on each axis")

    @property
    def n_components(self) -> int:
        """Number of fields m."""
        return self.values.shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m) float64, in blocks so that memory stays below about 100 MB."""
        return self._in_blocks(x, lambda part: self._interpolate(part, [self._stencil(p, i) for i, p in part]))

    def derivative(self, x: Tensor, orders: Sequence[int]) -> Tensor:
        """A partial derivative of the interpolant, without a graph: (n, d) -> (n, m).

        Args:
            x: points (n, d).
            orders: how often to differentiate along each axis.
        """
        with torch.no_grad():
            return self._in_blocks(
                x, lambda part: self._interpolate(part, [self._stencil(p, i, orders[i]) for i, p in part])
            )

    def _in_blocks(self, x: Tensor, evaluate: Callable[[list[tuple[int, Tensor]]], Tensor]) -> Tensor:
        check_shape("points", x, (None, len(self.axes)))
        width = int(np.prod([self._width(i) for i in range(len(self.axes))])) * self.n_components
        blocks = x.to("cpu", torch.float64).split(max(1, 4_000_000 // width))
        return torch.cat([evaluate(list(enumerate(block.unbind(dim=1)))) for block in blocks]).to(x.device)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays, for storage."""
        stored = {f"axis{i}": a for i, a in enumerate(self.axes)}
        periods = np.array([self.periods.get(i, 0.0) for i in range(len(self.axes))])
        return stored | {"values": self.values, "periods": periods, "spectral": np.array(self.spectral, dtype=int)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> GridField:
        """The inverse of `arrays`."""
        axes = [arrays[f"axis{i}"] for i in range(len(arrays["periods"]))]
        periods = {i: float(p) for i, p in enumerate(arrays["periods"]) if p > 0}
        return cls(axes, arrays["values"], periods, [int(i) for i in arrays["spectral"]])

    def _width(self, axis: int) -> int:
        n = len(self.axes[axis])
        return n if axis in self.spectral else min(STENCIL, n)

    def _interpolate(self, columns: list[tuple[int, Tensor]], stencils: list[tuple[Tensor, Tensor]]) -> Tensor:
        values = torch.as_tensor(self.values)
        local = [i for i in range(len(self.axes)) if i not in self.spectral]
        total = torch.ones(len(columns[0][1]), 1, dtype=torch.float64)
        if not local:
            (_, weight), *others = stencils
            found = torch.tensordot(weight, values, dims=1)
        else:
            # Only the axes with few nodes are gathered; the others follow in `found`, in their order.
            flat = torch.zeros(len(total), 1, dtype=torch.long)
            for i in local:
                index, weight = stencils[i]
                flat = (flat[:, :, None] * len(self.axes[i]) + index[:, None, :]).flatten(1)
                total = (total[:, :, None] * weight[:, None, :]).flatten(1)
            whole = [len(self.axes[i]) for i in self.spectral]
            table = values.permute(*local, *self.spectral, values.ndim - 1).reshape(-1, *whole, self.n_components)
            found = torch.einsum("ns,ns...->n...", total, table[flat])
            others = [stencils[i] for i in self.spectral]
        for _, weight in others:
            found = torch.einsum("ns,ns...->n...", weight, found)
        return found

    def _stencil(self, x: Tensor, axis: int, order: int = 0) -> tuple[Tensor, Tensor]:
        """Node numbers (n, s) and weights (n, s) on one axis, of the value (with a graph) or of a derivative."""
        if not x.requires_grad:
            # The points of a picture are a grid: few distinct values on each axis.
            distinct, place = torch.unique(x, return_inverse=True)
            index, weight = self._weights(distinct, axis, order)
            return index[place], weight[place]
        return self._weights(x, axis, order)

    def _weights(self, x: Tensor, axis: int, order: int) -> tuple[Tensor, Tensor]:
        nodes, scale, factors = self._tables[axis]
        n, s, period = len(nodes), self._width(axis), self.periods.get(axis)
        if period:
            x = nodes[0] + torch.remainder(x - nodes[0], period)
        cell = torch.searchsorted(nodes, x.detach().contiguous(), right=True) - 1
        first = cell - s // 2 + 1
        if not period:
            first = first.clamp(0, n - s)
        number = first[:, None] + torch.arange(s)
        wrapped = number % n
        position = nodes[wrapped]
        if period:
            # In float64: an integer tensor times a Python float would be float32.
            position = position + torch.div(number, n, rounding_mode="floor").to(torch.float64) * period
        if order:
            return wrapped, derivative_weights(x, position, order)
        return wrapped, _others((x[:, None] - position) * scale) * factors[first % n]

    @cached_property
    def _tables(self) -> list[tuple[Tensor, float, Tensor]]:
        """Of each axis: nodes, a scale of length, and the denominators' inverses of each stencil (k, s)."""
        tables = []
        for axis, nodes in enumerate(self.axes):
            n, s, period = len(nodes), self._width(axis), self.periods.get(axis, 0.0)
            # A row for each first node; a periodic axis goes on past its end.
            number = np.arange(n if period else n - s + 1)[:, None] + np.arange(s)
            position = nodes[number % n] + (number // n) * period
            # A quarter of the stencil as unit keeps the products of many Chebyshev distances near one.
            scale = 4.0 / float(np.ptp(position, axis=1).min())
            apart = (position[:, :, None] - position[:, None, :]) * scale + np.eye(s)
            tables.append((torch.as_tensor(nodes), scale, torch.as_tensor(1.0 / apart.prod(axis=2))))
        return tables


def _others(factors: Tensor) -> Tensor:
    """The product of all factors (n, s) of a row but one, for each of them, (n, s)."""
    one = torch.ones_like(factors[:, :1])
    before = torch.cat([one, factors[:, :-1]], dim=1).cumprod(dim=1)
    after = torch.cat([one, factors[:, 1:].flip(1)], dim=1).cumprod(dim=1).flip(1)
    return before * after


def derivative_weights(x: Tensor, nodes: Tensor, order: int) -> Tensor:
    """Weights of the values at nodes (n, s) for a derivative at x (n,) of their polynomial, (n, s).

    Source: B. Fornberg, Math. Comp. 51 (1988) 699-706, the recursion over the nodes, for all points at once.
    """
    # The points run fastest: every operation is on whole rows of memory.
    nodes = nodes.T.contiguous()
    s, n = nodes.shape
    weights = torch.zeros(order + 1, s, n, dtype=nodes.dtype)
    weights[0, 0] = 1.0
    before = torch.ones(n, dtype=nodes.dtype)
    for i in range(1, s):
        gaps = nodes[i] - nodes[:i]
        product = gaps.prod(dim=0)
        step, behind = before / product, x - nodes[i - 1]
        ahead = (nodes[i] - x) / gaps
        # Highest derivative first: each needs the one below it as it was.
        for k in range(order, -1, -1):
            last, old = weights[k, i - 1] * behind, weights[k, :i]
            if k:
                last += k * weights[k - 1, i - 1]
                torch.sub(ahead * old, weights[k - 1, :i] * (k / gaps), out=old)
            else:
                old *= ahead
            weights[k, i] = step * last
        before = product
    return weights[order].T

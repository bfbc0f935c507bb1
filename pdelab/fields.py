"""Fields given by values on a tensor-product grid: what grid solvers return and references store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
        n = len(columns[0][1])
        flat = torch.zeros(n, 1, dtype=torch.long)
        total = torch.ones(n, 1, dtype=torch.float64)
        for i, (index, weight) in enumerate(stencils):
            flat = (flat[:, :, None] * len(self.axes[i]) + index[:, None, :]).flatten(1)
            total = (total[:, :, None] * weight[:, None, :]).flatten(1)
        values = torch.as_tensor(self.values).reshape(-1, self.n_components)
        return torch.einsum("ns,nsm->nm", total, values[flat])

    def _stencil(self, x: Tensor, axis: int, order: int | None = None) -> tuple[Tensor, Tensor]:
        """Node numbers (n, s) and weights (n, s) on one axis: of the value with a graph, or of a derivative."""
        nodes = self.axes[axis]
        n, s, period = len(nodes), self._width(axis), self.periods.get(axis)
        if period:
            x = nodes[0] + torch.remainder(x - nodes[0], period)
        cell = torch.searchsorted(torch.as_tensor(nodes), x.detach().contiguous(), right=True) - 1
        first = cell - s // 2 + 1
        if not period:
            first = first.clamp(0, n - s)
        number = first[:, None] + torch.arange(s)
        wrapped = number % n
        position = torch.as_tensor(nodes)[wrapped]
        if period:
            # In float64: an integer tensor times a Python float would be float32.
            position = position + torch.div(number, n, rounding_mode="floor").to(torch.float64) * period
        if order is not None:
            return wrapped, derivative_weights(x, position, order)
        apart = position[:, :, None] - position[:, None, :] + torch.eye(s, dtype=torch.float64)
        factor = x[:, None, None] - position[:, None, :]
        factor = torch.where(torch.eye(s, dtype=torch.bool), torch.ones_like(factor), factor)
        return wrapped, (factor / apart).prod(dim=2)


def derivative_weights(x: Tensor, nodes: Tensor, order: int) -> Tensor:
    """Weights of the values at nodes (n, s) for a derivative at x (n,) of their polynomial, (n, s).

    Source: B. Fornberg, Math. Comp. 51 (1988) 699-706, the recursion over the nodes, for all points at once.
    """
    n, s = nodes.shape
    weights = torch.zeros(order + 1, n, s, dtype=nodes.dtype)
    weights[0, :, 0] = 1.0
    k = torch.arange(order + 1, dtype=nodes.dtype)[:, None]
    before = torch.ones(n, dtype=nodes.dtype)
    for i in range(1, s):
        gaps = nodes[:, i : i + 1] - nodes[:, :i]
        product = gaps.prod(dim=1)
        lower = torch.cat([torch.zeros_like(weights[:1]), weights[:-1]])
        last = weights[:, :, i - 1] * (x - nodes[:, i - 1]) + k * lower[:, :, i - 1]
        weights[:, :, :i] = ((nodes[:, i] - x)[:, None] * weights[:, :, :i] - k[..., None] * lower[:, :, :i]) / gaps
        weights[:, :, i] = before / product * last
        before = product
    return weights[order]

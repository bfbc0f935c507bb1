"""Smooth functions of one variable in Taylor mode: their derivatives, and the chain rule with its adjoint.

With D^k the derivative of order k along one direction and h_k = D^k h,

    D   f(h) = f' h1
    D^2 f(h) = f'' h1^2 + f' h2
    D^3 f(h) = f''' h1^3 + 3 f'' h1 h2 + f' h3
    D^4 f(h) = f'''' h1^4 + 6 f''' h1^2 h2 + f'' (4 h1 h3 + 3 h2^2) + f' h4

and the derivative of D^k f(h) in h_j is binomial(k, j) D^(k-j) f'(h): the adjoint is the same formula for f'.

Source: A. Griewank, A. Walther, Evaluating Derivatives, SIAM 2008, ch. 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_BLOCK = 2**16


@dataclass(frozen=True)
class Group:
    """Directions of one order: `n` of them, with the derivatives 1 ... order along each.

    Attributes:
        n: how many directions.
        order: highest order, 1 to 4.
        collapsed: the first derivatives along each, and one sum of the second ones: a Laplacian.
    """

    n: int
    order: int
    collapsed: bool = False

    @property
    def sizes(self) -> list[int]:
        """Channels of each order."""
        return [self.n, 1] if self.collapsed else [self.n] * self.order


@dataclass(frozen=True)
class Smooth:
    """A function with its derivatives.

    Attributes:
        value: f.
        derivatives: (x, f(x), order) -> [f'(x), ..., f^(order)(x)].
    """

    value: Callable[[Tensor], Tensor]
    derivatives: Callable[[Tensor, Tensor, int], list[Tensor]]


class Chain(torch.autograd.Function):
    """f of stacked channels (value | group | group ...), (channels, *shape) -> the same shape.

    Keeps its input and output only, whereas automatic differentiation would keep every product; differentiable once.
    """

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], data: Tensor, *rest: Any) -> tuple[Tensor, int]:
        """A batch is one more axis of points."""
        assert in_dims[0] is not None
        return Chain.apply(data.movedim(in_dims[0], 1), *rest), 1

    @staticmethod
    def forward(data: Tensor, groups: Sequence[Group], smooth: Smooth) -> Tensor:
        """Value and derivatives of f(h)."""
        order = max([0, *(g.order for g in groups)])
        out = torch.empty_like(data)
        for h, y in zip(_blocks(data), _blocks(out), strict=True):
            value = smooth.value(h[0])
            f = smooth.derivatives(h[0], value, order)
            parts = [value[None]]
            for group, g in zip(groups, _split(h, groups), strict=True):
                if group.collapsed:
                    parts += [f[0] * g[0], (f[1] * _sum_squares(g[0])).addcmul_(f[0], g[1])]
                else:
                    parts += _orders(f, g)
            y.copy_(torch.cat(parts))
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the adjoint needs."""
        data, ctx.groups, ctx.smooth = inputs
        ctx.save_for_backward(data, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The adjoint: g_j = sum over k >= j of binomial(k, j) g_k D^(k-j) f'(h)."""
        data, output = ctx.saved_tensors
        order = max([0, *(group.order for group in ctx.groups)])
        found = torch.empty_like(gradients[0])
        for h, y, g, out in zip(*map(_blocks, (data, output, gradients[0], found)), strict=True):
            f = ctx.smooth.derivatives(h[0], y[0], order + 1)
            out.copy_(torch.cat(_adjoint(ctx.groups, f, h, g)))
        return found, None, None


def _adjoint(groups: Sequence[Group], f: Sequence[Tensor], h: Tensor, g: Tensor) -> list[Tensor]:
    """Derivatives of the channels, from those g of f(h)."""
    value = g[0] * f[0]
    parts: list[Tensor] = []
    for group, h_k, g_k in zip(groups, _split(h, groups), _split(g, groups), strict=True):
        if group.collapsed:
            slope = f[1] * h_k[0]
            value = value + (g_k[0] * slope).sum(dim=0)
            value = value + (g_k[1] * (f[2] * _sum_squares(h_k[0])).addcmul_(f[1], h_k[1]))[0]
            parts += [(f[0] * g_k[0]).addcmul_(g_k[1], slope, value=2.0), f[0] * g_k[1]]
            continue
        S = _orders(f[1:], h_k)
        here = [f[0] * one for one in g_k]
        for k in range(1, group.order + 1):
            value = value + (g_k[k - 1] * S[k - 1]).sum(dim=0)
            for j in range(1, k):
                here[j - 1].addcmul_(g_k[k - 1], S[k - j - 1], value=math.comb(k, j))
        parts += here
    return [value[None], *parts]


def _blocks(data: Tensor) -> Sequence[Tensor]:
    """Pieces of (channels, n, ...) along n, small enough that what is computed from them stays in the cache."""
    if data.ndim < 3 or data.is_cuda:
        return [data]
    n = data.shape[1]
    rows = max(1, _BLOCK * n // max(1, data[0].numel()))
    return [data.narrow(1, start, min(rows, n - start)) for start in range(0, n, rows)]


def _split(data: Tensor, groups: Sequence[Group]) -> list[list[Tensor]]:
    """The channels of each group by order."""
    found = []
    start = 1
    for group in groups:
        sizes = group.sizes
        found.append(list(data[start : start + sum(sizes)].split(sizes)))
        start += sum(sizes)
    return found


def _sum_squares(h: Tensor) -> Tensor:
    return h.square().sum(dim=0, keepdim=True)


def _orders(f: Sequence[Tensor], h: Sequence[Tensor]) -> list[Tensor]:
    """D^k f(h) for k = 1 ... len(h), f = [f', f'', ...]."""
    found = [f[0] * h[0]]
    if len(h) >= 2:
        h11 = h[0].square()
        found.append((f[1] * h11).addcmul_(f[0], h[1]))
    if len(h) >= 3:
        cubic = (f[2] * h11).addcmul_(f[1], h[1], value=3.0).mul_(h[0])
        found.append(cubic.addcmul_(f[0], h[2]))
    if len(h) >= 4:
        quartic = (f[3] * h11).addcmul_(f[2], h[1], value=6.0).mul_(h11)
        second = (3.0 * h[1].square()).addcmul_(h[0], h[2], value=4.0)
        found.append(quartic.addcmul_(f[1], second).addcmul_(f[0], h[3]))
    return found


def _tanh(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    f = []
    if order >= 1:
        f.append(1.0 - y * y)
    if order >= 2:
        f.append(-2.0 * y * f[0])
    if order >= 3:
        f.append(f[0] * (6.0 * y * y - 2.0))
    if order >= 4:
        f.append(f[1] * (12.0 * y * y - 8.0))
    if order >= 5:
        square = y * y
        f.append(f[0] * (16.0 + square * (120.0 * square - 120.0)))
    return f


def _sigmoid(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    p = y * (1.0 - y)
    slope = 1.0 - 2.0 * y
    f = [p, p * slope, p * (1.0 - 6.0 * p), p * slope * (1.0 - 12.0 * p), p * (1.0 - 30.0 * p + 120.0 * p * p)]
    return f[:order]


def _silu(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    # (x s)^(k) = x s^(k) + k s^(k-1)
    s = torch.sigmoid(x)
    f = [s, *_sigmoid(x, s, order)]
    return [x * f[k] + k * f[k - 1] for k in range(1, order + 1)]


def _gelu(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    cdf = 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5)))
    pdf = torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    square = x * x
    f = [cdf + x * pdf, pdf * (2.0 - square), pdf * x * (square - 4.0)]
    f += [pdf * (square * (7.0 - square) - 4.0), pdf * x * (square * (square - 11.0) + 18.0)]
    return f[:order]


def _softplus(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    s = torch.sigmoid(x)
    return [s, *_sigmoid(x, s, order)][:order]


def _sine(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    other = torch.cos(x)
    return [other, -y, -other, y, other][:order]


def _cosine(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    other = torch.sin(x)
    return [-other, -y, other, y, -other][:order]


def _hyperbolic(other: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, int], list[Tensor]]:
    def derivatives(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
        z = other(x)
        return [z, y, z, y, z][:order]

    return derivatives


def _log(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
    return [(-1.0) ** (k - 1) * math.factorial(k - 1) * x**-k for k in range(1, order + 1)]


def _error_function(sign: float) -> Callable[[Tensor, Tensor, int], list[Tensor]]:
    def derivatives(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
        bell, square = sign * 2.0 / math.sqrt(math.pi) * torch.exp(-x * x), x * x
        f = [bell, -2.0 * x * bell, (4.0 * square - 2.0) * bell]
        f += [x * (12.0 - 8.0 * square) * bell, (square * (16.0 * square - 48.0) + 12.0) * bell]
        return f[:order]

    return derivatives


def power(exponent: float) -> Smooth:
    """x^exponent, for a number as exponent."""

    def derivatives(x: Tensor, y: Tensor, order: int) -> list[Tensor]:
        f, factor = [], float(exponent)
        for k in range(1, order + 1):
            # Once the factor is zero the negative power, infinite at 0, must not be formed.
            f.append(factor * x ** (exponent - k) if factor else torch.zeros_like(x))
            factor *= exponent - k
        return f

    return Smooth(lambda x: x**exponent, derivatives)


SMOOTH = {
    "tanh": Smooth(torch.tanh, _tanh),
    "sin": Smooth(torch.sin, _sine),
    "cos": Smooth(torch.cos, _cosine),
    "exp": Smooth(torch.exp, lambda x, y, order: [y] * order),
    "log": Smooth(torch.log, _log),
    "sinh": Smooth(torch.sinh, _hyperbolic(torch.cosh)),
    "cosh": Smooth(torch.cosh, _hyperbolic(torch.sinh)),
    "erf": Smooth(torch.erf, _error_function(1.0)),
    "erfc": Smooth(torch.erfc, _error_function(-1.0)),
    "sigmoid": Smooth(torch.sigmoid, _sigmoid),
    "gelu": Smooth(nn.functional.gelu, _gelu),
    "silu": Smooth(nn.functional.silu, _silu),
    "softplus": Smooth(nn.functional.softplus, _softplus),
}

"""Sums of Gaussians as features of a field: values, derivatives and rows of Jacobians.

    FE_j(x) = sum_i w_ji G_ji(x),    G = exp(-|z|^2 / 2),    z = D^-1 L (x - mu),    D = diag(sigma)

L is unit lower triangular, so that Sigma^-1 = L' D^-2 L is any symmetric positive definite matrix; it is the identity
for diagonal covariances. Where x is an affine image of the points, the derivatives along a direction v are Gaussians
times polynomials of l = -(D^-1 L v) . z, which is affine in x:

    D_v^q G = h_q G,   h_1 = l,  h_2 = l^2 + c,  h_3 = l^3 + 3 c l,  h_4 = l^4 + 6 c l^2 + 3 c^2,   c = -|D^-1 L v|^2

Expanded in powers of x, all channels together are one exponential and one product of matrices.

Source: N. Kang, J. Oh, Y. Hong, E. Park, ICLR 2025, arXiv:2412.05994 (the features); the closed form and the
triangular factor instead of rotations are ours.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pdelab.errors import check_shape
from pdelab.taylor import AbstractMap, Series, Use, record

TILE = 2**20
"""Entries of all channels, points and Gaussians that are evaluated at once."""

_POLYNOMIALS = ({1: {0: 1}}, {2: {0: 1}, 0: {1: 1}}, {3: {0: 1}, 1: {1: 3}}, {4: {0: 1}, 2: {1: 6}, 0: {2: 3}})
"""h_1, ... as power of l -> power of c -> factor."""

Monomial = tuple[int, ...]
"""Numbers of the axes whose coordinates are multiplied."""


class Gaussians(nn.Module):
    """k features, each a sum of N Gaussians with trained centres, widths and weights, (n, d) -> (n, k).

    Args:
        centres: (k, N, d).
        widths: sigma at first, (d,).
        floor: sigma = floor + softplus(.) cannot fall to it, (d,); less than `widths`.
        full: whether covariances are full or diagonal.
        affine: whether the inputs are affine images of the points; anything else, such as the cosines of a periodic
            axis, goes the longer way through the chain rule.

    Raises:
        ShapeError: centres of another shape.
    """

    floor: Tensor

    def __init__(self, centres: Tensor, widths: Tensor, floor: Tensor, full: bool, affine: bool):
        super().__init__()
        check_shape("centres", centres, (None, None, None))
        k, N, d = centres.shape
        self._affine = affine
        self.register_buffer("floor", floor.clone())
        self.centres = nn.Parameter(centres.clone())
        self.raw_widths = nn.Parameter(torch.log(torch.expm1(widths - floor)).expand_as(centres).clone())
        self.weights = nn.Parameter(0.01 * torch.randn(k, N, dtype=centres.dtype))
        below = d * (d - 1) // 2 if full else 0
        self.shears = nn.Parameter(centres.new_zeros(k, N, below)) if below else None

    @property
    def widths(self) -> Tensor:
        """sigma (k, N, d)."""
        return self.floor + nn.functional.softplus(self.raw_widths)

    def set_widths(self, widths: Tensor) -> None:
        """Change sigma (k, N, d), where it is above the floor; below it becomes nearly the floor."""
        above = (widths - self.floor).maximum(1e-3 * self.floor)
        with torch.no_grad():
            self.raw_widths.copy_(torch.log(torch.expm1(above)))

    def shapes(self, x: Tensor) -> Tensor:
        """G (k, n, N) at points (n, d)."""
        standardised = torch.stack([z.data[0] for z in self.standardised(Series(x[None], ()))])
        return torch.exp(-0.5 * standardised.square().sum(dim=0))

    def factors(self) -> Tensor:
        """W = D^-1 L, (k, N, d, d): Sigma^-1 = W' W."""
        k, N, d = self.centres.shape
        L = torch.eye(d, dtype=self.centres.dtype, device=self.centres.device).repeat(k, N, 1, 1)
        for entry, (row, column) in enumerate(self.places()):
            assert self.shears is not None
            L[:, :, row, column] = self.shears[:, :, entry]
        return L / self.widths[..., None]

    def places(self) -> Sequence[tuple[int, int]]:
        """Row and column in L of each entry of `shears`."""
        if self.shears is None:
            return ()
        return [(row, column) for row in range(self.centres.shape[2]) for column in range(row)]

    def forward(self, x: Any) -> Any:
        """(n, d) -> (n, k), points or their series."""
        if not isinstance(x, Series):
            return self._tiled(x[None], 1, lambda part: self._closed(Series(part, ()))).data[0]
        # In float32 the powers of x would cancel.
        if self._affine and x.dtype is torch.float64:
            found = self._tiled(x.data, 1, lambda part: self._closed(Series(part, x.groups)))
        else:
            found = self._tiled(x.data, len(x.data), lambda part: self._composed(Series(part, x.groups)))
        trained = [p for p in self.parameters() if p.requires_grad]
        record(_GaussianMap(trained, self, Series(x.data.detach(), x.groups), found.data))
        return Series(found.data, x.groups)

    def _tiled(self, data: Tensor, channels: int, evaluate: Callable[[Tensor], Series]) -> Series:
        """The features at (channels, n, d), part after part if they are many; parts are evaluated again backwards."""
        rows = max(1, TILE // (channels * self.weights.numel()))
        if data.shape[1] <= rows:
            return evaluate(data)
        parts = [checkpoint(lambda part: evaluate(part).data, p, use_reentrant=False) for p in data.split(rows, dim=1)]
        return Series(torch.cat(parts, dim=1), ())

    def _closed(self, x: Series) -> Series:
        """By powers of x; for affine images of points."""
        G = self.shapes(x.value)
        terms = list(self._terms(x))
        columns = torch.stack([coefficient for _, _, coefficient in terms], dim=2) * self.weights[..., None]
        ones = torch.ones_like(x.value[:, 0])
        powers = torch.stack([math.prod((x.value[:, e] for e in m), start=ones) for _, m, _ in terms], dim=1)
        channel = torch.tensor([c for c, _, _ in terms], device=G.device)
        # (k, n, terms), each term added to its channel.
        products = (G @ columns) * powers
        found = products.new_zeros(*products.shape[:2], len(x.data)).index_add(2, channel, products)
        return Series(found.permute(2, 1, 0), x.groups)

    def _terms(self, x: Series) -> Iterator[tuple[int, Monomial, Tensor]]:
        """Channel, powers of x and coefficient (k, N) of what is multiplied with the Gaussians."""
        yield 0, (), torch.ones_like(self.weights)
        W = self.factors() if x.groups else None
        position = 1
        for number, group in enumerate(x.groups):
            assert W is not None
            for i, v in enumerate(x.parts(number)[0][:, 0]):
                Wv = W @ v
                c, b = -Wv.square().sum(dim=-1), -(W.mT @ Wv[..., None])[..., 0]
                a = -(b * self.centres).sum(dim=-1)
                axes = self._support(v)
                for q in range(1, group.order + 1):
                    channel = position + (q - 1) * group.n + (0 if group.collapsed and q == 2 else i)
                    for power, factors in _POLYNOMIALS[q - 1].items():
                        scale = sum(f * c**s for s, f in factors.items())
                        for monomial, coefficient in _power(a, b, axes, power):
                            yield channel, monomial, coefficient * scale
            position += sum(group.sizes)

    def _support(self, v: Tensor) -> Sequence[int]:
        """Axes on which derivatives along v make the Gaussians depend further."""
        d = len(v)
        if self.shears is not None or v.device.type != "cpu":
            return range(d)
        return [e for e in range(d) if v[e]]

    def _composed(self, x: Series) -> Series:
        """By the chain rule, for any series."""
        G = _bell(self.standardised(x))
        return Series((G.data * self.weights[:, None]).sum(dim=-1).mT, x.groups)

    def standardised(self, x: Series) -> list[Series]:
        """z_m (k, n, N) of each axis m."""
        shifts = [self.shift(x, e) for e in range(x.shape[1])]
        columns: list[list[tuple[int, int]]] = [[] for _ in shifts]
        for entry, (row, column) in enumerate(self.places()):
            columns[row].append((entry, column))
        found = []
        for m, shift in enumerate(shifts):
            for entry, column in columns[m]:
                assert self.shears is not None
                shift = shift + self.shears[:, None, :, entry] * shifts[column]
            found.append(Series(shift / self.widths[:, None, :, m], x.groups))
        return found

    def shift(self, x: Series, e: int) -> Tensor:
        """Channels of x_e - mu_e, (channels, k, n, N)."""
        column = x.data[:, None, :, e, None]
        return torch.cat([column[:1] - self.centres[None, :, None, :, e], column[1:].expand(-1, *self._size(x))])

    def _size(self, x: Series) -> tuple[int, int, int]:
        return len(self.weights), x.shape[0], self.weights.shape[1]


@dataclass(frozen=True, eq=False)
class _GaussianMap(AbstractMap):
    """One use of Gaussians: `outputs` (channels, n, k) at `inputs` (channels, n, d)."""

    parameters: Sequence[Tensor]
    gaussians: Gaussians
    inputs: Series
    outputs: Tensor

    def uses(self, g: Tensor, first: int) -> Sequence[Use]:
        """See `AbstractMap.uses`.

        A Gaussian's parameters move no other one. With S = sum over channels of g_c D_c G, one backward pass gives
        p_mc = d(w S)/d(D_c z_m) for all points and Gaussians, and

            d/dw = S,   d/dmu_e = -sum_m W_me p_m0,   d/dsigma_m = -sum_c p_mc D_c z_m / sigma_m,
            d/dL_me = sum_c p_mc D_c (x - mu)_e / sigma_m.
        """

        @functools.lru_cache(maxsize=1)
        def blocks(start: int, stop: int) -> list[Tensor]:
            return self._blocks(g[:, start:stop], slice(first + start, first + stop))

        return [functools.partial(lambda i, a, b: blocks(a, b)[i], i) for i in range(len(self.parameters))]

    @torch.no_grad()
    def _blocks(self, g: Tensor, points: slice) -> list[Tensor]:
        own = self.gaussians
        x = Series(self.inputs.data[:, points], self.inputs.groups)
        z = [Series(s.data.requires_grad_(True), s.groups) for s in own.standardised(x)]
        moved = any(p is not own.weights for p in self.parameters)
        with torch.set_grad_enabled(moved):
            S = (g.permute(0, 2, 1)[..., None] * _bell(z).data).sum(dim=0)
        found = {id(own.weights): S.detach()[..., None]}
        if moved:
            with torch.enable_grad():
                p = torch.autograd.grad((own.weights.detach()[:, None] * S).sum(), [s.data for s in z])
            W, widths, slope = own.factors()[:, None], own.widths[:, None], torch.sigmoid(own.raw_widths)[:, None]
            axes = range(len(z))
            first = torch.stack([p_m[0] for p_m in p], dim=-1)
            centres = -(W.mT @ first[..., None])[..., 0]
            raw = [-(p[m] * z[m].data).sum(dim=0) / widths[..., m] * slope[..., m] for m in axes]
            shears = [(p[m] * own.shift(x, e)).sum(dim=0) / widths[..., m] for m, e in own.places()]
            found |= {id(own.centres): centres, id(own.raw_widths): torch.stack(raw, dim=-1)}
            found |= {id(own.shears): torch.stack(shears, dim=-1)} if shears else {}
        return [found[id(p)].movedim(1, 0).flatten(1) for p in self.parameters]


def _bell(z: Sequence[Series]) -> Series:
    """exp(-|z|^2 / 2)."""
    square = z[0] * z[0]
    for s in z[1:]:
        square = square + s * s
    return (square * -0.5).exp()


def _power(a: Tensor, b: Tensor, axes: Sequence[int], power: int) -> Iterator[tuple[Monomial, Tensor]]:
    """(a + b . x)^power by powers of x."""
    for chosen in itertools.combinations_with_replacement((-1, *axes), power):
        counts = collections.Counter(chosen).values()
        ways = math.factorial(power) // math.prod(math.factorial(c) for c in counts)
        factors = (a if e < 0 else b[..., e] for e in chosen)
        yield tuple(e for e in chosen if e >= 0), math.prod(factors, start=torch.full_like(a, float(ways)))

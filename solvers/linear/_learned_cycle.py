"""Our network of the deep conjugate direction method: a V-cycle whose smoothers are predicted from the geometry."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdelab.solvers.linear._hierarchy import Level, hierarchy, prolong, pseudo_inverse, restrict

N_SETS = 3  # of weights: for the finest level, the next, and all coarser ones


@dataclass(frozen=True, eq=False)
class Smoother:
    """A symmetric operator of 3^d points: u_i = s_i (w_i v_i + sum_j k_ij v_j), v = s r, s = diagonal^(-1/2).

    Attributes:
        scale: s, 0 in cells that are no unknowns; of the grid's shape.
        own: w, of the grid's shape.
        pairs: for each offset of half of the neighbours the weights k of the cells and those at that offset.
    """

    scale: Tensor
    own: Tensor
    pairs: tuple[tuple[tuple[int, ...], Tensor], ...]

    def __call__(self, r: Tensor) -> Tensor:
        """Fields (k, *shape) to fields."""
        v = self.scale * r
        u = self.own * v
        for offset, weight in self.pairs:
            here, there = _part(u, offset), _part(u, tuple(-o for o in offset))
            here += weight * _part(v, tuple(-o for o in offset))
            there += weight * _part(v, offset)
        return self.scale * u


@dataclass(frozen=True, eq=False)
class Cycle:
    """What the network makes of one matrix: linear and symmetric in r.

    u = S r;  u += P M_c P^T (r - A u);  u += S (r - A u)

    with the smoother S and the interpolation P weighted cell by cell as the network says, and M_c the cycle of the next
    level, on the coarsest level the pseudo-inverse.
    """

    levels: list[Level]
    smoothers: list[Smoother]
    shares: list[Tensor]
    coarsest: Tensor

    def __call__(self, r: Tensor) -> Tensor:
        """Directions for the residuals r (k, *shape)."""
        return self._descend(0, r)

    def _descend(self, depth: int, r: Tensor) -> Tensor:
        level = self.levels[depth]
        if depth == len(self.levels) - 1:
            return (r.flatten(1) @ self.coarsest).reshape(r.shape)
        coarser, smooth, share = self.levels[depth + 1], self.smoothers[depth], self.shares[depth]
        u = smooth(r)
        coarse = self._descend(depth + 1, restrict(share * (r - level.matvec(u)), level, coarser))
        u = u + share * prolong(coarse, level, coarser)
        return u + smooth(r - level.matvec(u))


class LearnedCycle(nn.Module):
    """Predicts the weights of a V-cycle from the couplings, walls and obstacles around each cell.

    On each level a small network, the same for all cells and shared by all levels from the third on, sees around each
    cell which cells are unknowns, the couplings to the neighbours over the diagonals, and the excess of the diagonal;
    it gives the weights of `Smoother` and of the interpolation. The grid may be of any size.

    Args:
        d: 2 or 3 axes.
        width: channels of the network.
    """

    def __init__(self, d: int, width: int = 16):
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1]
        self.d, self.width = d, width
        self.offsets = half_offsets(d)
        n_out = 2 + 2 * len(self.offsets)
        self.nets = nn.ModuleList(
            nn.Sequential(
                convolution(2 * d + 2, width, 3, padding=1),
                nn.ReLU(),
                convolution(width, width, 1),
                nn.ReLU(),
                convolution(width, n_out, 1),
            )
            for _ in range(N_SETS)
        )
        start = torch.zeros(n_out)
        start[0], start[1] = 0.7, 1.0
        for k, offset in enumerate(self.offsets):
            start[2 + 2 * k : 4 + 2 * k] = 0.15 if sum(map(abs, offset)) == 1 else 0.0
        for net in self.nets:
            last = dict(net.named_parameters())
            nn.init.normal_(last["4.weight"], std=0.01)
            last["4.bias"].data.copy_(start)

    def forward(self, level: Level) -> Cycle:
        """The cycle for the matrix of a level, whose precision the parameters share."""
        return self.on(hierarchy(level))

    def on(self, levels: Sequence[Level], coarsest: Tensor | None = None) -> Cycle:
        """The same where the coarser levels and the pseudo-inverse of the last are known."""
        smoothers, shares = [], []
        for depth, level in enumerate(levels[:-1]):
            out = self.nets[min(depth, N_SETS - 1)](_image(level)[None])[0]
            pairs = []
            for k, offset in enumerate(self.offsets):
                back = tuple(-o for o in offset)
                # The weight of a pair is asked for from both of its cells.
                pairs.append((offset, 0.5 * (_part(out[2 + 2 * k], offset) + _part(out[3 + 2 * k], back))))
            scale = level.inverse_diagonal.sqrt()
            smoothers.append(Smoother(scale, out[0], tuple(pairs)))
            shares.append(out[1])
        inverse = pseudo_inverse(levels[-1]) if coarsest is None else coarsest
        return Cycle(list(levels), smoothers, shares, inverse)


def half_offsets(d: int) -> list[tuple[int, ...]]:
    """One of each pair of opposite neighbours: of all in the plane, of those that share an edge in space."""
    every = [o for o in itertools.product((-1, 0, 1), repeat=d) if 0 < sum(map(abs, o)) <= 2]
    return [o for o in every if o > tuple(-i for i in o)]


def _part(values: Tensor, offset: tuple[int, ...]) -> Tensor:
    """The cells of the last axes that have a neighbour at that offset."""
    for axis, o in enumerate(offset, values.ndim - len(offset)):
        n = values.shape[axis] - abs(o)
        values = values.narrow(axis, max(0, -o), n)
    return values


def _image(level: Level) -> Tensor:
    """What the network sees, (2 d + 2, *shape)."""
    scale = level.inverse_diagonal.sqrt()
    channels = [level.active, level.excess * level.inverse_diagonal]
    for axis, face in enumerate(level.faces):
        n = level.shape[axis] - 1
        coupling = face * scale.narrow(axis, 0, n) * scale.narrow(axis, 1, n)
        none = torch.zeros_like(level.active.narrow(axis, 0, 1))
        channels += [torch.cat([coupling, none], axis), torch.cat([none, coupling], axis)]
    return torch.stack(channels)

"""Fields that are sums of products of functions of one axis each, evaluated once for each coordinate of a grid.

    u_c(x) = sum over r = 1 ... R of  prod over axes a of  f_a,rc(x_a)

On n points of a tensor grid each f_a is asked for at n^(1/d) coordinates only.

Source: J. Cho et al., Separable Physics-Informed Neural Networks, NeurIPS 2023 (products of networks); N. Kang et al.,
ICLR 2025, arXiv:2412.05994 (products of Gaussian features).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pdelab.taylor import Series, recording


class SeparableField(nn.Module):
    """The sum of products, (n, inputs) -> (n, m).

    Args:
        factors: f_a, (n, inputs of an axis) -> (n, R m), one for each axis.
        columns: which inputs belong to each axis.
        rank: R.
    """

    def __init__(self, factors: Sequence[nn.Module], columns: Sequence[Sequence[int]], rank: int):
        super().__init__()
        self.factors = nn.ModuleList(factors)
        self._columns, self._rank = [list(c) for c in columns], rank

    def forward(self, x: Any) -> Any:
        """(n, inputs) -> (n, m), points or their series."""
        both = zip(self.factors, self._columns, strict=True)
        product = functools.reduce(operator.mul, [_along(factor, x[:, columns]) for factor, columns in both])
        return product.reshape(len(x), self._rank, -1).sum(dim=1)


def _along(factor: nn.Module, x: Any) -> Any:
    """A factor at the coordinates of an axis (n, inputs), once for each that occurs at least twice as often as not."""
    if not isinstance(x, Series) or recording():
        # Rows of Jacobians are told apart by points.
        return factor(x)
    # Derivatives have the same directions at all points: they belong to the coordinate as the value does.
    values, back = torch.unique(x.value, dim=0, return_inverse=True)
    if 2 * len(values) > len(x):
        return factor(x)
    one_of = torch.empty(len(values), dtype=torch.int64, device=back.device)
    one_of[back] = torch.arange(len(x), device=back.device)
    return factor(Series(x.data[:, one_of], x.groups))[back]

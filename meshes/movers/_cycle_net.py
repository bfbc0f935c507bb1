"""A network from the logarithm of a monitor on a grid to displacements: a V-cycle, the same on every level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from pdelab.train import Report

COARSEST = 4  # cells along the longer side at which the cycle turns round


class CycleNet(nn.Module):
    """Displacements from the logarithm of a monitor over its mean, on a regular grid of square cells.

        level(r):   f = pre(r),   d', g' = level(mean of r over 2 x 2 cells)
                    g = post(f, up(g'), 2 up(d')),   d = 2 up(d') + out(g)

    Displacements are in units of the grid of each level, so that doubling mesh and field in size doubles them: all
    levels have the same weights, a few thousand, and a mesh with more nodes has more levels. The cost is O(grid
    cells), the reach the whole domain. No layer has a bias and what lies outside the mesh is set to zero, so that a
    constant monitor moves nothing.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.pre = nn.ModuleList([_convolution(2, width), _convolution(width, width)])
        self.post = nn.ModuleList(
            [_convolution(2 * width + 2, width), _convolution(width, width), _convolution(width, width)]
        )
        self.out = _convolution(width, 2)
        self.report: Report | None = None
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def forward(self, r: Tensor, cover: Tensor) -> Tensor:
        """Displacements (1, 2, h, w) in units of the grid, for r and the cells' cover, (1, 1, h, w)."""
        return self._level(r, cover)[0]

    def _level(self, r: Tensor, cover: Tensor) -> tuple[Tensor, Tensor]:
        inside = (cover > 0).to(r.dtype)
        f = torch.cat([r, r * cover], dim=1)
        for layer in self.pre:
            f = functional.silu(layer(f)) * inside
        height, width = r.shape[-2:]
        if max(height, width) > COARSEST:
            coarse_cover = functional.avg_pool2d(_even(cover), 2)
            coarse = functional.avg_pool2d(_even(r * cover), 2) / coarse_cover.clamp(min=1e-6)
            d, g = self._level(coarse, coarse_cover)
            d, g = _up(2.0 * d, height, width), _up(g, height, width)
        else:
            d, g = r.new_zeros(1, 2, height, width), torch.zeros_like(f)
        h = functional.silu(self.post[0](torch.cat([f, g, d], dim=1))) * inside
        for layer in self.post[1:]:
            h = h + functional.silu(layer(h)) * inside
        return d + self.out(h), h


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _even(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return functional.pad(x, (0, width % 2, 0, height % 2))


def _up(x: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear")[:, :, :height, :width]

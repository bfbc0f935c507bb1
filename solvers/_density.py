"""Density control of Gaussians: their number stays, those that do little are put where more are needed.

    size_i = |w_i| (sigma_1 ... sigma_d)^(1/2)                  its L2 norm, but for a factor
    need_i = mean sigma_i  sum over points of |residual| G_i    residual times width, where it is

Of two Gaussians nearly alike one takes the weight of both, so that the other is free; so are those of least size. Each
free one goes to a Gaussian of greatest need, which is split along its widest axis: two of half its weight, sigma/2 to
either side, and narrower there by SPLIT.

Source: B. Kerbl et al., ACM Trans. Graph. 42 (2023) 139, section 5.2 (splitting and pruning, for pictures and growing
numbers).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pdelab.solvers._gaussians import Gaussians

SHARE = 0.1
SPLIT = 1.6
ALIKE = 0.1
"""Centres closer than this, in sigmas, and widths equal up to this share."""


@torch.no_grad()
def control_density(gaussians: Gaussians, x: Tensor, residual: Tensor) -> int:
    """Move a tenth of the Gaussians of each feature, at most; returns how many in all.

    Args:
        gaussians: changed in place.
        x: points in the coordinates of the Gaussians, (n, d).
        residual: sizes of the residual there, >= 0, (n,).
    """
    moved = 0
    widths = gaussians.widths.clone()
    need = widths.mean(dim=2) * gaussians.shapes(x).mul(residual[:, None]).sum(dim=1)
    for j in range(len(need)):
        free = _freed(gaussians, widths, j)[: int(SHARE * need.shape[1])]
        others = need[j].clone()
        others[free] = -1.0
        wanted = others.argsort(descending=True)[: len(free)]
        _split(gaussians, widths, j, wanted, free)
        moved += len(free)
    gaussians.set_widths(widths)
    return moved


def _freed(gaussians: Gaussians, widths: Tensor, j: int) -> Tensor:
    """Numbers of the Gaussians that feature j can do without, duplicates first, then the smallest."""
    mu, w = gaussians.centres[j], gaussians.weights[j]
    sigma = widths[j]
    gap = ((mu[:, None] - mu[None]) / sigma[None]).norm(dim=2)
    ratio = (sigma[:, None] / sigma[None]).log().abs().amax(dim=2)
    alike = ((gap < ALIKE) & (ratio < ALIKE)).triu(1)
    twins = torch.zeros(len(mu), dtype=torch.bool, device=mu.device)
    for i, k in alike.nonzero().tolist():
        if not twins[i] and not twins[k]:
            w[i] += w[k]
            w[k] = 0.0
            twins[k] = True
    size = w.abs() * sigma.prod(dim=1).sqrt()
    return size.argsort()


def _split(gaussians: Gaussians, widths: Tensor, j: int, wanted: Tensor, free: Tensor) -> None:
    """Put each free Gaussian beside one that is wanted twice."""
    mu, w = gaussians.centres[j], gaussians.weights[j]
    axis = widths[j, wanted].argmax(dim=1)
    step = torch.zeros_like(mu[wanted])
    step[torch.arange(len(wanted)), axis] = 0.5 * widths[j, wanted, axis]
    mu[free], mu[wanted] = mu[wanted] + step, mu[wanted] - step
    half = 0.5 * w[wanted]
    w[free], w[wanted] = half, half
    widths[j, wanted, axis] = widths[j, wanted, axis] / SPLIT
    widths[j, free] = widths[j, wanted]
    if gaussians.shears is not None:
        gaussians.shears[j, free] = gaussians.shears[j, wanted]

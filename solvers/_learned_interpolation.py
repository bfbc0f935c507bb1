"""Interpolation between two sets of nodes with learned weights, exact for constants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 0.1


class LearnedInterpolation(nn.Module):
    """Values at places from those of the k nearest nodes, with weights that a network gives.

        value(y) = u_1 + sum over k of w_k (u_k - u_1),   w_k = a_k/max(s, 0.1),   s = sum of all a_k

    u_1 is the value at the nearest node and a_k = exp(-4 (d_k/r)^2) (1 + net(y)_k), with distances d_k in units of
    their mean r. Where the floor does not act this is the normalised sum of w_k u_k, and it keeps constants where it
    acts. The network sees (x_k - y)/r of all k, so that neither place nor scale matters.

    Differences from the source: relative coordinates, weights that sum to 1, and a kernel that the network corrects;
    the source feeds absolute coordinates and leaves the weights free.

    Args:
        neighbours: k.
        width: of the two hidden layers.

    Source: P. Hu, Y. Wang, Z.-M. Ma, ICLR 2024, the interpolation of MM-PDE.
    """

    def __init__(self, neighbours: int, width: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * neighbours, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, neighbours),
        )

    def weights(self, offsets: Tensor) -> Tensor:
        """For offsets x_k - y (n, k, 2), nearest first: (n, k) that sum to 1, the rest on the nearest node."""
        distance = offsets.norm(dim=2)
        unit = distance.mean(dim=1, keepdim=True).clamp_min(torch.finfo(offsets.dtype).tiny)
        kernel = torch.exp(-4.0 * (distance / unit) ** 2)
        found = kernel * (1.0 + self.layers((offsets / unit[:, :, None]).flatten(1)))
        found = found / found.sum(dim=1, keepdim=True).clamp_min(FLOOR)
        rest = 1.0 - found.sum(dim=1)
        return torch.cat([found[:, :1] + rest[:, None], found[:, 1:]], dim=1)

    def forward(self, values: Tensor, nearest: Tensor, offsets: Tensor) -> Tensor:
        """Values (N, m) at nodes -> (n, m), for numbers (n, k) of the nearest nodes and offsets x_k - y (n, k, 2)."""
        return torch.einsum("nk,nkm->nm", self.weights(offsets), values[nearest])

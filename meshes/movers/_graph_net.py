"""The network of UM2N as released: attention between all nodes, sums over edges, graph attention that moves nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.utils import scatter, softmax

if TYPE_CHECKING:
    from pdelab.train import Report

CODE = 16  # numbers for each node from each encoder


class GlobalEncoder(nn.Module):
    """A transformer block between all nodes of a mesh: (N, 3) -> (N, 16), O(N^2) memory."""

    def __init__(self, width: int = 64, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.embed = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.in_projection, self.out_projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head_scale = nn.Parameter(torch.ones(heads))
        self.expand = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU())
        self.contract = nn.Sequential(nn.LayerNorm(4 * width), nn.Linear(4 * width, width))
        self.residual_scale = nn.Parameter(torch.ones(width))
        self.code = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, CODE), nn.SELU())

    def forward(self, nodes: Tensor) -> Tensor:
        """The code of each node, (N, 16)."""
        h = self.embed(nodes)
        q, k, v = (
            p.unflatten(1, (self.heads, -1)).transpose(0, 1) for p in self.in_projection(self.before(h)).chunk(3, 1)
        )
        seen = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        seen = (seen * self.head_scale[:, None, None]).transpose(0, 1).flatten(1)
        h = h + self.after(self.out_projection(seen))
        return self.code(self.residual_scale * h + self.contract(self.expand(h)))


class LocalEncoder(nn.Module):
    """Sums over the edges that end in each node: [x_j - x_i, |x_j - x_i|, m_i, m_j] -> (N, 16)."""

    def __init__(self, width: int = 64):
        super().__init__()
        sizes = ((5, width), (width, width), (width, CODE - 1))
        self.layers = nn.Sequential(*(part for size in sizes for part in (nn.Linear(*size), nn.SELU())))

    def forward(self, x: Tensor, m: Tensor, edges: Tensor) -> Tensor:
        """The code of each node, (N, 16), for edges (2, E) from j to i."""
        j, i = edges
        step = x[j] - x[i]
        distance = step.norm(dim=1, keepdim=True)
        message = self.layers(torch.cat([step, distance, m[i, None], m[j, None]], dim=1))
        return scatter(torch.cat([message, distance], dim=1), i, dim_size=len(x))


class DeformableAttention(nn.Module):
    """Graph attention that moves the nodes as well.

        s = W f,   c_ij = <s_j, a_left> + <s_i, a_right>,   i the receiver, for each head
        f'_i = SELU(mean over heads of sum_j softmax_j(SELU(c_ij)) s_j)
        x'_i = mean over heads of sum_j softmax_j(SELU(c_ij / 5)) x_j

    There are no loops: every node goes into the hull of its neighbours.
    """

    def __init__(self, inputs: int, outputs: int, heads: int = 6):
        super().__init__()
        self.heads = heads
        self.lift = nn.Linear(inputs, heads * outputs)
        self.left, self.right = (nn.Parameter(torch.empty(heads, outputs)) for _ in range(2))
        for weight in (self.lift.weight, self.left, self.right):
            nn.init.xavier_uniform_(weight)

    def forward(self, features: Tensor, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """New features (N, outputs) and places (N, 2)."""
        j, i = edges
        n = len(x)
        s = self.lift(features).unflatten(1, (self.heads, -1))
        score = (s * self.left).sum(dim=2)[j] + (s * self.right).sum(dim=2)[i]
        near = softmax(functional.selu(score), i, num_nodes=n)
        seen = scatter(near[:, :, None] * s[j], i, dim_size=n).mean(dim=1)
        pull = softmax(functional.selu(0.2 * score), i, num_nodes=n).mean(dim=1)
        return functional.selu(seen), scatter(pull[:, None] * x[j], i, dim_size=n)


class GraphNet(nn.Module):
    """Node places and monitor to new places, as the released class M2N_T.

    Args:
        width: of the first layer of attention; 256 is the released size, 1 839 103 weights.
    """

    def __init__(self, width: int = 256):
        super().__init__()
        self.everywhere, self.around = GlobalEncoder(), LocalEncoder()
        self.lift = nn.Linear(3 + 2 * CODE, width - 2)
        inputs = (width, 2 * width, width, width // 2)
        outputs = (2 * width - 4, width - 6, width // 2 - 8, 20)
        self.layers = nn.ModuleList([DeformableAttention(a, b) for a, b in zip(inputs, outputs, strict=True)])
        self.report: Report | None = None

    def forward(self, x: Tensor, m: Tensor, boundary: Tensor, edges: Tensor) -> Tensor:
        """New places (N, 2) of nodes at x (N, 2) with monitor m (N,), those of `boundary` (N,) unmoved."""
        m = m / m.abs().max()
        codes = [self.around(x, m, edges), self.everywhere(torch.cat([x, m[:, None]], dim=1))]
        f = functional.selu(self.lift(torch.cat([x, boundary[:, None].to(x.dtype), *codes], dim=1)))
        places = [x]
        for layer in self.layers:
            f, moved = layer(torch.cat([*places, f], dim=1), places[-1], edges)
            places.append(torch.where(boundary[:, None], x, moved))
        return places[-1]

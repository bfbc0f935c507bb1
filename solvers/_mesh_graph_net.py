"""A graph network on nodes with neighbours: messages from relative positions and differences of values."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter


class Message(nn.Module):
    """One round: h_i + update(h_i, mean over j of message(h_i, h_j, u_j - u_i, x_j - x_i)), then LayerNorm."""

    def __init__(self, width: int, n_values: int):
        super().__init__()
        self.message = nn.Sequential(nn.Linear(2 * width + n_values + 2, width), nn.SiLU(), nn.Linear(width, width))
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, edges: Tensor, given: Tensor) -> Tensor:
        """(N, width) -> (N, width) for edges (2, E) from j to i and what is given on them (E, m + 2)."""
        j, i = edges
        sent = self.message(torch.cat([h[i], h[j], given], dim=1))
        received = scatter(sent, i, dim_size=len(h), reduce="mean")
        return self.norm(h + self.update(torch.cat([h, received], dim=1)))


class MeshGraphNet(nn.Module):
    """Rates of change at nodes from values at nodes: encoder, rounds of messages, decoder.

    Places enter through differences alone, so a shift of all nodes changes nothing; neither does their order. The
    batch is a graph of several meshes without edges between them.

    Differences from the source: LayerNorm for BatchNorm, no absolute coordinates or time, a linear decoder.

    Args:
        n_values: m, fields.
        width: of all layers.
        rounds: of messages.

    Source: P. Hu, Y. Wang, Z.-M. Ma, ICLR 2024, after J. Brandstetter, D. Worrall, M. Welling, ICLR 2022.
    """

    def __init__(self, n_values: int, width: int = 32, rounds: int = 3):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(n_values, width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width)
        )
        self.rounds = nn.ModuleList(Message(width, n_values) for _ in range(rounds))
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_values))

    def forward(self, u: Tensor, edges: Tensor, steps: Tensor) -> Tensor:
        """(N, m) -> (N, m) for edges (2, E) from j to i and steps x_j - x_i (E, 2) in units of the spacing."""
        given = torch.cat([u[edges[0]] - u[edges[1]], steps], dim=1)
        h = self.encoder(u)
        for layer in self.rounds:
            h = layer(h, edges, given)
        return self.decoder(h)


def nearest_nodes(nodes: np.ndarray, places: np.ndarray, k: int, periods: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k nodes nearest to each place in a periodic box with a corner at 0.

    Args:
        nodes: (N, 2), N >= k.
        places: (n, 2).
        k: how many.
        periods: (2,), > 0, in the unit of the nodes.

    Returns:
        Numbers (n, k), nearest first, and offsets node - place (n, k, 2), the shortest ones around the box.
    """
    from scipy.spatial import cKDTree

    # The remainder of a tiny negative number is the period itself, which the tree does not take.
    wrapped, wanted = (np.where(r < periods, r, 0.0) for r in (np.mod(nodes, periods), np.mod(places, periods)))
    _, nearest = cKDTree(wrapped, boxsize=periods).query(wanted, list(range(1, k + 1)))
    offsets = wrapped[nearest] - wanted[:, None]
    return nearest, offsets - periods * np.rint(offsets / periods)

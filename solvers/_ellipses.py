"""Gaussians as ellipses to be looked at: where they are, how wide, and which way they lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pdelab.lines import Lines
from pdelab.solvers._gaussians import Gaussians
from pdelab.solvers._nets import InputEmbedding

CORNERS = 33


@torch.no_grad()
def ellipses(gaussians: Gaussians, embedding: InputEmbedding) -> Lines | None:
    """The points one sigma away from each centre: an ellipse in two dimensions, three in three, one for each plane.

        x = c + M^(-1/2) e(phi),    M = (W J)' W J,    J = d embedding / dx at c,    Sigma^-1 = W' W

    exactly so on axes that are not periodic, else with the circle replaced by its tangent.

    Returns:
        Lines with the arrays `weight` and `feature`, or None in one dimension and beyond three.
    """
    centres = gaussians.centres.reshape(-1, gaussians.centres.shape[2])
    at = embedding.places(centres)
    d = at.shape[1]
    if d not in (2, 3):
        return None
    J = torch.func.vmap(torch.func.jacrev(lambda x: embedding(x[None])[0]))(at)
    A = gaussians.factors().flatten(0, 1) @ J
    values, vectors = torch.linalg.eigh(A.mT @ A)
    axes = vectors / values[:, None].sqrt() @ vectors.mT
    rings = torch.stack([at[:, None] + ring @ axes for ring in _rings(at, d)], dim=1)
    n = rings.shape[1] * CORNERS
    k, N = gaussians.weights.shape
    arrays = {
        "weight": gaussians.weights.reshape(-1, 1).expand(-1, n),
        "feature": torch.arange(k)[:, None, None].expand(k, N, n),
    }
    lengths = np.full(len(at) * rings.shape[1], CORNERS)
    return Lines(
        rings.reshape(-1, d).numpy(force=True), lengths, {a: v.flatten().numpy(force=True) for a, v in arrays.items()}
    )


def joined(parts: Sequence[Lines]) -> Lines:
    """All lines together."""
    names = parts[0].arrays
    return Lines(
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.lengths for p in parts]),
        {name: np.concatenate([p.arrays[name] for p in parts]) for name in names},
    )


def _rings(like: Tensor, d: int) -> list[Tensor]:
    """Unit circles in each plane of two axes, (CORNERS, d)."""
    phi = torch.linspace(0.0, 2.0 * math.pi, CORNERS).to(like)
    found = []
    for i, j in itertools.combinations(range(d), 2):
        ring = like.new_zeros(CORNERS, d)
        ring[:, i], ring[:, j] = torch.cos(phi), torch.sin(phi)
        found.append(ring)
    return found

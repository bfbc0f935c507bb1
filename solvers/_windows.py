"""Experts one time window after another: each starts from the end of the one before, as causality has it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from pdelab.constraint_layer import ConstraintLayer, Solved
from pdelab.constraint_rows import Rows
from pdelab.errors import SettingsError
from pdelab.solvers._blocks import Blocks
from pdelab.solvers._drawn import Drawn


def windows(blocks: Blocks) -> list[list[int]]:
    """The blocks of each time window, in order.

    Raises:
        SettingsError: the blocks of later windows are not those of the first.
    """
    starts = sorted(set(blocks.lower[:, -1].tolist()))
    found = [[k for k in range(len(blocks)) if blocks.lower[k, -1] == start] for start in starts]
    for experts in found:
        if len(experts) != len(found[0]) or (blocks.lower[experts, :-1] != blocks.lower[found[0], :-1]).any():
            raise SettingsError("coupling='sequential' needs the same blocks in every time window; use coupling=joint")
    return found


def solve_in_order(
    drawn: Drawn, layer: ConstraintLayer, n_components: int, order: list[list[int]]
) -> tuple[Tensor, Solved]:
    """Coefficients (S, K, C, N) of the basis, window by window, and how these were solved; differentiable.

    Within a window neighbours are solved for together; rows for the jumps tie it to the window before, which stays as
    it is. The derivative runs back through all windows.
    """
    jumps = drawn.jumps
    found: dict[int, Tensor] = {}
    parts: list[Solved] = []
    for number, experts in enumerate(order):
        part = drawn.of(experts)
        if number:
            assert jumps is not None
            pairs = _pairs_before(drawn, experts, set(order[number - 1]))
            before = torch.stack([found[int(jumps.left[p])] for p in pairs], dim=1)[:, :, list(jumps.components)]
            features = jumps.features[1][:, pairs]
            offset = -torch.matmul(jumps.features[0][:, pairs], before[..., None])[..., 0]
            rows = Rows(_as_they_are, features, offset, jumps.components, jumps.weight[pairs][None])
            part = dataclasses.replace(part, names=(*part.names, "window"), groups=(*part.groups, rows))
        system, T = part.system(n_components, joint=True)
        solved = layer(system)
        parts.append(solved)
        omega = torch.matmul(T, solved.omega[..., None])[..., 0]
        found |= {k: omega[:, i] for i, k in enumerate(experts)}
    facts = (torch.cat(columns, dim=1) for columns in zip(*(p[1:] for p in parts), strict=True))
    return torch.stack([found[k] for k in sorted(found)], dim=1), Solved(
        torch.cat([p.omega for p in parts], dim=1), *facts
    )


def _pairs_before(drawn: Drawn, experts: list[int], earlier: set[int]) -> list[int]:
    """The interface of each expert with the window before."""
    assert drawn.jumps is not None
    left, right = drawn.jumps.left.tolist(), drawn.jumps.right.tolist()
    of = {right[p]: p for p in range(len(left)) if left[p] in earlier and right[p] in experts}
    return [of[k] for k in experts]


def _as_they_are(z: Tensor, which: Tensor) -> Tensor:
    return z

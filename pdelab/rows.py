"""Jacobians of residual vectors in the parameters, all rows from one backward pass.

A row r_i depends on its own point only. Where a linear layer maps the channels a_c of that point to
z_c = W a_c (+ b for the value), one backward pass of sum_i r_i gives every dr_i/dz_c at once, and

    dr_i/dW = sum over channels c of  dr_i/dz_c  a_c',      dr_i/db = dr_i/dz_0.

This is exact, and costs one backward pass and one batched product instead of one pass per row.

Source: F. Dangel, F. Kunstner, P. Hennig, BackPACK, ICLR 2020, section 2.2 (for values; here also for derivatives).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdelab.errors import SettingsError
from pdelab.taylor import AffineMap

_TOLERANCE = 1e-8


class Rows:
    """Where each parameter stands in the columns of a Jacobian.

    Args:
        parameters: all of them, in the order of the columns.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self._parameters = list(parameters)
        self._slices: dict[int, slice] = {}
        end = 0
        for part in self._parameters:
            self._slices[id(part)] = slice(end, end + part.numel())
            end += part.numel()
        self.columns = end

    def jacobian(
        self, residual: Tensor, maps: Sequence[AffineMap], scalars: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """dr/d(parameters), (n, P), without a graph.

        Args:
            residual: (n,), with its graph, which is kept.
            maps: what was recorded while it was computed, at n points, or at k n: row i then depends on the points
                i, n + i, ...
            scalars: id of a parameter with one entry -> the copy of it (k n,) that each point used.

        Raises:
            SettingsError: a parameter acts otherwise than through a linear layer.
        """
        n = maps[0].outputs.shape[1] if maps else len(residual)
        total = torch.zeros(n, self.columns, dtype=residual.dtype, device=residual.device)
        if not residual.requires_grad:
            return total[: len(residual)]
        given = scalars or {}
        covered = {id(t) for m in maps for t in (m.weight, m.bias)} | set(given)
        others = [p for p in self._parameters if id(p) not in covered]
        asked = [m.outputs for m in maps] + list(given.values()) + others
        found = torch.autograd.grad(residual.sum(), asked, retain_graph=True, allow_unused=True)
        if any(g is not None for g in found[len(asked) - len(others) :]):
            raise SettingsError(
                "gauss-newton: a parameter acts otherwise than through a linear layer, so its rows cannot be told "
                "apart; use optimizer=ssbroyden or lbfgs"
            )
        for m, g in zip(maps, found, strict=False):
            if g is None:
                continue
            if (place := self._slices.get(id(m.weight))) is not None:
                block = torch.bmm(g.permute(1, 2, 0), m.inputs.detach().permute(1, 0, 2))
                total[:, place] += block.reshape(n, -1)
            if m.bias is not None and (place := self._slices.get(id(m.bias))) is not None:
                total[:, place] += g[0]
        for key, g in zip(given, found[len(maps) :], strict=False):
            if g is not None:
                total[:, self._slices[key]] += g[:, None]
        return total if len(residual) == n else total.reshape(-1, len(residual), self.columns).sum(dim=0)


def dense_jacobian(residual: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """dr/d(parameters), (n, P), by one backward pass per row: for any residual (n,), slow for many rows."""
    n = len(residual)
    if not residual.requires_grad:
        return torch.zeros(n, sum(p.numel() for p in parameters), dtype=residual.dtype, device=residual.device)
    each = torch.eye(n, dtype=residual.dtype, device=residual.device)
    found = torch.autograd.grad(
        residual, list(parameters), each, retain_graph=True, is_grads_batched=True, allow_unused=True
    )
    both = zip(found, parameters, strict=True)
    return torch.cat([(each.new_zeros(n, p.numel()) if g is None else g.reshape(n, -1)) for g, p in both], dim=1)


def check_rows(name: str, residual: Tensor, maps: Sequence[AffineMap]) -> None:
    """Refuse a residual whose rows depend on other points than `Rows.jacobian` assumes.

    Raises:
        SettingsError: with the name of the residual.
    """
    outputs = [m.outputs for m in maps]
    if not outputs or not residual.requires_grad:
        return
    n, i = len(residual), len(residual) // 2
    mixes = outputs[0].shape[1] % n != 0
    if not mixes:
        found = torch.autograd.grad(residual[i], outputs, retain_graph=True, allow_unused=True)
        each = [g.abs().amax(dim=(0, 2)) for g in found if g is not None]
        sizes = torch.stack(each or [torch.zeros(n)]).amax(dim=0)
        own = float(sizes[i::n].max())
        sizes[i::n] = 0.0
        mixes = float(sizes.max()) > _TOLERANCE * own
    if mixes:
        raise SettingsError(
            f"gauss-newton: residual {name!r} mixes its rows, each must depend on one point only; "
            f"use optimizer=ssbroyden or lbfgs"
        )

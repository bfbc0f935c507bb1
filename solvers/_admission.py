"""What a loss must be before a training begins: real, of one row for each point, finite, of a smooth enough field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Field, Jet, Wanted
from pdelab.errors import SettingsError, check_shape

_INTERVALS = 64
_LENGTH = 0.25
_NODES = 32
_MISS = 0.2
_SHARE = 0.1
_ROUND_OFF = 1e-4


def check_residual(name: str, r: Tensor, f: AbstractJet, period: int) -> None:
    """A residual at the first parameters: real, and finite at every point.

    Args:
        name: what it belongs to, for errors.
        r: (n,), or (k n,), or one number.
        f: where it was computed.
        period: rows after which the points start again.

    Raises:
        ShapeError: it has another shape.
        SettingsError: it is complex, nan or inf.
    """
    if r.is_complex():
        raise SettingsError(
            f"{name}: expected real numbers, got {r.dtype}; return its real and imaginary parts as two residuals"
        )
    if r.ndim > 1 or (r.numel() > 1 and len(r) % period):
        check_shape(name, r, (period,))
    bad = torch.nonzero(~torch.isfinite(r.detach().reshape(-1)))[:, 0]
    if len(bad):
        first = int(bad[0]) % period
        place = ", ".join(f"{a}={float(v):.6g}" for a, v in zip(f.axes, f.points[first], strict=True))
        raise SettingsError(
            f"{name}: expected finite numbers, got nan or inf in {len(bad)} of {r.numel()} rows at the first "
            f"parameters, first at {place}; look for a division by zero, or a root or logarithm of negative numbers"
        )


def check_smooth(field: Field, wanted: Wanted, components: Sequence[str], axes: Sequence[str], points: Tensor) -> None:
    """Every derivative that is wanted must integrate to the one below it.

        D u(x + h e) - D u(x) = integral over 0 < s < h of  dDu/de(x + s e)

    by 32 Gauss points, on intervals of a quarter of the extent. Where a function has kinks this fails, although
    automatic differentiation raises no error: it takes the second derivative of a ReLU for zero.

    Args:
        field: what will be trained.
        wanted: its derivatives.
        components: names of the values.
        axes: names of the coordinates.
        points: (n, d) where intervals start.

    Raises:
        SettingsError: more than a tenth of the intervals miss by more than a fifth.
    """
    starts = points[:_INTERVALS]
    lower, upper = points.amin(dim=0), points.amax(dim=0)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    share = torch.as_tensor(np.concatenate([0.5 + 0.5 * nodes, [0.0, 1.0]])).to(points)
    for i, axis in enumerate(axes):
        step = _LENGTH * float(upper[i] - lower[i])
        signed = torch.where(starts[:, i] > 0.5 * (lower[i] + upper[i]), -step, step)
        line = starts[:, None, :].repeat(1, len(share), 1)
        line[:, :, i] += signed[:, None] * share
        f = Jet(field, line.flatten(0, 1), components, axes)
        for orders in sorted(_with_laplacian(wanted)):
            if not orders[i]:
                continue
            along = [a for a, k in zip(axes, orders, strict=True) for _ in range(k)]
            below = list(along)
            below.remove(axis)
            for component in components:
                value = f.derivative(component, *below).detach().reshape(len(starts), -1)
                slope = f.derivative(component, *along).detach().reshape(len(starts), -1)
                sums = 0.5 * signed[:, None] * torch.as_tensor(weights).to(points) * slope[:, :_NODES]
                gap = value[:, -1] - value[:, -2]
                size = torch.maximum(sums.abs().sum(dim=1), gap.abs())
                # What differs by round-off has no share in the sums.
                missed = (gap - sums.sum(dim=1)).abs() > _MISS * size + _ROUND_OFF * value.abs().max()
                if float(missed.to(points).mean()) > _SHARE:
                    raise SettingsError(_rough(component, along, below, axis))


def _with_laplacian(wanted: Wanted) -> set[tuple[int, ...]]:
    second = {tuple(2 * int(i == axis) for i in range(wanted.d)) for axis in wanted.space}
    return set(wanted.derivatives) | (second if wanted.laplacian else set())


def _rough(component: str, along: Sequence[str], below: Sequence[str], axis: str) -> str:
    whole = f"{component}_{''.join(along)}"
    lower = f"{component}_{''.join(below)}" if below else component
    return (
        f"field: expected one that can be differentiated {len(along)} times, as {whole} needs, got one whose {lower} "
        f"jumps or kinks along {axis} so that {whole} does not integrate to it; use a smooth activation: tanh, sin, "
        f"gelu or silu"
    )

"""A layer of a network that solves for coefficients: batched Levenberg-Marquardt, differentiated at the optimum.

Forward: omega* = argmin F(omega; features), see `pdelab.constraint_rows`, by damped steps

    (H + lam tr(H)/n I) delta = -g,    lam falls where F does, rises where it does not

H is J'J first, and the Hessian itself once F falls slowly: where residuals stay, Gauss-Newton converges slowly or not.
Every problem of the batch has its own damping and is left alone once it has converged.

Backward: with v = dL/d omega*, the adjoint  H s = v  with the exact Hessian, then for each derivative d, r weighted,

    dL/d features_d = -(a_d omega' + b_d s'),    dL/d offset_d = -a_d
    b_d = sum over e of r_e dr_e/dz_d,    a_d = sum over d' of (d b_d/d z_d') y_d',    y = features s

that is -(d/d features) of s'g, written out; J'J in place of H would give gradients of wrong size and sign.

Source: N. Chalapathi, Y. Du, A. Krishnapriyan, ICLR 2024, section 3, which states the derivative for F itself; the rows
are more than the unknowns, so it is the gradient of F that vanishes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pdelab.constraint_rows import Rows, System, pointwise
from pdelab.errors import SettingsError, check_range, check_shape

_log = logging.getLogger(__name__)
LEAST_DAMPING, MOST_DAMPING = 1e-14, 1e8
# Gauss-Newton steps until they lower F by less than this share; Newton's own from there on.
SLOW = 0.3
LEAST = 1e-12


class Solved(NamedTuple):
    """What the layer found.

    Attributes:
        omega: coefficients (S, K, C, N), differentiable.
        objective: F at the end, (S, G).
        first: F at the start, (S, G).
        iterations: steps of each problem, (S, G).
        converged: whether each step became small, (S, G).
    """

    omega: Tensor
    objective: Tensor
    first: Tensor
    iterations: Tensor
    converged: Tensor


@dataclass(frozen=True)
class _Limits:
    max_iterations: int
    tolerance: float
    damping: float


class ConstraintLayer(nn.Module):
    """omega*(features): the coefficients at which the rows of a `System` are least, with their derivative.

    Args:
        max_iterations: most steps; a problem that needs more keeps its last coefficients, as `Solved` tells.
        tolerance: a step |delta| <= tolerance |omega| ends the iteration, dimensionless.
        damping: lam at the start, relative to the mean of the diagonal of H.
    """

    def __init__(self, max_iterations: int = 30, tolerance: float = 1e-7, damping: float = 1e-6):
        super().__init__()
        check_range("max_iterations", max_iterations, least=1)
        check_range("tolerance", tolerance, above=0.0)
        check_range("damping", damping, above=0.0)
        self._limits = _Limits(max_iterations, tolerance, damping)

    def forward(self, system: System, start: Tensor | None = None) -> Solved:
        """Solve all problems, from coefficients `start` (S, K, C, N) or from zero."""
        K, C, N = system.n_experts, system.n_components, system.n_basis
        if start is None:
            start = system.groups[0].features.new_zeros(system.n_instances, K, C, N)
        check_shape("start", start, (system.n_instances, K, C, N))
        return Solved(*_Implicit.apply(system, start.detach(), self._limits, *system.tensors()))


def orthonormalised(values: Tensor) -> Tensor:
    """T (..., N, N) such that the columns of values @ T have mean square 1 and are orthogonal, or are zero.

    By thin QR and the singular values of R; directions below `LEAST` of the largest are left out, as zero columns: on
    small blocks smooth functions are nearly dependent.

    Args:
        values: of the basis functions at points, (..., m, N).

    Raises:
        SettingsError: more functions than points, or fewer than half of them are linearly independent.
    """
    values = values.detach()
    *_, m, N = values.shape
    if m < N:
        raise SettingsError(f"basis: expected at most as many functions as points, got {N} functions at {m} points")
    R = torch.linalg.qr(values / m**0.5, mode="r")[1]
    _, S, Vh = torch.linalg.svd(R)
    kept = LEAST * S[..., :1] < S
    rank = kept.sum(dim=-1)
    if 2 * int(rank.min()) < N:
        block = int(rank.flatten().argmin())
        raise SettingsError(
            f"basis: expected {N} functions that are linearly independent, or half of them at least, got "
            f"{int(rank.min())} on block {block}; use fewer basis functions or fewer experts, or a wider network"
        )
    return Vh.transpose(-1, -2) * torch.where(kept, 1.0 / torch.where(kept, S, 1.0), 0.0)[..., None, :]


class _Implicit(torch.autograd.Function):
    """The solution, and its adjoint."""

    @staticmethod
    def forward(ctx: Any, system: System, start: Tensor, limits: _Limits, *tensors: Tensor) -> tuple[Tensor, ...]:
        solved = minimised(system.replaced([t.detach() for t in tensors]), start, limits)
        ctx.system = system
        ctx.save_for_backward(solved.omega, *tensors)
        ctx.mark_non_differentiable(*solved[1:])
        return tuple(solved)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        omega, *tensors = ctx.saved_tensors
        system = ctx.system.replaced([t.detach() for t in tensors])
        which = torch.arange(len(omega), device=omega.device)
        with torch.no_grad():
            v, share = gradients[0], system.share
            if share is not None:
                v = share.team.sum(v.contiguous())
            G = 1 if system.jumps is not None else omega.shape[1]
            _, _, H = system.derivatives(omega, which, omega.new_ones(len(omega), G, dtype=torch.bool))
            s = _adjoint(H, v)
            found: list[Tensor] = []
            for rows in system.groups:
                found += _rows_adjoint(rows, system.own(omega), system.own(s), which)
            # All processes have the same jumps: one of them tells.
            of_jumps = _jumps_adjoint(system, omega, s)
            found += of_jumps if share is None or share.team.leads else [torch.zeros_like(g) for g in of_jumps]
        return None, None, None, *found


def minimised(system: System, start: Tensor, limits: _Limits) -> Solved:
    """Levenberg-Marquardt for all problems at once; see the module."""
    S, K, C, N = start.shape
    which, omega = torch.arange(S, device=start.device), start.clone()
    part, x = system, start
    slow = torch.zeros(S, 1 if system.jumps is not None else K, dtype=torch.bool, device=start.device)
    value, gradient, H = part.derivatives(x, which, slow)
    lam = torch.full_like(value, limits.damping)
    active, last = torch.ones_like(slow), torch.zeros_like(slow)
    first, final, iterations = value.clone(), value.clone(), torch.zeros_like(value)
    converged = torch.zeros_like(active)
    for _ in range(limits.max_iterations):
        step, usable = _damped_step(H, gradient, lam)
        trial_x = x + step.reshape(x.shape)
        trial = part.objective(trial_x, which)
        fall, expected = value - trial, -(gradient * step).sum(dim=-1)
        # A step that promises less than round-off in F cannot be judged by F: Newton's last steps are taken anyway.
        floor = expected <= 1e-13 * value
        better = active & usable & ((fall >= 0) | floor)
        size = x.reshape(*value.shape, -1).norm(dim=-1)
        small = step.norm(dim=-1) <= limits.tolerance * size.clamp(min=1e-12)
        done = better & (small | (floor & last))
        x = torch.where(_per_expert(better, K)[..., None, None], trial_x, x)
        slow = torch.where(better, floor | (fall < SLOW * value), slow)
        last = better & floor & slow
        value = torch.where(better, trial, value)
        lam = torch.where(better, 0.1 * lam, 10.0 * lam).clamp(LEAST_DAMPING, 10.0 * MOST_DAMPING)
        iterations[which] += active
        converged[which] |= done
        active = active & ~done & (lam <= MOST_DAMPING)
        omega[which], final[which] = x, value
        if not active.any():
            break
        kept = active.any(dim=1)
        if 2 * int(kept.sum()) <= len(kept):
            which, x, value, lam = which[kept], x[kept], value[kept], lam[kept]
            active, slow, last = active[kept], slow[kept], last[kept]
            part = system.taken(which)
        _, gradient, H = part.derivatives(x, which, slow)
    return Solved(omega, final, first, iterations, converged)


def _damped_step(H: Tensor, gradient: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    """The step (S, G, n), and where the damped matrix is positive definite, (S, G)."""
    mean = H.diagonal(dim1=-2, dim2=-1).abs().mean(dim=-1)
    damped = H + torch.diag_embed((lam * mean)[..., None].expand_as(gradient))
    L, info = torch.linalg.cholesky_ex(damped)
    usable = info == 0
    L = torch.where(usable[..., None, None], L, torch.eye(L.shape[-1], dtype=L.dtype, device=L.device))
    return -torch.cholesky_solve(gradient[..., None], L)[..., 0], usable


def _per_expert(chosen: Tensor, K: int) -> Tensor:
    return chosen.expand(-1, K) if chosen.shape[1] == 1 else chosen


def _adjoint(H: Tensor, v: Tensor) -> Tensor:
    """H s = v for v (S, K, C, N); no gradient from a problem where that has no finite solution."""
    found, info = torch.linalg.solve_ex(H, v.reshape(*H.shape[:-1], 1))
    bad = (info != 0) | ~torch.isfinite(found).all(dim=-1).all(dim=-1)
    if bad.any():
        _log.warning(
            "constraint layer: no gradient from %d of %d problems, singular Hessian", int(bad.sum()), bad.numel()
        )
        found = torch.where(bad[..., None, None], 0.0, found)
    return found.reshape(v.shape)


def _rows_adjoint(rows: Rows, omega: Tensor, s: Tensor, which: Tensor) -> list[Tensor]:
    """Gradients in features and offset of one group."""
    r, first, second = pointwise(rows, rows.values(omega), which, True)
    y = rows.values(s) - rows.offset
    # Per row, J s; then a = J_z' (J s) + (second derivatives) y.
    along = (first * y[:, :, None]).sum(dim=3)
    a = (first * along[:, :, :, None]).sum(dim=2)
    for (d, e), curvature in second.items():
        a[:, :, d] += curvature * y[:, :, e]
    b = (first * r[:, :, :, None]).sum(dim=2)
    components = list(rows.components)
    features = _outer((a, omega[:, :, components]), (b, s[:, :, components]), len(rows.features))
    return [-features, -_shared(a, len(rows.offset))]


def _jumps_adjoint(system: System, omega: Tensor, s: Tensor) -> list[Tensor]:
    """Gradients in the features of both sides."""
    jumps = system.jumps
    if jumps is None:
        return []
    t, y = jumps.weight * jumps.values(omega), jumps.weight * jumps.values(s)
    found = []
    for experts, sign in ((jumps.left, -1.0), (jumps.right, 1.0)):
        own, adjoint = (c[:, experts][:, :, list(jumps.components)] for c in (omega, s))
        found.append(sign * _outer((y, own), (t, adjoint), len(jumps.features[0])))
    return found


def _outer(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], n: int) -> Tensor:
    """a c' + b e' of (a, c), (b, e): (S, K, D, m) and (S, K, D, N) to (S, K, D, m, N), summed over S if n is 1."""
    (a, c), (b, e) = first, second
    if n > 1:
        return a[..., None] * c[..., None, :] + b[..., None] * e[..., None, :]
    both = torch.cat([a, b]).permute(1, 2, 3, 0), torch.cat([c, e]).permute(1, 2, 0, 3)
    return torch.matmul(*both)[None]


def _shared(tensor: Tensor, n: int) -> Tensor:
    return tensor.sum(dim=0, keepdim=True) if n == 1 else tensor

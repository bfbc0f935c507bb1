"""Minimise the energy over given directions and those before: the loop of the deep conjugate direction method."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Iteration:
    """When to stop, and how much is remembered.

    Attributes:
        tolerance: relative residual.
        max_iterations: when to give up.
        window: of so many iterations before, the directions are A-orthogonal to the new ones.
        modified: modified Gram-Schmidt, twice; else classical, once, as published.
        patience: where the residual has not halved within so many iterations the first direction is given up and
            conjugate gradients with the last one go on from there; None never does.
    """

    tolerance: float
    max_iterations: int
    window: int
    modified: bool = True
    patience: int | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came out for k right-hand sides.

    Attributes:
        x: (k, *shape).
        residuals: relative residuals (k,) of each iteration, the first guess first.
        iterations: of each right-hand side, (k,).
        converged: (k,), bool.
        switched: the iteration after which the first direction was given up, or None.
    """

    x: Tensor
    residuals: list[Tensor]
    iterations: Tensor
    converged: Tensor
    switched: int | None


def minimise(matvec: Operator, b: Tensor, directions: Sequence[Operator], iteration: Iteration) -> Outcome:
    """Solve A x = b from x = 0, minimising |x - A^-1 b|_A in each iteration over the span of `directions`.

    d_i = direction_i(r / |r|), made A-orthogonal to those of the last `window` iterations and to each other, is scaled
    to d^T A d = 1;  x <- x + sum_i d_i (d_i^T r);  r <- b - A x, anew.

    All directions but the first are safeguards: they join where the last iteration did not halve the residual. The
    energy never grows, whatever the directions are. One symmetric positive definite and linear direction with
    window 1 is the preconditioned conjugate gradient method; the identity is plain conjugate gradients.

    Args:
        matvec: A, symmetric positive semidefinite, on fields (k, *shape).
        b: right-hand sides, (k, *shape), none of them zero.
        directions: maps of residuals of norm 1 to directions of any scale.
        iteration: when to stop.

    Source: Kaneda et al., A Deep Conjugate Direction Method for Iteratively Solving Linear Systems, ICML 2023, with one
    direction; several are block conjugate directions, O'Leary, Linear Algebra Appl. 29 (1980) 293-322.
    """
    x, r, size = torch.zeros_like(b), b.clone(), _norm(b)
    history, taken = [torch.ones_like(size)], torch.zeros(len(b), dtype=torch.int64)
    done = torch.zeros(len(b), dtype=torch.bool, device=b.device)
    window: list[list[tuple[Tensor, Tensor]]] = []
    switched: int | None = None
    for k in range(iteration.max_iterations):
        unit = r / _over(torch.clamp(_norm(r), min=1e-300), r)
        gains = torch.zeros_like(x)
        block: list[tuple[Tensor, Tensor]] = []
        for direction in directions if _slow(history, done) else directions[:1]:
            d = _orthogonal(direction(unit), [*itertools.chain(*window), *block], iteration.modified)
            q = matvec(d)
            curvature = _dot(d, q)
            usable = curvature > 1e-28 * _dot(d, d)
            scale = torch.where(usable & torch.isfinite(curvature), curvature, 1.0).rsqrt() * (usable & ~done)
            d, q = torch.nan_to_num(d) * _over(scale, d), torch.nan_to_num(q) * _over(scale, q)
            gains += d * _over(_dot(d, r), d)
            block.append((d, q))
        window = [*window, block][-iteration.window :]
        x = x + gains
        r = b - matvec(x)
        history.append(_norm(r) / size)
        taken += (~done).cpu()
        done = done | (history[-1] <= iteration.tolerance)
        if bool(done.all()):
            break
        if iteration.patience is not None and switched is None and _stagnates(history, done, iteration.patience):
            switched, directions, window = k + 1, directions[-1:], []
    return Outcome(x, history, taken, done, switched)


def _orthogonal(d: Tensor, window: list[tuple[Tensor, Tensor]], modified: bool) -> Tensor:
    """d minus its components along the directions of the window, which have d^T A d = 1."""
    if modified:
        for _ in range(2):
            for other, image in window:
                d = d - other * _over(_dot(d, image), d)
        return d
    before = d
    for other, image in window:
        d = d - other * _over(_dot(before, image), d)
    return d


def _slow(history: list[Tensor], done: Tensor) -> bool:
    """Whether the last iteration has not halved a residual that is not small yet."""
    return len(history) > 1 and bool(((history[-1] > 0.5 * history[-2]) & ~done).any())


def _stagnates(history: list[Tensor], done: Tensor, patience: int) -> bool:
    """Whether a residual that is not small yet has not halved within the last iterations."""
    if len(history) <= patience:
        return False
    best_before = torch.stack(history[:-patience]).amin(0)
    best_since = torch.stack(history[-patience:]).amin(0)
    return bool(((best_since > 0.5 * best_before) & ~done).any())


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).norm(dim=1)


def _over(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))

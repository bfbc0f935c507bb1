"""The search for the distribution of random features, by the residual at points that the fit has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from pdelab.solvers._features import Ansatz

GRID = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
UNEQUAL, RATIO = (1.0, 2.0, 4.0), 8.0
"""Bandwidths of which one axis has a RATIO times larger one: waves along one axis, fast transport."""
FACTORS = (2.0, math.sqrt(2.0))
SWEEPS = 4
"""Largest number of rounds over all axes, for each factor."""
GAIN = 0.9
"""A step is taken if it brings the residual below this share: noise is not followed."""
GOOD = 1e-11
"""A relative residual below which nothing is searched for: round-off."""

Objective = Callable[[Ansatz], float]
"""Ansatz -> relative residual at held-out points, inf once the time is over; remembers what it was asked."""


def choose(coarse: Objective, fine: Objective, d: int, kinds: Sequence[str], couplings: Sequence[int]) -> Ansatz:
    """For each kind the best of a grid, refined axis by axis, then with all features; the best of these.

    Args:
        coarse: residual of a fit with few features, asked for up to some 100 times.
        fine: residual of the fit with all features, asked for up to some 10 times.
        d: number of axes.
        kinds: to choose from.
        couplings: to choose from.
    """
    found: list[Ansatz] = []
    for kind in kinds:
        tried = [Ansatz(kind, coupling, widths) for coupling in couplings for widths in _grid(d)]
        found.append(_descend(coarse, min(tried, key=coarse)))
        if coarse(found[-1]) <= GOOD:
            break
    first, *others = sorted(found, key=coarse)
    best = _rescale(fine, first)
    for other in others:
        if fine(best) > GOOD:
            best = min(best, _rescale(fine, other), key=fine)
    return best


def _grid(d: int) -> list[tuple[float, ...]]:
    """Equal bandwidths, then those with one larger one."""
    equal = [(width,) * d for width in GRID]
    return equal + [
        tuple(width * (RATIO if i == axis else 1.0) for i in range(d)) for width in UNEQUAL for axis in range(d)
    ]


def _descend(objective: Objective, ansatz: Ansatz) -> Ansatz:
    """Coordinate search: the bandwidth of one axis at a time, times or over a factor, while that helps."""
    for factor in FACTORS:
        for _ in range(SWEEPS):
            before = ansatz
            for i in range(len(ansatz.bandwidth)):
                ansatz = _better(objective, ansatz, [_scaled(ansatz, change, i) for change in (factor, 1.0 / factor)])
            if ansatz == before:
                break
    return ansatz


def _rescale(objective: Objective, ansatz: Ansatz) -> Ansatz:
    """All bandwidths times one factor, while that helps: more features can fill wider bands."""
    for factor in (FACTORS[1], 1.0 / FACTORS[1]):
        start = ansatz
        for _ in range(SWEEPS):
            before, ansatz = ansatz, _better(objective, ansatz, [_scaled(ansatz, factor)])
            if ansatz == before:
                break
        if ansatz != start:
            break
    return ansatz


def _better(objective: Objective, ansatz: Ansatz, changed: Sequence[Ansatz]) -> Ansatz:
    """The first of the changed ones that is clearly better, or the old one."""
    value = objective(ansatz)
    if value <= GOOD:
        return ansatz
    return next((c for c in changed if objective(c) < GAIN * value), ansatz)


def _scaled(ansatz: Ansatz, factor: float, axis: int | None = None) -> Ansatz:
    """The bandwidth of one axis, or of all, times a factor."""
    bandwidth = tuple(b * factor if axis in (None, i) else b for i, b in enumerate(ansatz.bandwidth))
    return replace(ansatz, bandwidth=bandwidth)

"""The search for the distribution of random features, by the residual at points that the fit has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from pdelab.solvers._features import Ansatz

GRID = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
FACTORS = (2.0, math.sqrt(2.0))
GOOD = 1e-11
"""A relative residual below which nothing is searched for: round-off."""

Objective = Callable[[Ansatz], float]
"""Ansatz -> relative residual at held-out points; math.inf says that the time is over."""


def search(objective: Objective, d: int, kinds: Sequence[str], couplings: Sequence[int]) -> Ansatz:
    """For each kind the best of a grid of couplings and equal bandwidths, refined axis by axis; the best of these.

    Args:
        objective: what to make small; asked some 100 times, several times for the same.
        d: number of axes.
        kinds: to choose from.
        couplings: to choose from.
    """
    found = []
    for kind in kinds:
        tried = [Ansatz(kind, coupling, (width,) * d) for coupling in couplings for width in GRID]
        found.append(_descend(objective, min(tried, key=objective)))
    return min(found, key=objective)


def rescale(objective: Objective, ansatz: Ansatz) -> Ansatz:
    """All bandwidths times one factor, the best on a line search: more features resolve higher frequencies."""
    value = objective(ansatz)
    for factor in (FACTORS[1], 1.0 / FACTORS[1]):
        start = value
        while value > GOOD:
            wider = replace(ansatz, bandwidth=tuple(factor * b for b in ansatz.bandwidth))
            found = objective(wider)
            if found >= value:
                break
            value, ansatz = found, wider
        if value < start:
            break
    return ansatz


def _descend(objective: Objective, ansatz: Ansatz) -> Ansatz:
    """Coordinate search: the bandwidth of one axis at a time, times or over a factor, while that helps."""
    value = objective(ansatz)
    for factor in FACTORS:
        improved = True
        while improved and value > GOOD:
            improved = False
            for i in range(len(ansatz.bandwidth)):
                for change in (factor, 1.0 / factor):
                    bandwidth = list(ansatz.bandwidth)
                    bandwidth[i] *= change
                    changed = replace(ansatz, bandwidth=tuple(bandwidth))
                    found = objective(changed)
                    if found < value:
                        value, ansatz, improved = found, changed, True
                        break
    return ansatz

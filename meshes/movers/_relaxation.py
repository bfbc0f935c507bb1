"""Relaxation of the Monge-Ampere equation in pseudo-time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pdelab.meshes.movers._dct import GridEquation
from pdelab.meshes.movers._equation import Iterate, MongeAmpereEquation

GROWTH, STEADY = 1.25, 3  # the step grows by that factor after so many falls of the residual in a row
LARGEST, SMALLEST = 2.0, 0.01  # the latter relative to the first step
SLACK = 1.1  # the residual may rise by that factor in a step: it has to, where cells begin to gather at a front
STALL, FALL, RESTARTS = 40, 0.98, 3  # a restart if so many steps do not lower the residual to this share


def relax(
    equation: MongeAmpereEquation | GridEquation, first: Iterate, *, step: float = 0.1, adaptive: bool = True
) -> Iterator[tuple[Iterate, float]]:
    """Iterates of  - Laplace d phi / dt = m det(I + H) - theta,  an explicit step for each, with the steps dt.

    With `adaptive` an iterate with inverted cells, or with a residual that grew by more than a tenth, is not taken:
    the step is halved and taken again from the last good one; after three falls of the residual in a row it grows by
    a quarter. A large step is stable only where cells are compressed little: the linearised right-hand side is m
    times the cofactors of I + H times the second derivatives.

    Where 40 steps hardly lower the residual, it goes on from the best iterate with a quarter of the step, three
    times; then the iterates end. They end too when no step is small enough, as happens at corners that point inward.

    Args:
        equation: to solve.
        first: where to start, valid.
        step: dt of the first step.
        adaptive: False keeps dt and takes every iterate.

    Source: McRae, Cotter & Budd, SIAM J. Sci. Comput. 40 (2018), section 3.
    """
    current, best, dt = first, first, step
    falls = waited = restarts = 0
    goal = FALL * first.residual
    direction = equation.correction(current.defect)
    while True:
        trial = equation.evaluate(current.potential + dt * direction)
        good = trial.valid and math.isfinite(trial.residual) and trial.residual < SLACK * current.residual
        if adaptive and not good:
            falls, dt = 0, dt / 2
            if dt < SMALLEST * step:
                return
            continue
        falls = falls + 1 if trial.residual < current.residual else 0
        current = trial
        yield current, dt
        if adaptive:
            best = min(best, current, key=lambda i: i.residual)
            waited += 1
            if best.residual < goal:
                waited, goal = 0, FALL * best.residual
            if waited == STALL:
                waited, restarts, falls = 0, restarts + 1, 0
                current, dt = best, dt / 4
                if restarts > RESTARTS:
                    return
            if falls >= STEADY:
                dt, falls = min(dt * GROWTH, LARGEST), 0
        direction = equation.correction(current.defect)

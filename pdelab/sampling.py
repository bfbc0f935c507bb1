"""Points of a problem, in space and time: interior, boundary and initial. Pure functions of a seed."""

from __future__ import annotations

import numpy as np

from pdelab.domain import BoundarySample, Seed, rejection_sample, unit_sample
from pdelab.pde import AbstractProblem


def interior(problem: AbstractProblem, n: int, seed: Seed, method: str = "sobol") -> np.ndarray:
    """n points in the open domain (and time interval), (n, d) with time last."""
    if problem.time is None:
        return problem.domain.sample(n, seed, method)
    # One low-discrepancy set over space and time together: two separate ones would be correlated.
    (lower, upper), (t0, t1) = problem.domain.bounds, problem.time
    return rejection_sample(
        n,
        np.append(lower, t0),
        np.append(upper, t1),
        problem.domain.measure * (t1 - t0),
        lambda points: problem.domain.inside(points[:, :-1]),
        seed,
        method,
    )


def boundary(
    problem: AbstractProblem, n: int, seed: Seed, part: str | None = None, method: str = "sobol"
) -> BoundarySample:
    """n points on a boundary part at random times, (n, d); the normals have the space dimension."""
    sample = problem.domain.sample_boundary(n, seed, part, method)
    if problem.time is None:
        return sample
    # Times come from another stream than the places, so that both fill their ranges independently.
    rng_seed = [*([seed] if isinstance(seed, int) else seed), 7919]
    t0, t1 = problem.time
    if method == "grid":
        order = np.random.default_rng(rng_seed).permutation(len(sample.points))
        t = t0 + (t1 - t0) * (order[:, None] + 0.5) / len(order)
    else:
        t = t0 + (t1 - t0) * unit_sample(len(sample.points), 1, rng_seed, method)
        np.random.default_rng(rng_seed).shuffle(t)
    return BoundarySample(np.hstack([sample.points, t]), sample.normals, sample.parts)


def initial(problem: AbstractProblem, n: int, seed: Seed, method: str = "sobol") -> np.ndarray:
    """n points of the domain at the first time, (n, d)."""
    assert problem.time is not None, "a steady problem has no initial time"
    points = problem.domain.sample(n, seed, method)
    return np.hstack([points, np.full((len(points), 1), problem.time[0])])

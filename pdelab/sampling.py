"""Points of a problem, in space and time: interior, boundary and initial. Pure functions of a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pdelab.domain import AbstractDomain, BoundarySample, Seed, rejection_sample, stream, unit_sample
from pdelab.errors import InputError, ShapeError, check_range
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
    rng_seed = stream(seed, 7919)
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


def adaptive(
    problem: AbstractProblem,
    residual: Callable[[np.ndarray], np.ndarray],
    n: int,
    seed: Seed,
    candidates: int | None = None,
    power: float = 1.0,
    offset: float = 1.0,
) -> np.ndarray:
    """n different interior points, drawn where the residual is large (RAD), (n, d) with time last.

    Candidates x_i are drawn by `interior`; each is taken with a probability proportional to

        |r(x_i)|^power / mean |r|^power + offset.

    Args:
        problem: where the points lie.
        residual: (N, d) -> (N,), or (N, equations), of which the Euclidean norm is used; any unit, it cancels.
        n: how many points.
        seed: the same seed and residual give the same points.
        candidates: N, at least n; 10 n if not given.
        power: >= 0; larger is greedier.
        offset: >= 0; 0 follows the residual alone, a large one gives uniform points. The paper's best values
            are power 1 with offset 1 for most problems, power 2 with offset 0 for sharp solutions.

    Raises:
        InputError: the residual is not finite, or is nonzero at fewer than n candidates while offset is 0.
        ShapeError: the residual has another number of rows than the candidates.
        SettingsError: candidates < n, power or offset negative.

    Source: Wu, Zhu, Tan, Kartha, Lu, CMAME 403 (2023) 115671, algorithm 2 (RAD).
    """
    count = 10 * n if candidates is None else candidates
    check_range("candidates", count, least=n)
    check_range("power", power, least=0)
    check_range("offset", offset, least=0)
    points = interior(problem, count, stream(seed, 0))
    values = np.asarray(residual(points), dtype=float)
    if values.ndim not in (1, 2) or len(values) != count:
        raise ShapeError(f"residual: expected shape ({count},) or ({count}, equations), got {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"residual: {int((~np.isfinite(values)).sum())} of {values.size} values are not finite")
    # Scaled by the largest, so that no power overflows; the scale cancels.
    largest = np.abs(values).max()
    size = np.linalg.norm((values / largest if largest > 0 else np.ones_like(values)).reshape(count, -1), axis=1)
    weight = (size / size.max()) ** power
    weight = weight / weight.mean() + offset
    if np.count_nonzero(weight) < n:
        raise InputError(f"residual: nonzero at fewer than n = {n} of {count} candidates; use an offset above 0")
    rng = np.random.default_rng(stream(seed, 1))
    return points[rng.choice(count, n, replace=False, p=weight / weight.sum())]


@dataclass(frozen=True)
class Audit:
    """How far the samplers of a domain are from what they promise.

    Attributes:
        outside: number of interior points outside the domain; must be 0.
        measure_error: share of quasi-random points of the bounds that are inside, times the measure of the
            bounds, divided by the stated measure, minus 1.
        off_boundary: largest distance of a boundary point from the boundary, divided by the domain's size.
        off_part: largest distance of a boundary point from the part that it is said to be on, likewise.
        normal_error: largest difference of a normal's length from 1.
        wrong_side: number of boundary points p where p - step * normal is outside or p + step * normal inside.
        share_error: largest difference of a part's share of the points from its share of the boundary.
    """

    outside: int
    measure_error: float
    off_boundary: float
    off_part: float
    normal_error: float
    wrong_side: int
    share_error: float


def audit(domain: AbstractDomain, n: int, seed: Seed, method: str = "sobol") -> Audit:
    """Check the samplers of a domain on n points in it and n on its boundary; the step is 1e-6 of its size."""
    lower, upper = domain.bounds
    size = float(np.linalg.norm(upper - lower))
    cube = lower + unit_sample(n, domain.dimension, stream(seed, 0), "sobol") * (upper - lower)
    filled = float(np.prod(upper - lower) * domain.inside(cube).mean())
    edge = domain.sample_boundary(n, stream(seed, 1), method=method)
    x = torch.as_tensor(edge.points)
    distances = np.stack([domain.part_distance(x, part).numpy() for part in domain.parts], axis=1)
    own = edge.parts[:, None] == np.array(domain.parts)
    whole = domain.boundary_measure()
    step = 1e-6 * size * edge.normals
    return Audit(
        outside=int((~domain.inside(domain.sample(n, stream(seed, 2), method))).sum()),
        measure_error=filled / domain.measure - 1,
        off_boundary=float(domain.signed_distance(x).abs().max()) / size,
        off_part=float(distances[own].max()) / size,
        normal_error=float(np.abs(np.linalg.norm(edge.normals, axis=1) - 1).max()),
        wrong_side=int((~domain.inside(edge.points - step) | domain.inside(edge.points + step)).sum()),
        share_error=max(
            abs(float(o.mean()) - domain.boundary_measure(part) / whole)
            for o, part in zip(own.T, domain.parts, strict=True)
        ),
    )

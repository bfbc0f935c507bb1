"""Errors against the reference: the same points, weights and definitions for every solver."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pdelab.calculus import Field
from pdelab.pde import AbstractProblem

if TYPE_CHECKING:
    from pdelab.reference import Reference
    from pdelab.solution import Solution

N_POINTS, N_LAST = 8192, 2048
SEED = 20260  # of the evaluation points; training points come from other seeds


def evaluation_points(problem: AbstractProblem, n: int = N_POINTS) -> np.ndarray:
    """The points (n, d) at which every solution of the problem is scored: one fixed Sobol set, equal weights.

    Equal weights make sums over it quasi-Monte-Carlo integrals over the domain (and time), so that
    solvers on different grids compare.
    """
    from pdelab.sampling import interior

    points = interior(problem, n, SEED)
    return points[problem.scored(points)]


def relative_errors(values: np.ndarray, truth: np.ndarray, components: tuple[str, ...]) -> dict[str, Any]:
    """Relative L2 and L1 error and largest difference of (n, m) values, all components together and each.

        rel_l2 = sqrt(sum |u - u*|^2 / sum |u*|^2)     rel_l1 = sum |u - u*| / sum |u*|     max_abs = max |u - u*|

    A component whose truth is zero everywhere has no relative error: its absolute one is given.
    """
    difference = values - truth

    def ratio(a: float, b: float) -> float:
        return float(a / b) if b > 0 else float(a)

    def l2(a: np.ndarray) -> float:
        return float(np.sqrt(np.mean(a**2)))

    each = {}
    for i, name in enumerate(components):
        each[name] = {
            "rel_l2": ratio(l2(difference[:, i]), l2(truth[:, i])),
            "rel_l1": ratio(float(np.abs(difference[:, i]).mean()), float(np.abs(truth[:, i]).mean())),
            "max_abs": float(np.abs(difference[:, i]).max()),
        }
    return {
        "rel_l2": ratio(l2(difference), l2(truth)),
        "rel_l1": ratio(float(np.abs(difference).mean()), float(np.abs(truth).mean())),
        "max_abs": float(np.abs(difference).max()),
        "per_component": each,
    }


def score(solution: Solution) -> dict[str, Any]:
    """Errors of a solution of the last iterate, and the floor of the reference that they are measured against.

    Returns:
        rel_l2, rel_l1, max_abs, per_component, floor, kind, and in time rel_l2_final, that of the last time; empty if
        the problem has no reference.
    """
    problem = solution.problem
    known = _truth(problem)
    if known is None:
        return {}
    found = relative_errors(_ungauged(solution.at(known.points), problem), known.values, problem.components)
    if len(known.last_points):
        last = _ungauged(solution.at(known.last_points), problem)
        found["rel_l2_final"] = relative_errors(last, known.last_values, problem.components)["rel_l2"]
    return found | {"floor": known.floor, "kind": known.kind}


def known_reference(problem: AbstractProblem) -> Reference | None:
    """The reference of a problem, None if it has none; kept for the last few problems of this process."""
    try:
        return _resolved(problem)
    except TypeError:  # a problem with a parameter that cannot be hashed
        return _resolved.__wrapped__(problem)


@functools.lru_cache(maxsize=4)
def _resolved(problem: AbstractProblem) -> Reference | None:
    from pdelab.reference import resolve

    return resolve(problem)


class Monitor:
    """Relative L2 error of a field while it is trained: 2048 points, nothing flows back into the training."""

    def __init__(self, problem: AbstractProblem):
        known = _truth(problem)
        assert known is not None, "a monitor needs a reference"
        self._problem = problem
        self._points = torch.as_tensor(known.points[:2048])
        self._truth = known.values[:2048]

    def __call__(self, field: Field) -> float:
        """The error now."""
        with torch.no_grad():
            values = _ungauged(field(self._points).to("cpu", torch.float64).numpy(), self._problem)
        return float(relative_errors(values, self._truth, self._problem.components)["rel_l2"])


@dataclass(frozen=True, eq=False)
class _Truth:
    """The reference at the evaluation points and, in time, at some places at the last time.

    Attributes:
        points, values: (n, d) and (n, m).
        last_points, last_values: the same at the last time; none for a steady problem.
        floor, kind: of the reference.
    """

    points: np.ndarray
    values: np.ndarray
    last_points: np.ndarray
    last_values: np.ndarray
    floor: float
    kind: str


def _truth(problem: AbstractProblem) -> _Truth | None:
    """The reference where solutions are scored; kept for the last few problems of this process."""
    try:
        return _known_truth(problem)
    except TypeError:  # a problem with a parameter that cannot be hashed
        return _known_truth.__wrapped__(problem)


@functools.lru_cache(maxsize=4)
def _known_truth(problem: AbstractProblem) -> _Truth | None:
    reference = known_reference(problem)
    if reference is None:
        return None
    sets = evaluation_points(problem), _last_points(problem)
    values = (_ungauged(_values_at(reference.field, points), problem) for points in sets)
    (points, last_points), (truth, last_truth) = sets, values
    return _Truth(points, truth, last_points, last_truth, reference.floor, reference.kind)


def _last_points(problem: AbstractProblem) -> np.ndarray:
    """Places at the last time, (n, d); none for a steady problem."""
    if problem.time is None:
        return np.empty((0, len(problem.axes)))
    from pdelab.sampling import initial

    points = initial(problem, N_LAST, SEED)
    points[:, -1] = problem.time[1]
    return points[problem.scored(points)]


def _values_at(field: Field, points: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        parts = [field(p) for p in torch.as_tensor(points).split(65536)]
    return torch.cat(parts).numpy()


def _ungauged(values: np.ndarray, problem: AbstractProblem) -> np.ndarray:
    """Remove the mean of components that are defined up to a constant."""
    for name in problem.gauge:
        i = problem.components.index(name)
        values = values.copy()
        values[:, i] -= values[:, i].mean()
    return values

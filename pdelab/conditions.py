"""Conditions at sample points: what point-based solvers add to the equations, the same points for each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdelab import sampling
from pdelab.calculus import AbstractJet
from pdelab.domain import Box, Seed
from pdelab.errors import InputError
from pdelab.pde import AbstractProblem, Condition, Dirichlet, Initial, Observations, Periodic


@dataclass(frozen=True, eq=False)
class PlacedCondition:
    """A condition with the points where it is asked for.

    Attributes:
        name: a label for loss terms, e.g. "initial", "dirichlet u left", "periodic x".
        condition: what must hold.
        points: (n, d), time last; a periodic condition holds between points[: n / 2] and points[n / 2 :].
        normals: outward unit normals (n, space dimensions) on a boundary, else None.
    """

    name: str
    condition: Condition
    points: np.ndarray
    normals: np.ndarray | None = None

    def residual(self, f: AbstractJet) -> Tensor:
        """How far the field misses the condition, (k,), for a jet at `points`; 0 for the solution."""
        if isinstance(self.condition, Periodic):
            return _mismatch(f, self.condition)
        normals = None
        if self.normals is not None:
            normals = torch.as_tensor(self.normals, dtype=f.points.dtype, device=f.points.device)
        return self.condition.residual(f, normals)


def place(
    problem: AbstractProblem, n_boundary: int, n_initial: int, seed: Seed, method: str = "sobol"
) -> tuple[PlacedCondition, ...]:
    """All conditions of a problem at sampled points.

    The boundary points are shared by the boundary conditions in proportion to the measure of their parts;
    conditions on the same part stand at the same points.

    Args:
        problem: whose conditions.
        n_boundary: boundary points in all, at least one per part.
        n_initial: points at the initial time, for each initial condition.
        seed: same seed, same points.
        method: one of `pdelab.domain.SAMPLERS`.
    """
    base = [seed] if isinstance(seed, int) else list(seed)
    whole = problem.domain.boundary_measure()
    placed = []
    for condition in problem.conditions():
        if isinstance(condition, Observations):
            placed.append(PlacedCondition(f"data {condition.component}", condition, condition.points))
        elif isinstance(condition, Initial):
            points = sampling.initial(problem, n_initial, [*base, 1], method)
            name = "initial" + "_t" * condition.order + f" {condition.component}"
            placed.append(PlacedCondition(name, condition, points))
        elif isinstance(condition, Periodic):
            n = max(1, n_boundary // (2 * problem.domain.dimension))
            placed.append(_periodic(problem, condition, n, [*base, 2], method))
        else:
            share = problem.domain.boundary_measure(condition.part) / whole if condition.part else 1.0
            n = max(1, round(n_boundary * share))
            sample = sampling.boundary(problem, n, [*base, 3], condition.part, method)
            kind = "dirichlet" if isinstance(condition, Dirichlet) else "neumann"
            name = f"{kind} {condition.component}" + (f" {condition.part}" if condition.part else "")
            placed.append(PlacedCondition(name, condition, sample.points, sample.normals))
    return tuple(placed)


def _periodic(problem: AbstractProblem, condition: Periodic, n: int, seed: list[int], method: str) -> PlacedCondition:
    domain = problem.domain
    if not isinstance(domain, Box):
        raise InputError(f"{problem.name}: a periodic condition needs a box, not a {type(domain).__name__}")
    axis = domain.axes.index(condition.axis)
    sample = sampling.boundary(problem, n, seed, domain.parts[2 * axis], method)
    other = sample.points.copy()
    other[:, axis] = domain.upper[axis]
    return PlacedCondition(f"periodic {condition.axis}", condition, np.concatenate([sample.points, other]))


def _mismatch(f: AbstractJet, condition: Periodic) -> Tensor:
    half = len(f) // 2
    gaps = []
    for component in f.components:
        for order in range(condition.order):
            value = f.derivative(component, *[condition.axis] * order)
            gaps.append(value[:half] - value[half:])
    return torch.cat(gaps)

"""A problem with what is built into its field, prepared once for many draws of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdelab.calculus import Jet, Sites, TaylorJet, Wanted
from pdelab.pde import AbstractProblem, Condition
from pdelab.solvers._basis import Key
from pdelab.solvers._hard import Constraints, NoConstraints
from pdelab.taylor import Series, UnsupportedOperation, all_or_nothing


@dataclass(frozen=True, eq=False)
class Instance:
    """A problem with its conditions and what is built into its field."""

    problem: AbstractProblem
    conditions: tuple[Condition, ...]
    constraints: Constraints

    @classmethod
    def of(cls, problem: AbstractProblem, hard: bool) -> Instance:
        """With hard constraints where they are compatible, or none."""
        return cls(problem, problem.conditions(), Constraints(problem) if hard else NoConstraints(problem))

    def lift(self, points: Tensor, keys: Sequence[Key]) -> Tensor:
        """Derivatives of the lift, (D, n)."""
        problem, axes = self.problem, self.problem.axes
        if not any(problem.components[c] in self.constraints.components for c, _ in keys):
            return points.new_zeros(len(keys), len(points))
        space = tuple(i for i, axis in enumerate(axes) if axis != "t")
        wanted = Wanted(frozenset(orders for _, orders in keys), False, space, len(axes))
        sites = Sites(points, wanted)
        try:
            with torch.no_grad(), all_or_nothing():
                values = self.constraints.lift(sites.series)  # type: ignore[arg-type]
        except (UnsupportedOperation, TypeError):
            values = None
        if isinstance(values, Series):
            f = TaylorJet(self.constraints.lift, sites, values, problem.components, axes)
            return torch.stack([f.every(orders)[:, c] for c, orders in keys])
        if values is not None:  # constants
            return torch.stack([values[:, c] * float(not any(orders)) for c, orders in keys])
        with torch.enable_grad():
            g = Jet(self.constraints.lift, points, problem.components, axes)
            along = ([a for a, k in zip(axes, orders, strict=True) for _ in range(k)] for _, orders in keys)
            return torch.stack(
                [g.derivative(problem.components[c], *a).detach() for (c, _), a in zip(keys, along, strict=True)]
            )

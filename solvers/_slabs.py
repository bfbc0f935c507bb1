"""Time slabs: a problem on a part of its time interval, and fields joined along time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pdelab.calculus import AbstractJet, Coordinates, Field, jet
from pdelab.domain import AbstractDomain
from pdelab.pde import AbstractProblem, Condition, Initial, Observations


class Slab(AbstractProblem):
    """A problem between two times; the initial values are those of a field that ends there (None: its own).

    Args:
        problem: the whole problem.
        time: first and last time of the slab.
        before: the field of the slab before, or None for the first slab.
    """

    def __init__(self, problem: AbstractProblem, time: tuple[float, float], before: Field | None):
        # Class attributes of a problem; a slab takes them from its instance.
        vars(self).update({key: getattr(problem, key) for key in ("name", "components", "unknowns", "gauge")})
        self._problem, self._time, self._before = problem, time, before

    @property
    def domain(self) -> AbstractDomain:
        """That of the problem."""
        return self._problem.domain

    @property
    def time(self) -> tuple[float, float]:
        """First and last time of the slab."""
        return self._time

    def residual(self, f: AbstractJet) -> Tensor | tuple[Tensor, ...]:
        """Those of the problem."""
        return self._problem.residual(f)

    def conditions(self) -> tuple[Condition, ...]:
        """Those of the problem, with the initial values replaced and the data outside left out."""
        return tuple(c for c in map(self._adapted, self._problem.conditions()) if c is not None)

    def _adapted(self, condition: Condition) -> Condition | None:
        if isinstance(condition, Initial) and self._before is not None:
            return Initial(condition.component, self._value(condition), condition.order)
        if isinstance(condition, Observations):
            within = (condition.points[:, -1] >= self.time[0]) & (condition.points[:, -1] <= self.time[1])
            if not np.any(within):
                return None
            return Observations(condition.component, condition.points[within], condition.values[within])
        return condition

    def _value(self, condition: Initial):
        before, number = self._before, self.components.index(condition.component)
        assert before is not None
        if condition.order == 0:
            return lambda p: before(p.points)[:, number]

        def slope(p: Coordinates) -> Tensor:
            f = jet(before, p.points, self.components, self.axes)
            return f.derivative(condition.component, *["t"] * condition.order).detach()

        return slope


class JoinedField(nn.Module):
    """Fields one after another in time, (n, d) -> (n, m); at a common time the later one speaks.

    Args:
        fields: one per slab.
        times: the times between them, increasing, one less than fields.
    """

    def __init__(self, fields: Sequence[nn.Module], times: Sequence[float]):
        super().__init__()
        self.fields = nn.ModuleList(fields)
        self._times = tuple(times)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        bounds = torch.tensor(self._times, dtype=x.dtype, device=x.device)
        number = torch.bucketize(x[:, -1].detach().contiguous(), bounds, right=True)
        rows, parts = [], []
        for i, field in enumerate(self.fields):
            mine = torch.nonzero(number == i)[:, 0]
            rows.append(mine)
            parts.append(field(x[mine]))
        return torch.cat(parts)[torch.argsort(torch.cat(rows))]

"""Derivatives in space and time of what is known at labels that move: a jet seen through a map.

    x = s + drift (t - t0) + D(s, t),    F = dx/ds = I + dD/ds,    u(x(s, t), t) = U(s, t)

    grad u = F^-T grad_s U,    Hess u = F^-T (Hess_s U - sum_k u_k Hess_s D_k) F^-1,    u_t = U_t - x_t . grad u

The equations of a problem, read with such a jet, hold for any map: they are those of an arbitrary Lagrangian-Eulerian
frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdelab.calculus import AbstractJet
from pdelab.errors import SettingsError
from pdelab.pde import AbstractProblem, equations


def displacements(problem: AbstractProblem) -> tuple[str, ...]:
    """Names of the components of D, one for each space axis."""
    return tuple(f"displacement_{axis}" for axis in problem.domain.axes)


class PulledBack(AbstractJet):
    """The components of a problem at the places of labels, from a jet of U and D at the labels.

    Args:
        f: jet of the components and of `displacements`, with labels in the places of the space axes.
        problem: whose components these are.
        drift: (d,), length/time.
    """

    def __init__(self, f: AbstractJet, problem: AbstractProblem, drift: Tensor):
        assert problem.time is not None, "labels move in time"
        self.labels, self.displacements = f, displacements(problem)
        self.space_axes, self.components, self.unknowns = f.space_axes, problem.components, f.unknowns
        drift = drift.to(f.points)
        moved = [
            f.derivative(axis_) + drift[i] * (f.points[:, -1] - problem.time[0])
            for i, axis_ in enumerate(self.displacements)
        ]
        places = [f.points[:, i] + moved[i] for i in range(len(moved))]
        super().__init__(torch.stack([*places, f.points[:, -1]], dim=1), f.axes)
        self.rates = [drift[i] + f.derivative(axis_, "t") for i, axis_ in enumerate(self.displacements)]
        self.F = [
            [float(i == j) + f.derivative(a, b) for j, b in enumerate(self.space_axes)]
            for i, a in enumerate(self.displacements)
        ]
        self.determinant, self._inverse = inverted(self.F)
        self._known: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`; one derivative in time or up to two in space."""
        key = (component, tuple(sorted(along, key=self.axes.index)))
        if key not in self._known:
            self._known[key] = self._find(component, key[1])
        return self._known[key]

    def _find(self, component: str, along: tuple[str, ...]) -> Tensor:
        if not along:
            return self.labels.derivative(component)
        if along == ("t",):
            return self._in_time(component)
        if "t" in along or len(along) > 2:
            raise SettingsError(f"{component}_{''.join(along)}: labels that move give u_t and two derivatives in space")
        i, *rest = (self.space_axes.index(axis) for axis in along)
        if not rest:
            return sum_of(
                [self._inverse[k][i] * self.labels.derivative(component, a) for k, a in enumerate(self.space_axes)]
            )
        return self._second(component, i, rest[0])

    def _in_time(self, component: str) -> Tensor:
        carried = [
            rate * self.derivative(component, axis) for rate, axis in zip(self.rates, self.space_axes, strict=True)
        ]
        return self.labels.derivative(component, "t") - sum_of(carried)

    def _second(self, component: str, i: int, j: int) -> Tensor:
        terms = []
        for k, a in enumerate(self.space_axes):
            for m, b in enumerate(self.space_axes):
                bent = [
                    self.derivative(component, c) * self.labels.derivative(d, a, b)
                    for c, d in zip(self.space_axes, self.displacements, strict=True)
                ]
                curvature = self.labels.derivative(component, a, b) - sum_of(bent)
                terms.append(self._inverse[k][i] * self._inverse[m][j] * curvature)
        return sum_of(terms)


class LabelDiffusion(PulledBack):
    """The same with second derivatives by the labels instead of the places, and the velocity as the rate of the map.

    What R. Mojgani et al., Comput. Methods Appl. Mech. Eng. 404 (2023) 115810, eq. 12, solve: with
    u_t + v . grad u = U_t and Lap u = Lap_s U. Right where the map is a translation, wrong elsewhere.
    """

    def __init__(self, f: AbstractJet, problem: AbstractProblem, drift: Tensor):
        super().__init__(f, problem, drift)
        self.rates = velocity(problem, PulledBack(f, problem, drift))

    def _second(self, component: str, i: int, j: int) -> Tensor:
        return self.labels.derivative(component, self.space_axes[i], self.space_axes[j])


class Shifted(AbstractJet):
    """Another jet with numbers added to some of its derivatives."""

    def __init__(self, f: AbstractJet, by: Mapping[tuple[str, tuple[str, ...]], float]):
        super().__init__(f.points, f.axes)
        self.space_axes, self.components, self.unknowns = f.space_axes, f.components, f.unknowns
        self._jet, self._by = f, dict(by)

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        value = self._jet.derivative(component, *along)
        by = self._by.get((component, along))
        return value if by is None else value + by


def velocity(problem: AbstractProblem, f: AbstractJet) -> list[Tensor]:
    """What the equation of the first component carries it with, (n,) for each space axis.

        v_i = (dr/du_i) / (dr/du_t)

    by differences, which are exact because transport is linear in the derivatives.
    """
    return coefficients(problem, f, 0, problem.components[0])


def coefficients(problem: AbstractProblem, f: AbstractJet, equation: int, component: str) -> list[Tensor]:
    """dr/du_i of an equation and a component, divided by dr_0/du_t of its own, for each space axis."""
    own = problem.components[equation]

    def r(by: Mapping[tuple[str, tuple[str, ...]], float]) -> Tensor:
        return equations(problem.residual(Shifted(f, by)))[equation].expand(len(f))

    rest = r({})
    mass = r({(own, ("t",)): 1.0}) - rest
    return [(r({(component, (axis,)): 1.0}) - rest) / mass for axis in f.space_axes]


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Their sum, without a zero to begin with."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def inverted(F: Sequence[Sequence[Tensor]]) -> tuple[Tensor, list[list[Tensor]]]:
    """Determinant and inverse of d x d matrices whose entries are (n,)."""
    if len(F) == 1:
        return F[0][0], [[1.0 / F[0][0]]]
    if len(F) == 2:
        (a, b), (c, d) = F
        det = a * d - b * c
        return det, [[d / det, -b / det], [-c / det, a / det]]
    matrix = torch.stack([torch.stack(list(row), dim=-1) for row in F], dim=-2)
    inverse = torch.linalg.inv(matrix)
    return torch.linalg.det(matrix), [[inverse[:, i, j] for j in range(len(F))] for i in range(len(F))]

"""Rows of the constraint layer at drawn points, made of the problem's own residual and conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from pdelab.calculus import AbstractJet
from pdelab.constraint_layer import orthonormalised
from pdelab.constraint_rows import Jumps, Rows, Share, System
from pdelab.pde import AbstractProblem, Condition, equations
from pdelab.solvers._basis import Key


class GivenJet(AbstractJet):
    """A field at points whose values and derivatives are given, by component and orders."""

    def __init__(self, problem: AbstractProblem, points: Tensor, columns: dict[Key, Tensor]):
        super().__init__(points, problem.axes)
        self.components, self.unknowns = problem.components, {}
        self.space_axes = problem.domain.axes
        self._columns = columns

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        return self._columns[self.components.index(component), tuple(along.count(axis) for axis in self.axes)]


@dataclass(frozen=True, eq=False)
class Pointwise:
    """Equations or a condition of all instances at the same points, as a function of the values and derivatives.

    Attributes:
        problems: one if they are the same for all.
        keys: of the columns of z.
        points: (K, m, d).
        conditions: that of each problem; none for the equations.
        normals: (K, m, space dimensions), or None.
    """

    problems: Sequence[AbstractProblem]
    keys: Sequence[Key]
    points: Tensor
    conditions: Sequence[Condition] = ()
    normals: Tensor | None = None

    def of(self, experts: list[int]) -> Pointwise:
        """At the points of some experts."""
        normals = None if self.normals is None else self.normals[experts]
        return dataclasses.replace(self, points=self.points[experts], normals=normals)

    def __call__(self, z: Tensor, which: Tensor) -> Tensor:
        """z (S, K, D, m) -> (S, K, E, m)."""
        if len(self.problems) == 1:
            return self._of(0, z)
        return torch.cat([self._of(s, z[i : i + 1]) for i, s in enumerate(which.tolist())])

    def _of(self, s: int, z: Tensor) -> Tensor:
        S, K, D, m = z.shape
        columns = z.permute(2, 0, 1, 3).reshape(D, -1)
        points = self.points.reshape(1, K * m, -1).expand(S, -1, -1).reshape(S * K * m, -1)
        f = GivenJet(self.problems[s], points, dict(zip(self.keys, columns, strict=True)))
        if not self.conditions:
            rows = equations(self.problems[s].residual(f))
        else:
            normals = self.normals
            if normals is not None:
                normals = normals.reshape(1, K * m, -1).expand(S, -1, -1).reshape(S * K * m, -1)
            rows = (self.conditions[s].residual(f, normals),)  # type: ignore[call-arg, union-attr]
        return torch.stack([r.expand(S * K * m) for r in rows]).reshape(-1, S, K, m).permute(1, 2, 0, 3)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Rows at drawn points, unscaled by the basis.

    Attributes:
        names: of the groups.
        groups: equations first.
        jumps: between experts, both sides with the same features; None without neighbours.
        values: of the basis functions of each component at the points of the equations, (K, C, m, N).
    """

    names: tuple[str, ...]
    groups: tuple[Rows, ...]
    jumps: Jumps | None
    values: Tensor

    def system(self, n_components: int, joint: bool, share: Share | None = None) -> tuple[System, Tensor]:
        """The least-squares problem in orthonormal functions of each expert, and T (K, C, N, N), these in the basis.

        Of several processes each has the rows of its own experts; if they are joint, T and the jumps are those of all.
        """
        T = orthonormalised(self.values)
        groups = tuple(
            Rows(r.function, r.features @ T[:, list(r.components)], r.offset, r.components, r.weight)
            for r in self.groups
        )
        jumps = self.jumps if joint else None
        share = share if jumps is not None else None
        if share is not None:
            T = share.gather(T[None])[0]
        if jumps is not None:
            components = list(jumps.components)
            left, right = (
                f @ T[side][:, components] for f, side in zip(jumps.features, (jumps.left, jumps.right), strict=True)
            )
            jumps = Jumps(jumps.left, jumps.right, (left, right), jumps.components, jumps.weight)
        return System(groups, jumps, n_components, share=share), T

    def of(self, experts: list[int]) -> Drawn:
        """The rows of some experts, with the jumps between them."""
        groups = tuple(
            dataclasses.replace(
                r,
                function=cast(Pointwise, r.function).of(experts),
                features=r.features[:, experts],
                offset=r.offset[:, experts],
                weight=r.weight[:, experts],
            )
            for r in self.groups
        )
        jumps = self.jumps
        if jumps is not None:
            there = {k: i for i, k in enumerate(experts)}
            pairs = [
                p
                for p, ks in enumerate(zip(jumps.left.tolist(), jumps.right.tolist(), strict=True))
                if there.keys() >= set(ks)
            ]
            left, right = (
                torch.tensor([there[int(side[p])] for p in pairs], dtype=torch.long, device=side.device)
                for side in (jumps.left, jumps.right)
            )
            features = (jumps.features[0][:, pairs], jumps.features[1][:, pairs])
            jumps = Jumps(left, right, features, jumps.components, jumps.weight[pairs]) if pairs else None
        return Drawn(self.names, groups, jumps, self.values[experts])

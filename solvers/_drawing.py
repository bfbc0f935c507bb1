"""Draws points in all blocks and makes rows of the equations, the conditions and the jumps between experts.

All is made of the problem's own `residual` and conditions, by the derivative engine. Rows are divided by how much they
answer to a field of the usual size that varies once over the domain: any units will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import Recorder
from pdelab.conditions import place
from pdelab.constraint_rows import Jumps, Rows, pointwise
from pdelab.domain import Seed, stream
from pdelab.errors import UnknownName
from pdelab.pde import AbstractProblem, Condition, derivatives_used
from pdelab.solvers._basis import Basis, Key, keys_of
from pdelab.solvers._blocks import BlockPoints, Blocks, bounds
from pdelab.solvers._drawn import Drawn, Pointwise
from pdelab.solvers._hard import Constraints
from pdelab.solvers._instance import Instance
from pdelab.solvers._nets import embeddable

WEIGHTS = {"residual": 1.0, "jump": 3.0, "initial": 10.0, "dirichlet": 10.0, "neumann": 10.0}
"""Of the rows, by kind."""


@dataclass(frozen=True)
class Numbers:
    """How many points there are in all: for the equations, on the boundary and at the first time, on each interface."""

    interior: int
    boundary: int
    interface: int


class Drawing:
    """Draws points and makes rows of them.

    Args:
        problem: a member of the family; its conditions are of the same kinds as those of all.
        constraints: of that member.
        alike: whether all members have the same equations.
        basis: the network.
        blocks: of the experts.
        numbers: of points.
        weights: of kinds of rows, in place of those in `WEIGHTS`.
        latest: times beyond are left out.
        own: the experts whose rows are made; None for all.

    Raises:
        UnknownName: a weight of no such kind.
    """

    def __init__(
        self,
        problem: AbstractProblem,
        constraints: Constraints,
        alike: bool,
        basis: Basis,
        blocks: Blocks,
        numbers: Numbers,
        weights: Mapping[str, float],
        latest: float | None = None,
        own: Sequence[int] | None = None,
    ):
        for kind in weights:
            if kind not in WEIGHTS:
                raise UnknownName("kind of rows", kind, WEIGHTS)
        self._weights = {**WEIGHTS, **weights}
        self._problem, self._alike, self._basis, self._numbers = problem, alike, basis, numbers
        self._latest = latest
        self._own = list(range(len(blocks)) if own is None else own)
        self._points = BlockPoints(problem, blocks, latest)
        self.blocks = blocks
        self._values = keys_of(problem, [(c, ()) for c in problem.components])
        self._keys = keys_of(problem, derivatives_used(problem))
        self._wanted = [i for i, c in enumerate(problem.conditions()) if not constraints.meets(c) and not embeddable(c)]
        self._device = next(basis.parameters()).device
        self._jump_keys, self._jump_axes = self._continuous()

    def draw(self, instances: Sequence[Instance], scales: dict[str, Tensor], seed: Seed) -> Drawn:
        """Rows of these members at new points; without scales they are 1."""
        names, groups = ["residual"], []
        K = len(self._own)
        m = max(1, self._numbers.interior // len(self.blocks))
        x = self._tensor(self._points.interior(m, stream(seed, 0))[self._own])
        keys = [*self._keys, *(k for k in self._values if k not in self._keys)]
        features = self._features(x, keys)
        values = torch.stack([features[0, :, keys.index(k)] for k in self._values], dim=1)
        shares = self._tensor(self._points.shares[self._own])
        counted = self._tensor(self._problem.scored(x.reshape(-1, x.shape[-1]).cpu().numpy()).reshape(K, m))
        weight = ((shares[:, None] / m) * counted).sqrt()[None, :, None]
        problems = [i.problem for i in instances]
        function = Pointwise(problems[:1] if self._alike else problems, self._keys, x)
        groups.append(
            self._rows(function, features[:, :, : len(self._keys)], instances, weight, scales.get("residual"))
        )
        for name, rows in self._conditions(instances, scales, seed):
            names.append(name)
            groups.append(rows)
        return Drawn(tuple(names), tuple(groups), self._jumps(scales, seed), values)

    def scales(self, instances: Sequence[Instance], seed: Seed) -> dict[str, Tensor]:
        """Factors of each kind of row, by name: (E,), and (D,) for the jumps.

        One over the root mean square of the row's derivatives in values and derivatives of the field, these in units
        of the components and of the extent of the axes: how much it answers to a field of the size of the lift (of
        1 without one) that varies once over the domain.
        """
        lower, upper = bounds(self._problem)
        extent = self._tensor(upper - lower)
        sizes = self._sizes(instances, seed)

        def unit(key: Key) -> Tensor:
            component, orders = key
            return sizes[component] * torch.prod(extent ** -self._tensor(np.array(orders)))

        drawn = self.draw(instances, {}, seed)
        which = torch.arange(len(instances), device=self._device)
        found = {}
        for name, rows in zip(drawn.names, drawn.groups, strict=True):
            function = rows.function
            assert isinstance(function, Pointwise)
            scale = torch.stack([unit(key) for key in function.keys])
            z = rows.offset.expand(len(instances), -1, -1, -1)
            plain = dataclasses.replace(rows, weight=torch.ones_like(rows.weight))
            _, first, _ = pointwise(plain, z, which, False)
            size = (first * scale[:, None]).square().sum(dim=3).mean(dim=(0, 1, 3)).sqrt()
            found[name] = self._weights[name.split()[0].removesuffix("_t")] / size.clamp(min=1e-300)
        units = [unit(key) for key in dict.fromkeys(self._jump_keys)]
        if units:
            found["jump"] = self._weights["jump"] / torch.stack(units)
        return found

    def _sizes(self, instances: Sequence[Instance], seed: Seed) -> Tensor:
        """Root mean square of the lift of each component, 1 where it is zero, (C,)."""
        x = self._tensor(self._points.interior(256, seed)).reshape(-1, len(self._problem.axes))
        sizes = torch.stack([i.lift(x, self._values) for i in instances]).square().mean(dim=(0, 2)).sqrt()
        return torch.where(sizes > 0, sizes, 1.0)

    def _features(self, x: Tensor, keys: Sequence[Key]) -> Tensor:
        """(K, m, d) -> (1, K, D, m, N)."""
        K, m, d = x.shape
        flat = self._basis.features(x.reshape(K * m, d), keys)
        return flat.reshape(len(keys), K, m, -1).transpose(0, 1)[None]

    def _rows(
        self,
        function: Pointwise,
        features: Tensor,
        instances: Sequence[Instance],
        weight: Tensor,
        scale: Tensor | None,
    ) -> Rows:
        x, keys = function.points, function.keys
        K, m, d = x.shape
        offset = torch.stack([i.lift(x.reshape(K * m, d), keys).reshape(len(keys), K, m) for i in instances])
        if scale is None:
            scale = weight.new_ones(1)
        return Rows(function, features, offset.transpose(1, 2), tuple(c for c, _ in keys), weight * scale[:, None])

    def _conditions(
        self, instances: Sequence[Instance], scales: dict[str, Tensor], seed: Seed
    ) -> list[tuple[str, Rows]]:
        found = []
        n = self._numbers.boundary
        placed = place(self._problem, n, n, stream(seed, 1)) if self._wanted else ()
        for number in self._wanted:
            condition = placed[number]
            points = condition.points.copy()
            if self._latest is not None and self._problem.time is not None:
                t0, t1 = self._problem.time
                points[:, -1] = t0 + (points[:, -1] - t0) * (self._latest - t0) / (t1 - t0)
            label = self.blocks.label(torch.as_tensor(points)).numpy()
            m = int(np.bincount(label).max())
            order, weight = np.zeros((len(self._own), m), dtype=int), np.zeros((len(self._own), m))
            for i, k in enumerate(self._own):
                mine = np.flatnonzero(label == k)
                order[i, : len(mine)], weight[i, : len(mine)] = mine, 1.0 / len(points)
            x = self._tensor(points[order])
            normals = None if condition.normals is None else self._tensor(condition.normals[order])
            keys = self._condition_keys(condition.condition)
            conditions = [i.conditions[number] for i in instances]
            function = Pointwise([i.problem for i in instances], keys, x, conditions, normals)
            rows = self._rows(
                function, self._features(x, keys), instances, self._tensor(weight).sqrt()[None, :, None],
                scales.get(condition.name),
            )  # fmt: skip
            found.append((condition.name, rows))
        return found

    def _condition_keys(self, condition: Condition) -> list[Key]:
        """Which derivatives it asks for."""
        middle = torch.zeros(1, len(self._problem.axes), dtype=torch.float64)
        recorder = Recorder(middle, self._problem.components, self._problem.axes, {})
        condition.residual(recorder, torch.zeros(1, self._problem.domain.dimension, dtype=torch.float64))  # type: ignore[union-attr, call-arg]
        return keys_of(self._problem, tuple(recorder.asked))

    def _continuous(self) -> tuple[list[Key], list[int]]:
        """What is continuous across a face: derivatives along its axis below the highest one of the equations.

        Returns:
            keys; for each the axis across which it is asked for.
        """
        keys, axes = [], []
        for c in range(len(self._problem.components)):
            for axis in range(len(self._problem.axes)):
                highest = max((orders[axis] for component, orders in self._keys if component == c), default=0)
                for order in range(highest):
                    keys.append((c, tuple(order * int(i == axis) for i in range(len(self._problem.axes)))))
                    axes.append(axis)
        return keys, axes

    def _jumps(self, scales: dict[str, Tensor], seed: Seed) -> Jumps | None:
        found = self._points.interfaces(self._numbers.interface, stream(seed, 2))
        if found is None:
            return None
        unique = list(dict.fromkeys(self._jump_keys))
        features = self._features(self._tensor(found.points), unique)
        asked = np.array(
            [
                [
                    any(k == key and a == axis for k, a in zip(self._jump_keys, self._jump_axes, strict=True))
                    for key in unique
                ]
                for axis in found.axis
            ]
        )
        n = np.maximum(found.weight.sum(), 1.0)
        weight = self._tensor(np.sqrt(found.weight[:, None] * asked[:, :, None] / n))
        scale = scales.get("jump", weight.new_ones(1))
        left, right = (torch.as_tensor(side, device=self._device) for side in (found.left, found.right))
        return Jumps(left, right, (features, features), tuple(c for c, _ in unique), weight * scale[:, None])

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float64, device=self._device)


def refined(blocks: Blocks, drawn: Drawn, omega: Tensor) -> Blocks:
    """With the block whose equations are missed most cut in two, along the axis whose halves differ most."""
    rows = drawn.groups[0]
    function = rows.function
    assert isinstance(function, Pointwise)
    r = rows.weight * rows.function(rows.values(omega), torch.arange(len(omega), device=omega.device))
    miss = r.square().sum(dim=(0, 2)).cpu().numpy()
    worst = int(miss.sum(axis=1).argmax())
    x, lower, upper = function.points[worst].cpu().numpy(), blocks.lower[worst], blocks.upper[worst]
    middle = 0.5 * (lower + upper)
    gaps = [
        abs(miss[worst][x[:, i] < middle[i]].sum() - miss[worst][x[:, i] >= middle[i]].sum())
        for i in range(len(middle))
    ]
    axis = int(np.argmax(gaps))
    return blocks.split(worst, axis, float(middle[axis]))

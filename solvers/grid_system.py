"""Any box problem as a discrete system on a tensor-product grid: residuals and Jacobians from the problem alone.

A problem is read through `residual` and `conditions` only. At the grid points its residual is a function of
the values and derivatives that it asks for, the channels; each channel is a differentiation matrix times the
unknowns, so with D_c the matrix of channel c and r the residual

    Jacobian = sum_c diag(dr/dc) D_c

where the pointwise factors dr/dc come from one reverse pass. Boundary conditions replace rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates, Recorder
from pdelab.domain import Box
from pdelab.pde import (
    AbstractProblem,
    Dirichlet,
    Initial,
    Neumann,
    Observations,
    derivatives_used,
    equations,
    evaluate,
)
from pdelab.solvers.axes import Axis

Channel = tuple[str, tuple[str, ...]]


class GridJet(AbstractJet):
    """A field at grid points whose derivatives are given tensors, one for each channel."""

    def __init__(self, points: Tensor, problem: AbstractProblem, channels: dict[Channel, Tensor]):
        super().__init__(points, problem.axes)
        self.components = problem.components
        self.space_axes = problem.domain.axes
        self.unknowns = {}
        self._channels = channels

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        return self._channels[component, tuple(sorted(along, key=self.axes.index))]


@dataclass(frozen=True, eq=False)
class _Block:
    """Residuals at some grid nodes and the rows of the system that they fill; row -1 is dropped."""

    residual: Callable[[AbstractJet], tuple[Tensor, ...]]
    nodes: np.ndarray
    rows: tuple[np.ndarray, ...]
    channels: tuple[Channel, ...]


def refusal(problem: AbstractProblem) -> str:
    """Why a problem cannot be solved on a grid ('' if it can)."""
    if not isinstance(problem.domain, Box):
        return f"its domain is no box but a {type(problem.domain).__name__}; use fem"
    if problem.domain.dimension > 3:
        return f"a grid in {problem.domain.dimension} space dimensions is too large; use pinn"
    if problem.unknowns:
        return f"it has unknown coefficients ({', '.join(problem.unknowns)}); use pinn"
    used = derivatives_used(problem)
    if any(along.count("t") > 2 for _, along in used):
        return "it has time derivatives above the second"
    conditions = problem.conditions()
    if any(isinstance(c, Observations) and not _pins(problem, c) for c in conditions):
        return "it has observations inside the domain; use pinn"
    count, own = _equations_hold(problem, used)
    if count != len(problem.components):
        return f"it has {count} equations for {len(problem.components)} components"
    if problem.time is None and not all(own):
        name = problem.components[own.index(False)]
        return f"no equation of its own determines {name!r} (equation {own.index(False) + 1} does not hold it); use fem"
    if problem.time is not None:
        for name in problem.components:
            order = max([along.count("t") for c, along in used if c == name], default=0)
            given = {c.order for c in conditions if isinstance(c, Initial) and c.component == name}
            if not order or not given >= set(range(order)):
                return f"{name!r} needs a time derivative in the equations and initial values for each order below it"
    return ""


class GridSystem:
    """G(t, y, y') = 0 for a problem on a grid.

    y holds the components one after the other, then the velocities of those with a second time derivative,
    each at all nodes; the rows are ordered alike. A boundary condition fills the row of its component at its
    node; a second one on the same component (the slope of a clamped plate) that of the next node inside. Where
    faces meet, the first condition is kept, Dirichlet's before others.
    """

    def __init__(self, problem: AbstractProblem, axes: Sequence[Axis]):
        self.problem, self.axes = problem, tuple(axes)
        grids = np.meshgrid(*[a.nodes for a in axes], indexing="ij")
        self.points = np.stack([g.ravel() for g in grids], axis=1)
        self.n = len(self.points)
        used = derivatives_used(problem)
        self.second = [c for c in problem.components if (c, ("t", "t")) in {(c, a[-2:]) for c, a in used}]
        self.names = [*problem.components, *[f"{c}_t" for c in self.second]]
        self.size = self.n * len(self.names)
        self._points = torch.as_tensor(self.points)
        self._matrices = functools.cache(self._matrix)
        self._blocks = self._build(used)
        self._pieces = functools.cache(self._piece)

    def initial(self) -> np.ndarray:
        """y at the first time; zeros for a steady problem."""
        y = np.zeros((len(self.names), self.n))
        for condition in self.problem.conditions():
            if isinstance(condition, Initial):
                row = condition.component if condition.order == 0 else f"{condition.component}_t"
                if row in self.names:
                    y[self.names.index(row)] = evaluate(condition.value, self._coordinates(self._start)).numpy()
        return y.ravel()

    def evaluate(self, t: float, y: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """G, (M,)."""
        result = np.zeros(self.size)
        for block in self._blocks:
            _, values = self._residuals(block, t, y, rate, differentiable=False)
            for rows, value in zip(block.rows, values, strict=True):
                kept = rows >= 0
                result[rows[kept]] = value.numpy()[kept]
        return self._with_velocities(result, y, rate)

    def linearise(self, t: float, y: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, Any, Any]:
        """G, dG/dy and dG/dy' (both (M, M), csc)."""
        result = np.zeros(self.size)
        parts: tuple[list, list] = ([], [])
        for number, block in enumerate(self._blocks):
            channels, values = self._residuals(block, t, y, rate, differentiable=True)
            for e, (rows, value) in enumerate(zip(block.rows, values, strict=True)):
                kept = rows >= 0
                result[rows[kept]] = value.detach().numpy()[kept]
                if not value.requires_grad:
                    continue
                # The rows are independent, so the gradient of the sum holds every pointwise derivative.
                slopes = torch.autograd.grad(value.sum(), list(channels.values()), retain_graph=True, allow_unused=True)
                for channel, slope in zip(channels, slopes, strict=True):
                    if slope is not None:
                        target, row, column, weight, place = self._pieces(number, e, channel)
                        parts[target].append((row, column, weight * slope.numpy()[place]))
        for k, name in enumerate(self.second):
            velocity = self.n * (len(self.problem.components) + k) + np.arange(self.n)
            own = self.n * self.problem.components.index(name) + np.arange(self.n)
            parts[0].append((velocity, velocity, -np.ones(self.n)))
            parts[1].append((velocity, own, np.ones(self.n)))
        return (self._with_velocities(result, y, rate), *(self._summed(p) for p in parts))

    def values(self, y: np.ndarray) -> np.ndarray:
        """The components of y on the grid, (*grid, m)."""
        shape = [len(a.nodes) for a in self.axes]
        m = len(self.problem.components)
        return np.moveaxis(y.reshape(len(self.names), *shape)[:m], 0, -1)

    @property
    def _start(self) -> float:
        return self.problem.time[0] if self.problem.time else 0.0

    def _coordinates(self, t: float, nodes: np.ndarray | slice = slice(None)) -> Coordinates:
        return Coordinates(self._at(t, nodes), self.problem.axes)

    def _at(self, t: float, nodes: np.ndarray | slice) -> Tensor:
        points = self._points[nodes]
        return (
            torch.cat([points, torch.full((len(points), 1), t, dtype=torch.float64)], 1)
            if self.problem.time
            else points
        )

    def _matrix(self, along: tuple[str, ...]) -> sparse.csr_matrix:
        """Differentiation along space axes, the Kronecker product of those of the axes."""
        product = sparse.identity(1, format="csr")
        for name, axis in zip(self.problem.domain.axes, self.axes, strict=True):
            order = along.count(name)
            factor = axis.matrix(order) if order else sparse.identity(len(axis.nodes), format="csr")
            product = sparse.kron(product, factor, format="csr")
        return product

    def _locate(self, channel: Channel) -> tuple[int, int, tuple[str, ...]]:
        """Where a channel comes from: 0 for y or 1 for y', the first entry there, and the space axes."""
        name, along = channel
        times = along.count("t")
        if name in self.second and times:
            return times - 1, self.n * self.names.index(f"{name}_t"), along[: len(along) - times]
        return times, self.n * self.names.index(name), along[: len(along) - times]

    def _residuals(
        self, block: _Block, t: float, y: np.ndarray, rate: np.ndarray, *, differentiable: bool
    ) -> tuple[dict[Channel, Tensor], tuple[Tensor, ...]]:
        channels = {}
        for channel in block.channels:
            source, first, space = self._locate(channel)
            part = (y, rate)[source][first : first + self.n]
            value = self._rows(space, block) @ part if space else part[block.nodes]
            channels[channel] = torch.as_tensor(value).requires_grad_(differentiable)
        f = GridJet(self._at(t, block.nodes), self.problem, channels)
        with torch.set_grad_enabled(differentiable):
            return channels, tuple(r.expand(len(block.nodes)) for r in block.residual(f))

    def _rows(self, space: tuple[str, ...], block: _Block) -> sparse.csr_matrix:
        matrix = self._matrices(space)
        return matrix if len(block.nodes) == self.n else matrix[block.nodes]

    def _piece(
        self, number: int, e: int, channel: Channel
    ) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Entries of the Jacobian of equation e by a channel: where, rows, columns, weights, and point numbers."""
        block = self._blocks[number]
        source, first, space = self._locate(channel)
        keep = np.flatnonzero(block.rows[e] >= 0)
        matrix = self._matrices(space)[block.nodes[keep]].tocoo()
        return source, block.rows[e][keep][matrix.row], first + matrix.col, matrix.data, keep[matrix.row]

    def _summed(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> sparse.csc_matrix:
        if not parts:
            return sparse.csc_matrix((self.size, self.size))
        rows, columns, data = (np.concatenate(column) for column in zip(*parts, strict=True))
        return sparse.csc_matrix((data, (rows, columns)), shape=(self.size, self.size))

    def _with_velocities(self, result: np.ndarray, y: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """The rows du/dt = velocity."""
        for k, name in enumerate(self.second):
            own = self.n * (len(self.problem.components) + k)
            value = self.n * self.problem.components.index(name)
            result[own : own + self.n] = rate[value : value + self.n] - y[own : own + self.n]
        return result

    def _build(self, used: tuple[Channel, ...]) -> list[_Block]:
        """The equations at all nodes, then one block for each condition and face."""
        components = list(self.problem.components)
        free = np.ones((len(components), self.n), dtype=bool)
        blocks, displaced = [], []
        for condition, nodes, inward, normal in self._faces():
            own = components.index(condition.component)
            take = free[own, nodes]
            free[own, nodes] = False
            if take.any():
                blocks.append(self._condition(condition, nodes[take], nodes[take], normal))
            if not take.all():
                displaced.append((condition, own, nodes[~take], nodes[~take] + inward, normal))
        inner = np.ones(self.n, dtype=bool)
        for nodes, _, _ in self._ends().values():
            inner[nodes] = False
        for condition, own, nodes, neighbours, normal in displaced:
            take = inner[neighbours] & free[own, neighbours]
            free[own, neighbours[take]] = False
            if take.any():
                blocks.append(self._condition(condition, nodes[take], neighbours[take], normal))
        every = np.arange(self.n)
        rows = tuple(np.where(free[e], e * self.n + every, -1) for e in range(len(components)))
        whole = _Block(lambda f: equations(self.problem.residual(f)), every, rows, used)
        return [whole, *blocks]

    def _condition(self, condition: Any, nodes: np.ndarray, at: np.ndarray, normal: np.ndarray | None) -> _Block:
        """A condition at some nodes, in the rows of its component at others."""
        normals = None if normal is None else torch.as_tensor(normal).expand(len(nodes), -1)
        recorder = Recorder(self._at(self._start, nodes[:1]), self.problem.components, self.problem.axes, {})
        condition.residual(recorder, None if normals is None else normals[:1])
        rows = (self.problem.components.index(condition.component) * self.n + at,)
        return _Block(lambda f: (condition.residual(f, normals),), nodes, rows, tuple(recorder.asked))

    def _ends(self) -> dict[str, tuple[np.ndarray, int, np.ndarray]]:
        """Boundary part -> its nodes, the step in number to the next node inside, and the outward normal."""
        shape = [len(a.nodes) for a in self.axes]
        number = np.arange(self.n).reshape(shape)
        found = {}
        for i, axis in enumerate(self.axes):
            if axis.period is not None:
                continue
            for end, part in ((0, self.problem.domain.parts[2 * i]), (-1, self.problem.domain.parts[2 * i + 1])):
                normal = np.zeros(len(self.axes))
                normal[i] = 1.0 if end else -1.0
                found[part] = np.take(number, end, axis=i).ravel(), int(-normal[i] * np.prod(shape[i + 1 :])), normal
        return found

    def _faces(self) -> list[tuple[Any, np.ndarray, int, np.ndarray | None]]:
        """(condition, nodes, step inward, normal), pinned values first, then Dirichlet's, then the rest."""
        found: list[tuple[Any, np.ndarray, int, np.ndarray | None]] = []
        ends = self._ends()
        for condition in sorted(self.problem.conditions(), key=_rank):
            if isinstance(condition, Observations):
                place = condition.points[0, : self.points.shape[1]]
                found.append((condition, np.abs(self.points - place).sum(axis=1).argmin()[None], 0, None))
            elif isinstance(condition, Dirichlet | Neumann):
                parts = ends if condition.part is None else [condition.part]
                found += [(condition, *ends[part]) for part in parts]
        return found


def _rank(condition: Any) -> int:
    return [Observations, Dirichlet].index(type(condition)) if type(condition) in (Observations, Dirichlet) else 2


def _pins(problem: AbstractProblem, condition: Observations) -> bool:
    """Whether this is one value of a component of a steady problem that is defined up to a constant."""
    return problem.time is None and len(condition.points) == 1 and condition.component in problem.gauge


def _equations_hold(problem: AbstractProblem, used: tuple[Channel, ...]) -> tuple[int, list[bool]]:
    """The number of equations, and whether each holds the component of its own number in some channel."""
    lower, upper = problem.domain.bounds
    middle = [*(0.5 * (lower + upper)), *([sum(problem.time) / 2] if problem.time else [])]
    channels = {c: torch.full((1,), 0.3 + 0.1 * i, dtype=torch.float64, requires_grad=True) for i, c in enumerate(used)}
    found = equations(problem.residual(GridJet(torch.tensor([middle], dtype=torch.float64), problem, channels)))
    own = []
    for name, value in zip(problem.components, found, strict=False):
        mine = [channels[c] for c in used if c[0] == name]
        slopes = torch.autograd.grad(value.sum(), mine, retain_graph=True, allow_unused=True) if mine else ()
        own.append(any(s is not None and bool(s.abs().max() > 0) for s in slopes))
    return len(found), own

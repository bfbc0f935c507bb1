"""Box problems on a tensor-product grid, from conditions to a solution; by Chebyshev and Fourier collocation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import signal

from pdelab.errors import IncompatibleProblem
from pdelab.fields import GridField
from pdelab.mesh import Mesh
from pdelab.pde import AbstractProblem, Periodic
from pdelab.solution import Solution, Status
from pdelab.solver import Context, Progress
from pdelab.solvers.axes import Axis, chebyshev_axis, fourier_axis
from pdelab.solvers.grid_system import GridSystem, refusal
from pdelab.solvers.radau import NewtonFailed, Radau, steady

FOURIER_REFINEMENT = 8
GROWTH = 1e6  # of the largest value, against what the initial and boundary values are: no solution does that


def solve_steady(
    problem: AbstractProblem, levels: Sequence[Sequence[Axis]], tolerance: float, context: Context
) -> Solution:
    """A steady problem by Newton's method on one grid after the other, each started from the one before."""
    field: GridField | None = None
    steps = 0
    system = GridSystem(problem, levels[0])
    for axes in levels:
        system = GridSystem(problem, axes)
        first = system.initial()
        if field is not None:
            with torch.no_grad():
                first = field(torch.as_tensor(system.points)).numpy().T.ravel()
        try:
            y, count = steady(system, first, tolerance)
        except NewtonFailed as failure:
            if field is None and axes is not levels[-1]:
                continue
            return _finished(system, first[None], None, Status.MAX_ITERATIONS, str(failure), steps, context)
        steps += count
        field = _field(system, y[None], None)
    return _finished(system, y[None], None, Status.CONVERGED, "", steps, context)


def solve_in_time(
    problem: AbstractProblem, axes: Sequence[Axis], times: np.ndarray, tolerance: float, context: Context
) -> Solution:
    """A time-dependent problem by Radau IIA from level to level of `times`; every level is kept."""
    system = GridSystem(problem, axes)
    integrator = Radau(system, tolerance)
    states = [system.initial()]
    for k, (t, following) in enumerate(zip(times[:-1], times[1:], strict=True)):
        try:
            states.append(integrator.advance(t, states[-1], following - t))
        except NewtonFailed as failure:
            reached = np.stack([*states, *[states[-1]] * (len(times) - len(states))])
            return _finished(system, reached, times, Status.MAX_ITERATIONS, str(failure), k, context)
        largest = float(np.abs(states[-1]).max())
        if largest > GROWTH * (1.0 + float(np.abs(states[0]).max())):
            reached = np.stack([*states, *[states[-1]] * (len(times) - len(states))])
            message = f"values up to {largest:.3g} at t = {following:.4g}"
            return _finished(system, reached, times, Status.UNSTABLE, message, k + 1, context)
        context.report(Progress(k + 1, len(times) - 1, {"t": float(following)}))
    return _finished(system, np.stack(states), times, Status.CONVERGED, "", len(times) - 1, context)


def chebyshev_solve(problem: AbstractProblem, n: int, context: Context, n_steps: int = 100) -> Solution:
    """A box problem by collocation, Chebyshev nodes in space (Fourier where periodic), Radau IIA in time.

    The error falls like exp(-c n) for smooth solutions. The matrices are dense: n + 1 nodes on an axis cost
    about (n + 1)^(3 d) operations.

    Args:
        problem: on a box of at most three dimensions.
        n: cells per axis.
        context: of the run.
        n_steps: time steps, for a time-dependent problem.

    Raises:
        IncompatibleProblem: the reason is named.
    """
    reason = refusal(problem)
    if reason:
        raise IncompatibleProblem(f"collocation cannot solve {problem.name!r}: {reason}")
    axes = grid_axes(
        problem, lambda lower, upper, _, periodic: (fourier_axis if periodic else chebyshev_axis)(lower, upper, n)
    )
    if problem.time is None:
        return solve_steady(problem, [axes], 1e-11, context)
    return solve_in_time(problem, axes, np.linspace(*problem.time, n_steps + 1), 1e-12, context)


def grid_axes(problem: AbstractProblem, make: Callable[[float, float, int, bool], Axis]) -> list[Axis]:
    """One axis for each space coordinate, from make(lower, upper, its number, whether it is periodic)."""
    wrapped = {c.axis for c in problem.conditions() if isinstance(c, Periodic)}
    ends = zip(problem.domain.axes, *problem.domain.bounds, strict=True)
    return [make(float(lower), float(upper), i, name in wrapped) for i, (name, lower, upper) in enumerate(ends)]


def _field(system: GridSystem, states: np.ndarray, times: np.ndarray | None) -> GridField:
    values = np.stack([system.values(y) for y in states], axis=-2)
    nodes = [a.nodes for a in system.axes]
    periods = {i: a.period for i, a in enumerate(system.axes) if a.period is not None}
    spectral = [i for i, a in enumerate(system.axes) if a.spectral and a.period is None]
    for i, axis in enumerate(system.axes):
        if axis.spectral and axis.period is not None:
            # Local interpolation needs a finer grid than Fourier series.
            count = FOURIER_REFINEMENT * len(axis.nodes)
            values = signal.resample(values, count, axis=i)
            nodes[i] = axis.nodes[0] + axis.period * np.arange(count) / count
    if times is None:
        return GridField(nodes, values[..., 0, :], periods, spectral)
    return GridField([*nodes, times], values, periods, spectral)


def _finished(
    system: GridSystem,
    states: np.ndarray,
    times: np.ndarray | None,
    status: Status,
    message: str,
    steps: int,
    context: Context,
) -> Solution:
    stats = {"dofs": float(system.size), "steps": float(steps), "solve_s": context.clock.seconds}
    field = _field(system, states, times)
    return Solution(system.problem, field, status, message, stats, mesh=_mesh(system), times=times)


def _mesh(system: GridSystem) -> Mesh | None:
    """The grid as lines or quadrilaterals; none in three dimensions."""
    shape = [len(a.nodes) for a in system.axes]
    number = np.arange(system.n).reshape(shape)
    if len(shape) == 1:
        return Mesh(system.points, np.stack([number[:-1], number[1:]], axis=1), "line")
    if len(shape) == 2:
        corners = [number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]]
        return Mesh(system.points, np.stack([c.ravel() for c in corners], axis=1), "quad")
    return None

"""Contract tests for plug-ins: call them from your own test suite, one line each.

    from pdelab import testing

    def test_my_problem():
        testing.check_problem(MyProblem())

    def test_my_solver():
        testing.check_solver(MySolver(), pdelab.problem("poisson"))

Each raises AssertionError with the promise that was broken.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdelab import sampling
from pdelab.calculus import jet
from pdelab.checkpoint import CheckpointStore
from pdelab.conditions import place
from pdelab.config import build
from pdelab.errors import IncompatibleProblem
from pdelab.mesh import Mesh
from pdelab.mover import AbstractMover
from pdelab.pde import AbstractProblem, Exact, Observations, derivatives_used, equations
from pdelab.reference import resolve
from pdelab.solver import AbstractSolver, Progress, solve


def check_problem(problem: AbstractProblem, *, seed: int = 7193) -> None:
    """A problem keeps its promises: settings, shapes, conditions, and a closed form that solves its equations.

    Args:
        problem: with the parameters to check.
        seed: of the points.

    Raises:
        AssertionError: naming the promise.
    """
    _check_settings(problem)
    axes, components = problem.axes, problem.components
    assert components and len(set(components)) == len(components), f"components must differ: {components}"
    assert len(axes) == problem.domain.dimension + bool(problem.time), f"one axis name per coordinate: {axes}"
    points = torch.as_tensor(sampling.interior(problem, 64, seed))
    unknowns = {name: torch.tensor(value, dtype=torch.float64) for name, value in problem.unknowns.items()}
    wavy = _WavyField(len(axes), len(components))
    for i, value in enumerate(equations(problem.residual(jet(wavy, points, components, axes, unknowns)))):
        assert value.shape == (64,), f"equation {i}: expected shape (64,), got {tuple(value.shape)}"
        assert value.isfinite().all(), f"equation {i} is not finite for a smooth field"
    placed = place(problem, 32, 16, seed)
    for condition in placed:
        at = torch.as_tensor(condition.points)
        value = condition.residual(jet(wavy, at, components, axes, unknowns))
        assert value.ndim == 1 and value.isfinite().all(), f"condition {condition.name!r} is not finite"
    recipe = problem.reference()
    if isinstance(recipe, Exact) and not problem.unknowns:
        _check_exact(problem, points)


def check_solver(
    solver: AbstractSolver[Any], problem: AbstractProblem, *, budget: str = "6steps", seed: int = 48109
) -> None:
    """A solver solves or refuses, changes nothing, repeats itself to the bit, and resumes to the bit.

    Args:
        solver: with small settings; it is run a few times.
        problem: to solve; where the solver refuses it, the refusal must be an `IncompatibleProblem`.
        budget: for trained solvers; in steps, at least 6.
        seed: of the runs.

    Raises:
        AssertionError: naming the promise.
    """
    _check_settings(solver)
    before = (repr(solver), repr(problem))
    try:
        first = solve(problem, solver, budget=budget, seed=seed, device="cpu", threads=1, throw=False)
    except IncompatibleProblem as refusal:
        assert problem.name in str(refusal), "a refusal names the problem"
        return
    points = sampling.interior(problem, 33, seed)
    values = first.at(points)
    assert values.shape == (33, len(problem.components)), f"field: expected (33, m), got {values.shape}"
    assert not first.status.ok or np.isfinite(values).all(), (
        f"status {first.status.name} with values that are not finite"
    )
    assert (repr(solver), repr(problem)) == before, "run must not change the solver or the problem"
    again = solve(problem, solver, budget=budget, seed=seed, device="cpu", threads=1, throw=False)
    assert np.array_equal(values, again.at(points)), "the same seed must give the same bits"
    with tempfile.TemporaryDirectory() as folder:
        _interrupt(solver, problem, budget, seed, Path(folder))
        resumed = solve(
            problem,
            solver,
            budget=budget,
            seed=seed,
            device="cpu",
            threads=1,
            throw=False,
            checkpoints=CheckpointStore(Path(folder), {"solver": solver.name}, every=0.0),
        )
    assert np.array_equal(values, resumed.at(points)), (
        "a run that was interrupted and resumed must end with the same bits"
    )


def check_mover(mover: AbstractMover[Any], *, state: Any = None, tolerance: float = 1e-10) -> None:
    """A mover keeps cells and boundary, inverts nothing, and leaves the mesh at rest for constant values.

    Args:
        mover: to be checked on a triangulated unit square.
        state: what `prepare` returned, for learned movers.
        tolerance: largest displacement for constant values, as a share of the cell size.

    Raises:
        AssertionError: naming the promise.
    """
    mesh = _triangulated_square(8)
    x, y = mesh.points.T
    for values in (np.tanh(20 * (x - 0.5)), np.exp(-50 * ((x - 0.3) ** 2 + (y - 0.6) ** 2))):
        moved = mover.move(mesh, values[:, None], state)
        assert np.array_equal(moved.cells, mesh.cells), "a mover keeps the cells"
        assert (moved.volumes() > 0).all(), f"{int((moved.volumes() <= 0).sum())} cells inverted"
        for axis in (0, 1):
            for end in (0.0, 1.0):
                side = mesh.points[:, axis] == end
                assert np.abs(moved.points[side, axis] - end).max() <= 1e-12, "boundary nodes stay on the boundary"
    rest = mover.move(mesh, np.ones((mesh.n_points, 1)), state)
    largest = float(np.abs(rest.points - mesh.points).max()) * 8
    assert largest <= tolerance, f"constant values moved the mesh by {largest:.3g} of a cell"


class _Interrupted(Exception):
    """Stands for a kill in the middle of a run."""


def _interrupt(solver: AbstractSolver[Any], problem: AbstractProblem, budget: str, seed: int, folder: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.step >= 3:
            raise _Interrupted

    try:
        store = CheckpointStore(folder, {"solver": solver.name}, every=0.0)
        solve(
            problem,
            solver,
            budget=budget,
            seed=seed,
            device="cpu",
            threads=1,
            throw=False,
            checkpoints=store,
            report=stop,
        )
    except _Interrupted:
        pass


def _check_settings(thing: Any) -> None:
    cls = type(thing)
    assert dataclasses.is_dataclass(thing), f"{cls.__name__} must be a dataclass"
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} must be frozen"  # type: ignore[attr-defined]
    assert isinstance(getattr(cls, "name", None), str), f"{cls.__name__} needs a class attribute 'name'"
    assert (cls.__doc__ or "").strip(), f"{cls.__name__} needs a docstring; its first line is shown by 'pdelab list'"
    plain = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
    assert build(cls, plain) == thing, f"{cls.__name__} built from its own settings must be the same"


def _check_exact(problem: AbstractProblem, points: torch.Tensor) -> None:
    reference = resolve(problem)
    assert reference is not None
    f = jet(reference.field, points, problem.components, problem.axes)
    residual = torch.stack([r.detach().expand(len(f)) for r in equations(problem.residual(f))])
    terms = [f.derivative(c, *along).detach().abs().max() for c, along in derivatives_used(problem)]
    scale = 1.0 + float(torch.stack(terms).max())
    worst = float(residual.abs().max())
    assert worst <= 1e-8 * scale, f"the closed form misses the equations by {worst:.3g} (terms up to {scale:.3g})"
    for condition in place(problem, 32, 16, 5519):
        g = jet(reference.field, torch.as_tensor(condition.points), problem.components, problem.axes)
        miss = float(condition.residual(g).detach().abs().max())
        # Data carry noise; six standard deviations are exceeded once in 10^9.
        noise = condition.condition.noise if isinstance(condition.condition, Observations) else 0.0
        assert miss <= 1e-8 * scale + 6.0 * noise, (
            f"the closed form misses the condition {condition.name!r} by {miss:.3g}"
        )


def _triangulated_square(n: int) -> Mesh:
    line = np.linspace(0.0, 1.0, n + 1)
    points = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    a, b, c, d = corner, corner + n + 1, corner + n + 2, corner + 1
    return Mesh(points, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


class _WavyField:
    """A smooth field of no particular problem, positive so that roots and logarithms of it exist."""

    def __init__(self, d: int, m: int):
        generator = torch.Generator().manual_seed(2287)
        self._waves = torch.rand(d, m, generator=generator, dtype=torch.float64)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 + 0.25 * torch.sin(x @ self._waves)

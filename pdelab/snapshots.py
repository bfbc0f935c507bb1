"""A solution at the points of grids and meshes, sampled once for the files and the pictures of a run."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pdelab import metrics
from pdelab.calculus import Field, jet
from pdelab.domain import Box
from pdelab.errors import PdelabError, SettingsError, check_range
from pdelab.mesh import Mesh
from pdelab.pde import AbstractElasticityProblem, AbstractProblem, derivatives_used, residual_values
from pdelab.reference import Reference
from pdelab.solution import Solution
from pdelab.vtk import Grid, padded

RESOLUTION = {1: 201, 2: 101, 3: 33}
"""Points on each axis, by space dimension; beyond three dimensions a slice of two is sampled."""
N_TIMES = 11
_CHUNK = 8192

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Named arrays at the points of a grid or mesh, (N,) or (N, 3); `time` None: steady, or an axis of the grid."""

    place: Grid | Mesh
    arrays: Mapping[str, np.ndarray]
    time: float | None = None


@dataclass(frozen=True, eq=False)
class Snapshots:
    """What was sampled of a solution.

    Attributes:
        solution: what was sampled.
        reference: what it was compared with; None if there is none.
        series: one snapshot for each time; a single one for a steady problem.
        image: over (x, t), for a problem in one space dimension and time, without residual; the values of
            `series` are rows of it.
        nodes: at the mesh of a solution in a box, at the last time; None if it has no mesh.
    """

    solution: Solution
    reference: Reference | None
    series: tuple[Snapshot, ...]
    image: Snapshot | None = None
    nodes: Snapshot | None = None


def take(solution: Solution, resolution: int | None = None, times: int | None = None) -> Snapshots:
    """Sample a solution, its reference, the error and the residual.

    In a box of up to three dimensions the points are a regular grid; in any other domain the nodes of the
    solution's own mesh, or of one made for the purpose. Beyond three dimensions the grid is the slice spanned
    by the first two axes through the middle of the others. Arrays: see `arrays_at`, and `residual` (n,), the
    Euclidean norm of the residuals, unless the field lacks a derivative that the equations need or the equations say
    too little at points (`AbstractProblem.weak`).

    Args:
        solution: what to sample.
        resolution: points on each axis, at least 2; `RESOLUTION` if None.
        times: number of times, evenly spaced, both ends included, at least 2; `N_TIMES` if None.

    Raises:
        SettingsError: a resolution or a number of times below 2, or times for a steady problem.
    """
    problem = solution.problem
    check_request(problem, resolution, times)
    reference = known_reference(problem)
    place = geometry(solution, resolution)
    moments: list[float | None] = [None]
    if problem.time is not None:
        moments = [float(t) for t in np.linspace(*problem.time, times or N_TIMES)]

    smooth = not problem.weak and _differentiable(problem, solution.field, _probe(problem, place, moments))

    def at(place: Grid | Mesh, time: float | None, values: Mapping[str, np.ndarray] | None = None) -> Snapshot:
        points = points_at(problem, place, time)
        arrays = dict(values or arrays_at(solution, points, reference))
        return Snapshot(place, arrays | ({"residual": residual_norm(solution, points)} if smooth else {}), time)

    image = None
    if problem.time and isinstance(place, Grid) and len(place.shape) == 1:
        image = _space_time(solution, place, len(moments), reference)
        series = tuple(at(place, time, row) for time, row in zip(moments, _rows(image, len(moments)), strict=True))
    else:
        series = tuple(at(place, time) for time in moments)
    own = solution.mesh if isinstance(place, Grid) and solution.mesh is not None else None
    nodes = at(own, moments[-1]) if own is not None and _fits(own, problem) else None
    return Snapshots(solution, reference, series, image, nodes)


def check_request(problem: AbstractProblem, resolution: int | None, times: int | None) -> None:
    """Refuse what `take` could not do; see there."""
    for label, number in (("resolution", resolution), ("times", times)):
        if number is not None:
            check_range(label, number, least=2)
    if times is not None and problem.time is None:
        raise SettingsError(f"times: {problem.name} is a steady problem, it has no times")


def arrays_at(solution: Solution, points: np.ndarray, reference: Reference | None) -> dict[str, np.ndarray]:
    """Named arrays at points (n, d): those of `compare`, and vectors (n, 3) that they are the components of.

    The `marks` of the solution; `velocity` if u and v are among the components; of an elastic cell the whole
    `displacement`, that of the mean strain included, which ParaView can warp by.
    """
    arrays, problem = compare(solution, points, reference), solution.problem
    arrays |= {name: np.asarray(mark(points), dtype=np.float64) for name, mark in solution.marks.items()}
    flow = [arrays[name] for name in ("u", "v", "w") if name in problem.components]
    if len(flow) >= 2:
        arrays["velocity"] = padded(np.stack(flow, axis=1))
    if isinstance(problem, AbstractElasticityProblem):
        xx, yy, xy = problem.macro_strain
        mean = points @ np.array([[xx, 0.5 * xy], [0.5 * xy, yy]])
        arrays["displacement"] = padded(mean + np.stack([arrays[name] for name in problem.components], axis=1))
    return arrays


def compare(solution: Solution, points: np.ndarray, reference: Reference | None) -> dict[str, np.ndarray]:
    """The components at points (n, d) under their names, with a reference and the error, (n,) float64 each.

    `reference` is the reference and `error` the absolute difference from it. With several components these
    are `reference_<name>` and `error_<name>`, and `error` is the Euclidean norm. A component that is defined
    up to a constant is compared after removing the mean of the difference.
    """
    problem = solution.problem
    values = solution.at(points)
    arrays = dict(zip(problem.components, values.T, strict=True))
    if reference is not None:
        truth = _known_values(reference, points.tobytes(), points.shape[1])
        difference = values - truth
        for name in problem.gauge:
            i = problem.components.index(name)
            known = np.isfinite(difference[:, i])
            difference[:, i] -= difference[known, i].mean() if known.any() else 0.0
        several = len(problem.components) > 1
        for i, name in enumerate(problem.components):
            tail = f"_{name}" if several else ""
            arrays[f"reference{tail}"], arrays[f"error{tail}"] = truth[:, i], np.abs(difference[:, i])
        if several:
            arrays["error"] = np.linalg.norm(difference, axis=1)
    return arrays


@functools.lru_cache(maxsize=16)
def _known_values(reference: Reference, points: bytes, d: int) -> np.ndarray:
    """Values of the reference at float64 points (n, d), (n, m), read-only: the solvers of one problem share them."""
    parts = torch.as_tensor(np.frombuffer(points).reshape(-1, d).copy()).split(65536)
    with torch.no_grad():
        values = torch.cat([reference.field(part) for part in parts]).numpy()
    values.flags.writeable = False
    return values


def residual_norm(solution: Solution, points: np.ndarray) -> np.ndarray:
    """Euclidean norm of the residuals of the equations at points (n, d), (n,)."""
    problem = solution.problem
    unknowns = {name: torch.as_tensor(value) for name, value in solution.unknowns.items()}
    chunks = torch.as_tensor(points).split(_CHUNK)
    parts = [residual_values(problem, solution.field, chunk, **unknowns) for chunk in chunks]
    return np.linalg.norm(torch.cat(parts).to("cpu", torch.float64).numpy(), axis=1)


def known_reference(problem: AbstractProblem) -> Reference | None:
    """The reference, or None with a warning if it cannot be computed: a finished run is not lost for that."""
    try:
        return metrics.known_reference(problem)
    except PdelabError as error:
        _log.warning("no reference for %s: %s", problem.name, error)
        return None


def geometry(solution: Solution, resolution: int | None = None) -> Grid | Mesh:
    """Where to sample a solution in space, see `take`."""
    problem = solution.problem
    domain = problem.domain
    lower, upper = domain.bounds
    d = domain.dimension if domain.dimension <= 3 else 2
    n = resolution or RESOLUTION[d]
    if isinstance(domain, Box) or domain.dimension > 3:
        return Grid(tuple(lower[:d]), tuple(upper[:d]), (n,) * d)
    if solution.mesh is not None and resolution is None and _fits(solution.mesh, problem):
        return solution.mesh
    # Named by text: the core does not import the folders that are built on it.
    generate = importlib.import_module("pdelab.meshes.generate")
    return generate.domain_mesh(domain, float((upper - lower).max()) / (n - 1))


def points_at(problem: AbstractProblem, place: Grid | Mesh, time: float | None) -> np.ndarray:
    """The points of a grid or mesh as points of the problem (n, d): middle of the axes left out, then time."""
    lower, upper = problem.domain.bounds
    points = np.tile(0.5 * (lower + upper), (place.n_points, 1))
    points[:, : place.points.shape[1]] = place.points
    return points if time is None else np.hstack([points, np.full((len(points), 1), time)])


def _space_time(solution: Solution, line: Grid, n_times: int, reference: Reference | None) -> Snapshot:
    """The (x, t) rectangle: about half as many times as points in x, those of the series among them."""
    assert solution.problem.time is not None
    (n,), steps = line.shape, n_times - 1
    first, last = solution.problem.time
    shape = (n, steps * max(1, n // 2 // steps) + 1)
    grid = Grid((line.lower[0], first), (line.upper[0], last), shape)
    return Snapshot(grid, arrays_at(solution, grid.points, reference))


def _rows(image: Snapshot, n_times: int) -> list[dict[str, np.ndarray]]:
    """The arrays of an image over (x, t) at evenly spaced times."""
    assert isinstance(image.place, Grid)
    n, levels = image.place.shape
    starts = range(0, n * levels, n * ((levels - 1) // (n_times - 1)))
    return [{name: array[start : start + n] for name, array in image.arrays.items()} for start in starts]


def _fits(mesh: Mesh, problem: AbstractProblem) -> bool:
    return mesh.dimension == problem.domain.dimension


def _probe(problem: AbstractProblem, place: Grid | Mesh, moments: list[float | None]) -> torch.Tensor:
    """Some points in space, at the middle and the last time."""
    points = [points_at(problem, place, time) for time in {moments[len(moments) // 2], moments[-1]}]
    return torch.as_tensor(np.concatenate([p[:: max(1, len(p) // 64)] for p in points]))


def _differentiable(problem: AbstractProblem, field: Field, points: torch.Tensor) -> bool:
    """Whether the field has every derivative that the equations ask for.

    Automatic differentiation gives zeros for a piecewise polynomial of too low a degree: second derivatives
    that are exactly zero at every point are taken for missing, which costs a linear solution its residual.
    """
    f = jet(field, points, problem.components, problem.axes)
    try:
        return all(
            bool(f.derivative(component, *along).any()) if len(along) > 1 else f.derivative(component).requires_grad
            for component, along in derivatives_used(problem)
            if along
        )
    except RuntimeError:
        # Fields that leave torch (numpy, no_grad) cannot be differentiated at all.
        return False

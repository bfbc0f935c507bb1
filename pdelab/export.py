"""A solution sampled on grids and meshes, and written as files for ParaView."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import numpy as np
import torch

from pdelab.calculus import Field, jet
from pdelab.domain import Box
from pdelab.errors import OutputError, PdelabError, SettingsError, check_range
from pdelab.mesh import Mesh
from pdelab.pde import AbstractProblem, derivatives_used, residual_values
from pdelab.reference import Reference, resolve
from pdelab.solution import Solution
from pdelab.staging import staged
from pdelab.vtk import Grid, padded, write_pvd, write_vti, write_vtu

RESOLUTION = {1: 257, 2: 129, 3: 33}
"""Points on each axis, by space dimension; beyond three dimensions a slice of two is written."""
N_TIMES = 11
_CHUNK = 8192

_log = logging.getLogger(__name__)


def export_fields(
    solution: Solution, folder: Path, resolution: int | None = None, times: int | None = None
) -> list[Path]:
    """Write the fields of a solution for ParaView, with `fields.pvd` to open them.

    In a box of up to three dimensions the points are a regular grid (.vti); in any other domain the nodes
    of the solution's own mesh, or of one made for the purpose (.vtu). Beyond three dimensions the grid is
    the slice spanned by the first two axes through the middle of the others. A problem in time gives one
    file per time, and in one space dimension the image over (x, t) as well. If a box was solved on a mesh,
    the values at its nodes at the last time are written too. Arrays: see `sample`.

    Args:
        solution: what to write.
        folder: gets `fields/` and `fields.pvd`, older ones are replaced; it exists.
        resolution: points on each axis, at least 2; `RESOLUTION` if None.
        times: number of times, evenly spaced, both ends included; `N_TIMES` if None.

    Returns:
        The files.

    Raises:
        SettingsError: a resolution or a number of times below 2.
        OutputError: the folder cannot be written; it is then as it was before.
    """
    problem = solution.problem
    for label, number in (("resolution", resolution), ("times", times)):
        if number is not None:
            check_range(label, number, least=2)
    if times is not None and problem.time is None:
        raise SettingsError(f"times: {problem.name} is a steady problem, it has no times")
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder")
    reference = known_reference(problem)
    place = geometry(solution, resolution)
    with staged(folder) as new:
        (new / "fields").mkdir()
        steps = []
        for number, time in enumerate(moments(problem, times or N_TIMES)):
            arrays = sample(solution, points_at(problem, place, time), reference)
            tail = "" if time is None else f"_{number:04d}"
            steps.append((time or 0.0, _write(new / "fields" / f"{problem.name}{tail}", place, arrays, time)))
        write_pvd(new / "fields.pvd", steps)
        if problem.time and isinstance(place, Grid) and len(place.shape) == 1:
            image = space_time_grid(problem, place.shape[0])
            _write(new / "fields" / f"{problem.name}_xt", image, sample(solution, image.points, reference), None)
        if isinstance(place, Grid) and solution.mesh is not None and _fits(solution.mesh, problem):
            last = problem.time[1] if problem.time else None
            arrays = sample(solution, points_at(problem, solution.mesh, last), reference)
            _write(new / "fields" / f"{problem.name}_mesh", solution.mesh, arrays, last)
        names = [f.relative_to(new) for f in sorted((new / "fields").iterdir())]
    return [folder / "fields.pvd", *(folder / name for name in names)]


def sample(solution: Solution, points: np.ndarray, reference: Reference | None) -> dict[str, np.ndarray]:
    """Named arrays at points (n, d): those of `compare`, `velocity` and `residual`.

    `velocity` (n, 3) is there if u and v are among the components; `residual` (n,) is the absolute residual of
    the equations, the Euclidean norm if there are several, unless the field lacks a derivative that they need.
    """
    arrays = compare(solution, points, reference)
    flow = [arrays[name] for name in ("u", "v", "w") if name in solution.problem.components]
    if len(flow) >= 2:
        arrays["velocity"] = padded(np.stack(flow, axis=1))
    residual = residual_norm(solution, points)
    return arrays if residual is None else arrays | {"residual": residual}


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
        truth = solution.replaced(field=reference.field).at(points)
        difference = values - truth
        for name in problem.gauge:
            i = problem.components.index(name)
            difference[:, i] -= np.nanmean(difference[:, i])
        several = len(problem.components) > 1
        for i, name in enumerate(problem.components):
            tail = f"_{name}" if several else ""
            arrays[f"reference{tail}"], arrays[f"error{tail}"] = truth[:, i], np.abs(difference[:, i])
        if several:
            arrays["error"] = np.linalg.norm(difference, axis=1)
    return arrays


def residual_norm(solution: Solution, points: np.ndarray) -> np.ndarray | None:
    """Norm of the residuals at points (n, d), (n,); None if the field lacks a derivative that they need."""
    problem = solution.problem
    x = torch.as_tensor(points)
    if not _differentiable(problem, solution.field, x[:: max(1, len(x) // 64)]):
        return None
    unknowns = {name: torch.as_tensor(value) for name, value in solution.unknowns.items()}
    parts = [residual_values(problem, solution.field, p, **unknowns) for p in x.split(_CHUNK)]
    return np.linalg.norm(torch.cat(parts).to("cpu", torch.float64).numpy(), axis=1)


def known_reference(problem: AbstractProblem) -> Reference | None:
    """The reference, or None with a warning if it cannot be computed: a finished run is not lost for that."""
    try:
        return resolve(problem)
    except PdelabError as error:
        _log.warning("no reference for %s: %s", problem.name, error)
        return None


def geometry(solution: Solution, resolution: int | None = None) -> Grid | Mesh:
    """Where to sample a solution in space, see `export_fields`."""
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


def moments(problem: AbstractProblem, n: int) -> list[float | None]:
    """n times, evenly spaced over the problem's interval; [None] for a steady problem."""
    return [None] if problem.time is None else [float(t) for t in np.linspace(*problem.time, n)]


def space_time_grid(problem: AbstractProblem, n: int) -> Grid:
    """The (x, t) rectangle of a problem in one space dimension: n points in x, (n + 1)/2 in t."""
    assert problem.time is not None, "a steady problem has no (x, t) image"
    lower, upper = problem.domain.bounds
    return Grid((float(lower[0]), problem.time[0]), (float(upper[0]), problem.time[1]), (n, max(2, (n + 1) // 2)))


def points_at(problem: AbstractProblem, place: Grid | Mesh, time: float | None) -> np.ndarray:
    """The points of a grid or mesh as points of the problem (n, d): middle of the axes left out, then time."""
    lower, upper = problem.domain.bounds
    points = np.tile(0.5 * (lower + upper), (place.n_points, 1))
    points[:, : place.points.shape[1]] = place.points
    return points if time is None else np.hstack([points, np.full((len(points), 1), time)])


def _fits(mesh: Mesh, problem: AbstractProblem) -> bool:
    return mesh.dimension == problem.domain.dimension


def _write(stem: Path, place: Grid | Mesh, arrays: dict[str, np.ndarray], time: float | None) -> Path:
    if isinstance(place, Grid):
        return write_vti(stem.with_name(f"{stem.name}.vti"), place, arrays, time=time)
    return write_vtu(stem.with_name(f"{stem.name}.vtu"), place, arrays, time=time)


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

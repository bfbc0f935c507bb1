"""Pictures of a solution, without a screen and without global state: field, reference, error, history."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from pdelab.errors import OutputError
from pdelab.export import RESOLUTION, compare, geometry, known_reference, moments, points_at, space_time_grid
from pdelab.files import write_bytes
from pdelab.mesh import Mesh
from pdelab.pde import AbstractProblem
from pdelab.reference import Reference
from pdelab.solution import Solution
from pdelab.vtk import Grid

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
DECADES = 4
"""How far the colours of an error reach below its maximum."""

# How the cells of each type in the plane are cut into triangles.
_TRIANGLES = {
    "triangle": [(0, 1, 2)],
    "quad": [(0, 1, 2), (0, 2, 3)],
    "triangle6": [(0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)],
    "quad8": [(0, 4, 7), (4, 1, 5), (5, 2, 6), (6, 3, 7), (4, 5, 6), (4, 6, 7)],
}


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture in the plane: where, what is on its axes, and the sampled arrays."""

    title: str
    labels: tuple[str, str]
    place: Grid | Mesh
    arrays: Mapping[str, np.ndarray]
    equal: bool = True


def write_figures(solution: Solution, folder: Path, error: Mapping[str, Any] | None = None) -> list[Path]:
    """Write field.png, with a reference reference.png and error.png, with a history history.png.

    One space dimension is drawn as lines, with time as an image over (x, t); two dimensions as an image, with
    time at the first, middle and last time; three as the planes through the middle, at the last time. Each
    component has its row.

    Args:
        solution: what to draw; values that are not finite are left white.
        folder: made if it is missing.
        error: what `solution.error()` gave, for the title; computed if None.

    Raises:
        OutputError: the folder cannot be written.
    """
    reference = known_reference(solution.problem)
    error = solution.error() if error is None and reference is not None else error or {}
    title = _title(solution, error)
    figures: dict[str, Figure] = {}
    with mpl.rc_context(STYLE):
        if len(solution.problem.axes) == 1:
            figures["field"] = _lines(solution, reference, title)
        else:
            panels = _panels(solution, reference)
            figures["field"] = _images(solution.problem, panels, "", title)
            if reference is not None:
                figures["reference"] = _images(solution.problem, panels, "reference", f"{title}: reference")
                figures["error"] = _images(solution.problem, panels, "error", f"{title}: absolute error")
        if len(solution.history.get("step", ())) > 1:
            figures["history"] = _history(solution.history, error.get("floor"), title)
        drawn = {f"{name}.png": _png(figure) for name, figure in figures.items()}
    try:
        folder.mkdir(exist_ok=True)
        for name, data in drawn.items():
            write_bytes(folder / name, data)
    except OSError as problem:
        raise OutputError(f"{folder}: cannot write: {problem.strerror or problem}") from problem
    return [folder / name for name in drawn]


def _title(solution: Solution, error: Mapping[str, Any]) -> str:
    parts = [solution.problem.name, *([solution.solver.name] if solution.solver is not None else [])]
    if "rel_l2" in error:
        parts.append(f"relative L2 error {error['rel_l2']:.2e}")
    if not solution.status.ok:
        parts.append(solution.status.name)
    return "  |  ".join(parts)


def _panels(solution: Solution, reference: Reference | None) -> list[Panel]:
    problem = solution.problem
    axes = problem.axes
    if problem.time and problem.domain.dimension == 1:
        grid = space_time_grid(problem, RESOLUTION[1])
        return [Panel("", ("x", "t"), grid, compare(solution, grid.points, reference), equal=False)]
    if problem.domain.dimension == 3:
        return [_plane(solution, reference, a, b) for a, b in ((0, 1), (0, 2), (1, 2))]
    place = geometry(solution)
    panels = []
    for time in moments(problem, 3):
        arrays = compare(solution, points_at(problem, place, time), reference)
        panels.append(Panel("" if time is None else f"t = {time:g}", (axes[0], axes[1]), place, arrays))
    return panels


def _plane(solution: Solution, reference: Reference | None, a: int, b: int) -> Panel:
    """The plane of two axes through the middle of the third, points outside of the domain left out."""
    problem = solution.problem
    lower, upper = problem.domain.bounds
    n = RESOLUTION[2]
    grid = Grid((lower[a], lower[b]), (upper[a], upper[b]), (n, n))
    space = np.tile(0.5 * (lower + upper), (grid.n_points, 1))
    space[:, [a, b]] = grid.points
    # Shrunk by a hair: the sides of the bounds belong to the picture.
    centre = 0.5 * (lower + upper)
    inside = problem.domain.inside(centre + (1 - 1e-9) * (space - centre))
    points = space
    last = "" if problem.time is None else f", t = {problem.time[1]:g}"
    if problem.time:
        points = np.hstack([space, np.full((len(space), 1), problem.time[1])])
    found = compare(solution, points[inside], reference)
    arrays = {}
    for name, values in found.items():
        arrays[name] = np.full((len(points), *values.shape[1:]), np.nan)
        arrays[name][inside] = values
    (c,) = {0, 1, 2} - {a, b}
    axes = problem.axes
    return Panel(f"{axes[c]} = {centre[c]:.3g}{last}", (axes[a], axes[b]), grid, arrays)


def _images(problem: AbstractProblem, panels: Sequence[Panel], kind: str, title: str) -> Figure:
    """A row for each component, a column for each panel, one colour bar a row."""
    names = problem.components
    widths, height = _panel_sizes(panels)
    size = (sum(widths) + 0.6 * len(panels) + 0.9, (height + 0.3) * len(names) + 0.7)
    figure = Figure(figsize=(max(size[0], 4.8), size[1]), layout="constrained")
    same = all(p.place is panels[0].place for p in panels)
    layout: Any = {"sharex": same, "sharey": same, "width_ratios": widths}
    grid = figure.subplots(len(names), len(panels), squeeze=False, **layout)
    for number, (row, name) in enumerate(zip(grid, names, strict=True)):
        tail = f"_{name}" if len(names) > 1 and kind else ""
        columns = [p.arrays[f"{kind}{tail}" if kind else name] for p in panels]
        norm, colours = _error_scale(columns) if kind == "error" else _scale(columns)
        picture: Any = None
        for axis, panel, values in zip(row, panels, columns, strict=True):
            picture = _draw(axis, panel, values, norm, colours)
            axis.set(title="" if number else panel.title, xlabel=panel.labels[0], ylabel=panel.labels[1])
            axis.spines[:].set_visible(False)
            if same:
                axis.label_outer()
        label = {"": name, "reference": f"{name} (reference)", "error": f"|{name} - reference|"}[kind]
        extend = "min" if kind == "error" and isinstance(norm, LogNorm) else "neither"
        figure.colorbar(picture, ax=list(row), label=label, extend=extend, aspect=25, pad=0.015)
    figure.suptitle(title)
    return figure


def _draw(axis: Any, panel: Panel, values: np.ndarray, norm: Normalize, colours: str) -> Any:
    if isinstance(norm, LogNorm):
        values = np.maximum(values, float(norm.vmin or 0.0))
    place = panel.place
    if isinstance(place, Grid):
        image = np.ma.masked_invalid(values.reshape(place.shape, order="F").T)
        ends = np.array([place.lower, place.upper]).T
        half = 0.5 * (ends[:, 1] - ends[:, 0]) / (np.array(place.shape) - 1)
        # The points are the centres of the pixels: half a pixel hangs over on each side and is cut.
        extent = np.stack([ends[:, 0] - half, ends[:, 1] + half], axis=1).ravel()
        look = {"norm": norm, "cmap": colours, "interpolation": "bilinear"}
        shown = axis.imshow(image, extent=extent, origin="lower", aspect="equal" if panel.equal else "auto", **look)
        axis.set(xlim=ends[0], ylim=ends[1])
        return shown
    cells = np.concatenate([place.cells[:, list(corners)] for corners in _TRIANGLES[place.cell_type]])
    axis.set_aspect("equal")
    axis.margins(0.0)
    x, y = place.points.T
    triangles = Triangulation(x, y, cells, mask=~np.isfinite(values[cells]).all(axis=1))
    return axis.tripcolor(triangles, np.nan_to_num(values), norm=norm, cmap=colours, shading="gouraud")


def _panel_sizes(panels: Sequence[Panel]) -> tuple[list[float], float]:
    """Width of each panel and the common height in inches: one scale for all, areas fit to be looked at."""
    if not panels[0].equal:
        return [5.0], 3.2
    extents = np.array([np.ptp(p.place.points, axis=0) for p in panels])
    wide, high = extents.max(axis=0)
    scale = 3.0 / max(wide, high, 2.0 * (wide * high) ** 0.5 / 1.6)
    return [float(w) for w in np.maximum(extents[:, 0] * scale, 0.6)], float(max(high * scale, 0.6))


def _finite(columns: Sequence[np.ndarray]) -> np.ndarray:
    values = np.concatenate([np.ravel(c) for c in columns])
    return values[np.isfinite(values)]


def _scale(columns: Sequence[np.ndarray]) -> tuple[Normalize, str]:
    """Shared limits; values of both signs get a scale that is white at zero."""
    values = _finite(columns)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if min(-low, high) > 0.1 * max(-low, high):
        return Normalize(-max(-low, high), max(-low, high)), "RdBu_r"
    # A constant up to round-off would show its noise.
    room = max(1e-9 * max(abs(low), abs(high)), 1e-30)
    return Normalize(low, max(high, low + room)), "viridis"


def _error_scale(columns: Sequence[np.ndarray]) -> tuple[Normalize, str]:
    values = _finite(columns)
    high = float(values.max()) if len(values) else 0.0
    if high <= 0:
        return Normalize(0.0, 1.0), "magma"
    return LogNorm(high * 10.0**-DECADES, high), "magma"


def _lines(solution: Solution, reference: Reference | None, title: str) -> Figure:
    """A steady problem in one dimension: each component over x, and the error below on a log scale."""
    problem = solution.problem
    (lower,), (upper,) = problem.domain.bounds
    x = np.linspace(lower, upper, RESOLUTION[1])
    arrays = compare(solution, x[:, None], reference)
    names = problem.components
    rows = 1 if reference is None else 2
    figure = Figure(figsize=(4.6 * len(names) + 0.4, 2.5 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, len(names), squeeze=False, sharex=True)
    for i, name in enumerate(names):
        tail = f"_{name}" if len(names) > 1 else ""
        grid[0][i].plot(x, arrays[name], color="C0", lw=2, label="solution")
        grid[0][i].set(ylabel=name)
        if reference is not None:
            grid[0][i].plot(x, arrays[f"reference{tail}"], "k--", lw=1, label="reference")
            grid[0][i].legend(frameon=False)
            error = arrays[f"error{tail}"]
            grid[1][i].plot(x, error, color="C3", lw=1)
            grid[1][i].set(yscale="log", ylabel=f"|{name} - reference|")
            if np.isfinite(error).any() and np.nanmax(error) > 0:
                grid[1][i].set_ylim(np.nanmax(error) * 10.0**-DECADES, np.nanmax(error) * 2)
        grid[-1][i].set(xlabel=problem.axes[0])
        for row in grid:
            row[i].grid(alpha=0.3)
    figure.suptitle(title)
    return figure


def _history(history: Mapping[str, Sequence[float]], floor: float | None, title: str) -> Figure:
    """Loss terms, beside them gradient norms and the error where they were watched, over the compute seconds."""
    seconds = np.asarray(history.get("cpu_s", history["step"]), dtype=float)
    across = "compute time (s)" if "cpu_s" in history else "step"
    series = {
        name: np.asarray(values, dtype=float)
        for name, values in history.items()
        if name not in ("step", "cpu_s", "learning_rate")
    }
    watched = {n: v for n, v in series.items() if n.startswith(("error", "rel_l2"))}
    gradients = {n: v for n, v in series.items() if n.startswith("grad_")}
    losses = {n: v for n, v in series.items() if n not in watched | gradients and not n.startswith("weight_")}
    groups = ((losses, "loss"), (gradients, "gradient norm"), (watched, "relative L2 error"))
    shown = [(group, label) for group, label in groups if group]
    figure = Figure(figsize=(4.6 * max(1, len(shown)) + 0.4, 3.4), layout="constrained")
    for i, (group, label) in enumerate(shown):
        axis = figure.add_subplot(1, len(shown), i + 1)
        for j, (name, values) in enumerate(group.items()):
            keep = np.isfinite(values) & (values > 0)
            total = name in ("loss", "error", "rel_l2")
            colour, width = ("k", 1.8) if total else (f"C{j % 10}", 1.1)
            marker = "o" if keep.sum() < 40 else ""
            axis.plot(
                seconds[keep],
                values[keep],
                label=name.removeprefix("grad_"),
                color=colour,
                lw=width,
                marker=marker,
                ms=3,
            )
        if group is watched and floor and floor > 1e-10:
            axis.axhline(floor, color="0.5", ls="--", lw=1, label="floor of the reference")
        axis.set(xlabel=across, ylabel=label, yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, framealpha=0.85, edgecolor="none")
    figure.suptitle(title)
    return figure


def _png(figure: Figure) -> bytes:
    memory = io.BytesIO()
    figure.set_dpi(150)
    # Without the version of the library the same run gives the same bytes.
    FigureCanvasAgg(figure).print_png(memory, metadata={"Software": None})
    return memory.getvalue()

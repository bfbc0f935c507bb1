"""Pictures of a solution, without a screen and without global state: field, reference, error, history."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from matplotlib.tri import Triangulation

from pdelab.errors import OutputError
from pdelab.files import write_bytes
from pdelab.scene import Panel, Scene
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
DPI = 120

# Inches. Places are given, not found: matplotlib's layout engines take longer than all the drawing.
LEFT, BOTTOM, TOP, RIGHT = 0.74, 0.45, 0.42, 1.2
GAP, BAR = 0.12, 0.13
PLAIN = (-4, 5)
"""Powers of ten between which the values of a colour bar are written in full, so that they fit beside it."""

# How the cells of each type in the plane are cut into triangles.
_TRIANGLES = {
    "triangle": [(0, 1, 2)],
    "quad": [(0, 1, 2), (0, 2, 3)],
    "triangle6": [(0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)],
    "quad8": [(0, 4, 7), (4, 1, 5), (5, 2, 6), (6, 3, 7), (4, 5, 6), (4, 6, 7)],
}


def write_figures(scene: Scene, folder: Path) -> list[Path]:
    """Write field.png, history.png, with a reference reference.png and error.png, and lines over the field.

    One space dimension is drawn as lines, with time as an image over (x, t); everything else as images, a
    column for each panel and a row for each component. Values that are not finite are left white.

    Args:
        scene: what to draw.
        folder: made if it is missing.

    Raises:
        OutputError: the folder cannot be written.
    """
    drawn = {f"{name}.png": _png(figure) for name, figure in _figures(scene).items()}
    try:
        folder.mkdir(exist_ok=True)
        for name, data in drawn.items():
            write_bytes(folder / name, data)
    except OSError as problem:
        raise OutputError(f"{folder}: cannot write: {problem.strerror or problem}") from problem
    return [folder / name for name in drawn]


def _figures(scene: Scene) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    names, panels, title = scene.components, scene.panels, scene.title
    with mpl.rc_context(STYLE):
        for kind in scene.kinds:
            if kind == "history":
                figures[kind] = _history(scene.history, scene.floor, title)
            elif scene.is_line:
                figures[kind] = _lines(names, panels[0], title)
            else:
                # The reference is that of the problem: it says nothing of the solver.
                headings = {"reference": f"{scene.problem}: reference", "error": f"{title}: absolute error"}
                lines = scene.lines.get(kind, ())
                shown = "field" if kind in scene.lines else kind
                figures[kind] = _images(names, panels, shown, headings.get(kind, title), lines)
    return figures


def _images(
    names: Sequence[str], panels: Sequence[Panel], kind: str, title: str, lines: Sequence[np.ndarray]
) -> Figure:
    """A row for each component, a column for each panel, one colour bar a row, lines over all."""
    widths, height = _panel_sizes(panels)
    same = all(p.place is panels[0].place for p in panels)
    across, below = (GAP, 0.2) if same else (LEFT, 0.5)
    headed = 0.22 * any(p.title for p in panels)
    content = sum(widths) + across * (len(panels) - 1)
    width = max(LEFT + content + RIGHT, 0.075 * len(title) + 0.3)
    size = (width, TOP + headed + height * len(names) + below * (len(names) - 1) + BOTTOM)
    figure = Figure(figsize=size)
    figure.suptitle(title, y=1 - 0.12 / size[1], va="top")
    bottom = size[1] - TOP - headed - height
    for row, name in enumerate(names):
        tail = f"_{name}" if len(names) > 1 else ""
        columns = [p.arrays[name if kind == "field" else f"{kind}{tail}"] for p in panels]
        norm, colours = _error_scale(columns) if kind == "error" else _scale(columns)
        left = LEFT + 0.5 * (width - LEFT - content - RIGHT)
        shown: Any = None
        for column, (panel, values) in enumerate(zip(panels, columns, strict=True)):
            axis = figure.add_axes(_share(left, bottom, widths[column], height, size))
            shown = _draw(axis, panel, values, norm, colours)
            axis.add_collection(LineCollection(lines, colors="k", linewidths=0.5), autolim=False)
            left += widths[column] + across
            axis.spines[:].set_visible(False)
            # The first value would be written across the last one of the panel before.
            axis.xaxis.set_major_locator(_ticks(widths[column], prune="lower" if same and column else None))
            axis.yaxis.set_major_locator(_ticks(height))
            axis.set_title("" if row else panel.title)
            if not same or row == len(names) - 1:
                axis.set_xlabel(panel.labels[0])
            else:
                axis.tick_params(labelbottom=False)
            if not same or not column:
                axis.set_ylabel(panel.labels[1])
            else:
                axis.tick_params(labelleft=False)
        label = {"field": name, "reference": f"{name} (reference)", "error": f"|{name} - reference|"}[kind]
        _bar(figure, _share(left - across + GAP, bottom, BAR, height, size), height, shown, columns, label)
        bottom -= height + below
    return figure


def _share(left: float, bottom: float, width: float, height: float, size: tuple[float, float]) -> Any:
    """A rectangle in inches as fractions of the figure."""
    return left / size[0], bottom / size[1], width / size[0], height / size[1]


def _bar(figure: Figure, place: Any, height: float, shown: Any, columns: Sequence[np.ndarray], label: str) -> None:
    norm, values = shown.norm, _finite(columns)
    axis = figure.add_axes(place)
    logarithmic = isinstance(norm, LogNorm)
    ticks: Any = _ticks(height)
    if logarithmic:
        low, high = np.log10([float(norm.vmin or 1.0), float(norm.vmax or 1.0)])
        ticks = 10.0 ** np.arange(np.ceil(low), np.floor(high) + 1)
    below, above = len(values) and values.min() < norm.vmin, len(values) and values.max() > norm.vmax
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(shown, cax=axis, label=label, extend=extend, ticks=ticks)
    axis.yaxis.set_minor_locator(NullLocator())
    if logarithmic:
        axis.yaxis.set_major_formatter(FuncFormatter(_power))
    else:
        axis.ticklabel_format(axis="y", scilimits=PLAIN)
    bar.outline.set_visible(False)


def _ticks(length: float, prune: Literal["lower"] | None = None) -> MaxNLocator:
    """Round values on an axis of some inches; both ends of a symmetric one and its middle are among them."""
    return MaxNLocator(4 if length > 1.2 else 2, steps=[1, 2, 2.5, 5, 10], prune=prune)


def _power(value: float, position: int | None = None) -> str:
    """1e-5 for a power of ten: plain text is drawn much faster than a formula."""
    return f"1e{round(float(np.log10(value)))}" if value > 0 else ""


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
    """Shared limits; values of both signs get a scale that is white at zero.

    Values near a singular point are cut off where they would leave no colours to the rest.
    """
    values = _finite(columns)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if len(values):
        most = [float(v) for v in np.quantile(values, [0.005, 0.995])]
        if high - low > 5 * (most[1] - most[0]) > 0:
            low, high = most
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
    most = float(np.quantile(values, 0.995))
    high = most if 0 < 20 * most < high else high
    return LogNorm(high * 10.0**-DECADES, high), "magma"


def _lines(names: Sequence[str], panel: Panel, title: str) -> Figure:
    """A steady problem in one dimension: each component over x, and the error below on a log scale."""
    arrays, x = panel.arrays, panel.place.points[:, 0]
    compared = any(name.startswith("error") for name in arrays)
    figure, grid = _frame(len(names), 1 + compared, 2.2, title)
    for i, name in enumerate(names):
        tail = f"_{name}" if len(names) > 1 else ""
        grid[0][i].plot(x, arrays[name], color="C0", lw=2, label="solution")
        grid[0][i].set(ylabel=name)
        if compared:
            grid[0][i].plot(x, arrays[f"reference{tail}"], "k--", lw=1, label="reference")
            grid[0][i].legend(frameon=False)
            error = arrays[f"error{tail}"]
            grid[1][i].plot(x, error, color="C3", lw=1)
            _logarithmic(grid[1][i])
            grid[1][i].set(ylabel=f"|{name} - reference|")
            if np.isfinite(error).any() and np.nanmax(error) > 0:
                grid[1][i].set_ylim(np.nanmax(error) * 10.0**-DECADES, np.nanmax(error) * 2)
        grid[-1][i].set(xlabel=panel.labels[0])
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
    figure, ((*axes,),) = _frame(max(1, len(shown)), 1, 2.6, title)
    for axis, (group, label) in zip(axes, shown, strict=False):
        for j, (name, values) in enumerate(group.items()):
            keep = np.isfinite(values) & (values > 0)
            total = name in ("loss", "error", "rel_l2")
            colour, width = ("k", 1.8) if total else (f"C{j % 10}", 1.1)
            look = {"color": colour, "lw": width, "marker": "o" if keep.sum() < 40 else "", "ms": 3}
            axis.plot(seconds[keep], values[keep], label=name.removeprefix("grad_"), **look)
        if group is watched and floor and floor > 1e-10:
            axis.axhline(floor, color="0.5", ls="--", lw=1, label="floor of the reference")
        axis.set(xlabel=across, ylabel=label)
        _logarithmic(axis)
        axis.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc="upper right")
    return figure


def _frame(columns: int, rows: int, height: float, title: str) -> tuple[Figure, Any]:
    """Diagrams side by side and below each other, with a grid."""
    gap, width = LEFT + 0.15, 4.0
    content = columns * width + (columns - 1) * gap
    size = (LEFT + 0.1 + content + 0.2, TOP + rows * height + (rows - 1) * GAP + BOTTOM)
    edges = {"left": (LEFT + 0.1) / size[0], "right": 1 - 0.2 / size[0]}
    edges |= {"bottom": BOTTOM / size[1], "top": 1 - TOP / size[1], "wspace": gap / width, "hspace": GAP / height}
    figure = Figure(figsize=size)
    figure.suptitle(title, y=1 - 0.12 / size[1], va="top")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=rows > 1, gridspec_kw=edges)
    for axis in grid.flat:
        axis.grid(alpha=0.3)
    return figure, grid


def _logarithmic(axis: Any) -> None:
    """A log scale with plain labels, without minor ticks."""
    axis.set_yscale("log")
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(_power))


def _png(figure: Figure) -> bytes:
    memory = io.BytesIO()
    figure.set_dpi(DPI)
    # Without the version of the library the same run gives the same bytes; zlib's usual level 6 takes three times as
    # long as 3 for a tenth less.
    look: Any = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
    FigureCanvasAgg(figure).print_png(memory, **look)
    return memory.getvalue()

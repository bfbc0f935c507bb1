"""A look at the fields of a run: a window, or a picture of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from pdelab.errors import InputError, OutputError
from pdelab.files import write_bytes

DECADES = 4


def view(folder: str | Path, screenshot: str | Path | None = None) -> None:
    """Show the first component of a run, and its error beside it, at the last time.

    Flat data are seen from above, a line is drawn as a curve, solid data as three planes through the middle;
    a problem in one dimension and time as its image over (x, t).

    Args:
        folder: of a run.
        screenshot: save a PNG there and open no window.

    Raises:
        InputError: the folder has no fields, or they cannot be read.
        OutputError: the picture cannot be written.
    """
    import pyvista

    data, axes, title = _last(Path(folder), pyvista)
    names = [name for name in (_first_component(data), "error") if name in data.point_data]
    size = [700 * len(names), 600]
    plotter: Any = pyvista.Plotter(shape=(1, len(names)), off_screen=screenshot is not None, window_size=size)
    try:
        for column, name in enumerate(names):
            plotter.subplot(0, column)
            _show(plotter, data, name, axes, title)
        if screenshot is None:
            plotter.show()
        else:
            _save(plotter, Path(screenshot))
    finally:
        plotter.close()


def _last(folder: Path, pyvista: Any) -> tuple[Any, str, str]:
    """The data to show, the names of their axes, and their time."""
    images = sorted(folder.glob("fields/*_xt.vti"))
    collection = folder / "fields.pvd"
    if not collection.exists():
        raise InputError(f"{folder}: no fields.pvd there; is it the folder of a finished run?")
    try:
        if images:
            return pyvista.read(images[0]), "xt", ""
        reader = pyvista.PVDReader(collection)
        reader.set_active_time_value(reader.time_values[-1])
        time = f"t = {reader.time_values[-1]:g}" if len(reader.time_values) > 1 else ""
        return reader.read()[0], "xyz", time
    except (OSError, ValueError, IndexError, RuntimeError, SyntaxError) as error:
        raise InputError(f"{collection}: cannot be read: {error}") from error


def _first_component(data: Any) -> str:
    return data.point_data.keys()[0]


def _show(plotter: Any, data: Any, name: str, axes: str, title: str) -> None:
    extent = np.ptp(np.reshape(data.bounds, (3, 2)), axis=1)
    dimension = int((extent > 0).sum())
    shown = data if dimension < 3 else data.slice_orthogonal()
    if dimension == 1:
        shown = _curve(data, np.asarray(data.point_data[name]), float(extent[0]))
    bar = {"title": name, "color": "black", "fmt": "%.1e", "vertical": True, "position_x": 0.84, "position_y": 0.2}
    colours = _colours(name, np.asarray(data.point_data[name]))
    plotter.set_background("white")
    plotter.add_mesh(
        shown, scalars=name, lighting=False, line_width=4, scalar_bar_args=bar | {"height": 0.6}, **colours
    )
    plotter.add_text(f"{name}  {title}".strip(), font_size=10, color="black")
    if dimension < 3:
        plotter.view_xy()
        plotter.enable_parallel_projection()
    else:
        plotter.add_mesh(data.outline(), color="black")
    titles = {f"{axis}title": letter for axis, letter in zip("xyz", axes, strict=False)}
    # The height of a curve is not to scale.
    plotter.show_bounds(color="black", location="outer", show_yaxis=dimension > 1, show_ylabels=dimension > 1, **titles)
    # Room for the colour bar.
    plotter.camera.zoom(0.75)


def _colours(name: str, values: np.ndarray) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if name == "error" and high > 0:
        return {"cmap": "magma", "log_scale": True, "clim": (high * 10.0**-DECADES, high)}
    if min(-low, high) > 0.1 * max(-low, high):
        return {"cmap": "coolwarm", "clim": (-max(-low, high), max(-low, high))}
    return {"cmap": "viridis", "clim": (low, high if high > low else low + (abs(low) or 1.0))}


def _curve(data: Any, values: np.ndarray, length: float) -> Any:
    """A line bent to the graph of its values, half as high as it is long."""
    import pyvista

    points = np.array(data.points, dtype=float)
    spread = float(np.ptp(np.nan_to_num(values))) or 1.0
    points[:, 1] = np.nan_to_num(values) * 0.5 * length / spread
    order = np.argsort(points[:, 0])
    line = pyvista.lines_from_points(points[order])
    for name in data.point_data:
        line.point_data[name] = np.asarray(data.point_data[name])[order]
    return line


def _save(plotter: Any, path: Path) -> None:
    from PIL import Image

    pixels = np.asarray(plotter.screenshot(return_img=True))
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, format="png")
    try:
        write_bytes(path, memory.getvalue())
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error

"""The ParaView state of a run: a script that shows its fields, on screen or as a picture."""

from __future__ import annotations

from pathlib import Path

from pdelab.errors import OutputError
from pdelab.files import write_text
from pdelab.pde import AbstractProblem

SCRIPT = "inspect.py"


def write_inspect(
    folder: Path, problem: AbstractProblem, home: Path | None = None, *, lines: str | None = None
) -> Path:
    """Write `inspect.py` for the files of `pdelab.export.export_fields`.

    Open it with `paraview --script inspect.py`; `pvbatch inspect.py picture.png`, or the environment
    variable PDELAB_SCREENSHOT, saves a picture instead. It finds the fields beside itself.

    Args:
        folder: where to write.
        problem: what was solved; names the arrays and axes.
        home: the run folder, if it is another one in the end. ParaView on screen does not tell a script where
            it lies; the script looks in the current folder, then in this one.
        lines: name of the lines to show over the field, if there are any.

    Raises:
        OutputError: the file cannot be written.
    """
    image = f"fields/{problem.name}_xt.vti" if problem.time and problem.domain.dimension == 1 else None
    shown = f"fields/{problem.name}_{lines}.vtp" if lines else None
    path = folder / SCRIPT
    text = script("fields.pvd", problem.components, problem.axes, home or folder, image=image, lines=shown)
    try:
        write_text(path, text)
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error
    return path


def script(
    data: str,
    components: tuple[str, ...],
    axes: tuple[str, ...],
    home: Path,
    *,
    image: str | None = None,
    lines: str | None = None,
) -> str:
    """The text of the state.

    Args:
        data: the file to show, relative to the script: .pvd, .vti, .vtu or .vtkhdf.
        components: point arrays of the solution; the first is shown, beside `error` if the file has it.
        axes: names of the coordinates.
        home: see `write_inspect`.
        image: the image over (x, t) to show above the curves of a problem in one dimension and time.
        lines: to show over the first picture.
    """
    several = len(components) > 1
    head = {
        "DATA": data,
        "IMAGE": image,
        "LINES": lines,
        "FIELD": components[0],
        "REFERENCE": f"reference_{components[0]}" if several else "reference",
        "AXES": axes,
        "WRITTEN_TO": str(home.resolve()),
    }
    constants = "\n".join(f"{name} = {value!r}" for name, value in head.items())
    return _TEMPLATE.replace("# CONSTANTS", constants)


_TEMPLATE = '''"""The fields of this run in ParaView.

    paraview --script inspect.py         on screen
    pvbatch inspect.py picture.png       without one; or set PDELAB_SCREENSHOT to the name of the picture
"""

import os
import sys

# CONSTANTS
ERROR = "error"
SIZE = (800, 640)  # of one view, in pixels
ASPECT = SIZE[0] / SIZE[1]


def own_folder():
    """The folder of this script; ParaView on screen does not say what it runs."""
    try:
        return os.path.dirname(os.path.abspath(__file__))
    except NameError:
        here = os.getcwd()
        return here if os.path.exists(os.path.join(here, DATA)) else WRITTEN_TO


HERE = own_folder()


def stand_aside():
    """Give Python its own module of this name, which it asks for when it is started in this folder."""
    import importlib.util

    path = os.path.join(os.path.dirname(os.__file__), "inspect.py")
    spec = importlib.util.spec_from_file_location("inspect", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["inspect"] = module
    spec.loader.exec_module(module)


def screenshot():
    """Where to save a picture, or None."""
    pictures = [a for a in sys.argv[1:] if a.endswith(".png")]
    return pictures[0] if pictures else os.environ.get("PDELAB_SCREENSHOT")


def dimension(source):
    """Number of axes along which the data extend, and the lengths."""
    bounds = source.GetDataInformation().GetBounds()
    lengths = [bounds[2 * i + 1] - bounds[2 * i] for i in range(3)]
    return sum(length > 0 for length in lengths), lengths


def has(source, name):
    """Whether the data have this point array."""
    return source.PointData.GetArray(name) is not None


def times(source):
    """The times of the data, or nothing."""
    return list(source.TimestepValues) if hasattr(source, "TimestepValues") else []


def ranges(source, names):
    """Smallest and largest value of each array over all times."""
    found = {name: [] for name in names}
    for time in times(source) or [0.0]:
        source.UpdatePipeline(time)
        for name in names:
            found[name] += source.PointData[name].GetRange()
    return {name: (min(values), max(values)) for name, values in found.items()}


def colour(pv, displays, name, limits, view):
    """Colours by one array, with a bar; an error has a log scale over four decades."""
    for display in displays:
        pv.ColorBy(display, ("POINTS", name))
    table = pv.GetColorTransferFunction(name)
    low, high = limits
    signed = min(-low, high) > 0.1 * max(-low, high)
    if name == ERROR:
        table.ApplyPreset("Magma (matplotlib)", True)
        if high > 0:
            table.RescaleTransferFunction(high * 1e-4, high)
            table.MapControlPointsToLogSpace()
            table.UseLogScale = 1
    elif signed:
        table.ApplyPreset("Cool to Warm", True)
        table.RescaleTransferFunction(-max(-low, high), max(-low, high))
    else:
        table.ApplyPreset("Viridis (matplotlib)", True)
        table.RescaleTransferFunction(low, high if high > low else low + (abs(low) or 1.0))
    displays[0].SetScalarBarVisibility(view, True)
    bar = pv.GetScalarBar(table, view)
    bar.Title, bar.ComponentTitle = name, ""
    bar.WindowLocation = "Any Location"
    bar.Position, bar.ScalarBarLength = [0.82, 0.2], 0.6
    bar.RangeLabelFormat = "%-#6.2e"


def picture(pv, source, name, limits, axes):
    """A view of one array: flat data from above, solid data as three planes through the middle."""
    view = pv.CreateView("RenderView")
    view.OrientationAxesVisibility = 0
    d, lengths = dimension(source)
    if d == 3:
        displays = [pv.Show(plane, view) for plane in planes(pv, source)]
        frame = pv.Show(pv.Outline(Input=source), view)
        frame.AmbientColor = frame.DiffuseColor = [0.0, 0.0, 0.0]
    else:
        displays = [frame] = [pv.Show(source, view)]
        frame.SetRepresentationType("Surface")
        # Time may be stretched to fit the picture, space never.
        if tuple(axes)[1:] == ("t",) and not 0.2 < lengths[1] / lengths[0] < 5:
            frame.Scale = [1.0, lengths[0] / lengths[1], 1.0]
        look_down(view, source, frame.Scale[1])
    for display in displays:
        # Colours are read off the bar: no light may change them.
        display.Ambient, display.Diffuse = 1.0, 0.0
    colour(pv, displays, name, limits, view)
    grid = frame.DataAxesGrid
    grid.GridAxesVisibility = 1
    grid.AxesToLabel = 7 if d == 2 else 63
    grid.XTitle, grid.YTitle, grid.ZTitle = ([*axes, "", ""])[:3]
    if d == 2 and frame.Scale[1] != 1.0:
        # The labels are those of the stretched axis.
        grid.YTitle = f"{axes[1]} / {1.0 / frame.Scale[1]:g}"
    if d == 3:
        look_across(view, source)
    return view


def lines_over(pv, path, source, view):
    """Lines from a file over the picture of a source; over flat data stretched alike, a little nearer to the eye."""
    lines = pv.Show(pv.OpenDataFile(path), view)
    pv.ColorBy(lines, None)
    lines.AmbientColor = lines.DiffuseColor = [0.0, 0.0, 0.0]
    d, lengths = dimension(source)
    if d == 2:
        lines.Scale = pv.GetDisplayProperties(source, view).Scale
        lines.Position = [0.0, 0.0, 1e-3 * max(lengths)]


def planes(pv, source):
    """The three planes through the middle of solid data."""
    bounds = source.GetDataInformation().GetBounds()
    for i in range(3):
        plane = pv.Slice(Input=source)
        plane.SliceType.Origin = [0.5 * (bounds[2 * k] + bounds[2 * k + 1]) for k in range(3)]
        plane.SliceType.Normal = [float(k == i) for k in range(3)]
        yield plane


def look_across(view, source):
    """The solid data from a corner, a little to the left to leave room for the colour bar."""
    bounds = source.GetDataInformation().GetBounds()
    size = sum((bounds[2 * i + 1] - bounds[2 * i]) ** 2 for i in range(3)) ** 0.5
    towards, right = (0.485, -0.728, 0.485), (0.832, 0.555, 0.0)
    focus = [0.5 * (bounds[2 * i] + bounds[2 * i + 1]) + 0.1 * size * right[i] for i in range(3)]
    view.CameraFocalPoint = view.CenterOfRotation = focus
    view.CameraPosition = [f + 2.1 * size * t for f, t in zip(focus, towards)]
    view.CameraViewUp = [0.0, 0.0, 1.0]


def look_down(view, source, stretch):
    """The flat data from above, room left for axes and colour bar."""
    bounds = list(source.GetDataInformation().GetBounds())
    bounds[2:4] = [stretch * b for b in bounds[2:4]]
    width, height = bounds[1] - bounds[0], bounds[3] - bounds[2]
    scale = max(0.66 * height, 0.8 * width / ASPECT)
    middle = [0.5 * (bounds[0] + bounds[1]) + 0.12 * scale, 0.5 * (bounds[2] + bounds[3])]
    view.InteractionMode = "2D"
    view.CameraParallelProjection = 1
    view.CameraParallelScale = scale
    view.CameraFocalPoint = [*middle, 0.0]
    view.CameraPosition = [*middle, 10.0 * scale]
    view.CenterOfRotation = view.CameraFocalPoint


def curves(pv, source, names, axes, top=0.0):
    """A chart of arrays over the first coordinate; `top` > 0 asks for four decades below it, on a log scale."""
    view = pv.CreateView("XYChartView")
    # Points of images have no coordinates that a chart could take.
    placed = pv.Calculator(Input=source, ResultArrayName=axes[0], Function="coordsX")
    display = pv.Show(pv.PlotData(Input=placed), view)
    display.UseIndexForXAxis = 0
    display.XArrayName = axes[0]
    display.SeriesVisibility = names
    view.BottomAxisTitle = axes[0]
    view.LeftAxisTitle = ", ".join(names)
    styles = zip(names, ("1", "2"), ("3", "2"), (("0.12", "0.47", "0.71"), ("0", "0", "0")))
    for name, line, thickness, rgb in styles:
        display.SeriesLineStyle = [*display.SeriesLineStyle, name, line]
        display.SeriesLineThickness = [*display.SeriesLineThickness, name, thickness]
        display.SeriesColor = [*display.SeriesColor, name, *rgb]
    if top > 0:
        view.LeftAxisLogScale = 1
        view.LeftAxisUseCustomRange = 1
        view.LeftAxisRangeMinimum, view.LeftAxisRangeMaximum = top * 1e-4, top * 2
    return view


def main():
    """Open the files and lay out the views."""
    # The modules that ParaView loads shall not take this script for Python's own module of this name.
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or os.getcwd()) != HERE]
    import paraview.simple as pv

    pv._DisableFirstRenderCameraReset()
    pv.LoadPalette("WhiteBackground")
    data = pv.OpenDataFile(os.path.join(HERE, DATA))
    data.UpdatePipeline()
    scene = pv.GetAnimationScene()
    scene.UpdateAnimationUsingDataTimeSteps()
    scene.GoToLast()

    shown = [name for name in (FIELD, ERROR) if has(data, name)]
    limits = ranges(data, shown)
    data.UpdatePipeline(scene.TimeKeeper.Time)
    rows = []
    if IMAGE:
        image = pv.OpenDataFile(os.path.join(HERE, IMAGE))
        limits = ranges(image, shown)
        rows.append([picture(pv, image, name, limits[name], AXES) for name in shown])
    if dimension(data)[0] == 1:
        series = [name for name in (FIELD, REFERENCE) if has(data, name)]
        charts = [curves(pv, data, series, AXES)]
        if ERROR in shown:
            charts.append(curves(pv, data, [ERROR], AXES, limits[ERROR][1]))
        rows.append(charts)
    else:
        rows.append([picture(pv, data, name, limits[name], AXES) for name in shown])
    if LINES:
        lines_over(pv, os.path.join(HERE, LINES), image if IMAGE else data, rows[0][0])
    if len(times(data)) > 1:
        clock = pv.AnnotateTimeFilter(Input=data)
        clock.Format = "t = {time:g}"
        for view in rows[-1]:
            if view.GetXMLName() == "RenderView":
                pv.Show(clock, view)

    layout = pv.CreateLayout("pdelab")
    cells = [0]
    if len(rows) == 2:
        first = layout.SplitVertical(0, 0.5)
        cells = [first, first + 1]
    for cell, row in zip(cells, rows):
        places = [cell]
        if len(row) == 2:
            left = layout.SplitHorizontal(cell, 0.5)
            places = [left, left + 1]
        for place, view in zip(places, row):
            layout.AssignView(place, view)
    size = [SIZE[0] * max(len(row) for row in rows), SIZE[1] * len(rows)]
    layout.SetSize(*size)
    pv.SetActiveView(rows[0][0])
    target = screenshot()
    if target:
        pv.SaveScreenshot(target, layout, ImageResolution=size)


if __name__ == "inspect":
    stand_aside()
else:
    main()
'''

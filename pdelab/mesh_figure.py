"""A picture of a mesh before and after it moved, cells coloured by their quality."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from pdelab.figures import DPI, STYLE
from pdelab.files import write_bytes
from pdelab.mesh import Mesh


def write_mesh_figure(meshes: tuple[Mesh, Mesh], quality: tuple[np.ndarray, np.ndarray], path: Path) -> None:
    """Draw two meshes in the plane, side by side or above each other, colours from 0 (flat) to 1 (equilateral).

    Args:
        meshes: before and after.
        quality: of their cells, each (C,).
        path: the file, ending in .png.

    Raises:
        OSError: the file cannot be written.
    """
    with mpl.rc_context(STYLE):
        width, height = np.ptp(meshes[0].points, axis=0)
        rows, columns = (1, 2) if height > 0.45 * width else (2, 1)
        each = 4.2 if columns == 2 else 8.4
        tall = min(each * float(height / width), 9.0)
        figure = Figure(figsize=(columns * each + 1.3, rows * (tall + 0.45) + 0.35), layout="constrained")
        axes = figure.subplots(rows, columns)
        shown: Any = None
        for axis, mesh, values, title in zip(axes.flat, meshes, quality, ("before", "after"), strict=True):
            # Thin lines where there are many cells: they would hide the colours.
            line = float(np.clip(12.0 / np.sqrt(len(mesh.cells)), 0.05, 0.5))
            shown = PolyCollection(mesh.points[mesh.cells[:, : 4 if mesh.cell_type.startswith("quad") else 3]])
            shown.set(array=values, cmap="viridis", clim=(0.0, 1.0), edgecolor="k", linewidth=line)
            axis.add_collection(shown)
            axis.autoscale_view()
            axis.set(aspect="equal", title=f"{title}, smallest quality {values.min():.2g}", xlabel="x", ylabel="y")
        figure.colorbar(shown, ax=list(axes.flat), label="quality of the cell", fraction=0.05, pad=0.02)
        memory = io.BytesIO()
        figure.set_dpi(DPI)
        look: dict = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
        FigureCanvasAgg(figure).print_png(memory, **look)
        write_bytes(path, memory.getvalue())

"""The snapshots of a solution as files for ParaView."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pdelab.errors import InputError, OutputError
from pdelab.mesh import Mesh
from pdelab.snapshots import Snapshot, Snapshots
from pdelab.staging import staged
from pdelab.vtk import Grid, write_pvd, write_vti, write_vtp, write_vtu
from pdelab.vtkhdf import grid_mesh, write_vtkhdf

SERIES = "fields.vtkhdf"


def export_fields(snapshots: Snapshots, folder: Path) -> list[Path]:
    """Write the fields of a solution, with `fields.pvd` to open them.

    Grids are images (.vti), meshes are unstructured (.vtu). A problem in time gives one file per time, and
    in one space dimension the image over (x, t) as well. If a box was solved on a mesh, the values at its
    nodes at the last time are written too, and lines of the solution (.vtp), such as paths of labels.

    Args:
        snapshots: what to write.
        folder: gets `fields/` and `fields.pvd`, older ones are replaced; it exists.

    Returns:
        The files.

    Raises:
        OutputError: the folder cannot be written; it is then as it was before.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder")
    name = snapshots.solution.problem.name
    with staged(folder) as new:
        fields = new / "fields"
        fields.mkdir()
        steps = []
        for number, snapshot in enumerate(snapshots.series):
            tail = "" if snapshot.time is None else f"_{number:04d}"
            steps.append((snapshot.time or 0.0, _write(fields / f"{name}{tail}", snapshot)))
        write_pvd(new / "fields.pvd", steps)
        for tail, extra in (("xt", snapshots.image), ("mesh", snapshots.nodes)):
            if extra is not None:
                _write(fields / f"{name}_{tail}", extra)
        for tail, lines in snapshots.solution.lines.items():
            write_vtp(fields / f"{name}_{tail}.vtp", lines.points, lines.lengths, lines.arrays)
        names = [f.relative_to(new) for f in sorted(fields.iterdir())]
    return [folder / "fields.pvd", *(folder / name for name in names)]


def export_series(snapshots: Snapshots, folder: Path) -> Path:
    """Write `fields.vtkhdf`: all times in one file, with the mesh stored once; ParaView 5.12 or later reads it.

    Grids become meshes of lines or quadrilaterals.

    Raises:
        InputError: the problem is steady, or its grid has three dimensions.
        OutputError: the file cannot be written.
    """
    name, series = snapshots.solution.problem.name, snapshots.series
    if len(series) < 2:
        raise InputError(f"{name}: a steady problem has no series for a .vtkhdf file; use its .vti or .vtu file")
    place, path = series[0].place, folder / SERIES
    mesh = place if isinstance(place, Mesh) else grid_mesh(place)
    arrays = {key: np.stack([snapshot.arrays[key] for snapshot in series]) for key in series[0].arrays}
    try:
        return write_vtkhdf(path, mesh, np.array([s.time for s in series]), arrays)
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error


def _write(stem: Path, snapshot: Snapshot) -> Path:
    if isinstance(snapshot.place, Grid):
        return write_vti(stem.with_name(f"{stem.name}.vti"), snapshot.place, snapshot.arrays, time=snapshot.time)
    return write_vtu(stem.with_name(f"{stem.name}.vtu"), snapshot.place, snapshot.arrays, time=snapshot.time)

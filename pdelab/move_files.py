"""A mesh in a file moved by a mover, and what is written of it: the command `pdelab move`."""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdelab import registry
from pdelab.config import build
from pdelab.errors import InputError, OutputError
from pdelab.expression import evaluate
from pdelab.files import write_bytes
from pdelab.mesh import Mesh
from pdelab.mover import AbstractMonitorMover, AbstractMover
from pdelab.vtk import write_vtu

OUTPUTS = (".vtu", ".msh")
DATA = (".npy", ".csv", ".vtu", ".vtk")


@dataclass(frozen=True, eq=False)
class FileMove:
    """A mesh that was read and moved.

    Attributes:
        mover: with which settings.
        before, after: the meshes.
        monitor: at the nodes before (N,); None if the mover has none.
        quality: of the cells before and after, each (C,).
        spread: sigma / mu of m |K|, before and after; None without monitor.
        cpu_s: what the move took.
    """

    mover: AbstractMover[Any]
    before: Mesh
    after: Mesh
    monitor: np.ndarray | None
    quality: tuple[np.ndarray, np.ndarray]
    spread: tuple[float, float] | None
    cpu_s: float

    @property
    def numbers(self) -> dict[str, Any]:
        """What there is to report."""
        low = [float(q.min()) for q in self.quality]
        found: dict[str, Any] = {"nodes": self.before.n_points, "cells": len(self.before.cells)}
        found |= {"inverted": int((self.after.volumes() <= 0).sum())}
        shift = np.linalg.norm(self.after.points - self.before.points, axis=1)
        found |= {"largest_displacement": float(shift.max()), "min_quality": low}
        if self.spread is not None:
            found |= {"sigma_over_mu": list(self.spread)}
        return {**found, "cpu_s": self.cpu_s}


def move_files(
    path: Path, mover: str, settings: Mapping[str, Any], field: str | None, data: Path | None, array: str | None = None
) -> FileMove:
    """Read a mesh and a field, and move the mesh.

    Args:
        path: the mesh, see `meshes.read.read_mesh`.
        mover: registered name.
        settings: of the mover; `fixed` may be one name, and numbers stand for names.
        field: a formula in x, y, z, see `expression.evaluate`; this or `data`.
        data: nodal values, see `read_values`.
        array: which array of the file of values.

    Raises:
        InputError: anything wrong with the files, the formula, the settings or the mesh.
    """
    if (field is None) == (data is None):
        raise InputError("expected one of --field FORMULA and --data FILE")
    cls = registry.load("movers", mover)
    method: AbstractMover[Any] = build(cls, {k: _names(v) if k == "fixed" else v for k, v in settings.items()})
    mesh = importlib.import_module("pdelab.meshes.read").read_mesh(path)
    if field is not None:
        values = evaluate(field, mesh.points)[:, None]
    else:
        assert data is not None
        values = read_values(data, array)
        if len(values) != mesh.n_points:
            raise InputError(f"{data}: expected {mesh.n_points} rows, one for each node of {path}, got {len(values)}")
    start = time.process_time()
    after = method.move(mesh, values, None)
    seconds = time.process_time() - start
    measure = importlib.import_module("pdelab.meshes.measure")
    monitor = method.monitor_at_nodes(mesh, values) if isinstance(method, AbstractMonitorMover) else None
    quality = (measure.quality(mesh), measure.quality(after))
    spread_of = importlib.import_module("pdelab.meshes.movers.spread").spread
    spread = None if monitor is None else tuple(spread_of(mesh, m, monitor) for m in (mesh, after))
    return FileMove(method, mesh, after, monitor, quality, spread, seconds)


def read_values(path: Path, array: str | None = None) -> np.ndarray:
    """Nodal values (N, m) from .npy, .csv (a heading is skipped) or the point data of .vtu and .vtk.

    Raises:
        InputError: the file is missing, damaged, of another kind or shape, or has several arrays and none is named.
    """
    if path.suffix not in DATA:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; expected one of {', '.join(DATA)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        found = _read(path, array)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a reader may even leave the process
        raise InputError(f"{path}: cannot be read, it is damaged or of another kind ({error})") from None
    if found.dtype.kind not in "fiub" or found.ndim not in (1, 2):
        raise InputError(f"{path}: expected a table of real numbers, got {found.dtype} of shape {found.shape}")
    return found.astype(np.float64).reshape(len(found), -1)


def check_output(path: Path, force: bool) -> None:
    """Refuse a name that cannot be written, before anything is computed.

    Raises:
        InputError: another ending than those of `OUTPUTS`.
        OutputError: a file is there and `force` is not given, or there is no folder.
    """
    if path.suffix not in OUTPUTS:
        raise InputError(f"{path}: expected a name in {' or '.join(OUTPUTS)}")
    for each in (path, path.with_suffix(".png")):
        if each.is_dir() or not each.parent.is_dir():
            raise OutputError(f"{each}: cannot be written: {'is a folder' if each.is_dir() else f'no {each.parent}'}")
        if each.exists() and not force:
            raise OutputError(f"{each}: exists; choose another file or give --force")


def write(found: FileMove, path: Path) -> list[Path]:
    """Write the moved mesh as .vtu or .msh and, in the plane, a picture of both meshes beside it.

    The .vtu has the cell array `quality` and the point arrays `displacement` and, if there is one, `monitor`; names
    of boundary parts are kept in .msh only.

    Raises:
        OutputError: a file cannot be written.
    """
    from pdelab.mesh_figure import write_mesh_figure

    files = [path]
    try:
        if path.suffix == ".vtu":
            arrays = {"displacement": found.after.points - found.before.points}
            arrays |= {} if found.monitor is None else {"monitor": found.monitor}
            write_vtu(path, found.after, arrays, cell_arrays={"quality": found.quality[1]})
        else:
            write_bytes(path, gmsh_text(found.after))
        if found.before.dimension == 2:
            files.append(path.with_suffix(".png"))
            write_mesh_figure((found.before, found.after), found.quality, files[-1])
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return files


def gmsh_text(mesh: Mesh) -> bytes:
    """A mesh in Gmsh's format 2.2, boundary parts and regions as physical groups; cells with straight edges."""
    facet_kind, cell_kind = {"triangle": (1, 2), "quad": (1, 3), "tetra": (2, 4)}[mesh.cell_type]
    d = mesh.dimension
    groups = [(d - 1, name) for name in mesh.facets] + [(d, name) for name in mesh.regions]
    numbers = {group: i + 1 for i, group in enumerate(groups)}
    rows: list[str] = []
    for name, facets in mesh.facets.items():
        tag = numbers[d - 1, name]
        rows += [f"{facet_kind} 2 {tag} {tag} " + " ".join(map(str, row)) for row in facets + 1]
    tags = np.zeros(len(mesh.cells), dtype=int)
    for name, cells in mesh.regions.items():
        tags[cells] = numbers[d, name]
    rows += [
        f"{cell_kind} 2 {tag} {tag} " + " ".join(map(str, row)) for tag, row in zip(tags, mesh.cells + 1, strict=True)
    ]
    points = np.zeros((mesh.n_points, 3))
    points[:, :d] = mesh.points
    lines = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat"]
    if groups:
        named = [f'{dim} {numbers[dim, name]} "{name}"' for dim, name in groups]
        lines += ["$PhysicalNames", str(len(groups)), *named, "$EndPhysicalNames"]
    nodes = [f"{i + 1} {x!r} {y!r} {z!r}" for i, (x, y, z) in enumerate(points.tolist())]
    lines += ["$Nodes", str(len(nodes)), *nodes, "$EndNodes"]
    lines += ["$Elements", str(len(rows)), *(f"{i + 1} {row}" for i, row in enumerate(rows)), "$EndElements", ""]
    return "\n".join(lines).encode()


def _read(path: Path, array: str | None) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    if path.suffix == ".csv":
        lines = path.read_text().splitlines()
        return np.loadtxt(lines, delimiter=",", ndmin=2, skiprows=int(_is_heading(lines)))
    import meshio

    # The reader itself: `meshio.read` exits the process on files that it cannot read.
    points = meshio._helpers.reader_map[path.suffix[1:]](str(path)).point_data
    known = ", ".join(points) or "none"
    if array is None and len(points) != 1:
        raise InputError(f"{path}: {len(points)} arrays at the points ({known}); name one by --array")
    if array is not None and array not in points:
        raise InputError(f"{path}: no array {array!r} at the points; there are: {known}")
    return np.asarray(points[array if array is not None else next(iter(points))])


def _names(value: Any) -> Any:
    """One name or several; parts without a name are called by their number, which YAML reads as such."""
    return tuple(str(v) for v in value) if isinstance(value, list | tuple) else (str(value),)


def _is_heading(lines: list[str]) -> bool:
    try:
        [float(cell) for cell in (lines[0] if lines else "").split(",")]
    except ValueError:
        return True
    return False

"""Meshes from files, through meshio, with their boundary parts and regions; what cannot be used is refused.

Every failure is a `MeshError` with the path and the reason: the reader is given files of unknown origin.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pdelab.errors import InputError, MeshError
from pdelab.mesh import CELL_TYPES, Mesh
from pdelab.meshes.guard import check_counts
from pdelab.meshes.repair import repaired

FORMATS = {".msh": "gmsh", ".vtu": "vtu", ".inp": "abaqus", ".xdmf": "xdmf", ".stl": "stl"}
TAGS = ("gmsh:physical", "cell_tags", "medit:ref", "material")
"""Names of integer cell data that are read as tags, the first that there is."""

FLATNESS = 1e-9  # a mesh is planar if it is thinner than this, relative to its extent


def read_mesh(path: str | Path) -> Mesh:
    """Read a mesh from Gmsh (.msh 2.2 and 4.1), VTK (.vtu), Abaqus (.inp) or XDMF (.xdmf).

    Cells are those of the highest dimension in the file, which must be of one type out of line, triangle,
    quad, tetra, triangle6, quad8, tetra10; a file that mixes types of that dimension is refused. Meshes of lines,
    triangles or quadrilaterals must be straight or planar; the coordinates that do not vary are dropped.

    Elements of one dimension less become boundary parts and cells become regions, by physical group or set
    name; a tag without a name is named by its number ("1"), tag 0 means none. Node sets of Abaqus become the
    boundary facets whose nodes all belong to the set. In Gmsh's text files a coordinate must not be a whole
    number above 10^7 and above the size of the file: it cannot be told from a damaged tag.

    Mended with a warning: coincident points (merged within 1e-10 of the extent), repeated cells (dropped),
    inverted cells (turned round), unused points and facets of no cell (dropped). See `repair.repaired`.

    Raises:
        MeshError: the file is missing, empty, truncated, damaged or of another kind; cells have no volume, are
            folded or overlap.
    """
    path = Path(path)
    with _refusals(path):
        points, cells, kind, facets, regions = _assemble(_parse(path, [s for s in FORMATS if s != ".stl"]))
        return repaired(points, cells, kind, facets, regions, source=str(path))


def read_surface(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a triangulated surface in space, points (N, 3) and triangles (F, 3), from .stl or any mesh format.

    Points that coincide are merged, triangles without area dropped with a warning. Whether the surface is
    closed is checked where that matters (`domain.SurfaceDomain`).

    Raises:
        MeshError: the file cannot be read or holds no triangles.
    """
    path = Path(path)
    with _refusals(path):
        raw = _parse(path, list(FORMATS))
        blocks = [b.data for b in raw.cells if b.type == "triangle"]
        if not blocks or not sum(map(len, blocks)):
            raise MeshError("no triangles")
        points = np.asarray(raw.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise MeshError(f"points of shape (any, 3) needed for a surface, got {points.shape}")
        if not np.isfinite(points).all():
            raise MeshError("a coordinate is not finite")
        return _surface(points, _whole_numbers(np.concatenate(blocks)))


def read_quad8_csv(nodes: str | Path, elements: str | Path) -> Mesh:
    """Read eight-node quadrilaterals from two text tables without headings.

    Args:
        nodes: lines "x,y".
        elements: lines "number,material,n1,...,n8", nodes counted from 1: corners, then mid-edge nodes.

    Returns:
        The mesh; each material is a region named by its number. Mended as by `read_mesh`.

    Raises:
        MeshError: a table is missing, empty, not numeric or of another width.
    """
    with _refusals(Path(nodes)):
        points = _table(Path(nodes), 2)
    with _refusals(Path(elements)):
        table = _whole_numbers(_table(Path(elements), 10))
        regions = {str(m): np.flatnonzero(table[:, 1] == m) for m in np.unique(table[:, 1])}
        return repaired(points, table[:, 2:] - 1, "quad8", {}, regions, source=str(elements))


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn whatever is thrown into a `MeshError` with the path."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise MeshError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except MemoryError as error:
        raise MeshError(f"{path}: needs more memory than there is; the file is damaged or too large") from error
    except (Exception, SystemExit) as error:
        reason = str(error) or "its structure is broken"
        raise MeshError(f"{path}: cannot be read, it is damaged or of another kind ({reason})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep a reader from printing, and turn NumPy's warning that it stopped at unreadable text into an error."""
    silence = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*string or file could not be read.*")
        yield


def _parse(path: Path, suffixes: list[str]) -> Any:
    """The mesh of meshio."""
    if not path.exists():
        raise MeshError("no such file")
    if not path.is_file():
        raise MeshError("not a file")
    if path.suffix.lower() not in suffixes:
        raise MeshError(f"unknown kind of file {path.suffix!r}; expected one of {', '.join(suffixes)}")
    if not path.stat().st_size:
        raise MeshError("the file is empty")
    import meshio

    with _quiet():
        check_counts(path)
        # The reader itself: `meshio.read` exits the process on files that it cannot read.
        raw = _call(meshio._helpers.reader_map[FORMATS[path.suffix.lower()]], path)
    if not len(raw.points) or not sum(len(b.data) for b in raw.cells):
        raise MeshError("no points or no cells")
    return raw


def _call(reader: Any, path: Path) -> Any:
    try:
        return reader(str(path))
    except ValueError as error:
        if "gmsh:physical" not in str(error):
            raise
        raise MeshError(
            "some entities have a physical group and some have none; give one to all, or save only those with one "
            "(Mesh.SaveAll = 0)"
        ) from error


def _assemble(raw: Any) -> tuple[np.ndarray, np.ndarray, str, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Points, cells, their type, boundary parts and regions of a mesh of meshio, as they are."""
    import meshio

    present = [b.type for b in raw.cells if len(b.data)]
    dims = {kind: meshio._mesh.topological_dimension[kind] for kind in present}
    top = max(dims.values())
    kinds = sorted({kind for kind, dim in dims.items() if dim == top})
    if len(kinds) > 1:
        raise MeshError(f"cells of {len(kinds)} types, {', '.join(kinds)}; one is needed, convert the mesh")
    kind = kinds[0]
    if kind not in CELL_TYPES:
        raise MeshError(f"cells of type {kind}; one of {', '.join(CELL_TYPES)} is needed")
    points = _in_space(np.asarray(raw.points, dtype=np.float64), top)
    cells = _whole_numbers(np.concatenate([b.data for b in raw.cells if b.type == kind]))
    facet_kind = CELL_TYPES[kind][2]
    wrong = sorted({k for k, dim in dims.items() if dim == top - 1} - {facet_kind})
    if wrong:
        raise MeshError(f"boundary elements of type {', '.join(wrong)} beside cells of type {kind}")
    facets = _named(raw, facet_kind, top - 1)
    lower = [b.data for b in raw.cells if b.type == facet_kind]
    if lower:
        every = _whole_numbers(np.concatenate(lower))
        facets = {name: every[number] for name, number in facets.items()}
    if raw.point_sets:
        boundary = Mesh(points, cells, kind).boundary_facets()
        for name, nodes in raw.point_sets.items():
            facets.setdefault(name, boundary[np.isin(boundary, nodes).all(axis=1)])
    return points, cells, kind, {name: f for name, f in facets.items() if len(f)}, _named(raw, kind, top)


def _in_space(points: np.ndarray, dimension: int) -> np.ndarray:
    """The first coordinates, if the others do not vary."""
    if points.ndim != 2 or points.shape[1] < dimension:
        raise MeshError(f"points of shape {points.shape} for cells of dimension {dimension}")
    if not np.isfinite(points).all():
        raise MeshError(f"{int((~np.isfinite(points)).any(axis=1).sum())} of {len(points)} points are not finite")
    with np.errstate(over="ignore"):
        extent = np.ptp(points, axis=0)
    if (extent[dimension:] > FLATNESS * extent.max()).any():
        raise MeshError(
            f"cells of dimension {dimension} that do not lie in the first {dimension} coordinates, extent "
            f"{extent.tolist()}; for a surface in space use read_surface"
        )
    return points[:, :dimension]


def _named(raw: Any, kind: str, dimension: int) -> dict[str, np.ndarray]:
    """Name -> numbers of the cells of a type, counted over the blocks of that type."""
    blocks = [i for i, b in enumerate(raw.cells) if b.type == kind]
    if not blocks:
        return {}
    offset = np.cumsum([0] + [len(raw.cells[i].data) for i in blocks])
    found: dict[str, np.ndarray] = {}
    for name, sets in raw.cell_sets.items():
        if name.startswith("gmsh:"):
            continue
        parts = [np.asarray(sets[i]) + offset[j] for j, i in enumerate(blocks) if sets[i] is not None]
        number = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
        if len(number):
            found[name] = np.unique(number)
    key = next((k for k in TAGS if k in raw.cell_data), None)
    if key is None:
        return found
    tags = _whole_numbers(np.concatenate([np.ravel(raw.cell_data[key][i]) for i in blocks]))
    names = {int(t[0]): name for name, t in raw.field_data.items() if len(t) > 1 and int(t[1]) == dimension}
    for tag in np.unique(tags[tags != 0]):
        found.setdefault(names.get(int(tag), str(tag)), np.flatnonzero(tags == tag))
    return found


def _surface(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise MeshError(f"node numbers must lie in 0..{len(points) - 1}")
    points, number = np.unique(points, axis=0, return_inverse=True)
    triangles = number.ravel()[triangles]
    p = points[triangles]
    with np.errstate(all="ignore"):
        area = np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1)
        side = np.ptp(p, axis=1).max(axis=1)
    good = (area > 1e-14 * side**2) & np.isfinite(area)
    if not good.all():
        warnings.warn(f"surface: {int((~good).sum())} triangles without area were dropped", stacklevel=4)
    if not good.any():
        raise MeshError("no triangle has an area")
    return points, triangles[good]


def _whole_numbers(array: np.ndarray) -> np.ndarray:
    """As int64; fractions and numbers beyond its range are refused."""
    array = np.asarray(array)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (np.abs(array) < 2**53).all()):
        raise MeshError("a node number or tag is not finite")
    numbers = array.astype(np.int64)
    if not (numbers == array).all():
        raise MeshError("a node number or tag is not a whole number")
    return numbers


def _table(path: Path, width: int) -> np.ndarray:
    if not path.is_file():
        raise MeshError("no such file")
    with _quiet():
        table = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64)
    if table.shape[1] != width or not len(table):
        raise MeshError(f"expected lines of {width} numbers, got a table of shape {table.shape}")
    return table

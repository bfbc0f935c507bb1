"""From the arrays of a file to a sound `Mesh`: what can be mended is, with a warning; the rest is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pdelab.errors import MeshError
from pdelab.mesh import CELL_TYPES, Mesh, node_set_keys
from pdelab.meshes.measure import duplicate_cells, overlapping_facets, validity

MERGE = 1e-10  # points nearer than this, relative to the extent of the mesh, are one
FLAT = 1e-12  # cells of less volume than this, relative to (longest side of their box)**d, are refused

_REVERSED = {
    "line": (1, 0),
    "triangle": (0, 2, 1),
    "quad": (0, 3, 2, 1),
    "tetra": (0, 2, 1, 3),
    "triangle6": (0, 2, 1, 5, 4, 3),
    "quad8": (0, 3, 2, 1, 7, 6, 5, 4),
    "tetra10": (0, 2, 1, 3, 6, 5, 4, 7, 9, 8),
}


def repaired(
    points: np.ndarray,
    cells: np.ndarray,
    cell_type: str,
    facets: Mapping[str, np.ndarray] | None = None,
    regions: Mapping[str, np.ndarray] | None = None,
    source: str = "mesh",
) -> Mesh:
    """A mesh whose cells are distinct, positively oriented and not flat.

    Mended, each with a warning that says how many: points that coincide (within 1e-10 of the extent) are
    merged, repeated cells dropped, inverted cells turned round, points that no cell uses dropped, named
    facets that belong to no cell dropped.

    Args:
        points: (N, d).
        cells: node numbers (C, k).
        cell_type: one of `CELL_TYPES`.
        facets: boundary part -> node numbers (F, j).
        regions: region -> cell numbers.
        source: what the warnings name, such as the path of the file.

    Raises:
        MeshError: numbers out of range, coordinates not finite, cells without volume or folded, facets that
            more than two cells share.
    """
    mesh = Mesh(points, cells, cell_type, dict(facets or {}), dict(regions or {}))
    with np.errstate(all="ignore"):
        mesh = _without_duplicate_points(mesh, source)
        mesh = _without_duplicate_cells(mesh, source)
        mesh = _oriented(mesh, source)
        mesh = _with_facets_of_cells(mesh, source)
        mesh = _without_unused_points(mesh, source)
        folded = validity(mesh)
    if folded["inverted_cells"]:
        raise MeshError(
            f"{folded['inverted_cells']} of {len(mesh.cells)} cells are folded or not convex "
            f"(smallest Jacobian {folded['min_jacobian']:.3g})"
        )
    shared = overlapping_facets(mesh)
    if shared:
        raise MeshError(f"{shared} facets are shared by more than two cells; the mesh overlaps itself")
    return mesh


def _without_duplicate_points(mesh: Mesh, source: str) -> Mesh:
    extent = float(np.ptp(mesh.points, axis=0).max())
    if not np.isfinite(extent) or extent == 0:
        raise MeshError(f"points: extent {extent}, expected a positive finite number")
    tree = cKDTree(mesh.points)
    pairs = (int(tree.count_neighbors(tree, MERGE * extent)) - mesh.n_points) // 2
    if not pairs:
        return mesh
    if pairs > 20 * mesh.n_points:
        raise MeshError(f"points: most of the {mesh.n_points} coincide, {pairs} pairs")
    i, j = tree.query_pairs(MERGE * extent, output_type="ndarray").T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(mesh.n_points, mesh.n_points))
    count, group = connected_components(graph, directed=False)
    # The first point of each group stands for it, so that the order of the points is kept.
    first = np.full(count, mesh.n_points)
    np.minimum.at(first, group, np.arange(mesh.n_points))
    _warn(source, f"{mesh.n_points - count} points coincide with others and were merged")
    return _renumbered(mesh, first[group])


def _without_duplicate_cells(mesh: Mesh, source: str) -> Mesh:
    repeated = duplicate_cells(mesh.cells)
    if not len(repeated):
        return mesh
    _warn(source, f"{len(repeated)} repeated cells were dropped")
    keep = np.setdiff1d(np.arange(len(mesh.cells)), repeated)
    number = np.full(len(mesh.cells), -1)
    number[keep] = np.arange(len(keep))
    regions = {name: number[r][number[r] >= 0] for name, r in mesh.regions.items()}
    return Mesh(mesh.points, mesh.cells[keep], mesh.cell_type, mesh.facets, regions)


def _oriented(mesh: Mesh, source: str) -> Mesh:
    volume = mesh.volumes()
    side = np.ptp(mesh.points[mesh.cells], axis=1).max(axis=1)
    flat = ~(np.abs(volume) > FLAT * side**mesh.dimension) | ~np.isfinite(volume)
    if flat.any():
        raise MeshError(f"{int(flat.sum())} of {len(flat)} cells have no volume, the first is cell {flat.argmax()}")
    inverted = volume < 0
    if not inverted.any():
        return mesh
    _warn(source, f"{int(inverted.sum())} of {len(inverted)} cells were inverted and were turned round")
    cells = mesh.cells.copy()
    cells[inverted] = cells[inverted][:, list(_REVERSED[mesh.cell_type])]
    return Mesh(mesh.points, cells, mesh.cell_type, mesh.facets, mesh.regions)


def _without_unused_points(mesh: Mesh, source: str) -> Mesh:
    used = np.zeros(mesh.n_points, dtype=bool)
    used[mesh.cells] = True
    if used.all():
        return mesh
    _warn(source, f"{int((~used).sum())} points that no cell uses were dropped")
    number = np.cumsum(used) - 1
    facets = {name: number[f] for name, f in mesh.facets.items()}
    return Mesh(mesh.points[used], number[mesh.cells], mesh.cell_type, facets, mesh.regions)


def _with_facets_of_cells(mesh: Mesh, source: str) -> Mesh:
    if not mesh.facets:
        return mesh
    local = CELL_TYPES[mesh.cell_type][3]
    every = np.concatenate([mesh.cells[:, list(f)] for f in local])
    facets, dropped = {}, 0
    for name, given in mesh.facets.items():
        keys = node_set_keys(np.concatenate([every, given]))
        known = np.isin(keys[len(every) :], keys[: len(every)])
        dropped += int((~known).sum())
        # A facet listed twice would count twice in lengths and samples.
        kept = np.flatnonzero(known)
        kept = kept[np.sort(np.unique(keys[len(every) :][kept], return_index=True)[1])]
        facets[name] = given[kept]
    if dropped:
        _warn(source, f"{dropped} named facets belong to no cell and were dropped")
    facets = {name: f for name, f in facets.items() if len(f)}
    return Mesh(mesh.points, mesh.cells, mesh.cell_type, facets, mesh.regions)


def _renumbered(mesh: Mesh, number: np.ndarray) -> Mesh:
    facets = {name: number[f] for name, f in mesh.facets.items()}
    return Mesh(mesh.points, number[mesh.cells], mesh.cell_type, facets, mesh.regions)


def _warn(source: str, message: str) -> None:
    # The caller of the public reader, two frames above `repaired`.
    warnings.warn(f"{source}: {message}", stacklevel=5)

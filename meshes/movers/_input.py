"""What every mover asks of a mesh and of the values on it."""

from __future__ import annotations

import numpy as np

from pdelab.errors import InputError, MeshError, MeshTangled, check_shape
from pdelab.mesh import Mesh


def checked_mesh(mesh: Mesh) -> Mesh:
    """The mesh itself.

    Raises:
        MeshError: cells that are neither triangles nor tetrahedra.
        MeshTangled: a cell that is inverted or flat.
    """
    if mesh.cell_type not in ("triangle", "tetra"):
        raise MeshError(
            f"cells of type {mesh.cell_type}: this mover needs triangles or tetrahedra; convert the mesh, or mesh the "
            "domain again with generate.domain_mesh"
        )
    volumes = mesh.volumes()
    bad = int((~(volumes > 0)).sum())
    if bad:
        raise MeshTangled(
            f"{bad} of {len(volumes)} cells of the mesh are inverted or flat before anything is moved, smallest volume "
            f"{volumes.min():.3g}; meshes.repair.repaired turns inverted cells round, folded ones must be meshed again"
        )
    return mesh


def checked_values(mesh: Mesh, values: np.ndarray) -> np.ndarray:
    """Nodal values (N, m) as float64.

    Raises:
        ShapeError: another shape.
        InputError: a value that is complex or not finite.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"values: expected real numbers, got {array.dtype}")
    check_shape("values", array, (mesh.n_points, None))
    if not array.shape[1]:
        raise InputError("values: expected at least one field, got none")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(f"values: {bad} of {array.size} are not finite; a mover needs a value at every node")
    return array.astype(np.float64, copy=False)

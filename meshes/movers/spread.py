"""How far a mesh is from equal monitor mass in all cells."""

from __future__ import annotations

import numpy as np

from pdelab.mesh import Mesh
from pdelab.meshes.movers._background import Background


def spread(before: Mesh, after: Mesh, monitor: np.ndarray) -> float:
    """sigma / mu over the cells of q = m |K| / |K before|, m looked up at the moved nodes.

    Args:
        before: the mesh.
        after: the same cells with nodes at other places.
        monitor: at the nodes of the mesh before, (N,).
    """
    q = Background(before, monitor)(after.points)[after.cells].mean(axis=1) * after.volumes() / before.volumes()
    return float(q.std() / q.mean())

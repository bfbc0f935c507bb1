"""Second derivatives of nodal fields, by quadratics fitted around each node."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array

from pdelab.errors import check_shape
from pdelab.mesh import Mesh


def recovered_hessian(mesh: Mesh, values: np.ndarray) -> np.ndarray:
    """Hessian of a nodal field: that of the quadratic which fits best at a node, its neighbours, and theirs.

        sum_j w_j (p(x_j) - u_j)^2 = min,    w = 1 / (|x_j - x_i|^2 / R_i^2 + 0.05)^2,    R_i the farthest of them

    Projection to P1 tensors (`P1Matrices.second_derivatives`) is sharper where triangles come in pairs of equal
    shape, but wrong by half on a chessboard of diagonals such as that of `box_mesh`, however fine.

    Args:
        mesh: triangles or tetrahedra.
        values: u at the nodes (N,), any unit.

    Returns:
        (N, d, d), symmetric, unit of u over length^2; exact for quadratics wherever the nodes determine one.

    Source: the patches are those of Zhang & Naga, SIAM J. Sci. Comput. 26 (2005); the weights are ours.
    """
    check_shape("values", values, (mesh.n_points,))
    count, d, corners = mesh.n_points, mesh.dimension, mesh.cells.shape[1]
    pairs = (np.repeat(mesh.cells, corners, axis=1).ravel(), np.tile(mesh.cells, (1, corners)).ravel())
    near = coo_array((np.ones(len(pairs[0])), pairs), shape=(count, count)).tocsr()
    centre, other = (near @ near).tocoo().coords
    offset = mesh.points[other] - mesh.points[centre]
    squared = (offset**2).sum(axis=1)
    radius = np.zeros(count)
    np.maximum.at(radius, centre, squared)
    weight = 1.0 / (squared / radius[centre] + 0.05) ** 2
    s = offset / np.sqrt(radius[centre])[:, None]
    a, b = np.triu_indices(d)
    terms = np.concatenate([np.ones((len(s), 1)), s, s[:, a] * s[:, b]], axis=1)
    k = terms.shape[1]
    products = (weight[:, None, None] * terms[:, :, None] * terms[:, None, :]).reshape(-1, k * k)
    right = (weight * (values[other] - values[centre]))[:, None] * terms
    gather = coo_array((np.ones(len(centre)), (centre, np.arange(len(centre)))), shape=(count, len(centre))).tocsr()
    normal = (gather @ products).reshape(-1, k, k)
    # Too few nodes in the patch, as in a corner of a coarse mesh: the least of the fitting quadratics.
    found = (np.linalg.pinv(normal, rcond=1e-8, hermitian=True) @ (gather @ right)[:, :, None])[:, 1 + d :, 0]
    hessian = np.zeros((count, d, d))
    hessian[:, a, b] = found
    return (hessian + hessian.transpose(0, 2, 1)) / radius[:, None, None]

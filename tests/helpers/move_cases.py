"""Meshes, monitors and the model problem that the tests of movers share."""

import numpy as np

from pdelab.csg import Difference
from pdelab.domain import Box
from pdelab.mesh import Mesh
from pdelab.meshes.generate import domain_mesh
from pdelab.shapes import Ball, Polygon

CENTRE = np.array([0.51, 0.65])


def square(n):
    """The unit square, n x n squares each cut in two the same way."""
    line = np.linspace(0.0, 1.0, n + 1)
    points = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    a, b, c, d = corner, corner + n + 1, corner + n + 2, corner + 1
    return Mesh(points, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


def bump(points):
    return np.exp(-((points - CENTRE) ** 2).sum(axis=-1) / 0.01)


def bump_hessian_monitor(points):
    """m = 1 + 5 |H| / max |H| of the bump, the monitor of the demo "helmholtz" of the library movement."""
    x, y = (points - CENTRE).T
    xx, yy, xy = 4e4 * x * x - 200, 4e4 * y * y - 200, 4e4 * x * y
    size = np.sqrt(xx**2 + yy**2 + 2 * xy**2) * bump(points)
    return 1.0 + 5.0 * size / size.max()


def helmholtz_error(mesh):
    """L2 error of P1 elements for -Lap u + u = f whose solution is the bump, exact values on the boundary."""
    from skfem import Basis, BilinearForm, ElementTriP1, Functional, LinearForm, MeshTri, condense, solve
    from skfem.helpers import dot, grad

    def exact(x):
        return np.exp(-((x[0] - CENTRE[0]) ** 2 + (x[1] - CENTRE[1]) ** 2) / 0.01)

    def laplacian(x):
        return exact(x) * (4e4 * ((x[0] - CENTRE[0]) ** 2 + (x[1] - CENTRE[1]) ** 2) - 400)

    basis = Basis(MeshTri(mesh.points.T.copy(), mesh.cells.T.copy()), ElementTriP1(), intorder=8)
    A = BilinearForm(lambda u, v, w: dot(grad(u), grad(v)) + u * v).assemble(basis)
    b = LinearForm(lambda v, w: (exact(w.x) - laplacian(w.x)) * v).assemble(basis)
    u = solve(*condense(A, b, x=bump(basis.doflocs.T), D=basis.get_dofs()))
    return float(np.sqrt(Functional(lambda w: (w["u"] - exact(w.x)) ** 2).assemble(basis, u=u)))


def l_shape(size=0.07):
    return domain_mesh(Polygon(((0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1))), size)


def with_holes(size=0.06):
    """A square with a round and a triangular hole."""
    holed = Difference(Box((0.0, 0.0), (1.0, 1.0)), Ball((0.3, 0.3), 0.12))
    return domain_mesh(Difference(holed, Polygon(((0.6, 0.5), (0.85, 0.6), (0.7, 0.85)))), size)


def random_monitor(mesh, seed, strength):
    """A few bumps of random places and widths: max m / min m = 1 + strength."""
    rng = np.random.default_rng(seed)
    extent = np.ptp(mesh.points, axis=0).max()
    centres = mesh.points[rng.integers(mesh.n_points, size=3)]
    widths = extent * rng.uniform(0.04, 0.15, 3)
    squares = ((mesh.points[:, None] - centres) ** 2).sum(axis=2)
    f = np.exp(-squares / widths**2).sum(axis=1)
    return 1.0 + strength * f / f.max()


def spread(before, after, monitor):
    """sigma / mu of m |K| over |K| before, the nodal monitor (N,) looked up where the nodes are now."""
    from pdelab.meshes.interpolate import MeshField

    m = MeshField(before, monitor[:, None])
    import torch

    at = m(torch.as_tensor(after.points)).numpy()[:, 0]
    q = at[after.cells].mean(axis=1) * after.volumes() / before.volumes()
    return float(q.std() / q.mean())

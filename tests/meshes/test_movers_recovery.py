import numpy as np
import pytest

from pdelab import shapes
from pdelab.domain import Box
from pdelab.errors import ShapeError
from pdelab.meshes.generate import box_mesh, domain_mesh
from pdelab.meshes.movers.monitor import monitor_at_nodes
from pdelab.meshes.movers.recovery import recovered_hessian

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
MESHES = {
    "box": box_mesh(SQUARE, 8),
    "square": domain_mesh(SQUARE, 0.1),
    "disk": domain_mesh(shapes.Ball((0, 0), 1), 0.2),
    "space": box_mesh(Box((0, 0, 0), (1, 2, 1)), 4),
}


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_it_is_exact_for_quadratics(mesh):
    rng = np.random.default_rng(6613)
    Q = rng.standard_normal((mesh.dimension,) * 2)
    Q = Q + Q.T
    u = 0.5 * np.einsum("ni,ij,nj->n", mesh.points, Q, mesh.points) + mesh.points @ rng.standard_normal(mesh.dimension)
    np.testing.assert_allclose(recovered_hessian(mesh, u), np.broadcast_to(Q, (mesh.n_points, *Q.shape)), atol=1e-7)


@pytest.mark.parametrize("make", [box_mesh, lambda box, n: domain_mesh(box, 1 / n)], ids=["chessboard", "Delaunay"])
def test_it_converges_on_every_mesh(make):
    errors = []
    for n in (20, 40):
        mesh = make(SQUARE, n)
        x, y = mesh.points.T - np.array([[0.51], [0.65]])
        u = np.exp(-(x**2 + y**2) / 0.02)
        xx, yy, xy = (u * (1e4 * a * b - 100 * c) for a, b, c in ((x, x, 1), (y, y, 1), (x, y, 0)))
        exact = np.sqrt(xx**2 + yy**2 + 2 * xy**2)
        found = monitor_at_nodes(mesh, u[:, None], "hessian-norm", 1.0) - 1
        errors.append(np.linalg.norm(found - exact / exact.max()) / np.linalg.norm(exact / exact.max()))
    assert errors[1] < 0.05 and errors[1] < 0.5 * errors[0]


def test_values_of_another_length_are_refused():
    with pytest.raises(ShapeError, match="values"):
        recovered_hessian(MESHES["box"], np.ones(3))

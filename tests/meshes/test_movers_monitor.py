import numpy as np
import pytest
from move_cases import l_shape, random_monitor, square, with_holes

from pdelab.domain import Box
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, domain_mesh
from pdelab.meshes.interpolate import MeshField
from pdelab.meshes.movers._background import Background
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._matrices import P1Matrices
from pdelab.meshes.movers.monitor import monitor_at_nodes, smoothed
from pdelab.shapes import Ball, Polygon


def test_matrices_are_those_of_scikit_fem():
    from skfem import Basis, BilinearForm, ElementTriP1, MeshTri

    mesh = with_holes(0.2)
    basis = Basis(MeshTri(mesh.points.T.copy(), mesh.cells.T.copy()), ElementTriP1())
    mat = P1Matrices(mesh)
    n = mesh.n_points
    forms = {
        "mass": BilinearForm(lambda u, v, w: u * v),
        "stiffness": BilinearForm(lambda u, v, w: u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]),
    }
    for name, form in forms.items():
        assert abs(getattr(mat, name) - form.assemble(basis)).max() < 1e-14
    for k in range(2):
        G = BilinearForm(lambda u, v, w, k=k: u.grad[k] * v).assemble(basis)
        assert abs(mat.gradient[k * n : (k + 1) * n] - G).max() < 1e-14
    facets = basis.boundary()
    for k in range(2):
        for m in range(2):
            block = mat.hessian[(2 * k + m) * n : (2 * k + m + 1) * n]
            inside = BilinearForm(lambda u, v, w, k=k, m=m: -v.grad[m] * u.grad[k]).assemble(basis)

            def border(u, v, w, k=k, m=m):
                normal_part = u.grad[0] * w.n[0] + u.grad[1] * w.n[1]
                return v * (u.grad[k] - normal_part * w.n[k]) * w.n[m]

            assert abs(block - inside - BilinearForm(border).assemble(facets)).max() < 1e-13


def test_monitors_are_their_formulas():
    mesh = square(20)
    u = np.tanh(8 * (mesh.points @ [[1.0], [0.5]] - 0.7))
    m = {kind: monitor_at_nodes(mesh, u, kind, 5.0) for kind in ("gradient", "hessian", "hessian-norm", "both")}
    for kind in ("gradient", "hessian", "hessian-norm"):
        assert m[kind].max() == pytest.approx(6.0) and m[kind].min() >= 1.0
    np.testing.assert_allclose((m["hessian-norm"] - 1) ** 2 / 5, m["hessian"] - 1, atol=1e-12)
    np.testing.assert_allclose(m["both"] - 1, np.maximum(m["hessian"] - 1, 2 * (m["gradient"] - 1)), atol=1e-12)
    np.testing.assert_allclose(monitor_at_nodes(mesh, 1e7 + 1e3 * u, "gradient"), m["gradient"], rtol=1e-8)  # no unit
    both = monitor_at_nodes(mesh, np.hstack([u, np.flip(u)]), "gradient")
    np.testing.assert_allclose(both, np.maximum(m["gradient"], monitor_at_nodes(mesh, np.flip(u), "gradient")))
    for nothing in (np.full((441, 2), 3.3), mesh.points @ [[1e5], [1.0]]):
        assert np.array_equal(monitor_at_nodes(mesh, nothing), np.ones(441))
    smooth = monitor_at_nodes(mesh, u, "hessian", 5.0, 20.0)
    assert (smooth >= 1).all() and np.ptp(smooth[200:240]) < np.ptp(m["hessian"][200:240])


def test_smoothing_is_a_mean_of_what_it_smooths():
    mesh = with_holes()
    s = np.random.default_rng(63).uniform(0, 1, mesh.n_points)
    f = smoothed(P1Matrices(mesh), s, 10.0)
    nodes = np.unique(mesh.boundary_facets())
    assert np.array_equal(f[nodes], s[nodes])
    assert np.ptp(np.delete(f, nodes)) < np.ptp(s)
    np.testing.assert_allclose(smoothed(P1Matrices(mesh), 0 * s + 2.5, 10.0), 2.5, rtol=1e-12)


@pytest.mark.parametrize("make", [l_shape, with_holes])
def test_lookup_is_interpolation(make):
    mesh = make()
    m = random_monitor(mesh, 5, 20.0)
    inside = mesh.points + 0.4 * (mesh.points[np.roll(np.arange(mesh.n_points), 37)] - mesh.points)
    import torch

    field = MeshField(mesh, m[:, None])
    held = field._locator.locate(inside)[1]
    found = Background(mesh, m)(inside)
    np.testing.assert_allclose(found[held], field(torch.as_tensor(inside)).numpy()[held, 0], rtol=1e-9)
    assert held.sum() > 100 and m.min() <= found.min() and found.max() <= m.max()
    assert np.array_equal(Background(mesh, m)(mesh.points), m) or np.allclose(Background(mesh, m)(mesh.points), m)


def test_boundaries_are_told_apart():
    disc = BoundaryMotion(domain_mesh(Ball((0.0, 0.0), 1.0), 0.3))
    nodes = np.unique(disc.facets)
    assert disc.curved[nodes].all() and not disc.curved[np.setdiff1d(np.arange(disc.mesh.n_points), nodes)].any()
    octagon = Polygon(tuple((float(np.cos(a)), float(np.sin(a))) for a in np.arange(8) * np.pi / 4))
    straight = BoundaryMotion(domain_mesh(octagon, 0.2))
    assert not straight.curved.any()
    # An interior angle of 155 degrees turns by 25, like a circle; alone among straight sides it is a corner.
    blunt = Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.11), (0.0, 1.0)))
    motion = BoundaryMotion(domain_mesh(blunt, 0.1))
    assert not motion.curved.any()
    free = np.zeros(motion.mesh.n_points, dtype=int)
    np.add.at(free, motion.basis.tocoo().row % motion.mesh.n_points, 1)
    for corner in blunt.vertices:
        assert free[np.linalg.norm(motion.mesh.points - corner, axis=1).argmin()] == 0
    # On an ellipse nodes are put back on the polygon.
    circle = domain_mesh(Ball((0.0, 0.0), 1.0), 0.2)
    ellipse = Mesh(circle.points * (2.0, 1.0), circle.cells)
    moved = BoundaryMotion(ellipse).placed(ellipse.points + 0.05)
    assert not np.array_equal(moved, ellipse.points)
    cube = BoundaryMotion(box_mesh(Box((0.0,) * 3, (1.0,) * 3), 3))
    on = ((cube.mesh.points == 0) | (cube.mesh.points == 1)).sum(axis=1)
    assert cube.basis.shape[1] == (3 - on).sum()

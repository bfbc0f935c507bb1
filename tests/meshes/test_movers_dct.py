import numpy as np
import pytest

from pdelab import shapes, testing
from pdelab.domain import Box
from pdelab.errors import MeshError, SettingsError
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, domain_mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._dct import GridEquation
from pdelab.meshes.movers.monge_ampere import MongeAmpere

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
CUBOID = Box((0.0, 0.0, 0.0), (1.0, 2.0, 1.0))
DCT = MongeAmpere(method="dct")


def bump(points):
    return 1 + 6 * np.exp(-((points - 0.4) ** 2).sum(axis=1) / 0.04)


def one(points):
    return np.ones(len(points))


def test_it_keeps_the_contract():
    testing.check_mover(DCT, tolerance=1e-12)
    testing.check_mover(MongeAmpere(method="dct", monitor="both", strength=30, smoothing=10), tolerance=1e-12)
    mesh = box_mesh(CUBOID, 4)
    assert (DCT.movement(mesh, one).mesh.points == mesh.points).all()


@pytest.mark.parametrize("domain, counts", [(SQUARE, (9, 12)), (CUBOID, (5, 8, 6))], ids=["plane", "space"])
def test_the_correction_solves_the_equation_of_differences(domain, counts):
    mesh = box_mesh(domain, counts)
    equation = GridEquation(mesh, BoundaryMotion(mesh), one)
    phi = np.cos(np.pi * mesh.points / np.ptp(mesh.points, axis=0)).prod(axis=1)
    laplacian = np.trace(equation.evaluate(phi).hessian)
    weights = equation._on_mesh(equation._weights)
    assert weights.sum() == pytest.approx(mesh.volumes().sum(), rel=1e-12)
    np.testing.assert_allclose(equation.correction(-weights * laplacian), phi, atol=1e-12)


@pytest.mark.parametrize("domain, counts", [(SQUARE, (24, 20)), (CUBOID, (8, 12, 8))], ids=["plane", "space"])
def test_it_agrees_with_finite_elements(domain, counts):
    mesh = box_mesh(domain, counts)
    first, second = (MongeAmpere(method=m, tolerance=1e-4).movement(mesh, bump) for m in ("dct", "relaxation"))
    assert first.status.ok and (first.mesh.volumes() > 0).all() and first.spread < 0.3 * first.spreads[0]
    moved = np.abs(second.mesh.points - mesh.points).max()
    assert np.abs(first.mesh.points - second.mesh.points).max() < 0.15 * moved
    for axis in range(mesh.dimension):
        for end in domain.bounds:
            side = mesh.points[:, axis] == end[axis]
            assert (first.mesh.points[side, axis] == end[axis]).all()


def test_the_numbering_does_not_matter():
    mesh = box_mesh(SQUARE, 10)
    order = np.random.default_rng(7741).permutation(mesh.n_points)
    other = Mesh(mesh.points[order], np.argsort(order)[mesh.cells])
    first, second = (DCT.movement(m, bump).mesh for m in (mesh, other))
    assert np.abs(second.points - first.points[order]).max() < 1e-12


def test_a_monitor_that_the_grid_does_not_resolve_tangles_nothing():
    mesh = box_mesh(SQUARE, 12)
    for width in (0.03, 0.01, 0.003):
        found = DCT.movement(mesh, lambda p, w=width: 1 + 200 * np.exp(-((p - 0.37) ** 2).sum(axis=1) / w**2))
        assert (found.mesh.volumes() > 0).all()


def test_other_meshes_are_refused():
    for mesh in (domain_mesh(SQUARE, 0.2), domain_mesh(shapes.Ball((0, 0), 1), 0.5)):
        with pytest.raises(MeshError, match="method dct: expected nodes on a regular grid of a box; use method=relax"):
            DCT.movement(mesh, bump)
    mesh = box_mesh(SQUARE, 4)
    part = next(iter(mesh.facets))
    with pytest.raises(SettingsError, match=f"method dct cannot hold {part}"):
        MongeAmpere(method="dct", fixed=(part,)).movement(mesh, bump)

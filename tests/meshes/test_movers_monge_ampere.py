import time
from pathlib import Path

import numpy as np
import pytest
from move_cases import (
    bump,
    bump_hessian_monitor,
    helmholtz_error,
    l_shape,
    random_monitor,
    spread,
    square,
    with_holes,
)

from pdelab import testing
from pdelab.domain import Box
from pdelab.errors import InputError, MeshError, MeshTangled, SettingsError, ShapeError, UnknownName
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, domain_mesh, quad_mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._equation import MongeAmpereEquation
from pdelab.meshes.movers._functional import CellFunctional
from pdelab.meshes.movers._matrices import P1Matrices
from pdelab.meshes.movers._quasi_newton import quasi_newton
from pdelab.meshes.movers._relaxation import relax
from pdelab.meshes.movers.monge_ampere import MongeAmpere
from pdelab.meshes.movers.monitor import ring
from pdelab.meshes.read import read_mesh
from pdelab.shapes import Ball

CYLINDER = Path(__file__).parents[3] / "shared" / "data" / "um2n" / "cylinder_015.msh"
GIVEN = MongeAmpere(monitor="given")


def turned(mesh, angle):
    c, s = np.cos(angle), np.sin(angle)
    return Mesh(mesh.points @ np.array([[c, s], [-s, c]]), mesh.cells, mesh.cell_type, mesh.facets)


def test_contract():
    testing.check_mover(MongeAmpere())
    testing.check_mover(MongeAmpere(method="quasi-newton", monitor="both", smoothing=10.0))
    testing.check_mover(MongeAmpere(method="functional", monitor="gradient"))


def test_the_bump_by_quasi_newton_is_that_of_the_library_movement():
    # Numbers of its demo "helmholtz": iteration 0, residuals of its iterations 1 to 6, the converged mesh.
    moved = MongeAmpere(method="quasi-newton", tolerance=1e-7).movement(square(20), bump_hessian_monitor)
    assert moved.volume_ratios[0] == pytest.approx(4.93, rel=0.01)
    assert moved.spreads[0] == pytest.approx(0.473, rel=0.01)
    assert moved.residuals[0] == pytest.approx(0.477, rel=0.01)
    np.testing.assert_allclose(moved.residuals[1:7], [0.241, 0.124, 0.0658, 0.0349, 0.0173, 0.00775], rtol=0.02)
    assert moved.status.ok and len(moved.steps) <= 20
    assert moved.volume_ratios[-1] == pytest.approx(1.15, rel=0.02)
    assert moved.spread == pytest.approx(0.0258, rel=0.02)
    full = MongeAmpere(method="quasi-newton", tolerance=1e-6, damping=1.0).movement(square(20), bump_hessian_monitor)
    assert full.status.ok and len(full.steps) <= 15


def test_the_bump_is_solved_with_two_fifths_less_error():
    mesh = square(20)
    start = time.process_time()
    moved = MongeAmpere().movement(mesh, bump_hessian_monitor)
    assert time.process_time() - start < 1.0  # 0.02 when it was written; 0.3 is asked for
    before, after = helmholtz_error(mesh), helmholtz_error(moved.mesh)
    assert before == pytest.approx(0.01023, rel=0.001)
    assert after <= 0.0061 and 0.40 <= 1 - after / before <= 0.43


def test_a_fixed_step_relaxes_as_the_card_says():
    mesh = square(20)
    equation = MongeAmpereEquation(P1Matrices(mesh), BoundaryMotion(mesh), bump_hessian_monitor)
    count = 0
    for iterate, _ in relax(equation, equation.evaluate(np.zeros(441)), step=0.1, adaptive=False):
        count += 1
        if iterate.residual < 1e-3:
            break
    assert 55 <= count <= 70


def test_the_ring_needs_a_step_that_adapts():
    mesh = square(20)
    equation = MongeAmpereEquation(P1Matrices(mesh), BoundaryMotion(mesh), ring())
    fixed = relax(equation, equation.evaluate(np.zeros(441)), step=0.1, adaptive=False)
    iterates = [next(fixed)[0] for _ in range(200)]
    assert min(i.residual for i in iterates) > 0.01 and not iterates[-1].valid
    moved = MongeAmpere(method="relaxation").movement(mesh, ring())
    assert (moved.volume_ratios[0], moved.spreads[0]) == pytest.approx((12.91, 1.214), rel=0.01)
    assert moved.residuals[0] == pytest.approx(1.155, rel=0.01)
    assert moved.status.ok and (moved.mesh.volumes() > 0).all() and moved.spread == pytest.approx(0.350, rel=0.02)
    newton = MongeAmpere(method="quasi-newton", tolerance=1e-6).movement(mesh, ring())
    assert newton.status.ok and newton.spread == pytest.approx(0.350, rel=0.02)


def test_newton_steps_by_factors_and_by_krylov_agree():
    mesh = square(12)
    equation = MongeAmpereEquation(P1Matrices(mesh), BoundaryMotion(mesh), bump_hessian_monitor)
    first = equation.evaluate(np.zeros(mesh.n_points))
    one, other = (next(quasi_newton(equation, first, direct=d))[0].potential for d in (True, False))
    assert np.abs(one - other).max() < 0.03 * np.abs(one).max()


@pytest.mark.parametrize("method", ["auto", "quasi-newton", "functional"])
def test_constant_monitors_move_nothing(method):
    mesh = domain_mesh(Ball((0.2, 0.1), 1.0), 0.3)
    for constant in (1.0, 3.7e5):
        moved = MongeAmpere(monitor="given", method=method).move(mesh, np.full((mesh.n_points, 1), constant))
        assert np.abs(moved.points - mesh.points).max() <= 1e-12 * 0.3
    linear = mesh.points @ [[2.0], [-1.0]]  # without second derivatives
    assert np.abs(MongeAmpere(method=method).move(mesh, linear).points - mesh.points).max() <= 1e-12 * 0.3


@pytest.mark.parametrize("method", ["relaxation", "functional"])
def test_turned_meshes_and_other_numberings_give_the_same(method):
    mesh = square(14)
    m = random_monitor(mesh, 6113, 8.0)[:, None]
    mover = MongeAmpere(monitor="given", method=method)
    plain = mover.move(mesh, m)
    for angle in (np.pi / 4, 0.3):
        assert np.abs(mover.move(turned(mesh, angle), m).points - turned(plain, angle).points).max() < 1e-8
    rng = np.random.default_rng(7741)
    order = rng.permutation(mesh.n_points)  # new number -> old
    new = np.argsort(order)
    shuffled = Mesh(mesh.points[order], new[mesh.cells][rng.permutation(len(mesh.cells))])
    assert np.abs(mover.move(shuffled, m[order]).points - plain.points[order]).max() < 1e-8


def distance_to_boundary(mesh, points):
    edges = mesh.points[mesh.boundary_facets()]
    along = edges[:, 1] - edges[:, 0]
    t = ((points[:, None] - edges[:, 0]) * along).sum(axis=2) / (along**2).sum(axis=1)
    foot = edges[:, 0] + np.clip(t, 0, 1)[..., None] * along
    return np.linalg.norm(points[:, None] - foot, axis=2).min(axis=1)


@pytest.mark.parametrize("make", [l_shape, with_holes])
def test_strong_monitors_in_domains_with_inward_corners(make):
    mesh = make()
    nodes = np.unique(mesh.boundary_facets())
    offset = np.linalg.norm(mesh.points[nodes] - (0.3, 0.3), axis=1)
    circle = nodes[np.abs(offset - 0.12) < 1e-9] if make is with_holes else nodes[:0]
    for seed, strength in ((52, 5.0), (913, 60.0), (4401, 400.0)):
        m = random_monitor(mesh, seed, strength)
        moved = GIVEN.movement(mesh, m[:, None])
        assert (moved.mesh.volumes() > 0).all()
        assert distance_to_boundary(mesh, moved.mesh.points[np.setdiff1d(nodes, circle)]).max() <= 1e-12
        if len(circle):
            assert np.abs(np.linalg.norm(moved.mesh.points[circle] - (0.3, 0.3), axis=1) - 0.12).max() <= 1e-12
        assert moved.spread == pytest.approx(spread(mesh, moved.mesh, m), rel=0.02)
        assert moved.spread < 0.6 * spread(mesh, mesh, m)


def test_no_mesh_is_worse_than_the_one_before():
    # At inward corners iterates of the equation may be sound and yet less equal than the mesh was.
    mesh = l_shape(0.1)
    for seed in range(40, 65):
        m = random_monitor(mesh, seed, 10.0 ** (1 + seed % 3))
        moved = GIVEN.movement(mesh, m[:, None])
        assert (moved.mesh.volumes() > 0).all() and moved.spread < moved.spreads[0]


def test_straight_sides_keep_the_area_and_corners_stay():
    mesh = turned(square(16), 0.7)
    moved = GIVEN.move(mesh, random_monitor(mesh, 318, 200.0)[:, None])
    assert (moved.volumes() > 0).all()
    assert moved.volumes().sum() == pytest.approx(1.0, abs=1e-12)
    corners = [0, 16, 17 * 16, 17 * 17 - 1]
    assert np.array_equal(moved.points[corners], mesh.points[corners])
    assert np.abs(moved.points - mesh.points).max() > 0.05


def test_parts_fixed_by_name_stay():
    mesh = box_mesh(Box((0.0, 0.0), (2.0, 1.0)), (12, 8))
    m = random_monitor(mesh, 77, 10.0)[:, None]
    name = next(iter(mesh.facets))
    nodes = np.unique(mesh.facets[name])
    assert not np.array_equal(GIVEN.move(mesh, m).points[nodes], mesh.points[nodes])
    moved = MongeAmpere(monitor="given", fixed=(name,)).move(mesh, m)
    assert np.array_equal(moved.points[nodes], mesh.points[nodes]) and (moved.volumes() > 0).all()


def test_tetrahedra_move_too():
    mesh = box_mesh(Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 6)
    m = 1.0 + 8.0 * np.exp(-20 * ((mesh.points - 0.4) ** 2).sum(axis=1))
    moved = GIVEN.movement(mesh, m[:, None])
    assert moved.status.ok and (moved.mesh.volumes() > 0).all()
    assert moved.spread < 0.5 * moved.spreads[0]
    for axis in range(3):
        for end in (0.0, 1.0):
            side = mesh.points[:, axis] == end
            assert np.abs(moved.mesh.points[side, axis] - end).max() < 1e-12


def test_the_functional_has_the_gradient_of_its_energy():
    mesh = with_holes(0.2)
    equation = MongeAmpereEquation(P1Matrices(mesh), BoundaryMotion(mesh), lambda x: 3 + x @ [1.0, -2.0])
    functional = CellFunctional(equation)
    rng = np.random.default_rng(2213)
    points = mesh.points + 0.01 * rng.standard_normal(mesh.points.shape)
    theta = functional.theta(functional.mass(points))
    gradient, matrix = functional.newton(points, theta)
    step = rng.standard_normal(points.shape)
    h = 1e-6
    slope = (functional.energy(points + h * step, theta) - functional.energy(points - h * step, theta)) / (2 * h)
    assert gradient @ step.T.ravel() == pytest.approx(slope, rel=1e-5)
    assert step.T.ravel() @ matrix @ step.T.ravel() > 0


def test_the_cylinder():
    if not CYLINDER.exists():
        pytest.skip("the shared data folder is absent")
    with pytest.warns(UserWarning, match="turned round"):
        mesh = read_mesh(CYLINDER)
    wake = 1.0 + 8.0 * np.exp(-(((mesh.points - (0.6, 0.2)) / (0.3, 0.06)) ** 2).sum(axis=1))
    moved = MongeAmpere(monitor="given", fixed=("4",), max_iterations=60).movement(mesh, wake[:, None])
    nodes = np.unique(mesh.facets["4"])
    assert np.array_equal(moved.mesh.points[nodes], mesh.points[nodes])
    assert (moved.mesh.volumes() > 0).all() and moved.spread < 0.6 * moved.spreads[0]


def test_wrong_input_is_told():
    mesh, ones = square(4), np.ones((25, 1))
    for values, kind, words in (
        (np.ones((24, 1)), ShapeError, r"\(25, any\)"),
        (np.ones(25), ShapeError, r"\(25, any\)"),
        (np.where(np.arange(25) == 3, np.nan, 1.0)[:, None], InputError, "1 of 25 are not finite"),
        (np.ones((25, 0)), InputError, "at least one field"),
        (np.array([["a"]] * 25), InputError, "real numbers"),
    ):
        with pytest.raises(kind, match=words):
            MongeAmpere().move(mesh, values)
    with pytest.raises(InputError, match="got 0.0 at node 3 and 1 such in 25; add a constant"):
        GIVEN.move(mesh, np.where(np.arange(25) == 3, 0.0, 1.0)[:, None])
    with pytest.raises(InputError, match="expected one field, got 2"):
        GIVEN.move(mesh, np.ones((25, 2)))
    with pytest.raises(MeshError, match="cells of type quad: this mover needs triangles"):
        MongeAmpere().move(quad_mesh(Box((0.0, 0.0), (1.0, 1.0)), 4), ones)
    folded = mesh.points.copy()
    folded[12] = (2.0, 2.0)
    with pytest.raises(MeshTangled, match="inverted or flat before anything is moved"):
        MongeAmpere().move(Mesh(folded, mesh.cells), ones)
    # Two squares that touch in one point: the boundary is no closed line there.
    twice = np.concatenate([mesh.points, mesh.points[1:] + 1.0])
    second = np.where(mesh.cells == 0, 24, mesh.cells + 24)
    with pytest.raises(MeshError, match="closed lines, but 2 boundary edges begin at the node"):
        MongeAmpere().move(Mesh(twice, np.concatenate([mesh.cells, second])), np.ones((49, 1)))
    with pytest.raises(UnknownName, match="boundary part"):
        MongeAmpere(fixed=("walls",)).move(mesh, ones)
    for wrong in ({"monitor": "hesian"}, {"strength": -1.0}, {"tolerance": 0.0}, {"damping": 1.5}, {"method": "x"}):
        with pytest.raises(SettingsError):
            MongeAmpere(**wrong)


def test_a_nodal_field_helps_too():
    # The monitor from the nodal field on the coarse mesh: less gain than with the exact one, but a gain.
    mesh = square(20)
    moved = MongeAmpere(monitor="hessian-norm").move(mesh, bump(mesh.points)[:, None])
    assert helmholtz_error(moved) < 0.8 * helmholtz_error(mesh)

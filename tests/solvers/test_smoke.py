import numpy as np
import pytest
import pyvista

from pdelab.errors import SettingsError, ShapeError, UnknownName
from pdelab.linear import AbstractLinearSolver
from pdelab.solution import Status
from pdelab.solvers._mac_grid import divergence
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.cg import CG
from pdelab.solvers.linear.direct import Direct
from pdelab.solvers.smoke import Projection, SmokePlume

SHAPES = [(20, 24), (10, 12, 14)]


def some_solid(shape):
    solid = np.zeros(shape, dtype=bool)
    solid[tuple(slice(n // 2 - 2, n // 2 + 1) for n in shape)] = True
    return solid


def some_faces(shape, seed=4):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal([n + (k == axis) for k, n in enumerate(shape)]) for axis in range(len(shape))]


@pytest.mark.parametrize("top", ["open", "closed"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_projected_velocities_have_no_divergence_and_less_energy_and_stay_as_they_are(shape, top):
    projection = Projection.of(some_solid(shape), top, Direct())
    u, _, facts, status, _ = projection.apply(some_faces(shape))
    assert status is Status.CONVERGED and facts.divergence < 1e-12
    start = [projection._with_walls(c, axis, 0.0) for axis, c in enumerate(some_faces(shape))]
    assert sum((c**2).sum() for c in u) < sum((c**2).sum() for c in start)
    again, q, *_ = projection.apply(u)
    assert max(np.abs(a - b).max() for a, b in zip(u, again, strict=True)) < 1e-12
    for axis, component in enumerate(u):  # the walls stay closed
        assert not np.moveaxis(component, axis, 0)[0].any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_gradient_is_taken_away_whole(shape):
    solid = some_solid(shape)
    projection = Projection.of(solid, "open", Direct())
    q = np.where(solid, 0.0, np.random.default_rng(7).standard_normal(shape))
    nothing = [np.zeros([n + (k == axis) for k, n in enumerate(shape)]) for axis in range(len(shape))]
    gradient = [-projection._without_gradient(c, q, axis) for axis, c in enumerate(nothing)]
    u, found, *_ = projection.apply(gradient)
    assert max(np.abs(c).max() for c in u) < 1e-12
    np.testing.assert_allclose(found, q, rtol=0, atol=1e-11)


def test_a_moving_obstacle_pushes_the_fluid_and_a_closed_box_takes_it():
    solid = some_solid((20, 24))
    u, _, facts, status, message = Projection.of(solid, "closed", AMG(1e-11)).apply(
        [np.zeros((21, 24)), np.zeros((20, 25))], (1.0, -0.5)
    )
    assert status is Status.CONVERGED, message
    assert facts.divergence < 1e-10
    first = np.argwhere(solid)[0]
    assert u[0][tuple(first)] == 1.0 and u[1][tuple(first)] == -0.5
    assert np.abs(divergence(u)[~solid]).max() < 1e-10 and np.abs(u[0]).max() >= 1.0


class Counting(AbstractLinearSolver):
    name, tolerance = "counting", 1e-9

    def __init__(self):
        self.made = []

    def init(self, A):
        self.made.append(A)
        return Direct().init(A)

    def compute(self, state, b):
        return Direct().compute(state, b)


@pytest.mark.parametrize(("velocity", "made"), [(None, 1), ((0.0, -1.5), 6)])
def test_the_set_up_is_made_anew_exactly_when_the_obstacle_moves(velocity, made):
    solver = Counting()
    plume = SmokePlume((32, 32), 5, obstacle_velocity=velocity, linear_solver=solver)
    result = plume.run()
    assert result.status is Status.CONVERGED
    assert len(solver.made) == made
    assert sum(step.setup_s > 0 for step in result.steps) == (1 if velocity is None else 5)


@pytest.mark.parametrize("shape", [(32, 40), (16, 16, 20)], ids=str)
def test_smoke_rises_symmetrically_and_keeps_out_of_the_obstacle(shape):
    result = SmokePlume(shape, 12, linear_solver=Direct()).run()
    height = np.arange(shape[-1]) + 0.5
    mean = (result.density.sum(axis=tuple(range(len(shape) - 1))) * height).sum() / result.density.sum()
    assert mean > 0.15 * shape[0] + 0.5
    assert not result.density[result.solid].any() and result.solid.any()
    np.testing.assert_allclose(result.density, result.density[::-1], rtol=0, atol=1e-10)
    assert max(step.divergence for step in result.steps) < 1e-10


@pytest.mark.parametrize("name", ["cg", "ic-cg", "mic-cg", "amg", "multigrid", "dcdm", "auto"])
def test_every_linear_solver_gives_the_same_flow(name):
    plain = SmokePlume((24, 24), 6, linear_solver=Direct()).run()
    other = SmokePlume((24, 24), 6, linear_solver={"name": name, "tolerance": 1e-10}).run()
    assert other.status is Status.CONVERGED
    np.testing.assert_allclose(other.pressure, plain.pressure, rtol=0, atol=1e-6 * np.abs(plain.pressure).max())


def test_a_linear_solve_that_fails_ends_the_run():
    result = SmokePlume((24, 24), 6, linear_solver=CG(1e-10, max_iterations=2)).run()
    assert result.status is Status.MAX_ITERATIONS and result.message.startswith("step 1: ")
    assert len(result.steps) == 1


@pytest.mark.parametrize("shape", [(16, 20), (10, 10, 12)], ids=str)
def test_the_files_open_elsewhere(tmp_path, shape):
    result = SmokePlume(shape, 4, linear_solver="direct").run(tmp_path / "new", every=2)
    assert [f.name for f in result.files] == ["smoke-0002.vti", "smoke-0004.vti", "smoke.pvd"]
    series = pyvista.get_reader(result.files[-1])
    assert series.time_values == pytest.approx([0.04, 0.08])
    last = pyvista.read(result.files[1])
    assert {"density", "pressure", "velocity", "solid"} <= set(last.point_data)
    assert last.point_data["density"].sum() == pytest.approx(result.density.sum())


def test_wrong_input_is_told():
    with pytest.raises(ShapeError, match="at least 8 cells"):
        SmokePlume((4, 64))
    with pytest.raises(SettingsError, match="dt"):
        SmokePlume(dt=-0.1)
    with pytest.raises(SettingsError, match="two cells away from the walls"):
        SmokePlume(centre=(0.05, 0.5))
    with pytest.raises(SettingsError, match="2 finite numbers"):
        SmokePlume(obstacle_velocity=(0.0, np.nan))
    with pytest.raises(UnknownName, match="no linear solver named 'amgg'"):
        SmokePlume(linear_solver="amgg").run()

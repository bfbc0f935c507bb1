import numpy as np
import pytest
import torch

from pdelab import registry
from pdelab.calculus import Coordinates
from pdelab.metrics import evaluation_points, relative_errors
from pdelab.pde import Computed, Exact, Observations, residual_values
from pdelab.problems.darcy import Darcy, DarcyFamily, PiecewiseDarcy, PiecewiseDarcyFamily, random_field
from pdelab.problems.gaussian_sums import GaussianSum, GaussianSumsFamily
from pdelab.problems.inverse import BurgersInverse, HeatInverse, PoissonInverse
from pdelab.problems.poisson_holes import PoissonBalls, PoissonBoltzmann, PoissonHoles, PoissonLShape
from pdelab.reference import ExactField, resolve
from pdelab.sampling import boundary, interior
from pdelab.solver import solve
from pdelab.solvers.fem import FEM

EXACT = [PoissonLShape(), GaussianSum(7), GaussianSum(11, reaction=0.0), PoissonInverse(), HeatInverse()]
COMPUTED = [
    PoissonHoles(),
    Darcy(),
    pytest.param(PoissonBoltzmann(), marks=pytest.mark.slow),
    pytest.param(PiecewiseDarcy(), marks=pytest.mark.slow),
]
FLOORS = {
    "poisson-holes": 5e-5,
    "poisson-boltzmann": 3e-4,
    "darcy": 6e-5,
    "darcy-piecewise": 8e-4,
    "poisson-3d": 2.4e-3,
}


@pytest.mark.parametrize("problem", EXACT, ids=lambda p: p.name)
def test_the_exact_solution_satisfies_equation_and_conditions(problem):
    points = torch.as_tensor(interior(problem, 256, 48109))
    recipe = problem.reference()
    assert isinstance(recipe, Exact)
    field = ExactField(problem, recipe)
    scale = 10.0  # sources are up to about 20
    assert residual_values(problem, field, points).abs().max() < 1e-10 * scale
    edge = boundary(problem, 64, 5521)
    values = field(torch.as_tensor(edge.points))
    for condition in problem.conditions():
        if isinstance(condition, Observations):
            continue
        given = condition.value(Coordinates(torch.as_tensor(edge.points), problem.axes))
        assert torch.allclose(values[:, problem.components.index(condition.component)], given, atol=1e-12)


def test_the_burgers_data_come_from_the_true_viscosity():
    problem = BurgersInverse(viscosity=0.05, noise=0.0)
    assert set(problem.unknowns) == {"viscosity"}
    points = torch.as_tensor(interior(problem, 64, 77213))
    field = ExactField(problem, problem.reference())
    right = residual_values(problem, field, points, viscosity=torch.tensor(0.05, dtype=torch.float64))
    wrong = residual_values(problem, field, points)
    assert right.abs().max() < 1e-6
    assert wrong.abs().max() > 0.1


@pytest.mark.parametrize("problem", [PoissonInverse(), HeatInverse(), BurgersInverse()], ids=lambda p: p.name)
def test_observations_have_the_stated_noise(problem):
    (data,) = [c for c in problem.conditions() if isinstance(c, Observations)]
    truth = ExactField(problem, problem.reference())(torch.as_tensor(data.points))[:, 0].numpy()
    noise = data.values - truth
    n = len(noise)
    assert n == (2000 if problem.name == "burgers-inverse" else 2500)
    assert noise.std() == pytest.approx(data.noise, rel=4 / np.sqrt(2 * n))
    assert abs(noise.mean()) < 4 * data.noise / np.sqrt(n)
    again = type(problem)()
    assert np.array_equal(again.conditions()[-1 if n == 2000 else 0].values, data.values)
    other = type(problem)(member=3)
    assert not np.array_equal(other.conditions()[-1 if n == 2000 else 0].values, data.values)


@pytest.mark.parametrize("problem", COMPUTED)
def test_floors_of_computed_references(problem, tmp_path, monkeypatch):
    monkeypatch.setenv("PDELAB_CACHE", str(tmp_path))
    reference = resolve(problem)
    assert reference.floor < FLOORS[problem.name]
    # Another mesh and order: its error is seen against the reference, and it falls.
    resolutions = (32, 64) if problem.name == "darcy-piecewise" else (24, 48)
    points = evaluation_points(problem)
    truth = reference.field(torch.as_tensor(points)).numpy()
    errors = [
        relative_errors(solve(problem, FEM(resolution=n)).at(points), truth, problem.components)["rel_l2"]
        for n in resolutions
    ]
    assert 5 * reference.floor < errors[1] < 0.5 * errors[0]


@pytest.mark.slow
def test_floor_in_three_dimensions(tmp_path, monkeypatch):
    monkeypatch.setenv("PDELAB_CACHE", str(tmp_path))
    assert resolve(PoissonBalls()).floor < FLOORS["poisson-3d"]


def test_the_balance_of_the_cube_holds():
    # No flux at the boundary: the integrals of k^2 u and of the source agree.
    problem = PoissonBalls()
    points = torch.as_tensor(interior(problem, 8192, 48109))
    p = Coordinates(points, problem.axes)
    u = solve(problem, FEM(resolution=14)).at(points.numpy())[:, 0]
    inflow, loss = problem.source(p).mean(), (problem.reaction(p) * torch.as_tensor(u)).mean()
    assert loss.item() == pytest.approx(inflow.item(), rel=0.05)


def test_the_singular_corner_costs_the_order():
    problem = PoissonLShape()
    errors = [solve(problem, FEM(resolution=n, order=2)).error()["rel_l2"] for n in (8, 16, 32)]
    order = np.log2(errors[0] / errors[2]) / 2
    assert order == pytest.approx(4 / 3, abs=0.2)


def test_the_random_field_has_unit_variance_and_no_slope_at_the_boundary():
    p = Coordinates(torch.as_tensor(np.random.default_rng(5521).random((400, 2))), ("x", "y"))
    draws = torch.stack([random_field(member, 16)(p) for member in range(300)])
    assert draws.square().mean().item() == pytest.approx(1.0, rel=0.1)
    assert abs(draws.mean().item()) < 0.1
    edge = Coordinates(torch.tensor([[0.0, 0.3], [1.0, 0.7]], dtype=torch.float64), ("x", "y"))
    assert random_field(3, 16)(edge, along_x=1).abs().max() < 1e-12
    x = torch.tensor([[0.31, 0.62]], dtype=torch.float64)
    h = torch.tensor([[1e-6, 0.0]], dtype=torch.float64)
    up, down = (random_field(3, 16)(Coordinates(x + s * h, ("x", "y"))) for s in (1, -1))
    slope = random_field(3, 16)(Coordinates(x, ("x", "y")), along_x=1)
    assert slope.item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-7)


def test_the_piecewise_permeability_is_constant_on_pixels():
    problem = PiecewiseDarcy(member=5, pixels=16)
    rng = np.random.default_rng(77213)
    pixel = rng.integers(0, 16, (200, 2))
    values = [
        problem.permeability(Coordinates(torch.as_tensor((pixel + rng.random((200, 2))) / 16), ("x", "y")))
        for _ in range(3)
    ]
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
    assert set(values[0].tolist()) == {3.0, 12.0}


@pytest.mark.parametrize("family", [DarcyFamily(), PiecewiseDarcyFamily(), GaussianSumsFamily()], ids=lambda f: f.name)
def test_families_repeat_their_members(family):
    sensors = np.random.default_rng(48109).random((30, 2))
    first, again, other = family.sample(5521), family.sample(5521), family.sample(5522)
    code = family.encode(first, sensors)
    assert code.shape == (30, 1) and np.isfinite(code).all()
    assert np.array_equal(code, family.encode(again, sensors))
    assert not np.array_equal(code, family.encode(other, sensors))


def test_gaussian_sums_follow_their_law():
    bumps = [GaussianSum(member).bumps for member in range(400)]
    counts = np.bincount([len(b) for b in bumps], minlength=7)
    assert counts[0] == 0 and counts[1:].min() > 30 and len(counts) == 7
    every = np.concatenate(bumps)
    assert every[:, :3].min() >= 0 and every[:, :3].max() <= 1
    assert every[:, 3:].min() == 1 / 8
    assert np.median(every[:, 3:]) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    "name", ["poisson-holes", "poisson-boltzmann", "poisson-3d", "poisson-lshape", "darcy", "poisson-inverse"]
)
def test_names_are_registered(name):
    problem = registry.load("problems", name)()
    assert problem.name == name
    assert isinstance(problem.reference(), Computed | Exact)

"""Lagrangian PINN: what is built in, the way back to places, what it refuses, and fast transport."""

import numpy as np
import pytest
import torch

import pdelab
from pdelab.calculus import Sites, Wanted, jet
from pdelab.checkpoint import CheckpointStore
from pdelab.errors import IncompatibleProblem, SettingsError
from pdelab.solution import Status
from pdelab.solvers import lagrangian_pinn
from pdelab.solvers._labels import EulerianField
from pdelab.solvers._transport import _feet, label_box
from pdelab.solvers.lagrangian_pinn import LagrangianPINN
from pdelab.taylor import Series

SEED = 4463
TINY = LagrangianPINN(width=6, depth=2, map_depth=1, n_interior=300)


@pytest.fixture(scope="module")
def front():
    """A few steps, so that the map has moved and bent."""
    problem = pdelab.problem("burgers-moving", speed=3.0, viscosity=0.1)
    return pdelab.solve(problem, TINY, budget="6steps", seed=SEED, threads=1)


def grid(n=60):
    generator = torch.Generator().manual_seed(SEED)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return x * torch.tensor([6.28, 1.0], dtype=torch.float64)


def test_initial_values_and_periodicity_are_built_in(front):
    labels, x = front.field.labels, grid()
    first = x.clone()
    first[:, 1] = 0.0
    u, moved = labels(first).T
    assert float((u - torch.sin(x[:, 0])).abs().max()) < 1e-12 and float(moved.abs().max()) < 1e-12
    period = torch.tensor([2.0 * torch.pi, 0.0], dtype=torch.float64)
    assert torch.allclose(labels(x), labels(x + period), rtol=0, atol=1e-10)
    assert torch.allclose(front.field(x), front.field(x + period), rtol=0, atol=1e-10)
    assert float(labels(x)[:, 1].abs().max()) > 0.01


def test_labels_of_places_lead_back_to_them(front):
    x = grid()
    s = front.field.label(x)
    moved = front.field.labels(s)[:, 1]
    drift = float(front.field._frame.drift[0])
    assert torch.allclose(s[:, 0] + drift * s[:, 1] + moved, x[:, 0], rtol=0, atol=1e-11)


def test_labels_of_places_in_the_plane_lead_back_to_them():
    problem = pdelab.problem("burgers-2d", viscosity=0.01)
    field = pdelab.solve(problem, TINY, budget="4steps", seed=SEED, threads=1).field
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    x = x * torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64)
    s = field.label(x)
    places = s[:, :2] + field._frame.drift * s[:, 2:] + field.labels(s)[:, 2:]
    assert torch.allclose(places, x[:, :2], rtol=0, atol=1e-11)
    assert float((s[:, :2] - x[:, :2]).abs().max()) > 1e-3


def test_derivatives_at_places_are_those_of_differences(front):
    x, h = grid(), 1e-4
    f = jet(front.field, x, ("u",), ("x", "t"))
    for axis, name in ((0, "u_x"), (1, "u_t")):
        step = torch.zeros_like(x)
        step[:, axis] = h
        slope = (front.field(x + step) - front.field(x - step))[:, 0] / (2.0 * h)
        assert torch.allclose(getattr(f, name), slope, rtol=1e-5, atol=1e-5)
    step = torch.tensor([h, 0.0], dtype=torch.float64)
    bend = (front.field(x + step) - 2.0 * front.field(x) + front.field(x - step))[:, 0] / h**2
    assert torch.allclose(f.u_xx, bend, rtol=1e-3, atol=1e-3)


def test_fast_convection_is_no_harder_than_slow():
    """An Eulerian network of this size and budget fails at the second speed, with an error near 1."""
    solver = LagrangianPINN(width=10, depth=2, map_depth=1, n_interior=800)
    for speed in (0.0, 50.0):
        problem = pdelab.problem("convection", velocity=speed)
        solution = pdelab.solve(problem, solver, budget="12steps", seed=SEED, threads=1)
        assert solution.error()["rel_l2"] < 1e-3
        assert abs(solution.validity["min_jacobian"] - 1.0) < 1e-3


def test_labels_far_from_home_carry_what_their_images_in_the_domain_do():
    """Values alone are periodic here, so that the networks are not: convection by 50 leaves the domain eight times."""
    problem = pdelab.problem("convection")
    solution = pdelab.solve(problem, TINY, budget="2steps", seed=SEED, threads=1)
    x = grid()
    period = torch.tensor([2.0 * torch.pi, 0.0], dtype=torch.float64)
    assert torch.allclose(solution.field(x), solution.field(x + period), rtol=0, atol=1e-9)
    s = solution.field.label(x)
    assert float(s[:, 0].min()) < -20.0


def test_walls_hold_labels_and_values():
    problem = pdelab.problem("burgers", viscosity=0.1)
    solution = pdelab.solve(problem, TINY, budget="6steps", seed=SEED, threads=1)
    for end in (-1.0, 1.0):
        at = torch.tensor([[end, 0.3], [end, 1.0]], dtype=torch.float64)
        assert float(solution.field.labels(at).abs().max()) < 1e-12
        assert float(solution.field(at).abs().max()) < 1e-9


def test_a_folded_map_is_no_result(monkeypatch):
    monkeypatch.setattr(lagrangian_pinn, "_validity", lambda *given: {"min_jacobian": -0.1, "label_error": 0.0})
    problem = pdelab.problem("convection")
    solution = pdelab.solve(problem, TINY, budget="2steps", seed=SEED, threads=1, throw=False)
    assert solution.status is Status.MAP_FOLDED and not solution.status.ok
    assert "-0.1" in solution.message


def test_the_least_determinant_finds_a_fold(front):
    class Folded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.size = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

        def forward(self, x, columns):
            return torch.stack([0.0 * x[:, 0], self.size * x[:, 1] * torch.sin(x[:, 0])], dim=1)[:, columns]

    field = front.field
    folded = EulerianField(Folded(), field._problem, front.problem, field._frame)
    least = lagrangian_pinn._validity(front.problem, field._problem, folded)["min_jacobian"]
    assert abs(least - (1.0 - 1.5)) < 1e-2


# --- time slabs

SLABS = LagrangianPINN(width=6, depth=2, map_depth=1, n_interior=200, n_slabs=2)


@pytest.fixture(scope="module")
def slabs():
    """Two slabs of a few steps, the front in the second."""
    return pdelab.solve(pdelab.problem("burgers", viscosity=0.1), SLABS, budget="12steps", seed=SEED, threads=1)


def middle(n=40):
    """Places on [-1, 1] at t = 0.5, where the slabs meet."""
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    return torch.stack([2.0 * x[:, 0] - 1.0, torch.full_like(x[:, 1], 0.5)], dim=1)


def test_labels_of_a_slab_are_its_first_places_and_carry_what_was_there(slabs):
    first, second = slabs.field.fields
    x = middle()
    u, moved = second.labels(x).T
    assert float(moved.abs().max()) < 1e-12
    assert torch.allclose(u, first(x)[:, 0], rtol=0, atol=1e-12)
    assert torch.allclose(slabs.field(x), first(x), rtol=0, atol=1e-12)
    assert float(first.labels(x)[:, 1].abs().max()) > 1e-2


def test_derivatives_in_a_later_slab_are_those_of_differences(slabs):
    x, h = middle() + torch.tensor([0.0, 0.2], dtype=torch.float64), 1e-4
    f = jet(slabs.field, x, ("u",), ("x", "t"))
    for axis, name in ((0, "u_x"), (1, "u_t")):
        step = torch.zeros_like(x)
        step[:, axis] = h
        slope = (slabs.field(x + step) - slabs.field(x - step))[:, 0] / (2.0 * h)
        assert torch.allclose(getattr(f, name), slope, rtol=1e-5, atol=1e-4)
    step = torch.tensor([h, 0.0], dtype=torch.float64)
    bend = (slabs.field(x + step) - 2.0 * slabs.field(x) + slabs.field(x - step))[:, 0] / h**2
    assert torch.allclose(f.u_xx, bend, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["front", "slabs"])
def test_the_field_is_known_in_taylor_mode_too(request, name):
    solution = request.getfixturevalue(name)
    field = solution.field if name == "front" else solution.field.fields[1]
    x = middle() if name == "slabs" else grid()
    wanted = Wanted(frozenset([(1, 0), (0, 1), (2, 0)]), False, (0,), 2)
    sites = Sites(x, wanted)
    assert isinstance(field(sites.series), Series)
    f, nested = jet(field, sites, ("u",), ("x", "t")), jet(field, x, ("u",), ("x", "t"))
    for derivative in ("u", "u_x", "u_t", "u_xx"):
        assert torch.allclose(getattr(f, derivative), getattr(nested, derivative), rtol=1e-10, atol=1e-10)


def test_slabs_in_the_plane_meet():
    problem = pdelab.problem("burgers-2d", viscosity=0.01)
    first, second = pdelab.solve(problem, SLABS, budget="4steps", seed=SEED, threads=1).field.fields
    x = torch.rand(30, 3, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    x = x * torch.tensor([4.0, 4.0, 0.0], dtype=torch.float64) + torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)
    assert torch.allclose(second(x), first(x), rtol=0, atol=1e-10)
    later = x + torch.tensor([0.0, 0.0, 0.3], dtype=torch.float64)
    f = jet(second, later, ("u", "v"), ("x", "y", "t"))
    step = torch.tensor([0.0, 1e-4, 0.0], dtype=torch.float64)
    slope = (second(later + step) - second(later - step))[:, 1] / 2e-4
    assert torch.allclose(f.v_y, slope, rtol=1e-5, atol=1e-5)


def test_a_travelling_wave_passes_from_slab_to_slab():
    solver = LagrangianPINN(width=10, depth=2, map_depth=1, n_interior=800, n_slabs=2)
    solution = pdelab.solve(pdelab.problem("convection"), solver, budget="24steps", seed=SEED, threads=1)
    assert solution.error()["rel_l2"] < 1e-3
    assert abs(solution.validity["min_jacobian"] - 1.0) < 1e-3


def test_a_fold_in_one_slab_ends_the_run(monkeypatch):
    found = iter([0.5, -0.1])
    monkeypatch.setattr(lagrangian_pinn, "_validity", lambda *given: {"min_jacobian": next(found), "label_error": 0.0})
    solver = LagrangianPINN(width=4, depth=1, map_depth=1, n_interior=64, n_slabs=4)
    problem = pdelab.problem("burgers")
    solution = pdelab.solve(problem, solver, budget="8steps", seed=SEED, threads=1, throw=False)
    assert solution.status is Status.MAP_FOLDED and solution.validity["min_jacobian"] == -0.1
    assert "from t = 0.25 to 0.5" in solution.message and len(solution.field.fields) == 2


class _Killed(Exception):
    pass


@pytest.mark.parametrize("kill", [2, 5])
def test_a_killed_run_of_slabs_resumes_to_the_same_bits(tmp_path, monkeypatch, kill):
    monkeypatch.setattr(pdelab.train, "REPORT_SECONDS", -1.0)
    solver = LagrangianPINN(width=4, depth=1, map_depth=1, n_interior=64, n_slabs=2, resample_every=2)

    def run(stop_at, checkpoints):
        def report(progress):
            if progress.step == stop_at:
                raise _Killed

        return pdelab.solve(
            pdelab.problem("burgers", viscosity=0.1),
            solver,
            budget="8steps",
            seed=SEED,
            threads=1,
            device="cpu",
            checkpoints=CheckpointStore(tmp_path, {}, every=0.0) if checkpoints else None,
            report=report,
            throw=False,
        )

    whole = run(None, False)
    with pytest.raises(_Killed):
        run(kill, True)
    resumed = run(None, True)
    assert resumed.status is whole.status and resumed.message == whole.message
    for a, b in zip(whole.field.parameters(), resumed.field.parameters(), strict=True):
        assert torch.equal(a, b)


def test_slabs_need_labels_that_stay_in_the_domain():
    with pytest.raises(IncompatibleProblem, match="n_slabs=1"):
        pdelab.solve(pdelab.problem("advection"), SLABS, budget="1steps")


# --- paths of labels


def lines_of(solution):
    paths = solution.lines["paths"]
    return np.split(np.arange(len(paths.points)), np.cumsum(paths.lengths)[:-1])


@pytest.mark.parametrize("name", ["front", "slabs"])
def test_paths_start_at_their_labels_and_carry_the_field(request, name):
    solution = request.getfixturevalue(name)
    points, arrays = solution.lines["paths"].points, solution.lines["paths"].arrays
    lower, upper = (float(b[0]) for b in solution.problem.domain.bounds)
    first = points[points[:, 1] == 0.0, 0]
    assert np.allclose(first, lower + (upper - lower) * (np.arange(20) + 0.5) / 20, rtol=0, atol=1e-12)
    assert points[:, 0].min() >= lower and points[:, 0].max() <= upper
    assert np.array_equal(arrays["time"], points[:, 1])
    assert np.allclose(arrays["u"], solution.at(points)[:, 0], rtol=0, atol=1e-9)
    assert np.allclose(arrays["det_F"][points[:, 1] == 0.0], 1.0, rtol=0, atol=1e-12)


def test_cells_of_labels_are_stretched_as_their_paths_part(slabs):
    """dx/da by differences of neighbours, through both slabs."""
    paths = slabs.lines["paths"]
    ends = [line[-1] for line in lines_of(slabs)]
    assert len(ends) == 20
    x, stretch = paths.points[ends, 0], paths.arrays["det_F"][ends]
    middle = 0.5 * (stretch[1:] + stretch[:-1])
    assert np.allclose(np.diff(x) / 0.1, middle, rtol=0.1, atol=0.05)
    assert stretch.max() - stretch.min() > 0.2


def test_paths_are_cut_where_a_period_ends(front):
    """The front moves by 3 of 2 pi: of 20 labels ten at least come in again."""
    paths = front.lines["paths"]
    assert 25 < len(paths.lengths) <= 45
    assert all(np.abs(np.diff(line[:, 0])).max(initial=0.0) < 0.1 for line in paths.each())


def test_paths_in_the_plane_are_lines_in_space():
    problem = pdelab.problem("burgers-2d", viscosity=0.01)
    solution = pdelab.solve(problem, TINY, budget="2steps", seed=SEED, threads=1)
    paths = solution.lines["paths"]
    assert len(paths.lengths) >= 81 and paths.points.shape[1] == 2
    some = slice(None, None, 17)
    found = np.stack([paths.arrays["u"], paths.arrays["v"]], axis=1)
    at = np.concatenate([paths.points, paths.arrays["time"][:, None]], axis=1)
    assert np.allclose(found[some], solution.at(at[some]), rtol=0, atol=1e-9)


# --- refusals


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("poisson", "without time nothing is carried"),
        ("wave", "u_tt"),
        ("kdv", "u_xxx"),
        ("reaction", "nothing in it is carried"),
        ("heat", "nothing in it is carried"),
        ("heat-complex", "box"),
        ("burgers-inverse", "identifies no coefficients"),
    ],
)
def test_problems_that_labels_cannot_follow_are_refused_with_the_reason(name, reason):
    with pytest.raises(IncompatibleProblem, match=reason):
        pdelab.solve(pdelab.problem(name), TINY, budget="1steps")


def _sine(p):
    return torch.sin(2 * torch.pi * p.x)


class Two(pdelab.AbstractProblem):
    """Two components that are carried with different speeds."""

    name, time, components = "two", (0.0, 1.0), ("u", "v")
    domain = pdelab.Interval(0.0, 1.0)

    def residual(self, f):
        return f.u_t + f.u_x, f.v_t - f.v_x

    def conditions(self):
        return pdelab.Initial("u", _sine), pdelab.Initial("v", _sine), pdelab.Periodic("x")


class Outflow(pdelab.AbstractProblem):
    """Labels enter at one end, and bring other values than those that are given there."""

    name, time = "outflow", (0.0, 1.0)
    domain = pdelab.Interval(0.0, 1.0)

    def residual(self, f):
        return f.u_t + f.u_x

    def conditions(self):
        return pdelab.Initial("u", 0.0), pdelab.Dirichlet("u", 1.0)


class Undefined(Outflow):
    """A velocity with a pole."""

    name = "undefined"

    def residual(self, f):
        return f.u_t + f.u_x / (f.x * 0.0)


class Broken(Outflow):
    """Initial values with a hole."""

    name = "broken"

    def conditions(self):
        return pdelab.Initial("u", lambda p: torch.sqrt(p.x - 0.5)), pdelab.Periodic("x")


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Broken(), "not finite"),
        (Two(), "different velocities"),
        (Outflow(), r"cross the boundary.*miss it by 1\);"),
        (Undefined(), "undefined"),
    ],
)
def test_flows_without_a_map_are_refused(problem, reason):
    with pytest.raises(IncompatibleProblem, match=reason):
        pdelab.solve(problem, TINY, budget="1steps")


def test_labels_start_where_the_flow_comes_from():
    """A rotating square sweeps the disk around it; a wall or a period keeps labels in the domain."""
    box = label_box(pdelab.problem("advection"))
    for low, high in zip(box.lower, box.upper, strict=True):
        assert -1.45 < low < -(2.0**0.5) + 0.02 and 2.0**0.5 - 0.02 < high < 1.45
    for name in ("burgers", "convection", "burgers-2d"):
        assert label_box(pdelab.problem(name)) == pdelab.problem(name).domain


def test_places_are_traced_back_along_the_flow():
    x = torch.tensor([[0.3, 0.1, 0.25], [-0.5, 0.7, 1.0], [1.0, -1.0, 0.5]], dtype=torch.float64)
    angle = -2.0 * torch.pi * x[:, 2]
    exact = torch.stack(
        [
            x[:, 0] * torch.cos(angle) - x[:, 1] * torch.sin(angle),
            x[:, 0] * torch.sin(angle) + x[:, 1] * torch.cos(angle),
        ],
        dim=1,
    )
    found = _feet(pdelab.problem("advection"), x)
    assert torch.allclose(found[:, :2], exact, rtol=0, atol=1e-6)
    assert torch.allclose(found[:, 2], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_settings_out_of_range_are_refused():
    for settings in (
        {"width": 0},
        {"n_slabs": 0},
        {"follow": 0.0},
        {"floor": 1.0},
        {"n_interior": 0},
        {"learning_rate": 0.0},
    ):
        with pytest.raises(SettingsError, match=next(iter(settings))):
            LagrangianPINN(**settings)

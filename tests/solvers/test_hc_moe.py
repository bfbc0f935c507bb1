"""Experts with a constraint layer: exact solutions in the basis, what is built in, blocks, refusals, files."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from pdelab.constraint_layer import ConstraintLayer
from pdelab.domain import Interval
from pdelab.errors import CheckpointError, IncompatibleProblem, InputError, SettingsError, UnknownName
from pdelab.pde import AbstractProblem, Dirichlet, Initial
from pdelab.problems.burgers import BurgersFamily, BurgersRandom
from pdelab.problems.darcy import DarcyHoles
from pdelab.problems.diffusion_sorption import DiffusionSorption, DiffusionSorptionFamily
from pdelab.problems.heat import Heat
from pdelab.problems.poisson import Poisson
from pdelab.problems.vorticity import Vorticity, VorticityFamily
from pdelab.solution import Status
from pdelab.solver import Budget, Context, check_admitted, prepare, solve
from pdelab.solvers._basis import Basis, ExpertsField
from pdelab.solvers._blocks import BlockPoints, Blocks, partition_of_unity, visible_jump
from pdelab.solvers._drawing import Drawing, Numbers
from pdelab.solvers._instance import Instance
from pdelab.solvers.hc_moe import TRAINING_MEMBERS, HCMoE
from pdelab.state import load_state, save_state

SMALL = {"n_basis": 8, "width": 12, "depth": 2, "n_points": 128, "n_boundary": 16, "n_interface": 8, "n_solve": 256}
SMOOTH = BurgersFamily(decay=4.0)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Manufactured(AbstractProblem):
    """u_t + u u_x - 0.1 u_xx = f with the solution exp(-t) sin(pi x) + x t on (0, 1)^2."""

    linear: bool = False

    name: ClassVar[str] = "manufactured"
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    @staticmethod
    def solution(p):
        return torch.exp(-p.t) * torch.sin(math.pi * p.x) + p.x * p.t

    def residual(self, f):
        wave = torch.exp(-f.t) * torch.sin(math.pi * f.x)
        u, u_t = wave + f.x * f.t, f.x - wave
        u_x = math.pi * torch.exp(-f.t) * torch.cos(math.pi * f.x) + f.t
        u_xx = -(math.pi**2) * wave
        speed, known = (1.0, 1.0) if self.linear else (f.u, u)
        return f.u_t + speed * f.u_x - 0.1 * f.u_xx - (u_t + known * u_x - 0.1 * u_xx)

    def conditions(self):
        return (
            Initial("u", self.solution),
            Dirichlet("u", self.solution, "left"),
            Dirichlet("u", self.solution, "right"),
        )


class GivenBasis(torch.nn.Module):
    """Four functions of (x, t): the solution times a factor that is 1, or differs from strip to strip; and others."""

    def __init__(self, strips=(1.0,)):
        super().__init__()
        self.strips = torch.nn.Parameter(torch.tensor(strips, dtype=torch.float64))

    def forward(self, points):
        x, t = points[:, 0], points[:, 1]
        u = torch.exp(-t) * torch.sin(math.pi * x) + x * t
        where = points.value if hasattr(points, "value") else points
        strip = (where[:, 0] * len(self.strips)).long().clamp(0, len(self.strips) - 1)
        others = [torch.cos(2.0 * x + t), torch.exp(-x) * t, x * x * x - t * t]
        return torch.stack([u * self.strips[strip], *others], dim=1)


def _solved(problem, network, experts, coupling="none"):
    instance = Instance.of(problem, hard=False)
    blocks = Blocks.equal(problem, experts)
    basis = Basis(network, instance.constraints, problem.axes)
    drawing = Drawing(problem, instance.constraints, True, basis, blocks, Numbers(400, 40, 16), {})
    scales = drawing.scales([instance], 1)
    system, T = drawing.draw([instance], scales, 2).system(1, coupling == "joint")
    solved = ConstraintLayer(50, tolerance=1e-12)(replace(system, ridge=1e-14))
    omega = (T @ solved.omega[..., None])[0, ..., 0]
    field = ExpertsField(basis, instance.constraints, blocks, omega)
    points = torch.as_tensor(np.random.default_rng(4).uniform(size=(500, 2)))
    with torch.no_grad():
        exact = GivenBasis()(points)[:, 0]
        error = float((field(points)[:, 0] - exact).norm() / exact.norm())
    return error, omega.detach()


@pytest.mark.parametrize(("linear", "limit"), [(True, 1e-6), (False, 1e-5)])
def test_a_solution_in_the_basis_is_found(linear, limit):
    error, omega = _solved(Manufactured(linear), GivenBasis(), {})
    assert error < limit
    assert omega[0, 0].numpy() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=limit)


@pytest.mark.parametrize("coupling", ["none", "joint"])
def test_experts_have_coefficients_of_their_own(coupling):
    # In each quarter of the interval the first function is the solution times another number.
    network = GivenBasis((1.0, 2.0, -1.0, 0.5))
    if coupling == "none":  # jumps of the basis itself are in no row
        error, omega = _solved(Manufactured(True), network, {"x": 4})
        assert error < 1e-6
        assert omega[:, 0, 0].numpy() == pytest.approx([1.0, 0.5, -1.0, 2.0], abs=1e-5)
    error, _ = _solved(Manufactured(True), network, {}, coupling)
    assert error > 1e-2


def _trained(family, seed=3, steps=3, **settings):
    solver = HCMoE(**SMALL, **settings)
    return solver, prepare(family, solver, seed=seed, budget=Budget(steps=steps), device="cpu")


def test_one_expert_is_one_solve_to_the_bit():
    fields = []
    for mode in ("pi-hc", "pi-hc-moe"):
        solver, operator = _trained(SMOOTH, mode=mode)
        fields.append(
            solve(SMOOTH.sample(0), solver, state=operator, seed=1).at(np.random.default_rng(0).random((50, 2)))
        )
    assert np.array_equal(*fields)


@pytest.mark.parametrize("problem", [BurgersRandom(decay=4.0), Vorticity(final_time=1.0), DiffusionSorption(0.15)])
def test_initial_values_are_met_exactly(problem):
    solution = solve(problem, HCMoE(**SMALL), budget="1steps", throw=False)
    x = problem.domain.sample(64, 5, "sobol")
    points = torch.as_tensor(np.hstack([x, np.zeros((64, 1))]))
    wanted = next(c for c in problem.conditions() if isinstance(c, Initial)).value
    from pdelab.calculus import Coordinates

    value = wanted(Coordinates(points, problem.axes)).numpy() if callable(wanted) else wanted
    assert np.abs(solution.at(points)[:, 0] - value).max() < 1e-12


def test_the_layer_beats_a_branch_and_training_beats_none():
    errors = {}
    points = np.stack(np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 21), indexing="ij"), -1).reshape(-1, 2)
    from pdelab.reference import resolve

    for label, mode, steps in (("soft", "pi-sc", 80), ("solve", "pi-hc", 80), ("untrained", "pi-hc", 1)):
        solver = HCMoE(mode=mode, n_points=300, n_solve=1024)
        operator = prepare(SMOOTH, solver, seed=1, budget=Budget(steps=steps), device="cpu")
        found = []
        for member in range(4):
            solution = solve(SMOOTH.sample(member), solver, state=operator)
            truth = resolve(solution.problem).field(torch.as_tensor(points)).numpy()
            found.append(np.linalg.norm(solution.at(points) - truth) / np.linalg.norm(truth))
            assert solution.validity["unsampled_residual"] < 2.0 * solution.validity["constraint_residual"]
        errors[label] = np.mean(found)
    assert errors["solve"] < 0.9 * errors["untrained"]
    assert errors["solve"] < errors["soft"]


def test_coupled_experts_do_not_show():
    jumps = {}
    for coupling in ("joint", "none"):
        solver = HCMoE(n_points=400, n_solve=1024, experts={"x": 4}, coupling=coupling)
        operator = prepare(SMOOTH, solver, budget="3steps", device="cpu")
        jumps[coupling] = solve(SMOOTH.sample(1), solver, state=operator).validity["interface_jump"]
    assert jumps["joint"] < 1.5 < jumps["none"]


def test_blended_experts_do_not_show_and_stay_what_they_are_inside():
    solver = HCMoE(n_points=400, n_solve=1024, experts={"x": 4}, coupling="none")
    operator = prepare(SMOOTH, solver, budget="2steps", device="cpu")
    plain, blended = (solve(SMOOTH.sample(1), replace(solver, blend=blend), state=operator) for blend in (0.0, 0.2))
    # The jump at the ends of the period stays; take one inside.
    edge = np.array([[0.5 - 1e-6, 0.7], [0.5 + 1e-6, 0.7]])
    gap, smooth = (abs(np.diff(s.at(edge)[:, 0])[0]) for s in (plain, blended))
    assert gap > 1e-3 and smooth < 1e-2 * gap
    middle = np.column_stack([np.full(9, 0.375), np.linspace(0.1, 0.9, 9)])
    assert np.abs(plain.at(middle) - blended.at(middle)).max() < 1e-3 * np.abs(plain.at(middle)).max() + 1e-3 * gap


def test_weights_of_blocks_are_a_smooth_partition_of_unity():
    problem = DarcyHoles()
    blocks = Blocks.balanced(problem, 6)
    x = torch.as_tensor(np.random.default_rng(0).random((200, 2)), dtype=torch.float64).requires_grad_()
    weights = partition_of_unity(blocks, x, 0.1)
    assert torch.allclose(weights.sum(dim=1), torch.ones(200, dtype=torch.float64))
    assert torch.equal(weights[weights.amax(dim=1) > 0.99].argmax(dim=1), blocks.label(x)[weights.amax(dim=1) > 0.99])
    corner = partition_of_unity(blocks, torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64), 0.1)
    assert (corner.amax(dim=1) > 0.99).all()
    # In Taylor mode as step by step.
    from pdelab.calculus import Sites, TaylorJet, Wanted

    sites = Sites(x.detach(), Wanted(frozenset({(2, 0)}), False, (0, 1), 2))
    f = TaylorJet(None, sites, partition_of_unity(blocks, sites.series, 0.1), [str(k) for k in range(6)], "xy")
    (slope,) = torch.autograd.grad(weights[:, 2].sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope[:, 0].sum(), x)
    assert torch.allclose(f.every((2, 0))[:, 2], second[:, 0], rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"experts": {"x": 2, "t": 2}, "coupling": "sequential"},
        {"experts": {"t": 3}, "coupling": "sequential"},
        {"experts": 3},
        {"experts": {"x": 2}, "refine": 2},
        {"constraints": "soft", "experts": {"x": 2}},
        {"dtype": "float32", "experts": {"x": 2}},
    ],
)
def test_every_kind_of_experts_trains_and_solves(settings):
    solver, operator = _trained(SMOOTH, **settings)
    solution = solve(SMOOTH.sample(2), solver, state=operator)
    assert np.isfinite(solution.at(np.random.default_rng(0).random((20, 2)))).all()
    assert all(np.isfinite(operator.history["loss"]))


def test_time_windows_one_after_another_have_the_gradient_of_differences():
    solver = HCMoE(**SMALL, experts={"t": 2}, coupling="sequential", max_iterations=60)
    operator = solver.blank(SMOOTH)
    members = [Instance.of(SMOOTH.sample(TRAINING_MEMBERS + i), True) for i in range(2)]
    operator.set_scales(members, 0)
    operator.join(Context().team)
    weight = operator.basis.network.network.layers[0].weight
    total = sum(operator.losses(members, [1]).values())
    (gradient,) = torch.autograd.grad(total, [weight])
    entry = int(gradient.abs().argmax())
    ends = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            weight.view(-1)[entry] += sign * 1e-5
            ends.append(float(sum(operator.losses(members, [1]).values())))
            weight.view(-1)[entry] -= sign * 1e-5
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(gradient.view(-1)[entry]), rel=1e-3)


def test_blocks_tile_and_label():
    problem = BurgersRandom()
    blocks = Blocks.equal(problem, {"x": 4, "t": 2}).split(3, 0, 0.3)
    assert np.prod(blocks.upper - blocks.lower, axis=1).sum() == pytest.approx(1.0)
    points = np.random.default_rng(1).random((300, 2))
    label = blocks.label(torch.as_tensor(points)).numpy()
    inside = (points >= blocks.lower[label]) & (points <= blocks.upper[label])
    assert inside.all()
    edges = torch.tensor([[0.25, 0.1], [1.0, 1.0], [0.0, 0.5], [0.5, 0.5]], dtype=torch.float64)
    label = blocks.label(edges).numpy()
    assert (blocks.lower[label] <= edges.numpy()).all()
    # A plane between two belongs to the upper one.
    assert blocks.lower[label[0], 0] == 0.25 and blocks.lower[label[3]].tolist() == [0.5, 0.5]


def test_interfaces_are_found_once_and_go_around_a_period():
    burgers = BlockPoints(BurgersRandom(), Blocks.equal(BurgersRandom(), {"x": 4})).interfaces(8, 0)
    pairs = sorted(zip(burgers.left.tolist(), burgers.right.tolist(), strict=True))
    assert pairs == [(0, 1), (1, 2), (2, 3), (3, 0)]
    heat = BlockPoints(Heat(), Blocks.equal(Heat(), {"x": 3, "t": 2})).interfaces(8, 0)
    assert len(heat.left) == 2 * 2 + 3
    for left, axis, points in zip(heat.left, heat.axis, heat.points, strict=True):
        assert np.ptp(points[:, axis]) == 0.0
        assert points.shape == (8, 2) and left < 6


def test_experts_follow_a_domain_with_holes():
    problem = DarcyHoles()
    blocks = Blocks.balanced(problem, 7)
    points = BlockPoints(problem, blocks)
    assert points.shares.min() > 0.5 / 7 and points.shares.sum() == pytest.approx(1.0)
    inner = points.interior(40, 3)
    assert inner.shape == (7, 40, 2) and problem.domain.inside(inner.reshape(-1, 2)).all()
    assert (blocks.label(torch.as_tensor(inner.reshape(-1, 2))).numpy() == np.repeat(np.arange(7), 40)).all()
    faces = points.interfaces(16, 3)
    assert problem.domain.inside(faces.points[faces.weight > 0]).all()


def test_visible_jump_of_a_step_and_of_a_smooth_field():
    problem = Poisson()

    class Found:
        blocks = Blocks.equal(problem, {"x": 2})
        omega = torch.zeros(1)

        def __init__(self, step):
            self.step = step

        def __call__(self, x):
            return (torch.sin(2.0 * x[:, :1]) + self.step * (x[:, :1] >= self.blocks.upper[0, 0])).double()

    assert visible_jump(problem, Found(0.0), 64) == pytest.approx(1.0, abs=0.05)
    assert visible_jump(problem, Found(1.0), 64) > 10.0
    assert visible_jump(problem, type("One", (), {"blocks": Blocks.equal(problem, {})})(), 64) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": {"x": 0}}, "experts: expected a whole number >= 1 along 'x', got 0"),
        ({"experts": {"x": 2}, "mode": "pi-hc"}, "mode 'pi-hc' has one block"),
        ({"n_basis": 0}, "n_basis"),
        ({"weights": {"jumps": 2.0}}, "did you mean jump"),
        (
            {"n_points": 16, "n_solve": 16, "experts": {"x": 4}, "coupling": "none"},
            "at as many|as points, got 8 functions",
        ),
        ({"horizon": 2.0}, "horizon=2 is not within"),
        ({"refine": 1, "coupling": "sequential", "experts": {"t": 2}}, "refine"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        solve(BurgersRandom(), HCMoE(**{**SMALL, **settings}), budget="1steps")


def test_axes_must_exist_and_experts_must_have_points():
    with pytest.raises(UnknownName, match="axis"):
        check_admitted(BurgersRandom(), HCMoE(experts={"y": 2}))
    with pytest.raises(InputError, match="expert 1 has no points"):
        BlockPoints(BurgersRandom(), Blocks.equal(BurgersRandom(), {"t": 2}), latest=0.5)
    with pytest.raises(InputError, match="expert 1 has no points"):
        holes = DarcyHoles()
        corner = Blocks(np.array([[0.0, 0.0], [0.25, 0.25]]), np.array([[1.0, 1.0], [0.35, 0.35]]))
        BlockPoints(holes, corner)
    with pytest.raises(IncompatibleProblem, match="sequential"):
        check_admitted(Poisson(), HCMoE(coupling="sequential"))


def test_test_members_are_none_of_the_training():
    family = DiffusionSorptionFamily()
    assert family.sample(0) != family.sample(TRAINING_MEMBERS)
    assert VorticityFamily().sample(3).member < TRAINING_MEMBERS


def test_a_state_file_gives_the_same_bits_and_refuses_others(tmp_path):
    solver, operator = _trained(SMOOTH, experts={"x": 2})
    path = tmp_path / "state.safetensors"
    save_state(path, solver, SMOOTH, operator, {"seed": 3})
    learned = load_state(path)
    assert learned.solver == solver and learned.family == SMOOTH
    points = np.random.default_rng(0).random((30, 2))
    ours, theirs = (solve(SMOOTH.sample(0), solver, state=s).at(points) for s in (operator, learned.network))
    assert np.array_equal(ours, theirs)
    finer = replace(solver, refine=2)
    assert len(solve(SMOOTH.sample(0), finer, state=operator).field.blocks) == 4
    with pytest.raises(SettingsError, match="n_basis: the state was trained with 8, got 7"):
        solve(SMOOTH.sample(0), replace(solver, n_basis=7), state=operator)
    with pytest.raises(InputError, match="trained on members such as 'burgers-random', got 'poisson'"):
        solve(Poisson(), solver, state=operator)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path / "missing")
    (tmp_path / "half").write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path / "half")


def test_a_state_is_not_used_beyond_the_times_of_its_training():
    family = VorticityFamily(final_time=0.5)
    solver = HCMoE(**SMALL)
    operator = prepare(family, solver, budget=Budget(steps=1), device="cpu")
    with pytest.raises(InputError, match="trained on x, y, t from"):
        solve(Vorticity(final_time=1.0), solver, state=operator)


def test_horizon_keeps_late_times_out_of_training():
    family = DiffusionSorptionFamily()
    solver = HCMoE(**SMALL, experts={"x": 2}, horizon=400.0)
    operator = prepare(family, solver, budget=Budget(steps=2), device="cpu")
    instance = Instance.of(family.sample(0), True)
    drawn = operator._training_drawing.draw([instance], operator.scales, 5)
    times = torch.cat([rows.function.points[..., -1].flatten() for rows in drawn.groups])
    assert float(times.max()) <= 400.0
    assert float(operator.solve(instance, 256, 0)[2].groups[0].function.points[..., -1].max()) > 400.0


def test_a_training_that_diverges_ends_with_its_status():
    solver = HCMoE(**SMALL, experts={"x": 2}, learning_rate=1e200)
    operator = prepare(SMOOTH, solver, budget="8steps", device="cpu")
    assert operator.report.status is Status.NONFINITE and "lower the learning rate" in operator.report.message
    assert all(p.isfinite().all() for p in operator.parameters())


def test_settings_error_is_an_input_error():
    with pytest.raises(SettingsError):
        HCMoE(frequency=0.0)

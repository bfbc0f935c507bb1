"""PINN: its loss is that of the equations, it learns, and it resumes to the same bits."""

import math

import numpy as np
import pytest
import torch
from toy_equations import Decay, Mixed, Ring, Wave

import pdelab
import pdelab.train
from pdelab import sampling
from pdelab.calculus import jet
from pdelab.checkpoint import CheckpointStore
from pdelab.config import build
from pdelab.errors import IncompatibleProblem, SettingsError
from pdelab.pde import Initial
from pdelab.solution import Status
from pdelab.solver import solve
from pdelab.solvers._residuals import Points, ResidualLoss
from pdelab.solvers._slabs import JoinedField, Slab
from pdelab.solvers.pinn import PINN
from pdelab.train import Trainer

SEED = 48109
TINY = {
    "width": 8,
    "depth": 2,
    "n_interior": 64,
    "n_boundary": 16,
    "n_initial": 16,
    "sampler": "sobol",
    "resample_every": 0,
    "constraints": "soft",
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


# --- the loss


def loss_of(problem, field, wanted=lambda c: True, every=0, causality=0.0, sampler="sobol"):
    like = torch.zeros(1, dtype=torch.float64)
    unknowns = {k: torch.tensor(v, dtype=torch.float64) for k, v in problem.unknowns.items()}
    points = Points(64, 32, 16, sampler, every)
    return ResidualLoss(problem, wanted, field, unknowns, points, causality, SEED, like)


def test_the_loss_of_the_solution_is_zero():
    for problem, field in (
        (Ring(), lambda x: torch.sin(x[:, :1] - x[:, 1:])),
        (Wave(), lambda x: torch.sin(x[:, :1]) * torch.cos(x[:, 1:]) + 1 + x[:, :1] * x[:, 1:]),
    ):
        loss = loss_of(problem, field)
        loss.refresh(0, False)
        assert all(float(term.detach()) < 1e-28 for term in loss.terms().values())


def test_terms_are_mean_squares_of_their_kind():
    loss = loss_of(Mixed(), lambda x: 0 * x + 3.0)
    loss.refresh(0, False)
    terms = loss.terms()
    assert list(terms) == ["residual_0", "residual_1", "dirichlet", "neumann"]
    assert float(terms["residual_1"]) == pytest.approx(9.0) and float(terms["neumann"]) == pytest.approx(0.25)
    ring = loss_of(Ring(), lambda x: x[:, :1] ** 2)
    ring.refresh(0, False)
    # The values differ by (2 pi)^2, the slopes by 4 pi, at equally many points.
    expected = ((2 * math.pi) ** 4 + (4 * math.pi) ** 2) / 2
    assert float(ring.terms()["periodic"]) == pytest.approx(expected)


def test_points_depend_on_seed_and_draw_only():
    loss = loss_of(Ring(), lambda x: x[:, :1], every=5)
    assert [loss.refresh(s, False) for s in range(11)] == [s % 5 == 0 for s in range(11)]
    again = loss_of(Ring(), lambda x: x[:, :1], every=5)
    again.refresh(10, False)
    assert float(loss.terms()["initial"]) == float(again.terms()["initial"])
    again.refresh(11 + 4, False)
    assert float(loss.terms()["initial"]) != float(again.terms()["initial"])


def test_adaptive_points_gather_where_the_residual_is_large():
    def peaked(x):
        return torch.exp(-50 * (x[:, :1] - 3.0) ** 2) * 10

    def share_near_peak(sampler):
        loss = loss_of(Ring(), peaked, every=1, sampler=sampler)
        loss.refresh(1, False)
        x = loss.state_dict()["interior"][:, 0]
        return float(((x - 3.0).abs() < 0.5).double().mean())

    assert share_near_peak("adaptive") > 2 * share_near_peak("sobol")


def test_causal_weights_equal_their_formula():
    loss = loss_of(Ring(), lambda x: x[:, :1] * (1 + x[:, 1:]), causality=0.3)
    loss.refresh(0, False)
    r = loss.residuals()["residual"]
    t = loss.state_dict()["interior"][:, 1]
    assert torch.equal(t, t.sort().values)
    losses = r.reshape(32, 2).square().mean(dim=1)
    assert loss.refresh(1, False)
    weights = torch.exp(-0.3 * (losses.cumsum(0) - losses))
    assert torch.allclose(loss.residuals()["residual"], r * weights.sqrt().repeat_interleave(2))
    # Quasi-Newton methods need a loss that holds still.
    assert not loss.refresh(2, True) and loss.refresh(100, True)


# --- time slabs


def test_a_slab_starts_from_the_field_before():
    problem = Wave()
    slab = Slab(problem, (1.0, 2.0), lambda x: x[:, :1] ** 2 * x[:, 1:] ** 3)
    f = jet(lambda x: 0 * x[:, :1], torch.tensor([[0.5, 1.0], [2.0, 1.0]], dtype=torch.float64), ("u",), slab.axes)
    value, rate = (c.residual(f) for c in slab.conditions() if isinstance(c, Initial))
    assert (-value).tolist() == pytest.approx([0.25, 4.0]) and (-rate).tolist() == pytest.approx([0.75, 12.0])
    assert slab.time == (1.0, 2.0) and slab.axes == ("x", "t") and slab.name == "toy-wave"


def test_joined_fields_speak_in_their_own_time():
    class Constant(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return torch.full_like(x[:, :1], self.value)

    joined = JoinedField([Constant(1.0), Constant(2.0), Constant(3.0)], [0.5, 1.0])
    t = torch.tensor([0.9, 0.0, 5.0, 0.5, 1.0, 0.4])
    assert joined(torch.stack([t, t], dim=1))[:, 0].tolist() == [2, 1, 3, 2, 3, 1]


# --- the solver


@pytest.mark.parametrize("network", ["mlp", "modified-mlp", "fourier", "siren"])
@pytest.mark.parametrize("constraints", ["soft", "hard"])
def test_loss_falls_tenfold_in_200_steps(network, constraints):
    tiny = TINY | {"frequency": 3.0} if network == "siren" else TINY | {"frequency": 0.3}
    solver = PINN(**(tiny | {"network": network, "constraints": constraints}))
    solution = solve(Ring(), solver, budget="200steps", seed=SEED, device="cpu", monitor=True)
    assert solution.status is Status.BUDGET_SPENT
    assert solution.history["loss"][-1] < 0.1 * solution.history["loss"][0]
    assert solution.history["error"][-1] < 0.5 < solution.history["error"][0]
    assert {len(c) for c in solution.history.values()} == {201}


def test_an_unknown_coefficient_is_found():
    solution = solve(Decay(), PINN(**TINY), budget="300steps", seed=SEED, device="cpu")
    assert solution.unknowns["k"] == pytest.approx(1.7, abs=1e-3)


def test_float32_stays_float32_and_answers_in_float64():
    solution = solve(Ring(), PINN(**TINY, dtype="float32", optimizer="adam"), budget="3steps", device="cpu")
    assert next(solution.field.parameters()).dtype == torch.float32
    assert solution.at(np.zeros((2, 2))).dtype == np.float64


@pytest.mark.parametrize("optimizer", ["auto", "ssbroyden"])
def test_mixed_precision_starts_in_float32_and_ends_in_float64(monkeypatch, optimizer):
    seen = []
    minimise = Trainer.minimise

    def noted(self, parameters, objective, phases, **settings):
        before = [p.detach().clone() for p in parameters]
        report = minimise(self, parameters, objective, phases, **settings)
        seen.append((before, [p.detach().clone() for p in parameters], [p.optimizer for p in phases], report.steps))
        return report

    monkeypatch.setattr(Trainer, "minimise", noted)
    solver = PINN(**(TINY | {"dtype": "mixed", "optimizer": optimizer}))
    solution = solve(Decay(), solver, budget="100steps", seed=SEED, device="cpu")
    (_, learnt, first, a), (taken, _, second, b) = seen
    assert {p.dtype for p in learnt} == {torch.float32} and {p.dtype for p in taken} == {torch.float64}
    assert all(torch.equal(x.double(), y) for x, y in zip(learnt, taken, strict=True))
    assert a == 10 and b == 90 and second == ["ssbroyden"]
    assert first == (["adam"] if optimizer == "auto" else ["ssbroyden"])
    assert solution.history["loss"][-1] < 1e-3 * solution.history["loss"][0]


def test_saved_weights_give_the_same_field():
    solver = PINN(**(TINY | {"network": "fourier", "constraints": "hard"}))
    first = solve(Ring(), solver, budget="3steps", seed=SEED, device="cpu")
    second = solve(Ring(), solver, budget="1steps", seed=SEED + 1, device="cpu")
    x = sampling.interior(Ring(), 20, 3)
    assert not np.array_equal(first.at(x), second.at(x))
    second.field.load_state_dict(first.field.state_dict())
    assert np.array_equal(first.at(x), second.at(x))


CASES = {
    "auto": {"sampler": "adaptive", "resample_every": 4},
    "lbfgs redrawn": {"optimizer": "lbfgs", "resample_every": 8},
    "mixed": {"dtype": "mixed"},
    "adam adaptive ntk": {"optimizer": "adam", "sampler": "adaptive", "resample_every": 5, "balancing": "ntk"},
    "slabs causal": {"n_slabs": 2, "causality": 0.5, "constraints": "hard", "network": "fourier"},
    "gradient-norm uniform": {"balancing": "gradient-norm", "sampler": "uniform", "resample_every": 7},
}


class _Killed(Exception):
    pass


@pytest.mark.parametrize(("case", "kill"), [("auto", 5), ("slabs causal", 9), *((case, 21) for case in CASES)])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, monkeypatch, case, kill):
    monkeypatch.setattr(pdelab.train, "REPORT_SECONDS", -1.0)
    solver = PINN(**(TINY | CASES[case]))

    def run(stop_at, checkpoints=True):
        def report(progress):
            if progress.step == stop_at:
                raise _Killed

        store = CheckpointStore(tmp_path, {}, every=0.0) if checkpoints else None
        return solve(
            pdelab.problem("burgers"),
            solver,
            budget="30steps",
            seed=SEED,
            device="cpu",
            checkpoints=store,
            report=report,
            monitor=True,
            throw=False,
        )

    whole = run(None, checkpoints=False)
    with pytest.raises(_Killed):
        run(kill)
    resumed = run(None)
    assert resumed.status is whole.status and resumed.message == whole.message
    for a, b in zip(whole.field.parameters(), resumed.field.parameters(), strict=True):
        assert torch.equal(a, b)
    for name, column in whole.history.items():
        if name != "cpu_s":
            assert np.array_equal(column, resumed.history[name], equal_nan=True)


def test_periodicity_can_be_a_loss_term():
    exact = solve(Ring(), PINN(**TINY), budget="1steps", device="cpu").history
    soft = solve(Ring(), PINN(**TINY, periodicity="soft"), budget="1steps", device="cpu").history
    assert "periodic" in soft and "periodic" not in exact


def test_weights_are_read_by_name():
    plain = solve(Ring(), PINN(**TINY), budget="1steps", seed=SEED, device="cpu").history
    heavy = solve(Ring(), PINN(**TINY, weights={"residual": 3.0}), budget="1steps", seed=SEED, device="cpu").history
    assert heavy["loss"][0] - plain["loss"][0] == pytest.approx(2.0 * plain["residual"][0])


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(IncompatibleProblem, match="time-dependent"):
        solve(pdelab.problem("poisson"), PINN(n_slabs=2))
    with pytest.raises(SettingsError, match="width"):
        PINN(width=0)
    with pytest.raises(SettingsError, match="at least 32"):
        PINN(n_interior=16, causality=1.0)
    with pytest.raises(SettingsError, match="network"):
        build(PINN, {"network": "mpl"})
    with pytest.raises(SettingsError, match="weight of initial"):
        solve(Ring(), PINN(weights={"initial": -1.0}), budget="1steps")


@pytest.mark.slow
def test_poisson_reaches_1e_4():
    solution = solve(pdelab.problem("poisson"), PINN(), budget="20s", seed=731, device="cpu", threads=1)
    assert solution.error()["rel_l2"] < 1e-4


@pytest.mark.slow
def test_burgers_reaches_1e_2():
    solution = solve(pdelab.problem("burgers"), PINN(), budget="60s", seed=731, device="cpu", threads=1)
    assert solution.error()["rel_l2"] < 1e-2

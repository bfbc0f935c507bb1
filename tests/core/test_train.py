"""The training loop: it learns, stops for a stated reason, guards against nan, balances and keeps a history."""

import math
import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy_training import SEED, Toy, bowl, context

from pdelab.balance import NTK, Fixed, GradientNorm
from pdelab.errors import SettingsError
from pdelab.history import History, measured, noted
from pdelab.objective import Losses
from pdelab.optimise import FlatParameters
from pdelab.schedule import Phase
from pdelab.solution import Status
from pdelab.solver import Budget, Context
from pdelab.train import minimise


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


# --- learning


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lbfgs", "ssbroyden"])
def test_loss_falls_tenfold_in_200_steps(optimizer):
    toy = Toy()
    rate = 1e-2 if optimizer.startswith("adam") else 1.0
    report, history = minimise(toy.net.parameters(), toy, [Phase(optimizer, 1.0, rate)], context=context(200))
    assert report.status is Status.BUDGET_SPENT and report.stop == "budget" and report.steps == 200
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    assert report.loss == history["loss"][-1]


def test_phases_follow_their_shares():
    toy = Toy()
    phases = [Phase("adam", 3.0, 1e-2), Phase("lbfgs", 1.0, 1.0)]
    report, _ = minimise(toy.net.parameters(), toy, phases, context=context(80))
    assert report.message == "adam 60 steps, lbfgs 20 steps"


def test_seconds_end_a_training():
    toy = Toy()
    budget = Context(seed=SEED, budget=Budget(seconds=0.5))
    report, history = minimise(toy.net.parameters(), toy, [Phase("adam", 1.0, 1e-2)], context=budget)
    assert report.stop == "budget" and history["cpu_s"][-1] - history["cpu_s"][0] + 0.2 >= 0.5
    assert history["cpu_s"][-1] < 3.0


def test_weights_scale_the_terms():
    w, losses = bowl()
    _, history = minimise([w], losses, [Phase("adam")], context=context(1), balancing=Fixed({"bowl": 7.0}))
    assert history["loss"][0] == pytest.approx(7.0 * 13.0) and history["bowl"][0] == pytest.approx(13.0)


def test_schedules_have_their_formulas():
    def rates(**settings):
        phase = Phase("adam", 1.0, 0.1, **settings)
        return [phase.rate(p) for p in (0.0, 0.5, 1.0)]

    assert rates(schedule="constant") == [0.1, 0.1, 0.1]
    assert rates(schedule="exponential", final=0.01) == pytest.approx([0.1, 0.01, 0.001])
    assert rates(schedule="cosine", final=0.2) == pytest.approx([0.1, 0.06, 0.02])
    assert rates(schedule="step") == pytest.approx([0.1, 0.025, 0.0125])
    assert Phase("adam", 1.0, 0.1, warm_up=0.4).rate(0.1) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"optimizer": "adan"}, "did you mean 'adam'"),
        ({"optimizer": "adam", "schedule": "cosin"}, "did you mean 'cosine'"),
        ({"optimizer": "adam", "learning_rate": -1.0}, "learning_rate: expected a number > 0"),
        ({"optimizer": "lbfgs", "history_size": 0}, "history_size"),
    ],
)
def test_wrong_settings_are_explained(change, text):
    with pytest.raises(SettingsError, match=text):
        Phase(**change)


def test_mixed_dtypes_and_no_phase_are_refused():
    w, losses = bowl()
    with pytest.raises(SettingsError, match="one dtype"):
        FlatParameters([w, torch.nn.Parameter(torch.ones(2, dtype=torch.float32))])
    with pytest.raises(SettingsError, match="at least one"):
        minimise([w], losses, [], context=context(1))


def test_parameters_have_their_own_memory_afterwards():
    toy = Toy()
    minimise(toy.net.parameters(), toy, [Phase("adam")], context=context(2))
    assert len({p.untyped_storage().data_ptr() for p in toy.net.parameters()}) == 4


# --- stop reasons, guards


def test_a_phase_that_stops_early_gives_way_to_the_next():
    w, losses = bowl()
    phases = [Phase("lbfgs", gradient_tolerance=1.0, learning_rate=1.0), Phase("adam", 1.0, 1e-3)]
    report, _ = minimise([w], losses, phases, context=context(40))
    assert report.message.startswith("lbfgs") and report.message.endswith("steps") and report.steps == 40


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_nan_is_named_and_the_last_good_parameters_are_kept(optimizer):
    toy = Toy()
    kept = {}

    def losses(step):
        terms = toy.terms()
        if step == 7:
            return terms | {"dirichlet": terms["dirichlet"] * math.nan}
        kept[step] = [p.detach().clone() for p in toy.net.parameters()]
        return terms

    toy.refresh(0, False)
    report, history = minimise(
        toy.net.parameters(), Losses(losses, redrawn_every=1), [Phase(optimizer, 1.0, 1e-2)], context=context(50)
    )
    assert report.status is Status.NONFINITE and report.stop == "nonfinite"
    assert "loss term dirichlet became nan" in report.message and "after step 7" in report.message
    assert all(torch.isfinite(p).all() for p in toy.net.parameters())
    if optimizer == "adam":
        assert all(torch.equal(a, b) for a, b in zip(kept[6], toy.net.parameters(), strict=True))
    assert history["step"][-1] == 6


def test_a_nan_between_two_reads_is_told_as_if_it_had_been_read(monkeypatch):
    monkeypatch.setattr("pdelab.train.HOST", "nowhere")

    def train(steps, fails):
        torch.manual_seed(SEED)
        toy = Toy()
        toy.refresh(0, False)

        def losses(step):
            terms = toy.terms()
            return terms | {"dirichlet": terms["dirichlet"] * (math.nan if step >= fails else 1.0)}

        objective = Losses(losses, redrawn_every=1)
        report, history = minimise(toy.net.parameters(), objective, [Phase("adam", 1.0, 1e-2)], context=context(steps))
        return toy, report, history

    broken, report, history = train(500, fails=120)
    whole, _, _ = train(119, fails=500)
    assert report.status is Status.NONFINITE and report.steps == 120
    assert "loss term dirichlet became nan" in report.message and "after step 120" in report.message
    assert all(torch.equal(a, b) for a, b in zip(broken.net.parameters(), whole.net.parameters(), strict=True))
    assert history["step"] == [s for s in range(120) if measured(s) or s % 50 == 0]


def test_adam_does_not_wait_for_the_device_between_reads(monkeypatch):
    """Twelve more steps, not one more number or comparison that leaves the device."""
    monkeypatch.setattr("pdelab.train.HOST", "nowhere")
    waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)

    class Counted(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            # Adam counts its steps in a float32 number that is on the host everywhere.
            self.count += func in waits and args[0].dtype is not torch.float32
            return func(*args, **(kwargs or {}))

    def reads(steps):
        toy = Toy()
        with Counted() as counted:
            minimise(toy.net.parameters(), toy, [Phase("adam", 1.0, 1e-3)], context=context(steps))
        return counted.count

    assert reads(135) == reads(147) > 0


def test_a_nan_gradient_of_a_finite_loss_is_named():
    w, losses = bowl((0.0, 1.0))
    report, _ = minimise([w], lambda s: losses(s) | {"root": (w[0] ** 2).sqrt()}, [Phase("adam")], context=context(5))
    assert report.status is Status.NONFINITE and "gradient of the loss term root" in report.message


def test_a_loss_that_never_falls_is_stagnation():
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    report, _ = minimise([w], lambda s: {"l": 1.0 + 0.0 * w.sum()}, [Phase("adam")], context=context(1200))
    assert report.status is Status.STAGNATED and "since step 0" in report.message


def test_a_loss_that_fell_before_it_flattened_is_no_stagnation():
    w, _ = bowl()
    report, _ = minimise([w], lambda s: {"l": 0.01 + (w**2).sum()}, [Phase("adam", 1.0, 0.1)], context=context(2500))
    assert report.status is Status.BUDGET_SPENT and "has not fallen" in report.message


# --- history, monitor


def test_history_columns_have_equal_length_and_the_clock_stands_still_in_the_monitor():
    toy = Toy()
    looked = []

    def monitor(field):
        looked.append(field)
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
        return 0.5

    here = context(120, monitor=monitor)
    _, history = minimise(toy.net.parameters(), toy, [Phase("adam")], context=here, field=toy.net)
    assert {"step", "cpu_s", "loss", "residual", "dirichlet", "error", "grad_residual"} <= set(history)
    assert {len(column) for column in history.values()} == {121}
    assert history["step"] == list(range(121))
    marks = [i for i, e in enumerate(history["error"]) if e == e]
    assert marks[0] == 0 and marks[-1] == 120 and len(marks) == len(looked) < 20 and looked[0] is toy.net
    assert all(math.isnan(history["grad_residual"][i]) == (i not in marks) for i in range(121))
    assert history["cpu_s"][-1] - history["cpu_s"][0] < 0.05 * len(looked)


def test_gradient_norms_in_the_history_equal_their_formula():
    w, losses = bowl()
    _, history = minimise([w], losses, [Phase("adam")], context=context(1))
    assert history["grad_bowl"][0] == pytest.approx(math.hypot(6.0, 4.0))


def test_a_new_column_is_filled_up():
    history = History()
    history.add({"a": 1})
    history.add({"a": 2, "b": 3})
    history.add({"b": 4})
    assert history.columns["a"][:2] == [1.0, 2.0] and math.isnan(history.columns["a"][2])
    assert math.isnan(history.columns["b"][0]) and history.columns["b"][1:] == [3.0, 4.0]


def test_rows_thin_out_and_marks_are_even_in_log_scale():
    assert sum(noted(s) for s in range(1000)) == 1000 and sum(noted(s) for s in range(10_000, 100_000)) == 900
    assert sum(measured(s) for s in range(1000, 10_000)) == 8


# --- balancing


def test_gradient_norm_weights_equal_their_formula():
    w = torch.nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))
    balancing = GradientNorm({"bc": 2.0}, every=1, smoothing=0.5)
    losses = Losses(lambda s: {"residual": (w**2).sum(), "bc": 0.01 * (w[0] * w[1])})
    assert balancing.update(losses, FlatParameters([w]), 0)
    # max |(6, -2)| / mean |0.01 (-1, 3)| = 6 / 0.02
    assert balancing.weights == {"bc": pytest.approx(0.5 * 2.0 + 0.5 * 300.0)}


def test_ntk_weights_equal_the_traces():
    """With one point per term the random signs do not matter: the trace is |grad r|^2."""

    class Two(Toy):
        def residuals(self):
            return {"residual": (self.w * torch.tensor([3.0, 4.0])).sum()[None], "bc": self.w[:1] * 2.0}

    two = Two()
    two.w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancing = NTK(every=1, smoothing=0.0)
    balancing.update(two, FlatParameters([two.w]), 0)
    assert balancing.weights == {"residual": pytest.approx(29 / 25), "bc": pytest.approx(29 / 4)}


def test_ntk_needs_residual_vectors():
    w, losses = bowl()
    with pytest.raises(SettingsError, match="residual vectors"):
        minimise([w], losses, [Phase("adam")], context=context(1), balancing=NTK())
    with pytest.raises(SettingsError, match="no term 'residual' among bowl"):
        minimise([w], losses, [Phase("adam")], context=context(1), balancing=GradientNorm())

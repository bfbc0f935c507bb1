"""The training loop: it learns, stops for a stated reason, guards against nan, and resumes to the same bits."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from pdelab.balance import NTK, Fixed, GradientNorm
from pdelab.checkpoint import CheckpointStore
from pdelab.errors import CheckpointError, SettingsError
from pdelab.history import History, measured, noted
from pdelab.objective import AbstractLeastSquares, Losses
from pdelab.optimise import LBFGS, Evaluation, FlatParameters
from pdelab.quasi_newton import SSBroyden
from pdelab.schedule import Phase
from pdelab.solution import Status
from pdelab.solver import Budget, Context
from pdelab.train import Trainer, minimise

SEED = 48109


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


class Toy(AbstractLeastSquares):
    """Fit sin(3x) on points that are drawn anew every `every` steps, with a second term at 0."""

    def __init__(self, every=0):
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1)).double()
        self.every, self.draw, self.stop_at, self.refreshed = every, -1, None, 0

    def residuals(self):
        return {
            "residual": self.net(self.x)[:, 0] - torch.sin(3 * self.x[:, 0]),
            "dirichlet": self.net(torch.zeros(1, 1, dtype=torch.float64))[:, 0],
        }

    def refresh(self, step, quasi_newton):
        if step == self.stop_at:
            raise _Killed
        draw = step // self.every if self.every else 0
        changed, self.draw = draw != self.draw, draw
        generator = torch.Generator().manual_seed(SEED + draw)
        self.x = torch.rand(40, 1, generator=generator, dtype=torch.float64) * 2 - 1
        return changed

    def state_dict(self):
        return {"draw": self.draw}

    def load_state_dict(self, state):
        self.draw = state["draw"]


class _Killed(Exception):
    pass


def context(steps, store=None, **more):
    return Context(seed=SEED, budget=Budget(steps=steps), checkpoints=store, **more)


def bowl(start=(3.0, -2.0), power=2):
    w = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    return w, lambda step: {"bowl": (w**power).sum()}


# --- learning


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lbfgs", "ssbroyden"])
def test_loss_falls_tenfold_in_200_steps(optimizer):
    toy = Toy()
    rate = 1e-2 if optimizer.startswith("adam") else 1.0
    report, history = minimise(toy.net.parameters(), toy, [Phase(optimizer, 1.0, rate)], context=context(200))
    assert report.status is Status.BUDGET_SPENT and report.stop == "budget" and report.steps == 200
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    assert report.loss == history["loss"][-1]


def test_adam_on_one_vector_equals_torch_on_the_parts():
    torch.manual_seed(5521)
    first, second = Toy(), Toy()
    second.net.load_state_dict(first.net.state_dict())
    minimise(first.net.parameters(), first, [Phase("adam", 1.0, 1e-2)], context=context(20))
    optimizer = torch.optim.Adam(second.net.parameters(), lr=1e-2)
    second.refresh(0, False)
    for _ in range(20):
        optimizer.zero_grad()
        sum(second.terms().values()).backward()
        optimizer.step()
    for a, b in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_lbfgs_equals_torch_without_interruption():
    """One step at a time with kept evaluations must not change the iterates of torch's own loop."""
    w, losses = bowl(power=4)
    minimise([w], lambda step: losses(step) | {"tilt": (w - 1).square().sum()}, [Phase("lbfgs")], context=context(8))
    v = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    optimizer = torch.optim.LBFGS(
        [v], max_iter=8, max_eval=10**6, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = ((v**4).sum() + (v - 1).square().sum()) * (1e6 / 107.0)
        loss.backward()
        return loss

    optimizer.param_groups[0]["lr"] = 1e-3  # Phase's default rate
    optimizer.step(closure)
    assert torch.allclose(w, v, rtol=1e-10)


def test_lbfgs_asks_for_each_point_once():
    w, losses = bowl(power=4)
    seen = []

    def counted(step):
        seen.append(tuple(w.tolist()))
        return losses(step)

    minimise([w], counted, [Phase("lbfgs", learning_rate=1.0)], context=context(10))
    inner = seen[:-1]  # the last row of the history measures gradient norms afresh
    fresh = [a for i, a in enumerate(inner) if i == 0 or a != inner[i - 1]]
    assert len(set(fresh)) == len(fresh)


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


def quadratic(w, optimizer, **settings):
    return minimise([w], lambda s: {"l": (w**2).sum()}, [Phase(optimizer, **settings)], context=context(300))[0]


@pytest.mark.parametrize("optimizer", ["lbfgs", "ssbroyden"])
def test_quasi_newton_stops_at_the_gradient_tolerance(optimizer):
    w, _ = bowl()
    report = quadratic(w, optimizer, gradient_tolerance=1e-6)
    assert (report.stop, report.status) == ("gradient", Status.CONVERGED) and 2 * float(w.detach().abs().max()) <= 1e-6
    assert "gradient is below its tolerance" in report.message and report.steps < 300


@pytest.mark.parametrize("optimizer", ["lbfgs", "ssbroyden"])
def test_quasi_newton_stops_when_the_loss_no_longer_changes(optimizer):
    w = torch.nn.Parameter(torch.tensor([1.5, 0.3], dtype=torch.float64))
    phase = Phase(optimizer, learning_rate=1.0, function_tolerance=1e-9)
    report, _ = minimise([w], lambda s: {"l": 1e3 + ((w - 1) ** 4).sum()}, [phase], context=context(300))
    assert (report.stop, report.status) == ("function", Status.CONVERGED) and report.steps < 300


@pytest.mark.parametrize("optimizer", ["lbfgs", "ssbroyden"])
def test_quasi_newton_stops_when_the_line_search_fails(optimizer):
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    # The value rises against its own gradient: no step along the descent can lower it.
    flipped = Losses(lambda s: {"l": 2 * (w**2).sum().detach() - (w**2).sum()})
    report, _ = minimise([w], flipped, [Phase(optimizer, learning_rate=1.0)], context=context(50))
    assert report.stop == "line search" and "steepest descent" in report.message
    assert float(w.detach()) == 1.0 and report.status is Status.STAGNATED


def test_lbfgs_stops_at_the_limit():
    toy = Toy()
    report, _ = minimise(toy.net.parameters(), toy, [Phase("lbfgs", learning_rate=1.0)], context=context(5))
    assert (report.stop, report.status, report.steps) == ("budget", Status.BUDGET_SPENT, 5)


def test_a_phase_that_stops_early_gives_way_to_the_next():
    w, losses = bowl()
    phases = [Phase("lbfgs", gradient_tolerance=1.0, learning_rate=1.0), Phase("adam", 1.0, 1e-3)]
    report, _ = minimise([w], losses, phases, context=context(40))
    assert report.message.startswith("lbfgs") and report.message.endswith("steps") and report.steps == 40


@pytest.mark.parametrize("optimizer", ["lbfgs", "ssbroyden"])
def test_trial_steps_into_nan_are_shortened(optimizer):
    w = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    report, _ = minimise(
        [w], lambda s: {"l": (w - 3 * torch.log(w)).sum()}, [Phase(optimizer, learning_rate=100.0)], context=context(60)
    )
    assert report.status.ok and float(w.detach()) == pytest.approx(3.0, abs=1e-4)


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


# --- resumption

PHASES = {
    "adam": [Phase("adam", 1.0, 1e-2, "exponential")],
    "adamw": [Phase("adamw", 1.0, 1e-2, "cosine", warm_up=0.2)],
    "lbfgs": [Phase("lbfgs", 1.0, 1.0, history_size=5)],
    "auto": [Phase("adam", 0.5, 1e-2), Phase("lbfgs", 0.5, 1.0)],
    "ssbroyden": [Phase("adam", 0.2, 1e-2), Phase("ssbroyden", 0.8)],
}


def train(store, phases, every, balancing, steps=40, stop_at=None, stages=1):
    """Weights and history after stages of training, or None if it was killed."""
    torch.manual_seed(SEED)
    trainer = Trainer(context(steps, store), Budget(steps=steps))
    weights = []
    try:
        for stage in range(stages):
            toy = Toy(every)
            toy.stop_at = stop_at - stage * steps // stages if stop_at is not None else None
            made = {"fixed": Fixed, "gradient-norm": GradientNorm, "ntk": NTK}[balancing]
            adaptive = {} if balancing == "fixed" else {"every": 7}
            trainer.minimise(
                toy.net.parameters(),
                toy,
                PHASES[phases],
                balancing=made({"dirichlet": 3.0}, **adaptive),
                share=1 / stages,
            )
            weights += [p.detach().clone() for p in toy.net.parameters()]
    except _Killed:
        return None
    columns = {name: column for name, column in trainer.history.columns.items() if name != "cpu_s"}
    return weights, columns


def assert_same(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))
    assert a[1].keys() == b[1].keys()
    assert all(torch.tensor(a[1][k]).nan_to_num(-1).equal(torch.tensor(b[1][k]).nan_to_num(-1)) for k in a[1])


@pytest.mark.parametrize("kill", [1, 17, 39])
@pytest.mark.parametrize(
    ("phases", "every", "balancing", "stages"),
    [
        ("adam", 0, "fixed", 1),
        ("adamw", 6, "ntk", 1),
        ("lbfgs", 0, "fixed", 1),
        ("lbfgs", 10, "fixed", 1),
        ("ssbroyden", 9, "fixed", 1),
        ("auto", 10, "gradient-norm", 1),
        ("auto", 6, "ntk", 2),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, kill, phases, every, balancing, stages):
    store = CheckpointStore(tmp_path, {}, every=0.0)
    whole = train(None, phases, every, balancing, stages=stages)
    assert train(store, phases, every, balancing, stop_at=kill, stages=stages) is None
    assert_same(whole, train(store, phases, every, balancing, stages=stages))
    # A run that had ended is only read back.
    assert_same(whole, train(store, phases, every, balancing, stop_at=0, stages=stages))


def test_a_run_that_is_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    whole = train(None, "adam", 0, "fixed")
    assert train(CheckpointStore(tmp_path, {}), "adam", 0, "fixed", stop_at=20) is None
    assert not list(tmp_path.iterdir())
    assert_same(whole, train(CheckpointStore(tmp_path, {}), "adam", 0, "fixed"))


def test_a_checkpoint_of_another_budget_is_refused(tmp_path):
    train(CheckpointStore(tmp_path, {}), "adam", 0, "fixed")
    with pytest.raises(CheckpointError, match="steps=40.*not.*steps=80"):
        train(CheckpointStore(tmp_path, {}), "adam", 0, "fixed", steps=80)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, facts: (tensors, {}),
        lambda tensors, facts: (tensors, {"state": None}),
        lambda tensors, facts: (tensors, {"state": {"dict": []}}),
        lambda tensors, facts: ({name: t.reshape(-1)[:1].clone() for name, t in tensors.items()}, facts),
    ],
)
def test_a_state_that_does_not_fit_is_refused(damage, tmp_path):
    store = CheckpointStore(tmp_path, {}, every=0.0)
    train(store, "auto", 0, "fixed", stop_at=30)
    step, tensors, facts = store.load()
    store.save(step + 1, *damage(tensors, facts))
    with pytest.raises(CheckpointError, match="does not fit this run.*remove the folder 'checkpoint'"):
        train(store, "auto", 0, "fixed")


def test_the_clock_goes_on(tmp_path):
    store = CheckpointStore(tmp_path, {}, every=0.0)
    train(store, "auto", 0, "fixed", stop_at=30)
    _, _, facts = store.load()
    here = context(40, store)
    Trainer(here, Budget(steps=40))
    state = dict((k, v) for k, v in facts["state"]["dict"])
    spent = dict((k, v) for k, v in state["spent"]["dict"])["seconds"]
    assert spent > 0 and here.clock.seconds >= spent


SCRIPT = """
import sys, time, torch
sys.path.insert(0, {folder!r})
import test_train as t
from pdelab.checkpoint import CheckpointStore
torch.set_num_threads(1)
class Slow(t.Toy):
    def refresh(self, step, quasi_newton):
        time.sleep(0.02)
        return super().refresh(step, quasi_newton)
t.Toy = Slow
t.train(CheckpointStore({store!r}, {{}}, every=0.0), "auto", 10, "gradient-norm", steps=200)
"""


def kill_after_checkpoints(store, number):
    folder = os.path.dirname(__file__)
    script = SCRIPT.format(folder=folder, store=str(store))
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    began = time.monotonic()
    while not list(store.glob("*.json")) or max(store.glob("*.json")).name < "step-0000060.json":
        assert process.poll() is None and time.monotonic() - began < 120, "the run ended or hung before the signal"
        time.sleep(0.01)
    process.send_signal(number)
    return process.wait(60)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, -signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_process_that_gets_a_signal_resumes_to_the_same_bits(tmp_path, number, status):
    store = tmp_path / "checkpoint"
    assert kill_after_checkpoints(store, number) == status
    reached = CheckpointStore(store, {}).load()[0]
    assert 60 <= reached < 200
    resumed = train(CheckpointStore(store, {}), "auto", 10, "gradient-norm", steps=200)
    assert_same(train(None, "auto", 10, "gradient-norm", steps=200), resumed)


def test_a_signal_saves_at_once_and_the_handler_is_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    toy, store = Toy(), CheckpointStore(tmp_path, {})

    sent = []

    def losses(step):
        if step == 5 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return toy.terms()

    toy.refresh(0, False)
    with pytest.raises(SystemExit) as end:
        minimise(toy.net.parameters(), Losses(losses, redrawn_every=1), [Phase("adam")], context=context(50, store))
    assert end.value.code == 143 and store.load()[0] == 6
    assert signal.getsignal(signal.SIGTERM) is before


# --- the flat vector


def test_gradients_of_unused_parameters_are_zero():
    w, unused = (torch.nn.Parameter(torch.full((2,), 2.0, dtype=torch.float64)) for _ in range(2))
    flat = FlatParameters([w, unused])
    assert torch.equal(flat.gradient((w**3).sum()), torch.tensor([12.0, 12.0, 0.0, 0.0], dtype=torch.float64))
    flat.set(torch.arange(4.0, dtype=torch.float64))
    assert torch.equal(unused.data, torch.tensor([2.0, 3.0], dtype=torch.float64))


def test_lbfgs_keeps_learning_at_tiny_losses():
    """torch drops curvature below an absolute threshold; scaled, a small loss is like a large one."""
    scales = torch.tensor([1.0, 30.0], dtype=torch.float64)
    steps = []
    for size in (1.0, 1e-14):
        vector = torch.nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
        optimizer = LBFGS(vector, 10, 0.0, 0.0)

        def evaluate(vector=vector, size=size):
            w = vector.detach().clone()
            return Evaluation(w, {}, size * float((scales * w**2).sum()), 2 * size * scales * w)

        for _ in range(6):
            optimizer.step(evaluate, 1.0)
        steps.append(vector.detach().clone())
    assert torch.allclose(*steps, rtol=1e-6, atol=1e-12)


def test_ssbroyden_meets_the_secant_equation_and_stays_positive_definite():
    torch.manual_seed(5521)
    B = torch.randn(7, 7, dtype=torch.float64)
    B = B @ B.T + torch.eye(7, dtype=torch.float64)
    vector = torch.nn.Parameter(torch.randn(7, dtype=torch.float64))
    optimizer = SSBroyden(vector, 0.0, 0.0)

    def evaluate():
        w = vector.detach().clone()
        return Evaluation(w, {}, float(w @ B @ w / 2 + (w**4).sum()), B @ w + 4 * w**3)

    for _ in range(12):
        before = evaluate()
        assert optimizer.step(evaluate, 1.0) == ""
        after = evaluate()
        H = optimizer.state_dict()["H"]
        s, y = after.at - before.at, after.gradient - before.gradient
        assert torch.allclose(H @ y, s, rtol=1e-8, atol=1e-12)
        assert torch.allclose(H, H.T, rtol=1e-8, atol=1e-12) and float(torch.linalg.eigvalsh(H)[0]) > 0
        assert after.loss < before.loss
    assert evaluate().loss < 1e-4


def test_ssbroyden_outlives_a_change_of_points():
    """Pairs of gradients never mix two loss functions, so redrawing must not stop the descent."""
    toy = Toy(every=5)
    report, history = minimise(toy.net.parameters(), toy, [Phase("ssbroyden")], context=context(150))
    assert report.status is Status.BUDGET_SPENT and history["loss"][-1] < 1e-3 * history["loss"][0]

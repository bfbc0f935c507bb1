"""A training that is interrupted anywhere resumes to the same bits."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import toy_training
from toy_training import SEED, Killed, Toy, context

from pdelab.balance import NTK, Fixed, GradientNorm
from pdelab.checkpoint import CheckpointStore
from pdelab.errors import CheckpointError
from pdelab.objective import Losses
from pdelab.schedule import Phase
from pdelab.solver import Budget
from pdelab.train import Trainer, minimise


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


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
    except Killed:
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
    with pytest.raises(CheckpointError, match="with budget 40steps, not 80steps;"):
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
sys.path[:0] = {folders!r}
import test_train_resume as t
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
    folders = [os.path.dirname(file) for file in (__file__, toy_training.__file__)]
    script = SCRIPT.format(folders=folders, store=str(store))
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

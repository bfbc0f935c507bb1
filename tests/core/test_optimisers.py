"""The optimisers by themselves and in the training loop: exact properties, and resumption to the same bits."""

import subprocess
import sys

import pytest
import torch

from pdelab.checkpoint import CheckpointStore
from pdelab.errors import SettingsError
from pdelab.history import measured
from pdelab.matrix_wise import MatrixWise
from pdelab.objective import AbstractObjective, Losses
from pdelab.optimise import OPTIMIZERS, Evaluation, FlatParameters
from pdelab.quasi_newton import SSBFGS, SSBroyden
from pdelab.schedule import Phase
from pdelab.solution import Status
from pdelab.solver import Budget, Context
from pdelab.train import Trainer, minimise

SEED = 60317
SELF_SCALED = [SSBFGS, SSBroyden]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


def context(steps, store=None):
    return Context(seed=SEED, budget=Budget(steps=steps), checkpoints=store)


def quadratic(size):
    """A strictly convex quadratic with eigenvalues 1 to 10 and its minimiser, as a function of a vector."""
    Q = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0]
    B = Q @ torch.diag(torch.logspace(0, 1, size, dtype=torch.float64)) @ Q.T
    B = (B + B.T) / 2
    middle = torch.randn(size, dtype=torch.float64)
    vector = torch.nn.Parameter(middle + torch.randn(size, dtype=torch.float64))

    def evaluate():
        w = vector.detach().clone()
        return Evaluation.known(w, float((w - middle) @ B @ (w - middle)) / 2, B @ (w - middle))

    return B, middle, vector, evaluate


class Stop(Exception):
    pass


class Fit(AbstractObjective):
    """A network with two hidden matrices and one unknown factor fits 2 sin(3x); new points every `every` steps."""

    def __init__(self, every=0):
        tanh, linear = torch.nn.Tanh, torch.nn.Linear
        self.net = torch.nn.Sequential(
            linear(1, 8), tanh(), linear(8, 8), tanh(), linear(8, 6), tanh(), linear(6, 1)
        ).double()
        self.factor = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.parameters = [*self.net.parameters(), self.factor]
        self.every, self.stop_at = every, None

    def terms(self):
        return {"fit": (self.factor * self.net(self.x) - 2.0 * torch.sin(3.0 * self.x)).square().mean()}

    def refresh(self, step, quasi_newton):
        if step == self.stop_at:
            raise Stop
        draw = step // self.every if self.every else 0
        self.x = torch.rand(40, 1, generator=torch.Generator().manual_seed(SEED + draw), dtype=torch.float64) * 2 - 1
        return bool(self.every) and step % self.every == 0

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


# --- self-scaled quasi-Newton


@pytest.mark.parametrize("kind", SELF_SCALED)
def test_a_quadratic_is_solved_in_at_most_two_steps_a_parameter(kind):
    """Steepest descent with exact line search would still be 1e-3 away."""
    size = 20
    _, middle, vector, evaluate = quadratic(size)
    optimizer = kind(vector, 0.0, 0.0)
    for _ in range(2 * size):
        if optimizer.step(evaluate, 1.0):
            break
    assert torch.allclose(vector, middle, rtol=0, atol=1e-10)


def test_exact_line_searches_make_ssbfgs_learn_the_inverse_hessian():
    """From H >= B^-1 all exact steps are at most 1, hence tau = 1: after P conjugate steps H is B^-1."""
    size = 9
    B, _, vector, evaluate = quadratic(size)
    optimizer = SSBFGS(vector, 0.0, 0.0)
    optimizer.load_state_dict({"H": torch.eye(size, dtype=torch.float64), "steps": 1})
    for _ in range(size):
        now = evaluate()
        direction = -(optimizer.state_dict()["H"] @ now.gradient)
        length = -float(now.gradient @ direction / (direction @ B @ direction))
        assert length <= 1.0 + 1e-9
        vector.data += length * direction
        optimizer._update(length * direction, evaluate().gradient - now.gradient, now.gradient, length)
    assert evaluate().gradient.abs().max() < 1e-9
    assert torch.allclose(optimizer.state_dict()["H"], torch.linalg.inv(B), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", SELF_SCALED)
def test_the_update_is_the_inverse_of_its_hessian_form(kind):
    """B+ = tau (B - Bs s'B/s'Bs + theta w w') + y y'/y's,  w = sqrt(s'Bs) (y/y's - Bs/s'Bs)."""
    size = 6
    root = torch.randn(size, size, dtype=torch.float64)
    H = root @ root.T + torch.eye(size, dtype=torch.float64)
    B = torch.linalg.inv(H)
    g = torch.randn(size, dtype=torch.float64)
    thetas = []
    for length, bend in ((0.3, 0.4), (1.0, 1.5), (4.0, 0.2), (1.0, 0.05), (0.7, 6.0)):
        s = -length * (H @ g)
        y = bend * (B @ s) + 0.3 * bend * float(s @ B @ s) * s / float(s @ s)
        optimizer = kind(torch.nn.Parameter(torch.zeros(size, dtype=torch.float64)), 0.0, 0.0)
        optimizer.load_state_dict({"H": H.clone(), "steps": 3})
        optimizer._update(s, y, g, length)
        ys, sBs, Bs = float(y @ s), float(s @ B @ s), B @ s
        b, h = sBs / ys, float(y @ H @ y) / ys
        theta, tau = 0.0, min(1.0, 1.0 / b)
        if kind is SSBroyden:
            a = b * h - 1.0
            low = min(1.0, h * (1.0 - (a / (1.0 + a)) ** 0.5))
            theta = max((low - 1.0) / a, min(1.0 / low, (1.0 - b) / b))
            shrink = (1.0 + theta * a) ** (-1.0 / (size - 1))
            tau *= shrink if theta <= 0.0 else min(shrink, 1.0 / theta)
            tau = min(tau, 1.0 + theta * a) if theta <= 0.0 else tau
        w = sBs**0.5 * (y / ys - Bs / sBs)
        expected = tau * (B - torch.outer(Bs, Bs) / sBs + theta * torch.outer(w, w)) + torch.outer(y, y) / ys
        assert torch.allclose(torch.linalg.inv(optimizer.state_dict()["H"]), expected, rtol=1e-8, atol=1e-10)
        thetas.append(theta)
    assert kind is SSBFGS or min(thetas) < 0.0 < max(thetas)


@pytest.mark.parametrize("kind", SELF_SCALED)
def test_the_secant_equation_holds_and_h_stays_positive_definite(kind):
    B, _, vector, bowl = quadratic(7)
    optimizer = kind(vector, 0.0, 0.0)

    def evaluate():
        w = vector.detach().clone()
        found = bowl()
        return Evaluation.known(w, found.loss + float((w**4).sum()), found.gradient + 4.0 * w**3)

    first = evaluate().loss
    for _ in range(15):
        before = evaluate()
        assert optimizer.step(evaluate, 1.0) == ""
        after, H = evaluate(), optimizer.state_dict()["H"]
        assert torch.allclose(H @ (after.gradient - before.gradient), after.at - before.at, rtol=1e-8, atol=1e-12)
        assert torch.allclose(H, H.T, rtol=1e-8, atol=1e-12) and float(torch.linalg.eigvalsh(H)[0]) > 0
        assert after.loss < before.loss
    assert evaluate().gradient.norm() < 1e-3 * first


@pytest.mark.parametrize("name", ["ssbfgs", "ssbroyden"])
def test_the_line_search_asks_for_each_point_once(name):
    fit, seen = Fit(), []
    fit.refresh(0, True)

    def counted(step):
        seen.append(tuple(torch.cat([p.detach().reshape(-1) for p in fit.parameters]).tolist()))
        return fit.terms()

    minimise(fit.parameters, Losses(counted), [Phase(name)], context=context(30))
    afresh = sum(measured(step) for step in range(30)) + 1  # rows of the history with gradient norms
    assert len(seen) - len(set(seen)) <= afresh
    assert len(set(seen)) < 4 * 30


# --- SOAP and Muon


class Valley(AbstractObjective):
    """A chain of Rosenbrock's valleys through four matrices: r = 10 (P_{i+1} - P_i^2), 1 - P_i."""

    def __init__(self):
        self.parameters = [torch.nn.Parameter(0.2 * torch.randn(4, 4, dtype=torch.float64)) for _ in range(4)]

    def terms(self):
        P = torch.stack(self.parameters)
        return {"bend": (10.0 * (P[1:] - P[:-1] ** 2)).square().mean(), "end": (1.0 - P).square().mean()}

    def refresh(self, step, quasi_newton):
        return False

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("name", ["soap", "muon"])
def test_a_bent_valley_is_descended(name):
    valley = Valley()
    phases = [Phase(name, 1.0, 0.1, "cosine")]
    report, history = minimise(valley.parameters, valley, phases, context=context(300))
    assert report.status is Status.BUDGET_SPENT and report.stop == "budget"
    assert history["loss"][-1] < 0.1 * history["loss"][0]


def test_soap_without_matrices_is_adam_one_step_late():
    """Its first step only looks at the gradient."""
    scale = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)

    def start():
        return [torch.nn.Parameter(torch.full(shape, 2.0, dtype=torch.float64)) for shape in ((3,), ())]

    def terms(w, c):
        return {"vector": (scale * w**4).sum(), "number": c**4}

    ours = start()
    minimise(ours, lambda step: terms(*ours), [Phase("soap", 1.0, 1e-2)], context=context(21))
    theirs = start()
    adam = torch.optim.Adam(theirs, lr=1e-2, betas=(0.99, 0.99))
    for _ in range(20):
        adam.zero_grad()
        sum(terms(*theirs).values()).backward()
        adam.step()
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(ours, theirs, strict=True))
    assert float(ours[1].detach()) < 1.9


def test_muon_moves_hidden_matrices_along_the_orthogonal_factor_and_the_rest_by_signs():
    rate = 1e-3
    flat = FlatParameters(Fit().parameters)
    before = [p.detach().clone() for p in flat.parts]
    optimizer = MatrixWise(flat.parts, "muon")
    gradient = torch.randn(len(flat.vector), dtype=torch.float64)
    kept = Evaluation.known(flat.vector.detach().clone(), 0.0, gradient.clone())
    optimizer.step(lambda: kept, rate)
    assert torch.equal(kept.gradient, gradient)
    assert all(p.grad is None for p in flat.parts)
    assert torch.equal(flat.vector, torch.cat([p.detach().reshape(-1) for p in flat.parts]))
    found = []
    for part, old, g in zip(flat.parts, before, gradient.split([p.numel() for p in before]), strict=True):
        moved = (old - part.detach()) / rate
        if part.ndim == 2 and min(part.shape) > 1:
            # 0.2 sqrt(longest side) gives the entries of the step the size that Adam's have.
            left, sizes, right = torch.linalg.svd(g.view(part.shape), full_matrices=False)
            turned = left.T @ moved @ right.T / (0.2 * max(part.shape) ** 0.5)
            # bfloat16 drowns the weak directions in noise.
            strong = int((sizes > 0.1 * sizes[0]).sum())
            factor = turned[:strong, :strong]
            assert torch.all((factor.diagonal() > 0.5) & (factor.diagonal() < 1.3))
            assert (factor - torch.diag(factor.diagonal())).abs().max() < 0.1
            found.append(strong)
        else:
            assert torch.allclose(moved, g.view(part.shape).sign(), rtol=1e-3)
    assert len(found) == 2 and min(found) > 3


@pytest.mark.parametrize("name", ["soap", "muon"])
def test_states_keep_double_precision(name):
    fit = Fit()
    fit.refresh(0, False)
    flat = FlatParameters(fit.parameters)
    optimizer = MatrixWise(flat.parts, name)
    for _ in range(3):
        loss = sum(fit.terms().values())
        here = Evaluation.known(flat.vector.detach().clone(), float(loss.detach()), flat.gradient(loss))
        optimizer.step(lambda here=here: here, 1e-3)
    found = []

    def walk(value):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict | list | tuple):
            for inner in value.values() if isinstance(value, dict) else value:
                walk(inner)

    walk(optimizer.state_dict())
    assert len(found) >= len(flat.parts) and all(t.dtype == torch.float64 for t in found)


def test_the_package_is_imported_only_when_it_is_used():
    code = "import sys, pdelab.train; sys.exit('pytorch_optimizer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- in the training loop


@pytest.mark.parametrize(
    ("wrong", "near"), [("ssbroiden", "ssbroyden"), ("sopa", "soap"), ("moun", "muon"), ("bfgs", "lbfgs")]
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong, near):
    assert near in OPTIMIZERS
    with pytest.raises(SettingsError, match=f"(?s)optimizer.*{wrong}.*{near}"):
        Phase(wrong)


PHASES = {
    "soap": [Phase("soap", 1.0, 3e-3, "exponential")],
    "muon": [Phase("muon", 1.0, 3e-3, "cosine")],
    "ssbfgs": [Phase("ssbfgs")],
    "soap, ssbfgs": [Phase("soap", 0.5, 3e-3), Phase("ssbfgs", 0.5)],
}


def train(store, phases, every, stop_at=None, steps=40):
    """Weights and history, or None if it was stopped."""
    torch.manual_seed(SEED)
    fit = Fit(every)
    fit.stop_at = stop_at
    trainer = Trainer(context(steps, store), Budget(steps=steps))
    try:
        trainer.minimise(fit.parameters, fit, PHASES[phases])
    except Stop:
        return None
    return [p.detach().clone() for p in fit.parameters], trainer.history.columns["loss"]


@pytest.mark.parametrize("stop", [1, 2, 20, 39])
@pytest.mark.parametrize(("phases", "every"), [("soap", 7), ("muon", 7), ("ssbfgs", 9), ("soap, ssbfgs", 0)])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, stop, phases, every):
    store = CheckpointStore(tmp_path, {}, every=0.0)
    whole = train(None, phases, every)
    assert train(store, phases, every, stop_at=stop) is None
    resumed = train(store, phases, every)
    assert all(torch.equal(a, b) for a, b in zip(whole[0], resumed[0], strict=True))
    assert whole[1] == resumed[1] and len(whole[1]) == 41 and whole[1][-1] < whole[1][0]

"""Variable projection: linear parameters solved for, Kaufman's step, the reduced loss, resumption to the bit."""

import numpy as np
import pytest
import torch

import pdelab
from pdelab import gauss_newton
from pdelab.checkpoint import CheckpointStore
from pdelab.errors import SettingsError
from pdelab.objective import AbstractLeastSquares
from pdelab.optimise import AbstractLoss, Evaluation, FlatParameters
from pdelab.schedule import Phase
from pdelab.solver import Budget, Context
from pdelab.solvers._nets import MLP, FourierMLP, ModifiedMLP, Siren
from pdelab.solvers.pinn import PINN
from pdelab.train import minimise
from pdelab.variable_projection import VariableProjection, _Columns, _Reduced

SEED = 7193


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


class Residuals(AbstractLoss):
    """|r(w)|^2 for a function r of a vector whose first entries are linear."""

    def __init__(self, r, start, n_linear):
        self.r, self.vector = r, torch.nn.Parameter(start)
        self.linear = torch.arange(len(start)) < n_linear

    def __call__(self):
        r, J = self.rows()
        return Evaluation.known(self.vector.detach().clone(), float(r.square().sum()), 2.0 * J.T @ r)

    def value(self):
        return float(self.r(self.vector.detach()).square().sum())

    def rows(self):
        return self.r(self.vector.detach()), torch.func.jacrev(self.r)(self.vector.detach())

    def residual(self):
        return self.rows()[0]

    def row_blocks(self, most):
        yield self.rows()

    def optimiser(self):
        return VariableProjection(self.vector, self.linear, 0.0, 0.0)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


T = torch.linspace(0.0, 2.0, 50, dtype=torch.float64)
COEFFICIENTS, RATES = torch.tensor([2.0, -1.5]).double(), torch.tensor([0.7, 3.1]).double()


def exponentials(start_rates, noise=0.0):
    """sum of c_k exp(-h_k t) through its own values."""

    def u(w):
        return torch.exp(-T[:, None] * w[2:]) @ w[:2]

    data = u(torch.cat([COEFFICIENTS, RATES])) + noise * normal(len(T))
    return Residuals(lambda w: u(w) - data, torch.cat([normal(2), torch.tensor(start_rates).double()]), 2)


def test_where_all_is_linear_one_step_is_the_least_squares_solution():
    A, b = normal(40, 7), normal(40)
    loss = Residuals(lambda w: A @ w - b, normal(7), 7)
    optimiser = loss.optimiser()
    assert optimiser.step(loss, 1.0) == ""
    assert torch.allclose(loss.vector, torch.linalg.lstsq(A, b[:, None]).solution[:, 0], rtol=1e-10)
    assert optimiser.step(loss, 1.0) == "function" and optimiser.state_dict() == {}


@pytest.mark.parametrize("n, k", [(30, 6), (5, 9)])
def test_what_is_linear_is_solved_in_one_step(n, k):
    """With a column twice and columns of very different lengths."""
    A, b = normal(n, k) * torch.logspace(0, -9, k, dtype=torch.float64), normal(n)
    A[:, 3] = A[:, 1]
    loss = Residuals(lambda w: torch.cat([A @ w[:-1] - b, w[-1:] - 3.0]), normal(k + 1), k)
    loss.optimiser().step(loss, 1.0)
    scale = A.norm(dim=0).numpy()
    exact = np.linalg.lstsq(A.numpy() / scale, b.numpy(), rcond=1e-13)[0] / scale
    residual = loss.r(loss.vector.detach())[:-1].numpy()
    assert np.abs(residual - (A.numpy() @ exact - b.numpy())).max() < 1e-12


def test_a_sum_of_exponentials_is_found():
    loss = exponentials([0.1, 5.0])
    optimiser = loss.optimiser()
    for _ in range(15):
        optimiser.step(loss, 1.0)
    assert float((loss.vector.detach() - torch.cat([COEFFICIENTS, RATES])).abs().max()) < 1e-10


def test_the_step_is_that_of_kaufman(monkeypatch):
    monkeypatch.setattr(gauss_newton, "MOST_BEND", 0.0)
    loss = exponentials([0.8, 2.9], noise=1e-3)
    h = loss.vector.detach()[2:].clone()
    features = torch.exp(-T[:, None] * h)
    r, _ = loss.rows()
    data = features @ loss.vector.detach()[:2] - r
    c = torch.linalg.lstsq(features, data[:, None]).solution[:, 0]
    J_h = -T[:, None] * features * c
    projection = torch.eye(len(T), dtype=torch.float64) - features @ torch.linalg.pinv(features)
    p_h = -torch.linalg.lstsq(projection @ J_h, projection @ (features @ c - data)).solution
    p_c = -torch.linalg.pinv(features) @ J_h @ p_h
    optimiser = loss.optimiser()
    optimiser._inner._radius = 1e9
    assert optimiser.step(loss, 1.0) == ""
    assert float((loss.vector.detach() - torch.cat([c + p_c, h + p_h])).abs().max()) < 1e-10


def test_the_gradient_is_that_of_the_reduced_loss():
    loss = exponentials([0.3, 4.0], noise=0.1)
    h, w = loss.vector.detach()[2:].clone(), loss.vector.detach()
    data = torch.exp(-T[:, None] * h) @ w[:2] - loss.r(w)

    def reduced(h):
        features = torch.exp(-T[:, None] * h)
        c = torch.linalg.lstsq(features, data[:, None]).solution[:, 0]
        return float((features @ c - data).square().sum()), c

    with torch.no_grad():
        loss.vector[:2] = reduced(h)[1]
    r, J = loss.rows()
    entries = torch.arange(4)
    hidden = torch.nn.Parameter(h)
    found = _Reduced(loss, loss.vector, hidden, entries[:2], entries[2:], r, J[:, 2:], _Columns(J[:, :2]))().gradient
    for i, step in enumerate(1e-5 * torch.eye(2, dtype=torch.float64)):
        difference = (reduced(h + step)[0] - reduced(h - step)[0]) / 2e-5
        assert abs(difference - float(found[i])) < 1e-6 * float(found.norm())


@pytest.mark.parametrize("power", [1, 3])
def test_no_step_makes_the_loss_worse(power):
    """Whether the residuals are linear in the field or not."""
    x = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64)

    def r(w):
        u = torch.tanh(x[:, None] * w[5:10] + w[10:]) @ w[:5]
        return u**power + u - torch.sin(7.0 * x)

    loss = Residuals(r, normal(15), 5)
    optimiser, values = loss.optimiser(), [loss.value()]
    for _ in range(25):
        optimiser.step(loss, 1.0)
        values.append(loss.value())
    assert all(after <= before for before, after in zip(values[:-1], values[1:], strict=True))
    assert values[-1] < 0.03 * values[0]


def test_rows_that_are_not_finite_stop_the_run_with_a_reason():
    loss = Residuals(lambda w: torch.sqrt(w) + 1.0, torch.zeros(3, dtype=torch.float64), 1)
    assert loss.optimiser().step(loss, 1.0) == "line search"
    assert float(loss.vector.detach().abs().max()) == 0.0


def test_a_failed_factorisation_leaves_steps_in_the_features(monkeypatch):
    def fail(*args, **kwargs):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    loss = exponentials([0.8, 2.9])
    c, before = loss.vector.detach()[:2].clone(), loss.value()
    loss.optimiser().step(loss, 1.0)
    assert torch.equal(loss.vector.detach()[:2], c) and loss.value() < before


class Curve(AbstractLeastSquares):
    """A network through sin(3x)."""

    def __init__(self):
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
        self.x = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64)[:, None]

    def residuals(self):
        return {"fit": (self.net(self.x) - torch.sin(3.0 * self.x))[:, 0]}

    def refresh(self, step, quasi_newton):
        return False

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


PHASE = [Phase("variable-projection")]


def test_the_linear_parameters_must_be_named():
    curve, context = Curve(), Context(seed=SEED, budget=Budget(steps=15))
    parameters = list(curve.net.parameters())
    with pytest.raises(SettingsError, match=r"some of the parameters to be linear, got none of 25.*gauss-newton"):
        minimise(parameters, curve, PHASE, context=context)
    with pytest.raises(SettingsError, match="expected some of the parameters that are trained"):
        FlatParameters(parameters[:2], parameters[2:])
    report, history = minimise(parameters, curve, PHASE, context=context, linear=curve.net[2].parameters())
    assert report.loss < 1e-6 * history["loss"][0]


@pytest.mark.parametrize("kind", [MLP, ModifiedMLP, FourierMLP, Siren])
def test_networks_are_linear_in_their_head(kind):
    last = {MLP: [torch.tanh], ModifiedMLP: [torch.tanh], FourierMLP: [torch.tanh, 1.0], Siren: [2.0]}[kind]
    net = kind(2, 3, 8, 2, *last).double()
    x = normal(20, 2)
    before = net(x).detach()
    with torch.no_grad():
        for p in net.head.parameters():
            p *= -2.5
    assert float(before.abs().max()) > 0.01 and torch.allclose(net(x), -2.5 * before, rtol=1e-12)


def test_a_linear_equation_is_solved_by_a_wide_network_in_a_few_steps():
    solver = PINN(network="siren", depth=1, width=60, n_interior=800, resample_every=0, optimizer="variable-projection")
    solution = pdelab.solve(pdelab.problem("poisson"), solver, budget="3steps", seed=SEED, throw=False)
    assert solution.error()["rel_l2"] < 3e-8


TINY = {"width": 6, "depth": 2, "n_interior": 160, "n_boundary": 32, "n_initial": 32}


@pytest.mark.parametrize("name", ["burgers", "heat-inverse"])
def test_a_resumed_run_has_the_same_bits(tmp_path, name):
    """A nonlinear equation; an unknown coefficient."""

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step >= 9:
            raise Killed

    problem = pdelab.problem(name)
    solver = PINN(**TINY, optimizer="variable-projection", resample_every=6)

    def run(store=None, report=lambda progress: None):
        return pdelab.solve(
            problem, solver, budget="14steps", seed=SEED, throw=False, checkpoints=store, report=report, threads=1
        )

    whole = run()
    assert len(whole.history["loss"]) > 9
    store = CheckpointStore(tmp_path / "checkpoint", {"run": 1}, every=0.0)
    with pytest.raises(Killed):
        run(store, kill)
    again = run(CheckpointStore(tmp_path / "checkpoint", {"run": 1}, every=0.0))
    for a, b in zip(whole.field.state_dict().values(), again.field.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert whole.history["loss"] == again.history["loss"]

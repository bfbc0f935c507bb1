"""The optimisers step as their formulas say and stop for a stated reason."""

import pytest
import torch
from toy_training import SEED, Toy, bowl, context

from pdelab.objective import Losses
from pdelab.optimise import LBFGS, Evaluation, FlatParameters
from pdelab.quasi_newton import SSBroyden
from pdelab.schedule import Phase
from pdelab.solution import Status
from pdelab.train import minimise


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


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


@pytest.mark.parametrize("optimizer", ["lbfgs", "ssbroyden"])
def test_trial_steps_into_nan_are_shortened(optimizer):
    w = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    report, _ = minimise(
        [w], lambda s: {"l": (w - 3 * torch.log(w)).sum()}, [Phase(optimizer, learning_rate=100.0)], context=context(60)
    )
    assert report.status.ok and float(w.detach()) == pytest.approx(3.0, abs=1e-4)


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
            return Evaluation.known(w, size * float((scales * w**2).sum()), 2 * size * scales * w)

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
        return Evaluation.known(w, float(w @ B @ w / 2 + (w**4).sum()), B @ w + 4 * w**3)

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

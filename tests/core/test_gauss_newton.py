"""Gauss-Newton: exact on linear residuals, its step length and prediction, curved valleys, resumption to the bit."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

import pdelab
from pdelab.checkpoint import CheckpointStore
from pdelab.gauss_newton import GaussNewton
from pdelab.linearised import linearise
from pdelab.objective import AbstractLeastSquares
from pdelab.optimise import AbstractLoss, Evaluation
from pdelab.schedule import Phase
from pdelab.solution import Status
from pdelab.solver import Budget, Context
from pdelab.solvers.pinn import PINN
from pdelab.train import minimise

SEED = 6079
NONE = torch.zeros(0, 0)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


class Residuals(AbstractLoss):
    """|r(w)|^2 for a function r of a vector."""

    def __init__(self, r, start):
        self.r, self.vector, self.values = r, torch.nn.Parameter(start), 0

    def __call__(self):
        r = self.r(self.vector)
        (g,) = torch.autograd.grad(r.square().sum(), self.vector)
        return Evaluation.known(self.vector.detach().clone(), float(r.detach().square().sum()), g)

    def value(self):
        self.values += 1
        return float(self.r(self.vector.detach()).square().sum())

    def rows(self):
        return self.r(self.vector.detach()), torch.func.jacrev(self.r)(self.vector.detach())

    def residual(self):
        return self.rows()[0]

    def row_blocks(self, most):
        yield from zip(*(part.split(most) for part in self.rows()), strict=True)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def optimiser(loss, **settings):
    return GaussNewton(loss.vector, **{"gradient_tolerance": 0.0, "function_tolerance": 0.0} | settings)


@pytest.mark.parametrize("n, P", [(30, 6), (6, 6), (4, 9)])
def test_linear_residuals_are_solved_in_one_step(n, P):
    A, b = normal(n, P), normal(n)
    loss = Residuals(lambda w: A @ w - b, 0.1 * normal(P))
    gauss_newton = optimiser(loss)
    gauss_newton._radius = 1e9
    assert gauss_newton.step(loss, 1.0) == ""
    exact = torch.linalg.lstsq(A, b[:, None]).solution[:, 0]
    assert abs(loss.value() - float((A @ exact - b).square().sum())) < 1e-12
    assert float((A.T @ (A @ loss.vector - b)).detach().abs().max()) < 1e-11


SHAPES = [(25, 7), (7, 7), (6, 15)]


@pytest.mark.parametrize("n, P", SHAPES)
@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("radius", [1e-6, 0.03, 0.7])
def test_steps_are_those_of_the_formula_have_the_length_asked_for_and_fall_as_predicted(radius, fine, n, P):
    A, b = normal(n, P), normal(n)
    region = linearise([(b, A)], fine, [SEED], NONE)
    radius *= region.longest
    p, predicted = region.step(radius)
    assert abs(float(p.norm()) / radius - 1.0) < 1e-9
    fall = float(b.square().sum() - (b + A @ p).square().sum())
    assert abs(fall / predicted - 1.0) < 1e-7
    lam = region.damping(radius) * torch.eye(P, dtype=torch.float64)
    assert float((p + torch.linalg.solve(A.T @ A + lam, A.T @ b)).norm()) < 1e-8 * float(p.norm())


@pytest.mark.parametrize("n, P", SHAPES)
@pytest.mark.parametrize("blocks", [1, 3])
def test_both_factorisations_give_the_same_steps_whatever_the_blocks(n, P, blocks):
    A, b = normal(n, P), normal(n)
    rows = list(zip(b.chunk(blocks), A.chunk(blocks), strict=True))
    coarse, fine = (linearise(rows, f, [SEED], NONE) for f in (False, True))
    assert not coarse.sketched and abs(coarse.largest / fine.largest - 1.0) < 1e-10
    for region in (coarse, fine):
        assert torch.allclose(region.gradient, A.T @ b, rtol=1e-12) and abs(region.loss - float(b @ b)) < 1e-12
    for radius in (0.1 * fine.longest, 2.0 * fine.longest):
        p, q = coarse.step(radius)[0], fine.step(radius)[0]
        assert float((p - q).norm()) < 1e-8 * float(q.norm())


@pytest.mark.parametrize("n, P", [(40, 9), (9, 40)])
def test_the_fine_factorisation_keeps_what_the_squared_condition_number_hides(n, P):
    """Condition number 1e7: the steps of J'J are off, those of J are not."""
    U, V = (torch.linalg.qr(normal(m, 9))[0] for m in (n, P))
    S = torch.logspace(0, -7, 9, dtype=torch.float64)
    A, x = U @ torch.diag(S) @ V.T, normal(9)
    p = linearise([(U @ (S * x), A)], True, [SEED], NONE).step(1e9)[0]
    assert float((p + V @ x).norm()) < 1e-8 * float(x.norm())


@pytest.mark.parametrize("n, P", SHAPES)
@pytest.mark.parametrize("fine", [False, True])
def test_a_failed_factorisation_leaves_steepest_descent(monkeypatch, fine, n, P):
    def fail(*args, **kwargs):
        raise (torch if fine else np).linalg.LinAlgError("did not converge")

    monkeypatch.setattr(*((torch.linalg, "svd") if fine else (scipy.linalg, "eigh")), fail)
    A, b = normal(n, P), normal(n)
    region = linearise([(b, A)], fine, [SEED], NONE)
    p, predicted = region.step(1e9)
    g = A.T @ b
    exact = -g * float(g @ g) / float((A @ g).square().sum())
    assert torch.allclose(p, exact, rtol=1e-9)
    assert abs(float(b.square().sum() - (b + A @ p).square().sum()) / predicted - 1.0) < 1e-9


def test_rows_that_are_not_finite_stop_the_run_with_a_reason():
    loss = Residuals(lambda w: torch.sqrt(w) + 1.0, torch.zeros(3, dtype=torch.float64))
    assert optimiser(loss).step(loss, 1.0) == "line search"
    assert float(loss.vector.detach().abs().max()) == 0.0


def test_a_collapsed_radius_is_no_convergence():
    """From a radius at round-off no step can be told from none; the search starts again before it gives up."""
    A, b = normal(30, 6), normal(30)
    loss = Residuals(lambda w: A @ w - b, 1e3 * normal(6))
    gauss_newton = optimiser(loss)
    gauss_newton._radius = 1e-14
    before = loss.value()
    assert gauss_newton.step(loss, 1.0) == "" and loss.value() < 0.999 * before
    assert gauss_newton.state_dict()["radius"] >= 1.0
    gauss_newton._radius = 1e-14
    gauss_newton.restart()
    assert gauss_newton.state_dict()["radius"] == 1.0
    gauss_newton._radius = 1e-2
    gauss_newton.restart()
    assert gauss_newton.state_dict()["radius"] == 1e-2


@pytest.mark.parametrize("fine", [False, True])
def test_no_shorter_step_of_the_same_kind_promises_as_much(fine):
    A, b = normal(25, 7), normal(25)
    region = linearise([(b, A)], fine, [SEED], NONE)
    falls = [region.step(r)[1] for r in (0.01, 0.1, 0.3, region.longest, 2.0 * region.longest)]
    assert falls == sorted(falls) and falls[-1] == falls[-2]


def test_directions_without_a_singular_value_are_left_alone():
    A = normal(20, 5)
    A[:, 3] = A[:, 1]
    start = normal(5)
    b = normal(20)
    loss = Residuals(lambda w: A @ w - b, start.clone())
    gauss_newton = optimiser(loss)
    gauss_newton._radius = 1e9
    gauss_newton.step(loss, 1.0)
    # The shortest step moves the two equal columns alike.
    moved = loss.vector.detach() - start
    assert torch.isfinite(moved).all() and abs(float(moved[3] - moved[1])) < 1e-9


def test_rosenbrocks_valley_is_followed_to_its_end():
    loss = Residuals(
        lambda w: torch.stack([10.0 * (w[1] - w[0] ** 2), 1.0 - w[0]]), torch.tensor([-1.2, 1.0], dtype=torch.float64)
    )
    gauss_newton = optimiser(loss)
    reasons = [gauss_newton.step(loss, 1.0) for _ in range(40)]
    assert float((loss.vector.detach() - 1.0).abs().max()) < 1e-9
    assert set(reasons) <= {"", "line search", "gradient"}
    assert loss.values < 40 * 6


def test_a_refused_step_leaves_the_parameters_and_says_so():
    loss = Residuals(lambda w: torch.stack([1.0 + w[0] ** 2, 0.0 * w[0]]), torch.zeros(1, dtype=torch.float64))
    start = loss.vector.detach().clone()
    assert optimiser(loss).step(loss, 1.0) in ("line search", "gradient")
    assert torch.equal(loss.vector.detach(), start)


def test_nonfinite_trials_shorten_the_step():
    """The logarithm is not defined where the first, linearised step goes."""
    loss = Residuals(lambda w: torch.log(w) + 3.0, torch.tensor([5.0], dtype=torch.float64))
    gauss_newton = optimiser(loss)
    for _ in range(30):
        gauss_newton.step(loss, 1.0)
    assert abs(float(loss.vector.detach()) - math.exp(-3.0)) < 1e-9


class Curve(AbstractLeastSquares):
    """A network through sin(3x): residuals without rows, so that the general Jacobian is used."""

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


def test_any_least_squares_objective_can_be_trained():
    curve = Curve()
    context = Context(seed=SEED, budget=Budget(steps=60))
    report, history = minimise(curve.net.parameters(), curve, [Phase("gauss-newton")], context=context)
    assert report.status.ok and report.loss < 1e-8 * history["loss"][0]


def test_no_loss_is_computed_twice():
    """The value at the end of a step is that of its last good trial, and the next one starts there."""

    class Watched(Curve):
        asked: list[torch.Tensor] = []

        def terms(self):
            if not torch.is_grad_enabled():
                self.asked.append(torch.cat([p.detach().reshape(-1).clone() for p in self.net.parameters()]))
            return super().terms()

    curve = Watched()
    context = Context(seed=SEED, budget=Budget(steps=8))
    minimise(curve.net.parameters(), curve, [Phase("gauss-newton")], context=context)
    asked = torch.stack(curve.asked)
    assert len(asked) > 8 and len(asked.unique(dim=0)) == len(asked)


def test_other_losses_are_refused():
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    context = Context(seed=SEED, budget=Budget(steps=3))
    with pytest.raises(pdelab.errors.SettingsError, match="needs residual vectors"):
        minimise([w], lambda step: {"w": w.square().sum()}, [Phase("gauss-newton")], context=context)


TINY = {"width": 6, "depth": 2, "n_interior": 160, "n_boundary": 32, "n_initial": 32, "optimizer": "gauss-newton"}


@pytest.mark.parametrize("name", ["poisson", "burgers", "reaction", "heat-inverse"])
def test_pinn_with_gauss_newton(name):
    """Soft and hard conditions, values periodic without slopes, an unknown coefficient: the loss falls far."""
    problem = pdelab.problem(name)
    for constraints in ("hard", "soft"):
        solver = PINN(**TINY, resample_every=0, constraints=constraints)
        solution = pdelab.solve(problem, solver, budget="25steps", seed=SEED, throw=False)
        assert solution.status in (Status.BUDGET_SPENT, Status.CONVERGED)
        assert solution.history["loss"][-1] < 0.05 * solution.history["loss"][0]


def test_a_resumed_run_has_the_same_bits(tmp_path):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step >= 9:
            raise Killed

    problem, solver = pdelab.problem("burgers"), PINN(**TINY, resample_every=6)

    def run(store=None, report=lambda progress: None):
        return pdelab.solve(
            problem, solver, budget="14steps", seed=SEED, throw=False, checkpoints=store, report=report, threads=1
        )

    whole = run()
    store = CheckpointStore(tmp_path / "checkpoint", {"run": 1}, every=0.0)
    with pytest.raises(Killed):
        run(store, kill)
    again = run(CheckpointStore(tmp_path / "checkpoint", {"run": 1}, every=0.0))
    for a, b in zip(whole.field.state_dict().values(), again.field.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert whole.history["loss"] == again.history["loss"]


def test_more_parameters_than_memory_allows_are_refused_before_the_first_step(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 2**22)  # 16 GiB
    problem = pdelab.problem("poisson")
    for optimizer, what in (("ssbroyden", "inverse Hessian"), ("gauss-newton", "Jacobian")):
        wide = PINN(width=1200, depth=3, n_interior=4096, optimizer=optimizer)
        with pytest.raises(pdelab.errors.SettingsError, match=f"{what} of .* GiB memory; use"):
            pdelab.solve(problem, wide, budget="2steps", seed=SEED)


def test_auto_takes_gauss_newton_where_it_says():
    steady, evolution = pdelab.problem("poisson"), pdelab.problem("burgers")

    def first(problem, n_parameters=600, **settings):
        return PINN(**settings)._phases(problem, n_parameters)[0].optimizer

    assert first(steady) == "gauss-newton"
    assert first(evolution) == "gauss-newton"
    assert first(steady, 1001) == first(steady, n_interior=1000) == first(steady, dtype="float32") == "adam"
    assert first(steady, balancing="ntk") == "adam"  # adapted weights are left to first-order steps

"""SPRING: its formula in both factorisations, convergence, giving momentum up, resumption to the same bits."""

import pytest
import torch

import pdelab
from pdelab import spring
from pdelab.checkpoint import CheckpointStore
from pdelab.optimise import AbstractLoss, Evaluation
from pdelab.solution import Status
from pdelab.solvers.pinn import PINN
from pdelab.spring import DAMPINGS, MOMENTUM, SPRING

SEED = 31799
SHAPES = [(30, 6), (6, 6), (5, 12)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Residuals(AbstractLoss):
    """|r(w)|^2 for a function r of a vector."""

    def __init__(self, r, start):
        self.r, self.vector = r, torch.nn.Parameter(start)

    def __call__(self):
        r, J = self.rows()
        return Evaluation.known(self.vector.detach().clone(), float(r @ r), 2.0 * J.T @ r)

    def value(self):
        return float(self.residual().square().sum())

    def residual(self):
        return self.r(self.vector.detach())

    def rows(self):
        return self.residual(), torch.func.jacrev(self.r)(self.vector.detach())

    def row_blocks(self, most):
        yield from zip(*(part.split(most) for part in self.rows()), strict=True)


def textbook(A, r, damping):
    """-(A'A + lam I)^-1 A' r."""
    lam = damping * float(torch.linalg.matrix_norm(A, 2)) ** 2
    return -torch.linalg.solve(A.T @ A + lam * torch.eye(A.shape[1], dtype=torch.float64), A.T @ r)


@pytest.mark.parametrize("n, P", SHAPES)
def test_without_momentum_a_step_is_the_damped_gauss_newton_step(monkeypatch, n, P):
    monkeypatch.setattr(spring, "DAMPINGS", (0.1,))
    A, b, start = normal(n, P), normal(n), normal(P)
    loss = Residuals(lambda w: A @ w - b, start.clone())
    assert SPRING(loss.vector, 0.0, 0.0).step(loss, 1.0) == ""
    exact = textbook(A, A @ start - b, 0.1)
    # The largest eigenvalue is known to a few per cent only.
    assert float((loss.vector.detach() - start - exact).norm()) < 0.03 * float(exact.norm())
    monkeypatch.setattr(spring, "_largest", lambda matrix: float(torch.linalg.eigvalsh(matrix)[-1]))
    loss.vector.data.copy_(start)
    SPRING(loss.vector, 0.0, 0.0).step(loss, 1.0)
    assert float((loss.vector.detach() - start - exact).norm()) < 1e-10 * float(exact.norm())


@pytest.mark.parametrize("n, P", SHAPES)
def test_momentum_is_what_the_rows_say_nothing_about(monkeypatch, n, P):
    """d_2 = mu d_1 + textbook step for r + mu J d_1, at other rows than those of d_1."""
    monkeypatch.setattr(spring, "DAMPINGS", (1e-3,))
    monkeypatch.setattr(spring, "_largest", lambda matrix: float(torch.linalg.eigvalsh(matrix)[-1]))
    first, second = ((normal(n, P), normal(n)) for _ in range(2))
    loss = Residuals(lambda w: first[0] @ w - first[1], normal(P))
    optimizer = SPRING(loss.vector, 0.0, 0.0)
    optimizer.step(loss, 1.0)
    d = optimizer.state_dict()["direction"].clone()
    A, b = second
    loss.r = lambda w: A @ w - b
    optimizer.restart()
    start, r = loss.vector.detach().clone(), loss.residual()
    optimizer.step(loss, 1.0)
    exact = MOMENTUM * d + textbook(A, r + MOMENTUM * A @ d, 1e-3)
    plain = textbook(A, r, 1e-3)
    assert float((exact - plain).norm()) > (1e-4 if n >= P else 0.1) * float(plain.norm())
    assert float((loss.vector.detach() - start - exact).norm()) < 1e-9 * float(exact.norm())


def test_a_linear_problem_is_solved():
    A, b = normal(40, 12) @ torch.diag(torch.logspace(0, -2, 12, dtype=torch.float64)), normal(40)
    loss = Residuals(lambda w: A @ w - b, 5.0 * normal(12))
    optimizer = SPRING(loss.vector, 0.0, 0.0)
    for _ in range(60):
        optimizer.step(loss, 1.0)
    exact = torch.linalg.lstsq(A, b[:, None]).solution[:, 0]
    assert abs(loss.value() - float((A @ exact - b).square().sum())) < 1e-9


def test_rows_that_change_at_every_step_are_solved_together_sooner_with_momentum(monkeypatch):
    """Ten of 60 consistent equations at a time, in 20 unknowns of unequal scale."""
    Q = torch.linalg.qr(normal(20, 20))[0]
    A, exact = normal(60, 20) @ Q @ torch.diag(torch.logspace(0, -1, 20, dtype=torch.float64)), normal(20)

    def error(momentum):
        monkeypatch.setattr(spring, "MOMENTUM", momentum)
        loss = Residuals(None, torch.zeros(20, dtype=torch.float64))
        optimizer, rng = SPRING(loss.vector, 0.0, 0.0), torch.Generator().manual_seed(SEED)
        for _ in range(100):
            rows = A[torch.randperm(60, generator=rng)[:10]]
            loss.r = lambda w, rows=rows: rows @ (w - exact)
            optimizer.step(loss, 1.0)
        return float((loss.vector.detach() - exact).norm() / exact.norm())

    assert error(MOMENTUM) < 0.1 * error(0.0) < 0.01


def test_the_loss_falls_in_every_step_along_rosenbrocks_valley():
    loss = Residuals(
        lambda w: torch.stack([10.0 * (w[1] - w[0] ** 2), 1.0 - w[0]]), torch.tensor([-1.2, 1.0], dtype=torch.float64)
    )
    optimizer, values = SPRING(loss.vector, 0.0, 0.0), [loss.value()]
    for _ in range(200):
        if optimizer.step(loss, 1.0):
            break
        values.append(loss.value())
    assert all(b < a for a, b in zip(values, values[1:], strict=False))
    assert values[-1] < 1e-10


def test_momentum_uphill_is_given_up():
    A, b, start = normal(20, 4), normal(20), normal(4)
    loss = Residuals(lambda w: A @ w - b, start.clone())
    optimizer = SPRING(loss.vector, 0.0, 0.0)
    # The rows of so large a momentum drown in round-off: what is left of it leads anywhere.
    optimizer.load_state_dict({"direction": 1e16 * normal(4)})
    assert optimizer.step(loss, 1.0) == ""
    exact = textbook(A, A @ start - b, DAMPINGS[0])
    assert float((loss.vector.detach() - start - exact).norm()) < 1e-6 * float(exact.norm())


def test_a_failed_factorisation_raises_the_damping(monkeypatch):
    factor, tried = torch.linalg.cholesky_ex, []

    def fail(matrix):
        tried.append(matrix)
        L, info = factor(matrix)
        return (L, info) if len(tried) > 2 else (L, torch.ones_like(info))

    monkeypatch.setattr(torch.linalg, "cholesky_ex", fail)
    A, b, start = normal(20, 4), normal(20), normal(4)
    loss = Residuals(lambda w: A @ w - b, start.clone())
    assert SPRING(loss.vector, 0.0, 0.0).step(loss, 1.0) == "" and len(tried) == 3
    exact = textbook(A, A @ start - b, DAMPINGS[2])
    assert float((loss.vector.detach() - start - exact).norm()) < 0.02 * float(exact.norm())


@pytest.mark.parametrize("r", [lambda w: torch.sqrt(w) + 1.0, lambda w: 1.0 + w**2 + 1e-30 * w])
def test_where_nothing_descends_the_parameters_stay(r):
    loss = Residuals(r, torch.zeros(3, dtype=torch.float64))
    assert SPRING(loss.vector, 0.0, 0.0).step(loss, 1.0) == "line search"
    assert float(loss.vector.detach().abs().max()) == 0.0


TINY = {"width": 6, "depth": 2, "n_interior": 160, "n_boundary": 32, "n_initial": 32, "optimizer": "spring"}


@pytest.mark.parametrize("n_interior", [160, 24])
def test_pinn_with_spring(n_interior):
    """More and fewer rows than the 61 parameters."""
    solver = PINN(**TINY | {"n_interior": n_interior}, resample_every=3)
    solution = pdelab.solve(pdelab.problem("poisson"), solver, budget="30steps", seed=SEED, throw=False)
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

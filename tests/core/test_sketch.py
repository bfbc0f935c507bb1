"""Sketches: right on average or exactly orthonormal, and Gauss-Newton with them converges within bounded memory."""

import numpy as np
import pytest
import scipy.fft
import torch

import pdelab
from pdelab import gauss_newton, linearised
from pdelab.checkpoint import flatten, restore
from pdelab.gauss_newton import GaussNewton
from pdelab.linearised import linearise
from pdelab.optimise import AbstractLoss, Evaluation
from pdelab.sketch import ColumnSketch, RowSketch, _cosines

SEED = 90173


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def none(P):
    return normal(P, 0)


def dense(sketch, p):
    """The matrix Omega (P, p)."""
    return torch.stack([sketch.lift(e) for e in torch.eye(p, dtype=torch.float64)], dim=1)


@pytest.mark.parametrize("P, p, given", [(50, 20, 0), (51, 51, 0), (31, 1, 2), (40, 30, 2)])
def test_column_sketches_are_orthonormal_hold_what_they_are_given_and_lift_is_their_transpose(P, p, given):
    directions = 1e-5 * normal(P, given)
    sketch, J = ColumnSketch(P, p, [SEED], directions), normal(7, P)
    Omega = dense(sketch, p + given)
    assert torch.allclose(Omega.T @ Omega, torch.eye(p + given, dtype=torch.float64), rtol=0, atol=1e-13)
    assert torch.allclose(Omega @ (Omega.T @ directions), directions, rtol=1e-9, atol=1e-18)
    assert torch.allclose(sketch.columns(J), J @ Omega, rtol=0, atol=1e-12)
    # Lifting what was sketched projects: doing it twice changes nothing.
    once = sketch.lift(sketch.columns(J)[0])
    assert torch.allclose(sketch.lift(sketch.columns(once[None])[0]), once, rtol=0, atol=1e-12)
    assert abs(float(once @ J[0]) - float(once @ once)) < 1e-11


def test_column_sketches_keep_lengths_on_average():
    x, P, p, draws = normal(40), 40, 10, 2000
    shares = np.array(
        [float(ColumnSketch(P, p, [SEED, k], none(P)).columns(x[None]).square().sum()) for k in range(draws)]
    )
    shares /= float(x @ x)
    assert abs(shares.mean() - p / P) < 4.0 * shares.std() / draws**0.5 < 0.02
    # A vector along one axis would be kept or lost as a whole without the signs and cosines.
    axis = torch.eye(P, dtype=torch.float64)[:1]
    kept = [float(ColumnSketch(P, p, [SEED, k], none(P)).columns(axis).square().sum()) for k in range(50)]
    assert max(kept) < 0.6 and min(kept) > 0.02


@pytest.mark.parametrize("P", [2, 9, 16, 25])
def test_the_cosines_of_other_devices_are_those_of_scipy(P, monkeypatch):
    class Elsewhere(torch.Tensor):
        device = type("device", (), {"type": "elsewhere"})

    x = normal(3, P)
    expected = torch.from_numpy(scipy.fft.dct(x.numpy(), norm="ortho"))
    assert torch.allclose(_cosines(x.clone()), expected, rtol=0, atol=1e-13)
    monkeypatch.setattr(torch, "arange", lambda n, dtype, device: torch.linspace(0, n - 1, n, dtype=dtype))
    found = _cosines(x.clone().as_subclass(Elsewhere)).as_subclass(torch.Tensor)
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("blocks", [1, 3])
def test_row_sketches_are_right_on_average(blocks):
    J, draws = normal(60, 3), 1000
    found = []
    for k in range(draws):
        sketch = RowSketch(3, [SEED, k], J)
        for part in J.chunk(blocks):
            sketch.add(part)
        assert sketch.buckets.shape == (12, 3)
        found.append(sketch.buckets.T @ sketch.buckets)
    found = torch.stack(found)
    error = (found.mean(dim=0) - J.T @ J).abs()
    assert torch.all(error < 4.5 * found.std(dim=0) / draws**0.5)
    assert float(found.std(dim=0).max() / draws**0.5) < 0.08 * float((J.T @ J).max())


def test_equal_seeds_give_equal_sketches_and_others_do_not():
    J = normal(30, 12)

    def both(seed):
        rows = RowSketch(12, seed, J)
        rows.add(J)
        return ColumnSketch(12, 5, seed, none(12)).columns(J), rows.buckets

    for a, b, c in zip(both([SEED, 3]), both([SEED, 3]), both([SEED, 4]), strict=True):
        assert torch.equal(a, b) and not torch.allclose(a, c)


class Linear(AbstractLoss):
    """|A w - b|^2 with its rows in blocks, which are counted."""

    def __init__(self, A, b, start):
        self.A, self.b, self.vector, self.largest, self.passes = A, b, torch.nn.Parameter(start), 0, 0

    def __call__(self):
        r = self.A @ self.vector.detach() - self.b
        return Evaluation.known(self.vector.detach().clone(), float(r @ r), 2.0 * self.A.T @ r)

    def value(self):
        return float((self.A @ self.vector.detach() - self.b).square().sum())

    def rows(self):
        raise AssertionError("all rows at once")

    def residual(self):
        return self.A @ self.vector.detach() - self.b

    def row_blocks(self, most):
        self.passes += 1
        for A, b in zip(self.A.split(most), self.b.split(most), strict=True):
            self.largest = max(self.largest, len(A))
            yield A @ self.vector.detach() - b, A

    def excess(self):
        """The loss above its least value, as a share of what it began with."""
        least = float((self.A @ torch.linalg.lstsq(self.A, self.b[:, None]).solution[:, 0] - self.b).square().sum())
        return lambda: self.value() - least


def spread(n, P):
    """Singular values from 1 to 1/10."""
    return normal(n, P) @ torch.diag(torch.logspace(0, -1, P, dtype=torch.float64)) / n**0.5


def small(monkeypatch, columns=40, exact=4, block=50):
    monkeypatch.setattr(linearised, "MOST_COLUMNS", columns)
    monkeypatch.setattr(linearised, "KEPT_COLUMNS", columns)
    monkeypatch.setattr(gauss_newton, "MOST_COLUMNS", columns)
    monkeypatch.setattr(linearised, "EXACT_ROWS", exact)
    monkeypatch.setattr(gauss_newton, "BLOCK", block * 80)


@pytest.mark.parametrize("n, P", [(130, 80), (900, 40), (900, 80)])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_least_squares_are_solved_with_columns_rows_or_both_sketched(monkeypatch, n, P, noise):
    """With noise the least loss is not zero; sketched gradients would stop short of it."""
    small(monkeypatch)
    A = spread(n, P)
    loss = Linear(A, A @ normal(P) + noise * normal(n), 3.0 * normal(P))
    excess = loss.excess()
    before, optimizer = excess(), GaussNewton(loss.vector, 0.0, 0.0)
    assert linearise(loss.row_blocks(100), False, [SEED], none(P)).sketched
    for _ in range(80):
        assert optimizer.step(loss, 1.0) == ""
        if excess() < 1e-6 * before:
            break
    assert excess() < 1e-6 * before
    assert loss.largest <= 100


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("n, P", [(130, 80), (900, 40), (900, 80)])
def test_a_step_is_the_exact_one_in_its_subspace(monkeypatch, n, P, fine):
    """Rows past the exact ones only change the curvature: the step is -(Omega' H Omega + lam)^-1 Omega' J'r."""
    small(monkeypatch)
    A, b, given = spread(n, P), normal(n), normal(P, 2)
    blocks = zip(b.split(70), A.split(70), strict=True)
    region = linearise(blocks, fine, [SEED, 5], given)
    Omega = torch.eye(P, dtype=torch.float64)
    if P > 40:
        Omega = dense(ColumnSketch(P, 40, [SEED, 5, 0], given), 42)
    p, first = Omega.shape[1], 4 * Omega.shape[1]
    inner = A @ Omega
    H = inner[:first].T @ inner[:first]
    if n > first:
        rows, whole = RowSketch(p, [SEED, 5, 1], A), 70 * (first // 70 + 1)
        for part in (inner[first:whole], *inner[whole:].split(70)):
            rows.add(part)
        H = H + rows.buckets.T @ rows.buckets
    step = region.step(0.3 * region.longest)[0]
    lam = region.damping(0.3 * region.longest)
    expected = -Omega @ torch.linalg.solve(H + lam * torch.eye(p, dtype=torch.float64), Omega.T @ (A.T @ b))
    assert float((step - expected).norm()) < 1e-8 * float(expected.norm())
    assert torch.allclose(region.gradient, A.T @ b, rtol=1e-10, atol=1e-12)


def test_a_resumed_run_has_the_same_bits(monkeypatch):
    small(monkeypatch)
    A = spread(900, 80)
    b, start = normal(900), normal(80)

    def run(steps, state=None, at=None):
        loss = Linear(A, b, (start if at is None else at).clone())
        optimizer = GaussNewton(loss.vector, 0.0, 0.0)
        if state:
            torch.manual_seed(5)
            optimizer = GaussNewton(loss.vector, 0.0, 0.0)
            optimizer.load_state_dict(restore(*state))
        for _ in range(steps):
            optimizer.step(loss, 1.0)
        return loss.vector.detach().clone(), flatten(optimizer.state_dict())

    whole, _ = run(7)
    half, state = run(3)
    assert torch.equal(run(4, state, half)[0], whole)
    assert not torch.equal(run(4, None, half)[0], whole)


def test_sketched_steps_that_fail_are_drawn_again_before_the_run_stops(monkeypatch):
    small(monkeypatch)
    A = spread(130, 80)
    loss = Linear(A, normal(130), normal(80))
    optimizer = GaussNewton(loss.vector, 0.0, 0.0)
    start, value = loss.vector.detach().clone(), loss.value()
    monkeypatch.setattr(loss, "value", lambda: value)
    reasons = [optimizer.step(loss, 1.0) for _ in range(3)]
    assert reasons == ["", "", "line search"]
    assert torch.equal(loss.vector.detach(), start) and optimizer.state_dict()["radius"] == 1.0
    monkeypatch.undo()
    small(monkeypatch)
    assert optimizer.step(loss, 1.0) == "" and loss.value() < 0.9 * value


def test_what_does_not_fit_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 2**16)  # 256 MiB
    with pytest.raises(pdelab.errors.SettingsError, match="sketched Jacobian of 5000 parameters .*; use"):
        GaussNewton(torch.nn.Parameter(normal(5000)), 0.0, 0.0)


@pytest.mark.slow
def test_three_thousand_parameters_reach_a_millionth_of_their_optimum():
    P = 3000
    A = normal(6000, P) @ torch.diag(torch.logspace(0, -0.5, P, dtype=torch.float64)) / 6000**0.5
    loss = Linear(A, A @ normal(P) + 0.1 * normal(6000), normal(P))
    excess = loss.excess()
    before, optimizer = excess(), GaussNewton(loss.vector, 0.0, 0.0)
    for _ in range(72):
        assert optimizer.step(loss, 1.0) == ""
        if excess() < 1e-6 * before:
            break
    assert excess() < 1e-6 * before

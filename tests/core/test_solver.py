"""Budgets, clocks and the driver: checks, seeds, timing, failure policy."""

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import pdelab
from pdelab.describe import _fitting
from pdelab.errors import IncompatibleProblem, SettingsError, SolveFailed
from pdelab.pde import AbstractPeriodicProblem
from pdelab.solver import AbstractInstanceSolver, Budget, Clock, solve


@pytest.mark.parametrize(
    ("text", "steps", "seconds"),
    [("2000steps", 2000, None), ("120s", None, 120.0), ("1.5s", None, 1.5), ("1step,3s", 1, 3.0)],
)
def test_budgets_are_read_and_written(text, steps, seconds):
    budget = Budget.parse(text)
    assert (budget.steps, budget.seconds) == (steps, seconds)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "soon", "-3s", "0steps", "1.5steps", "12", "3 s s"])
def test_budgets_that_cannot_be_read(text):
    with pytest.raises(SettingsError, match="expected such as"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["5steps,7steps", "3s,3s"])
def test_a_limit_given_twice_is_refused(text):
    with pytest.raises(SettingsError, match="given twice"):
        Budget.parse(text)


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_clock_stands_still_while_paused():
    clock = Clock(already=5.0)
    burn(0.05)
    with clock.paused():
        before = clock.seconds
        burn(0.1)
        with clock.paused():
            burn(0.05)
        burn(0.05)
        assert clock.seconds == before
    burn(0.05)
    spent = (clock.seconds - 5.0) * torch.get_num_threads()
    assert 0.1 <= spent < 0.2
    cost = clock.spent
    assert cost["cpu"] >= 0.3 and cost["wall"] > 0.25
    clock.resume({"seconds": 2.0, "cpu": 30.0, "wall": 60.0})
    assert clock.seconds > 7.0 and clock.spent["cpu"] >= 30.3 and clock.spent["wall"] > 60.25


@dataclass(frozen=True)
class Fake(AbstractInstanceSolver):
    """Returns a random constant, or what it is told."""

    value: float | None = None
    status: str = "CONVERGED"

    name: ClassVar[str] = "fake"

    def refuses(self, problem):
        """No steady problems."""
        return "" if problem.time else "it needs time"

    def run(self, problem, state, *, context):
        """A constant field."""
        value = float(torch.rand(())) if self.value is None else self.value
        field = lambda x: torch.full((len(x), 1), value, dtype=torch.float64)  # noqa: E731
        return pdelab.Solution(problem, field, pdelab.Status[self.status], "as told")


def test_seeds_decide_and_do_not_leak():
    burgers, x = pdelab.problem("burgers"), np.zeros((1, 2))
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    first, again, other = (solve(burgers, Fake(), seed=seed).at(x)[0, 0] for seed in (91, 91, 92))
    assert first == again != other
    assert torch.rand(()) == expected


def test_incompatible_problems_are_refused_before_anything_runs():
    with pytest.raises(IncompatibleProblem, match="it needs time"):
        solve(pdelab.problem("poisson"), Fake())

    class Narrow(Fake):
        accepts: ClassVar = AbstractPeriodicProblem

    with pytest.raises(IncompatibleProblem, match="AbstractPeriodicProblem; 'heat' is none"):
        solve(pdelab.problem("heat"), Narrow())


def test_equations_that_say_too_little_at_points_are_left_to_solvers_of_the_weak_form():
    class Jumps(type(pdelab.problem("burgers"))):
        weak = "the jump at the interface"

    class Weak(Fake):
        weak_form: ClassVar[bool] = True

    with pytest.raises(
        IncompatibleProblem, match="'fake' cannot solve 'burgers'.*which lack the jump at the interface"
    ):
        solve(Jumps(), Fake())
    assert solve(Jumps(), Weak()).status.ok and solve(pdelab.problem("burgers"), Fake()).status.ok


def test_only_the_weak_form_knows_the_jumps_of_sharp_interfaces():
    def fitting(name, **settings):
        return set(_fitting(pdelab.problem(name, **settings)))

    for sharp in (fitting("rve"), fitting("darcy-piecewise")):
        assert "fem" in sharp and not sharp & {"deepxde", "fd", "pinn", "random-features", "spectral"}
    assert {"fem", "fd", "pinn"} <= fitting("rve", transition=0.2) & fitting("rve", radius=0.0)


def test_a_failure_is_a_status_or_an_error_as_asked():
    burgers = pdelab.problem("burgers")
    with pytest.raises(SolveFailed, match="as told") as caught:
        solve(burgers, Fake(1.0, "MAX_ITERATIONS"))
    assert caught.value.solution.status is pdelab.Status.MAX_ITERATIONS
    assert not solve(burgers, Fake(1.0, "MAX_ITERATIONS"), throw=False).status.ok


def test_nan_is_never_a_result():
    solution = solve(pdelab.problem("burgers"), Fake(float("nan")), throw=False)
    assert solution.status is pdelab.Status.NONFINITE
    assert "not finite at 256 of 256 points" in solution.message


def test_unknown_devices():
    with pytest.raises(SettingsError, match="expected auto, cpu or cuda"):
        solve(pdelab.problem("burgers"), Fake(), device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="no CUDA device"):
            solve(pdelab.problem("burgers"), Fake(), device="cuda")

"""Errors of hand-made fields."""

from typing import ClassVar

import pytest
import torch

import pdelab
from pdelab.domain import Interval
from pdelab.pde import AbstractProblem, Exact, Initial
from pdelab.solution import Solution, Status


class Still(AbstractProblem):
    """u_t = 0 with u = 2, seen for two units of time."""

    name: ClassVar[str] = "still"
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (1.0, 3.0)

    def residual(self, f):
        return f.u_t

    def conditions(self):
        return (Initial("u", 2.0),)

    def reference(self):
        return Exact(lambda p: 2.0 + 0.0 * p.x)


def test_the_error_at_the_last_time_is_that_of_the_last_time():
    """u = 2 + 0.3 (t - 1): off by 0.6 of 2 at the end, by 0.3 sqrt(4/3) of 2 in the mean square over all times."""
    error = Solution(Still(), lambda x: 2.0 + 0.3 * (x[:, 1:] - 1.0), Status.CONVERGED).error()
    assert error["rel_l2_final"] == pytest.approx(0.3, rel=1e-12)
    assert error["rel_l2"] == pytest.approx(0.15 * (4.0 / 3.0) ** 0.5, rel=1e-3)


def test_a_field_that_is_wrong_at_the_last_time_alone_is_found_out():
    error = Solution(Still(), lambda x: torch.where(x[:, 1:] < 3.0, 2.0, 5.0), Status.CONVERGED).error()
    assert error["rel_l2"] == 0.0 and error["rel_l2_final"] == pytest.approx(1.5)


def test_steady_problems_have_no_last_time():
    problem = pdelab.problem("poisson")
    error = Solution(problem, lambda x: x[:, :1], Status.CONVERGED).error()
    assert "rel_l2" in error and "rel_l2_final" not in error

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from pdelab.domain import Box
from pdelab.errors import IncompatibleProblem
from pdelab.metrics import relative_errors
from pdelab.pde import AbstractFlowProblem, Dirichlet, Exact, Initial, Neumann, Observations, residual_values
from pdelab.problems.navier_stokes import BackwardStep, Cylinder
from pdelab.reference import ExactField
from pdelab.sampling import interior
from pdelab.shapes import Ball
from pdelab.solution import Status
from pdelab.solver import solve
from pdelab.solvers.fem import FEM
from pdelab.solvers.linear.cg import CG

CAVITY = Path(__file__).parents[3] / "shared" / "data" / "pinnacle" / "lid_driven_a4.dat"


@dataclass(frozen=True)
class Kovasznay(AbstractFlowProblem):
    """The wake of a grid, an exact solution of the steady equations; open or closed at the right."""

    open: bool = False

    name: ClassVar[str] = "kovasznay"
    domain: ClassVar = Box((-0.5, -0.5), (1.0, 0.5))
    viscosity: ClassVar = 1 / 40

    @property
    def gauge(self):
        return () if self.open else ("p",)

    def exact(self, p):
        rate = 20 - math.sqrt(400 + 4 * math.pi**2)
        e, y = torch.exp(rate * p.x), 2 * math.pi * p.y
        return 1 - e * torch.cos(y), rate / (2 * math.pi) * e * torch.sin(y), 0.5 * (1 - e**2)

    def conditions(self):
        u, v, p = (lambda q, i=i: self.exact(q)[i] for i in range(3))
        parts = ("left", "bottom", "top") + (() if self.open else ("right",))
        closed = [Dirichlet(name, value, part) for part in parts for name, value in (("u", u), ("v", v))]
        if not self.open:
            return tuple(closed)
        rate = 20 - math.sqrt(400 + 4 * math.pi**2)

        def slopes(q):
            return rate * (u(q) - 1), rate * v(q)

        right = [Neumann(n, lambda q, i=i: slopes(q)[i], "right") for i, n in enumerate("uv")]
        return *closed, *right, Dirichlet("p", p, "right")

    def reference(self):
        return Exact(self.exact)


@dataclass(frozen=True)
class Vortices(AbstractFlowProblem):
    """Vortices (Taylor & Green) that a body force makes pulsate, with moving walls."""

    name: ClassVar[str] = "vortices"
    domain: ClassVar = Box((0.1, 0.2), (1.1, 1.2))
    time: ClassVar = (0.0, 0.5)
    viscosity: ClassVar = 0.05
    gauge: ClassVar = ("p",)

    def exact(self, p):
        pulse, x, y = 1 + 0.5 * torch.sin(6 * p.t), math.pi * p.x, math.pi * p.y
        pressure = 0.25 * (torch.cos(2 * x) + torch.cos(2 * y)) * pulse**2
        return -torch.cos(x) * torch.sin(y) * pulse, torch.sin(x) * torch.cos(y) * pulse, -pressure

    def force(self, p):
        u, v, _ = self.exact(p)
        rate = 2 * math.pi**2 * self.viscosity + 3 * torch.cos(6 * p.t) / (1 + 0.5 * torch.sin(6 * p.t))
        return rate * u, rate * v

    def conditions(self):
        parts = [(name, lambda q, i=i: self.exact(q)[i]) for i, name in enumerate("uv")]
        return tuple(kind(name, value) for name, value in parts for kind in (Initial, Dirichlet))

    def reference(self):
        return Exact(self.exact)


def each(solution):
    return {name: e["rel_l2"] for name, e in solution.error()["per_component"].items()}


@pytest.mark.parametrize("problem", [Kovasznay(), Kovasznay(open=True), Vortices()], ids=lambda p: p.name)
def test_the_manufactured_flows_are_solutions(problem):
    points = torch.as_tensor(interior(problem, 64, 48109))
    assert residual_values(problem, ExactField(problem, problem.reference()), points).abs().max() < 1e-12


@pytest.mark.parametrize("problem", [Kovasznay(), Kovasznay(open=True)], ids=["closed", "open"])
def test_orders_of_taylor_hood(problem):
    coarse, fine = (each(solve(problem, FEM(resolution=n))) for n in (8, 16))
    for name, order in (("u", 3), ("v", 3), ("p", 2)):
        assert math.log2(coarse[name] / fine[name]) > order - 0.2
    assert fine["u"] < 6e-4 and fine["p"] < 3e-3


def test_time_steps_are_of_second_order():
    errors = [each(solve(Vortices(), FEM(resolution=16, n_steps=n))) for n in (8, 16)]
    for name in ("u", "v"):
        assert math.log2(errors[0][name] / errors[1][name]) == pytest.approx(2.0, abs=0.35)
    assert errors[1]["u"] < 2e-3 and errors[1]["p"] < 0.15


def test_too_large_time_steps_end_in_a_status():
    @dataclass(frozen=True)
    class Fast(Vortices):
        viscosity: ClassVar = 1e-4

        def exact(self, p):
            u, v, pressure = super().exact(p)
            return 400.0 * u, 400.0 * v, 160000.0 * pressure

        def force(self, p):
            return 0.0, 0.0

    solution = solve(Fast(), FEM(resolution=8, n_steps=60), throw=False)
    assert solution.status is Status.NONFINITE and "time steps" in solution.message


@pytest.mark.slow
def test_flow_past_a_cylinder_against_the_benchmark():
    solution = solve(Cylinder(), FEM(resolution=24))
    scale = 2 / (0.1 * 0.2**2)
    assert scale * solution.stats["force_x cylinder"] == pytest.approx(5.57954, rel=2e-3)
    assert scale * solution.stats["force_y cylinder"] == pytest.approx(0.010619, abs=3e-3)
    front, back = solution.at([[0.15, 0.2], [0.25, 0.2]])[:, 2]
    assert front - back == pytest.approx(0.11752, rel=0.1)  # pressure of order 1 at the wall itself


def test_flow_past_a_coarse_cylinder():
    solution = solve(Cylinder(), FEM(resolution=10))
    assert 500 * solution.stats["force_x cylinder"] == pytest.approx(5.57954, rel=0.015)


def test_mass_is_conserved_behind_the_step():
    solution = solve(BackwardStep(), FEM(resolution=16))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for x, height in ((0.7, 1.0), (2.6, 2.0), (4.0, 2.0)):
        y = (nodes + 1) * height / 2
        u = solution.at(np.column_stack([np.full(60, x), y]))[:, 0]
        assert height / 2 * (weights @ u) == pytest.approx(2 / 3, rel=5e-3)
    corner = solution.at([[2.1, 1.6]])[0]
    assert corner[0] < 0  # the eddy behind the step turns back


def test_the_cavity_of_pinnacle():
    if not CAVITY.exists():
        pytest.skip(f"{CAVITY} is not there")

    @dataclass(frozen=True)
    class Lid(AbstractFlowProblem):
        name: ClassVar[str] = "lid"
        domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))
        viscosity: ClassVar = 0.01

        def conditions(self):
            lid = Dirichlet("u", lambda p: 4 * p.x * (1 - p.x), "top")
            pinned = Observations("p", np.zeros((1, 2)), np.zeros(1))
            return Dirichlet("u", 0.0), Dirichlet("v", 0.0), lid, pinned

    data = np.loadtxt(CAVITY, comments="%")
    solution = solve(Lid(), FEM(resolution=24))
    assert solution.at([[0.0, 0.0]])[0, 2] == pytest.approx(0.0, abs=1e-12)
    values = solution.at(data[:, :2])
    errors = relative_errors(values[:, :2], data[:, 2:4], ("u", "v"))
    assert errors["rel_l2"] < 8e-3
    away = np.hypot(np.minimum(data[:, 0], 1 - data[:, 0]), 1 - data[:, 1]) > 0.1
    assert relative_errors(values[away, 2:], data[away, 4:], ("p",))["rel_l2"] < 2e-2


def test_failures_are_statuses():
    solution = solve(Kovasznay(), FEM(resolution=4, linear_solver=CG(max_iterations=20)), throw=False)
    assert solution.status is Status.LINEAR_SOLVE_FAILED


def test_conditions_that_make_no_sense_are_refused():
    @dataclass(frozen=True)
    class Bad(Kovasznay):
        def conditions(self):
            return (Neumann("u", 0.0, "left", transfer=1.0),)

    with pytest.raises(IncompatibleProblem, match="slope of a velocity"):
        solve(Bad(), FEM(resolution=4))

    @dataclass(frozen=True)
    class Deep(Kovasznay):
        domain: ClassVar = Ball((0.0, 0.0, 0.0), 1.0)

    with pytest.raises(IncompatibleProblem, match="in the plane"):
        solve(Deep(), FEM(resolution=4))

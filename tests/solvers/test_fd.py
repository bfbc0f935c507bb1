"""Finite differences and collocation: orders, exact answers, clamped plates, failure and refusal."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from pdelab.calculus import Coordinates
from pdelab.domain import Box, Interval
from pdelab.errors import IncompatibleProblem, SettingsError, SolveFailed
from pdelab.metrics import score
from pdelab.pde import AbstractProblem, Dirichlet, Exact, Initial, Neumann, Observations, Periodic
from pdelab.problems.burgers import Burgers
from pdelab.problems.cavity import Cavity, Streamfunction
from pdelab.problems.heat import Heat
from pdelab.problems.helmholtz import Helmholtz
from pdelab.problems.poisson import Poisson, PoissonND
from pdelab.problems.wave import KleinGordon, Wave
from pdelab.solution import Status
from pdelab.solver import Context, solve
from pdelab.solvers.axes import chebyshev_axis, difference_axis, fourier_axis
from pdelab.solvers.collocation import chebyshev_solve
from pdelab.solvers.fd import FD
from pdelab.solvers.grid_system import GridSystem


def observed_order(errors, ratio=2.0):
    return math.log(errors[-2] / errors[-1]) / math.log(ratio)


@dataclass(frozen=True)
class Reaction(AbstractProblem):
    """Two coupled nonlinear equations on [0, 1] x [0, 2 pi), Neumann, Robin and periodic conditions."""

    name: ClassVar[str] = "manufactured-system"
    components: ClassVar = ("u", "v")
    domain: ClassVar = Box((0.0, 0.0), (1.0, 2.0 * math.pi))

    def exact(self, p):
        return torch.exp(p.x) * torch.sin(p.y), torch.cos(p.x) * torch.cos(p.y) + 2.0

    def residual(self, f):
        u, v = self.exact(f)
        first = f.u_xx + f.u_yy - f.u * f.v + f.v_x - (u * 0.0 - u * v - torch.sin(f.x) * torch.cos(f.y))
        second = f.v_xx + f.v_yy - f.v**3 + f.u_y - (-2.0 * (v - 2.0) - v**3 + torch.exp(f.x) * torch.cos(f.y))
        return first, second

    def conditions(self):
        return (
            Periodic("y"),
            Dirichlet("u", lambda p: self.exact(p)[0], "left"),
            Neumann("u", lambda p: 3.0 * self.exact(p)[0], "right", transfer=2.0),
            Neumann("v", 0.0, "left"),
            Dirichlet("v", lambda p: self.exact(p)[1], "right"),
        )

    def reference(self):
        return Exact(self.exact)


@dataclass(frozen=True)
class Plate(AbstractProblem):
    """A clamped plate: Lap Lap u = f with u = cos^2 cos^2 and du/dn = 0."""

    name: ClassVar[str] = "clamped-plate"
    domain: ClassVar = Box((-1.0, -1.0), (1.0, 1.0))

    def exact(self, p):
        return (1.0 + torch.cos(math.pi * p.x)) * (1.0 + torch.cos(math.pi * p.y))

    def residual(self, f):
        a, b = torch.cos(math.pi * f.x), torch.cos(math.pi * f.y)
        return f.u_xxxx + 2.0 * f.u_xxyy + f.u_yyyy - math.pi**4 * (a * (1.0 + b) + 2.0 * a * b + b * (1.0 + a))

    def conditions(self):
        return Dirichlet("u", 0.0), Neumann("u", 0.0)

    def reference(self):
        return Exact(self.exact)


@dataclass(frozen=True)
class Decay(AbstractProblem):
    """u_t = -u^2 + u_xx/10 + source with moving boundary values: u = 2 + sin(x + 3 t)."""

    name: ClassVar[str] = "manufactured-decay"
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (0.0, 1.0)

    def exact(self, p):
        return 2.0 + torch.sin(p.x + 3.0 * p.t)

    def residual(self, f):
        wave = torch.sin(f.x + 3.0 * f.t)
        return f.u_t + f.u**2 - 0.1 * f.u_xx - (3.0 * torch.cos(f.x + 3.0 * f.t) + (2.0 + wave) ** 2 + 0.1 * wave)

    def conditions(self):
        return Initial("u", self.exact), Dirichlet("u", self.exact)

    def reference(self):
        return Exact(self.exact)


@dataclass(frozen=True)
class Bratu(AbstractProblem):
    """u_xx + strength exp(u) = 0: no solution above strength 3.514."""

    strength: float = 1.0
    name: ClassVar[str] = "bratu"
    domain: ClassVar = Interval(0.0, 1.0)

    def residual(self, f):
        return f.u_xx + self.strength * torch.exp(f.u)

    def conditions(self):
        return (Dirichlet("u", 0.0),)


@pytest.mark.parametrize("accuracy", [2, 4])
@pytest.mark.parametrize("derivative", [1, 2, 3, 4])
def test_differences_are_exact_for_polynomials(accuracy, derivative):
    axis = difference_axis(-1.0, 2.0, 16, accuracy, clustering=0.5)
    degree = derivative + accuracy - 2 + derivative % 2
    values = np.polynomial.Polynomial([0.3, -1.0, 0.7, 0.2, -0.4, 0.1, 0.05][: degree + 1])
    error = axis.matrix(derivative) @ values(axis.nodes) - values.deriv(derivative)(axis.nodes)
    assert np.abs(error).max() < 1e-8


def test_spectral_axes_differentiate_smooth_functions():
    axis = chebyshev_axis(-1.0, 2.0, 24)
    assert np.abs(axis.matrix(2) @ np.sin(axis.nodes) + np.sin(axis.nodes)).max() < 1e-9
    axis = fourier_axis(0.0, 2.0 * np.pi, 12)
    assert np.abs(axis.matrix(1) @ np.sin(5.0 * axis.nodes) - 5.0 * np.cos(5.0 * axis.nodes)).max() < 1e-12
    assert np.abs(axis.matrix(1) @ np.cos(6.0 * axis.nodes)).max() < 1e-12


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("problem", [Poisson(wavenumber=2), Reaction(), Plate()], ids=lambda p: p.name)
def test_order_in_space(problem, order):
    errors = [score(solve(problem, FD(n=n, order=order)))["rel_l2"] for n in (24, 48)]
    assert observed_order(errors) > order - 0.4
    assert errors[-1] < {2: 0.02, 4: 5e-4}[order]


def test_low_order_is_not_high():
    errors = [score(solve(Poisson(wavenumber=2), FD(n=n, order=2)))["rel_l2"] for n in (16, 32)]
    assert observed_order(errors) == pytest.approx(2.0, abs=0.2)


def test_order_in_time():
    """Five, or four where stiffness and moving boundary values reduce it."""
    errors = [score(solve(Decay(), FD(n=40, n_steps=k, tolerance=1e-12)))["rel_l2"] for k in (5, 10)]
    assert observed_order(errors) > 3.5
    assert errors[-1] < 2e-6


def test_second_time_derivatives():
    errors = [score(solve(Wave(), FD(n=n, n_steps=2 * n)))["rel_l2"] for n in (48, 96)]
    assert observed_order(errors) > 3.5
    assert errors[-1] < 4e-5
    assert score(solve(KleinGordon(final_time=2.0), FD(n=16, n_steps=20)))["rel_l2"] < 5e-5


def test_three_dimensions():
    assert score(solve(PoissonND(dimension=3), FD(n=8)))["rel_l2"] < 2e-5


def test_jacobian_against_finite_differences():
    problem = Streamfunction(Cavity())
    system = GridSystem(problem, [difference_axis(0.0, 1.0, n, 4) for n in (9, 10)])
    rng = np.random.default_rng(5519)
    y, direction, still = (
        0.1 * rng.standard_normal(system.size),
        rng.standard_normal(system.size),
        np.zeros(system.size),
    )
    value, jacobian, _ = system.linearise(0.0, y, still)
    assert np.array_equal(value, system.evaluate(0.0, y, still))
    step = 1e-6 * direction
    found = (system.evaluate(0.0, y + step, still) - system.evaluate(0.0, y - step, still)) / 2e-6
    assert np.abs(found - jacobian @ direction).max() < 1e-6 * np.abs(found).max()


def test_chebyshev_helmholtz_to_round_off():
    solution = chebyshev_solve(Helmholtz(), 40, Context())
    assert solution.status is Status.CONVERGED
    assert score(solution)["rel_l2"] < 5e-12


def test_chebyshev_with_fourier_and_time():
    field = chebyshev_solve(Reaction(), 16, Context()).field
    nodes = np.stack(np.meshgrid(*field.axes, indexing="ij"), axis=-1).reshape(-1, 2)
    exact = torch.stack(Reaction().exact(Coordinates(torch.as_tensor(nodes), ("x", "y"))), dim=1).numpy()
    assert np.abs(field.values.reshape(-1, 2) - exact).max() < 1e-12
    assert score(chebyshev_solve(Decay(), 12, Context(), n_steps=40))["rel_l2"] < 1e-8
    assert score(chebyshev_solve(Plate(), 20, Context()))["rel_l2"] < 1e-9


def test_periodic_burgers_conserves_the_integral():
    """A periodic box keeps the mean of a conserved quantity to solver tolerance."""

    @dataclass(frozen=True)
    class Periodically(AbstractProblem):
        name: ClassVar[str] = "burgers-periodic"
        domain: ClassVar = Interval(-1.0, 1.0)
        time: ClassVar = (0.0, 0.5)

        def residual(self, f):
            return f.u_t + f.u * f.u_x - 0.1 * f.u_xx

        def conditions(self):
            return Periodic("x"), Initial("u", lambda p: 1.0 + torch.sin(math.pi * p.x))

    field = solve(Periodically(), FD(n=64, n_steps=20)).field
    totals = field.values[..., 0].mean(axis=0)
    # The equation is not discretised in divergence form: the mean is kept to the order of the differences.
    assert abs(totals[-1] - totals[0]) < 1e-4
    assert field.periods == {0: 2.0}


def test_burgers_from_its_conditions():
    assert score(solve(Burgers(viscosity=0.05), FD(n=128, n_steps=40)))["rel_l2"] < 3e-4


def test_bratu_has_its_known_maximum():
    middle = solve(Bratu(), FD(n=64)).at([[0.5]])[0, 0]
    assert middle == pytest.approx(0.1405392, abs=2e-6)


def test_failure_of_newton_is_reported():
    with pytest.raises(SolveFailed, match="MAX_ITERATIONS"):
        solve(Bratu(strength=6.0), FD(n=32))
    solution = solve(Bratu(strength=6.0), FD(n=32), throw=False)
    assert solution.status is Status.MAX_ITERATIONS
    assert "Newton" in solution.message


def test_solution_holds_grid_times_and_counts():
    solution = solve(Heat(), FD(n=16, n_steps=10, grading=2.0))
    assert solution.mesh.points.shape == (17, 1)
    assert solution.times == pytest.approx(np.linspace(0.0, 1.0, 11) ** 2)
    assert solution.stats["steps"] == 10
    assert solution.stats["dofs"] == 17
    assert solve(Poisson(), FD(n=8)).mesh.cells.shape == (64, 4)
    nodes = FD(n=(8, 20), clustering=0.5)
    assert solve(Poisson(), nodes).field.values.shape == (9, 21, 1)


def test_refusals_say_why():
    @dataclass(frozen=True)
    class Data(Bratu):
        def conditions(self):
            return Dirichlet("u"), Observations("u", np.array([[0.5]]), np.zeros(1))

    @dataclass(frozen=True)
    class Unstarted(Heat):
        def conditions(self):
            return (Dirichlet("u"),)

    cases = [
        (PoissonND(dimension=5), FD(), "5 space dimensions"),
        (Cavity(), FD(), "determines 'p'"),
        (Data(), FD(), "observations"),
        (Unstarted(), FD(), "initial values"),
        (Poisson(), FD(n=(8, 8, 8)), "each of its 2 axes"),
    ]
    for problem, solver, words in cases:
        with pytest.raises(IncompatibleProblem, match=words):
            solve(problem, solver)
    from pdelab.shapes import Ball

    round_one = type("Round", (Poisson,), {"domain": Ball((0.5, 0.5), 0.5)})()
    with pytest.raises(IncompatibleProblem, match="no box but a Ball"):
        solve(round_one, FD())
    with pytest.raises(IncompatibleProblem, match="no box"):
        chebyshev_solve(round_one, 8, Context())


@pytest.mark.parametrize("change", [{"n": 4}, {"order": 3}, {"tolerance": 0.0}, {"clustering": 1.0}, {"grading": 0.5}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(SettingsError, match=next(iter(change))):
        dataclasses.replace(FD(), **change)

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import pdelab
from pdelab.domain import Box
from pdelab.errors import IncompatibleProblem, SettingsError, SolveFailed
from pdelab.pde import AbstractPeriodicProblem, Exact, Initial, Periodic
from pdelab.problems.burgers import Burgers
from pdelab.problems.poisson import Poisson
from pdelab.reference import resolve
from pdelab.sampling import interior
from pdelab.solution import Status
from pdelab.solver import solve
from pdelab.solvers.etdrk4 import ETDRK4
from pdelab.solvers.fourier import FourierGrid
from pdelab.solvers.spectral import Spectral


@dataclass(frozen=True)
class Spinning(AbstractPeriodicProblem):
    """(u + iv)_t = diffusion Lap (u + iv) - sum_i c_i d_i (u + iv) + i spin (u + iv), one mode, any dimension.

    Diffusion goes through the symbol, transport through `differentiate`, the spin couples the components.
    """

    dimension: int
    diffusion: float = 0.05
    spin: float = 3.0

    name: ClassVar[str] = "spinning"
    components: ClassVar[tuple[str, ...]] = ("u", "v")
    time: ClassVar = (0.5, 1.5)
    velocity: ClassVar = (1.0, -0.5, 0.25, 0.0)
    waves: ClassVar = (1, -2, 1, 0)

    @property
    def domain(self):
        sides = (2.0, 1.0, 3.0, 1.0)[: self.dimension]
        return Box(tuple(-0.3 * s for s in sides), tuple(0.7 * s for s in sides))

    def exact(self, p):
        d = self.dimension
        lower, upper = self.domain.bounds
        k = 2 * math.pi * np.array(self.waves[:d]) / (upper - lower)
        phase = (p.points[:, :d] - p.t[:, None] * torch.tensor(self.velocity[:d])) @ torch.as_tensor(k)
        phase = phase + self.spin * p.t
        size = torch.exp(-self.diffusion * float(k @ k) * p.t)
        return size * torch.cos(phase), size * torch.sin(phase)

    def residual(self, f):
        def operator(c):
            transport = sum(s * f.derivative(c, a) for s, a in zip(self.velocity, self.domain.axes, strict=False))
            return f.derivative(c, "t") + transport - self.diffusion * f.laplacian(c)

        return operator("u") + self.spin * f.v, operator("v") - self.spin * f.u

    def conditions(self):
        periodic = tuple(Periodic(a) for a in self.domain.axes)
        return *[Initial(c, lambda p, i=i: self.exact(p)[i]) for i, c in enumerate("uv")], *periodic

    def reference(self):
        return Exact(self.exact)

    def symbol(self, wavenumbers):
        return np.stack([-self.diffusion * sum(k**2 for k in wavenumbers)] * 2)

    def nonlinear(self, values, differentiate):
        u, v = values
        moved = [sum(s * differentiate(c, i) for i, s in enumerate(self.velocity[: self.dimension])) for c in values]
        return np.stack([-moved[0] - self.spin * v, -moved[1] + self.spin * u])


@dataclass(frozen=True)
class Explosion(AbstractPeriodicProblem):
    """u_t = u^2 from u = 1: infinite at t = 1."""

    name: ClassVar[str] = "explosion"
    domain: ClassVar = Box((0.0,), (1.0,))
    time: ClassVar = (0.0, 2.0)

    def residual(self, f):
        return f.u_t - f.u**2

    def conditions(self):
        return Initial("u", 1.0), Periodic("x")

    def symbol(self, wavenumbers):
        return np.zeros((1, *wavenumbers[0].shape))

    def nonlinear(self, values, differentiate):
        return values**2


@dataclass(frozen=True)
class NoStart(AbstractPeriodicProblem):
    """Nothing happens, from nowhere."""

    name: ClassVar[str] = "no-start"
    domain: ClassVar = Box((0.0,), (1.0,))
    time: ClassVar = (0.0, 1.0)

    def residual(self, f):
        return f.u_t

    def conditions(self):
        return (Periodic("x"),)

    def symbol(self, wavenumbers):
        return np.zeros((1, *wavenumbers[0].shape))

    def nonlinear(self, values, differentiate):
        return np.zeros_like(values)


def final_error(problem, **settings):
    """Largest error at the last time on the stored grid, without interpolation."""
    solution = solve(problem, Spectral(**settings))
    x = solution.field.axes[0]
    points = np.column_stack([x, np.full_like(x, problem.time[1])])
    return float(np.abs(solution.field.values[:, -1] - exact_values(problem, points)).max())


def exact_values(problem, points):
    """The closed form at points (n, d), (n, m)."""
    return resolve(problem).field(torch.as_tensor(points)).numpy()


def test_etdrk4_is_of_fourth_order():
    # v' = L v - v^2 has the logistic solution v = L e^{Lt} / (L / v0 + e^{Lt} - 1); complex L as well.
    linear = np.array([-3.0, 0.8, -1.0 + 2.0j])
    start = np.array([0.7, 0.2, 0.5 + 0.1j])
    truth = linear * np.exp(linear) / (linear / start + np.exp(linear) - 1)
    errors = []
    for n in (10, 20, 40):
        step, v = ETDRK4(linear, 1 / n, lambda v: -(v**2)), start
        for _ in range(n):
            v = step(v)
        errors.append(np.abs(v - truth).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders == pytest.approx([4, 4], abs=0.25)


@pytest.mark.parametrize("linear", [0.0, 1e-7, -1e-3, -2.0, -1e5, 1e-6j, 40j])
def test_etdrk4_solves_a_constant_force_exactly(linear):
    # v' = L v + 1, v(0) = 0: v = (e^{Lh} - 1) / L, which needs weights without cancellation for small L.
    h = 0.3
    v = ETDRK4(np.array([linear]), h, np.ones_like)(np.zeros(1, dtype=type(linear)))
    truth = np.expm1(linear * h) / linear if linear else h
    assert v[0] == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_grid_differentiates_and_refines_exactly(dimension):
    box = Box((0.2, -1.0, 3.0)[:dimension], (1.2, 1.0, 6.0)[:dimension])
    waves = np.array([2, -1, 3])[:dimension]
    k = 2 * math.pi * waves / (box.bounds[1] - box.bounds[0])
    coarse, fine = FourierGrid(box, 12), FourierGrid(box, 36)

    def on(grid, function):
        return function(grid.points @ k).reshape([len(a) for a in grid.axes])

    u = on(coarse, np.sin)
    for axis in range(dimension):
        assert np.abs(coarse.differentiate(u, axis) - k[axis] * on(coarse, np.cos)).max() < 1e-12 * abs(k).max()
        assert np.abs(coarse.differentiate(u, axis, 2) + k[axis] ** 2 * u).max() < 1e-11 * abs(k).max() ** 2
    two = np.stack([u, on(coarse, np.cos)])
    refined = coarse.backward(coarse.forward(two), 3)
    assert np.abs(refined - np.stack([on(fine, np.sin), on(fine, np.cos)])).max() < 1e-13


def test_products_are_dealiased():
    # The square of mode 7 on 24 points has mode 14, which would appear as mode 10: only the mean may stay.
    grid = FourierGrid(Box((0.0,), (1.0,)), 24)
    square = np.cos(2 * math.pi * 7 * grid.axes[0]) ** 2
    c = grid.forward(square[None])
    assert c[0, 0] == pytest.approx(12.0)
    assert np.abs(c[0, 1:]).max() < 1e-12


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_moving_mode_is_followed_in_every_dimension(dimension):
    problem = Spinning(dimension)
    solution = solve(problem, Spectral(n=12, n_steps=150, n_levels=31, refinement=2))
    assert solution.status is Status.CONVERGED
    assert solution.stats["dofs"] == 2 * 12**dimension

    # At the nodes of the last level only the time error is left, between them that of the interpolation:
    # order 8 with at least 12 points a wave.
    fine = FourierGrid(problem.domain, 24)
    nodes = np.column_stack([fine.points, np.full(24**dimension, 1.5)])
    between = interior(problem, 200, seed=3187)
    assert np.abs(solution.field.values[..., -1, :].reshape(-1, 2) - exact_values(problem, nodes)).max() < 3e-8
    assert np.abs(solution.at(between) - exact_values(problem, between)).max() < 3e-4


def test_time_error_of_burgers_is_of_fourth_order():
    errors = [final_error(Burgers(0.05), n=128, n_steps=s, n_levels=11, refinement=1) for s in (20, 40, 80)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.7).all(), errors


def test_space_error_of_burgers_falls_faster_than_any_power():
    errors = [final_error(Burgers(0.05), n=n, n_steps=400, n_levels=11, refinement=1) for n in (24, 48, 96, 192)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders[1] > orders[0] + 2, errors
    assert errors[-1] < 1e-9


def test_burgers_with_the_default_settings_meets_cole_hopf():
    solution = solve(Burgers(), Spectral())
    assert solution.error()["rel_l2"] < 3e-7
    assert solution.validity["spectral_tail"] < 1e-5
    assert set(solution.stats) >= {"dofs", "steps", "solve_s"}


def test_an_unresolved_run_shows_in_the_tail():
    assert solve(Burgers(), Spectral(n=128, n_steps=400)).validity["spectral_tail"] > 1e-2


def test_runs_are_reproducible_to_the_bit():
    first, again = (solve(Burgers(0.05), Spectral(n=64, n_steps=20, n_levels=11), seed=48109) for _ in range(2))
    assert np.array_equal(first.field.values, again.field.values)


def test_a_blow_up_is_reported_not_returned():
    settings = Spectral(n=8, n_steps=400, n_levels=21)
    solution = solve(Explosion(), settings, throw=False)
    assert solution.status is Status.NONFINITE
    assert "raise n_steps" in solution.message
    assert 200 < solution.stats["steps"] < 400  # near t = 1, not at the end
    with pytest.raises(SolveFailed, match="blew up"):
        solve(Explosion(), settings)


def test_steps_are_rounded_up_to_whole_levels():
    solution = solve(Burgers(0.05), Spectral(n=32, n_steps=25, n_levels=11))
    assert solution.stats["steps"] == 30
    assert solution.times == pytest.approx(np.linspace(0, 1, 11))


@pytest.mark.parametrize(
    ("problem", "need"),
    [(pdelab.problem("poisson-lshape"), "no box"), (NoStart(), "initial value of u"), (Spinning(4), "one to three")],
)
def test_what_it_cannot_solve_is_refused(problem, need):
    with pytest.raises(IncompatibleProblem, match=need):
        solve(problem, Spectral())


@pytest.mark.parametrize("key", [f.name for f in dataclasses.fields(Spectral)])
def test_settings_out_of_range_are_refused(key):
    with pytest.raises(SettingsError, match=key):
        Spectral(**{key: 0})


def test_problems_that_are_not_periodic_are_solved_at_chebyshev_nodes():
    assert solve(Poisson(), Spectral(n=24)).error()["rel_l2"] < 1e-11
    assert solve(pdelab.problem("heat"), Spectral(n=16, n_steps=40)).error()["rel_l2"] < 1e-9


def test_values_that_grow_without_bound_are_no_result():
    # Values prescribed where the flow leaves the box make a collocation of this order unstable.
    solution = solve(pdelab.problem("advection"), Spectral(n=24, n_steps=60), throw=False)
    assert solution.status is Status.UNSTABLE and "values up to" in solution.message

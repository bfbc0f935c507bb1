import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import pdelab
from pdelab.domain import Box, Interval
from pdelab.errors import IncompatibleProblem, InputError, SettingsError, SolveFailed
from pdelab.pde import AbstractProblem, Dirichlet, Exact, Initial, Neumann, Observations, Periodic
from pdelab.solution import Status
from pdelab.solver import solve
from pdelab.solvers._bandwidth import choose
from pdelab.solvers._features import Ansatz, FeatureField, Scaling, draw
from pdelab.solvers._linear_rows import LeastSquares, nonlinear_part
from pdelab.solvers.random_features import RandomFeatures


def error_of(problem, throw=True, **settings):
    solution = solve(problem, RandomFeatures(**settings), seed=5081, device="cpu", threads=1, throw=throw)
    return solution.error()["rel_l2"]


@dataclass(frozen=True)
class Beam(AbstractProblem):
    """u_t = -c u_xxxx, 3-periodic: a fourth derivative and an axis that closes."""

    name: ClassVar[str] = "beam"
    domain: ClassVar = Interval(-1.0, 2.0)
    time: ClassVar = (0.5, 1.5)
    wave: ClassVar = 2.0 * math.pi / 3.0

    def exact(self, p):
        return torch.sin(self.wave * p.x) * torch.exp(-(p.t - 0.5))

    def residual(self, f):
        return f.u_t + f.u_xxxx / self.wave**4

    def conditions(self):
        return Initial("u", self.exact), Periodic("x", order=4)

    def reference(self):
        return Exact(self.exact)


@dataclass(frozen=True)
class Acoustics(AbstractProblem):
    """u_t = -2 v_x, v_t = -2 u_x on [0, 1]: two components, two equations; u = v moves right."""

    name: ClassVar[str] = "acoustics"
    components: ClassVar = ("u", "v")
    domain: ClassVar = Interval(0.0, 1.0)
    time: ClassVar = (0.0, 0.5)

    def exact(self, p):
        right, left = torch.sin(3.0 * (p.x - 2.0 * p.t)), torch.cos(2.0 * (p.x + 2.0 * p.t))
        return right + left, right - left

    def residual(self, f):
        return f.u_t + 2.0 * f.v_x, f.v_t + 2.0 * f.u_x

    def conditions(self):
        first, second = (lambda p, i=i: self.exact(p)[i] for i in (0, 1))
        return Initial("u", first), Initial("v", second), Dirichlet("u", first)

    def reference(self):
        return Exact(self.exact)


@dataclass(frozen=True)
class Insulated(AbstractProblem):
    """Lap u = Lap exp(x) cos(2 y), slopes around but for Robin's condition above, and one pinned value."""

    transfer: float

    name: ClassVar[str] = "insulated"
    domain: ClassVar = Box((0.0, 0.0), (1.0, 2.0))

    def exact(self, p):
        return torch.exp(p.x) * torch.cos(2.0 * p.y)

    def residual(self, f):
        return f.u_xx + f.u_yy + 3.0 * self.exact(f)

    def conditions(self):
        def slope(p):
            return -2.0 * torch.exp(p.x) * torch.sin(2.0 * p.y)

        low, high, down, up = self.domain.parts
        return (
            Neumann("u", lambda p: -self.exact(p), low),
            Neumann("u", self.exact, high),
            Neumann("u", lambda p: -slope(p), down),
            Neumann("u", lambda p: slope(p) + self.transfer * self.exact(p), up, transfer=self.transfer),
            Observations("u", np.array([[0.0, 0.0]]), np.array([1.0])),
        )

    def reference(self):
        return Exact(self.exact)


@dataclass(frozen=True)
class Manufactured(AbstractProblem):
    """A field of known features is the solution of u_xx + (1 + x^2) u_yy - 3 u_x = its own left-hand side."""

    field: FeatureField

    name: ClassVar[str] = "manufactured"
    domain: ClassVar = Box((-1.0, 0.0), (2.0, 1.0))

    def residual(self, f):
        return self.operator(f) - self.operator(pdelab.calculus.jet(self.field, f.points, ("u",), self.axes))

    def operator(self, f):
        return f.u_xx + (1.0 + f.x**2) * f.u_yy - 3.0 * f.u_x

    def conditions(self):
        return (Dirichlet("u", lambda p: self.field(p.points)[:, 0]),)


def scaling(d, closed=()):
    half = torch.linspace(0.5, 2.0, d, dtype=torch.float64)
    return Scaling(torch.full((d,), 0.3, dtype=torch.float64), half, tuple(i in closed for i in range(d)))


@pytest.mark.parametrize("kind", ["tanh", "cos"])
@pytest.mark.parametrize("orders", [(1, 0, 0), (0, 2, 0), (1, 1, 1), (0, 1, 2), (4, 0, 0), (0, 0, 4), (2, 1, 1)])
def test_derivatives_are_those_of_automatic_differentiation(kind, orders):
    features = draw(Ansatz(kind, 3, (1.5, 4.0, 2.0)), scaling(3, closed={1}), 12, seed=81)
    rng = np.random.default_rng(82)
    field = FeatureField(features, torch.as_tensor(rng.standard_normal((12, 2))))
    x = torch.as_tensor(rng.uniform(-1.0, 1.0, (9, 3))).requires_grad_()
    for component in (0, 1):
        value = field(x)[:, component]
        for axis in itertools.chain.from_iterable([i] * n for i, n in enumerate(orders)):
            value = torch.autograd.grad(value.sum(), x, create_graph=True)[0][:, axis]
        closed_form = field.derivative(x, orders)[:, component]
        assert (closed_form - value).abs().max() <= 1e-12 * value.abs().max()


def test_features_are_periodic_and_couple_few_axes():
    features = draw(Ansatz("tanh", 2, (3.0,) * 4), scaling(4, closed={2}), 50, seed=83)
    used = (features.ridges != 0) | (features.waves != 0)
    # A small frequency on the periodic axis is rounded to none.
    assert used.sum(dim=1).max() == 2 and (used[:, [0, 1, 3]].sum(dim=1) >= 1).all()
    assert set(map(tuple, used.tolist())) >= {(True, True, False, False), (False, True, True, False)}
    x = torch.as_tensor(np.random.default_rng(84).uniform(-1.0, 1.0, (7, 4)))
    shifted = x.clone()
    shifted[:, 2] += 2.0 * features.scaling.half[2]
    terms = {(0, 0, 3, 1): torch.ones(7, dtype=torch.float64)}
    before, after = features.combine(x, terms), features.combine(shifted, terms)
    assert before.abs().max() > 1.0 and (before - after).abs().max() <= 1e-11 * before.abs().max()


def test_a_solution_in_the_span_is_recovered():
    rng = np.random.default_rng(85)
    coefficients = torch.as_tensor(rng.standard_normal((40, 1)))
    box = Scaling(torch.tensor([0.5, 0.5]).double(), torch.tensor([1.5, 0.5]).double(), (False, False))
    features = draw(Ansatz("cos", 2, (6.0, 6.0)), box, 40, seed=86)
    rows = LeastSquares(Manufactured(FeatureField(features, coefficients)), box, 120, 40, 0, seed=87)
    fit = rows.fit(features)
    assert fit.rank == 40 and fit.condition < 1e6
    assert np.abs(fit.coefficients - coefficients.numpy().ravel()).max() <= 1e-10
    assert rows.misfit(features, fit) <= 1e-12


@pytest.mark.parametrize(
    ("problem", "limit"),
    [
        (pdelab.problem("poisson"), 3e-14),
        (pdelab.problem("heat"), 3e-12),
        (pdelab.problem("helmholtz"), 5e-6),
        (pdelab.problem("convection"), 2e-8),
        (pdelab.problem("poisson-nd", dimension=4), 3e-7),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_smooth_problems_to_many_digits(problem, limit):
    assert error_of(problem, n_features=200 if problem.domain.dimension == 4 else 300) <= limit


@pytest.mark.parametrize(
    ("problem", "limit"), [(Beam(), 1e-12), (Acoustics(), 1e-11), (Insulated(0.0), 1e-9), (Insulated(2.5), 1e-9)]
)
def test_other_forms_of_equations(problem, limit):
    assert error_of(problem, n_features=200, feature="cos", bandwidth=3.0) <= limit


def test_a_periodic_axis_closes_exactly():
    solution = solve(Beam(), RandomFeatures(n_features=60, bandwidth=3.0), seed=5081, device="cpu", throw=False)
    ends = solution.at([[-1.0, 0.7], [2.0, 0.7]])
    assert abs(ends[0, 0] - ends[1, 0]) <= 1e-14 * float(solution.field.coefficients.abs().sum())


def test_more_features_are_better():
    problem = pdelab.problem("helmholtz")
    errors = [error_of(problem, throw=False, n_features=n, feature="cos", bandwidth=9.0) for n in (200, 300, 450)]
    assert errors[0] > 20 * errors[1] > 400 * errors[2]


def test_two_runs_have_the_same_bits():
    problem, solver = pdelab.problem("heat"), RandomFeatures(n_features=80)
    first, second = (solve(problem, solver, seed=3371, device="cpu", threads=1, throw=False) for _ in range(2))
    other = solve(problem, solver, seed=3372, device="cpu", threads=1, throw=False)
    points = np.random.default_rng(88).uniform(0.0, 1.0, (50, 2))
    assert np.array_equal(first.at(points), second.at(points))
    assert not np.array_equal(first.at(points), other.at(points))


def test_what_was_chosen_is_told():
    solution = solve(
        pdelab.problem("convection"), RandomFeatures(n_features=200, feature="cos"), seed=5081, device="cpu"
    )
    stats = solution.stats
    # 50 periods of 2 pi over the time interval are 25 radians per half axis.
    assert 10.0 <= stats["bandwidth_t"] <= 100.0 and stats["bandwidth_x"] <= 10.0
    assert stats["dofs"] == 200 and 1 <= stats["rank"] <= 200 and stats["rows"] == 400 + 50
    assert solution.validity["held_out_residual"] <= 1e-6 and "bandwidth x" in solution.message


def test_a_poor_fit_is_no_success():
    with pytest.raises(SolveFailed, match="relative residual .* raise n_features") as failed:
        solve(pdelab.problem("helmholtz", a1=6, a2=6), RandomFeatures(n_features=60), seed=5081, device="cpu")
    assert failed.value.solution.status is Status.MAX_ITERATIONS
    assert failed.value.solution.validity["held_out_residual"] > 0.1


def test_a_budget_in_seconds_ends_the_search():
    problem, solver = pdelab.problem("poisson"), RandomFeatures(n_features=50)
    short = solve(problem, solver, budget="0.001s", seed=5081, device="cpu", throw=False)
    assert short.stats["fits"] <= 2 < solve(problem, solver, seed=5081, device="cpu", throw=False).stats["fits"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("burgers", "its equation is not linear"), ("cavity", "equation 1 is not linear"), ("burgers-inverse", "pinn")],
)
def test_refusals(name, reason):
    with pytest.raises(IncompatibleProblem, match=reason):
        solve(pdelab.problem(name), RandomFeatures())


def test_refusals_of_settings():
    assert "each of its 2 axes" in RandomFeatures(bandwidth=(1.0, 2.0, 3.0)).refuses(pdelab.problem("heat"))
    assert "GB" in RandomFeatures(n_features=20_000).refuses(pdelab.problem("heat"))
    for wrong in ({"n_features": 0}, {"bandwidth": (1.0, 0.0)}, {"feature": "relu"}, {"n_interior": 0}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            RandomFeatures(**wrong)


def test_a_weak_nonlinearity_is_found():
    @dataclass(frozen=True)
    class Weak(Beam):
        strength: float = 0.0

        def residual(self, f):
            return f.u_t + f.u_xxxx / self.wave**4 + self.strength * f.u**3

    assert nonlinear_part(Weak(), seed=89) == "" and nonlinear_part(Weak(1e-6), seed=89) == "equation"


def test_data_that_are_not_finite_are_told():
    @dataclass(frozen=True)
    class Singular(Beam):
        def conditions(self):
            return Initial("u", lambda p: torch.where(p.x < 0.5, math.inf, p.x)), Periodic("x")

    with pytest.raises(InputError, match="'initial u' is not finite at 10 of 20 points"):
        LeastSquares(Singular(), Scaling.of(Singular()), 20, 20, 20, seed=90)


def test_the_search_finds_unequal_bandwidths():
    target = {"tanh": (2.0, 16.0, 0.5), "cos": (8.0, 1.0, 45.25)}

    def distance(a):
        away = sum(abs(math.log2(b / t)) for b, t in zip(a.bandwidth, target[a.kind], strict=True))
        return 1e-3 * 2.0**away * (2.0 if a.kind == "tanh" else 1.0) * (5.0 if a.coupling == 2 else 1.0)

    best = choose(distance, distance, 3, ("cos", "tanh"), (2, 3))
    assert (best.kind, best.coupling) == ("cos", 3)
    assert np.allclose(best.bandwidth, target["cos"], rtol=1e-2)

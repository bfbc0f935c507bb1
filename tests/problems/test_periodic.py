import functools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.io
import torch

from pdelab.calculus import Coordinates, jet
from pdelab.conditions import place
from pdelab.config import build
from pdelab.errors import SettingsError
from pdelab.metrics import relative_errors
from pdelab.pde import Initial, derivatives_used, residual_values
from pdelab.problems.advection import Advection, Convection, FlowMixing
from pdelab.problems.allen_cahn import AllenCahn
from pdelab.problems.burgers import Burgers, Burgers2D, BurgersFamily, BurgersRandom
from pdelab.problems.deformation import CENTRE, Deformation, traced_back, vortex
from pdelab.problems.fourier_series import gaussian_field
from pdelab.problems.gray_scott import GrayScott
from pdelab.problems.kdv import KdV
from pdelab.problems.kuramoto_sivashinsky import KuramotoSivashinsky
from pdelab.problems.navier_stokes import KolmogorovFamily, KolmogorovFlow
from pdelab.problems.reaction_diffusion import Reaction, ReactionDiffusion
from pdelab.reference import resolve
from pdelab.sampling import interior
from pdelab.solver import solve
from pdelab.solvers.spectral import Spectral

DATA = Path(__file__).parents[3] / "shared" / "data"

CLOSED = [
    Burgers(),
    Convection(),
    Convection(30.0),
    Reaction(),
    Reaction(10.0),
    Advection(),
    Advection(0.05),
    FlowMixing(),
    Deformation(),
    Deformation(3.0, 0.15),
]
SMALL = {"n": 128, "n_steps": 120, "n_levels": 41}
# problem, settings (None: those of the reference), residual relative to the time derivative, both as mean squares
COMPUTED = [
    (AllenCahn(), None, 1e-8),
    (KdV(), None, 1e-5),
    (KuramotoSivashinsky(), None, 1e-2),  # the round-off of a fourth derivative of local polynomials, eps / h^4
    (ReactionDiffusion(), None, 1e-5),
    (BurgersRandom(member=4), None, 1e-5),
    (Burgers2D(member=7), SMALL, 1e-5),
    (GrayScott(5.0), SMALL | {"n": 256}, 1.5e-3),  # 2e-2 on 128 points, 2e-5 on 384: the fronts are thin
    (KolmogorovFlow(final_time=0.5), SMALL, 1e-5),
]
ALL = [*CLOSED, *(p for p, _, _ in COMPUTED)]


@functools.cache
def solved(problem):
    """The reference run, or a smaller one for the problems in two dimensions."""
    settings = next((s for p, s, _ in COMPUTED if p == problem), None)
    return solve(problem, Spectral(**(settings or problem.reference().fine)))


def names(problems):
    return [p.name for p in problems]


@pytest.mark.parametrize("problem", CLOSED, ids=names(CLOSED))
def test_a_closed_form_satisfies_equation_and_conditions(problem):
    exact = resolve(problem).field
    points = torch.as_tensor(interior(problem, 400, seed=5303))
    f = jet(exact, points, problem.components, problem.axes)
    term = max(float(f.derivative(c, *along).detach().abs().max()) for c, along in derivatives_used(problem))
    assert float(problem.residual(f).detach().abs().max()) < 1e-10 * term
    for condition in place(problem, 64, 64, seed=811):
        g = jet(exact, torch.as_tensor(condition.points), problem.components, problem.axes)
        # At t = 0 the formula of Burgers is taken at t = 1e-12.
        assert float(condition.residual(g).detach().abs().max()) < 1e-9 * term, condition.name


@pytest.mark.parametrize(("problem", "settings", "tolerance"), COMPUTED, ids=names(p for p, _, _ in COMPUTED))
def test_a_computed_field_satisfies_its_equation(problem, settings, tolerance):
    points = interior(problem, 300, seed=6841)
    # The first times are left out: what the initial function lacks in smoothness is still there.
    points[:, -1] = 0.1 * problem.time[1] + 0.9 * points[:, -1]
    points = torch.as_tensor(points)
    field = solved(problem).field
    f = jet(field, points, problem.components, problem.axes)
    change = max(float(f.derivative(c, "t").detach().square().mean()) for c in problem.components)
    residual = float(residual_values(problem, field, points).square().mean(dim=0).max())
    assert math.sqrt(residual / change) < tolerance


@pytest.mark.parametrize("problem", [p for p, _, _ in COMPUTED], ids=names(p for p, _, _ in COMPUTED))
def test_a_computed_field_starts_from_the_initial_values(problem):
    for condition in place(problem, 64, 200, seed=2953):
        if isinstance(condition.condition, Initial):
            f = jet(solved(problem).field, torch.as_tensor(condition.points), problem.components, problem.axes)
            # The kinks of two initial functions at the ends cost up to 4 / (number of modes) there.
            assert float(condition.residual(f).detach().abs().max()) < 1e-3


@pytest.mark.parametrize("problem", ALL, ids=names(ALL))
def test_settings_survive_the_text_form(problem):
    assert build(type(problem), problem.parameters) == problem


@pytest.mark.parametrize(
    ("problem", "key", "value"),
    [
        (Burgers, "viscosity", 0.0),
        (AllenCahn, "diffusion", -1.0),
        (KdV, "dispersion", 0.0),
        (KuramotoSivashinsky, "final_time", 2.0),
        (GrayScott, "final_time", 0.0),
        (ReactionDiffusion, "diffusion", 0.0),
        (Reaction, "growth", -1.0),
        (Convection, "velocity", math.nan),
        (Advection, "width", 1.0),
        (Deformation, "period", 0.0),
        (Deformation, "width", 1.0),
        (BurgersRandom, "member", -1),
        (Burgers2D, "viscosity", 0.0),
        (KolmogorovFlow, "waves", 0),
    ],
)
def test_parameters_out_of_range_are_refused(problem, key, value):
    with pytest.raises(SettingsError, match=key):
        problem(**{key: value})


def test_a_deformed_gaussian_comes_back_and_stays_on_the_boundary():
    problem = Deformation(period=2.0)
    places = torch.as_tensor(interior(problem, 200, seed=3919))
    places[100:, 0] = torch.where(places[100:, 1] > 0.5, 1.0, 0.0)
    first, last = places.clone(), places.clone()
    first[:, 2], last[:, 2] = 0.0, 2.0
    exact = resolve(problem).field
    squared = ((places[:, :2] - torch.tensor(CENTRE)) ** 2).sum(dim=1)
    for x in (first, last, places[100:]):
        n = len(x)
        assert torch.allclose(exact(x)[:, 0], torch.exp(-squared[-n:] / 0.02), rtol=0, atol=1e-12)


def test_places_are_traced_back_as_by_another_integrator_along_the_flow_in_time():
    """The flow of the equations themselves, with its time, by the method of Dormand and Prince of order 8."""
    period = 3.0
    points = interior(Deformation(period=period), 20, seed=7129)
    since = torch.as_tensor(period / math.pi * np.sin(math.pi / period * points[:, 2]))
    found = traced_back(torch.as_tensor(points[:, :2]), since, vortex)

    def rate(t, x):
        a = np.sin(np.pi * x[0]) ** 2 * np.sin(2 * np.pi * x[1])
        b = -(np.sin(np.pi * x[1]) ** 2) * np.sin(2 * np.pi * x[0])
        return np.array([a, b]) * np.cos(np.pi * t / period)

    for point, origin in zip(points, found.numpy(), strict=True):
        done = scipy.integrate.solve_ivp(rate, (point[2], 0.0), point[:2], "DOP853", rtol=1e-13, atol=1e-14)
        assert np.abs(done.y[:, -1] - origin).max() < 1e-11


def test_burgers_stays_odd_and_zero_at_the_ends():
    u = solve(Burgers(), Spectral(n=512, n_steps=500, n_levels=11, refinement=1)).field.values[..., 0]
    assert np.abs(u[0]).max() < 1e-13  # x = -1, which is also x = 1
    assert np.abs(u[1:] + u[:0:-1]).max() < 1e-12
    assert np.abs(u.mean(axis=0)).max() < 1e-15


def test_kdv_keeps_mass_and_momentum():
    u = solved(KdV()).field.values[..., 0]
    assert np.abs(u.mean(axis=0)).max() < 1e-13
    assert (u**2).mean(axis=0) == pytest.approx(0.5, abs=1e-8)


def test_allen_cahn_energy_falls():
    problem = AllenCahn()
    u = solved(problem).field.values[:, ::20, 0]
    k = math.pi * np.arange(len(u) // 2 + 1)[:, None]
    slope = np.fft.irfft(1j * k * np.fft.rfft(u, axis=0), len(u), axis=0)
    energy = (0.5 * problem.diffusion * slope**2 + 1.25 * (u**2 - 1) ** 2).mean(axis=0)
    assert (np.diff(energy) < 0).all()


def test_kuramoto_sivashinsky_keeps_its_mean():
    u = solved(KuramotoSivashinsky()).field.values[..., 0]
    assert np.abs(u.mean(axis=0)).max() < 1e-13


def test_kuramoto_sivashinsky_holds_with_spectral_derivatives():
    problem = KuramotoSivashinsky()
    field = solved(problem).field
    x, times = field.axes
    level = len(times) // 2
    at = torch.tensor(np.column_stack([x, np.full_like(x, times[level])]))
    u_t = jet(field, at, ("u",), ("x", "t")).u_t.detach().numpy()
    c, k = np.fft.rfft(field.values[:, level, 0]), np.arange(len(x) // 2 + 1)
    u, u_x, u_xx, u_xxxx = (np.fft.irfft((1j * k) ** order * c, len(x)) for order in (0, 1, 2, 4))
    residual = u_t + 100 / 16 * u * u_x + 100 / 16**2 * u_xx + 100 / 16**4 * u_xxxx
    assert np.abs(residual).max() < 4e-5 * np.abs(u_t).max()


def test_reaction_diffusion_without_growth_is_the_heat_equation():
    problem = ReactionDiffusion(diffusion=1.0, growth=0.0)
    u = solve(problem, Spectral(n=64, n_steps=40, n_levels=11, refinement=1)).field.values[..., 0]
    before, after = np.fft.rfft(u[:, 0])[:4], np.fft.rfft(u[:, -1])[:4]
    assert after == pytest.approx(before * np.exp(-(np.arange(4.0) ** 2)), abs=1e-10)


def test_kolmogorov_flow_settles_in_the_laminar_profile():
    # Decay rate at least 0.5 + 2 > 25/10: what is left after t = 10 is w = -4 cos(4 y) / (16 viscosity + drag).
    problem = KolmogorovFlow(viscosity=0.5, drag=2.0, final_time=10.0, member=6)
    values = solve(problem, Spectral(n=32, n_steps=500, n_levels=11)).field.values[:, :, -1]
    w = -4.0 * np.cos(4.0 * 2 * math.pi * np.arange(32) / 32) / (16 * 0.5 + 2.0)
    assert np.abs(values[..., 0] - w).max() < 1e-8
    assert np.abs(values[..., 1] - w / 16).max() < 1e-8


def test_gray_scott_is_at_rest_far_from_the_bumps():
    # u = 1, v = 0 is a fixed point, and diffusion has come 0.04 far.
    values = solved(GrayScott(5.0)).at([[0.95, 0.95, 2.0], [-0.9, 0.9, 5.0]])
    assert values == pytest.approx(np.array([[1.0, 0.0]] * 2), abs=1e-6)


def test_members_of_a_family_are_fixed_by_their_number():
    for family, d in ((BurgersFamily(0.02), 1), (KolmogorovFamily(final_time=0.5), 2)):
        one, same, other = family.sample(11), family.sample(11), family.sample(12)
        assert one == same
        assert one.viscosity == family.viscosity
        sensors = interior(one, 50, seed=929)
        code = family.encode(one, sensors)
        assert code.shape == (50, 1)
        assert np.array_equal(code, family.encode(same, sensors[:, :d]))
        assert np.abs(code - family.encode(other, sensors)).max() > 0.1
        initial = next(c for c in one.conditions() if isinstance(c, Initial))
        at_start = Coordinates(torch.as_tensor(sensors), one.axes)
        assert code[:, 0] == pytest.approx(initial.value(at_start).numpy())


def test_a_gaussian_field_has_its_covariance():
    # cov(f(x), f(y)) = deviation(0)^2 + 2 sum deviation(k)^2 cos(k (x - y)), for the law of the family.
    problem = BurgersRandom()
    x = torch.tensor([[0.2], [0.45]], dtype=torch.float64)
    draws = np.array([BurgersRandom(member=m).initial().at(x).numpy() for m in range(1000)])
    k = 2 * math.pi * np.arange(1, 17)
    eigenvalue = 625.0 / (k**2 + 25.0) ** 2
    variance = 1.0 + 2 * eigenvalue.sum()
    covariance = 1.0 + 2 * (eigenvalue * np.cos(0.25 * k)).sum()
    assert np.abs(draws.mean(axis=0)).max() < 4 * math.sqrt(variance / 1000)
    # Four standard deviations of the estimates.
    assert (draws**2).mean(axis=0) == pytest.approx(variance, rel=4 * math.sqrt(2 / 1000))
    assert draws.prod(axis=1).mean() == pytest.approx(covariance, abs=4 * variance * math.sqrt(2 / 1000))
    assert float((draws[0] - problem.initial().at(x).numpy()).any()) == 0.0


def test_a_gaussian_field_is_periodic_and_takes_one_of_each_pair():
    box = Burgers2D.domain
    field = gaussian_field(box, lambda k: np.exp(-k), 2, seed=17)
    assert len(field.wavevectors) == 13  # (5^2 - 1) / 2 pairs and the mean
    points = torch.tensor([[0.3, 1.1], [4.3, 1.1], [0.3, -2.9]], dtype=torch.float64)
    assert float(field.at(points).std()) < 1e-12


def test_flow_mixing_is_finite_at_the_centre_of_the_vortex():
    problem = FlowMixing()
    points = torch.tensor([[0.0, 0.0, 2.0], [1e-9, 0.0, 2.0]], dtype=torch.float64)
    f = jet(resolve(problem).field, points, problem.components, problem.axes)
    assert f.u.detach().tolist() == pytest.approx([0.0, 0.0], abs=1e-8)
    # The middle turns as a rigid body at 1/0.385: the slope is that of -tanh(y/2), turned by the angle 2/0.385.
    angle = 2.0 / 0.385
    assert float(f.u_x[0].detach()) == pytest.approx(0.5 * math.sin(angle), abs=1e-12)
    assert float(f.u_y[0].detach()) == pytest.approx(-0.5 * math.cos(angle), abs=1e-12)
    assert problem.residual(f).detach().abs().max() < 1e-12


def grid_points(x, t):
    """All (x, t), x fastest, (n, 2)."""
    return np.stack(np.meshgrid(np.ravel(x), np.ravel(t), indexing="xy"), axis=-1).reshape(-1, 2)


def data(name):
    if not (DATA / name).exists():
        pytest.skip(f"third-party data {name} is not here")
    return DATA / name


def difference(values, truth):
    return relative_errors(values.reshape(-1, 1), np.asarray(truth).reshape(-1, 1), ("u",))["rel_l2"]


def test_cole_hopf_agrees_with_the_chebfun_data_of_raissi():
    file = scipy.io.loadmat(data("raissi-pinns/burgers_shock.mat"))
    points = grid_points(file["x"], file["t"][::4])
    exact = resolve(Burgers()).field(torch.as_tensor(points)).numpy()
    assert difference(exact, file["usol"].T[::4]) < 1e-6


def test_cole_hopf_reproduces_the_defect_of_the_pinnacle_reference():
    # That reference is a coarse finite-element run: the exact solution is 1.326e-2 away from it.
    table = np.loadtxt(data("pinnacle/burgers1d.dat"), comments="%")
    points = grid_points(table[:, 0], np.linspace(0.0, 1.0, table.shape[1] - 1))
    exact = resolve(Burgers()).field(torch.as_tensor(points)).numpy()
    assert difference(exact, table[:, 1:].T) == pytest.approx(1.326e-2, rel=0.03)


def test_allen_cahn_agrees_with_the_data_of_raissi():
    file = scipy.io.loadmat(data("raissi-pinns/AC.mat"))
    values = solved(AllenCahn()).at(grid_points(file["x"], file["tt"]))
    assert difference(values, file["uu"].T) < 5e-3


def test_allen_cahn_agrees_with_the_data_of_deepxde():
    # Their equation is u_t = 0.001 u_xx + 5 (u - u^3), ten times the usual diffusion.
    file = scipy.io.loadmat(data("deepxde/Allen_Cahn.mat"))
    values = solved(AllenCahn(1e-3)).at(grid_points(file["x"], file["t"]))
    assert difference(values, file["u"]) < 5e-3

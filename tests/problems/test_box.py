"""Problems on boxes: closed forms and computed references satisfy their equations and conditions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pdelab.calculus import Coordinates, jet
from pdelab.domain import Box
from pdelab.errors import InputError, SettingsError
from pdelab.metrics import evaluation_points, relative_errors
from pdelab.pde import AbstractDiffusionProblem, Dirichlet, Initial, Neumann, equations, residual_values
from pdelab.problems.cavity import Cavity, ParabolicCavity
from pdelab.problems.diffusion_sorption import DIFFUSIVITY, DiffusionSorption, DiffusionSorptionFamily
from pdelab.problems.heat import Heat, HeatLong, HeatMultiscale, HeatVariable
from pdelab.problems.helmholtz import Helmholtz
from pdelab.problems.nonlinear_diffusion import NonlinearDiffusion
from pdelab.problems.poisson import PoissonND
from pdelab.problems.wave import KleinGordon, Wave, Wave2D
from pdelab.reference import _compute, resolve
from pdelab.sampling import boundary, initial, interior

SEED = 90173
LID = Path(__file__).parents[2] / ".." / "shared" / "data" / "pinnacle" / "lid_driven_a4.dat"

CLOSED = [
    Heat(),
    Heat(diffusivity=0.7),
    HeatMultiscale(),
    Helmholtz(),
    Helmholtz(a1=3, a2=2, k=2.5),
    KleinGordon(),
    PoissonND(),
    PoissonND(dimension=2),
    Wave(),
    Wave(speed=0.8),
    Wave2D(final_time=2.0),
]


def condition_residuals(problem, field, n=64):
    """Largest residual of each boundary and initial condition of a field."""
    found = []
    for condition in problem.conditions():
        if isinstance(condition, Initial):
            points, normals = initial(problem, n, SEED), None
        elif isinstance(condition, Dirichlet | Neumann):
            sample = boundary(problem, n, SEED, condition.part)
            points, normals = sample.points, torch.as_tensor(sample.normals)
            kept = problem.scored(points)
            points, normals = points[kept], normals[torch.as_tensor(kept)]
        else:
            continue
        f = jet(field, torch.as_tensor(points), problem.components, problem.axes)
        found.append(float(condition.residual(f, normals).abs().max().detach()))
    return found


@pytest.mark.parametrize("problem", CLOSED, ids=lambda p: f"{p.name}-{'-'.join(str(v) for v in p.parameters.values())}")
def test_closed_forms_satisfy_equation_and_conditions(problem):
    field = resolve(problem).field
    points = torch.as_tensor(interior(problem, 200, SEED))
    assert residual_values(problem, field, points).abs().max() < 1e-9
    assert max(condition_residuals(problem, field)) < 1e-11
    # The test must be able to fail: another field leaves large residuals.
    assert (
        residual_values(problem, lambda x: field(x) + 0.1 * x.sum(dim=1, keepdim=True) ** 3, points).abs().max() > 0.1
    )


@pytest.mark.parametrize(
    "problem",
    [Heat(), HeatMultiscale(), HeatLong(), HeatVariable(), Helmholtz(), NonlinearDiffusion(), PoissonND(3)]
    + [DiffusionSorption()],
    ids=lambda p: p.name,
)
def test_diffusion_coefficients_state_the_same_equation(problem):
    """mass u_t - div(diffusion grad u) - source is a positive multiple of the residual, for any field."""
    assert isinstance(problem, AbstractDiffusionProblem)

    def trial(x):
        return (0.5 + 0.3 * torch.sin(1.3 * x).sum(dim=1) + 0.1 * x.prod(dim=1)).abs()[:, None]

    points = torch.as_tensor(interior(problem, 32, SEED))
    f = jet(trial, points, ("u",), problem.axes)
    (strong,) = equations(problem.residual(f))
    c = problem.coefficients(f, f.u)
    space = len(f.space_axes)
    diffusion = c.diffusion if isinstance(c.diffusion, tuple) else (c.diffusion,) * space
    divergence = 0.0
    for i, axis in enumerate(f.space_axes):
        flux = diffusion[i] * f.derivative("u", axis)
        divergence = divergence + torch.autograd.grad(flux.sum(), f.points, retain_graph=True)[0][:, i]
    weak = (c.mass * f.u_t if problem.time else 0.0) - divergence - c.source
    factor = weak / strong
    if problem.name in ("helmholtz", "poisson-nd"):
        factor = -factor  # their residual is the Laplacian's side
    expected = c.mass if problem.time else torch.ones_like(factor)
    assert torch.allclose(factor, torch.as_tensor(expected, dtype=factor.dtype).expand(len(factor)), rtol=1e-9)


def test_the_anisotropic_membrane_has_whole_wave_numbers():
    assert 1**2 + 2 * 2**2 == 3**2


def test_variable_medium_follows_its_seed():
    p = Coordinates(torch.as_tensor(interior(HeatVariable(), 500, SEED)), ("x", "y", "t"))
    first, again, other = (HeatVariable(seed=s).medium(p) for s in (611, 611, 612))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1
    assert first.min() > 0.0
    assert torch.equal(HeatVariable(contrast=0.0).medium(p), torch.ones_like(first))


def test_diffusion_sorption_reference():
    """Equation where the solution is smooth, conditions, and that lower levels stay below higher ones."""
    problem = DiffusionSorption()
    reference = _compute(problem, problem.reference())
    points = evaluation_points(problem, 512)
    # Away from the corners: differentiating the interpolant twice costs accuracy where cells are small.
    points = torch.as_tensor(points[(points[:, 1] > 50.0) & (points[:, 0] > 0.05) & (points[:, 0] < 0.95)])
    f = jet(reference.field, points, ("u",), ("x", "t"))
    scale = f.u_t.abs().max()
    assert problem.residual(f).abs().max() < 1e-3 * scale
    assert reference.floor < 1e-5
    ends = torch.tensor([[0.0, 200.0], [1.0, 200.0]], dtype=torch.float64)
    g = jet(reference.field, ends, ("u",), ("x", "t"))
    assert abs(g.u[0].item() - 1.0) < 1e-12
    assert abs((g.u[1] + DIFFUSIVITY * g.u_x[1]).item()) < 1e-6
    values = reference.field(points)
    assert values.min().item() >= 0.0
    assert values.max().item() <= 1.0


def test_diffusion_sorption_family():
    family = DiffusionSorptionFamily()
    members = [family.sample(seed) for seed in (31, 31, 32)]
    assert members[0] == members[1] != members[2]
    assert all(0.0 <= m.level <= 0.2 for m in members)
    sensors = np.linspace(0.0, 1.0, 5)[:, None]
    assert np.array_equal(family.encode(members[0], sensors), np.full((5, 1), members[0].level))
    with pytest.raises(InputError, match="heat"):
        family.encode(Heat(), sensors)


def test_nonlinear_diffusion_keeps_its_mass():
    problem = NonlinearDiffusion()
    reference = _compute(problem, problem.reference())
    x = np.linspace(-1.0, 1.0, 121)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)

    def mass(t):
        with torch.no_grad():
            u = reference.field(torch.as_tensor(np.c_[grid, np.full(len(grid), t)]))
        return float(u.sum()) * (x[1] - x[0]) ** 2

    # The boundary values of the Gaussians' tails are 4e-4: so much can be lost at most.
    assert abs(mass(1.0) / mass(0.0) - 1.0) < 3e-3
    assert reference.floor < 2e-3


def test_variable_heat_reference_satisfies_its_equation():
    problem = HeatVariable()
    reference = _compute(problem, problem.reference())
    assert reference.floor < 5e-3
    points = torch.as_tensor(interior(problem, 300, SEED))
    residual = residual_values(problem, reference.field, points)
    assert residual.square().mean().sqrt() < 0.02 * 100.0  # the source's root mean square is 50


@pytest.mark.slow
def test_long_heat_reference():
    problem = HeatLong()
    reference = _compute(problem, problem.reference())
    assert reference.floor < 0.05
    points = torch.tensor([[0.11, 0.3, 1.7], [0.61, 0.3, 1.7], [0.39, 0.3, 1.7]], dtype=torch.float64)
    first, shifted, mirrored = reference.field(points)[:, 0]
    assert abs(first - shifted) < 1e-12
    assert abs(first + mirrored) < 1e-12


@pytest.mark.slow
def test_cavity_at_reynolds_100():
    """Extremes of the centre-line velocity, mass, and momentum."""
    problem = Cavity()
    reference = _compute(problem, problem.reference())
    assert reference.floor < 1e-3
    y = np.linspace(0.0, 1.0, 801)
    with torch.no_grad():
        u = reference.field(torch.as_tensor(np.c_[np.full(801, 0.5), y]))[:, 0].numpy()
    assert u.min() == pytest.approx(-0.21404, rel=5e-4)  # Botella & Peyret's method gives -0.2140424
    assert abs(np.trapezoid(u, y)) < 1e-5  # as much flows left as right
    assert u[-1] == 1.0
    points = torch.as_tensor(evaluation_points(problem, 400))
    points = points[((points > 0.1) & (points < 0.9)).all(dim=1)]
    assert residual_values(problem, reference.field, points).abs().max() < 0.02


@pytest.mark.slow
def test_cavity_at_reynolds_1000():
    problem = Cavity(reynolds=1000.0)
    reference = _compute(problem, problem.reference())
    assert reference.floor < 3e-3
    with torch.no_grad():
        line = torch.as_tensor(np.c_[np.full(801, 0.5), np.linspace(0.0, 1.0, 801)])
        assert float(reference.field(line)[:, 0].min()) == pytest.approx(-0.38857, rel=2e-3)


def test_parabolic_cavity_agrees_with_independent_data():
    if not LID.exists():
        pytest.skip("../shared/data/pinnacle/lid_driven_a4.dat is not there")
    data = np.loadtxt(LID, comments="%")
    problem = ParabolicCavity()
    data = data[problem.scored(data[:, :2])]
    reference = _compute(problem, problem.reference())
    with torch.no_grad():
        values = reference.field(torch.as_tensor(data[:, :2])).numpy()
    truth = data[:, 2:] - [0.0, 0.0, data[:, 4].mean()]
    values[:, 2] -= values[:, 2].mean()
    errors = relative_errors(values, truth, problem.components)["per_component"]
    assert errors["u"]["rel_l2"] < 6e-4
    assert errors["v"]["rel_l2"] < 6e-4
    assert errors["p"]["rel_l2"] < 3e-3


def test_corners_of_the_cavity_are_not_scored():
    points = np.array([[0.01, 0.99], [0.99, 0.99], [0.01, 0.01], [0.5, 0.5]])
    assert ParabolicCavity().scored(points).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Heat(diffusivity=0.0),
        lambda: Helmholtz(a1=0),
        lambda: Wave(speed=-1.0),
        lambda: KleinGordon(final_time=0.0),
        lambda: PoissonND(dimension=11),
        lambda: Cavity(reynolds=math.nan),
        lambda: DiffusionSorption(level=0.3),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(SettingsError, match="expected a number"):
        make()


def test_nd_domain():
    assert PoissonND(dimension=4).domain == Box((0.0,) * 4, (1.0,) * 4)
    assert PoissonND(dimension=4).axes == ("x1", "x2", "x3", "x4")

import math

import numpy as np
import pytest
import torch

from pdelab.calculus import Coordinates, jet
from pdelab.errors import InputError, SettingsError
from pdelab.problems.burgers import Burgers
from pdelab.problems.elasticity import NonlinearElasticRVE, RVEFamily

CELL = NonlinearElasticRVE()
SHARES = torch.linspace(0, 1, 5, dtype=torch.float64)


def random_strains(n, seed):
    return torch.as_tensor(np.random.default_rng(seed).uniform(-0.1, 0.1, (n, 3)))


def waves(x):
    """A smooth periodic fluctuation."""
    a, b = 2 * math.pi * x[:, 0], 2 * math.pi * x[:, 1]
    return 1e-3 * torch.stack(
        [torch.sin(a) * torch.cos(b) + torch.cos(b), torch.sin(a + 0.4) + torch.sin(2 * b - a)], 1
    )


def test_shear_saturates_and_bulk_does_not():
    strain = torch.tensor([[0.0, 0.0, 0.03], [0.0, 0.0, 3e4], [0.01, 0.01, 0.0]], dtype=torch.float64)
    stress = CELL.stress(strain, torch.zeros(3, dtype=torch.float64))
    n = 0.015 * math.sqrt(2)
    assert float(stress[0, 2]) == pytest.approx(50 / (0.06 + n) * 0.015, rel=1e-13)
    assert float(stress[1, 2]) == pytest.approx(50 / math.sqrt(2), rel=1e-5)
    # Equal strain in the plane and none across it: the deviator is (1, 1, -2) 0.01/3, of norm 0.01 sqrt(6)/3.
    shear = 50 / (0.06 + 0.01 * math.sqrt(6) / 3) * 0.01 / 3
    assert stress[2].tolist() == pytest.approx([4780 * 0.02 + shear, 4780 * 0.02 + shear, 0], rel=1e-13)


def test_the_inclusion_is_linear_and_isotropic():
    strain = random_strains(20, 911)
    share = torch.ones(20, dtype=torch.float64)
    stress, mean = CELL.stress(strain, share), strain[:, :2].sum(1) / 3
    assert torch.allclose(CELL.stress(3 * strain, share), 3 * stress, rtol=1e-13)
    assert torch.allclose(stress[:, 2], 2.99180328e4 * strain[:, 2], rtol=1e-13)
    assert torch.allclose(stress[:, 0], 3 * 4.3452381e4 * mean + 2 * 2.99180328e4 * (strain[:, 0] - mean), rtol=1e-12)


@pytest.mark.parametrize("share", SHARES)
def test_stress_is_the_gradient_of_the_energy(share):
    strain = random_strains(50, 613).requires_grad_()
    shares = share.expand(50)
    (slope,) = torch.autograd.grad(CELL.energy(strain, shares).sum(), strain)
    strain = strain.detach()
    stress = CELL.stress(strain, shares)
    assert float((stress - slope).abs().max()) < 1e-12 * float(stress.abs().max())
    h = 1e-6
    for i, unit in enumerate(torch.eye(3, dtype=torch.float64)):
        difference = (CELL.energy(strain + h * unit, shares) - CELL.energy(strain - h * unit, shares)) / (2 * h)
        assert float((stress[:, i] - difference).abs().max()) < 1e-8 * float(stress.abs().max())


@pytest.mark.parametrize("share", SHARES)
def test_tangent_is_the_derivative_of_the_stress_symmetric_and_positive(share):
    strain = random_strains(50, 733)
    shares = share.expand(50)
    tangent = CELL.tangent(strain, shares)
    h = 1e-6
    for i, unit in enumerate(torch.eye(3, dtype=torch.float64)):
        difference = (CELL.stress(strain + h * unit, shares) - CELL.stress(strain - h * unit, shares)) / (2 * h)
        assert float((tangent[:, :, i] - difference).abs().max()) < 1e-7 * float(tangent.abs().max())
    assert torch.allclose(tangent, tangent.transpose(1, 2), rtol=1e-14)
    assert float(torch.linalg.eigvalsh(tangent).min()) > 10


def test_law_at_rest():
    zero, share = torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert not CELL.stress(zero, share).any()
    g = 50 / 0.06
    expected = [[4780 + 2 * g / 3, 4780 - g / 3, 0], [4780 - g / 3, 4780 + 2 * g / 3, 0], [0, 0, g / 2]]
    assert torch.allclose(CELL.tangent(zero, share)[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-10)


@pytest.mark.parametrize("transition", [0.0, 0.3])
def test_residual_is_the_divergence_of_the_stress(transition):
    problem = NonlinearElasticRVE(transition=transition)
    points = torch.as_tensor(np.random.default_rng(347).uniform(-0.5, 0.5, (200, 2)))
    if not transition:
        points = points[((points**2).sum(1).sqrt() - 0.25).abs() > 1e-3]

    def stress(x):
        f = jet(waves, x, problem.components, problem.axes)
        return problem.stress(problem.strain(f), problem.share(f)).detach()

    h = 1e-5
    along = [
        (stress(points + h * unit) - stress(points - h * unit)) / (2 * h) for unit in torch.eye(2, dtype=torch.float64)
    ]
    expected = torch.stack([along[0][:, 0] + along[1][:, 2], along[0][:, 2] + along[1][:, 1]])
    found = torch.stack(problem.residual(jet(waves, points, problem.components, problem.axes))).detach()
    assert float((found - expected).abs().max()) < 1e-6 * float(expected.abs().max())


def test_share_of_the_inclusion():
    at = Coordinates(torch.tensor([[0.0, 0.0], [0.2, 0.1], [0.25, 0.0], [0.3, 0.0], [0.4, 0.4]]).double(), ("x", "y"))
    assert CELL.share(at).tolist() == [1, 1, 0, 0, 0]
    soft = NonlinearElasticRVE(transition=0.2).share(at)
    assert soft[[0, 2, 4]].tolist() == [1, 0.5, 0]
    assert 0 < float(soft[3]) < 0.5


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingsError, match=r"shear_xy: expected a number >= -0.04 and <= 0.04, got 0.05"):
        NonlinearElasticRVE(shear_xy=0.05)
    with pytest.raises(SettingsError, match="radius"):
        NonlinearElasticRVE(radius=0.5)
    with pytest.raises(SettingsError, match="transition: a layer around radius 0.4 may be 0.2 thick, got 0.3"):
        NonlinearElasticRVE(radius=0.4, transition=0.3)
    with pytest.raises(SettingsError, match="largest"):
        RVEFamily(largest=0.1)


def test_family_fills_its_box_and_tells_the_strain():
    family = RVEFamily(radius=0.3, largest=0.02)
    strains = np.array([family.sample(seed).macro_strain for seed in range(500, 800)])
    assert np.abs(strains).max() <= 0.02
    assert (strains.min(axis=0) < -0.018).all() and (strains.max(axis=0) > 0.018).all()
    assert np.abs(np.corrcoef(strains.T) - np.eye(3)).max() < 0.25
    member = family.sample(611)
    assert member.radius == 0.3
    assert np.array_equal(family.encode(member, np.zeros((4, 2))), np.tile(member.macro_strain, (4, 1)))
    with pytest.raises(InputError, match="expected a member of 'rve', got 'burgers'"):
        family.encode(Burgers(), np.zeros((4, 2)))

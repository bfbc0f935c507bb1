import dataclasses
import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from pdelab import sampling
from pdelab.domain import SAMPLERS, AbstractDomain, BoundarySample, Box
from pdelab.errors import InputError, SettingsError, ShapeError
from pdelab.pde import AbstractProblem
from pdelab.shapes import Annulus, Disk


@dataclasses.dataclass(frozen=True)
class Still(AbstractProblem):
    """u_t = 0 on a ring."""

    name: ClassVar[str] = "still"
    domain: ClassVar[AbstractDomain] = Annulus((0.0, 0.0), 1.0, 2.0)
    time: ClassVar[tuple[float, float] | None] = (3.0, 5.0)

    def residual(self, f):
        return f.u_t

    def conditions(self):
        return ()


@dataclasses.dataclass(frozen=True)
class Steady(AbstractProblem):
    """u = 0 on a square."""

    name: ClassVar[str] = "steady"
    domain: ClassVar[AbstractDomain] = Box((-1.0, -1.0), (1.0, 1.0))

    def residual(self, f):
        return f.u

    def conditions(self):
        return ()


@pytest.mark.parametrize("method", SAMPLERS)
def test_interior_fills_space_and_time(method):
    points = sampling.interior(Still(), 1000, 2617, method)
    assert points.shape == (1000, 3)
    assert Still.domain.inside(points[:, :2]).all()
    assert points[:, 2].min() > 3.0 and points[:, 2].max() < 5.0
    # Place and time are independent: of 1000 independent points the correlation has standard error 0.03.
    assert abs(np.corrcoef(np.hypot(*points[:, :2].T), points[:, 2])[0, 1]) < 0.1
    assert points[:, 2].mean() == pytest.approx(4.0, abs=0.06)
    assert np.array_equal(points, sampling.interior(Still(), 1000, 2617, method))


@pytest.mark.parametrize("method", SAMPLERS)
def test_boundary_and_initial_points_have_a_time(method):
    edge = sampling.boundary(Still(), 400, 59, "outer", method)
    assert edge.points.shape == (400, 3) and edge.normals.shape == (400, 2)
    np.testing.assert_allclose(np.hypot(*edge.points[:, :2].T), 2.0)
    angle = np.arctan2(edge.points[:, 1], edge.points[:, 0])
    assert abs(np.corrcoef(angle, edge.points[:, 2])[0, 1]) < 0.15
    assert 3.0 <= edge.points[:, 2].min() < 3.1 and 4.9 < edge.points[:, 2].max() <= 5.0
    first = sampling.initial(Still(), 50, 59, method)
    assert (first[:, 2] == 3.0).all() and Still.domain.inside(first[:, :2]).all()


def test_a_list_is_a_seed_too():
    one, same, other = (sampling.boundary(Still(), 20, seed).points for seed in (7, [7], [7, 1]))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize(("power", "offset"), [(1.0, 0.0), (1.0, 1.0), (2.0, 0.5)])
def test_adaptive_points_have_the_density_of_the_formula(power, offset):
    # r = 3 on the right half, 1 on the left.
    def residual(x):
        return np.where(x[:, 0] > 0, 3.0, -1.0)

    points = sampling.adaptive(Steady(), residual, 2000, 1409, candidates=100_000, power=power, offset=offset)
    mean = (3**power + 1) / 2
    right, left = 3**power / mean + offset, 1 / mean + offset
    expected = right / (right + left)
    assert (points[:, 0] > 0).mean() == pytest.approx(expected, abs=3 * math.sqrt(0.25 / 2000))


def test_adaptive_is_a_function_of_the_seed_without_repeats():
    def residual(x):
        return np.exp(-20 * (x**2).sum(axis=1))[:, None] * [1e200, 0.0]

    first, again, other = (sampling.adaptive(Steady(), residual, 100, seed, power=2.0) for seed in (31, 31, 33))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(np.unique(first, axis=0)) == 100 and first.shape == (100, 2)
    moving = sampling.adaptive(Still(), lambda x: x[:, 2] ** 4, 100, 31, offset=0.0)
    assert moving.shape == (100, 3) and moving[:, 2].mean() > 4.1
    zero = sampling.adaptive(Steady(), lambda x: torch.zeros(len(x), 1), 50, 31)
    assert zero.shape == (50, 2)


def test_adaptive_refuses_bad_input():
    def flat(x):
        return np.ones(len(x))

    with pytest.raises(SettingsError, match="candidates.*>= 10.*9"):
        sampling.adaptive(Steady(), flat, 10, 3, candidates=9)
    with pytest.raises(SettingsError, match="power"):
        sampling.adaptive(Steady(), flat, 10, 3, power=-1.0)
    with pytest.raises(SettingsError, match="offset"):
        sampling.adaptive(Steady(), flat, 10, 3, offset=math.nan)
    with pytest.raises(ShapeError, match="expected shape \\(100,\\)"):
        sampling.adaptive(Steady(), lambda x: np.ones(7), 10, 3)
    with pytest.raises(InputError, match="100 of 100 values are not finite"):
        sampling.adaptive(Steady(), lambda x: np.full(len(x), np.nan), 10, 3)
    with pytest.raises(InputError, match="offset above 0"):
        sampling.adaptive(Steady(), lambda x: np.arange(len(x)) == 5, 10, 3, offset=0.0)
    with pytest.raises(InputError, match="at least 1"):
        sampling.adaptive(Steady(), flat, 0, 3)


def test_audit_finds_what_is_wrong():
    class Wrong(AbstractDomain):
        """A disk whose samplers lie: normals inward and too long, boundary too large, measure too small."""

        disk = Disk((0.0, 0.0), 1.0)
        bounds, parts, measure = disk.bounds, disk.parts, 0.5 * disk.measure

        def boundary_measure(self, part=None):
            return self.disk.boundary_measure(part)

        def signed_distance(self, x):
            return self.disk.signed_distance(x)

        def part_distance(self, x, part):
            return self.disk.part_distance(x, part)

        def sample_boundary(self, n, seed, part=None, method="sobol"):
            true = self.disk.sample_boundary(n, seed, part, method)
            return BoundarySample(1.1 * true.points, -2 * true.normals, true.parts)

        def sample(self, n, seed, method="sobol"):
            return np.full((n, 2), 3.0)

    found = sampling.audit(Wrong(), 64, 23)
    assert found.outside == 64 and found.wrong_side == 64
    assert found.measure_error == pytest.approx(1.0, abs=0.1)
    assert found.normal_error == pytest.approx(1.0)
    assert found.off_boundary == found.off_part == pytest.approx(0.1 / math.sqrt(8))

import math

import numpy as np
import pytest
import torch

from pdelab.domain import SAMPLERS, Box, Interval, rejection_sample, safe_sqrt, split_count, stream, unit_sample
from pdelab.errors import InputError, SettingsError, UnknownName

BOX = Box((-1.0, 0.0, 2.0), (1.0, 0.5, 5.0))


def test_measures_of_a_box():
    assert BOX.measure == pytest.approx(3.0)
    assert BOX.boundary_measure() == pytest.approx(2 * (2 * 0.5 + 2 * 3 + 0.5 * 3))
    assert BOX.boundary_measure("top") == pytest.approx(6.0)
    assert Interval(0.0, 3.0).boundary_measure() == 2.0


def test_parts_and_axes_by_dimension():
    assert Interval(0.0, 1.0).parts == ("left", "right")
    assert BOX.parts == ("left", "right", "bottom", "top", "front", "back")
    four = Box((0.0,) * 4, (1.0,) * 4)
    assert four.axes == ("x1", "x2", "x3", "x4")
    assert four.parts[6:] == ("x4-min", "x4-max")


def test_signed_distance_of_a_box_is_exact():
    rng = np.random.default_rng(3307)
    x = rng.uniform(-2.0, 6.0, (500, 3))
    lower, upper = BOX.bounds
    outside = np.linalg.norm(x - x.clip(lower, upper), axis=1)
    depth = np.minimum(x - lower, upper - x).min(axis=1)
    expected = np.where(outside > 0, outside, -depth)
    np.testing.assert_allclose(BOX.signed_distance(torch.tensor(x)).numpy(), expected, atol=1e-14)


def test_part_distance_is_that_to_the_plane_inside_and_to_the_side_outside():
    square = Box((0.0, 0.0), (1.0, 1.0))
    x = torch.tensor([[0.3, 0.6], [1.0, 0.25], [0.5, 1.0], [1.5, 2.0], [0.5, 4.0]], dtype=torch.float64)
    expected = torch.tensor([0.7, 0.0, 0.5, math.hypot(0.5, 1.0), math.hypot(0.5, 3.0)], dtype=torch.float64)
    torch.testing.assert_close(square.part_distance(x, "right"), expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("n", [1, 7, 100])
@pytest.mark.parametrize("method", SAMPLERS)
def test_boundary_of_a_box_gets_points_on_every_side(n, method):
    sample = BOX.sample_boundary(n, 6553, method=method)
    assert len(sample.points) == len(sample.normals) == len(sample.parts) >= n
    assert set(sample.parts) == set(BOX.parts)
    only = BOX.sample_boundary(n, 6553, "top", method)
    assert set(only.parts) == {"top"} and (only.points[:, 1] == 0.5).all() and (only.normals == [0, 1, 0]).all()


@pytest.mark.parametrize("method", SAMPLERS)
def test_samplers_are_functions_of_the_seed_and_fill_the_cube(method):
    first, again, other = (unit_sample(256, 2, seed, method) for seed in (811, 811, 812))
    assert np.array_equal(first, again)
    assert method == "grid" or not np.array_equal(first, other)
    assert first.shape == (256, 2) and first.min() >= 0 and first.max() < 1
    # Independent points have a standard error of 0.018 in the mean, the others far less.
    np.testing.assert_allclose(first.mean(axis=0), 0.5, atol=0.06 if method == "uniform" else 1e-2)


def test_streams_differ():
    assert stream(7) == [7] and stream([7, 8], 9) == [7, 8, 9]
    assert not np.array_equal(unit_sample(8, 1, stream(7, 1), "uniform"), unit_sample(8, 1, stream(7, 2), "uniform"))


@pytest.mark.parametrize("method", SAMPLERS)
def test_rejection_keeps_the_number_and_the_condition(method):
    points = rejection_sample(333, np.zeros(2), np.ones(2), 0.5, lambda p: p.sum(axis=1) < 1, 2203, method)
    assert points.shape == (333, 2) and (points.sum(axis=1) < 1).all()
    # The mean of a triangle; three standard errors of independent points.
    np.testing.assert_allclose(points.mean(axis=0), 1 / 3, atol=3 * math.sqrt(1 / 18 / 333))


def test_an_empty_domain_is_reported():
    with pytest.raises(InputError, match="is the domain empty"):
        rejection_sample(5, np.zeros(1), np.ones(1), 1.0, lambda p: np.zeros(len(p), dtype=bool), 17, "sobol")


def test_split_count_has_at_least_one_each():
    assert split_count(10, [1.0, 1.0, 1e-9]) == [5, 5, 1]


def test_safe_sqrt_has_finite_derivatives_at_zero():
    x = torch.tensor([0.0, 4.0], dtype=torch.float64, requires_grad=True)
    y = safe_sqrt(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(torch.stack([y, slope, bend]).detach()[:, 0], torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(
        torch.stack([y, slope, bend]).detach()[:, 1], torch.tensor([2.0, 0.25, -1 / 32], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    "corners",
    [((0.0,), (0.0,)), ((1.0,), (0.0,)), ((0.0, 0.0), (1.0,)), ((), ()), ((math.nan,), (1.0,)), ((0.0,), (math.inf,))],
)
def test_bad_corners_are_refused(corners):
    with pytest.raises(SettingsError, match="box"):
        Box(*corners)


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="at least 1 point, got 0"):
        BOX.sample(0, 5)
    with pytest.raises(InputError, match="at least 1 point, got -3"):
        BOX.sample_boundary(-3, 5)
    with pytest.raises(UnknownName, match="did you mean.*bottom"):
        BOX.boundary_measure("botom")
    with pytest.raises(SettingsError, match="did you mean 'sobol'"):
        BOX.sample(4, 5, "sobl")

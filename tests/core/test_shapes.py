import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.special import ellipe

from pdelab.domain import AbstractDomain, Box, Interval
from pdelab.errors import InputError, SettingsError, UnknownName
from pdelab.sampling import audit
from pdelab.shapes import Annulus, Ball, Disk, Ellipse, Polygon

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
ELL = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.5, 0.5), (0.5, 1.0), (0.0, 1.0))
STAR = tuple(
    (r * math.cos(a), r * math.sin(a)) for a, r in zip(np.arange(10) * math.pi / 5, [2.0, 0.7] * 5, strict=True)
)


def cap(radius: float, height: float) -> float:
    """Volume of a spherical cap."""
    return math.pi * height**2 * (3 * radius - height) / 3


def two_disks(distance: float) -> tuple[float, float]:
    """Area of two unit disks' intersection and half the angle of its arcs."""
    angle = math.acos(distance / 2)
    return 2 * angle - distance * math.sin(angle), angle


LENS, ANGLE = two_disks(1.2)

# name -> domain, measure, boundary measure
DOMAINS: dict[str, tuple[AbstractDomain, float, float]] = {
    "interval": (Interval(-1.0, 3.0), 4.0, 2.0),
    "box": (Box((0.0, 1.0, 2.0), (1.0, 3.0, 2.5)), 1.0, 7.0),
    "ball-1d": (Ball((0.5,), 2.0), 4.0, 2.0),
    "disk": (Disk((0.3, -0.2), 1.7), math.pi * 1.7**2, 2 * math.pi * 1.7),
    "ball-3d": (Ball((0.3, -0.2, 1.0), 0.5), math.pi / 6, math.pi),
    "ball-5d": (Ball((0.0,) * 5, 1.0), 8 * math.pi**2 / 15, 8 * math.pi**2 / 3),
    "ellipse-wide": (Ellipse((1.0, 2.0), (3.0, 0.5)), 1.5 * math.pi, 12 * ellipe(1 - 1 / 36)),
    "ellipse-high": (Ellipse((1.0, 2.0), (0.5, 0.7)), 0.35 * math.pi, 2.8 * ellipe(1 - 25 / 49)),
    "ell": (Polygon(ELL), 0.75, 4.0),
    "ell-clockwise": (Polygon(ELL[::-1]), 0.75, 4.0),
    "star": (Polygon(STAR), 5 * 2.0 * 0.7 * math.sin(math.pi / 5), 10 * math.dist(STAR[0], STAR[1])),
    "annulus": (Annulus((1.0, 1.0), 0.5, 2.0), 3.75 * math.pi, 5 * math.pi),
    "shell": (Annulus((0.0,) * 3, 0.5, 1.0), math.pi * 7 / 6, 5 * math.pi),
    "holes": (SQUARE - Disk((0.3, 0.3), 0.2) - Disk((0.7, 0.7), 0.1), 1 - 0.05 * math.pi, 4 + 0.6 * math.pi),
    "ell-by-boxes": (SQUARE - Box((0.5, 0.5), (2.0, 2.0)), 0.75, 4.0),
    "cross": (Box((-1.0, -3.0), (1.0, 3.0)) | Box((-3.0, -1.0), (3.0, 1.0)), 20.0, 24.0),
    "flush": (SQUARE | Box((0.5, 0.0), (2.0, 1.0)), 2.0, 6.0),
    "apart": (Interval(0.0, 1.0) | Interval(2.0, 3.0), 2.0, 4.0),
    "lens": (Disk((0.0, 0.0), 1.0) & Disk((1.2, 0.0), 1.0), LENS, 4 * ANGLE),
    "two-disks": (Disk((0.0, 0.0), 1.0) | Disk((1.2, 0.0), 1.0), 2 * math.pi - LENS, 4 * (math.pi - ANGLE)),
    "moon": (Disk((0.0, 0.0), 1.0) - Disk((1.2, 0.0), 1.0), math.pi - LENS, 2 * math.pi),
    "bitten-box": (
        Box((0.0,) * 3, (1.0,) * 3) - Ball((0.0,) * 3, 0.5),
        1 - math.pi / 48,
        6 - 3 * math.pi / 16 + math.pi / 8,
    ),
    "cut-ball": (
        Ball((0.0,) * 3, 1.0) & Box((-2.0, -2.0, -2.0), (2.0, 2.0, 0.5)),
        4 * math.pi / 3 - cap(1.0, 0.5),
        4 * math.pi - math.pi + 0.75 * math.pi,
    ),
    "box-10d": (Box((0.0,) * 10, (1.0,) * 10) - Ball((0.5,) * 10, 0.4), 1 - math.pi**5 / 120 * 0.4**10, None),
}
SMOOTH = ("disk", "ball-3d", "ball-5d", "ellipse-wide", "ellipse-high")
# Of these the measure or the boundary is counted from quasi-random points, see the docstring of `pdelab.csg`.
COUNTED_MEASURE = ("lens", "two-disks", "moon", "bitten-box", "cut-ball")
COUNTED_BOUNDARY = (*COUNTED_MEASURE, "ell-by-boxes", "cross", "flush")


def around(domain: AbstractDomain, n: int, seed: int) -> np.ndarray:
    """Points in a box half as large again as the bounds."""
    lower, upper = domain.bounds
    size = upper - lower
    return np.random.default_rng(seed).uniform(lower - 0.25 * size, upper + 0.25 * size, (n, len(lower)))


@pytest.mark.parametrize("name", DOMAINS)
def test_measures(name):
    domain, measure, boundary = DOMAINS[name]
    assert domain.measure == pytest.approx(measure, rel=6e-4 if name in COUNTED_MEASURE else 1e-12)
    if boundary is not None:
        tolerance = 6e-4 if name in COUNTED_BOUNDARY else 1e-12
        assert domain.boundary_measure() == pytest.approx(boundary, rel=tolerance)
    assert domain.boundary_measure() == pytest.approx(sum(domain.boundary_measure(p) for p in domain.parts))


@pytest.mark.parametrize("name", DOMAINS)
def test_samplers_keep_what_they_promise(name):
    domain = DOMAINS[name][0]
    found = audit(domain, 2048, 40993)
    assert found.outside == 0
    assert found.off_boundary < 1e-9 and found.off_part < 1e-9
    assert found.normal_error < 1e-12
    assert found.wrong_side == 0
    # Sobol points: the error is far below the 3 standard errors of independent ones used here.
    lower, upper = domain.bounds
    fill = min(domain.measure / np.prod(upper - lower), 1.0)
    assert abs(found.measure_error) <= 3 * math.sqrt((1 - fill) / fill / 2048) + 1e-3
    assert found.share_error < 2 * len(domain.parts) / 2048 + 1e-3


@pytest.mark.parametrize("method", ["lhs", "uniform", "grid"])
@pytest.mark.parametrize("name", ["ball-3d", "ball-5d", "ellipse-wide", "star", "holes", "two-disks", "bitten-box"])
def test_other_samplers_keep_it_too(name, method):
    found = audit(DOMAINS[name][0], 300, 1811, method)
    assert (found.outside, found.wrong_side) == (0, 0)
    assert max(found.off_boundary, found.off_part, found.normal_error) < 1e-9


@pytest.mark.parametrize("name", DOMAINS)
def test_boundary_samples_reach_every_part_and_follow_the_seed(name):
    domain = DOMAINS[name][0]
    first, again, other = (domain.sample_boundary(50, seed) for seed in (977, 977, 978))
    assert np.array_equal(first.points, again.points)
    assert domain.dimension == 1 or not np.array_equal(first.points, other.points)
    assert set(first.parts) == set(domain.parts)
    part = domain.parts[-1]
    only = domain.sample_boundary(20, 977, part)
    assert len(only.points) >= 20 and set(only.parts) == {part}


@pytest.mark.parametrize("name", ["disk", "ellipse-wide", "ellipse-high", "ell", "star", "annulus", "holes"])
def test_distance_against_the_nearest_of_many_boundary_points(name):
    domain = DOMAINS[name][0]
    x = around(domain, 400, 5113)
    n = 40_000
    nearest = cKDTree(domain.sample_boundary(n, 71, method="grid").points).query(x)[0]
    found = domain.signed_distance(torch.tensor(x)).numpy()
    spacing = 3 * domain.boundary_measure() / n
    # Combinations promise the exact distance on one side only; of these two it is the inside.
    chosen = slice(None) if name not in ("annulus", "holes") else found < 0
    assert (np.abs(found)[chosen] <= nearest[chosen] + 1e-12).all()
    assert (np.abs(found)[chosen] >= nearest[chosen] - spacing).all()


@pytest.mark.parametrize("name", ["two-disks", "lens", "moon", "cross", "bitten-box"])
def test_distance_of_a_combination_is_a_lower_bound_of_the_right_sign(name):
    domain = DOMAINS[name][0]
    x = around(domain, 2000, 1999)
    found = domain.signed_distance(torch.tensor(x)).numpy()
    nearest = cKDTree(domain.sample_boundary(20_000, 71).points).query(x)[0]
    assert (np.abs(found) <= nearest + 1e-12).all()
    a, b = domain.first.inside(x), domain.second.inside(x)
    expected = {"two-disks": a | b, "cross": a | b, "lens": a & b}.get(name, a & ~b)
    assert np.array_equal(found < 0, expected)


@pytest.mark.parametrize("name", [*SMOOTH, "ell", "star"])
def test_gradient_of_a_distance_has_length_one(name):
    domain = DOMAINS[name][0]
    x = torch.tensor(around(domain, 300, 2741), requires_grad=True)
    (slope,) = torch.autograd.grad(domain.signed_distance(x).sum(), x)
    torch.testing.assert_close(slope.norm(dim=1), torch.ones(300, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [*SMOOTH, "ell"])
def test_gradient_on_the_boundary_is_the_normal(name):
    domain = DOMAINS[name][0]
    edge = domain.sample_boundary(200, 87)
    x = torch.tensor(edge.points, requires_grad=True)
    (slope,) = torch.autograd.grad(domain.signed_distance(x).sum(), x)
    np.testing.assert_allclose(slope.numpy(), edge.normals, atol=1e-9)


@pytest.mark.parametrize("name", [*SMOOTH, "star", "lens", "bitten-box"])
def test_derivatives_against_finite_differences(name):
    domain = DOMAINS[name][0]
    x = torch.tensor(around(domain, 20, 619), requires_grad=True)
    assert torch.autograd.gradcheck(domain.signed_distance, (x,), eps=1e-7, atol=1e-6)
    if name != "star":  # its distance is linear or has a kink
        assert torch.autograd.gradgradcheck(domain.signed_distance, (x,), eps=1e-6, atol=1e-4)


def test_laplacian_of_an_ellipse_distance_is_the_curvature_of_its_level():
    ellipse = Ellipse((0.0, 0.0), (3.0, 1.0))
    edge = ellipse.sample_boundary(100, 5)
    depth = np.linspace(-0.25, 2.0, 100)  # the least radius of curvature is 1/3
    x = torch.tensor(edge.points + depth[:, None] * edge.normals, requires_grad=True)
    distance = ellipse.signed_distance(x)
    np.testing.assert_allclose(distance.detach().numpy(), depth, atol=1e-12)
    (slope,) = torch.autograd.grad(distance.sum(), x, create_graph=True)
    laplacian = sum(torch.autograd.grad(slope[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    curvature = 1 / (9 * ((edge.points[:, 0] / 9) ** 2 + edge.points[:, 1] ** 2) ** 1.5)
    np.testing.assert_allclose(laplacian.numpy(), curvature / (1 + curvature * depth), rtol=1e-7)


@pytest.mark.parametrize("name", DOMAINS)
def test_second_derivatives_are_finite_everywhere_inside(name):
    domain = DOMAINS[name][0]
    lower, upper = domain.bounds
    # Centres, axes and corners, where naive square roots have no derivatives.
    special = np.array(list(itertools.product(*zip(lower, (lower + upper) / 2, upper, strict=True)))[:243])
    x = torch.tensor(np.concatenate([special, domain.sample(100, 311)]), requires_grad=True)
    values = [domain.signed_distance(x), *(domain.part_distance(x, part) for part in domain.parts)]
    for value in values:
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, allow_unused=True) if slope.requires_grad else (None,)
        assert value.isfinite().all() and slope.isfinite().all()
        assert bend is None or bend.isfinite().all()


def test_needle_ellipse_is_exact_to_its_promise():
    ellipse = Ellipse((0.0, 0.0), (1000.0, 1.0))
    edge = ellipse.sample_boundary(500, 13)
    x = edge.points + 0.3 * edge.normals
    np.testing.assert_allclose(ellipse.signed_distance(torch.tensor(x)).numpy(), 0.3, atol=1e-11)


def test_names_of_parts():
    assert Ball((0.0,) * 3, 1.0).parts == ("sphere",) and Ball((0.0,) * 2, 1.0).parts == ("circle",)
    assert Polygon(ELL).parts == tuple(f"side{i}" for i in range(6))
    holes = SQUARE - Disk((0.2, 0.2), 0.1) - Disk((0.8, 0.2), 0.1) - Disk((0.8, 0.8), 0.1, "hot")
    assert holes.parts == ("left", "right", "bottom", "top", "circle", "circle-2", "hot")
    # The notch takes two whole sides of the second box away: they are outside of the first.
    assert DOMAINS["ell-by-boxes"][0].parts == ("left", "right", "bottom", "top", "left-2", "bottom-2")
    assert DOMAINS["flush"][0].parts == ("left", "bottom", "top", "right-2", "bottom-2", "top-2")


def test_sides_of_one_name_are_one_part():
    domain = Polygon(ELL, ("floor", "wall", "step", "step", "wall", "wall"))
    assert domain.parts == ("floor", "wall", "step")
    assert [domain.boundary_measure(p) for p in domain.parts] == pytest.approx([1.0, 2.0, 1.0])
    x = torch.tensor([[0.75, 0.25], [0.5, 0.7], [0.9, 0.4]], dtype=torch.float64)
    expected = torch.tensor([0.25, 0.0, 0.1], dtype=torch.float64)
    torch.testing.assert_close(domain.part_distance(x, "step"), expected, atol=1e-15, rtol=0)


def test_normals_of_a_hole_point_into_it():
    edge = (SQUARE - Disk((0.5, 0.5), 0.2)).sample_boundary(64, 3, "circle")
    np.testing.assert_allclose(edge.normals, (0.5 - edge.points) / 0.2, atol=1e-12)


def test_trimmed_part_distance_vanishes_on_the_part_only_and_has_slope_one_there():
    domain = SQUARE - Box((0.5, 0.5), (2.0, 2.0))
    kept = torch.tensor([[1.0, 0.2], [1.0, 0.45]], dtype=torch.float64)
    cut = torch.tensor([[1.0, 0.8], [1.0, 0.6]], dtype=torch.float64)
    assert domain.part_distance(kept, "right").abs().max() < 1e-12
    assert (domain.part_distance(cut, "right") > 0.09).all()
    step = 1e-5
    near = domain.part_distance(kept - torch.tensor([step, 0.0]), "right")
    torch.testing.assert_close(near, torch.full_like(near, step), rtol=1e-4, atol=0)
    # The line of the notch's left side goes on into the domain; its distance must not vanish there.
    assert domain.part_distance(torch.tensor([[0.5, 0.2]], dtype=torch.float64), "left-2").item() > 0.2


def test_measure_of_a_nested_combination_is_exact():
    plate = Box((0.0, 0.0), (4.0, 1.0))
    for i in range(12):
        plate = plate - Disk((0.2 + 0.3 * i, 0.5), 0.1)
    assert plate.measure == pytest.approx(4 - 0.12 * math.pi, rel=1e-12)
    assert plate.boundary_measure() == pytest.approx(10 + 2.4 * math.pi, rel=1e-12)
    inner = Annulus((0.0, 0.0), 1.0, 2.0) | Disk((0.0, 0.0), 0.5)
    assert inner.measure == pytest.approx(3.25 * math.pi, rel=1e-12)


def test_combination_with_itself():
    disk = Disk((0.0, 0.0), 1.0)
    for domain in (disk | disk, disk & disk):
        assert domain.measure == pytest.approx(math.pi)
        assert domain.parts == ("circle",) and domain.boundary_measure() == pytest.approx(2 * math.pi)


def test_equality_and_hash_follow_the_settings():
    one, other = (SQUARE - Disk((0.5, 0.5), 0.2) for _ in range(2))
    assert one.measure == other.measure and one == other and hash(one) == hash(other)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ball((0.0, 0.0), 0.0), "radius.*> 0.*0.0"),
        (lambda: Ball((0.0, 0.0), -1.0), "radius"),
        (lambda: Ball((0.0, 0.0), math.nan), "radius"),
        (lambda: Ball((0.0, 0.0), math.inf), "finite"),
        (lambda: Ball((0.0, math.nan), 1.0), "centre.*finite"),
        (lambda: Ball((), 1.0), "centre"),
        (lambda: Disk((0.0,) * 3, 1.0), "2 coordinates"),
        (lambda: Annulus((0.0, 0.0), 2.0, 1.0), "inner < outer"),
        (lambda: Annulus((0.0, 0.0), 0.0, 1.0), "inner"),
        (lambda: Ellipse((0.0, 0.0), (1.0, 0.0)), "radii"),
        (lambda: Ellipse((0.0, 0.0, 0.0), (1.0, 1.0)), "two"),
        (lambda: Polygon(ELL[:2]), "at least 3"),
        (lambda: Polygon(((0.0, 0.0), (1.0, math.nan), (0.0, 1.0))), "finite"),
        (lambda: Polygon(((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))), "cross or touch"),
        (lambda: Polygon(((0.0, 0.0), (1.0, 0.0), (2.0, 0.0))), "cross or touch"),
        (lambda: Polygon(((0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0))), "cross or touch"),
        (lambda: Polygon(((0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (1.0, 0.0), (0.0, 2.0))), "cross or touch"),
        (lambda: Polygon(ELL, ("a", "b")), "expected none or 6"),
        (lambda: SQUARE - Interval(0.0, 1.0), "dimension"),
        (lambda: Disk((0.0, 0.0), 1.0) & Disk((5.0, 0.0), 1.0), "empty"),
        (lambda: Disk((0.0, 0.0), 1.0) - Disk((0.1, 0.0), 2.0), "empty"),
    ],
)
def test_bad_shapes_are_refused(make, words):
    with pytest.raises(SettingsError, match=words):
        make()


@pytest.mark.parametrize("name", DOMAINS)
def test_bad_requests_are_refused(name):
    domain = DOMAINS[name][0]
    with pytest.raises(UnknownName, match="boundary part"):
        domain.sample_boundary(3, 5, "no-such-part")
    with pytest.raises(UnknownName, match="boundary part"):
        domain.boundary_measure("no-such-part")
    with pytest.raises(UnknownName, match="boundary part"):
        domain.part_distance(torch.zeros(1, domain.dimension), "no-such-part")
    with pytest.raises(InputError, match="at least 1"):
        domain.sample(0, 5)
    with pytest.raises(InputError, match="at least 1"):
        domain.sample_boundary(0, 5)


def test_a_domain_found_empty_by_points_is_reported():
    # Nothing is left, but neither square is seen to lie in the other by its enclosing ball.
    empty = Polygon(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))) - Polygon(((-0.1, -0.1), (1.3, -0.1), (-0.1, 1.3)))
    with pytest.raises(InputError, match="empty"):
        empty.sample_boundary(5, 3)
    with pytest.raises(InputError, match="empty"):
        empty.sample(5, 3)

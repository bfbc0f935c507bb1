import math

import numpy as np
import pytest
import torch

from pdelab.domain import AbstractDomain, Box, Interval
from pdelab.errors import InputError, MeshError, SettingsError
from pdelab.meshes.domain import MeshDomain, SurfaceDomain
from pdelab.meshes.generate import box_mesh, domain_mesh, quad_mesh
from pdelab.sampling import audit
from pdelab.shapes import Annulus, Ball, Disk, Ellipse, Polygon

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
CUBE = Box((0.0,) * 3, (1.0,) * 3)
ELL = Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.5, 0.5), (0.5, 1.0), (0.0, 1.0)))

# name -> domain, exact measure, edge length, whether all boundaries are flat
DOMAINS = {
    "intervals": (Interval(0.0, 1.0) | Interval(2.0, 3.0), 2.0, 0.15, True),
    "ball-1d": (Ball((0.0,), 1.0), 2.0, 0.3, True),
    "box": (Box((0.0, 1.0), (1.0, 3.0)), 2.0, 0.15, True),
    "disk": (Disk((0.3, -0.2), 1.0), math.pi, 0.15, False),
    "annulus": (Annulus((0.0, 0.0), 0.5, 1.0), 0.75 * math.pi, 0.1, False),
    "ellipse-wide": (Ellipse((1.0, 2.0), (1.0, 0.4)), 0.4 * math.pi, 0.1, False),
    "ellipse-high": (Ellipse((1.0, 2.0), (0.4, 1.0)), 0.4 * math.pi, 0.1, False),
    "ell": (ELL, 0.75, 0.1, True),
    "ell-by-boxes": (SQUARE - Box((0.5, 0.5), (2.0, 2.0)), 0.75, 0.1, True),
    "cross": (Box((-1.0, -3.0), (1.0, 3.0)) | Box((-3.0, -1.0), (3.0, 1.0)), 20.0, 0.4, True),
    "two-pieces": (SQUARE | Disk((3.0, 0.0), 0.5), 1 + math.pi / 4, 0.1, False),
    "holes": (SQUARE - Disk((0.3, 0.3), 0.2) - Disk((0.7, 0.7), 0.1), 1 - 0.05 * math.pi, 0.1, False),
    "half-disk": (SQUARE & Disk((0.5, 0.0), 0.4), 0.08 * math.pi, 0.05, False),
    "polygon-hole": (ELL - Polygon(((0.1, 0.1), (0.3, 0.1), (0.2, 0.3))), 0.73, 0.08, True),
    "cube": (CUBE, 1.0, 0.3, True),
    "ball": (Ball((0.0,) * 3, 1.0), 4 * math.pi / 3, 0.3, False),
    "cube-with-balls": (
        CUBE - Ball((0.5,) * 3, 0.25) - Ball((0.0,) * 3, 0.2, "bite"),
        1 - math.pi / 48 - math.pi * 0.004 / 3,
        0.12,
        False,
    ),
}


def check(mesh, domain):
    """Cells positive, every node used, boundary facets named once each and on their part."""
    assert mesh.volumes().min() > 0
    assert np.array_equal(np.unique(mesh.cells), np.arange(mesh.n_points))
    assert set(mesh.facets) == set(domain.parts)
    named = np.concatenate(list(mesh.facets.values()))
    order = [sorted(map(tuple, np.sort(f, axis=1).tolist())) for f in (named, mesh.boundary_facets())]
    assert order[0] == order[1]
    for part, facets in mesh.facets.items():
        nodes = torch.as_tensor(mesh.points[np.unique(facets)])
        assert domain.part_distance(nodes, part).max() < 1e-9
    x = torch.as_tensor(mesh.points)
    assert domain.signed_distance(x).max() < 1e-9


@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize(
    "box", [Interval(-1.0, 2.0), Box((0.0, 1.0), (2.0, 1.5)), Box((0.0, -1.0, 2.0), (1.0, 2.0, 4.0))]
)
def test_structured_meshes_are_exact(box, n):
    mesh = box_mesh(box, n)
    d = box.dimension
    assert mesh.n_points == (n + 1) ** d and len(mesh.cells) == n**d * math.factorial(d)
    np.testing.assert_allclose(mesh.volumes(), box.measure / len(mesh.cells), rtol=1e-12)
    check(mesh, box)


def test_quadrilaterals_and_counts_for_each_axis():
    box = Box((0.0, 0.0), (3.0, 1.0))
    mesh = quad_mesh(box, (6, 2))
    assert mesh.cell_type == "quad" and mesh.n_points == 21
    np.testing.assert_allclose(mesh.volumes(), 0.25)
    check(mesh, box)
    assert {part: len(f) for part, f in mesh.facets.items()} == {"left": 2, "right": 2, "bottom": 6, "top": 6}
    assert len(box_mesh(box, [6, 2]).cells) == 24


def test_no_triangle_of_an_even_mesh_has_all_nodes_on_the_boundary():
    mesh = box_mesh(SQUARE, 4)
    edge = np.isin(mesh.cells, np.concatenate([f.ravel() for f in mesh.facets.values()]))
    assert not edge.all(axis=1).any()


@pytest.mark.parametrize("name", DOMAINS)
def test_meshes_of_shapes(name):
    domain, measure, size, flat = DOMAINS[name]
    mesh = domain_mesh(domain, size)
    check(mesh, domain)
    d = domain.dimension
    # A chord of length h on radius R is h^2 / (8 R) off its arc; R >= 0.1 and at least 12 edges a turn here.
    assert mesh.volumes().sum() == pytest.approx(measure, rel=1e-12 if flat else 0.03)
    pairs = np.stack(np.triu_indices(d + 1, 1), axis=1)
    ends = mesh.points[mesh.cells[:, pairs]]
    lengths = np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=2)
    assert 0.5 * size < np.median(lengths) < 1.5 * size
    assert lengths.max() < 2.2 * size


@pytest.mark.parametrize(
    ("domain", "measure", "sizes"),
    [
        (Annulus((0.0, 0.0), 0.5, 1.0), 0.75 * math.pi, (0.1, 0.05, 0.025)),
        (Ball((0.0,) * 3, 1.0), 4 * math.pi / 3, (0.4, 0.2, 0.1)),
    ],
)
def test_measure_converges_at_second_order(domain, measure, sizes):
    # Both circles of the ring have the same angle between nodes, so that their errors cancel; the outer is counted.
    errors = []
    for size in sizes:
        mesh = domain_mesh(domain, size)
        if domain.dimension == 2:
            p = mesh.points[mesh.facets["outer"]]
            inside = 0.5 * (p[:, 0, 0] * p[:, 1, 1] - p[:, 1, 0] * p[:, 0, 1]).sum()
            errors.append(math.pi - inside)
        else:
            errors.append(measure - mesh.volumes().sum())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2.0, atol=0.25)


def test_facets_point_outward():
    mesh = domain_mesh(DOMAINS["holes"][0], 0.1)
    total = sum(
        0.5 * (p[:, 0, 0] * p[:, 1, 1] - p[:, 1, 0] * p[:, 0, 1]).sum()
        for p in (mesh.points[f] for f in mesh.facets.values())
    )
    assert total == pytest.approx(mesh.volumes().sum())


def test_small_holes_are_round():
    mesh = domain_mesh(SQUARE - Disk((0.3, 0.5), 0.01), 0.25)
    assert len(mesh.facets["circle"]) >= 12
    assert len(mesh.facets["left"]) == 4


def test_the_same_call_gives_the_same_mesh():
    first, again = (domain_mesh(DOMAINS["cube-with-balls"][0], 0.2) for _ in range(2))
    assert np.array_equal(first.points, again.points) and np.array_equal(first.cells, again.cells)


def test_unstructured_boxes():
    mesh = box_mesh(SQUARE, 8, "unstructured")
    check(mesh, SQUARE)
    assert len(mesh.facets["top"]) == 8
    assert not np.isin(mesh.points, box_mesh(SQUARE, 8).points).all()


def test_a_domain_with_a_mesh_keeps_it():
    domain = MeshDomain(box_mesh(SQUARE, 2))
    assert domain_mesh(domain, 0.1) is domain.mesh


def test_a_hole_in_a_meshed_domain():
    domain = MeshDomain(domain_mesh(ELL, 0.2)) - Disk((0.25, 0.25), 0.1, "hole")
    assert domain.parts == (*ELL.parts, "hole")
    assert domain.measure == pytest.approx(0.75 - 0.01 * math.pi, rel=1e-9)
    found = audit(domain, 300, 4373)
    assert (found.outside, found.wrong_side) == (0, 0) and found.off_part < 1e-9
    # Gmsh knows shapes only.
    with pytest.raises(MeshError, match="MeshDomain cannot be meshed"):
        domain_mesh(domain, 0.2)


def test_gmsh_is_left_closed_and_silent(capfd):
    import gmsh

    domain_mesh(DOMAINS["disk"][0], 0.5)
    assert not gmsh.isInitialized()
    with pytest.raises(MeshError, match="cannot be meshed"):
        domain_mesh(Unknown(), 0.5)
    assert not gmsh.isInitialized()
    assert capfd.readouterr() == ("", "")


def test_gmsh_of_the_user_is_left_alone():
    import gmsh

    gmsh.initialize(interruptible=False)
    try:
        with pytest.raises(MeshError, match="gmsh.finalize"):
            domain_mesh(ELL, 0.5)
        assert gmsh.isInitialized()
    finally:
        gmsh.finalize()


class Unknown(AbstractDomain):
    """A shape that only its samplers know."""

    bounds, parts, measure = (np.zeros(2), np.ones(2)), ("edge",), 1.0

    def boundary_measure(self, part=None):
        return 4.0

    def signed_distance(self, x):
        return SQUARE.signed_distance(x)

    def part_distance(self, x, part):
        return SQUARE.signed_distance(x).abs()

    def sample_boundary(self, n, seed, part=None, method="sobol"):
        return SQUARE.sample_boundary(n, seed, None, method)


@pytest.mark.parametrize("n", [0, -1, 2.5, math.nan, (3,), (3, 3, 3), (3, 0), (3, 1.5)])
def test_bad_counts_are_refused(n):
    with pytest.raises(SettingsError, match="n: expected"):
        box_mesh(SQUARE, n)
    with pytest.raises(SettingsError, match="n: expected"):
        quad_mesh(SQUARE, n)


def test_bad_requests_are_refused():
    with pytest.raises(MeshError, match="2 dimensions, got 3"):
        quad_mesh(CUBE, 2)
    with pytest.raises(MeshError, match="has 4"):
        box_mesh(Box((0.0,) * 4, (1.0,) * 4), 2)
    with pytest.raises(MeshError, match="has 4"):
        domain_mesh(Ball((0.0,) * 4, 1.0), 0.5)
    with pytest.raises(SettingsError, match="did you mean 'unstructured'"):
        box_mesh(SQUARE, 2, "unstructred")
    for size in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SettingsError, match="size"):
            domain_mesh(SQUARE, size)
    with pytest.raises(InputError, match="use a larger size"):
        domain_mesh(CUBE, 1e-4)


def test_the_inside_of_a_closed_surface_is_meshed():
    ball = domain_mesh(Ball((0.0, 0.0, 0.0), 0.8), 0.3)
    number, triangles = np.unique(ball.boundary_facets(), return_inverse=True)
    surface = SurfaceDomain(ball.points[number], triangles.reshape(-1, 3))
    for size, splits in ((0.3, 1), (0.15, 4)):
        mesh = domain_mesh(surface, size)
        assert (mesh.volumes() > 0).all()
        assert mesh.volumes().sum() == pytest.approx(surface.measure, rel=1e-12)
        assert len(mesh.boundary_facets()) == splits * len(surface.triangles) == len(mesh.facets["boundary"])

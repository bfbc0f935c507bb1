import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from pdelab.errors import InputError, MeshError, UnknownName
from pdelab.mesh import Mesh
from pdelab.meshes.domain import MeshDomain, SurfaceDomain

CYLINDER = Path("../shared/data/um2n/cylinder_015.msh")
SEED = 77213


def l_shape(n: int = 4) -> Mesh:
    """The square [-1, 1]^2 without its lower right quarter; the two sides at the notch are named."""
    x = np.linspace(-1, 1, 2 * n + 1)
    points = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    i, j = (a.ravel() for a in np.meshgrid(range(2 * n), range(2 * n), indexing="ij"))
    keep = (i < n) | (j >= n)
    corner, m = (i * (2 * n + 1) + j)[keep], 2 * n + 1
    cells = np.concatenate(
        [np.stack([corner, corner + m, corner + m + 1], 1), np.stack([corner, corner + m + 1, corner + 1], 1)]
    )
    used, number = np.unique(cells, return_inverse=True)
    mesh = Mesh(points[used], number.reshape(cells.shape))
    facets = mesh.boundary_facets()
    middle = mesh.points[facets].mean(axis=1)
    notch = {
        "shelf": facets[(np.abs(middle[:, 1]) < 1e-12) & (middle[:, 0] > 0)],
        "wall": facets[(np.abs(middle[:, 0]) < 1e-12) & (middle[:, 1] < 0)],
    }
    # A named line between cells is an interface, no boundary.
    inner = np.array([[a, b] for a, b in mesh.cells[:, :2] if (np.abs(mesh.points[[a, b]]) < 0.9).all()][:1])
    return Mesh(mesh.points, mesh.cells, facets=notch | {"interface": inner})


def l_distance(p: np.ndarray) -> np.ndarray:
    """Signed distance to the L-shape, by hand."""
    x, y = p.T
    rim = 1.0 - np.maximum(np.abs(x), np.abs(y))
    notch = np.where((x < 0) & (y > 0), np.hypot(x, y), np.where(x < 0, -x, y))
    inside = (rim > 0) & ~((x > 0) & (y < 0))
    # Points of the box only: off the notch the nearest boundary is the rim or a notch side.
    return np.where(inside, -np.minimum(rim, notch), np.minimum(np.abs(x), np.abs(y)))


def cube(n: int) -> Mesh:
    """The unit cube in 6 n^3 tetrahedra."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corner = np.stack(np.meshgrid(*[range(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    step = np.array([(n + 1) ** 2, n + 1, 1])
    cells = []
    for order in itertools.permutations(range(3)):
        path = np.concatenate([[0], np.cumsum(step[list(order)])])
        even = np.linalg.det(np.eye(3)[list(order)]) > 0
        cells.append((corner @ step)[:, None] + (path if even else path[[0, 2, 1, 3]]))
    mesh = Mesh(grid, np.concatenate(cells), "tetra")
    facets = mesh.boundary_facets()
    return Mesh(grid, mesh.cells, "tetra", {"floor": facets[(grid[facets][:, :, 2] == 0).all(axis=1)]})


def sphere(levels: int = 3, inward: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An octahedron refined on the unit sphere."""
    points = np.concatenate([np.eye(3), -np.eye(3)])
    faces = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    for _ in range(levels):
        corners = points[faces]
        mids = 0.5 * (corners + np.roll(corners, -1, axis=1))
        a, b, c = corners.transpose(1, 0, 2)
        ab, bc, ca = mids.transpose(1, 0, 2)
        soup = np.concatenate([[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]], axis=1).transpose(1, 0, 2)
        flat = soup.reshape(-1, 3) / np.linalg.norm(soup.reshape(-1, 3), axis=1, keepdims=True)
        _, first, number = np.unique(flat.round(9), axis=0, return_index=True, return_inverse=True)
        points, faces = flat[first], number.reshape(-1, 3)
    return points, faces[:, ::-1] if inward else faces


DOMAINS = {
    "line": MeshDomain(Mesh([[0.0], [2.0], [0.5]], [[0, 2], [2, 1]], "line", {"start": [[0]]})),
    "l-shape": MeshDomain(l_shape()),
    "cube": MeshDomain(cube(2)),
    "sphere": SurfaceDomain(*sphere(2)),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_samples_lie_inside_and_on_the_boundary(name):
    domain = DOMAINS[name]
    for method in ("sobol", "lhs", "uniform", "grid"):
        points = domain.sample(300, SEED, method)
        assert points.shape == (300, domain.dimension)
        assert domain.inside(points).all()
        assert np.array_equal(points, domain.sample(300, SEED, method))
    assert not np.array_equal(domain.sample(300, SEED), domain.sample(300, SEED + 1))
    boundary = domain.sample_boundary(200, SEED)
    assert len(boundary.points) >= 200
    assert set(boundary.parts) == set(domain.parts)
    assert not domain.inside(boundary.points).any()
    x = torch.tensor(boundary.points, requires_grad=True)
    distance = domain.signed_distance(x)
    assert distance.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    assert gradient.numpy() == pytest.approx(boundary.normals, abs=1e-9)
    step = 1e-6 * boundary.normals
    assert domain.inside(boundary.points - step).all() and not domain.inside(boundary.points + step).any()


@pytest.mark.parametrize("name", DOMAINS)
def test_gradient_of_the_distance_is_a_unit_vector_that_matches_differences(name):
    domain = DOMAINS[name]
    lower, upper = domain.bounds
    points = lower - 0.4 + (upper - lower + 0.8) * np.random.default_rng(SEED).random((200, domain.dimension))
    x = torch.tensor(points, requires_grad=True)
    distance = domain.signed_distance(x)
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    assert torch.linalg.norm(gradient, dim=1).numpy() == pytest.approx(np.ones(200), abs=1e-9)
    assert ((distance < 0).numpy() == domain.inside(points)).all()
    ahead = domain.signed_distance((x + 1e-6 * gradient).detach())
    assert ((ahead - distance.detach()) / 1e-6).median().item() == pytest.approx(1.0, abs=1e-4)


def test_l_shape_measures_and_distances():
    domain = DOMAINS["l-shape"]
    assert domain.measure == pytest.approx(3.0, rel=1e-14)
    assert domain.boundary_measure() == pytest.approx(8.0, rel=1e-14)
    assert domain.parts == ("shelf", "wall", "boundary")
    assert [domain.boundary_measure(p) for p in domain.parts] == pytest.approx([1.0, 1.0, 6.0])
    points = 1.98 * np.random.default_rng(SEED).random((500, 2)) - 0.99
    distance = domain.signed_distance(torch.tensor(points)).numpy()
    corner = (points[:, 0] > 0) & (points[:, 1] < 0)
    assert distance[~corner] == pytest.approx(l_distance(points)[~corner], abs=1e-13)
    assert (distance[corner] > 0).all()
    shelf = domain.part_distance(torch.tensor([[0.5, 0.25], [-3.0, 4.0], [0.5, 0.0]]), "shelf")
    assert shelf.tolist() == pytest.approx([0.25, 5.0, 0.0])


def test_part_distance_and_its_gradient_are_finite_on_the_part():
    x = torch.tensor([[0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(DOMAINS["l-shape"].part_distance(x, "shelf").sum(), x)
    assert torch.isfinite(gradient).all()


def test_volume_samples_are_uniform():
    domain = DOMAINS["l-shape"]
    points = domain.sample(4096, SEED)
    assert points.mean(axis=0) == pytest.approx([-1 / 6, 1 / 6], abs=0.01)
    counts = [((points[:, 0] < 0) & (points[:, 1] < 0)).sum(), (points.min(axis=1) > 0).sum()]
    assert np.array(counts) / 4096 == pytest.approx([1 / 3, 1 / 3], abs=0.01)
    # Crowded cells do not draw more points.
    x = np.concatenate([np.linspace(0, 0.1, 50), [1.0]])[:, None]
    line = MeshDomain(Mesh(x, np.stack([np.arange(50), np.arange(1, 51)], 1), "line"))
    assert line.sample(1024, SEED).mean() == pytest.approx(0.5, abs=0.005)


def test_one_dimensional_domain():
    domain = DOMAINS["line"]
    assert domain.parts == ("start", "boundary")
    assert domain.boundary_measure() == 2.0 and domain.measure == 2.0
    sample = domain.sample_boundary(2, SEED)
    assert {(p, x.item(), n.item()) for p, x, n in zip(sample.parts, sample.points, sample.normals, strict=True)} == {
        ("start", 0.0, -1.0),
        ("boundary", 2.0, 1.0),
    }
    x = torch.tensor([[-0.5], [0.5], [1.75], [2.25]], dtype=torch.float64)
    assert domain.signed_distance(x).tolist() == pytest.approx([0.5, -0.5, -0.25, 0.25])


def test_cube_distance_inside_and_out():
    domain = DOMAINS["cube"]
    assert domain.measure == pytest.approx(1.0) and domain.boundary_measure("floor") == pytest.approx(1.0)
    points = 2.0 * np.random.default_rng(SEED).random((400, 3)) - 0.5
    q = np.maximum(-points, points - 1.0)
    exact = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
    assert domain.signed_distance(torch.tensor(points)).numpy() == pytest.approx(exact, abs=1e-12)


def test_a_slit_is_outside_nothing_but_near():
    """Both sides of a slit are equally near: the sign must come from the cells."""
    points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, 0], [1, 0], [0, 0], [1, 0]], dtype=float)
    cells = [[0, 1, 5], [0, 5, 6], [0, 6, 4], [4, 6, 3], [6, 7, 3], [7, 2, 3]]
    domain = MeshDomain(Mesh(points, cells))
    x = torch.tensor([[0.5, 0.1], [0.5, -0.1], [-0.5, 0.1]], dtype=torch.float64)
    assert domain.signed_distance(x).tolist() == pytest.approx([-0.1, -0.1, -0.5])


def test_curved_cells_use_their_middle_nodes():
    s = np.sqrt(0.5)
    points = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0], [s, s], [0, 0.5]])
    domain = MeshDomain(Mesh(points, [range(6)], "triangle6", {"arc": [[1, 2, 4]]}))
    assert domain.measure == pytest.approx(0.5 * 2 * s)
    assert domain.boundary_measure("arc") == pytest.approx(2 * np.hypot(1 - s, s))
    assert domain.inside(np.array([[0.6, 0.6], [0.72, 0.72]])).tolist() == [True, False]


@pytest.mark.parametrize("inward", [False, True])
def test_sphere_surface(inward):
    domain = SurfaceDomain(*sphere(3, inward))
    assert domain.measure == pytest.approx(4 / 3 * np.pi, rel=0.03)
    assert domain.boundary_measure() == pytest.approx(4 * np.pi, rel=0.03)
    points = 3.0 * np.random.default_rng(SEED).random((500, 3)) - 1.5
    distance = domain.signed_distance(torch.tensor(points)).numpy()
    assert distance == pytest.approx(np.linalg.norm(points, axis=1) - 1.0, abs=0.03)
    sample = domain.sample_boundary(100, SEED)
    assert (sample.normals * sample.points).sum(axis=1) == pytest.approx(np.ones(100), abs=0.03)


def test_winding_number_decides_at_edges_and_corners_and_keeps_cavities():
    outer, faces = sphere(2)
    shell = SurfaceDomain(np.concatenate([outer, 0.5 * outer]), np.concatenate([faces, faces[:, ::-1] + len(outer)]))
    assert shell.measure == pytest.approx(7 / 8 * SurfaceDomain(outer, faces).measure)
    radial = outer[:20]
    for radius, inside in ((1.2, False), (0.8, True), (0.55, True), (0.4, False), (0.0, False)):
        assert (shell.inside(radius * radial) == inside).all()


def test_open_and_twisted_surfaces_are_refused():
    points, faces = sphere(1)
    with pytest.raises(MeshError, match="open: 3 edges"):
        SurfaceDomain(points, faces[1:])
    twisted = faces.copy()
    twisted[0] = twisted[0, ::-1]
    with pytest.raises(MeshError, match="not turned the same way at 3 edges"):
        SurfaceDomain(points, twisted)


def test_surface_from_a_file(tmp_path):
    import meshio

    points, faces = sphere(2)
    meshio.write_points_cells(tmp_path / "ball.stl", points, [("triangle", faces)], file_format="stl", binary=True)
    domain = SurfaceDomain.read(tmp_path / "ball.stl")
    assert domain.measure == pytest.approx(SurfaceDomain(points, faces).measure, rel=1e-6)
    meshio.write_points_cells(tmp_path / "open.stl", points, [("triangle", faces[1:])], file_format="stl", binary=True)
    with pytest.raises(MeshError, match=r"open\.stl: the surface is open: 3 edges"):
        SurfaceDomain.read(tmp_path / "open.stl")


def test_checksum_tells_meshes_apart_and_is_printed():
    mesh = l_shape()
    domain, same = MeshDomain(mesh), MeshDomain(l_shape())
    assert domain.checksum == same.checksum and domain.checksum in repr(domain)
    moved = mesh.points.copy()
    moved[0, 0] += 1e-15
    others = [
        Mesh(moved, mesh.cells, facets=mesh.facets),
        Mesh(mesh.points, mesh.cells[::-1], facets=mesh.facets),
        Mesh(mesh.points, mesh.cells),
    ]
    assert len({domain.checksum, *(MeshDomain(m).checksum for m in others)}) == 4


def test_refusals():
    domain = DOMAINS["l-shape"]
    with pytest.raises(UnknownName, match="shelf"):
        domain.boundary_measure("shelv")
    with pytest.raises(UnknownName, match="no boundary part named 'interface'"):
        domain.sample_boundary(5, SEED, "interface")
    with pytest.raises(InputError, match="at least 1 point"):
        domain.sample(0, SEED)
    with pytest.raises(InputError, match="at least 1 point"):
        domain.sample_boundary(0, SEED)


def test_channel_with_a_cylinder():
    if not CYLINDER.is_file():
        pytest.skip("the shared data folder is absent")
    with pytest.warns(UserWarning, match="turned round"):
        domain = MeshDomain.read(CYLINDER)
    assert set(domain.parts) == {"1", "2", "3", "4"}
    assert domain.boundary_measure("2") == pytest.approx(0.41)
    points = domain.sample(2000, SEED)
    rim = np.minimum(np.minimum(points[:, 0], 2.2 - points[:, 0]), np.minimum(points[:, 1], 0.41 - points[:, 1]))
    disc = np.linalg.norm(points - 0.2, axis=1) - 0.05
    # The disc is a polygon of 22 sides: 0.05 (1 - cos(pi / 22)) = 5.1e-4 off.
    assert domain.signed_distance(torch.tensor(points)).numpy() == pytest.approx(-np.minimum(rim, disc), abs=5.2e-4)

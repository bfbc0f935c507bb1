import itertools
import math
import time

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from pdelab.errors import InputError, MeshError, ShapeError
from pdelab.mesh import Mesh
from pdelab.meshes.interpolate import Locator, MeshField, recovered_gradient
from pdelab.meshes.shape import TETRA_EDGES, reference_nodes, shape_functions

SEED = 48109


def line_mesh(n: int = 9) -> Mesh:
    return Mesh(np.linspace(-1, 2, n + 1)[:, None] ** 3, np.stack([np.arange(n), np.arange(1, n + 1)], 1), "line")


def random_triangles(n: int, seed: int = SEED, power: float = 1.0) -> Mesh:
    """Delaunay triangles of the unit square; a power above 1 crowds them near the origin."""
    side = np.linspace(0, 1, max(3, int(np.sqrt(n)) // 2))
    rim = np.concatenate([np.stack([side, 0 * side + v], 1) for v in (0, 1)])
    rim = np.concatenate([rim, rim[:, ::-1]])
    points = np.concatenate([[[0, 0], [1, 0], [0, 1], [1, 1]], np.random.default_rng(seed).random((n, 2)), rim])
    points = np.unique(points, axis=0) ** power
    triangles = Delaunay(points).simplices
    volume = Mesh(points, triangles).volumes()
    triangles[volume < 0] = triangles[volume < 0][:, ::-1]
    return Mesh(points, triangles[np.abs(volume) > 1e-15])


def cube_of_tetra(n: int) -> Mesh:
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corner = np.stack(np.meshgrid(*[range(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    step = np.array([(n + 1) ** 2, n + 1, 1])
    cells = []
    for order in itertools.permutations(range(3)):
        path = np.concatenate([[0], np.cumsum(step[list(order)])])
        even = np.linalg.det(np.eye(3)[list(order)]) > 0
        cells.append((corner @ step)[:, None] + (path if even else path[[0, 2, 1, 3]]))
    return Mesh(grid, np.concatenate(cells), "tetra")


def second_order(mesh: Mesh, bend: float = 0.0) -> Mesh:
    """triangle6 or tetra10 with mid-edge nodes, moved by a smooth map of size `bend`."""
    edges = TETRA_EDGES[: {2: 3, 3: 6}[mesh.dimension]]
    pairs = np.concatenate([np.sort(mesh.cells[:, edge], axis=1) for edge in edges])
    unique, number = np.unique(pairs, axis=0, return_inverse=True)
    points = np.concatenate([mesh.points, mesh.points[unique].mean(axis=1)])
    mids = mesh.n_points + number.reshape(len(edges), -1).T
    kind = {2: "triangle6", 3: "tetra10"}[mesh.dimension]
    return Mesh(points + bend * np.sin(3 * points[:, ::-1]), np.hstack([mesh.cells, mids]), kind)


def quads(n: int, kind: str) -> Mesh:
    """Sheared and bent quadrilaterals over the unit square."""
    m = 2 * n
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, m + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    i, j = (a.ravel() for a in np.meshgrid(range(n), range(n), indexing="ij"))
    local = np.array([(0, 0), (2, 0), (2, 2), (0, 2), (1, 0), (2, 1), (1, 2), (0, 1)])
    cells = (2 * i[:, None] + local[:, 0]) * (m + 1) + 2 * j[:, None] + local[:, 1]
    cells = cells[:, :4] if kind == "quad" else cells
    used, number = np.unique(cells, return_inverse=True)
    points = grid[used]
    return Mesh(points + 0.1 * np.sin(3 * points[:, ::-1]), number.reshape(cells.shape), kind)


def points_in(mesh: Mesh, n: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Random points inside cells, made by the shape functions, and those cells."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(len(mesh.cells), size=n)
    at = rng.random((n, mesh.dimension))
    if mesh.cell_type in ("quad", "quad8"):
        at = 2 * at - 1
    elif mesh.dimension > 1:
        at = np.diff(np.sort(at, axis=1), axis=1, prepend=0.0)
    weights = shape_functions(mesh.cell_type, at)
    return np.einsum("nk,nkd->nd", weights, mesh.points[mesh.cells[cells]]), cells


STRAIGHT = {
    "line": line_mesh(),
    "triangles": random_triangles(300),
    "crowded triangles": random_triangles(300, power=2.0),
    "tetra": cube_of_tetra(3),
    "triangle6": second_order(random_triangles(60)),
    "tetra10": second_order(cube_of_tetra(2)),
}
CURVED = {
    "bent triangle6": second_order(random_triangles(80), 0.03),
    "bent tetra10": second_order(cube_of_tetra(3), 0.03),
    "quad": quads(5, "quad"),
    "quad8": quads(5, "quad8"),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_every_point_is_found_in_the_cell_it_was_made_in(name):
    mesh = STRAIGHT[name]
    points, cells = points_in(mesh, 500)
    found, inside = Locator(mesh).locate(points)
    assert inside.all()
    assert (found == cells).all()


@pytest.mark.parametrize("name", CURVED)
def test_curved_cells_are_found_up_to_their_borders(name):
    mesh = CURVED[name]
    points, cells = points_in(mesh, 500)
    found, _ = Locator(mesh).locate(points)
    assert (found == cells).mean() > 0.9


def test_nodes_and_edge_midpoints_are_inside():
    mesh = STRAIGHT["crowded triangles"]
    edges = mesh.points[mesh.cells[:, :2]].mean(axis=1)
    found, inside = Locator(mesh).locate(np.concatenate([mesh.points, edges]))
    assert inside.all()
    assert (mesh.cells[found[: mesh.n_points]] == np.arange(mesh.n_points)[:, None]).any(axis=1).all()


def test_a_thin_and_graded_mesh_is_searched_fully():
    x = np.concatenate([[0.0], np.geomspace(1e-7, 1.0, 40)])
    grid = np.stack(np.meshgrid(x, np.linspace(0, 1, 4), indexing="ij"), axis=-1).reshape(-1, 2)
    i, j = (a.ravel() for a in np.meshgrid(range(40), range(3), indexing="ij"))
    corner = 4 * i + j
    cells = np.concatenate(
        [np.stack([corner, corner + 4, corner + 5], 1), np.stack([corner, corner + 5, corner + 1], 1)]
    )
    mesh = Mesh(grid, cells)
    points, made_in = points_in(mesh, 2000)
    found, inside = Locator(mesh).locate(points)
    assert inside.all() and (found == made_in).mean() > 0.99


def test_points_outside_get_the_nearest_cell():
    mesh = STRAIGHT["triangles"]
    found, inside = Locator(mesh).locate(np.array([[-0.5, 0.3], [0.5, 1.7], [2.0, 2.0]]))
    assert not inside.any()
    centres = mesh.points[mesh.cells[found]].mean(axis=1)
    assert centres[0, 0] < 0.15 and abs(centres[0, 1] - 0.3) < 0.15
    assert centres[1, 1] > 0.85 and abs(centres[1, 0] - 0.5) < 0.15
    assert centres[2].min() > 0.85


def test_a_hole_is_outside():
    mesh = STRAIGHT["triangles"]
    centres = mesh.points[mesh.cells].mean(axis=1)
    holed = Mesh(mesh.points, mesh.cells[np.linalg.norm(centres - 0.5, axis=1) > 0.2])
    assert Locator(holed).locate(np.array([[0.5, 0.5], [0.1, 0.5]]))[1].tolist() == [False, True]


@pytest.mark.parametrize("name", STRAIGHT | CURVED)
def test_linear_fields_and_their_gradients_are_exact(name):
    mesh = (STRAIGHT | CURVED)[name]
    slope = np.arange(1.0, 2 * mesh.dimension + 1).reshape(mesh.dimension, 2)
    field = MeshField(mesh, mesh.points @ slope + [0.5, -2.0])
    x = torch.tensor(points_in(mesh, 200)[0], requires_grad=True)
    u = field(x)
    expected = x.detach().numpy() @ slope + [0.5, -2.0]
    assert u.shape == (200, 2) and u.dtype == torch.float64
    assert u.detach().numpy() == pytest.approx(expected, abs=1e-11)
    for component in range(2):
        (gradient,) = torch.autograd.grad(u[:, component].sum(), x, retain_graph=True)
        assert gradient.numpy() == pytest.approx(np.tile(slope[:, component], (200, 1)), abs=1e-8)


def test_second_order_triangles_reproduce_quadratics_and_their_second_derivatives():
    mesh = STRAIGHT["triangle6"]
    x, y = mesh.points.T
    field = MeshField(mesh, (x**2 - 3 * x * y + 2 * y**2 + x)[:, None])
    p = torch.tensor(points_in(mesh, 100)[0], requires_grad=True)
    u = field(p)
    a, b = p.detach().numpy().T
    assert u.detach().numpy()[:, 0] == pytest.approx(a**2 - 3 * a * b + 2 * b**2 + a, abs=1e-12)
    (gradient,) = torch.autograd.grad(u.sum(), p, create_graph=True)
    (second,) = torch.autograd.grad(gradient[:, 0].sum(), p)
    assert second.numpy() == pytest.approx(np.tile([2.0, -3.0], (100, 1)), abs=1e-7)


@pytest.mark.parametrize("name", CURVED)
def test_derivatives_in_curved_cells_match_differences(name):
    mesh = CURVED[name]
    values = np.random.default_rng(77213).standard_normal((mesh.n_points, 1))
    field = MeshField(mesh, values)
    # Cell centres, so that the differences stay in one cell.
    centre = reference_nodes(mesh.cell_type)[: 3 if "triangle" in name else 4].mean(axis=0, keepdims=True)
    places = np.einsum("k,nkd->nd", shape_functions(mesh.cell_type, centre)[0], mesh.points[mesh.cells])
    x = torch.tensor(places, requires_grad=True)
    (gradient,) = torch.autograd.grad(field(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient[:, 0].sum(), x)
    h = 1e-4 * torch.eye(mesh.dimension, dtype=torch.float64)[:1]
    up, middle, down = (field(torch.tensor(places) + s * h)[:, 0] for s in (1, 0, -1))
    assert gradient[:, 0].detach().numpy() == pytest.approx(((up - down) / 2e-4).numpy(), rel=1e-4, abs=1e-4)
    assert second[:, 0].numpy() == pytest.approx(((up - 2 * middle + down) / 1e-8).numpy(), rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("kind, order", [("triangle", 2), ("triangle6", 3), ("quad", 2), ("quad8", 3)])
def test_error_falls_with_the_order_of_the_cells(kind, order):
    def smooth(p):
        return np.sin(2 * p[:, :1]) * np.exp(p[:, 1:])

    errors = []
    for n in (6, 12, 24):
        if kind in ("quad", "quad8"):
            mesh = quads(n, kind)
        else:
            split = quads(n, "quad")
            mesh = Mesh(split.points, np.concatenate([split.cells[:, [0, 1, 2]], split.cells[:, [0, 2, 3]]]))
            mesh = second_order(mesh) if kind == "triangle6" else mesh
        x = points_in(mesh, 4000)[0]
        u = MeshField(mesh, smooth(mesh.points))(torch.tensor(x)).numpy()
        errors.append(np.sqrt(np.mean((u - smooth(x)) ** 2)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() > order - 0.25


def test_times_are_interpolated_to_eighth_order():
    mesh = STRAIGHT["triangles"]
    times = np.linspace(0.0, 2.0, 11)
    values = np.stack([np.exp(-t) * mesh.points @ [[2.0], [1.0]] for t in times])
    field = MeshField(mesh, values, times)
    rng = np.random.default_rng(5521)
    x = torch.tensor(np.hstack([points_in(mesh, 100)[0], 2 * rng.random((100, 1))]), requires_grad=True)
    u = field(x)
    a, b, t = x.detach().numpy().T
    exact = np.exp(-t) * (2 * a + b)
    assert u[:, 0].detach().numpy() == pytest.approx(exact, abs=1.5e-7)
    (gradient,) = torch.autograd.grad(u.sum(), x)
    assert gradient[:, 2].numpy() == pytest.approx(-exact, abs=1e-5)


def test_a_point_just_outside_continues_the_nearest_cell():
    mesh = STRAIGHT["triangles"]
    field = MeshField(mesh, mesh.points @ [[1.0], [2.0]])
    assert field(torch.tensor([[0.4, -0.01], [1.02, 0.6]])).flatten().tolist() == pytest.approx([0.38, 2.22], abs=1e-6)


@pytest.mark.parametrize("times", [None, np.array([0.0, 0.5, 1.0])])
def test_storage_round_trip(times):
    mesh = STRAIGHT["triangle6"]
    shape = (mesh.n_points, 2) if times is None else (3, mesh.n_points, 2)
    field = MeshField(mesh, np.random.default_rng(SEED).standard_normal(shape), times)
    again = MeshField.from_arrays(field.arrays())
    x = torch.tensor(points_in(mesh, 50)[0])
    x = x if times is None else torch.hstack([x, torch.rand(50, 1, dtype=torch.float64)])
    assert torch.equal(field(x), again(x))
    assert field.kind == "mesh" and again.n_components == 2


def test_float32_points_give_float64_values():
    field = MeshField(STRAIGHT["line"], STRAIGHT["line"].points)
    assert field(torch.tensor([[0.25]], dtype=torch.float32)).dtype == torch.float64
    assert field(torch.empty(0, 1)).shape == (0, 1)


def test_recovered_gradient_is_exact_for_linear_and_second_order_inside():
    linear = MeshField(STRAIGHT["tetra"], STRAIGHT["tetra"].points @ [[1.0], [2.0], [3.0]])
    assert recovered_gradient(linear.mesh, linear.values)[:, 0] == pytest.approx(np.tile([1, 2, 3], (64, 1)), abs=1e-12)
    errors = []
    for n in (8, 16):
        split = quads(n, "quad")
        i, j = (a.ravel() / n for a in np.meshgrid(range(n + 1), range(n + 1), indexing="ij"))
        mesh = Mesh(np.stack([i, j], 1), np.concatenate([split.cells[:, [0, 1, 2]], split.cells[:, [0, 2, 3]]]))
        gradient = recovered_gradient(mesh, np.sin(2 * i + j)[:, None])[:, 0]
        inner = (np.minimum(i, j) > 0) & (np.maximum(i, j) < 1)
        errors.append(np.abs(gradient[inner, 0] - 2 * np.cos(2 * i + j)[inner]).max())
    assert math.log2(errors[0] / errors[1]) > 1.7


def test_refusals():
    mesh = STRAIGHT["triangles"]
    with pytest.raises(InputError, match="not finite"):
        Locator(mesh).locate(np.array([[np.nan, 0.0]]))
    with pytest.raises(ShapeError, match="values"):
        MeshField(mesh, np.zeros((3, 1)))
    with pytest.raises(ShapeError, match="points"):
        MeshField(mesh, mesh.points)(torch.zeros(4, 3))
    with pytest.raises(MeshError, match="no volume"):
        Locator(Mesh([[0, 0], [1, 0], [2, 0]], [[0, 1, 2]]))
    with pytest.raises(MeshError, match="got quad"):
        recovered_gradient(CURVED["quad"], np.zeros((36, 1)))


@pytest.mark.slow
def test_a_hundred_thousand_points_in_as_many_triangles_take_under_two_cpu_seconds():
    mesh = random_triangles(50_000)
    assert len(mesh.cells) > 95_000
    field = MeshField(mesh, mesh.points @ [[2.0], [3.0]])
    x = np.random.default_rng(77213).random((100_000, 2))
    start = time.process_time()
    u = field(torch.tensor(x))
    assert time.process_time() - start < 2.0
    assert u[:, 0].numpy() == pytest.approx(x @ [2.0, 3.0], abs=1e-8)

import numpy as np
import pytest

from pdelab.errors import MeshError, ShapeError
from pdelab.mesh import CELL_TYPES, Mesh
from pdelab.meshes.convert import from_graph, from_pyvista, to_graph, to_pyvista
from pdelab.meshes.shape import reference_nodes

TWO = Mesh(
    [[0, 0], [1, 0], [1, 1], [0, 1]],
    [[0, 1, 2], [0, 2, 3]],
    facets={"floor": [[0, 1]], "side": [[1, 2], [3, 0]]},
    regions={"upper left": [1]},
)


def one(kind: str) -> Mesh:
    nodes = reference_nodes(kind)
    local = CELL_TYPES[kind][3]
    return Mesh(nodes, [range(len(nodes))], kind, {"first": [local[0]], "rest": list(local[1:])}, {"body": [0]})


MESHES = {kind: one(kind) for kind in CELL_TYPES} | {"two triangles": TWO}


def same(a: Mesh, b: Mesh) -> None:
    assert a.cell_type == b.cell_type
    for x, y in ((a.points, b.points), (a.cells, b.cells)):
        assert x.dtype == y.dtype and np.array_equal(x, y)
    for x, y in ((a.facets, b.facets), (a.regions, b.regions)):
        assert x.keys() == y.keys()
        assert all(np.array_equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize("name", MESHES)
def test_pyvista_round_trip(name):
    mesh = MESHES[name]
    rng = np.random.default_rng(5521)
    values = {"u": rng.random(mesh.n_points), "flux": rng.random((mesh.n_points, 3))}
    grid = to_pyvista(mesh, values)
    assert (grid.n_points, grid.n_cells) == (mesh.n_points, len(mesh.cells))
    again, stored = from_pyvista(grid)
    same(mesh, again)
    assert stored.keys() == values.keys()
    assert all(np.array_equal(stored[k], values[k]) for k in values)


@pytest.mark.parametrize("kind, volume", [("triangle", 0.5), ("tetra", 1 / 6), ("quad", 4.0), ("triangle6", 0.5)])
def test_pyvista_sees_the_same_volume(kind, volume):
    sizes = to_pyvista(one(kind)).compute_cell_sizes()
    assert np.abs(sizes["Volume" if kind == "tetra" else "Area"]) == pytest.approx([volume])


def test_graph_of_two_triangles():
    graph = to_graph(TWO, {"u": np.arange(4.0)})
    assert graph.edge_index.T.tolist() == [
        [0, 1], [0, 2], [0, 3], [1, 0], [1, 2], [2, 0], [2, 1], [2, 3], [3, 0], [3, 2],
    ]  # fmt: skip
    assert graph.num_nodes == 4 and graph.is_undirected() and graph.boundary.all()
    assert graph.u.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_graph_knows_inner_nodes():
    points = np.vstack([TWO.points, [[0.5, 0.5]]])
    graph = to_graph(Mesh(points, [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))
    assert graph.boundary.tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("kind, edges", [("line", 1), ("tetra", 6), ("quad", 4), ("triangle6", 6), ("quad8", 8)])
def test_number_of_edges(kind, edges):
    assert to_graph(one(kind)).edge_index.shape == (2, 2 * edges)


@pytest.mark.parametrize("name", MESHES)
def test_graph_round_trip(name):
    same(MESHES[name], from_graph(to_graph(MESHES[name])))


def test_refusals():
    import pyvista
    import torch
    from torch_geometric.data import Data

    with pytest.raises(ShapeError, match="u: expected shape"):
        to_pyvista(TWO, {"u": np.zeros(3)})
    with pytest.raises(ShapeError, match="u: expected shape"):
        to_graph(TWO, {"u": np.zeros((5, 2))})
    with pytest.raises(MeshError, match="'pos' is taken"):
        to_graph(TWO, {"pos": np.zeros(4)})
    with pytest.raises(MeshError, match="only graphs made by to_graph"):
        from_graph(Data(pos=torch.zeros(3, 2)))
    with pytest.raises(MeshError, match="cells of one type"):
        from_pyvista(pyvista.ImageData(dimensions=(3, 3, 3)).cast_to_unstructured_grid())
    tilted = to_pyvista(TWO).rotate_x(30.0)
    with pytest.raises(MeshError, match="first 2 coordinates"):
        from_pyvista(tilted)

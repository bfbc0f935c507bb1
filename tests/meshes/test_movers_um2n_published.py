"""UM2N in the released form: size, attention by hand, losses by hand, training."""

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from pdelab import testing
from pdelab.domain import Box
from pdelab.errors import CheckpointError
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, domain_mesh
from pdelab.meshes.movers._graph_net import DeformableAttention, GraphNet
from pdelab.meshes.movers.monge_ampere import MongeAmpere
from pdelab.meshes.movers.monitor import monitor_at_nodes
from pdelab.meshes.movers.um2n_published import PublishedUM2N, network_input
from pdelab.meshes.movers.um2n_published_training import area_loss, chamfer_distance
from pdelab.solver import training_context

SQUARE = Box((0.0, 0.0), (1.0, 1.0))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def selu(x):
    return 1.0507009873554805 * (np.maximum(x, 0) + 1.6732632423543772 * np.minimum(np.expm1(np.minimum(x, 0)), 0))


def test_the_released_size():
    # 1 839 035 in the layers, and the scales of 4 heads and of a residual of 64.
    assert sum(p.numel() for p in GraphNet().parameters()) == 1_839_035 + 68


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    layer = DeformableAttention(3, 5, heads=2).double()
    f, x = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    edges = torch.tensor([[1, 2, 0, 3, 1, 2, 0], [0, 0, 1, 1, 2, 3, 2]])
    with torch.no_grad():
        features, places = (t.numpy() for t in layer(f, x, edges))
    weight, bias, left, right = (
        p.detach().numpy() for p in (layer.lift.weight, layer.lift.bias, layer.left, layer.right)
    )
    s = (f.numpy() @ weight.T + bias).reshape(4, 2, 5)
    for i in range(4):
        near = [int(a) for a, b in edges.T if b == i]
        seen, pulled = np.zeros(5), np.zeros(2)
        for h in range(2):
            score = np.array([s[j, h] @ left[h] + s[i, h] @ right[h] for j in near])
            a, b = np.exp(selu(score)), np.exp(selu(0.2 * score))
            seen += sum(w * s[j, h] for w, j in zip(a / a.sum(), near, strict=True)) / 2
            pulled += sum(w * x[j].numpy() for w, j in zip(b / b.sum(), near, strict=True)) / 2
        assert features[i] == pytest.approx(selu(seen), abs=1e-12) and places[i] == pytest.approx(pulled, abs=1e-12)


def test_nodes_stay_in_the_hull_of_their_neighbours_and_the_boundary_is_pinned():
    mesh = domain_mesh(SQUARE, 0.2)
    torch.manual_seed(1)
    layer = DeformableAttention(2, 3)
    x, _, boundary, edges = network_input(mesh, np.ones(mesh.n_points))
    with torch.no_grad():
        moved = layer(x, x, edges)[1].numpy()
        pinned = GraphNet(18).eval()(x, torch.rand(len(x)) + 1, boundary, edges)
    for node in np.flatnonzero(~boundary.numpy()):
        near = mesh.points[edges[0][edges[1] == node].numpy()]
        hull = Delaunay(near)
        assert hull.find_simplex(moved[node], tol=1e-5) >= 0
    assert torch.equal(pinned[boundary], x[boundary]) and not torch.equal(pinned, x)


def test_numbering_changes_nothing():
    mesh, rng = domain_mesh(SQUARE, 0.12), np.random.default_rng(0)
    torch.manual_seed(2)
    net, u = GraphNet(18).eval(), rng.random((mesh.n_points, 1))
    nodes = rng.permutation(mesh.n_points)
    other = Mesh(mesh.points[nodes], np.argsort(nodes)[mesh.cells[::-1]], mesh.cell_type)
    moved, again = PublishedUM2N().move(mesh, u, net), PublishedUM2N().move(other, u[nodes], net)
    assert np.abs(again.points - moved.points[nodes]).max() < 1e-5


def test_losses_are_those_of_the_formulas():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    cells = np.array([[0, 1, 2], [1, 3, 2]])
    inverted = x[[0, 1, 2, 0]]  # the second cell is turned round: -1/2 instead of 1/2
    assert area_loss(x, x, cells) == 0 and area_loss(inverted, x, cells) == pytest.approx(1.0)
    assert area_loss(2 * x, x, cells) == pytest.approx(3.0)
    p, q = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 3.0], [5.0, 0.0]])
    assert chamfer_distance(p, q) == pytest.approx((1 + 2) / 2 + (1 + 9 + 16) / 3)


def test_training_lowers_the_area_loss_and_its_result_is_a_mover():
    mover, mesh = PublishedUM2N(width=18), domain_mesh(SQUARE, 0.13)
    m = monitor_at_nodes(mesh, np.exp(-20 * ((mesh.points - [0.3, 0.6]) ** 2).sum(axis=1))[:, None])
    goal = torch.as_tensor(MongeAmpere(monitor="given").move(mesh, m[:, None]).points)
    missed = []
    for n in (1, 150):
        with training_context(f"{n}steps", 1, "cpu", 1, None, lambda progress: None) as context:
            trained = mover.prepare([(mesh, m[:, None])], context=context)
        with torch.no_grad():
            missed.append(area_loss(trained(*network_input(mesh, m)), goal, mesh.cells).item())
    assert missed[1] < missed[0]
    mesh = box_mesh(SQUARE, 8)
    for values in (np.exp(-30 * ((mesh.points - 0.4) ** 2).sum(axis=1)), np.ones(mesh.n_points)):
        assert (mover.move(mesh, values[:, None], trained).volumes() > 0).all()


def test_there_are_no_weights_and_the_message_says_what_to_do():
    mesh = box_mesh(SQUARE, 4)
    with pytest.raises(CheckpointError, match="pdelab train um2n-published"):
        PublishedUM2N().move(mesh, np.ones((mesh.n_points, 1)))
    testing._check_settings(PublishedUM2N())

"""The parts of the solver on moved meshes: neighbours, messages, learned interpolation."""

import numpy as np
import torch

from pdelab.solvers._learned_interpolation import LearnedInterpolation
from pdelab.solvers._mesh_graph_net import MeshGraphNet, nearest_nodes

PERIODS = np.array([4.0, 4.0])


def scattered(n, seed=0):
    return np.random.default_rng(seed).uniform(0.0, 4.0, (n, 2))


def graph(nodes, k=5):
    nearest, offsets = nearest_nodes(nodes, nodes, k, PERIODS)
    edges = torch.as_tensor(np.stack([nearest.ravel(), np.repeat(np.arange(len(nodes)), k)]))
    return edges, torch.as_tensor(offsets.reshape(-1, 2))


def test_neighbours_are_those_of_all_distances_around_the_box():
    nodes, places = scattered(40), scattered(9, seed=1)
    nearest, offsets = nearest_nodes(nodes, places, 6, PERIODS)
    gaps = nodes[None] - places[:, None]
    gaps -= 4.0 * np.rint(gaps / 4.0)
    expected = np.sort(np.linalg.norm(gaps, axis=2), axis=1)[:, :6]
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=2), expected, atol=1e-14)
    np.testing.assert_allclose(offsets, np.take_along_axis(gaps, nearest[:, :, None], axis=1), atol=1e-14)


def test_the_right_side_is_the_left_side():
    nearest, offsets = nearest_nodes(np.array([[4.0, 0.0], [2.0, 2.0]]), np.array([[-1e-17, 4.0]]), 1, PERIODS)
    assert nearest.tolist() == [[0]]
    np.testing.assert_allclose(offsets, 0.0, atol=1e-15)


def test_interpolation_keeps_constants_whatever_the_network_says():
    layer = LearnedInterpolation(5).double()
    with torch.no_grad():
        layer.layers[-1].weight.mul_(50.0)  # sums of weights below the floor, too
    nearest, offsets = nearest_nodes(scattered(60), scattered(200, seed=2), 5, PERIODS)
    offsets = torch.as_tensor(offsets)
    distance = offsets.norm(dim=2)
    unit = distance.mean(dim=1, keepdim=True)
    raw = torch.exp(-4 * (distance / unit) ** 2) * (1 + layer.layers((offsets / unit[:, :, None]).flatten(1)))
    sums = raw.sum(dim=1)
    assert (sums < 0.1).any() and (sums > 0.1).any()
    values = torch.full((60, 1), 3.7, dtype=torch.float64)
    found = layer(values, torch.as_tensor(nearest), offsets)
    torch.testing.assert_close(found, torch.full_like(found, 3.7), rtol=1e-9, atol=0.0)
    kept = sums > 0.1
    expected = raw[kept] / sums[kept, None]
    torch.testing.assert_close(layer.weights(offsets)[kept], expected, rtol=1e-9, atol=1e-9)


def test_a_shift_and_another_order_change_nothing():
    torch.manual_seed(0)
    network = MeshGraphNet(2, width=8, rounds=2).double()
    nodes, values = scattered(30), torch.as_tensor(np.random.default_rng(3).standard_normal((30, 2)))
    first = network(values, *graph(nodes))
    assert first.abs().max() > 1e-3
    torch.testing.assert_close(network(values, *graph(np.mod(nodes + [1.3, 2.9], 4.0))), first, rtol=1e-9, atol=1e-12)
    order = np.random.default_rng(4).permutation(30)
    torch.testing.assert_close(network(values[order], *graph(nodes[order])), first[order], rtol=1e-9, atol=1e-12)


def test_meshes_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    network = MeshGraphNet(1, width=8, rounds=2).double()
    parts = [graph(scattered(20, seed)) for seed in (5, 6)]
    values = [torch.as_tensor(np.random.default_rng(seed).standard_normal((20, 1))) for seed in (7, 8)]
    together = network(
        torch.cat(values), torch.cat([parts[0][0], parts[1][0] + 20], dim=1), torch.cat([p[1] for p in parts])
    )
    apart = torch.cat([network(v, *p) for v, p in zip(values, parts, strict=True)])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)

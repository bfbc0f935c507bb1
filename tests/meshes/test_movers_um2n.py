"""The network mover: composition, grid, repair, shipped weights on meshes that they have not seen, training."""

import math

import numpy as np
import pytest
import torch

from pdelab import testing
from pdelab.csg import Difference
from pdelab.domain import Box
from pdelab.errors import CheckpointError, InputError, MeshError, MeshTangled, ShapeError, UnknownName
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, domain_mesh, quad_mesh
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._composition import Composition, signed_areas
from pdelab.meshes.movers._cycle_net import CycleNet
from pdelab.meshes.movers._node_grid import NodeGrid
from pdelab.meshes.movers._validity import Validity
from pdelab.meshes.movers.monge_ampere import MongeAmpere
from pdelab.meshes.movers.monitor import monitor_at_nodes, ring
from pdelab.meshes.movers.spread import spread
from pdelab.meshes.movers.um2n import UM2N
from pdelab.meshes.movers.um2n_cases import gaussian_sum, training_cases
from pdelab.meshes.movers.um2n_training import Example
from pdelab.mover import prepare_mover
from pdelab.shapes import Disk

SQUARE = Box((0.0, 0.0), (1.0, 1.0))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def l_shape(size):
    return domain_mesh(Difference(SQUARE, Box((0.5, 0.5), (1.1, 1.1))), size)


def bumps(mesh, seed=0):
    rng = np.random.default_rng(seed)
    lower, upper = mesh.points.min(axis=0), mesh.points.max(axis=0)
    return gaussian_sum((mesh.points - lower) / (upper - lower).max(), rng)[:, None]


def network(width=4, seed=0):
    torch.manual_seed(seed)
    net = CycleNet(width)
    with torch.no_grad():  # so that displacements are of the size of a cell
        net.out.weight.mul_(1000.0)
    return net


def swept(composition, net, n):
    """What the network makes of the nodes in n sweeps without any repair."""
    x = None
    for _ in range(n):
        with torch.no_grad():
            x = composition.swept(net, x).numpy()
    return x


def test_splines_of_the_grid_give_back_linear_fields_and_constants_go_both_ways():
    mesh = l_shape(0.07)
    grid = NodeGrid(mesh)
    x = torch.arange(grid.shape[0])[:, None].expand(grid.shape).float()
    y = torch.arange(grid.shape[1])[None].expand(grid.shape).float()
    found = grid.to_nodes(torch.stack([x, y, torch.ones(grid.shape)])[None]).numpy()
    steps = mesh.points / grid.spacing
    assert np.abs(found[:, :2] - found[:1, :2] - steps + steps[:1]).max() < 1e-5
    assert np.abs(found[:, 2] - 1).max() < 1e-6
    inside = grid.cover[0, 0].numpy() > 0
    assert np.abs(grid.to_grid(np.ones(mesh.n_points))[0, 0].numpy()[inside] - 1).max() < 1e-6
    assert grid.cover.sum() * grid.spacing**2 == pytest.approx(0.75, rel=0.2)


def test_the_network_scales_with_the_grid_and_does_nothing_for_nothing():
    net, cover = CycleNet(3).double(), torch.ones(1, 1, 8, 8, dtype=torch.float64)
    assert not net(torch.zeros_like(cover), cover).any()
    coarse = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    fine = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        net.out.weight.zero_()
        last = net.out.weight.shape
        assert not net(fine, torch.ones_like(fine)).any()
        net.out.weight.copy_(torch.randn(last, dtype=torch.float64))
        # The coarse level of the fine grid is the level of the coarse one, in units that are twice as long.
        inner = net._level(coarse, cover)[0]
        calls = []
        level = CycleNet._level

        def recorded(self, r, c):
            found = level(self, r, c)
            calls.append((r.shape[-1], found[0]))
            return found

        CycleNet._level = recorded
        try:
            net(fine, torch.ones_like(fine))
        finally:
            CycleNet._level = level
    assert torch.equal(next(d for size, d in calls if size == 8), inner)


def test_composition_is_exact_where_the_first_map_is_linear():
    mesh = domain_mesh(SQUARE, 0.1)
    c = Composition(mesh, np.ones(mesh.n_points), BoundaryMotion(mesh))
    A, b = np.array([[0.7, 0.1], [-0.2, 0.9]]), np.array([0.3, -0.1])
    eta = (
        0.02
        * torch.as_tensor(np.sin(7 * mesh.points))
        * torch.as_tensor(np.prod(mesh.points * (1 - mesh.points), axis=1)[:, None] * 16)
    )
    found = c.composed(mesh.points @ A.T + b, eta).numpy()
    assert np.abs(found - ((mesh.points + eta.numpy()) @ A.T + b)).max() < 1e-12


def test_composition_is_differentiable():
    mesh = domain_mesh(SQUARE, 0.2)
    c = Composition(mesh, 1 + mesh.points[:, 0] ** 2, BoundaryMotion(mesh))
    x = mesh.points + 0.02 * np.sin(5 * mesh.points[:, ::-1])
    eta = torch.full((mesh.n_points, 2), 0.003, dtype=torch.float64, requires_grad=True)
    weights = torch.as_tensor(np.random.default_rng(0).normal(size=(mesh.n_points, 2)))

    def total(e):
        moved = c.composed(x, e)
        return (weights * moved).sum() + (c.monitor_at(moved) * weights[:, 0]).sum()

    (gradient,) = torch.autograd.grad(total(eta), eta)
    inside = np.setdiff1d(np.arange(mesh.n_points), mesh.boundary_facets())[:5]
    for node in inside:
        for k in (0, 1):
            step = torch.zeros_like(eta)
            step[node, k] = 1e-7
            with torch.no_grad():
                slope = (total(eta + step) - total(eta - step)) / 2e-7
            assert slope.item() == pytest.approx(gradient[node, k].item(), rel=1e-5, abs=1e-6)


def test_masses_are_those_of_the_moved_cells():
    mesh = box_mesh(SQUARE, 6)
    c = Composition(mesh, np.full(mesh.n_points, 3.0), BoundaryMotion(mesh))
    x = mesh.points * [0.5, 0.25]
    assert c.masses(x) == pytest.approx(np.full(len(mesh.cells), 3 / 8))
    assert np.abs(c._residual(c.masses(x))).max() < 1e-12
    flipped = mesh.points * [-0.5, 1.0]
    assert (c.masses(flipped) < 0).all()
    areas = signed_areas(torch.as_tensor(flipped), mesh.cells).numpy()
    assert areas == pytest.approx(-0.5 * mesh.volumes())


def test_displacements_keep_sides_and_corners_and_pass_no_corner():
    mesh = l_shape(0.08)
    boundary = BoundaryMotion(mesh)
    c = Composition(mesh, np.ones(mesh.n_points), boundary)
    eta = c.displacements(5.0 * torch.randn(1, 2, *c.grid.shape, generator=torch.Generator().manual_seed(3))).numpy()
    away = eta - np.einsum("nij,nj->ni", boundary.projections(), eta)
    assert np.abs(away).max() < 1e-14 * np.abs(eta).max()
    corner = np.flatnonzero((mesh.points == 0.5).all(axis=1))
    assert len(corner) == 1 and not eta[corner].any()
    reach = np.linalg.norm(mesh.points - mesh.points[corner], axis=1)
    assert (np.linalg.norm(eta, axis=1) <= reach + 1e-12).all() and np.abs(eta).max() > 0.1


def test_any_network_gives_a_valid_mesh():
    for mesh in (box_mesh(SQUARE, 9), l_shape(0.09), domain_mesh(Difference(SQUARE, Disk((0.5, 0.5), 0.2)), 0.08)):
        for seed in range(3):
            mover = UM2N(monitor="given", sweeps=1)
            m = 1 + 10 * np.random.default_rng(seed).random((mesh.n_points, 1))
            boundary = BoundaryMotion(mesh)
            raw = swept(Composition(mesh, m[:, 0], boundary), network(seed=seed), 1)
            assert (Validity(mesh, boundary).moved_volumes(raw) <= 0).any(), "the case is to be one that needs repair"
            mended = Validity(mesh, boundary).repaired(boundary.placed(raw))
            assert Validity(mesh, boundary).sound(mended) and not np.array_equal(mended, mesh.points)
            moved = mover.move(mesh, m, network(seed=seed))
            assert (moved.volumes() > 0).all() and spread(mesh, moved, m[:, 0]) <= spread(mesh, mesh, m[:, 0])
            assert moved.volumes().sum() == pytest.approx(mesh.volumes().sum(), rel=0.05)


def test_repair_leaves_what_is_far_from_bad_cells():
    mesh = box_mesh(SQUARE, 20)
    x = mesh.points + 0.01 * np.prod(np.sin(np.pi * mesh.points), axis=1)[:, None]
    node = int(np.argmin(np.linalg.norm(mesh.points - 0.25, axis=1)))
    wrong = x.copy()
    wrong[node] += 0.2
    validity = Validity(mesh, BoundaryMotion(mesh))
    assert validity.repaired(x) is x
    found = validity.repaired(wrong)
    far = np.linalg.norm(mesh.points - 0.35, axis=1) > 0.45
    assert validity.sound(found) and np.array_equal(found[far], x[far]) and far.sum() > 100


def test_moves_as_a_mover_must():
    testing.check_mover(UM2N())
    testing.check_mover(UM2N(monitor="gradient", strength=50.0, polish=2))


@pytest.mark.parametrize("kind", ["structured", "unstructured"])
def test_weights_meet_the_monge_ampere_mesh_on_fields_they_have_not_seen(kind):
    ratios, shares = [], []
    for seed in range(12):
        mesh = box_mesh(SQUARE, (16, 22, 30)[seed % 3], kind)
        m = monitor_at_nodes(mesh, bumps(mesh, 900 + seed), "hessian-norm")
        taught, boundary = MongeAmpere(monitor="given").move(mesh, m[:, None]), BoundaryMotion(mesh)
        raw = swept(Composition(mesh, m, boundary), UM2N().trained(), 2)
        assert Validity(mesh, boundary).valid(raw), "no cell is folded before any repair"
        moved = UM2N(monitor="given").move(mesh, m[:, None])
        before, after, goal = (each.volumes() for each in (mesh, moved, taught))
        ratios.append(np.abs(after - goal).sum() / np.abs(before - goal).sum())
        shares.append(spread(mesh, moved, m) / spread(mesh, mesh, m))
    assert np.median(ratios) < 0.35 and np.median(shares) < 0.35


@pytest.mark.parametrize(
    "mesh",
    [
        box_mesh(SQUARE, 60),
        l_shape(0.03),
        domain_mesh(Difference(Box((0.0, 0.0), (2.2, 0.41)), Disk((0.2, 0.2), 0.05)), 0.02),
        domain_mesh(Difference(Disk((3.0, -2.0), 1.0), Disk((3.2, -2.1), 0.2)), 0.07),
    ],
    ids=["finer square", "L-shape", "channel", "annulus"],
)
def test_weights_move_meshes_of_other_sizes_and_shapes(mesh):
    m = monitor_at_nodes(mesh, bumps(mesh, 4), "hessian-norm")
    moved = UM2N(monitor="given").move(mesh, m[:, None])
    assert (moved.volumes() > 0).all() and spread(mesh, moved, m) < 0.6 * spread(mesh, mesh, m)


def test_numbering_changes_nothing():
    mesh, rng = l_shape(0.06), np.random.default_rng(0)
    u = bumps(mesh, 5)
    nodes, cells = rng.permutation(mesh.n_points), rng.permutation(len(mesh.cells))
    back = np.argsort(nodes)
    other = Mesh(mesh.points[nodes], back[mesh.cells[cells]], mesh.cell_type)
    moved, again = UM2N().move(mesh, u), UM2N().move(other, u[nodes])
    assert np.abs(again.points - moved.points[nodes]).max() < 1e-5
    assert np.abs(moved.points - mesh.points).max() > 0.01


def test_place_and_size_change_nothing():
    mesh = l_shape(0.06)
    u = bumps(mesh, 5)
    other = Mesh(1e3 * mesh.points + [7.0, -40.0], mesh.cells, mesh.cell_type)
    moved, again = UM2N().move(mesh, u), UM2N().move(other, u)
    assert np.abs((again.points - [7.0, -40.0]) / 1e3 - moved.points).max() < 1e-4


def test_a_stronger_monitor_moves_more():
    mesh = box_mesh(SQUARE, 24)
    u = bumps(mesh, 6)
    smallest = [UM2N(strength=a).move(mesh, u).volumes().min() for a in (0.0, 1.0, 4.0, 16.0)]
    assert smallest[0] == pytest.approx(mesh.volumes().min()) and all(
        a > b for a, b in zip(smallest, smallest[1:], strict=False)
    )


def test_polish_comes_nearer_to_equal_mass():
    mesh = domain_mesh(SQUARE, 0.05)
    m = ring(amplitude=10.0, sharpness=30.0)(mesh.points)[:, None]
    spreads = [spread(mesh, UM2N(monitor="given", polish=n).move(mesh, m), m[:, 0]) for n in (0, 5, 30)]
    assert spreads[0] >= spreads[1] >= spreads[2] and spreads[2] < 0.9 * spreads[0]


def test_named_parts_stay_where_they_are():
    mesh = box_mesh(SQUARE, 12)
    moved = UM2N(fixed=("left",)).move(mesh, bumps(mesh, 7))
    left = np.unique(mesh.facets["left"])
    assert np.array_equal(moved.points[left], mesh.points[left])
    with pytest.raises(UnknownName, match="left"):
        UM2N(fixed=("lefft",)).move(mesh, bumps(mesh, 7))


def test_wrong_input_is_refused():
    mesh, mover = box_mesh(SQUARE, 4), UM2N(monitor="given")
    ones = np.ones((mesh.n_points, 1))
    with pytest.raises(InputError, match="positive"):
        mover.move(mesh, -ones)
    with pytest.raises(InputError, match="finite"):
        mover.move(mesh, np.nan * ones)
    with pytest.raises(ShapeError):
        mover.move(mesh, ones[:-1])
    with pytest.raises(MeshError, match="triangles"):
        mover.move(quad_mesh(SQUARE, 3), np.ones((16, 1)))
    with pytest.raises(MeshError, match="tetra"):
        mover.move(box_mesh(Box((0.0,) * 3, (1.0,) * 3), 2), np.ones((27, 1)))
    folded = mesh.points.copy()
    folded[int(np.argmin(np.linalg.norm(folded - 0.5, axis=1)))] = [1.4, 1.4]
    with pytest.raises(MeshTangled):
        mover.move(Mesh(folded, mesh.cells, mesh.cell_type), ones)
    with pytest.raises(CheckpointError, match="pdelab train um2n"):
        UM2N(monitor="given", weights="nowhere").move(mesh, ones)


def test_losses_vanish_at_the_target_and_have_right_slopes():
    (mesh, m), *_ = training_cases(3, 1)
    example = Example.of(mesh, m)
    at_target = example.losses(example.target)
    assert at_target["area"] < 1e-12 and at_target["place"] < 1e-12 and at_target["flat"] == 0
    rest = example.losses(torch.as_tensor(mesh.points))
    q = m[:, 0][mesh.cells].mean(axis=1)
    assert rest["mass"].item() == pytest.approx((q / q.mean() - 1).var() + 0.0, rel=1e-6)
    assert at_target["mass"] < 0.3 * rest["mass"]
    x = torch.as_tensor(0.5 * (mesh.points + example.target.numpy())).requires_grad_()
    wanted = ("area", "place", "flat")  # the mean in mass is held fixed
    slope = torch.autograd.grad(sum(example.losses(x)[key] for key in wanted), x)[0]
    node = int(slope.norm(dim=1).argmax())
    step = torch.zeros_like(x)
    step[node, 0] = 1e-7
    with torch.no_grad():
        ends = [sum(example.losses(x + s * step)[key].item() for key in wanted) for s in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(slope[node, 0].item(), rel=1e-3)


def test_cases_are_the_same_for_the_same_seed_and_of_all_kinds():
    first, again, other = training_cases(1, 10), training_cases(1, 10), training_cases(2, 10)
    assert all(
        np.array_equal(a[0].points, b[0].points) and np.array_equal(a[1], b[1])
        for a, b in zip(first, again, strict=True)
    )
    assert not any(np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    assert all((mesh.volumes() > 0).all() and (m > 0).all() and m.shape == (mesh.n_points, 1) for mesh, m in first)
    assert math.isclose(first[6][0].volumes().sum(), 0.75, rel_tol=1e-9)


def test_training_lowers_the_loss_and_resumes_to_the_same_bits(tmp_path):
    from pdelab.checkpoint import CheckpointStore
    from pdelab.training import training

    mover = UM2N(width=4, n_cases=4)
    short, longer = (prepare_mover(mover, budget=f"{n}steps", seed=1, device="cpu") for n in (1, 40))
    assert longer.report.loss < short.report.loss

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    chosen = training("um2n", None, {"width": 4, "n_cases": 4}, {})
    chosen.run(whole, budget="6steps", seed=1, device="cpu", threads=1)

    def stop(progress):
        if progress.step >= 3:
            raise KeyboardInterrupt

    every = CheckpointStore.__init__.__defaults__
    CheckpointStore.__init__.__defaults__ = (0.0,)
    try:
        with pytest.raises(KeyboardInterrupt):
            chosen.run(cut, budget="6steps", seed=1, device="cpu", threads=1, report=stop)
    finally:
        CheckpointStore.__init__.__defaults__ = every
    chosen.run(cut, budget="6steps", seed=1, device="cpu", threads=1)
    first, second = (UM2N(weights=str(path)).trained().state_dict() for path in (whole, cut))
    assert all(torch.equal(first[k], second[k]) for k in first)
    mesh = box_mesh(SQUARE, 8)
    assert (UM2N(weights=str(whole)).move(mesh, bumps(mesh)).volumes() > 0).all()

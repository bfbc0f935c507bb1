import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from pdelab.errors import InputError
from pdelab.linear import linear_solve
from pdelab.solution import Status
from pdelab.solvers.linear._conjugate_directions import Iteration, minimise
from pdelab.solvers.linear._hierarchy import finest, hierarchy, prolong, pseudo_inverse, restrict
from pdelab.solvers.linear._learned_cycle import LearnedCycle
from pdelab.solvers.linear._published_net import PublishedNet
from pdelab.solvers.linear._training_vectors import box_mixtures, mixtures, ritz_pairs
from pdelab.solvers.linear.cg import CG
from pdelab.solvers.linear.dcdm import DCDM, PublishedDCDM, load, save
from pdelab.solvers.linear.dcdm_training import CycleRecipe, direction_loss
from pdelab.solvers.linear.ic_cg import ICCG
from pdelab.solvers.linear.multigrid import Multigrid, cycle
from pdelab.stencil import FLUID, SOLID, Stencil, poisson_stencil


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def with_disc(shape, walls="neumann", radius=0.2):
    places = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij"), axis=-1)
    cells = np.where(np.linalg.norm(places - 0.55, axis=-1) < radius, SOLID, FLUID)
    return poisson_stencil(shape, walls=walls, cells=cells)


def noise(stencil, k=1, seed=771):
    b = np.random.default_rng(seed).standard_normal((k, *stencil.shape)) * stencil.active
    if not (stencil.excess > 1e-9).any():
        b -= stencil.active * b.reshape(k, -1).sum(1).reshape(-1, *(1,) * b[0].ndim) / stencil.active.sum()
    return torch.as_tensor(b)


def random_directions(level, seed=5):
    torch.manual_seed(seed)
    net = PublishedNet(level.d).requires_grad_(False)
    return lambda r: level.active * net(r.float()).double()


def identity(r):
    return r


CASES = [
    poisson_stencil((24, 24), walls="dirichlet"),
    with_disc((21, 30)),
    with_disc((12, 10, 9), "dirichlet"),
    with_disc((12, 12, 12)),
]


@pytest.mark.parametrize("stencil", CASES, ids=lambda s: "x".join(map(str, s.shape)))
def test_the_matrix_of_a_level_is_that_of_the_stencil(stencil):
    u = noise(stencil, 3)
    expected = np.stack([stencil.matrix() @ v.numpy().ravel() for v in u]).reshape(u.shape)
    np.testing.assert_allclose(finest(stencil).matvec(u), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("stencil", CASES, ids=lambda s: "x".join(map(str, s.shape)))
def test_restriction_is_the_scaled_transpose_and_constants_are_interpolated_exactly(stencil):
    level, coarser = hierarchy(finest(stencil), coarsest=1)[:2]
    fine, coarse = noise(stencil, 2), torch.randn(2, *coarser.shape, dtype=torch.float64)
    one = (prolong(coarse, level, coarser) * fine).sum()
    other = (coarse * restrict(fine, level, coarser)).sum() * 2.0**level.d / 4.0
    assert abs(float(one - other)) < 1e-11
    if not (stencil.excess > 1e-9).any():
        constant = prolong(torch.ones(1, *coarser.shape, dtype=torch.float64), level, coarser)[0]
        np.testing.assert_allclose(constant, level.active, rtol=0, atol=1e-13)


@pytest.mark.parametrize("walls", ["neumann", "face-dirichlet"])
def test_coarse_stencils_of_a_box_are_those_of_half_the_cells(walls):
    fine, coarse = (finest(poisson_stencil((n, n), walls=walls)) for n in (32, 16))
    found = hierarchy(fine, coarsest=256)[1]
    assert torch.equal(found.diagonal, coarse.diagonal) and torch.equal(found.faces[0], coarse.faces[0])


@pytest.mark.parametrize("stencil", CASES, ids=lambda s: "x".join(map(str, s.shape)))
@pytest.mark.parametrize("make", [cycle, lambda level: LearnedCycle(level.d).double()(level)], ids=["plain", "learned"])
def test_both_cycles_are_linear_and_symmetric_and_stay_out_of_solid_cells(stencil, make):
    torch.manual_seed(3)
    level = finest(stencil)
    with torch.no_grad():
        M = make(level)
        a, b = noise(stencil, 1, 1), noise(stencil, 1, 2)
        assert abs(float((M(a) * b).sum() - (a * M(b)).sum())) < 1e-10
        assert torch.allclose(M(2.0 * a - 3.0 * b), 2.0 * M(a) - 3.0 * M(b), rtol=0, atol=1e-10)
        assert not (M(a) * (1 - level.active)).any()


# The numbers are those of the acceptance checks of the method.


def test_1_the_identity_as_network_is_conjugate_gradients():
    stencil = poisson_stencil((32, 32), walls="dirichlet")
    level, b = finest(stencil), noise(stencil)
    for n in range(1, 11):
        ours = minimise(level.matvec, b, (identity,), Iteration(1e-6, n, window=2, modified=False)).x
        theirs = linear_solve(stencil.matrix(), b.numpy().ravel(), CG(1e-6, n)).x
        np.testing.assert_allclose(ours.ravel(), theirs, rtol=0, atol=1e-8 * np.abs(theirs).max())
    outcome = minimise(level.matvec, b, (identity,), Iteration(1e-6, 500, window=2, modified=False))
    cg = linear_solve(stencil.matrix(), b.numpy().ravel(), CG(1e-6)).stats["iterations"]
    assert abs(int(outcome.iterations[0]) - cg) <= 1


def test_2_the_inverse_as_network_needs_one_iteration():
    stencil = with_disc((16, 15), "dirichlet")
    level = finest(stencil)
    inverse = pseudo_inverse(level)
    outcome = minimise(
        level.matvec, noise(stencil, 3), (lambda r: (r.flatten(1) @ inverse).reshape(r.shape),), Iteration(1e-10, 5, 2)
    )
    assert outcome.iterations.tolist() == [1, 1, 1] and bool(outcome.converged.all())


@pytest.mark.parametrize("modified", [True, False])
@pytest.mark.parametrize("safe", [True, False])
def test_3_the_energy_of_the_error_never_grows_even_with_a_random_network(modified, safe):
    stencil = with_disc((20, 20), "dirichlet")
    level, b = finest(stencil), noise(stencil)
    exact = (b.flatten(1) @ pseudo_inverse(level)).reshape(b.shape)
    directions = (random_directions(level), *([identity] if safe else []))
    energies = []
    for n in range(0, 25):
        x = minimise(level.matvec, b, directions, Iteration(1e-12, n, 2, modified)).x
        energies.append(float(((x - exact) * level.matvec(x - exact)).sum()))
    assert all(after <= before * (1 + 1e-10) for before, after in itertools.pairwise(energies))


def test_4_directions_in_the_window_are_a_orthogonal(monkeypatch):
    from pdelab.solvers.linear import _conjugate_directions as module

    seen, original = [], module._orthogonal

    def spy(d, window, modified):
        found = original(d, window, modified)
        seen.append((found, list(window)))
        return found

    monkeypatch.setattr(module, "_orthogonal", spy)
    stencil = with_disc((20, 20))
    level = finest(stencil)
    minimise(level.matvec, noise(stencil), (random_directions(level), identity), Iteration(1e-10, 40, 10))
    worst = 0.0
    for d, window in seen[1:]:
        size = float((d * level.matvec(d)).sum()) ** 0.5
        for other, image in window:
            worst = max(worst, abs(float((d * image).sum())) / size / float((other * image).sum()) ** 0.5)
    assert len(seen) > 40 and worst < 1e-8


def test_5_the_loss_ignores_the_size_of_the_direction_and_vanishes_for_the_inverse():
    stencil = poisson_stencil((12, 12), walls="dirichlet")
    level, b = finest(stencil), noise(stencil, 4)
    b = b / b.flatten(1).norm(dim=1).reshape(-1, 1, 1)
    f = random_directions(level)(b)
    loss = float(direction_loss(level.matvec, b, f).detach())
    for scale in (-3.0, 1e-3, 700.0):
        assert abs(float(direction_loss(level.matvec, b, scale * f).detach()) - loss) < 1e-5 * loss
    image = level.matvec(f)
    cosine = (b * image).flatten(1).sum(1) / image.flatten(1).norm(dim=1)
    assert loss >= float((1 - cosine**2).mean()) - 1e-12
    best = (b.flatten(1) @ pseudo_inverse(level)).reshape(b.shape)
    assert float(direction_loss(level.matvec, b, best)) < 1e-20


def test_6_ritz_data_lie_in_the_spectrum_and_favour_smooth_modes():
    A = poisson_stencil((64, 64), walls="dirichlet").matrix()
    rng = np.random.default_rng(31)
    values, vectors = ritz_pairs(lambda v: A @ v, A @ rng.standard_normal(4096), 200)
    ends = 8 * np.sin(np.pi / 130) ** 2, 8 * np.sin(64 * np.pi / 130) ** 2
    assert values.min() >= ends[0] - 1e-10 and values.max() <= ends[1] + 1e-10
    assert ends == pytest.approx((0.00467, 7.9953), abs=1e-4)
    assert np.abs(vectors @ vectors.T - np.eye(len(values))).max() < 1e-8
    b = mixtures(vectors, 50, 10, rng)
    np.testing.assert_allclose(np.linalg.norm(b, axis=1), 1.0, rtol=1e-12)
    energy = (b @ vectors.T) ** 2
    assert energy[:, : len(values) // 2 + 10].sum() > 0.95 * energy.sum()


@pytest.mark.parametrize("kind", ["neumann", "dirichlet", "face-dirichlet"])
def test_6_box_data_have_the_energy_of_the_exact_eigenvectors(kind):
    stencil = poisson_stencil((8, 9), walls=kind)
    b = box_mixtures((8, 9), [(kind, kind)] * 2, 40, np.random.default_rng(4)).reshape(40, -1)
    values, vectors = np.linalg.eigh(stencil.matrix().toarray())
    energy = ((b @ vectors) ** 2).sum(0)
    assert energy[values <= np.median(values) + 1e-9].sum() > 0.95 * energy.sum()
    if kind == "neumann":
        assert np.abs(b.sum(1)).max() < 1e-12


def smooth(stencil):
    places = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in stencil.shape), indexing="ij"), axis=-1)
    source, sink = (np.exp(-(((places - c) / 0.08) ** 2).sum(-1)) for c in (0.3, 0.7))
    b = (source / source.sum() - sink / sink.sum()) * stencil.active
    return torch.as_tensor(b)[None]


@pytest.mark.parametrize("what", ["white", "smooth", "disc"])
def test_7_the_reduced_protocol_with_the_safeguard_beats_conjugate_gradients_four_times(what):
    stencil = poisson_stencil((64, 64), walls="dirichlet")
    if what == "disc":
        stencil = with_disc((64, 64), "dirichlet", 0.15)
    b = smooth(stencil) if what == "smooth" else noise(stencil)
    level, network = PublishedDCDM().init(stencil.matrix())
    count = int(minimise(level.matvec, b, (network, identity), Iteration(1e-6, 200, 2)).iterations[0])
    A, flat = stencil.matrix(), b.numpy().ravel()
    assert count <= (35 if what == "disc" else 25)
    assert 4 * count <= linear_solve(A, flat, CG(1e-6)).stats["iterations"]
    assert 1.6 * count <= linear_solve(A, flat, ICCG(1e-6)).stats["iterations"]


def test_7_the_reduced_protocol_with_closed_walls_and_a_long_window():
    stencil = poisson_stencil((64, 64), walls="neumann")
    b = noise(stencil)
    level, network = PublishedDCDM().init(stencil.matrix())
    found = minimise(level.matvec, b, (network,), Iteration(1e-4, 200, 20))
    cg = linear_solve(stencil.matrix(), b.numpy().ravel(), CG(1e-4)).stats["iterations"]
    assert bool(found.converged[0]) and int(found.iterations[0]) <= 0.6 * cg


def test_8_stagnation_is_told_and_is_no_result(tmp_path):
    torch.manual_seed(8)
    save(PublishedNet(2), tmp_path / "raw.safetensors", 2, {})
    stencil = poisson_stencil((24, 24), walls="dirichlet")
    solver = PublishedDCDM(weights=str(tmp_path / "raw.safetensors"), max_iterations=60)
    result = linear_solve(stencil.matrix(), noise(stencil).numpy().ravel(), solver)
    assert result.status is Status.STAGNATED
    assert "not converged" in result.message


@pytest.mark.parametrize("stencil", [CASES[0], CASES[1]], ids=["dirichlet", "neumann"])
def test_9_an_untrained_network_converges_by_the_safeguard(stencil):
    level, b = finest(stencil), noise(stencil)
    cg = linear_solve(stencil.matrix(), b.numpy().ravel(), CG(1e-6)).stats["iterations"]
    safe = minimise(level.matvec, b, (random_directions(level), identity), Iteration(1e-6, 10 * cg, 2))
    assert bool(safe.converged[0]) and int(safe.iterations[0]) <= 3.5 * cg
    switching = Iteration(1e-6, 10 * cg, 2, patience=5)
    switched = minimise(level.matvec, b, (random_directions(level), identity), switching)
    assert switched.switched is not None
    assert bool(switched.converged[0]) and int(switched.iterations[0]) <= cg + 10


@pytest.mark.parametrize("stencil", [CASES[0], CASES[1], CASES[3]], ids=["dirichlet", "neumann", "in-space"])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-10])
def test_9_the_solver_converges_with_weights_that_were_never_trained(tmp_path, stencil, tolerance):
    torch.manual_seed(1)
    net = LearnedCycle(len(stencil.shape))
    for values in net.parameters():
        torch.nn.init.normal_(values, std=0.5)
    save(net, tmp_path / "random.safetensors", len(stencil.shape), {})
    A, b = stencil.matrix(), noise(stencil).numpy().ravel()
    result = linear_solve(A, b, DCDM(tolerance, weights=str(tmp_path / "random.safetensors")))
    assert result.status is Status.CONVERGED
    assert result.stats["iterations"] <= 1.5 * linear_solve(A, b, CG(tolerance)).stats["iterations"]


@pytest.mark.parametrize("solver", [DCDM(), Multigrid()], ids=lambda s: s.name)
@pytest.mark.parametrize("stencil", CASES, ids=lambda s: "x".join(map(str, s.shape)))
def test_10_solid_cells_stay_zero_and_residuals_orthogonal_to_constants(solver, stencil):
    b = noise(stencil).numpy().ravel()
    result = linear_solve(stencil.matrix(), b, solver)
    assert result.status is Status.CONVERGED
    assert not result.x.reshape(stencil.shape)[~stencil.active].any()
    if not (stencil.excess > 1e-9).any():
        residual = b - stencil.matrix() @ result.x
        assert abs(residual.sum()) <= 1e-10 * np.linalg.norm(b)


@pytest.mark.parametrize("n", [64, 256])
def test_shipped_weights_need_few_iterations_on_boxes_of_any_size(n):
    stencil = poisson_stencil((n, n), walls="dirichlet")
    b = noise(stencil).numpy().ravel()
    count = linear_solve(stencil.matrix(), b, DCDM(1e-6)).stats["iterations"]
    cg = linear_solve(stencil.matrix(), b, CG(1e-6)).stats["iterations"]
    assert count <= 12 and cg >= 10 * count


@pytest.mark.parametrize("shape", [(64, 64), (41, 90), (32, 32, 32), (20, 25, 30)], ids=str)
def test_shipped_weights_need_few_iterations_with_obstacles_and_walls_without_flux(shape):
    stencil = with_disc(shape)
    b = noise(stencil).numpy().ravel()
    count = linear_solve(stencil.matrix(), b, DCDM(1e-6)).stats["iterations"]
    cg = linear_solve(stencil.matrix(), b, CG(1e-6)).stats["iterations"]
    assert count <= 20 and cg >= 8 * count


def test_many_right_hand_sides_at_once_are_those_one_by_one():
    stencil = with_disc((30, 26))
    B = noise(stencil, 4).reshape(4, -1).T.numpy()
    for solver in (DCDM(1e-8), Multigrid(1e-8)):
        state = solver.init(sp.csr_array(stencil.matrix()))
        together = solver.compute_batch(state, B)
        for column, result in zip(B.T, together, strict=True):
            alone = solver.compute(state, np.ascontiguousarray(column))
            assert np.abs(alone.x - result.x).max() < 1e-6 * np.abs(alone.x).max()
            assert result.status is Status.CONVERGED


def test_coefficients_may_vary():
    rng = np.random.default_rng(66)
    stencil = poisson_stencil((48, 48), walls="dirichlet", coefficient=np.exp(rng.normal(0, 1, (48, 48))))
    for solver in (DCDM(), Multigrid()):
        result = linear_solve(stencil.matrix(), noise(stencil).numpy().ravel(), solver)
        assert result.status is Status.CONVERGED and result.stats["iterations"] < 60


def test_networks_have_the_published_numbers_of_parameters():
    assert sum(p.numel() for p in PublishedNet(2).parameters()) == 32_657
    assert sum(p.numel() for p in PublishedNet(3).parameters()) == 97_457


def test_training_repeats_itself():
    recipe = CycleRecipe(((16, 16),), n_matrices=3, n_steps=8, batch=2, n_ritz=10)
    first, again = (recipe.train()[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(96, 96), (32, 32, 32)], ids=str)
def test_shipped_weights_need_fewer_iterations_than_those_before_training(tmp_path, shape):
    torch.manual_seed(0)
    save(LearnedCycle(len(shape)), tmp_path / "raw.safetensors", len(shape), {})
    stencil = with_disc(shape)
    A, b = stencil.matrix(), noise(stencil).numpy().ravel()
    counts = [
        linear_solve(A, b, DCDM(weights=weights)).stats["iterations"]
        for weights in (None, str(tmp_path / "raw.safetensors"))
    ]
    assert counts[0] < 0.8 * counts[1]


@pytest.mark.parametrize("solver", [DCDM(), PublishedDCDM(), Multigrid()], ids=lambda s: s.name)
def test_what_is_no_grid_is_refused(solver):
    rng = np.random.default_rng(9)
    B = sp.random_array((50, 50), density=0.1, rng=rng)
    with pytest.raises(InputError, match="not that of a 3-, 5- or 7-point stencil"):
        linear_solve(sp.csr_array(B @ B.T + sp.eye_array(50)), np.ones(50), solver)
    with pytest.raises(InputError, match="symmetric"):
        linear_solve(sp.csr_array(B + sp.eye_array(50)), np.ones(50), solver)
    with pytest.raises(InputError, match="no periodic axes"):
        linear_solve(poisson_stencil((8, 8), walls="periodic").matrix(), np.r_[1.0, -1.0, np.zeros(62)], solver)
    wrong = Stencil(np.full((6, 6), 9.0), tuple(-f for f in poisson_stencil((6, 6)).faces))
    with pytest.raises(InputError, match="couplings <= 0"):
        linear_solve(wrong.matrix(), np.ones(36), solver)


def test_weights_of_another_network_are_refused(tmp_path):
    save(PublishedNet(2), tmp_path / "a.safetensors", 2, {})
    with pytest.raises(InputError, match="expected those of .*LearnedCycle.*train them again"):
        load(LearnedCycle(2), tmp_path / "a.safetensors", 2)
    (tmp_path / "b.safetensors").write_bytes(b"no weights")
    for missing in ("b", "c"):
        with pytest.raises(InputError, match="cannot be read"):
            load(LearnedCycle(2), tmp_path / f"{missing}.safetensors", 2)

"""The constraint layer against exact answers: linear least squares, finite differences through the converged solve."""

import pytest
import torch

from pdelab.constraint_layer import ConstraintLayer, orthonormalised
from pdelab.constraint_rows import Jumps, Rows, System
from pdelab.errors import InputError, SettingsError, ShapeError

CONVERGED = ConstraintLayer(100, tolerance=1e-13)


@pytest.fixture(autouse=True)
def _double():
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)


def _curved(z, which):
    """One equation, not linear in any of its values, that cannot be met exactly."""
    return (z[:, :, 0] + z[:, :, 1] * z[:, :, 2] - 0.3 * z[:, :, 3] ** 2 - 0.5)[:, :, None]


def _two(z, which):
    first = z[:, :, 0] + z[:, :, 1] * z[:, :, 2] - 0.3 * z[:, :, 3] ** 2 - 0.5
    return torch.stack([first, z[:, :, 2] - z[:, :, 0] * z[:, :, 3]], dim=2)


def _system(n_experts, *, shared=True, joint=False, n_components=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    S, m, N = 2, 30, 4

    def draw(*shape):
        return 0.5 * torch.randn(*shape, generator=generator)

    n_equations = n_components
    rows = Rows(
        _curved if n_components == 1 else _two,
        draw(1 if shared else S, n_experts, 4, m, N),
        draw(S, n_experts, 4, m),
        (0, 0, 0, 0) if n_components == 1 else (0, 0, 1, 1),
        torch.full((1, n_experts, n_equations, m), m**-0.5),
    )
    jumps = None
    if joint:
        P = n_experts - 1
        sides = (draw(1 if shared else S, P, 2, 3, N), draw(1 if shared else S, P, 2, 3, N))
        jumps = Jumps(torch.arange(P), torch.arange(1, P + 1), sides, (0, n_components - 1), torch.full((P, 2, 3), 0.7))
    return System((rows,), jumps, n_components, 1e-6)


CASES = [
    {"n_experts": 1},
    {"n_experts": 4},
    {"n_experts": 4, "shared": False},
    {"n_experts": 4, "joint": True},
    {"n_experts": 4, "joint": True, "shared": False},
    {"n_experts": 3, "joint": True, "n_components": 2},
]


def _score(omega):
    return (omega.square() * torch.linspace(1.0, 2.0, omega.numel()).reshape(omega.shape)).sum()


@pytest.mark.parametrize("case", CASES)
def test_gradient_agrees_with_differences_through_the_solve(case):
    system = _system(**case)
    tensors = [t.clone().requires_grad_() for t in system.tensors()]
    solved = CONVERGED(system.replaced(tensors))
    assert solved.converged.all()
    # What cannot be met is what tells the Hessian from its Gauss-Newton part.
    assert (solved.objective > 1e-2).all()
    gradients = torch.autograd.grad(_score(solved.omega), tensors)
    start, step = solved.omega.detach(), 1e-6
    for number, (tensor, gradient) in enumerate(zip(tensors, gradients, strict=True)):
        order = gradient.abs().flatten().argsort(descending=True)
        for entry in order[:4].tolist():
            ends = []
            for sign in (1.0, -1.0):
                moved = [t.detach().clone() for t in tensors]
                moved[number].view(-1)[entry] += sign * step
                ends.append(float(_score(CONVERGED(system.replaced(moved), start).omega)))
            difference = (ends[0] - ends[1]) / (2.0 * step)
            assert difference == pytest.approx(float(gradient.view(-1)[entry]), rel=1e-3), (number, entry)
        assert tensor.shape == gradient.shape


def test_the_gauss_newton_part_alone_would_give_another_gradient():
    system = _system(4)
    solved = CONVERGED(system)
    which = torch.arange(2)
    _, gradient, exact = system.derivatives(solved.omega, which, torch.ones(2, 4, dtype=torch.bool))
    _, _, gauss_newton = system.derivatives(solved.omega, which, torch.zeros(2, 4, dtype=torch.bool))
    assert gradient.abs().max() < 1e-12
    v = torch.ones_like(gradient)[..., None]
    s, other = torch.linalg.solve(exact, v), torch.linalg.solve(gauss_newton, v)
    assert float((s - other).norm() / s.norm()) > 0.1


def test_hessian_is_the_derivative_of_the_gradient():
    for case in CASES:
        system = _system(**case)
        omega = torch.randn(2, system.n_experts, system.n_components, 4, generator=torch.Generator().manual_seed(5))
        which, G = torch.arange(2), 1 if system.jumps else system.n_experts
        exact = torch.ones(2, G, dtype=torch.bool)
        value, gradient, hessian = system.derivatives(omega, which, exact)
        assert torch.allclose(value, system.objective(omega, which), rtol=1e-13)
        direction = torch.randn(omega.shape, generator=torch.Generator().manual_seed(6))
        ends = [system.derivatives(omega + s * 1e-6 * direction, which, exact) for s in (1.0, -1.0)]
        along = direction.reshape(gradient.shape)
        slope = (ends[0][0] - ends[1][0]) / 2e-6
        assert torch.allclose(slope, (gradient * along).sum(dim=-1), rtol=1e-7, atol=1e-8)
        change = (ends[0][1] - ends[1][1]) / 2e-6
        assert torch.allclose(change, (hessian @ along[..., None])[..., 0], rtol=1e-6, atol=1e-6)


def test_linear_rows_are_solved_like_least_squares():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(1, 3, 1, 40, 5, generator=generator)
    offset = torch.randn(6, 3, 1, 40, generator=generator)
    rows = Rows(lambda z, which: z, features, offset, (0,), torch.ones(1, 3, 1, 40))
    solved = CONVERGED(System((rows,), None, 1, 1e-14))
    expected = torch.linalg.lstsq(features[0, None, :, 0].expand(6, -1, -1, -1), -offset[:, :, 0, :, None]).solution
    assert torch.allclose(solved.omega[:, :, 0], expected[..., 0], rtol=1e-9, atol=1e-11)
    assert int(solved.iterations.max()) <= 5


def test_experts_without_coupling_do_not_feel_one_another():
    system = _system(4)
    first = CONVERGED(system).omega
    tensors = [t.clone() for t in system.tensors()]
    tensors[0][:, 0] += 0.3
    tensors[1][:, 0] -= 0.2
    second = CONVERGED(system.replaced(tensors)).omega
    assert torch.equal(first[:, 1:], second[:, 1:])
    assert not torch.equal(first[:, 0], second[:, 0])


def test_an_instance_is_solved_alike_alone_and_among_others():
    system = _system(3, shared=False)
    together = CONVERGED(system).omega
    alone = CONVERGED(system.taken(torch.tensor([1]))).omega
    assert torch.allclose(together[1:], alone, rtol=1e-11, atol=1e-13)


def test_the_objective_falls_by_far_and_problems_that_are_done_are_left_alone():
    features = torch.randn(1, 2, 3, 50, 4, generator=torch.Generator().manual_seed(1))
    truth = torch.tensor([[[[1.0, -0.5, 0.2, 0.3]], [[0.0, 0.0, 0.0, 0.0]]]])

    def function(z, which):
        return (z[:, :, 0] * z[:, :, 1] + z[:, :, 2])[:, :, None]

    plain = Rows(function, features, torch.zeros(1, 2, 3, 50), (0, 0, 0), torch.ones(1, 2, 1, 50))
    wanted = function(plain.values(truth), torch.arange(1)).detach()
    rows = Rows(lambda z, which: function(z, which) - wanted, *(plain.features, plain.offset, (0, 0, 0), plain.weight))
    solved = CONVERGED(System((rows,), None, 1, 1e-14))
    assert float(solved.objective[0, 0]) < 1e-3 * float(solved.first[0, 0])
    assert solved.iterations[0, 1] < solved.iterations[0, 0]


def test_orthonormalised():
    values = torch.randn(3, 60, 5, generator=torch.Generator().manual_seed(2)) @ torch.diag(10.0 ** torch.arange(5))
    Q = values @ orthonormalised(values)
    assert torch.allclose(Q.transpose(1, 2) @ Q / 60, torch.eye(5).expand(3, 5, 5), atol=1e-12)
    values[..., 4] = values[..., 3]  # one direction less
    Q = values @ orthonormalised(values)
    gram = Q.transpose(1, 2) @ Q / 60
    assert torch.allclose(gram, torch.diag_embed(gram.diagonal(dim1=1, dim2=2)), atol=1e-9)
    assert (gram.diagonal(dim1=1, dim2=2).round() == torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])).all()


def test_bad_bases_are_refused():
    with pytest.raises(SettingsError, match="6 functions at 5 points"):
        orthonormalised(torch.randn(5, 6))
    same = torch.randn(40, 1).expand(40, 6)
    with pytest.raises(SettingsError, match="got 1 on block 0"):
        orthonormalised(same)


def _rows(features, weight=None):
    _, K, D, m, _ = features.shape
    weight = torch.ones(1, K, 1, m) if weight is None else weight
    return Rows(lambda z, which: z[:, :, :1], features, torch.zeros(1, K, D, m), (0,) * D, weight)


def test_bad_systems_are_refused():
    with pytest.raises(SettingsError, match="expert 0: expected at least as many rows as its 8 coefficients, got 5"):
        System((_rows(torch.randn(1, 2, 1, 5, 8)),), None, 1)
    bad = torch.randn(1, 2, 1, 9, 4)
    bad[0, 1, 0, 3, 2] = torch.nan
    with pytest.raises(InputError, match="features: 1 of 72 numbers are not finite"):
        System((_rows(bad),), None, 1)
    weight = torch.ones(1, 2, 1, 9)
    weight[:, 1] = 0.0
    with pytest.raises(InputError, match="expert 1 has no points"):
        System((_rows(torch.randn(1, 2, 1, 9, 4), weight),), None, 1)
    with pytest.raises(ShapeError, match="offset"):
        rows = _rows(torch.randn(1, 2, 1, 9, 4))
        System((Rows(rows.function, rows.features, rows.offset[..., :8], (0,), rows.weight),), None, 1)
    with pytest.raises(ShapeError, match="one number of instances"):
        rows = _rows(torch.randn(3, 2, 1, 9, 4))
        System((Rows(rows.function, rows.features, torch.zeros(2, 2, 1, 9), (0,), rows.weight),), None, 1)
    with pytest.raises(ShapeError, match="start"):
        CONVERGED(System((_rows(torch.randn(1, 2, 1, 9, 4)),), None, 1), torch.zeros(1, 1, 1, 4))
    with pytest.raises(SettingsError, match="max_iterations"):
        ConstraintLayer(0)

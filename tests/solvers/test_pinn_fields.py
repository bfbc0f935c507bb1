"""The networks of PINN equal their formulas, and conditions that are built in hold exactly."""

import math

import pytest
import torch
from toy_equations import Disc, Lid, Mixed, Ring, Wave

import pdelab
import pdelab.train
from pdelab import sampling
from pdelab.calculus import jet
from pdelab.pde import Dirichlet, Initial
from pdelab.solvers._hard import ConstrainedField, Constraints
from pdelab.solvers._nets import MLP, FourierMLP, InputEmbedding, ModifiedMLP, NetworkField, Siren
from pdelab.solvers._slabs import Slab

SEED = 48109


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


def ansatz(problem):
    network = NetworkField(InputEmbedding(problem), MLP(len(problem.axes), len(problem.components), 6, 2, torch.tanh))
    built = Constraints(problem)
    return ConstrainedField(network.double(), built), built


def misses(problem, field, condition):
    if isinstance(condition, Initial):
        points, normals = sampling.initial(problem, 50, 8117), None
    else:
        sample = sampling.boundary(problem, 50, 8117, condition.part)
        points, normals = sample.points, torch.as_tensor(sample.normals)
    f = jet(field, torch.as_tensor(points), problem.components, problem.axes)
    return float(condition.residual(f, normals).detach().abs().max())


# --- layers


def test_mlp_equals_its_formula():
    net, x = MLP(2, 3, 5, 2, torch.tanh).double(), torch.randn(4, 2, dtype=torch.float64)
    (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias) for layer in net.layers)
    expected = torch.tanh(torch.tanh(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    assert torch.allclose(net(x), expected, rtol=1e-14)


def test_modified_mlp_equals_its_formula():
    net, x = ModifiedMLP(2, 1, 5, 3, torch.sin).double(), torch.randn(4, 2, dtype=torch.float64)
    u, v = (torch.sin(x @ e.weight.T + e.bias) for e in net.encoders)
    h = torch.sin(x @ net.layers[0].weight.T + net.layers[0].bias)
    for layer in net.layers[1:3]:
        z = torch.sin(h @ layer.weight.T + layer.bias)
        h = (1 - z) * u + z * v
    assert torch.allclose(net(x), h @ net.layers[3].weight.T + net.layers[3].bias, rtol=1e-13)


def test_fourier_features_equal_their_formula():
    net, x = FourierMLP(2, 1, 8, 1, torch.tanh, 3.0).double(), torch.randn(4, 2, dtype=torch.float64)
    angle = 2 * math.pi * x @ net.frequencies.T
    expected = net.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))
    assert net.frequencies.shape == (4, 2) and torch.allclose(net(x), expected)
    wide = FourierMLP(5, 1, 4000, 1, torch.tanh, 3.0)
    assert float(wide.frequencies.std()) == pytest.approx(3.0, rel=0.05)
    assert "frequencies" in dict(wide.named_buffers())


def test_siren_equals_its_formula_and_keeps_the_spread():
    omega, width = 7.0, 512
    net, x = Siren(2, 1, width, 3, omega).double(), torch.rand(2000, 2, dtype=torch.float64) * 2 - 1
    first, second = net.layers[0], net.layers[1]
    h = torch.sin(omega * (x @ first.weight.T + first.bias))
    assert float(first.weight.detach().abs().max()) <= 0.5
    bound = math.sqrt(6 / width) / omega
    assert 0.99 * bound < float(second.weight.detach().abs().max()) <= bound
    # Section 3.2 of the paper: arguments of the sine have unit variance, whatever the depth.
    for layer in net.layers[1:3]:
        argument = omega * (h @ layer.weight.T)
        assert float(argument.detach().var()) == pytest.approx(1.0, rel=0.25)
        h = torch.sin(argument + omega * layer.bias)
    assert torch.allclose(net(x), h @ net.layers[3].weight.T + net.layers[3].bias, rtol=1e-10)


def test_glorot_weights_have_their_variance():
    layer = MLP(300, 1, 500, 1, torch.tanh).layers[0]
    assert float(layer.weight.detach().var()) == pytest.approx(2 / 800, rel=0.03) and not layer.bias.detach().any()


def test_inputs_are_scaled_to_plus_minus_one():
    embedding = InputEmbedding(Wave())
    corners = embedding(torch.tensor([[0.0, 0.0], [2.0, 3.0], [1.0, 0.75]], dtype=torch.float64))
    assert corners.tolist() == [[-1, -1], [1, 1], [0, -0.5]]


def test_periodic_embedding_is_exact_with_derivatives():
    problem = Ring()
    embedding = InputEmbedding(problem)
    field = NetworkField(embedding, MLP(embedding.n_outputs, 1, 12, 2, torch.tanh)).double()
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    x = torch.linspace(-5, 5, 9, dtype=torch.float64)[:, None]
    low, high = (jet(field, torch.cat([x + shift, t], dim=1), ("u",), ("x", "t")) for shift in (0.0, 2 * math.pi))
    for name in ("u", "u_x", "u_xx", "u_xt"):
        assert torch.allclose(getattr(low, name), getattr(high, name), rtol=0, atol=1e-12)
    assert InputEmbedding(problem, periodic=False).n_outputs == 2


# --- hard constraints


@pytest.mark.parametrize("problem", [Wave(), Disc(), pdelab.problem("burgers"), pdelab.problem("poisson")])
def test_built_in_conditions_hold_for_any_network(problem):
    field, built = ansatz(problem)
    assert built.components == {"u"}
    for condition in problem.conditions():
        assert built.meets(condition)
        assert misses(problem, field, condition) <= 1e-12


@pytest.mark.parametrize("name", ["poisson-lshape", "poisson-nd"])
def test_formulas_are_never_continued_into_the_domain(name):
    # The boundary values of these are the solution's own formula: built in, it would be the answer.
    _, built = ansatz(pdelab.problem(name))
    assert built.components == set()


def test_components_are_constrained_separately():
    problem = Mixed()
    field, built = ansatz(problem)
    # On u the sides disagree in corners: y^2 = 1 and 1 + sin(0) = 1 at the lower left, exp(0) = 1 at the upper.
    assert built.components == {"u", "v"}
    for condition in problem.conditions():
        held = misses(problem, field, condition) <= 1e-12
        assert held == isinstance(condition, Dirichlet) == built.meets(condition)


def test_rates_of_a_slab_are_not_built_in():
    """Their values come from a derivative that cannot be differentiated again in space."""
    slab = Slab(Wave(), (1.0, 2.0), lambda x: x[:, :1] ** 2)
    assert Constraints(slab, rates=False).components == set()
    assert Constraints(Slab(Ring(), (0.5, 1.0), lambda x: torch.sin(x[:, :1])), rates=False).components == {"u"}


def test_incompatible_corners_stay_in_the_loss():
    problem = Lid()
    field, built = ansatz(problem)
    assert not built.components and not any(built.meets(c) for c in problem.conditions())
    x = torch.rand(5, 2, dtype=torch.float64)
    assert torch.equal(field(x), field.network(x))


def test_the_field_within_constraints_still_depends_on_the_network():
    problem = Wave()
    (a, _), (b, _) = ansatz(problem), ansatz(problem)
    x = torch.as_tensor(sampling.interior(problem, 30, 8117))
    assert float((a(x) - b(x)).detach().abs().min()) > 1e-9

"""Taylor mode: every rule against nested differentiation and closed forms, Jacobians against one pass per row."""

import itertools
import math

import pytest
import torch
from torch import nn

import pdelab
from pdelab import sampling
from pdelab.calculus import Jet, Sites, TaylorJet, Wanted, jet
from pdelab.directions import plan
from pdelab.pde import derivatives_wanted, equations
from pdelab.rows import Residual, Rows, dense_jacobian
from pdelab.solver import Context
from pdelab.solvers._nets import MLP, FourierMLP, ModifiedMLP, Siren
from pdelab.solvers.pinn import PINN
from pdelab.taylor import recorded

AXES = ("x", "y", "t")


def wanted(*names: str, laplacian: bool = False, axes: tuple[str, ...] = AXES) -> Wanted:
    orders = frozenset(tuple(name.count(a) for a in axes) for name in names)
    return Wanted(orders, laplacian, tuple(i for i, a in enumerate(axes) if a != "t"), len(axes))


def points(n: int = 9, d: int = 3) -> torch.Tensor:
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(7351)) * 0.8 + 0.1


def compare(field, names, laplacian=False, tolerance=1e-12):
    """Taylor mode and nested differentiation, derivative by derivative, relative to the largest value."""
    x = points()
    fast = jet(field, Sites(x, wanted(*names, laplacian=laplacian)), ("u",), AXES)
    slow = Jet(field, x, ("u",), AXES)
    assert isinstance(fast, TaylorJet)
    for name in names:
        a, b = fast.derivative("u", *name), slow.derivative("u", *name)
        assert torch.allclose(a, b, rtol=0.0, atol=tolerance * float(1.0 + b.abs().max())), name
    if laplacian:
        a, b = fast.laplacian("u"), slow.laplacian("u")
        assert torch.allclose(a, b, rtol=0.0, atol=tolerance * float(1.0 + b.abs().max()))
    return fast, slow


FUNCTIONS = {
    "tanh": torch.tanh,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "log": lambda z: torch.log(z + 3.0),
    "sinh": torch.sinh,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "cosh": torch.cosh,
    "sigmoid": torch.sigmoid,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "softplus": nn.functional.softplus,
    "sqrt": lambda z: torch.sqrt(z + 3.0),
    "reciprocal": lambda z: 1.0 / (z + 3.0),
    "power": lambda z: (z + 3.0) ** 2.5,
    "cube": lambda z: z**3,
    "square": torch.square,
    "quotient": lambda z: z / (2.0 + z * z),
    "abs": lambda z: (z + 3.0).abs() * z,
}
FIRST_FOUR = ("", "x", "xx", "xxx", "xxxx", "t", "tt", "y")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_to_fourth_order(name):
    w = torch.tensor([0.9, -0.7, 0.4], dtype=torch.float64)
    compare(lambda x: FUNCTIONS[name]((x * w).sum(dim=1, keepdim=True) + 0.3), FIRST_FOUR)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_adjoint_of_the_chain(name):
    """Gradients in a parameter inside the function, for each order and the collapsed Laplacian."""
    w = torch.tensor([0.9, -0.7, 0.4], dtype=torch.float64, requires_grad=True)
    names = ("", "x", "xx", "xxx", "xxxx", "y", "yy")
    for laplacian in (False, True):
        asked = ("", "x", "y", "t") if laplacian else names
        fast, slow = compare(lambda x: FUNCTIONS[name]((x * w).sum(dim=1, keepdim=True)), asked, laplacian)
        found = []
        for f in (fast, slow):
            terms = [f.derivative("u", *n).sin().sum() for n in asked]
            terms += [f.laplacian("u").sin().sum()] if laplacian else []
            found.append(torch.autograd.grad(sum(terms), w, retain_graph=True)[0])
        assert torch.allclose(*found, rtol=1e-11, atol=1e-11 * float(found[1].abs().max()))


def network(kind: str, activation=torch.tanh) -> nn.Module:
    torch.manual_seed(9013)
    if kind == "siren":
        return Siren(3, 1, 8, 2, 3.0).double()
    if kind == "fourier":
        return FourierMLP(3, 1, 8, 2, activation, 0.5).double()
    return {"mlp": MLP, "modified-mlp": ModifiedMLP}[kind](3, 1, 8, 2, activation).double()


@pytest.mark.parametrize("kind", ["mlp", "modified-mlp", "fourier", "siren"])
@pytest.mark.parametrize("activation", [torch.tanh, torch.sin, nn.functional.gelu, nn.functional.silu])
def test_networks_with_mixed_derivatives(kind, activation):
    compare(network(kind, activation), ("", "x", "xx", "xy", "xt", "xxt", "xxxx", "xxyy", "tt", "xyt"))
    compare(network(kind, activation), ("", "x", "t"), laplacian=True)


def test_combinations_are_exact_for_polynomials():
    """Every derivative of order up to 4 in 3 dimensions, on all monomials of that order: alpha! or 0."""
    for k in range(1, 5):
        all_orders = [a for a in itertools.product(range(k + 1), repeat=3) if sum(a) == k]
        for alpha in all_orders:
            found = plan(frozenset({alpha}), (), 3).combinations[alpha]
            for beta in all_orders:
                value = sum(w * math.factorial(k) * math.prod(v[i] ** beta[i] for i in range(3)) for w, v in found)
                exact = math.prod(math.factorial(b) for b in beta) if beta == alpha else 0.0
                assert abs(value - exact) < 1e-11 * math.factorial(k)


def test_heat_needs_four_channels():
    """u, u_t, u_x and u_xx: no channel that nobody asked for."""
    sites = Sites(points(4, 2), wanted("t", "x", "xx", axes=("x", "t")))
    assert sites.series.data.shape[0] == 4


def test_laplacian_in_ten_dimensions_takes_twelve_channels():
    axes = tuple(f"x{i}" for i in range(10))
    x = points(5, 10)
    sites = Sites(x, Wanted(frozenset({(0,) * 10}), True, tuple(range(10)), 10))
    assert sites.series.data.shape[0] == 12
    f = jet(lambda p: (p * p * p).sum(dim=1, keepdim=True), sites, ("u",), axes)
    assert torch.allclose(f.laplacian("u"), 6.0 * x.sum(dim=1), rtol=1e-13)


def test_without_a_graph_nothing_requires_one():
    net = network("mlp")
    with torch.no_grad():
        f = jet(net, Sites(points(), wanted("", "xx")), ("u",), AXES)
        assert not f.u_xx.requires_grad
    assert torch.equal(f.u_xx, jet(net, Sites(points(), wanted("", "xx")), ("u",), AXES).u_xx)


def by_rows(r, maps, parameters):
    """Whole Jacobian of a residual without another way to find it."""
    ((_, J),) = Rows(parameters, 100, None, {}).blocks(Residual("r", r, maps, {}, None, None), 1.0)
    return J


def test_vmap_over_points_gives_the_jacobian_by_rows():
    net = network("mlp")
    weights = dict(net.named_parameters())

    def u_xx(parameters, x):
        def field(p):
            return torch.func.functional_call(net, parameters, (p,))

        return jet(field, Sites(x[None], wanted("", "xx")), ("u",), AXES).u_xx[0]

    each = torch.func.vmap(torch.func.grad(u_xx), in_dims=(None, 0))(weights, points())
    found = torch.cat([each[name].reshape(9, -1) for name in weights], dim=1)
    with recorded() as maps:
        r = jet(net, Sites(points(), wanted("", "xx")), ("u",), AXES).u_xx
    assert torch.allclose(found, by_rows(r, maps, list(weights.values())), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["burgers", "poisson-holes", "cavity", "kdv", "wave"])
@pytest.mark.parametrize("kind", ["mlp", "modified-mlp", "siren"])
def test_jacobians_of_problems(name, kind):
    """Of the hard-constrained fields of `pinn`, against one backward pass of nested differentiation per row."""
    problem = pdelab.problem(name)
    field, _ = PINN(network=kind, width=5, depth=2)._field(problem, Context(seed=3))
    x = torch.as_tensor(sampling.interior(problem, 11, 2207, "sobol"))
    parts = list(field.parameters())
    with recorded() as maps:
        f = jet(field, Sites(x, derivatives_wanted(problem)), problem.components, problem.axes)
        residuals = equations(problem.residual(f))
    slow = equations(problem.residual(Jet(field, x, problem.components, problem.axes)))
    for r, s in zip(residuals, slow, strict=True):
        exact = dense_jacobian(s, parts)
        assert torch.allclose(by_rows(r, maps, parts), exact, rtol=0.0, atol=1e-11 * float(exact.abs().max()))


def test_what_has_no_rule_is_differentiated_step_by_step(caplog):
    class Bessel(nn.Module):
        def forward(self, x):
            return torch.special.i0(x.sum(dim=1, keepdim=True))

    field = Bessel()
    for _ in range(2):
        f = jet(field, Sites(points(), wanted("", "xx")), ("u",), AXES)
        assert isinstance(f, Jet)
    z = points().sum(dim=1)
    assert torch.allclose(f.u_xx, torch.special.i0(z) - torch.special.i1(z) / z, rtol=1e-12)
    assert len([r for r in caplog.records if "Bessel" in r.message]) == 1


def test_a_derivative_that_was_not_announced_is_found():
    fast = jet(network("mlp"), Sites(points(), wanted("", "x")), ("u",), AXES)
    slow = Jet(network("mlp"), points(), ("u",), AXES)
    assert torch.allclose(fast.u_xy, slow.u_xy, rtol=1e-12)


def test_compiles():
    """One graph, no breaks; the values are those without compilation."""
    net = network("mlp")
    sites = Sites(points(), wanted("", "xx", "t"))

    def loss():
        f = jet(net, sites, ("u",), AXES)
        return (f.u_xx + f.u_t).square().mean()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert abs(float(compiled()) - float(loss())) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_choice_between_a_series_and_a_number_keeps_the_dtype(dtype):
    x = points().to(dtype)
    f = jet(lambda p: torch.where(p[:, :1] > 0.5, p[:, :1] ** 2, 0.0), Sites(x, wanted("", "x")), ("u",), AXES)
    assert f.u.dtype == dtype
    assert torch.equal(f.u_x, torch.where(x[:, 0] > 0.5, 2.0 * x[:, 0], torch.zeros_like(x[:, 0])))

"""Jacobians by rows: blocks, frozen layers, copies of parameters, against one backward pass per row."""

import pytest
import torch
from torch import nn

import pdelab
from pdelab.calculus import Jet, Sites, Wanted, jet
from pdelab.copies import Copies
from pdelab.rows import Residual, Rows, dense_jacobian
from pdelab.solvers._nets import MLP
from pdelab.solvers.pinn import PINN
from pdelab.taylor import recorded

SEED = 5167
HEAT = Wanted(frozenset({(0, 0), (0, 1), (1, 0), (2, 0)}), False, (0,), 2)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(SEED)


def points(n):
    return torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))


def heat(field, sites):
    """u_t - (1 + u) u_xx, with what a Jacobian by rows needs."""

    def residual(f):
        return f.u_t - (1.0 + f.u) * f.u_xx

    def again(other):
        with recorded():
            return residual(jet(other, sites, ("u",), ("x", "t")))

    with recorded() as maps:
        values = residual(jet(field, sites, ("u",), ("x", "t")))
    return Residual("heat", values, maps, {}, field, again)


def exact(field, x, parameters):
    f = Jet(field, x, ("u",), ("x", "t"))
    return dense_jacobian(f.u_t - (1.0 + f.u) * f.u_xx, parameters)


def compare(field, n=23, most=7, tolerance=1e-12):
    x, parameters = points(n), [p for p in field.parameters() if p.requires_grad]
    blocks = list(Rows(parameters, most, None, {}).blocks(heat(field, Sites(x, HEAT)), 0.7))
    assert all(len(r) == len(J) <= most for r, J in blocks)
    J, slow = torch.cat([J for _, J in blocks]), 0.7 * exact(field, x, parameters)
    assert float(slow.abs().max()) > 1e-3
    assert torch.allclose(J, slow, rtol=0.0, atol=tolerance * float(slow.abs().max()))
    return J


def small(n_in=2, activation=torch.tanh):
    return MLP(n_in, 1, 5, 2, activation).double()


def test_only_the_parameters_asked_for_take_part():
    net = small()
    net.layers[0].requires_grad_(False)
    net.layers[1].weight.requires_grad_(False)
    compare(net)
    for layer in net.layers[:-1]:
        layer.requires_grad_(False)
    assert compare(net).shape == (23, 6)


def test_layers_used_twice_and_never():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.idle, self.end = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1, bias=False)

        def forward(self, x):
            return self.end(torch.tanh(self.layer(torch.tanh(self.layer(x)))))

    field = Twice().double()
    x, parameters = points(23), list(field.parameters())
    ((_, J),) = Rows(parameters, 100, None, {}).blocks(heat(field, Sites(x, HEAT)), 1.0)
    assert int((J.abs().amax(dim=0) == 0.0).sum()) == 6
    assert torch.allclose(J, exact(field, x, parameters), rtol=0.0, atol=1e-12)


def gauss_newton_loss(problem, **settings):
    """The loss of a stage as its optimiser sees it, caught at the first step."""
    caught = {}

    class Caught(Exception):
        pass

    def step(self, loss, learning_rate):
        caught["blocks"] = [(r.clone(), J.clone()) for r, J in loss.row_blocks(settings.pop("most", 64))]
        caught["rows"], caught["evaluation"] = loss.rows(), loss()
        raise Caught

    from pdelab.gauss_newton import GaussNewton

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Caught):
        patch.setattr(GaussNewton, "step", step)
        solver = PINN(
            width=5, depth=2, optimizer="gauss-newton", n_interior=150, n_boundary=40, n_initial=20, **settings
        )
        pdelab.solve(pdelab.problem(problem), solver, budget="2steps", seed=SEED)
    return caught


@pytest.mark.parametrize("name", ["burgers", "cavity", "heat-inverse", "wave"])
@pytest.mark.parametrize("constraints", ["hard", "soft"])
def test_blocks_are_the_rows_and_the_loss_is_their_square(name, constraints):
    found = gauss_newton_loss(name, constraints=constraints, periodicity="soft")
    r, J = found["rows"]
    assert J.is_contiguous() and max(len(b) for b, _ in found["blocks"]) <= 64
    assert torch.allclose(torch.cat([b for b, _ in found["blocks"]]), r, rtol=1e-12, atol=0.0)
    assert torch.allclose(torch.cat([b for _, b in found["blocks"]]), J, rtol=0.0, atol=1e-12 * float(J.abs().max()))
    assert abs(float(r @ r) / found["evaluation"].loss - 1.0) < 1e-12
    gradient = found["evaluation"].gradient
    assert torch.allclose(2.0 * J.T @ r, gradient, rtol=0.0, atol=1e-11 * float(gradient.abs().max()))


class Gaussians(nn.Module):
    """u = sum of c_k exp(-|x - m_k|^2 / (2 s_k^2))."""

    def __init__(self, n=6):
        super().__init__()
        self.centres = nn.Parameter(torch.rand(n, 2))
        self.widths = nn.Parameter(0.4 + 0.3 * torch.rand(n))
        self.end = nn.Linear(n, 1, bias=False)

    def forward(self, x):
        gaps = x[:, None, :] - self.centres
        return self.end(torch.exp(-0.5 * (gaps * gaps).sum(dim=2) / self.widths**2))


class Scaled(nn.Module):
    """tanh(a h) with a trainable scale a for each layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 5), nn.Linear(5, 5), nn.Linear(5, 1)])
        self.scales = nn.Parameter(torch.tensor([1.3, 0.8]))

    def forward(self, x):
        for layer, scale in zip(self.layers[:-1], self.scales, strict=True):
            x = torch.tanh(scale * layer(x))
        return self.layers[-1](x)


class Fallback(nn.Module):
    """Something that Taylor mode has no rule for."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 5), nn.Linear(5, 1)])

    def forward(self, x):
        return self.layers[1](torch.erf(self.layers[0](x)))


class Untransformed(nn.Module):
    """A trainable scale, and a host read that `torch.func.vmap` refuses."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 1), nn.Parameter(torch.tensor(1.2))

    def forward(self, x):
        if float(x.detach().reshape(-1)[0]) > 1e9:
            raise AssertionError
        return torch.erf(self.scale * self.layer(x))


@pytest.mark.parametrize("kind", [Gaussians, Scaled, Fallback, Untransformed])
def test_parameters_that_act_otherwise_than_through_a_linear_layer(kind):
    compare(kind().double(), most=7)
    compare(kind().double(), most=4000)


def test_linear_layers_stay_on_the_fast_path(monkeypatch):
    copied = []
    before = Copies.__init__

    def noted(self, field, parameters, n, most):
        copied.extend(parameters)
        before(self, field, parameters, n, most)

    monkeypatch.setattr(Copies, "__init__", noted)
    field = Scaled().double()
    compare(field)
    assert len(copied) == 1 and copied[0] is field.scales


def test_copies_in_blocks_of_more_than_one_piece():
    compare(Gaussians().double(), n=1300, most=1200)


def test_what_cannot_be_copied_says_so_once(caplog):
    field = Untransformed().double()
    known = {}
    for _ in range(2):
        list(Rows(list(field.parameters()), 50, None, known).blocks(heat(field, Sites(points(5), HEAT)), 1.0))
    assert len([r for r in caplog.records if "one backward pass for each row" in r.message]) == 1


@pytest.mark.parametrize("kind", [Gaussians, Scaled, Fallback, small])
def test_rows_that_mix_are_refused(kind):
    field, sites = kind().double(), Sites(points(9), HEAT)

    def mixed(f):
        return f.u - f.u.mean()

    def again(other):
        with recorded():
            return mixed(jet(other, sites, ("u",), ("x", "t")))

    with recorded() as maps:
        values = mixed(jet(field, sites, ("u",), ("x", "t")))
    residual = Residual("mean", values, maps, {}, field, again)
    with pytest.raises(pdelab.errors.SettingsError, match="'mean' mixes its rows"):
        list(Rows(list(field.parameters()), 50, None, {}).blocks(residual, 1.0))


class Reused(nn.Module):
    """A weight that acts through a linear layer and as a factor besides."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return (torch.tanh(self.layer(x)) * torch.tanh(x @ self.layer.weight)).sum(dim=1, keepdim=True)


class Stacked(nn.Module):
    """A linear layer on several vectors at each point."""

    def __init__(self):
        super().__init__()
        self.layer, self.end = nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, x):
        both = torch.stack([x, x * x], dim=1)
        return self.end(torch.tanh(self.layer(both))).sum(dim=1)


@pytest.mark.parametrize("kind", [Reused, Stacked])
def test_other_ways_to_use_linear_layers(kind):
    compare(kind().double())

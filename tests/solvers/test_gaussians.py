"""Sums of Gaussians: values, derivatives of every order and Jacobians against autograd; density control."""

import math

import pytest
import torch
from torch import nn

from pdelab.calculus import Jet, Sites, TaylorJet, Wanted, jet
from pdelab.errors import ShapeError
from pdelab.rows import Residual, Rows, dense_jacobian
from pdelab.solvers import _gaussians
from pdelab.solvers._density import SPLIT, control_density
from pdelab.solvers._gaussians import Gaussians
from pdelab.solvers._nets import MLP
from pdelab.taylor import recorded

SEED = 7919
NAMES = ("u", "u_x", "u_xx", "u_xxx", "u_xxxx", "u_y", "u_yy", "u_xy", "u_xxy", "u_xyy")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


def gaussians(d, full=False, affine=True, k=2, n=5, floor=0.1):
    centres = torch.rand(k, n, d, dtype=torch.float64) * 2.0 - 1.0
    found = Gaussians(centres, *torch.tensor([[0.5], [floor]], dtype=torch.float64).expand(2, d), full, affine)
    with torch.no_grad():
        found.raw_widths += 0.5 * torch.randn_like(found.raw_widths)
        found.weights.normal_()
        if full and d > 1:
            found.shears.normal_()
    return found


class Network(nn.Module):
    """On points, or on cosine and sine of the last axis."""

    def __init__(self, d, full, affine):
        super().__init__()
        self.closed = not affine
        self.gaussians = gaussians(d + self.closed, full, affine)
        self.network = MLP(2, 1, 4, 1, torch.tanh).double()

    def forward(self, x):
        if self.closed:
            x = torch.cat([x[:, :-1], torch.cos(x[:, -1:]), torch.sin(x[:, -1:])], dim=1)
        return self.network(self.gaussians(x))


def points(d, n=13):
    return torch.rand(n, d, dtype=torch.float64) * 2.0 - 1.0


def wanted(names, d):
    orders = frozenset(tuple(name[2:].count(axis) for axis in "xyz"[:d]) for name in names)
    return Wanted(orders, True, tuple(range(d)), d)


def close(a, b, digits):
    return float((a - b).detach().abs().max()) <= 10.0**-digits * float(b.detach().abs().max())


KINDS = [(d, full, affine) for d in (1, 2, 3) for full in (False, True) for affine in (True, False)]


# --- values and derivatives


def test_a_feature_is_the_sum_of_its_gaussians():
    """exp(-(x - mu)' Sigma^-1 (x - mu)/2) with the covariance written out as a matrix."""
    g, x = gaussians(3, full=True), points(3)
    W = g.factors()
    covariance = torch.linalg.inv(W.mT @ W)
    gap = x[:, None, None] - g.centres
    square = (gap[..., None, :] @ torch.linalg.inv(covariance) @ gap[..., None])[..., 0, 0]
    assert close(g(x), (torch.exp(-0.5 * square) * g.weights).sum(dim=-1), 12)
    assert torch.allclose(covariance.diagonal(dim1=-2, dim2=-1)[..., 0], g.widths[..., 0] ** 2)


@pytest.mark.parametrize("d, full, affine", KINDS)
def test_derivatives_equal_nested_differentiation(d, full, affine):
    """To order 4, mixed ones and the collapsed Laplacian."""
    net, x, axes = Network(d, full, affine), points(d), "xyz"[:d]
    names = [name for name in NAMES if d > 1 or "y" not in name]
    f, slow = jet(net, Sites(x, wanted(names, d)), ("u",), axes), Jet(net, x, ("u",), axes)
    assert isinstance(f, TaylorJet)
    assert all(close(getattr(f, name), getattr(slow, name), 11) for name in names)
    with torch.no_grad():
        collapsed = jet(net, Sites(x, wanted(["u"], d)), ("u",), axes).laplacian("u")
    assert close(collapsed, slow.laplacian("u"), 11)


@pytest.mark.parametrize("d, full, affine", KINDS)
@pytest.mark.parametrize("still", [(), ("centres",), ("centres", "raw_widths", "shears")])
def test_rows_of_jacobians_equal_one_backward_pass_each(d, full, affine, still):
    net, x, axes = Network(d, full, affine), points(d), "xyz"[:d]
    for name, p in net.gaussians.named_parameters():
        p.requires_grad_(name not in still)

    def residual(f):
        return f.laplacian("u") + f.u * f.u_x

    parameters = [p for p in net.parameters() if p.requires_grad]
    exact = dense_jacobian(residual(Jet(net, x, ("u",), axes)), parameters)
    with recorded() as maps:
        r = residual(jet(net, Sites(x, wanted(["u_x"], d)), ("u",), axes))
    known = {}
    ((_, J),) = Rows(parameters, 100, None, known).blocks(Residual("r", r, maps, {}, net, None), 1.0)
    assert close(J, exact, 11)
    assert known == {0: ()}, "each parameter's rows came in closed form"


def test_points_come_in_tiles_when_gaussians_are_many(monkeypatch):
    net, x = Network(2, True, True), points(2, 50)

    def look():
        f = jet(net, Sites(x, wanted(["u_xx"], 2)), ("u",), "xy")
        loss = (f.u_xx * f.laplacian("u")).sum()
        return loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))

    whole = look()
    monkeypatch.setattr(_gaussians, "TILE", 64)
    assert all(torch.allclose(a, b, rtol=1e-11) for a, b in zip(whole, look(), strict=True))


def test_float32_keeps_its_digits_with_narrow_gaussians():
    """Powers of x would lose four of seven digits here."""
    g, x = gaussians(2), points(2, 40)
    g.set_widths(torch.full_like(g.widths, 0.11))
    exact = jet(g, Sites(x, wanted(["u_xx"], 2)), ("u", "v"), "xy").u_xx
    g, x = g.float(), x.float()
    rough = jet(g, Sites(x, wanted(["u_xx"], 2)), ("u", "v"), "xy").u_xx
    assert rough.dtype is torch.float32 and close(rough.double(), exact, 4.5)


def test_widths_stay_above_the_floor():
    g = gaussians(2, floor=0.2)
    with torch.no_grad():
        g.raw_widths.fill_(-800.0)
    assert float(g.widths.detach().min()) >= 0.2 and torch.isfinite(g(points(2))).all()
    wanted_widths = torch.linspace(0.21, 3.0, g.widths.numel(), dtype=torch.float64).reshape(g.widths.shape)
    g.set_widths(wanted_widths)
    assert torch.allclose(g.widths, wanted_widths, rtol=1e-12)
    g.set_widths(torch.zeros_like(wanted_widths))
    assert 0.2 < float(g.widths.detach().min()) < 0.201


def test_centres_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"centres: expected shape \(any, any, any\), got \(5, 2\)"):
        Gaussians(torch.zeros(5, 2), torch.ones(2), torch.zeros(2), False, True)


# --- density control


def alone(n=20):
    """Gaussians far from each other in one feature; the first has the least weight."""
    g = gaussians(1, k=1, n=n, floor=0.01)
    g.set_widths(torch.full((1, n, 1), 0.02, dtype=torch.float64))
    with torch.no_grad():
        g.centres.copy_(torch.linspace(-1.0, 1.0, n, dtype=torch.float64)[None, :, None])
        g.weights.copy_(torch.linspace(0.1, 2.0, n, dtype=torch.float64))
    return g


def test_the_smallest_go_where_residual_times_width_is_largest():
    g = alone()
    before = g.centres.detach().clone()
    x = torch.linspace(-1.0, 1.0, 401, dtype=torch.float64)[:, None]
    moved = control_density(g, x, torch.exp(-(((x[:, 0] - before[0, 12, 0]) / 0.05) ** 2)))
    assert moved == 2 and g.centres.shape == before.shape
    assert torch.equal(g.centres[0, 2:11], before[0, 2:11]) and torch.equal(g.centres[0, 14:], before[0, 14:])
    # Halves on either side of the one in the middle of the residual.
    pair = torch.tensor([before[0, 12, 0] - 0.01, before[0, 12, 0] + 0.01])
    here = [i for i in (0, 1, 12) if abs(g.centres[0, i, 0] - before[0, 12, 0]) < 0.011]
    assert len(here) == 2 and torch.allclose(g.centres[0, here, 0].sort().values, pair.sort().values)
    assert torch.allclose(g.weights[0, here], torch.full((2,), 0.5 * (0.1 + 1.9 * 12 / 19), dtype=torch.float64))
    assert torch.allclose(g.widths[0, here], torch.tensor(0.02 / SPLIT, dtype=torch.float64))


def test_one_of_two_alike_takes_the_weight_of_both():
    g = alone()
    x = torch.linspace(-1.0, 1.0, 401, dtype=torch.float64)[:, None]
    with torch.no_grad():
        g.centres[0, 7] = g.centres[0, 6]
    before = g(x).detach()
    control_density(g, x, (x[:, 0] > 0.9).double())
    after = g(x).detach()
    left = (x[:, 0] < 0.7) & (x[:, 0] > -0.85)
    assert torch.allclose(after[left], before[left], atol=1e-12)
    assert int((g.centres[0, :, 0] == g.centres[0, 6, 0]).sum()) == 1


def test_a_split_changes_the_field_less_than_the_gaussian():
    g = gaussians(2, k=1, n=10)
    with torch.no_grad():
        g.weights.zero_()
        g.weights[0, 3] = 1.0
    x = points(2, 500)
    before = g(x).detach()
    control_density(g, x, torch.ones(500, dtype=torch.float64))
    assert float((g(x).detach() - before).norm()) < 0.5 * float(before.norm())
    assert math.isclose(float(g.weights.detach().sum()), 1.0)

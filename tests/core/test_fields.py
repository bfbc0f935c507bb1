"""Interpolation on grids: polynomials exact, order eight, periodic, differentiable."""

import math

import numpy as np
import pytest
import torch

from pdelab.calculus import Jet, jet
from pdelab.errors import InputError, ShapeError
from pdelab.fields import GridField


def test_polynomials_of_degree_seven_are_exact():
    axes = [np.sort(np.random.default_rng(9).uniform(0, 1, 12)) for _ in range(2)]
    X, Y = np.meshgrid(*axes, indexing="ij")
    f = lambda x, y: x**7 - 2 * x**3 * y**5 + y  # noqa: E731
    field = GridField(axes, f(X, Y)[..., None])
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    inside = (x >= max(a[0] for a in axes)).all(1) & (x <= min(a[-1] for a in axes)).all(1)
    x = x[inside]
    np.testing.assert_allclose(field(x)[:, 0], f(*x.T), atol=1e-11)


def test_order_is_eight():
    errors = []
    for n in (20, 40):
        axis = np.linspace(0, 1, n + 1)
        field = GridField([axis], np.sin(9 * axis)[:, None])
        x = torch.linspace(0.2, 0.8, 300, dtype=torch.float64)[:, None]
        errors.append(float((field(x)[:, 0] - torch.sin(9 * x[:, 0])).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(8, abs=0.5)


def test_periodic_axes_wrap():
    axis = np.arange(32) / 32
    field = GridField([axis], np.sin(2 * np.pi * axis)[:, None], periods={0: 1.0})
    x = torch.tensor([[-0.3], [0.7], [1.7], [0.999]], dtype=torch.float64)
    np.testing.assert_allclose(field(x)[:, 0], torch.sin(2 * math.pi * x[:, 0]), atol=1e-8)


def test_wrapping_an_inexact_period_keeps_double_precision():
    axis = 2 * np.pi * np.arange(256) / 256
    field = GridField([axis], np.sin(axis)[:, None], periods={0: 2 * np.pi})
    x = torch.linspace(6.2, 6.4, 41, dtype=torch.float64)[:, None]
    np.testing.assert_allclose(field(x)[:, 0], torch.sin(x[:, 0]), atol=1e-13)


def test_spectral_axes_use_all_nodes():
    nodes = -np.cos(np.pi * np.arange(65) / 64)
    field = GridField([nodes], np.exp(np.sin(4 * nodes))[:, None], spectral=[0])
    x = torch.linspace(-1, 1, 77, dtype=torch.float64)[:, None]
    np.testing.assert_allclose(field(x)[:, 0], torch.exp(torch.sin(4 * x[:, 0])), atol=1e-9)


def test_derivatives_are_those_of_the_interpolant():
    axis = np.linspace(0, 1, 41)
    field = GridField([axis, axis], (np.sin(3 * axis)[:, None] * np.cos(2 * axis))[..., None])
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    (first,) = torch.autograd.grad(field(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 0].sum(), x)
    a, b = x.detach().T
    np.testing.assert_allclose(first[:, 0].detach(), 3 * torch.cos(3 * a) * torch.cos(2 * b), atol=1e-8)
    np.testing.assert_allclose(second[:, 0], -9 * torch.sin(3 * a) * torch.cos(2 * b), atol=1e-5)


@pytest.mark.parametrize("orders", [(0, 0), (1, 0), (2, 1), (0, 3), (4, 0)])
def test_own_derivatives_are_those_of_automatic_differentiation(orders):
    nodes = -np.cos(np.pi * np.arange(13) / 12)
    values = np.random.default_rng(6).random((13, 24, 2))
    field = GridField([nodes, np.arange(24) / 24], values, periods={1: 1.0}, spectral=[0])
    x = torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    f = Jet(field, x, ("u", "v"), ("x", "y"))
    along = ["x"] * orders[0] + ["y"] * orders[1]
    expected = torch.stack([f.derivative(c, *along) for c in ("u", "v")], dim=1).detach()
    scale = float(expected.abs().max())
    np.testing.assert_allclose(field.derivative(x, orders), expected, atol=1e-9 * scale)
    g = jet(field, x, ("u", "v"), ("x", "y"))
    np.testing.assert_allclose(g.derivative("v", *along), expected[:, 1], atol=1e-9 * scale)


def test_derivatives_at_nodes():
    nodes = -np.cos(np.pi * np.arange(33) / 32)
    field = GridField([nodes], np.sin(3 * nodes)[:, None], spectral=[0])
    np.testing.assert_allclose(
        field.derivative(torch.as_tensor(nodes)[:, None], (2,))[:, 0], -9 * np.sin(3 * nodes), atol=1e-8
    )


def test_storage_round_trip():
    axis = np.linspace(0, 1, 9)[:-1]
    field = GridField([axis, np.linspace(0, 2, 5)], np.random.default_rng(4).random((8, 5, 3)), {0: 1.0}, [1])
    copy = GridField.from_arrays(field.arrays())
    x = torch.rand(10, 2, dtype=torch.float64)
    assert torch.equal(field(x), copy(x)) and copy.n_components == 3


def test_bad_input():
    with pytest.raises(InputError, match="increasing"):
        GridField([np.array([0.0, 0.0, 1.0])], np.zeros((3, 1)))
    with pytest.raises(ShapeError, match="values"):
        GridField([np.linspace(0, 1, 4)], np.zeros((3, 1)))

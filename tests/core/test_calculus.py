"""Derivatives by name against closed forms and finite differences."""

import pytest
import torch

from pdelab.calculus import Coordinates, Recorder, gradient_norm, jet
from pdelab.errors import ShapeError

AXES = ("x", "y", "t")


def points(n=40):
    generator = torch.Generator().manual_seed(9241)
    return torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1


def field(p):
    x, y, t = p.unbind(dim=1)
    return torch.stack([torch.exp(0.5 * x) * torch.sin(2 * y) * t**3, x**2 * y * t], dim=1)


def closed_forms(x, y, t):
    e, s, c = torch.exp(0.5 * x), torch.sin(2 * y), torch.cos(2 * y)
    zero = torch.zeros_like(x)
    return {
        "u": e * s * t**3,
        "u_x": 0.5 * e * s * t**3,
        "u_t": 3 * e * s * t**2,
        "u_xx": 0.25 * e * s * t**3,
        "u_xy": e * c * t**3,
        "u_yx": e * c * t**3,
        "u_yyt": -12 * e * s * t**2,
        "u_xxyy": -e * s * t**3,
        "u_tttt": zero,
        "v": x**2 * y * t,
        "v_xxx": zero,
        "v_xxyt": 2 + zero,
        "v_yy": zero,
    }


@pytest.mark.parametrize("name", closed_forms(*torch.zeros(3, 1)))
def test_derivatives_equal_their_closed_forms(name):
    p = points()
    f = jet(field, p, ("u", "v"), AXES)
    assert torch.allclose(getattr(f, name), closed_forms(*p.unbind(dim=1))[name], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("name", "axis", "lower"), [("u_x", 0, "u"), ("u_xy", 1, "u_x"), ("u_tt", 2, "u_t")])
def test_derivatives_equal_finite_differences(name, axis, lower):
    torch.manual_seed(3313)
    network = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.Tanh(), torch.nn.Linear(9, 1)).double()
    p, h = points(), torch.zeros(3, dtype=torch.float64)
    h[axis] = 1e-5
    ahead, behind = (getattr(jet(network, p + s * h, ("u",), AXES), lower) for s in (1, -1))
    assert torch.allclose(getattr(jet(network, p, ("u",), AXES), name), (ahead - behind) / 2e-5, atol=1e-9)


def test_derivatives_depend_on_the_parameters():
    a = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    f = jet(lambda p: a**2 * p[:, :1] ** 3, points(), ("u",), AXES)
    (slope,) = torch.autograd.grad(f.u_xx.sum(), a)
    assert torch.allclose(slope, (2 * a * 6 * points()[:, 0]).sum())


def test_laplacian_and_normal_derivative_leave_time_out():
    p = points()
    f = jet(field, p, ("u", "v"), AXES)
    assert torch.allclose(f.laplacian("v"), 2 * p[:, 1] * p[:, 2])
    normals = torch.tensor([[0.6, 0.8]], dtype=torch.float64).expand(len(p), 2)
    x, y, t = p.unbind(dim=1)
    assert torch.allclose(f.normal_derivative("v", normals), 0.6 * 2 * x * y * t + 0.8 * x**2 * t)


def test_a_constant_field_has_zero_derivatives():
    f = jet(lambda p: torch.ones_like(p[:, :1]), points(), ("u",), AXES)
    assert torch.equal(f.u_xx, torch.zeros(40, dtype=torch.float64))


def test_values_are_computed_once():
    calls = []

    def counted(p):
        calls.append(len(p))
        return field(p)

    f = jet(counted, points(), ("u", "v"), AXES)
    assert f.u_x is f.u_x and torch.equal(f.u_xy, f.u_yx) and len(f.v_t) == 40
    assert calls == [40]


def test_recorder_lists_what_an_equation_uses():
    recorder = Recorder(points(2), ("u",), AXES, {"k": torch.tensor(2.0)})
    recorder.u_t - recorder.k * (recorder.u_yx + recorder.u)
    assert list(recorder.asked) == [("u", ("t",)), ("u", ("x", "y")), ("u", ())]


def test_unknown_coefficients_and_coordinates_are_read_by_name():
    f = jet(field, points(), ("u", "v"), AXES, {"k": torch.tensor(2.0)})
    assert float(f.k) == 2.0 and torch.equal(f.y, points()[:, 1])


@pytest.mark.parametrize("name", ["w", "u_q", "u_", "ux", "w_x"])
def test_an_unknown_name_is_explained(name):
    with pytest.raises(AttributeError, match="no coordinate.*u_xx"):
        getattr(jet(field, points(), ("u", "v"), AXES), name)


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"points: expected shape \(any, 3\)"):
        jet(field, points()[:, :2], ("u", "v"), AXES)
    with pytest.raises(ShapeError, match="field values"):
        _ = jet(field, points(), ("u",), AXES).u
    with pytest.raises(AttributeError, match="no coordinate 'z'"):
        _ = Coordinates(points(), AXES).z


def test_gradient_norm_equals_its_formula():
    w = torch.tensor([3.0, -1.0], dtype=torch.float64, requires_grad=True)
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
    norm = gradient_norm((w**2).sum(), [w, unused])
    assert torch.allclose(norm, (2 * w).norm())

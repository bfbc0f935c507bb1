"""What cannot be trained on is refused before the first step, with what, where and the way out."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

import pdelab
from pdelab.calculus import Wanted
from pdelab.domain import Interval
from pdelab.errors import SettingsError, ShapeError
from pdelab.pde import AbstractProblem, Dirichlet
from pdelab.solvers import _nets
from pdelab.solvers._admission import check_smooth
from pdelab.solvers.pinn import PINN

SEED = 7723
TINY = {"width": 8, "depth": 2, "n_interior": 64, "n_boundary": 16, "sampler": "sobol", "resample_every": 0}


@dataclass(frozen=True)
class Bar(AbstractProblem):
    """u_xx + change(u, x) = 0 on [0, 2]."""

    name: ClassVar[str] = "toy-bar"
    domain: ClassVar = Interval(0.0, 2.0)
    change: object = staticmethod(lambda f: f.u)
    end: object = 0.0

    def residual(self, f):
        return f.u_xx + self.change(f)

    def conditions(self):
        return Dirichlet("u", 0.0, "left"), Dirichlet("u", self.end, "right")


@dataclass(frozen=True)
class Column(Bar):
    """The same as a column."""

    def residual(self, f):
        return (f.u_xx + f.u)[:, None]


def solve(problem, **settings):
    return pdelab.solve(problem, PINN(**TINY | settings), budget="3steps", seed=SEED, throw=False)


@pytest.mark.parametrize("optimizer", ["adam", "gauss-newton"])
def test_complex_residuals(optimizer):
    with pytest.raises(SettingsError, match=r"equation 'residual': .*complex128; return its real and imaginary parts"):
        solve(Bar(lambda f: 1j * f.u), optimizer=optimizer)


@pytest.mark.parametrize("part", [lambda z: z, torch.erf])
@pytest.mark.parametrize("constraints", ["hard", "soft"])
def test_complex_fields(monkeypatch, part, constraints):
    """In Taylor mode and without it."""
    before = _nets.MLP.forward
    monkeypatch.setattr(_nets.MLP, "forward", lambda self, x: part(before(self, x)) * (1.0 + 2.0j))
    with pytest.raises(SettingsError, match=r"field values: expected real numbers, got torch.complex128; give"):
        solve(Bar(), constraints=constraints)


def test_rows_that_are_not_finite():
    with pytest.raises(SettingsError, match=r"equation 'residual': .* in 32 of 64 rows .* first at x=1\.\d*; look"):
        solve(Bar(lambda f: torch.sqrt(1.0 - f.x)))
    with pytest.raises(SettingsError, match=r"condition 'dirichlet u right': .* in \d+ of \d+ rows .* first at x=2;"):
        solve(Bar(end=lambda p: torch.log(p.x - 3.0)), constraints="soft")


def test_residuals_of_another_shape():
    with pytest.raises(ShapeError, match=r"equation 'residual': expected shape \(64\), got \(64, 1\)"):
        solve(Column())


@pytest.mark.parametrize("name, activation", [("relu", torch.relu), ("elu", nn.functional.elu)])
@pytest.mark.parametrize("constraints", ["hard", "soft"])
def test_activations_with_kinks(monkeypatch, name, activation, constraints):
    """ReLU has no second derivative, ELU one that jumps: enough for u_xx, not for more."""
    monkeypatch.setitem(_nets.ACTIVATIONS, "tanh", activation)
    for seed_width in (8, 24):
        if name == "relu":
            with pytest.raises(
                SettingsError, match=r"differentiated 2 times, as u_xx needs, .*use a smooth activation"
            ):
                solve(Bar(), constraints=constraints, width=seed_width)
        else:
            assert solve(Bar(), constraints=constraints, width=seed_width).status.ok


class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(SEED)
        self.net = _nets.MLP(2, 1, 12, 2, activation).double()

    def forward(self, x):
        return self.net(4.0 * x)


WANTED = Wanted(frozenset({(0, 0), (1, 0), (2, 1), (3, 0)}), True, (0, 1), 2)


def points(n=256):
    return torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED)) - 0.5


@pytest.mark.parametrize("activation", [torch.tanh, torch.erf, lambda z: torch.sin(3.0 * z), lambda z: z])
def test_smooth_fields_pass(activation):
    check_smooth(Net(activation), WANTED, ("u",), ("x", "y"), points())


@pytest.mark.parametrize("power", [1, 2])
def test_the_derivative_that_is_missing_is_named(power):
    third = Wanted(frozenset({(power, 0), (power + 1, 0)}), False, (0, 1), 2)
    whole = "u_" + "x" * (power + 1)
    with pytest.raises(SettingsError, match=f"{power + 1} times, as {whole} needs, got one whose {whole[:-1]} jumps"):
        check_smooth(Net(lambda z: torch.relu(z) ** power), third, ("u",), ("x", "y"), points())
    first = Wanted(frozenset({(0, 0), (1, 0)}), False, (0, 1), 2)
    check_smooth(Net(lambda z: torch.relu(z) ** power), first, ("u",), ("x", "y"), points())


def test_jumps_are_seen_in_first_derivatives():
    first = Wanted(frozenset({(1, 0)}), False, (0, 1), 2)
    with pytest.raises(SettingsError, match="whose u jumps or kinks along x"):
        check_smooth(lambda x: torch.floor(8.0 * x[:, :1]) + x[:, :1], first, ("u",), ("x", "y"), points())

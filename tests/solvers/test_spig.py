"""SPIG: products along the axes, evaluated once per coordinate, equal to the field at every point; it learns."""

import numpy as np
import pytest
import torch
from toy_equations import Mixed, Ring, Wave

import pdelab
from pdelab import sampling
from pdelab.calculus import Jet, Sites, jet
from pdelab.errors import SettingsError
from pdelab.pde import derivatives_wanted, equations
from pdelab.rows import Residual, Rows, dense_jacobian
from pdelab.solver import Context, solve
from pdelab.solvers.spig import SPIG
from pdelab.taylor import recorded

SEED = 48109
TINY = {"n_gaussians": 5, "n_features": 2, "hidden": 3, "rank": 2, "n_interior": 64, "n_boundary": 32, "n_initial": 16}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("problem", [Ring(), Mixed(), Wave(), pdelab.problem("klein-gordon")], ids=lambda p: p.name)
@pytest.mark.parametrize("method", ["grid", "sobol"])
def test_residuals_gradients_and_rows_equal_nested_differentiation(problem, method):
    field, _ = SPIG(**TINY)._field(problem, Context(seed=SEED), torch.float64)
    x = torch.as_tensor(sampling.interior(problem, 64, SEED, method))
    sites, parameters = Sites(x, derivatives_wanted(problem)), list(field.parameters())
    fast = equations(problem.residual(jet(field, sites, problem.components, problem.axes)))
    slow = equations(problem.residual(Jet(field, x, problem.components, problem.axes)))
    with recorded() as maps:
        by_points = equations(problem.residual(jet(field, sites, problem.components, problem.axes)))
    for f, s, r in zip(fast, slow, by_points, strict=True):
        assert torch.allclose(f, s, rtol=1e-10, atol=1e-12) and torch.allclose(r, s, rtol=1e-10, atol=1e-12)
        J = dense_jacobian(s, parameters)
        gradient = torch.autograd.grad(f.sum(), parameters, retain_graph=True, allow_unused=True)
        flat = torch.cat(
            [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(gradient, parameters, strict=True)]
        )
        assert torch.allclose(flat, J.sum(dim=0), rtol=1e-9, atol=1e-10 * float(J.abs().max()) * len(x))
        ((_, rows),) = Rows(parameters, 100, None, {}).blocks(Residual("r", r, maps, {}, field, None), 1.0)
        assert torch.allclose(rows, J, rtol=0.0, atol=1e-10 * float(J.abs().max()))


def test_factors_are_asked_for_once_for_each_coordinate(monkeypatch):
    """64 points of a grid in three axes: four coordinates each."""
    problem, asked = pdelab.problem("klein-gordon"), []
    field, _ = SPIG(**TINY)._field(problem, Context(seed=SEED), torch.float64)
    for factor in field.network.network.factors:
        factor.register_forward_hook(lambda module, inputs, output: asked.append(len(inputs[0])))
    x = torch.as_tensor(sampling.interior(problem, 64, SEED, "grid"))
    with torch.no_grad():
        jet(field, Sites(x, derivatives_wanted(problem)), problem.components, problem.axes)
    assert asked == [4, 4, 4]


def test_a_sum_of_products_is_learnt():
    """A product of two sines, the solution of `poisson`, by 40 steps of Gauss-Newton."""
    solver = SPIG(n_gaussians=6, n_features=2, hidden=6, rank=2, n_interior=1024, optimizer="gauss-newton")
    solution = solve(pdelab.problem("poisson"), solver, budget="40steps", seed=SEED, device="cpu")
    assert solution.error()["rel_l2"] < 1e-2
    assert solution.at(np.zeros((2, 2))).shape == (2, 1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rank": 0}, "rank: expected a number >= 1, got 0"),
        ({"width": 0.01}, "width: expected a number > 0.12"),
        ({"floor": -1.0}, "floor: expected a number > 0.0"),
    ],
)
def test_wrong_numbers_are_explained(settings, text):
    with pytest.raises(SettingsError, match=text):
        SPIG(**settings)

"""DeepXDE solves our problems: same equations, the points of pinn in every draw, quietly, and resumed to the bit."""

import dataclasses
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import pdelab
from pdelab import sampling
from pdelab.calculus import jet
from pdelab.checkpoint import CheckpointStore
from pdelab.conditions import place
from pdelab.domain import stream
from pdelab.pde import equations
from pdelab.solver import Context, solve
from pdelab.solvers._residuals import Points, ResidualLoss
from pdelab.solvers.deepxde import DeepXDE, _Jet, _library, _Run

SMALL = DeepXDE(width=8, depth=2, n_interior=64, n_boundary=32, n_initial=16, resample_every=50, constraints="soft")


@pytest.mark.parametrize("name", ["burgers", "kdv", "klein-gordon", "burgers-inverse"])
def test_residuals_are_ours(name):
    problem = pdelab.problem(name)
    with _library() as dde:
        run = _Run(SMALL, problem, Context(seed=31), dde)
        x = torch.as_tensor(sampling.interior(problem, 16, 5)).requires_grad_()
        theirs = run._equations(x, run.net(x))
        unknowns = {name: torch.tensor(value, dtype=torch.float64) for name, value in problem.unknowns.items()}
        f = jet(run.net, x, problem.components, problem.axes, unknowns)
        for mine, other in zip(equations(problem.residual(f)), theirs, strict=True):
            torch.testing.assert_close(other[:, 0], mine, rtol=1e-10, atol=1e-10)
        dde.grad.clear()


def test_points_are_the_first_sobol_draw_of_pinn():
    problem = pdelab.problem("burgers")
    with _library() as dde:
        run = _Run(SMALL, problem, Context(seed=31), dde)
        theirs = run.model.data.train_points()
    np.testing.assert_array_equal(theirs, sampling.interior(problem, 64, stream(31, 0, 0)))


def test_points_are_those_of_pinn_in_every_draw():
    """Interior, boundary and initial points, and the loss of the conditions, after 12 steps with draws of 5."""
    problem = pdelab.problem("heat")
    size = Points(64, 32, 16, "sobol", 5)
    with _library() as dde:
        run = _Run(dataclasses.replace(SMALL, sampler="sobol", resample_every=5), problem, Context(seed=31), dde)
        run._compile("adam")
        run._train("adam", 12, math.inf)
        theirs = run.model.data.train_points()
        losses = run.model.outputs_losses_train(*run.model.data.train_next_batch())[1].detach()
    assert run.draw == 2
    ours = ResidualLoss(problem, lambda c: True, run.net, {}, size, 0.0, 31, torch.zeros(1, dtype=torch.float64))
    ours.refresh(12, False)
    np.testing.assert_array_equal(theirs, ours._interior.points.numpy())
    mine = torch.stack(
        [
            p.residual(jet(run.net, sites, ("u",), problem.axes)).square().mean() * 100.0
            for sites, placed in ours._groups
            for p in placed
        ]
    )
    torch.testing.assert_close(losses[1:].sort()[0], mine.detach().sort()[0], rtol=1e-10, atol=1e-12)


def test_adaptive_points_follow_the_residual_of_its_own_network():
    problem = pdelab.problem("burgers")
    with _library() as dde:
        run = _Run(dataclasses.replace(SMALL, resample_every=5), problem, Context(seed=31), dde)
        run._compile("adam")
        run._train("adam", 6, math.inf)
        assert run.draw == 1
        x = sampling.interior(problem, 40, 8)
        f = jet(run.net, torch.as_tensor(x), problem.components, problem.axes)
        np.testing.assert_allclose(run._sizes(x)[:, 0], problem.residual(f).detach().numpy(), rtol=1e-10, atol=1e-12)
        again = run._place_interior()
        expected = sampling.adaptive(problem, run._sizes, 64, stream(31, 1, 0), candidates=256)
    np.testing.assert_array_equal(again, expected)
    assert not np.array_equal(again, sampling.interior(problem, 64, stream(31, 1, 0)))


def test_loss_is_the_sum_of_weighted_mean_squares():
    problem = pdelab.problem("heat")
    with _library() as dde:
        run = _Run(SMALL, problem, Context(seed=31), dde)
        run._compile("adam")
        losses = run.model.outputs_losses_train(*run.model.data.train_next_batch())[1].detach()
    x = torch.as_tensor(sampling.interior(problem, 64, stream(31, 0, 0)))
    f = jet(run.net, x, problem.components, problem.axes)
    expected = [problem.residual(f).square().mean()]
    for placed in run.placed:
        g = jet(run.net, torch.as_tensor(placed.points), problem.components, problem.axes)
        expected.append(100.0 * placed.residual(g).square().mean())
    torch.testing.assert_close(losses, torch.stack(expected).detach(), rtol=1e-10, atol=1e-12)


def test_hard_constraints_hold_exactly():
    solution = solve(pdelab.problem("heat"), dataclasses.replace(SMALL, constraints="hard"), budget="20steps", seed=7)
    for placed in place(solution.problem, 32, 32, 11):
        f = jet(solution.field, torch.as_tensor(placed.points), ("u",), ("x", "t"))
        assert placed.residual(f).abs().max() < 1e-12
    assert "dirichlet u" not in solution.history


def test_globals_are_put_back():
    before = torch.get_default_dtype()
    with _library():
        assert torch.get_default_dtype() is torch.float64
    assert torch.get_default_dtype() is before


def test_learns():
    first, last = (solve(pdelab.problem("heat"), SMALL, budget=f"{k}steps", seed=77) for k in (1, 300))
    assert last.error()["rel_l2"] < 0.3 * first.error()["rel_l2"]
    assert last.stats["steps"] == 300 and math.isfinite(last.stats["loss"])


@pytest.mark.parametrize("kill_at", [7, 60, 130])
def test_resumes_to_the_bit(tmp_path, kill_at):
    problem = pdelab.problem("heat")

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step >= kill_at:
            raise Killed

    points = sampling.interior(problem, 50, 9)
    whole = solve(problem, SMALL, budget="160steps", seed=77, threads=1)
    with pytest.raises(Killed):
        store = CheckpointStore(tmp_path, {"run": 1}, every=0.0)
        solve(problem, SMALL, budget="160steps", seed=77, threads=1, checkpoints=store, report=kill)
    assert list(tmp_path.glob("*.safetensors"))
    resumed = solve(problem, SMALL, budget="160steps", seed=77, threads=1, checkpoints=store)
    np.testing.assert_array_equal(resumed.at(points), whole.at(points))
    assert resumed.history["loss"] == whole.history["loss"]


def test_import_is_quiet_and_leaves_the_home_folder_alone(tmp_path):
    code = "from pdelab.solvers.deepxde import _library\nwith _library(): pass"
    env = {k: v for k, v in os.environ.items() if k != "DDE_BACKEND"} | {"HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "" and result.stderr == ""
    assert not (tmp_path / ".deepxde").exists()


def test_jet_knows_high_orders():
    problem = pdelab.problem("kuramoto-sivashinsky")
    with _library() as dde:
        run = _Run(SMALL, problem, Context(seed=31), dde)
        x = torch.as_tensor(sampling.interior(problem, 4, 5)).requires_grad_()
        f = _Jet(x, torch.sin(3 * x[:, :1]) * x[:, 1:], run)
        torch.testing.assert_close(f.u_xxxx, 81 * torch.sin(3 * x[:, 0]) * x[:, 1])
        torch.testing.assert_close(f.u_xxt, -9 * torch.sin(3 * x[:, 0]))
        dde.grad.clear()

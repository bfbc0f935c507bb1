"""Derivatives through a moving map: manufactured maps, the velocity of an equation, the published closed form."""

import math

import pytest
import torch

import pdelab
from pdelab.calculus import Jet, jet
from pdelab.pde import Recorder
from pdelab.solvers._labels import Frame, LabelProblem, frame_of
from pdelab.solvers._pull_back import LabelDiffusion, PulledBack, displacements, velocity
from pdelab.solvers._slabs import Slab

SEED = 7907


def points(problem, n=40):
    generator = torch.Generator().manual_seed(SEED)
    lower, upper = (torch.as_tensor(b) for b in problem.domain.bounds)
    t0, t1 = problem.time
    s = lower + (upper - lower) * torch.rand(n, len(lower), generator=generator, dtype=torch.float64)
    t = t0 + (t1 - t0) * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return torch.cat([s, t], dim=1)


def labels(problem, u, moved):
    """A field of labels: values u(x, t) at the places x = s + drift t + D, and D = moved(s, t)."""
    drift = torch.linspace(0.7, -0.4, len(problem.domain.axes), dtype=torch.float64)

    def field(p):
        s, t = p[:, :-1], p[:, -1:]
        D = moved(s, t)
        return torch.cat([u(s + drift * t + D, t), D], dim=1)

    return field, drift


def at_labels(problem, field, s):
    return Jet(field, s, problem.components + displacements(problem), problem.axes)


def wave(x, t):
    phase = (x * torch.arange(1.0, x.shape[1] + 1.0, dtype=x.dtype)).sum(dim=1, keepdim=True)
    return torch.sin(phase) * torch.exp(-t)


def expected(x, t, *orders):
    """Derivatives of `wave`: factors k_i along axis i, each a quarter turn."""
    phase = (x * torch.arange(1.0, x.shape[1] + 1.0, dtype=x.dtype)).sum(dim=1)
    turns = sum(orders)
    factor = math.prod((i + 1.0) ** k for i, k in enumerate(orders))
    return factor * torch.sin(phase + 0.5 * math.pi * turns) * torch.exp(-t)


MAPS = {
    "convection": lambda s, t: 0.3 * torch.sin(s) * (1.0 + t),
    "advection": lambda s, t: torch.stack(
        [0.2 * torch.sin(s[:, 1]) * t[:, 0] + 0.1 * s[:, 0] ** 2, 0.3 * torch.cos(s[:, 0]) + 0.1 * t[:, 0]], dim=1
    ),
    "cube": lambda s, t: 0.1 * torch.sin(s.roll(1, dims=1) + s) * (1.0 + t),
}


class Cube(pdelab.AbstractProblem):
    """Three axes, for the map only."""

    name, time = "cube", (0.0, 1.0)
    domain = pdelab.Box((0.0,) * 3, (1.0,) * 3)

    def residual(self, f):
        return f.u_t

    def conditions(self):
        return (pdelab.Initial("u", 0.0),)


def problem_called(name):
    return Cube() if name == "cube" else pdelab.problem(name)


@pytest.mark.parametrize("name", MAPS)
def test_derivatives_through_a_map_are_those_of_the_places(name):
    problem = problem_called(name)
    field, drift = labels(problem, wave, MAPS[name])
    s = points(problem)
    g = PulledBack(at_labels(problem, field, s), problem, drift)
    x, t, axes = g.points[:, :-1], g.points[:, -1], problem.domain.axes
    assert torch.allclose(x, s[:, :-1] + drift * s[:, -1:] + MAPS[name](s[:, :-1], s[:, -1:]), rtol=0, atol=1e-14)
    assert torch.allclose(g.u, expected(x, t), rtol=0, atol=1e-14)
    assert torch.allclose(g.u_t, -expected(x, t), rtol=0, atol=1e-10)
    for i, a in enumerate(axes):
        one = [int(i == k) for k in range(len(axes))]
        assert torch.allclose(g.derivative("u", a), expected(x, t, *one), rtol=0, atol=1e-10)
        for j, b in enumerate(axes):
            two = [int(i == k) + int(j == k) for k in range(len(axes))]
            assert torch.allclose(g.derivative("u", a, b), expected(x, t, *two), rtol=0, atol=1e-10)
    squares = sum((k + 1.0) ** 2 for k in range(len(axes)))
    assert torch.allclose(g.laplacian("u"), -squares * expected(x, t), rtol=0, atol=1e-10)


class Driven(pdelab.AbstractProblem):
    """u_t + (2 + u) u_x - 0.1 u_xx = source(x, t), with u = sin(x) exp(-t)."""

    name, time = "driven", (0.0, 1.0)
    domain = pdelab.Interval(0.0, 2 * math.pi)

    def residual(self, f):
        sine, cosine = torch.sin(f.x) * torch.exp(-f.t), torch.cos(f.x) * torch.exp(-f.t)
        source = -sine + (2.0 + sine) * cosine + 0.1 * sine
        return f.u_t + (2.0 + f.u) * f.u_x - 0.1 * f.u_xx - source

    def conditions(self):
        return pdelab.Initial("u", lambda p: torch.sin(p.x)), pdelab.Periodic("x")

    def reference(self):
        return pdelab.Exact(lambda p: torch.sin(p.x) * torch.exp(-p.t))


def test_a_source_is_taken_at_the_places_of_labels():
    problem = Driven()
    field, drift = labels(problem, wave, MAPS["convection"])
    told = LabelProblem(problem, Frame(drift, 1.0), problem.domain, "exact", 1.0, 0.0)
    f = at_labels(problem, field, points(problem))
    driven, stray = told.residual(f)
    assert float(driven.detach().abs().max()) < 1e-10
    # The map of this test is not the flow: its rate is drift + 0.3 sin(s), the velocity 2 + u.
    rate = drift + 0.3 * torch.sin(f.points[:, 0])
    assert torch.allclose(stray, rate - 2.0 - f.u, rtol=0, atol=1e-12)


def test_what_a_source_feeds_is_solved_for():
    solver = pdelab.solvers.LagrangianPINN(width=8, depth=2, map_depth=1, n_interior=400)
    solution = pdelab.solve(Driven(), solver, budget="15steps", seed=SEED, threads=1)
    assert solution.error()["rel_l2"] < 3e-3


@pytest.mark.parametrize("name", MAPS)
def test_determinant_is_that_of_the_jacobian(name):
    problem = problem_called(name)
    field, drift = labels(problem, wave, MAPS[name])
    s = points(problem, 12)
    g = PulledBack(at_labels(problem, field, s), problem, drift)

    def place(one):
        return one[:-1] + drift * one[-1] + MAPS[name](one[None, :-1], one[None, -1:])[0]

    F = torch.stack([torch.func.jacrev(place)(one)[:, :-1] for one in s])
    assert torch.allclose(g.determinant, torch.linalg.det(F), rtol=1e-12)


def test_what_a_moving_frame_does_not_give_is_refused():
    problem = pdelab.problem("convection")
    field, drift = labels(problem, wave, MAPS["convection"])
    g = PulledBack(at_labels(problem, field, points(problem)), problem, drift)
    for along in ("tt", "xt", "xxx"):
        with pytest.raises(pdelab.errors.SettingsError, match=f"u_{along}: labels that move"):
            g.derivative("u", *sorted(along, reverse=True) if along == "xt" else along)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("convection", lambda f: [50.0 + 0.0 * f.u]),
        ("burgers", lambda f: [f.u]),
        ("burgers-moving", lambda f: [50.0 + f.u]),
        ("advection", lambda f: [-2.0 * math.pi * f.y, 2.0 * math.pi * f.x]),
        ("burgers-2d", lambda f: [f.u, f.v]),
    ],
)
def test_velocity_is_read_from_the_equation(name, exact):
    problem = pdelab.problem(name)
    many = len(problem.components)
    f = jet(lambda x: wave(x[:, :-1], x[:, -1:]).expand(-1, many), points(problem), problem.components, problem.axes)
    for found, wanted in zip(velocity(problem, f), exact(f), strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-10)


def test_frame_is_the_mean_velocity_and_its_spread():
    frame = frame_of(pdelab.problem("burgers-moving", speed=30.0))
    assert abs(float(frame.drift) - 30.0) < 1e-2
    assert 0.98 < frame.speed < 1.02


def test_speed_is_that_of_the_whole_time_interval():
    """A vortex that rests at half its period, where a slab may begin, and has its first speed, 1, again at the end."""
    problem = pdelab.problem("deformation")
    later = Slab(problem, (0.75, 1.5), lambda x: torch.exp(-x[:, :1] - x[:, 1:2]))
    for told in (problem, later):
        frame = frame_of(told)
        assert 0.9 < frame.speed <= 1.0 and not frame.drift.any()


def test_published_closed_form_solves_the_published_equations_and_not_the_exact_ones():
    """U = exp(-nu t) sin s, x = s + c t + sin(s) (1 - exp(-nu t))/nu."""
    nu, c = 0.05, 10.0
    problem = pdelab.problem("burgers-moving", speed=c, viscosity=nu)
    frame = Frame(torch.tensor([c], dtype=torch.float64), 1.0)

    def field(p):
        s, t = p[:, :1], p[:, -1:]
        return torch.cat([torch.exp(-nu * t) * torch.sin(s), torch.sin(s) * (1.0 - torch.exp(-nu * t)) / nu], dim=1)

    s = points(problem)
    s[:, -1] *= 0.9  # J is small at the end
    worst = {}
    for diffusion in ("label", "exact"):
        told = LabelProblem(problem, frame, problem.domain, diffusion, 1.0, 0.0)
        found = told.residual(Jet(field, s, told.components, told.axes))
        worst[diffusion] = [float(r.detach().abs().max()) for r in found]
    assert max(worst["label"]) < 1e-12
    assert worst["exact"][0] > 0.01 and worst["exact"][1] < 1e-12


def test_label_diffusion_is_exact_for_translations():
    problem = pdelab.problem("burgers-moving", speed=10.0)
    drift = torch.tensor([10.0], dtype=torch.float64)

    def field(p):
        return torch.cat([torch.sin(p[:, :1]) * (1.0 + p[:, 1:]), torch.zeros_like(p[:, :1])], dim=1)

    s = points(problem)
    exact, label = (kind(at_labels(problem, field, s), problem, drift) for kind in (PulledBack, LabelDiffusion))
    assert torch.allclose(exact.u_xx, label.u_xx, rtol=0, atol=1e-12)
    # It takes what is carried for what stands still: u_t + v u_x = U_t, whatever v is.
    assert torch.allclose(label.u_t + (10.0 + label.u) * label.u_x, torch.sin(s[:, 0]), rtol=0, atol=1e-12)


def test_only_what_the_equation_needs_is_asked_of_the_labels():
    problem = pdelab.problem("convection")
    frame = Frame(torch.tensor([50.0], dtype=torch.float64), 1.0)
    told = LabelProblem(problem, frame, problem.domain, "exact", 0.05, 0.25)
    recorder = Recorder(points(problem, 3), told.components, told.axes, {})
    told.residual(recorder)
    assert recorder.wanted.derivatives == {(0, 0), (1, 0), (0, 1)}

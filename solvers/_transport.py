"""Whether one map can follow what a problem carries: reasons to refuse it, found before anything is trained."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pdelab import sampling
from pdelab.calculus import Coordinates, Field, jet
from pdelab.domain import Box
from pdelab.pde import AbstractProblem, Dirichlet, Initial, Periodic, derivatives_used, equations, evaluate
from pdelab.solvers._pull_back import coefficients, velocity

SAMPLES, SEED = 256, 60317
_TOLERANCE = 1e-9
_CARRIED, _BACKWARD_STEPS = 1e-6, 100


def start_field(problem: AbstractProblem) -> Field:
    """The initial values, continued unchanged in time, (n, d) -> (n, m)."""
    first = {c.component: c.value for c in problem.conditions() if isinstance(c, Initial) and c.order == 0}
    assert problem.time is not None, "it has initial values"
    t0 = problem.time[0]

    def field(x: Tensor) -> Tensor:
        at = Coordinates(torch.cat([x[:, :-1], torch.full_like(x[:, -1:], t0)], dim=1), problem.axes)
        return torch.stack([evaluate(first[c], at) for c in problem.components], dim=1)

    return field


def periodic_axes(problem: AbstractProblem) -> set[str]:
    """The axes whose ends are joined."""
    return {c.axis for c in problem.conditions() if isinstance(c, Periodic)}


def obstacle(problem: AbstractProblem) -> str:
    """Why labels cannot follow this problem ('' if they can)."""
    if problem.time is None:
        return "it needs a time-dependent problem: without time nothing is carried"
    if not isinstance(problem.domain, Box):
        return "it needs a box whose axes are periodic or end at walls"
    if problem.unknowns:
        return "it identifies no coefficients; use pinn"
    for component, along in derivatives_used(problem):
        if along.count("t") > 1 or ("t" in along and len(along) > 1) or len(along) > 2:
            return (
                f"the equation contains {component}_{''.join(along)}, but a frame that moves gives first "
                f"derivatives in time and up to second ones in space; use pinn"
            )
    if reason := _conditions_obstacle(problem):
        return reason
    return _velocity_obstacle(problem)


def _conditions_obstacle(problem: AbstractProblem) -> str:
    conditions = problem.conditions()
    started = {c.component for c in conditions if isinstance(c, Initial) and c.order == 0}
    if missing := [c for c in problem.components if c not in started]:
        return f"it needs the initial values of every component, there are none of {', '.join(missing)}"
    other = [c for c in conditions if not isinstance(c, Initial | Periodic | Dirichlet)]
    if other:
        return f"it has no place for a condition of the kind {type(other[0]).__name__}; use pinn"
    return ""


def _velocity_obstacle(problem: AbstractProblem) -> str:
    if len(_equations_at_start(problem)) != len(problem.components):
        return "it needs one equation for each component"
    at = torch.as_tensor(sampling.initial(problem, SAMPLES, SEED))
    f = jet(start_field(problem), at, problem.components, problem.axes)
    v = torch.stack([part.detach() for part in velocity(problem, f)], dim=1)
    if not bool(torch.isfinite(v).all()):
        return "the velocity of its initial values is not finite everywhere: the speed of the frame is undefined"
    if not any(len(along) == 1 and along != ("t",) for _, along in derivatives_used(problem)):
        return "nothing in it is carried: no first derivative in space beside the one in time; use pinn"
    for i, component in enumerate(problem.components):
        for other in problem.components:
            found = torch.stack([part.detach() for part in coefficients(problem, f, i, other)], dim=1)
            expected = v if other == component else torch.zeros_like(v)
            if float((found - expected).abs().max()) > _TOLERANCE * (1.0 + float(v.abs().max())):
                return "its components are carried with different velocities, which one map cannot follow; use pinn"
    return _walls_obstacle(problem)


def _equations_at_start(problem: AbstractProblem) -> tuple[Tensor, ...]:
    """The residuals at some points of the initial values."""
    at = torch.as_tensor(sampling.initial(problem, 4, SEED))
    return equations(problem.residual(jet(start_field(problem), at, problem.components, problem.axes)))


def _walls_obstacle(problem: AbstractProblem) -> str:
    if set(problem.domain.axes) <= periodic_axes(problem):
        return ""
    placed = sampling.boundary(problem, SAMPLES, SEED, None)
    at = torch.as_tensor(placed.points)
    held = {c.component: c.value for c in problem.conditions() if isinstance(c, Dirichlet) and c.part is None}
    if set(held) != set(problem.components):
        return "axes that are not periodic must end at walls with given values all around"

    def walls(x: Tensor) -> Tensor:
        return torch.stack([evaluate(held[c], Coordinates(x, problem.axes)) for c in problem.components], dim=1)

    v = torch.stack(
        [part.detach() for part in velocity(problem, jet(walls, at, problem.components, problem.axes))], dim=1
    )
    across = (v * torch.as_tensor(placed.normals)).sum(dim=1).abs().max()
    if float(across) <= _TOLERANCE * (1.0 + float(v.abs().max())):
        return ""
    missed = _miss_of_labels_from_outside(problem, at, walls(at))
    if missed <= _CARRIED:
        return ""
    return (
        f"labels cross the boundary with a speed of up to {float(across):.3g}, and those from outside do not carry "
        f"what is given there (they miss it by {missed:.3g}); it needs periodic axes, walls at which the normal "
        f"velocity vanishes, or values that the initial ones, continued beyond the domain, bring along"
    )


def second_order(problem: AbstractProblem) -> bool:
    """Whether something diffuses, so that labels do not just carry their first values."""
    return any(len(along) == 2 for _, along in derivatives_used(problem))


def label_box(problem: AbstractProblem) -> Box:
    """Where labels start: the domain if they stay within, else the box around all places that its flow comes from."""
    domain = problem.domain
    assert isinstance(domain, Box), "refused before"
    if set(domain.axes) <= periodic_axes(problem) or second_order(problem):
        return domain
    at = np.concatenate(
        [sampling.boundary(problem, 4 * SAMPLES, SEED, None).points, sampling.interior(problem, 4 * SAMPLES, SEED)]
    )
    feet = _feet(problem, torch.as_tensor(at)).numpy()[:, :-1]
    lower, upper = (np.asarray(b) for b in domain.bounds)
    beyond = np.maximum(lower - feet.min(axis=0), feet.max(axis=0) - upper).max()
    if beyond <= _TOLERANCE * float((upper - lower).max()):
        return domain
    # Samples miss the outermost places by a little.
    margin = 0.01 * (upper - lower)
    low, high = np.minimum(lower, feet.min(axis=0) - margin), np.maximum(upper, feet.max(axis=0) + margin)
    return Box(tuple(low.tolist()), tuple(high.tolist()))


def _miss_of_labels_from_outside(problem: AbstractProblem, at: Tensor, given: Tensor) -> float:
    """How far boundary values are from the initial ones where the flow brings them from; inf where it has no say."""
    still, moved = (_velocity_with(problem, at, value) for value in (0.0, 1.0))
    if second_order(problem) or not torch.equal(still, moved):
        return math.inf
    with torch.no_grad():
        brought = start_field(problem)(_feet(problem, at))
    return float((brought - given).abs().max())


def _feet(problem: AbstractProblem, x: Tensor) -> Tensor:
    """Where places (n, d) were at the first time, by Runge-Kutta's method backwards, with the velocity of value 0."""
    assert problem.time is not None, "labels move in time"
    span = (x[:, -1:] - problem.time[0]) / _BACKWARD_STEPS

    def rate(p: Tensor) -> Tensor:
        return torch.cat([_velocity_with(problem, p, 0.0), torch.ones_like(p[:, :1])], dim=1)

    for _ in range(_BACKWARD_STEPS):
        a = rate(x)
        b = rate(x - 0.5 * span * a)
        c = rate(x - 0.5 * span * b)
        x = x - span / 6.0 * (a + 2.0 * b + 2.0 * c + rate(x - span * c))
    return x


def _velocity_with(problem: AbstractProblem, x: Tensor, value: float) -> Tensor:
    """The velocity at places (n, d) if every component had this value, (n, space axes)."""
    m = len(problem.components)
    f = jet(lambda y: value + 0.0 * y[:, :1].expand(-1, m), x, problem.components, problem.axes)
    return torch.stack([part.detach() for part in velocity(problem, f)], dim=1)

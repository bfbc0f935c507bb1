"""Whether one map can follow what a problem carries: reasons to refuse it, found before anything is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdelab import sampling
from pdelab.calculus import Coordinates, Field, jet
from pdelab.domain import Box
from pdelab.pde import AbstractProblem, Dirichlet, Initial, Periodic, derivatives_used, equations, evaluate
from pdelab.solvers._pull_back import coefficients, velocity

SAMPLES, SEED = 256, 60317
_TOLERANCE = 1e-9


def start_field(problem: AbstractProblem) -> Field:
    """The initial values, continued unchanged in time, (n, d) -> (n, m)."""
    first = {c.component: c.value for c in problem.conditions() if isinstance(c, Initial) and c.order == 0}

    def field(x: Tensor) -> Tensor:
        return torch.stack([evaluate(first[c], Coordinates(x, problem.axes)) for c in problem.components], dim=1)

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
    try:
        v = torch.stack([part.detach() for part in velocity(problem, f)], dim=1)
    except ZeroDivisionError:
        v = torch.full((1, 1), math.nan)
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
    if float(across) > _TOLERANCE * (1.0 + float(v.abs().max())):
        return (
            f"labels would cross the boundary with a speed of up to {float(across):.3g}; it needs periodic axes, or "
            f"walls at which the normal velocity vanishes"
        )
    return ""

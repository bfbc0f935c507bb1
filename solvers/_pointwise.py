"""Training a field on collocation points: time slab after time slab, part after part of the budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pdelab import sampling
from pdelab.balance import AbstractBalancing
from pdelab.calculus import jet
from pdelab.pde import AbstractProblem, Condition, Dirichlet, Initial
from pdelab.schedule import Phase
from pdelab.solution import Solution, Status
from pdelab.solver import Budget, Context
from pdelab.solvers._automatic import STEPS, STEPS_OF_LEAST_SQUARES, is_dear, redraw
from pdelab.solvers._hard import ConstrainedField, Constraints
from pdelab.solvers._nets import embeddable
from pdelab.solvers._residuals import Points, ResidualLoss
from pdelab.solvers._slabs import JoinedField, Slab
from pdelab.train import Report, Trainer


@dataclass(frozen=True)
class Part:
    """A part of a training.

    Attributes:
        dtype: of parameters and points.
        share: of the budget.
        phases: which of the phases, or the one that there is; None means all of them.
    """

    dtype: torch.dtype
    share: float = 1.0
    phases: slice | None = None


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how.

    Attributes:
        field: problem and dtype -> a new field, and which conditions remain for the loss.
        linear: the parameters in which a field is linear.
        phases: problem and number of parameters -> optimisers one after another.
        balancing: a new one for each training.
        points: how many, and how they are drawn; steps between draws are `every`.
        every: steps between draws; None chooses by what a step costs.
        causality: of the causal weights.
        n_slabs: time slabs, each from the field before.
        parts: of each slab; the parameters go from one to the next.
        renewed: changes the parameters of a field between two parts, given its loss on new points.
    """

    field: Callable[[AbstractProblem, torch.dtype], tuple[nn.Module, Callable[[Condition], bool]]]
    linear: Callable[[nn.Module], list[Tensor]]
    phases: Callable[[AbstractProblem, int], list[Phase]]
    balancing: Callable[[], AbstractBalancing]
    points: Points
    every: int | None
    causality: float
    n_slabs: int
    parts: Sequence[Part]
    renewed: Callable[[nn.Module, ResidualLoss], None] | None = None


def train(problem: AbstractProblem, recipe: Recipe, context: Context) -> Solution:
    """The trained field, with the unknown coefficients of the problem."""
    began = context.clock.seconds
    trainer: Trainer | None = None
    unknowns: dict[str, Tensor] = {}
    fields: list[nn.Module] = []
    times = np.linspace(*problem.time, recipe.n_slabs + 1).tolist() if problem.time else []
    setup = 0.0
    for i in range(recipe.n_slabs):
        slab = problem
        if recipe.n_slabs > 1:
            slab = Slab(problem, (times[i], times[i + 1]), fields[-1] if fields else None)
        learnt = fields[-1] if fields else None
        for number, part in enumerate(recipe.parts):
            values = {name: unknowns.get(name, value) for name, value in problem.unknowns.items()}
            unknowns = {name: _parameter(value, part.dtype, context) for name, value in values.items()}
            current, wanted = recipe.field(slab, part.dtype)
            if learnt is not None:
                kept = {k: v for k, v in learnt.state_dict().items() if "embedding" not in k}
                current.load_state_dict({**current.state_dict(), **kept})
            # Learnt fields stay as they are; without this their graph would grow into the next slab.
            for earlier in fields:
                earlier.requires_grad_(False)
            joined = JoinedField([*fields, current], times[1 : i + 1]) if fields else current
            parameters = [*(p for p in current.parameters() if p.requires_grad), *unknowns.values()]
            phases = recipe.phases(slab, sum(p.numel() for p in parameters))
            default = STEPS_OF_LEAST_SQUARES if is_dear(phases) else STEPS
            trainer = trainer or Trainer(context, Budget(steps=default))
            points = dataclasses.replace(recipe.points, every=redraw(recipe.every, phases))
            objective = ResidualLoss(
                slab, wanted, current, unknowns, points, recipe.causality, context.seed, parameters[0]
            )
            if number and recipe.renewed:
                recipe.renewed(current, objective)
            setup = setup or context.clock.seconds - began
            report = trainer.minimise(
                parameters,
                objective,
                phases if part.phases is None else phases[part.phases] or phases,
                balancing=recipe.balancing(),
                field=joined,
                share=part.share / recipe.n_slabs,
                linear=recipe.linear(current),
            )
            learnt = current
            if report.status is Status.NONFINITE:
                break
        fields.append(current)
        if not report.status.ok:
            break
    assert trainer is not None, "there is at least one slab"
    return _solution(problem, joined, unknowns, report, trainer, setup)


def untimely(problem: AbstractProblem, n_slabs: int, causality: float) -> str:
    """Why slabs or causal weights do not go with a problem, or ''."""
    if problem.time is None and (n_slabs > 1 or causality):
        return "n_slabs and causality need a time-dependent problem; leave them at 1 and 0"
    if problem.unknowns and n_slabs > 1:
        return "unknown coefficients belong to the whole time interval; set n_slabs=1"
    return ""


def built_in(
    plain: nn.Module, problem: AbstractProblem, hard: bool, closed: bool
) -> tuple[nn.Module, Callable[[Condition], bool]]:
    """A field with what can be built in, and which conditions remain for the loss.

    Args:
        plain: the field without, periodic where the problem is if `closed`.
        problem: whose conditions are looked at.
        hard: whether Dirichlet and initial conditions are built in, where they can.
        closed: whether periodic conditions are met.
    """

    def open_(condition: Condition) -> bool:
        return not (closed and embeddable(condition))

    if not hard:
        return plain, open_
    later = isinstance(problem, Slab)
    built = Constraints(problem, not later, closed, continued=later)
    return ConstrainedField(plain, built), lambda condition: not built.meets(condition) and open_(condition)


def _parameter(value: float | Tensor, dtype: torch.dtype, context: Context) -> Tensor:
    return nn.Parameter(torch.as_tensor(value, dtype=dtype, device=context.device).detach().clone())


def _solution(
    problem: AbstractProblem,
    trained: nn.Module,
    unknowns: dict[str, Tensor],
    report: Report,
    trainer: Trainer,
    setup: float,
) -> Solution:
    trained.requires_grad_(False)
    stats = {
        "steps": float(trainer.steps),
        "n_parameters": float(sum(p.numel() for p in trained.parameters()) + len(unknowns)),
        "loss": report.loss,
        "setup_s": setup,
        "train_s": trainer.context.clock.seconds - setup,
    }
    return Solution(
        problem,
        trained,
        report.status,
        report.message,
        stats,
        trainer.history.columns,
        unknowns={name: value.item() for name, value in unknowns.items()},
        validity=_violations(problem, trained) if report.status is not Status.NONFINITE else {},
    )


def _violations(problem: AbstractProblem, trained: nn.Module) -> dict[str, float]:
    """Largest differences from the Dirichlet and from the initial values, at 256 points each."""
    parameter = next(trained.parameters())
    worst: dict[str, float] = {}
    for condition in problem.conditions():
        if isinstance(condition, Dirichlet):
            name, points = "boundary_violation", sampling.boundary(problem, 256, 0, condition.part).points
        elif isinstance(condition, Initial):
            name, points = "initial_violation", sampling.initial(problem, 256, 0)
        else:
            continue
        f = jet(trained, torch.as_tensor(points).to(parameter), problem.components, problem.axes)
        worst[name] = max(worst.get(name, 0.0), float(condition.residual(f).detach().abs().max()))
    return worst

"""Lagrangian physics-informed neural networks: a network of labels that move with the flow, and of what they carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from pdelab import sampling
from pdelab.balance import Fixed
from pdelab.errors import check_range
from pdelab.pde import AbstractProblem, Condition, count_equations
from pdelab.schedule import Phase
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractInstanceSolver, Budget, Context
from pdelab.solvers._automatic import STEPS, STEPS_OF_LEAST_SQUARES, automatic, is_dear, redraw
from pdelab.solvers._hard import ConstrainedField, Constraints
from pdelab.solvers._labels import Branches, EulerianField, LabelProblem, frame_of
from pdelab.solvers._nets import MLP, InputEmbedding, NetworkField, embeddable
from pdelab.solvers._paths import followed
from pdelab.solvers._residuals import KINDS, Points, ResidualLoss
from pdelab.solvers._slabs import JoinedField, Slab
from pdelab.solvers._transport import label_box, obstacle, second_order
from pdelab.train import Trainer

CONDITION_WEIGHT = 100.0
BESIDES = 1e-5
_JACOBIAN_POINTS, _PLACES = 2**15, 1024
_SEED = 90841
_CLOSE = 1e-6


@dataclass(frozen=True)
class LagrangianPINN(AbstractInstanceSolver):
    """Lagrangian PINN: two networks, of where a label goes and of what it carries.

        x(s, t) = s + drift (t - t0) + D(s, t),    u(x(s, t), t) = U(s, t),    F = dx/ds
        minimise  mean |equations, pulled back|^2 + follow mean |dx/dt - v|^2 / speed^2
                  + 100 mean max(0, floor - det F)^2

    v is the velocity with which the equations carry u, drift its mean at first, speed its largest difference from
    that. The equations are exact for any map (they are read through F, see `_pull_back`), so that following the flow
    is a preference, and labels may stop short of a shock instead of folding over it. Initial values, periodicity and
    walls are built in.

    Labels may start outside of the domain where they bring the boundary values along. Use it for fast transport of one
    family: convection, passive scalars, viscous Burgers until the front stands. Not where diffusion or reaction rules,
    nor for several velocities (waves), other inflow or chaotic mixing.

    Args:
        width: units of each hidden layer.
        depth: hidden layers of the components' network.
        map_depth: hidden layers of the displacements' network.
        n_interior: collocation points, labels and times.
        sampler, resample_every: how they are drawn, as in `pinn`.
        diffusion: "exact", or "label" as published: the labels' Laplacian, strictly following; wrong by 1.2e-2 for
            Burgers' equation at viscosity 0.01.
        follow: weight of the preference for the flow; None means 1 where nothing diffuses and 1e-5 elsewhere, where the
            equations would rather have other maps at a front.
        floor: of det F, 0 to 1; 0 lets labels crowd without limit.
        optimizer: "auto" chooses as in `pinn`.
        learning_rate: of adam.
        n_slabs: time slabs with new labels, trained one after another, each from the field before; share the budget.
        weights: of the loss terms, by name; 1 for the residuals and 100 for conditions that are not built in.

    Source: R. Mojgani, M. Balajewicz, P. Hassanzadeh, Comput. Methods Appl. Mech. Eng. 404 (2023) 115810 (there
    `diffusion="label"`, soft initial values, and neither drift nor floor).
    """

    width: int = 16
    depth: int = 3
    map_depth: int = 2
    n_interior: int = 4096
    sampler: Literal["sobol", "lhs", "uniform", "adaptive"] = "adaptive"
    resample_every: int | None = None
    diffusion: Literal["exact", "label"] = "exact"
    follow: float | None = None
    floor: float = 0.25
    optimizer: Literal["auto", "adam", "lbfgs", "ssbroyden", "gauss-newton"] = "auto"
    learning_rate: float = 5e-3
    n_slabs: int = 1
    weights: Mapping[str, float] = field(default_factory=dict)

    name: ClassVar[str] = "lagrangian-pinn"
    accepts: ClassVar = AbstractProblem
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        for key in ("width", "depth", "map_depth", "n_interior", "n_slabs"):
            check_range(key, getattr(self, key), least=1)
        check_range("learning_rate", self.learning_rate, above=0.0)
        if self.follow is not None:
            check_range("follow", self.follow, above=0.0)
        check_range("floor", self.floor, least=0.0, most=0.99)
        if self.resample_every is not None:
            check_range("resample_every", self.resample_every, least=0)

    def refuses(self, problem: AbstractProblem) -> str:
        """Problems that labels cannot follow."""
        if reason := obstacle(problem):
            return reason
        if self.n_slabs > 1 and label_box(problem) != problem.domain:
            return "labels that start outside of the domain carry nothing known at later times; set n_slabs=1"
        return ""

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """See `AbstractSolver.run`."""
        began = context.clock.seconds
        assert problem.time is not None, "refused before"
        times = np.linspace(*problem.time, self.n_slabs + 1).tolist()
        trainer: Trainer | None = None
        fields: list[EulerianField] = []
        checks: list[dict[str, float]] = []
        setup = 0.0
        for i in range(self.n_slabs):
            slab = problem
            if self.n_slabs > 1:
                slab = Slab(problem, (times[i], times[i + 1]), fields[-1] if fields else None)
            labels, wanted, outside = self._told(slab, context)
            if fields:
                learnt = fields[-1].labels.state_dict()
                kept = {key: value for key, value in learnt.items() if "embedding" not in key}
                outside.labels.load_state_dict({**outside.labels.state_dict(), **kept})
            fields.append(outside)
            joined = JoinedField(fields, times[1 : i + 1]) if i else outside
            parameters = list(outside.parameters())
            phases = self._phases(labels, sum(p.numel() for p in parameters))
            trainer = trainer or Trainer(context, Budget(steps=STEPS_OF_LEAST_SQUARES if is_dear(phases) else STEPS))
            objective = ResidualLoss(
                labels,
                wanted,
                outside.labels,
                {},
                Points(self.n_interior, 256, 256, self.sampler, redraw(self.resample_every, phases)),
                0.0,
                context.seed,
                parameters[0],
            )
            setup = setup or context.clock.seconds - began
            weights = dict.fromkeys(KINDS.values(), CONDITION_WEIGHT) | dict(self.weights)
            report = trainer.minimise(
                parameters, objective, phases, balancing=Fixed(weights), field=joined, share=1.0 / self.n_slabs
            )
            # Learnt fields stay as they are; without this their graph would grow into the next slab.
            outside.requires_grad_(False)
            status, message = report.status, report.message
            if status is not Status.NONFINITE:
                checks.append(_validity(slab, labels, outside))
                if fold := _fold(slab, checks[-1]):
                    status, message = Status.MAP_FOLDED, f"{fold}; {message}"
            if not status.ok:
                break
        assert trainer is not None, "there is at least one slab"
        stats = {
            "steps": float(trainer.steps),
            "n_parameters": float(sum(p.numel() for field in fields for p in field.parameters())),
            "loss": report.loss,
            "setup_s": setup,
            "train_s": context.clock.seconds - setup,
        }
        validity, lines = {}, {}
        if checks:
            paths = followed(problem, fields, times[: len(fields) + 1])
            lines = {"paths": paths} if paths else {}
            validity["min_jacobian"] = min(check["min_jacobian"] for check in checks)
            validity["label_error"] = max(check["label_error"] for check in checks)
        history = trainer.history.columns
        return Solution(problem, joined, status, message, stats, history, validity=validity, lines=lines)

    def _told(
        self, problem: AbstractProblem, context: Context
    ) -> tuple[LabelProblem, Callable[[Condition], bool], EulerianField]:
        """A problem in labels, which of its conditions remain for the loss, and an untrained field."""
        frame = frame_of(problem)
        strict = self.diffusion == "label"
        follow = self.follow if self.follow is not None else (BESIDES if second_order(problem) else 1.0)
        labels = LabelProblem(
            problem,
            frame,
            label_box(problem),
            self.diffusion,
            1.0 if strict else follow,
            0.0 if strict else self.floor,
        )
        embedding = InputEmbedding(labels)
        assert problem.time is not None, "refused before"
        network = Branches(
            MLP(embedding.n_outputs, len(problem.components), self.width, self.depth, torch.tanh),
            MLP(embedding.n_outputs, len(problem.domain.axes), self.width, self.map_depth, torch.tanh),
            frame.speed * (problem.time[1] - problem.time[0]),
        )
        built = Constraints(labels, continued=isinstance(problem, Slab))
        moving = ConstrainedField(NetworkField(embedding, network).to(context.device, torch.float64), built)

        def wanted(condition: Condition) -> bool:
            return not built.meets(condition) and not embeddable(condition)

        return labels, wanted, EulerianField(moving, labels, problem, frame)

    def _phases(self, labels: AbstractProblem, n_parameters: int) -> list[Phase]:
        if self.optimizer == "auto":
            return automatic(n_parameters, self.n_interior * count_equations(labels), self.learning_rate)
        if self.optimizer == "adam":
            return [Phase("adam", 1.0, self.learning_rate, "exponential")]
        return [Phase(self.optimizer, learning_rate=1.0)]


def _validity(problem: AbstractProblem, labels: LabelProblem, outside: EulerianField) -> dict[str, float]:
    """The least det F at many labels and times, and how far from places their labels end up, at most."""
    like = next(outside.parameters())
    points = torch.as_tensor(sampling.interior(labels, _JACOBIAN_POINTS, _SEED)).to(like)
    places = torch.as_tensor(sampling.interior(problem, _PLACES, _SEED)).to(like)
    return {"min_jacobian": float(outside.determinant(points).min()), "label_error": outside.miss(places)}


def _fold(problem: AbstractProblem, found: dict[str, float]) -> str:
    """What shows that the map of a problem has folded, or ''."""
    assert problem.time is not None, "refused before"
    lower, upper = problem.domain.bounds
    least, miss = found["min_jacobian"], found["label_error"]
    if least > 0.0 and miss < _CLOSE * float((upper - lower).max()):
        return ""
    when = f"from t = {problem.time[0]:.4g} to {problem.time[1]:.4g}"
    return f"det F is down to {least:.3g}, places are missed by up to {miss:.3g} {when}"

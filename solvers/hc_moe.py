"""Networks that propose basis functions, and a solver layer that finds the coefficients: one for all, or experts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from pdelab.constraint_layer import ConstraintLayer
from pdelab.domain import stream
from pdelab.errors import SettingsError, check_range
from pdelab.objective import Losses, Terms
from pdelab.pde import AbstractFamily, AbstractProblem, Observations, Periodic
from pdelab.schedule import Phase
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractOperatorSolver, Budget, Context
from pdelab.solvers._blocks import Blocks, edges
from pdelab.solvers._instance import Instance
from pdelab.solvers._nets import embeddable
from pdelab.solvers._operator import Operator
from pdelab.team import ALONE
from pdelab.train import Report, Trainer

STEPS = 2000
AFTERWARDS = ("n_solve", "refine", "blend")
"""Settings that training does not depend on."""
TRAINING_MEMBERS = 10**6
"""Members with this number and above are for training, those below for tests."""


@dataclass(frozen=True)
class HCMoE(AbstractOperatorSolver["Operator"]):
    """Hard constraints by experts: a network proposes N basis functions, a solver layer finds the coefficients.

        u(x) = lift(x) + factor(x) sum over j of omega_kj b_j(x),    k the expert whose block x lies in
        omega = argmin  sum of squares of equations, conditions and, between experts, jumps, at sampled points

    The network is trained through the solution, by its implicit derivative, on the residuals at other points than those
    of the layer; no solution data are used. "Hard" means solved as well as the basis allows, in training and after it.
    Without a state from `prepare` the network is trained on the one problem.

    Modes: "pi-sc" has no layer, a second network gives the coefficients from the data of the member (a physics-informed
    DeepONet); "pi-hc" solves for one set of coefficients; "pi-hc-moe" for one in each block.

    Differences from the source: the basis is a network of the coordinates (as in PDE-CL) with exact derivatives on any
    domain, not a Fourier operator on a grid; initial and Dirichlet values are built in; rows are balanced; experts are
    coupled; coefficients refer to functions that are orthonormal on each block.

    Args:
        mode: see above.
        experts: parts along each axis, e.g. {"x": 4}, or a number of blocks that fit the domain; for pi-hc-moe.
        coupling: "joint" adds rows for the continuity of values and fluxes and solves for all experts at once;
            "sequential" for one time window after another; "none" leaves experts alone, as in the source.
        refine: so many times the block with the largest residual is halved when a problem is solved after training.
        blend: width of the zones where experts go over into each other, as a share of their blocks, up to 0.5, by a
            partition of unity; 0 for none. It hides the jumps of uncoupled experts, and does not couple them.
        n_basis: N.
        width, depth, activation: of the network of basis functions.
        frequency: scale of the weights and offsets of its first layer at the start; 1 to 4 are useful.
        waves: periods of the cosines and sines of a periodic axis, up to this many.
        n_points: for the equations, all experts together, in a layer and once more in the loss.
        n_boundary: for each condition that is not built in.
        n_interface: on each interface.
        n_solve: points for the equations when a problem is solved after training.
        batch: members in a training step.
        members: how many different ones there are in training.
        horizon: training knows times up to this only.
        learning_rate: the largest one, of Adam.
        max_iterations: of the layer in a training step.
        constraints: "hard" builds initial and Dirichlet values in, "soft" makes rows and loss terms of them.
        weights: of the rows, by name: "residual", "jump", "initial", "dirichlet", "neumann"; 1, 3 and 10 unless given.
        dtype: of the network; the layer works in float64.

    Sources: N. Chalapathi, Y. Du, A. Krishnapriyan, ICLR 2024 (PI-HC-MoE); G. Negiar, M. Mahoney, A. Krishnapriyan,
    ICLR 2023 (PDE-CL).
    """

    mode: Literal["pi-sc", "pi-hc", "pi-hc-moe"] = "pi-hc-moe"
    experts: Mapping[str, int] | int = field(default_factory=dict)
    coupling: Literal["joint", "sequential", "none"] = "joint"
    n_basis: int = 24
    width: int = 48
    depth: int = 3
    activation: Literal["tanh", "sin", "gelu", "silu"] = "tanh"
    frequency: float = 1.0
    waves: int = 3
    n_points: int = 1200
    n_boundary: int = 64
    n_interface: int = 32
    n_solve: int = 4096
    refine: int = 0
    blend: float = 0.0
    batch: int = 4
    members: int = 512
    horizon: float | None = None
    learning_rate: float = 8e-3
    max_iterations: int = 15
    constraints: Literal["hard", "soft"] = "hard"
    weights: Mapping[str, float] = field(default_factory=dict)
    dtype: Literal["float64", "float32"] = "float64"

    name: ClassVar[str] = "hc-moe"
    accepts: ClassVar = AbstractProblem

    def __post_init__(self) -> None:
        """Check the numbers."""
        for key in (
            "n_basis",
            "width",
            "depth",
            "waves",
            "n_points",
            "n_boundary",
            "n_interface",
            "n_solve",
            "batch",
            "members",
        ):
            check_range(key, getattr(self, key), least=1)
        check_range("frequency", self.frequency, above=0.0)
        check_range("learning_rate", self.learning_rate, above=0.0)
        check_range("refine", self.refine, least=0)
        check_range("blend", self.blend, least=0.0, most=0.5)
        check_range("max_iterations", self.max_iterations, least=1)
        if self.n_basis > self.width + 1:
            raise SettingsError(
                f"n_basis: a last layer of width {self.width} has at most {self.width + 1} independent outputs, got "
                f"{self.n_basis}; raise the width"
            )
        for key in ("experts", "refine"):
            if getattr(self, key) and self.mode != "pi-hc-moe":
                raise SettingsError(f"{key}: mode {self.mode!r} has one block; use mode=pi-hc-moe, or leave {key} out")
        if self.refine and self.coupling == "sequential":
            raise SettingsError("refine: time windows need the same blocks in each; use coupling=joint")

    def refuses(self, problem: AbstractProblem) -> str:
        """Conditions that no row stands for, and blocks that do not fit."""
        if problem.unknowns or any(isinstance(c, Observations) for c in problem.conditions()):
            return "it has data or unknown coefficients, which the layer has no rows for; use pinn"
        if any(isinstance(c, Periodic) and not embeddable(c) for c in problem.conditions()):
            return "values are periodic and slopes are not, which the basis cannot be"
        if self.horizon is not None and (problem.time is None or not problem.time[0] < self.horizon <= problem.time[1]):
            return f"horizon={self.horizon:g} is not within its times"
        if self.coupling == "sequential" and problem.time is None:
            return "coupling='sequential' needs time"
        self.blocks(problem)
        return ""

    def blocks(self, problem: AbstractProblem) -> Blocks:
        """Those of the experts."""
        if isinstance(self.experts, int):
            return Blocks.balanced(problem, max(1, self.experts))
        return Blocks.equal(problem, self.experts)

    def prepare(self, family: AbstractFamily, *, context: Context) -> Operator:
        """Train on members of the family with numbers from `TRAINING_MEMBERS` on."""
        members = _Members(family, self.members, self.constraints == "hard")
        operator = self.blank(family)
        operator.to(context.device)
        operator.report = self._train(operator, members, context, min(self.batch, self.members))
        return operator

    def blank(self, family: AbstractFamily) -> Operator:
        """An operator before training, for a state that is read from a file."""
        return Operator(self, family.sample(TRAINING_MEMBERS), family)

    def steps(self, family: AbstractFamily, device: torch.device, seed: int) -> dict[str, Callable[[int], None]]:
        """What is to be timed, as functions of the number of a step.

        "step" is loss and gradient, "layer" the layer alone; both with their backward pass.
        """
        members = _Members(family, self.batch, self.constraints == "hard")
        operator = self.blank(family).to(device)
        batch = [members[i] for i in range(self.batch)]
        operator.set_scales(batch, seed)
        operator.join(ALONE)
        system = operator.example(batch, seed)

        def step(number: int) -> None:
            total = torch.stack(list(operator.losses(batch, stream(seed, 11, number)).values())).sum()
            torch.autograd.grad(total, operator.trainable(), allow_unused=True)

        def layer(number: int) -> None:
            tensors = [t.detach().requires_grad_() for t in system.tensors()]
            torch.autograd.grad(ConstraintLayer(self.max_iterations)(system.replaced(tensors)).omega.sum(), tensors)

        return {"step": step, "layer": layer}

    def run(self, problem: AbstractProblem, state: Operator | None, *, context: Context) -> Solution:
        """See `AbstractSolver.run`."""
        instance = Instance.of(problem, self.constraints == "hard")
        began = context.clock.seconds
        if state is None:
            operator = Operator(self, problem, None).to(context.device)
            operator.report = self._train(operator, [instance], context, 1)
        else:
            operator = state
            self._check_same(operator.solver)
            operator.check_member(problem)
        trained = context.clock.seconds - began
        field_, solved, drawn = operator.solve(instance, self.n_solve, context.seed, self.refine, self.blend)
        status, message = Status.CONVERGED, ""
        if solved is not None and not bool(solved.converged.all()):
            left = int((~solved.converged).sum())
            message = f"{left} of {solved.converged.numel()} solves of the layer ended before their tolerance"
        if state is None and operator.report is not None:
            status, message = operator.report.status, operator.report.message + ("; " + message if message else "")
        stats = {
            "train_s": trained,
            "solve_s": context.clock.seconds - began - trained,
            "n_parameters": sum(p.numel() for p in operator.parameters()),
            "dofs": field_.omega.numel(),
        }
        if operator.report is not None:
            stats["steps"] = operator.report.steps
        if solved is not None:
            stats["iterations"] = float(solved.iterations.max())
        history = operator.history if state is None else {}
        validity, marks = operator.validity(instance, drawn, field_), operator.marks(problem, field_)
        lines = edges(problem, field_.blocks)
        return Solution(problem, field_, status, message, stats, history, validity=validity, lines=lines, marks=marks)

    def _check_same(self, trained: HCMoE) -> None:
        """Raise `SettingsError` unless what was learned belongs to these settings."""
        for setting in dataclasses.fields(self):
            ours, theirs = getattr(self, setting.name), getattr(trained, setting.name)
            if ours != theirs and setting.name not in AFTERWARDS:
                raise SettingsError(
                    f"{setting.name}: the state was trained with {theirs!r}, got {ours!r}; only "
                    f"{', '.join(AFTERWARDS)} can be changed afterwards"
                )

    def _train(
        self, operator: Operator, members: _Members | Sequence[Instance], context: Context, batch: int
    ) -> Report:
        trainer = Trainer(context, Budget(steps=STEPS))
        team = context.team
        if team.size > 1 and not (trainer.budget.steps and not trainer.budget.seconds):
            raise SettingsError(
                f"budget: several processes need one in steps, to agree on the end, got {trainer.budget}"
            )

        def losses(step: int) -> Terms:
            chosen = np.random.default_rng([context.seed, 7, step]).choice(len(members), batch, replace=False)
            return operator.losses([members[int(i)] for i in chosen], stream(context.seed, 11, step))

        with torch.no_grad():
            first = [members[i] for i in range(min(batch, len(members)))]
        operator.set_scales(first, context.seed)
        operator.join(team)
        phases = [Phase("adam", 1.0, self.learning_rate, "cosine", warm_up=0.1, final=0.01)]
        report = trainer.minimise(list(operator.trainable()), Losses(losses, redrawn_every=1, team=team), phases)
        operator.join(ALONE)
        operator.history = trainer.history.columns
        return report


class _Members:
    """The training members of a family, each prepared when it is first asked for."""

    def __init__(self, family: AbstractFamily, n: int, hard: bool):
        self._family, self._n, self._hard = family, n, hard
        self._known: dict[int, Instance] = {}

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, number: int) -> Instance:
        if number not in self._known:
            self._known[number] = Instance.of(self._family.sample(TRAINING_MEMBERS + number), self._hard)
        return self._known[number]

"""Networks that propose basis functions, and a solver layer that finds the coefficients: one for all, or experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pdelab.constraint_layer import ConstraintLayer, Solved
from pdelab.constraint_rows import Share, System
from pdelab.domain import stream
from pdelab.errors import SettingsError, check_range
from pdelab.objective import Losses, Terms
from pdelab.pde import AbstractFamily, AbstractProblem, Observations, Periodic
from pdelab.schedule import Phase
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractOperatorSolver, Budget, Context
from pdelab.solvers._basis import Basis, ExpertsField
from pdelab.solvers._blocks import Blocks, visible_jump
from pdelab.solvers._constrained import Drawing, Drawn, Instance, Numbers, refined
from pdelab.solvers._windows import solve_in_order, windows
from pdelab.solvers._nets import ACTIVATIONS, MLP, InputEmbedding, NetworkField, embeddable
from pdelab.team import ALONE, Gathered, Team, shared_out
from pdelab.train import Report, Trainer

STEPS = 2000
N_SENSORS = 64
CODE_WIDTH = 64
_CELLS = 64
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

    Differences from the source: the basis is a network of the coordinates (as in PDE-CL) with exact derivatives, so that
    any domain will do, not a Fourier operator on a grid; initial and Dirichlet values are built in; rows are balanced;
    experts are coupled; coefficients refer to functions that are orthonormal on each block.

    Args:
        mode: see above.
        experts: parts along each axis, e.g. {"x": 4}, or a number of blocks that fit the domain; for pi-hc-moe.
        coupling: "joint" adds rows for the continuity of values and fluxes and solves for all experts at once;
            "sequential" for one time window after another; "none" leaves experts alone, as in the source.
        refine: so many times the block with the largest residual is halved when a problem is solved after training.
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
    batch: int = 4
    members: int = 512
    horizon: float | None = None
    learning_rate: float = 8e-3
    max_iterations: int = 15
    constraints: Literal["hard", "soft"] = "hard"
    weights: Mapping[str, float] = field(default_factory=dict)

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
        """What is to be timed, as functions of the number of a step: "step", loss and gradient; "layer", its layer alone.

        Both with their backward pass.
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
            operator.report = self._train(operator, _Alone(instance), context, 1)
        else:
            operator = state
        trained = context.clock.seconds - began
        field_, solved, drawn = operator.solve(instance, self.n_solve, context.seed)
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
        return Solution(
            problem, field_, status, message, stats, history, validity=operator.validity(instance, drawn, field_)
        )

    def _train(self, operator: Operator, members: _AbstractMembers, context: Context, batch: int) -> Report:
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


class Operator(nn.Module):
    """What is learned: the basis, and for pi-sc the network of the coefficients.

    Args:
        solver: whose settings are used.
        problem: any member.
        family: that `problem` belongs to; None for this problem alone.
    """

    def __init__(self, solver: HCMoE, problem: AbstractProblem, family: AbstractFamily | None):
        super().__init__()
        self._solver, self._family = solver, family
        instance = Instance.of(problem, solver.constraints == "hard")
        embedding = InputEmbedding(problem, waves=solver.waves)
        network = MLP(embedding.n_outputs, solver.n_basis, solver.width, solver.depth, ACTIVATIONS[solver.activation])
        network.to(torch.float64)
        with torch.no_grad():  # functions that differ from one another on every block
            first_layer = network.layers[0]
            first_layer.weight.mul_(solver.frequency)
            first_layer.bias.uniform_(-solver.frequency, solver.frequency)
        self.basis = Basis(NetworkField(embedding, network), instance.constraints, problem.axes)
        self.blocks = solver.blocks(problem)
        self._windows = windows(self.blocks) if solver.coupling == "sequential" else []
        self._first = instance
        self.branch: nn.Module | None = None
        self._n_components = len(problem.components)
        if solver.mode == "pi-sc":
            n = len(self._code(instance))
            self.branch = MLP(n, self._n_components * solver.n_basis, CODE_WIDTH, 2, torch.tanh).to(torch.float64)
        self._layer = ConstraintLayer(solver.max_iterations, tolerance=1e-7)
        self.scales: dict[str, Tensor] = {}
        self._share: Share | None = None
        self.report: Report | None = None
        self.history: Mapping[str, list[float]] = {}

    def join(self, team: Team) -> None:
        """Take a share of the experts in a team; with one alone, all of them.

        Raises:
            SettingsError: there are more processes than experts.
        """
        self._share = None
        if team.size > 1 and self._windows:
            raise SettingsError("coupling='sequential' solves one window after another; use coupling=joint in a team")
        if team.size > 1:
            self._share = Share(team, shared_out([1.0] * len(self.blocks), team.size))
        s = self._solver
        self._training_drawing = self._drawing(s.n_points, s.horizon, None if self._share is None else self._share.own)

    def trainable(self) -> list[Tensor]:
        """What the optimiser changes."""
        return [p for p in self.parameters() if p.requires_grad]

    def get_extra_state(self) -> Any:
        """The scales of the rows, which belong to the learned basis."""
        return {name: scale.tolist() for name, scale in self.scales.items()}

    def set_extra_state(self, state: Any) -> None:
        """The inverse of `get_extra_state`."""
        device = next(self.parameters()).device
        self.scales = {k: torch.tensor(v, dtype=torch.float64, device=device) for k, v in state.items()}

    def set_scales(self, instances: Sequence[Instance], seed: int) -> None:
        """Make rows of all kinds comparable, for the basis as it is."""
        self.scales = self._drawing(self._solver.n_points, self._solver.horizon).scales(instances, [seed, 3])

    def losses(self, instances: Sequence[Instance], seed: Sequence[int]) -> Terms:
        """Mean squares of the rows at points that the layer has not seen, with jumps; differentiable."""
        drawing = self._training_drawing
        drawn = drawing.draw(instances, self.scales, stream(seed, 0))
        if self.branch is None:
            omega = self._solved(drawn, self._layer)[0]
            drawn = drawing.draw(instances, self.scales, stream(seed, 1))
        else:
            omega = self._given(instances)
        terms = _mean_squares(drawn, omega, self._share)
        if "jump" in terms and self._share is not None and not self._share.team.leads:
            terms["jump"] = 0.0 * terms["residual"]  # all processes have the same jumps: one of them counts
        return terms

    @torch.no_grad()
    def example(self, instances: Sequence[Instance], seed: int) -> System:
        """The least-squares problems of a training step."""
        drawn = self._training_drawing.draw(instances, self.scales, stream(seed, 0))
        return drawn.system(self._n_components, self._solver.coupling == "joint")[0]

    @torch.no_grad()
    def solve(self, instance: Instance, n: int, seed: int) -> tuple[ExpertsField, Solved | None, Drawn]:
        """The field of one member from n points, over its whole time."""
        blocks = self.blocks
        for round_ in range(self._solver.refine + 1):
            drawn = self._drawing(n, None, blocks=blocks).draw([instance], self.scales, [seed, 5])
            if self.branch is None:
                omega, solved = self._solved(drawn, ConstraintLayer(100, tolerance=1e-9))
            else:
                omega, solved = self._given([instance]), None
            if round_ < self._solver.refine:
                blocks = refined(blocks, drawn, omega)
        return ExpertsField(self.basis, instance.constraints, blocks, omega[0]), solved, drawn

    @torch.no_grad()
    def validity(self, instance: Instance, drawn: Drawn, found: ExpertsField) -> dict[str, float]:
        """Root mean square of the scaled equations where they were solved for and elsewhere, and how much jumps show.

        `interface_jump` is the mean difference between the centres of two cells on either side of an interface, over that
        of the pairs next to it, on cells of 1/64 of the extent: about 1 where nothing shows.
        """
        omega = found.omega[None]
        other = self._drawing(self._solver.n_solve, None, blocks=found.blocks).draw([instance], self.scales, 977)
        at, elsewhere = (_mean_squares(d, omega) for d in (drawn, other))
        checks = {
            "constraint_residual": float(at["residual"].sqrt()),
            "unsampled_residual": float(elsewhere["residual"].sqrt()),
        }
        ratio = visible_jump(instance.problem, found, _CELLS)
        return checks if ratio is None else checks | {"interface_jump": ratio}

    def _solved(self, drawn: Drawn, layer: ConstraintLayer) -> tuple[Tensor, Solved]:
        if self._windows:
            return solve_in_order(drawn, layer, self._n_components, self._windows)
        share, joint = self._share, self._solver.coupling == "joint"
        system, T = drawn.system(self._n_components, joint, share)
        solved = layer(system)
        omega = torch.matmul(T, solved.omega[..., None])[..., 0]
        if share is not None and system.share is None:
            omega = Gathered.apply(omega, share.team, share.places, 1)
        return omega, solved

    def _given(self, instances: Sequence[Instance]) -> Tensor:
        assert self.branch is not None
        codes = torch.as_tensor(np.stack([self._code(i) for i in instances])).to(next(self.parameters()))
        return self.branch(codes).reshape(len(instances), 1, self._n_components, self._solver.n_basis)

    def _code(self, instance: Instance) -> np.ndarray:
        """The data of a member at sensors, (q,)."""
        if self._family is None:
            return np.ones(1)
        sensors = instance.problem.domain.sample(N_SENSORS, 8681, "sobol")
        return self._family.encode(instance.problem, sensors).reshape(-1)

    def _drawing(
        self, n: int, latest: float | None, own: Sequence[int] | None = None, blocks: Blocks | None = None
    ) -> Drawing:
        s, first = self._solver, self._first
        alike = self._family is None or self._family.shares_equations
        numbers = Numbers(n, s.n_boundary, s.n_interface)
        return Drawing(
            first.problem, first.constraints, alike, self.basis, blocks or self.blocks, numbers, s.weights, latest, own
        )


class _AbstractMembers:
    """Members of a family, prepared once."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, number: int) -> Instance:
        raise NotImplementedError


class _Members(_AbstractMembers):
    def __init__(self, family: AbstractFamily, n: int, hard: bool):
        self._family, self._n, self._hard = family, n, hard
        self._known: dict[int, Instance] = {}

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, number: int) -> Instance:
        if number not in self._known:
            self._known[number] = Instance.of(self._family.sample(TRAINING_MEMBERS + number), self._hard)
        return self._known[number]


class _Alone(_AbstractMembers):
    def __init__(self, instance: Instance):
        self._instance = instance

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Instance:
        return self._instance


def _mean_squares(drawn: Drawn, omega: Tensor, share: Share | None = None) -> Terms:
    own = omega if share is None else omega[:, share.own]
    which = torch.arange(len(omega), device=omega.device)
    terms = {}
    for name, rows in zip(drawn.names, drawn.groups, strict=True):
        r = rows.weight * rows.function(rows.values(own), which)
        terms[name] = r.square().sum() / len(omega)
    if drawn.jumps is not None:
        terms["jump"] = drawn.jumps.values(omega).square().sum() / len(omega)
    return terms

"""What is learned for hard constraints by experts: the basis, and how coefficients and losses follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pdelab.constraint_layer import ConstraintLayer, Solved
from pdelab.constraint_rows import Share, System
from pdelab.domain import stream
from pdelab.errors import InputError, SettingsError
from pdelab.objective import Terms
from pdelab.pde import AbstractFamily, AbstractProblem, residual_values
from pdelab.solvers._basis import Basis, ExpertsField, ProfileEmbedding
from pdelab.solvers._blocks import Blocks, bounds, visible_jump
from pdelab.solvers._drawing import Drawing, Numbers, refined
from pdelab.solvers._drawn import Drawn
from pdelab.solvers._instance import Instance
from pdelab.solvers._nets import ACTIVATIONS, MLP, NetworkField
from pdelab.solvers._windows import solve_in_order, windows
from pdelab.team import Gathered, Team, shared_out
from pdelab.train import Report

if TYPE_CHECKING:
    from pdelab.solvers.hc_moe import HCMoE

N_SENSORS = 64
CODE_WIDTH = 64
_CELLS = 64


class Operator(nn.Module):
    """What is learned: the basis, and for pi-sc the network of the coefficients.

    Args:
        solver: whose settings are used.
        problem: any member.
        family: that `problem` belongs to; None for this problem alone.
    """

    def __init__(self, solver: HCMoE, problem: AbstractProblem, family: AbstractFamily | None):
        super().__init__()
        self.solver, self._family = solver, family
        instance = Instance.of(problem, solver.constraints == "hard")
        embedding = ProfileEmbedding(problem, solver.waves)
        network = MLP(embedding.n_outputs, solver.n_basis, solver.width, solver.depth, ACTIVATIONS[solver.activation])
        with torch.no_grad():  # functions that differ from one another on every block
            first_layer = cast(nn.Linear, network.layers[0])
            first_layer.weight.mul_(solver.frequency)
            first_layer.bias.uniform_(-solver.frequency, solver.frequency)
        plain = NetworkField(embedding, network).to(getattr(torch, solver.dtype))
        self.basis = Basis(plain, instance.constraints, problem.axes)
        self.blocks = solver.blocks(problem)
        self._windows = windows(self.blocks) if solver.coupling == "sequential" else []
        self._first = instance
        self.branch: nn.Module | None = None
        self._n_components = len(problem.components)
        if solver.mode == "pi-sc":
            n = len(self._code(instance))
            self.branch = MLP(n, self._n_components * solver.n_basis, CODE_WIDTH, 2, torch.tanh).to(
                plain.embedding.lower.dtype
            )
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
        s = self.solver
        self._training_drawing = self._drawing(s.n_points, s.horizon, None if self._share is None else self._share.own)

    def check_member(self, problem: AbstractProblem) -> None:
        """Raise `InputError` unless it is a problem of the kind, in the place and of the times of the training."""
        known = self._first.problem
        if problem.name != known.name:
            raise InputError(f"the state was trained on members such as {known.name!r}, got {problem.name!r}")
        for ours, theirs in zip(bounds(problem), bounds(known), strict=True):
            if not np.array_equal(ours, theirs):
                wanted = " to ".join(str(end.tolist()) for end in bounds(known))
                found = " to ".join(str(end.tolist()) for end in bounds(problem))
                raise InputError(
                    f"{problem.name}: the state was trained on {', '.join(known.axes)} from {wanted}, got {found}"
                )

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
        self.scales = self._drawing(self.solver.n_points, self.solver.horizon).scales(instances, [seed, 3])

    def losses(self, instances: Sequence[Instance], seed: Sequence[int]) -> Terms:
        """Mean squares of the rows at points that the layer has not seen, with jumps; differentiable."""
        drawing = self._training_drawing
        drawn = drawing.draw(instances, self.scales, stream(seed, 0))
        if self._diverged(drawn):
            # The loss is nan then, which the training loop knows how to end.
            nan = torch.nan * torch.stack([p.sum() for p in self.trainable()]).sum()
            return dict.fromkeys([*drawn.names, *(["jump"] if drawn.jumps else [])], nan)
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
        return drawn.system(self._n_components, self.solver.coupling == "joint")[0]

    @torch.no_grad()
    def solve(
        self, instance: Instance, n: int, seed: int, refine: int = 0, blend: float = 0.0
    ) -> tuple[ExpertsField, Solved | None, Drawn]:
        """The field of one member from n points, over its whole time, after so many splits of blocks, blended."""
        blocks = self.blocks
        for left in range(refine, -1, -1):
            drawn = self._drawing(n, None, blocks=blocks).draw([instance], self.scales, [seed, 5])
            if self.branch is None:
                omega, solved = self._solved(drawn, ConstraintLayer(100, tolerance=1e-9))
            else:
                omega, solved = self._given([instance]), None
            if left:
                blocks = refined(blocks, drawn, omega)
        return ExpertsField(self.basis, instance.constraints, blocks, omega[0], blend), solved, drawn

    @torch.no_grad()
    def validity(self, instance: Instance, drawn: Drawn, found: ExpertsField) -> dict[str, float]:
        """Root mean square of the scaled equations where they were solved for and elsewhere, and how much jumps show.

        `interface_jump` is the mean difference between the centres of two cells on either side of an interface, over
        that of the pairs next to it, on cells of 1/64 of the extent: about 1 where nothing shows.
        """
        omega = found.omega[None]
        other = self._drawing(self.solver.n_solve, None, blocks=found.blocks).draw([instance], self.scales, 977)
        at, elsewhere = (_mean_squares(d, omega) for d in (drawn, other))
        checks = {
            "constraint_residual": float(at["residual"].sqrt()),
            "unsampled_residual": float(elsewhere["residual"].sqrt()),
        }
        ratio = visible_jump(instance.problem, found, _CELLS)
        return checks if ratio is None else checks | {"interface_jump": ratio}

    def marks(self, problem: AbstractProblem, found: ExpertsField) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """`expert`, whose block a point is in, and `constraint_residual`, the size of the scaled equations there."""
        scale = self.scales["residual"].cpu()

        def expert(points: np.ndarray) -> np.ndarray:
            return found.blocks.label(torch.as_tensor(points)).numpy().astype(float)

        def constraint_residual(points: np.ndarray) -> np.ndarray:
            where = found.omega.device
            parts = [
                residual_values(problem, found, part.to(where)).cpu() for part in torch.as_tensor(points).split(8192)
            ]
            return (scale * torch.cat(parts)).norm(dim=1).numpy()

        return {"expert": expert, "constraint_residual": constraint_residual}

    def _diverged(self, drawn: Drawn) -> bool:
        """Whether the network gives something else than numbers, in any process of the team."""
        finite = [drawn.values, *(rows.features for rows in drawn.groups)]
        bad = torch.tensor(float(not all(bool(torch.isfinite(t).all()) for t in finite)), device=drawn.values.device)
        return bool(bad if self._share is None else self._share.team.sum(bad))

    def _solved(self, drawn: Drawn, layer: ConstraintLayer) -> tuple[Tensor, Solved]:
        if self._windows:
            return solve_in_order(drawn, layer, self._n_components, self._windows)
        share, joint = self._share, self.solver.coupling == "joint"
        system, T = drawn.system(self._n_components, joint, share)
        solved = layer(system)
        omega = torch.matmul(T, solved.omega[..., None])[..., 0]
        if share is not None and system.share is None:
            omega = Gathered.apply(omega, share.team, share.places, 1)
        return omega, solved

    def _given(self, instances: Sequence[Instance]) -> Tensor:
        assert self.branch is not None
        codes = torch.as_tensor(np.stack([self._code(i) for i in instances])).to(next(self.parameters()))
        return self.branch(codes).to(torch.float64).reshape(len(instances), 1, self._n_components, self.solver.n_basis)

    def _code(self, instance: Instance) -> np.ndarray:
        """The data of a member at sensors, (q,)."""
        if self._family is None:
            return np.ones(1)
        sensors = instance.problem.domain.sample(N_SENSORS, 8681, "sobol")
        return self._family.encode(instance.problem, sensors).reshape(-1)

    def _drawing(
        self, n: int, latest: float | None, own: Sequence[int] | None = None, blocks: Blocks | None = None
    ) -> Drawing:
        s, first = self.solver, self._first
        alike = self._family is None or self._family.shares_equations
        numbers = Numbers(n, s.n_boundary, s.n_interface)
        return Drawing(
            first.problem, first.constraints, alike, self.basis, blocks or self.blocks, numbers, s.weights, latest, own
        )


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

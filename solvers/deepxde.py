"""The same problem run by DeepXDE on its PyTorch backend: the baseline that the field knows."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pdelab import sampling
from pdelab.calculus import AbstractJet
from pdelab.checkpoint import flatten, restore, restoring
from pdelab.conditions import PlacedCondition, place
from pdelab.domain import stream
from pdelab.errors import CheckpointError, check_choice, check_range
from pdelab.history import History, measured
from pdelab.interrupts import noted_interrupts, raise_interrupt
from pdelab.pde import AbstractProblem, count_equations, equations, residual_values
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractInstanceSolver, Context, Progress
from pdelab.solvers._hard import Constraints
from pdelab.solvers._nets import InputEmbedding, embeddable

CANDIDATES = 4  # for each adaptive point, as in `pinn`
LBFGS_BLOCK = 20  # iterations between two looks at the budget


@dataclass(frozen=True)
class DeepXDE(AbstractInstanceSolver):
    """DeepXDE's PINN: our problems and network in float64, its own derivatives and training.

    Adam for `adam_share` of the budget, then L-BFGS: the recipe of DeepXDE's documentation. Periodic conditions
    are built into its feature transform and, with hard constraints, Dirichlet and initial ones into its output
    transform, by the same formulas as in `pinn`. The points are drawn and redrawn like those of `pinn`, by the
    same rule and with the same seed: equal ones, unless the sampler is adaptive and looks at the network. L-BFGS
    starts anew on new points.

    Args:
        width: neurons per hidden layer.
        depth: hidden layers.
        activation: name known to DeepXDE: tanh, sin, swish, gelu, elu, sigmoid.
        n_interior: collocation points.
        n_boundary: points on the boundary in all.
        n_initial: points at the initial time.
        sampler: how points are drawn, one of `pdelab.domain.SAMPLERS`; "adaptive" draws interior points where the
            residual is large.
        resample_every: steps between draws of new points; 0 keeps the first ones.
        learning_rate: of Adam.
        condition_weight: of the mean square of each condition; that of the equations is 1.
        adam_share: share of the budget that Adam gets, 0 to 1.
        constraints: "hard" or "soft", as in `pinn`.

    Source: L. Lu et al., SIAM Review 63 (2021) 208-228.
    """

    width: int = 16
    depth: int = 3
    activation: str = "tanh"
    n_interior: int = 4096
    n_boundary: int = 256
    n_initial: int = 256
    sampler: Literal["sobol", "lhs", "uniform", "adaptive"] = "adaptive"
    resample_every: int = 200
    learning_rate: float = 5e-3
    condition_weight: float = 100.0
    adam_share: float = 0.25
    constraints: Literal["hard", "soft"] = "hard"

    name: ClassVar[str] = "deepxde"
    trained: ClassVar[bool] = True
    default_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        """Check the ranges."""
        for key in ("width", "depth", "n_interior", "n_boundary", "n_initial"):
            check_range(key, getattr(self, key), least=1)
        for key in ("learning_rate", "condition_weight"):
            check_range(key, getattr(self, key), above=0.0)
        check_range("resample_every", self.resample_every, least=0)
        check_range("adam_share", self.adam_share, least=0.0, most=1.0)
        check_choice("activation", self.activation, ("tanh", "sin", "swish", "gelu", "elu", "sigmoid"))

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """Translate the problem, train, and bring the network back as a field."""
        with _library() as dde:
            return _Run(self, problem, context, dde).solution()


class _Run:
    """One training: what lives as long as the DeepXDE model."""

    def __init__(self, settings: DeepXDE, problem: AbstractProblem, context: Context, dde: Any):
        self.settings, self.problem, self.context, self.dde = settings, problem, context, dde
        built = Constraints(problem) if settings.constraints == "hard" else None
        self._met = (lambda c: embeddable(c) or built.meets(c)) if built else embeddable
        self.draw = 0
        self.placed = self._place_conditions()
        self.interior = self._place_interior()
        self.unknowns = {name: dde.Variable(value) for name, value in problem.unknowns.items()}
        self._jet: _Jet | None = None
        self._n_equations = count_equations(problem)
        self._conditions = [_Condition(self, placed) for placed in self.placed]
        # Anchors are exactly our points; the point cloud is there because DeepXDE wants a geometry.
        cloud = dde.geometry.PointCloud(self.interior)
        data = dde.data.PDE(cloud, self._equations, self._conditions, num_domain=0, anchors=self.interior)
        embedding = InputEmbedding(problem).double()
        layers = [embedding.n_outputs, *[settings.width] * settings.depth, len(problem.components)]
        self.net = dde.nn.FNN(layers, settings.activation, "Glorot normal")
        self.net.apply_feature_transform(embedding)
        if built:
            self.net.apply_output_transform(built)
        self.model = dde.Model(data, self.net)
        self.history = History()
        self.step = 0
        self.phase = 0

    def jet(self, inputs: Tensor, outputs: Tensor) -> _Jet:
        """The jet of this evaluation of the network, shared by the equations and all conditions."""
        if self._jet is None or self._jet.outputs is not outputs:
            self._jet = _Jet(inputs, outputs, self)
        return self._jet

    def solution(self) -> Solution:
        """Train through the phases, from a checkpoint if there is one."""
        restored, message = self._restore(), ""
        for number, (optimizer, steps, seconds) in enumerate(self._phases()):
            if number < self.phase:
                continue
            self.phase = number
            self._compile(optimizer)
            if restored is not None:
                with restoring():
                    self.model.opt.load_state_dict(restored)
                restored = None
            message = self._train(optimizer, steps, seconds)
        loss = self._final_loss()
        stats = {
            "steps": self.step,
            "n_parameters": sum(p.numel() for p in self.net.parameters()) + len(self.unknowns),
            "loss": loss,
            "train_s": self.context.clock.seconds,
        }
        return Solution(
            self.problem,
            _Trained(self.net),
            Status.BUDGET_SPENT if math.isfinite(loss) else Status.NONFINITE,
            message if math.isfinite(loss) else f"the loss became {loss}",
            stats,
            self.history.columns,
            unknowns={name: value.item() for name, value in self.unknowns.items()},
        )

    def _phases(self) -> list[tuple[str, float, float]]:
        """(optimiser, step and second at which it ends); infinite where there is no limit."""
        budget, share = self.context.budget, self.settings.adam_share
        steps: float = budget.steps or (math.inf if budget.seconds else self.settings.default_steps)
        seconds = budget.seconds or math.inf
        adam = ("adam", round(steps * share) if math.isfinite(steps) else steps, seconds * share)
        return [adam] * (share > 0) + [("L-BFGS", steps, seconds)] * (share < 1)

    def _compile(self, optimizer: str) -> None:
        extra = list(self.unknowns.values()) or None
        if optimizer == "adam":
            self.model.compile(
                "adam",
                lr=self.settings.learning_rate,
                loss_weights=self._weights(),
                external_trainable_variables=extra,
            )
        else:
            # One call of the optimiser is one block, so that budget and checkpoints are looked at in between.
            self.dde.optimizers.config.LBFGS_options.update(iter_per_step=LBFGS_BLOCK, fun_per_step=2 * LBFGS_BLOCK)
            self.model.compile("L-BFGS", loss_weights=self._weights(), external_trainable_variables=extra)

    def _weights(self) -> list[float]:
        return [1.0] * self._n_equations + [self.settings.condition_weight] * len(self.placed)

    def _train(self, optimizer: str, steps: float, seconds: float) -> str:
        """One phase; L-BFGS counts its iterations as steps."""
        clock, group = self.context.clock, self.model.opt.param_groups[0]
        saved = time.monotonic()
        store = self.context.checkpoints
        with noted_interrupts(store is not None) as interrupt:
            while self.step < steps and clock.seconds < seconds:
                if self._redraw() and optimizer == "L-BFGS":
                    self._compile(optimizer)
                    group = self.model.opt.param_groups[0]
                before, done = self.step, self._lbfgs_iterations()
                if optimizer == "L-BFGS":
                    group["max_iter"] = int(min(LBFGS_BLOCK, steps - self.step))
                self.model.train_step(*self.model.data.train_next_batch())
                self.step += 1 if optimizer == "adam" else self._lbfgs_iterations() - done
                with clock.paused():
                    self._jet = None
                    self._record(before)
                    if interrupt() or (store and time.monotonic() - saved >= store.every):
                        self._save()
                        saved = time.monotonic()
                        raise_interrupt(interrupt())
                if optimizer == "L-BFGS" and self.step <= before + 1 < steps:
                    return f"L-BFGS stopped by itself at step {self.step}"
        return ""

    def _redraw(self) -> bool:
        """Take new points if it is time, those of `pinn` in the same step."""
        every = self.settings.resample_every
        if not every or self.step // every == self.draw:
            return False
        self.draw = self.step // every
        self.interior = self._place_interior()
        self._use_points()
        return True

    def _use_points(self) -> None:
        """Hand the points of this draw to DeepXDE."""
        self.placed = self._place_conditions()
        for condition, placed in zip(self._conditions, self.placed, strict=True):
            condition.placed = placed
        self.model.data.train_x_bc = None
        self.model.data.replace_with_anchors(self.interior)

    def _place_interior(self) -> np.ndarray:
        n, method = self.settings.n_interior, self.settings.sampler
        seed = stream(self.context.seed, self.draw, 0)
        if method == "adaptive" and self.draw:
            return sampling.adaptive(self.problem, self._sizes, n, seed, candidates=CANDIDATES * n)
        return sampling.interior(self.problem, n, seed, "sobol" if method == "adaptive" else method)

    def _sizes(self, points: np.ndarray) -> np.ndarray:
        """Residuals at candidates, (N, equations)."""
        values = residual_values(self.problem, _Trained(self.net), torch.as_tensor(points), **self.unknowns)
        return np.nan_to_num(values.numpy())

    def _place_conditions(self) -> list[PlacedCondition]:
        settings = self.settings
        method = "sobol" if settings.sampler == "adaptive" else settings.sampler
        seed = stream(self.context.seed, self.draw, 1)
        placed = place(self.problem, settings.n_boundary, settings.n_initial, seed, method)
        return [p for p in placed if not self._met(p.condition)]

    def _lbfgs_iterations(self) -> int:
        states = self.model.opt.state_dict()["state"]
        return int(states[0].get("n_iter", 0)) if states else 0

    def _record(self, before: int) -> None:
        """A row of the history, and a report, if a mark of the logarithmic step axis was passed."""
        if any(measured(k) for k in range(before + 1, self.step + 1)):
            self._record_now()

    def _record_now(self) -> None:
        losses = self.model.outputs_losses_train(*self.model.data.train_next_batch())[1].detach()
        losses_of = ["residual"] if self._n_equations == 1 else [f"residual_{i}" for i in range(self._n_equations)]
        names = [*losses_of, *(p.name for p in self.placed)]
        row = {"step": self.step, "cpu_s": self.context.clock.seconds, "loss": float(losses.sum())}
        row |= dict(zip(names, losses.tolist(), strict=True))
        if self.context.monitor:
            row["error"] = self.context.monitor(_Trained(self.net))
        self.history.add(row)
        self.context.report(Progress(self.step, self.context.budget.steps, {"loss": row["loss"]}))

    def _final_loss(self) -> float:
        """The loss of the last iterate, which also gets the last row of the history."""
        with self.context.clock.paused():
            columns = self.history.columns
            if not columns or columns["step"][-1] != self.step:
                self._record_now()
            return self.history.columns["loss"][-1]

    def _save(self) -> None:
        if self.context.checkpoints is not None:
            tensors, tree = flatten(self._state())
            self.context.checkpoints.save(self.step, tensors, {"state": tree})

    def _state(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "unknowns": {name: value.detach() for name, value in self.unknowns.items()},
            "optimizer": self.model.opt.state_dict(),
            "phase": self.phase,
            "step": self.step,
            "draw": self.draw,
            "interior": torch.as_tensor(self.interior),
            "spent": self.context.clock.spent,
            "budget": str(self.context.budget),
            "history": self.history.tensors(),
        }

    def _restore(self) -> dict[str, Any] | None:
        """Put back the last saved state, if any; returns that of the optimiser."""
        found = self.context.checkpoints.load() if self.context.checkpoints else None
        if found is None:
            return None
        with restoring(), torch.no_grad():
            saved = restore(found[1], found[2]["state"])
            if saved["budget"] != str(self.context.budget):
                raise CheckpointError(
                    f"the checkpoint is of a run with budget {saved['budget']!r}, not {str(self.context.budget)!r}: "
                    f"its phases end elsewhere; choose another output folder"
                )
            self.net.load_state_dict(saved["net"])
            for name, value in saved["unknowns"].items():
                self.unknowns[name].copy_(value)
            self.phase, self.step = saved["phase"], saved["step"]
            self.draw, self.interior = saved["draw"], saved["interior"].numpy()
            self._use_points()
            self.history = History({name: column.tolist() for name, column in saved["history"].items()})
            self.context.clock.resume(saved["spent"])
            return saved["optimizer"]

    def _equations(self, inputs: Tensor, outputs: Tensor) -> list[Tensor]:
        f = self.jet(inputs, outputs)
        return [r.expand(len(f))[:, None] for r in equations(self.problem.residual(f))]


class _Condition:
    """One of our conditions, with the two methods that DeepXDE asks of a boundary condition."""

    def __init__(self, run: _Run, placed: PlacedCondition):
        self._run, self.placed = run, placed

    def collocation_points(self, points: np.ndarray) -> np.ndarray:
        return self.placed.points

    def error(self, X: Any, inputs: Tensor, outputs: Tensor, beg: int, end: int, aux_var: Any = None) -> Tensor:
        return self.placed.residual(_Rows(self._run.jet(inputs, outputs), slice(beg, end)))[:, None]


class _Jet(AbstractJet):
    """Derivatives by DeepXDE's own lazily cached Jacobians and Hessians."""

    def __init__(self, inputs: Tensor, outputs: Tensor, run: _Run):
        problem = run.problem
        super().__init__(inputs, problem.axes)
        self.components = problem.components
        self.space_axes = problem.domain.axes
        self.unknowns = run.unknowns
        self.outputs = outputs
        self._grad = run.dde.grad

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        row = self.components.index(component)
        axes = [self.axes.index(a) for a in sorted(along, key=self.axes.index)]
        if not axes:
            return self.outputs[:, row]
        if len(axes) == 1:
            return self._grad.jacobian(self.outputs, self.points, i=row, j=axes[0])[:, 0]
        value = self._grad.hessian(self.outputs, self.points, component=row, i=axes[0], j=axes[1])
        for axis in axes[2:]:
            value = self._grad.jacobian(value, self.points, i=0, j=axis)
        return value[:, 0]


class _Rows(AbstractJet):
    """Some rows of a jet: DeepXDE evaluates all points at once."""

    def __init__(self, whole: _Jet, rows: slice):
        super().__init__(whole.points[rows], whole.axes)
        self.components, self.space_axes, self.unknowns = whole.components, whole.space_axes, whole.unknowns
        self._whole, self._rows = whole, rows

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        return self._whole.derivative(component, *along)[self._rows]


class _Trained(torch.nn.Module):
    """The trained network as a field."""

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        return self.net(x)


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """DeepXDE, imported quietly, set to float64, and every global that it touches put back."""
    # With this variable set it does not write a configuration file into the user's home folder.
    os.environ.setdefault("DDE_BACKEND", "pytorch")
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            import deepxde as dde

            dde.config.set_default_float("float64")
            yield dde
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)

"""The one training loop: phases, budget, balancing, guards, checkpoints and resumption for every trained solver."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdelab.balance import AbstractBalancing, Fixed
from pdelab.calculus import Field
from pdelab.checkpoint import flatten, random_state, restore, restoring, set_random_state
from pdelab.errors import CheckpointError, SettingsError
from pdelab.finite import FiniteGuard
from pdelab.history import History, measured, noted
from pdelab.interrupts import noted_interrupts, raise_interrupt
from pdelab.objective import AbstractLeastSquares, AbstractObjective, AbstractRowWise, Losses, Terms
from pdelab.optimise import STOP_REASONS, AbstractLoss, Evaluation, FlatParameters, check_memory
from pdelab.rows import Rows
from pdelab.schedule import Phase
from pdelab.solution import Status
from pdelab.solver import Budget, Context, Progress

REPORT_SECONDS = 0.2
# On an accelerator a step that does not look at the loss itself need not wait for it.
HOST, UNREAD_STEPS = "cpu", 50
FLAT_SHARE, FLAT_STEPS, FLAT_FALL = 0.5, 1000, 0.01


@dataclass(frozen=True)
class Report:
    """How a training ended.

    Attributes:
        status: BUDGET_SPENT as a rule; CONVERGED if the last phase stopped by itself; NONFINITE; STAGNATED if
            the unweighted loss never fell to a tenth and has not fallen by 1 % for at least 1000 steps and
            half of the run, or if no step lowers it.
        message: one line: what each phase did, and what to look at.
        stop: "budget", "gradient", "function", "line search", "nonfinite".
        steps: steps done.
        loss: weighted loss at the end.
    """

    status: Status
    message: str
    stop: str
    steps: int
    loss: float


class Trainer:
    """Trainings that follow one another and share budget, history and checkpoints.

    A solver calls `minimise` once per stage (a PINN on time slabs: once per slab). When the run is resumed
    it makes the same calls again: stages that were finished return at once with their parameters put back,
    the one that was interrupted goes on where it was, to the same bits.

    Args:
        context: seed, budget, checkpoints, monitor and clock of the run.
        default: the budget if the context has none.

    Raises:
        SettingsError: no budget at all.
        CheckpointError: the checkpoint that was found cannot be used, or is of a run with another budget.
    """

    def __init__(self, context: Context, default: Budget):
        self.context = context
        given = context.budget
        self.budget = given if given.steps or given.seconds else default
        if not (self.budget.steps or self.budget.seconds):
            raise SettingsError("budget: a training needs steps or seconds, e.g. '2000steps'")
        self.history = History()
        self.steps = 0
        self._finished: list[dict[str, Any]] = []
        self._found: dict[str, Any] | None = None
        if context.checkpoints and (found := context.checkpoints.load()):
            _, tensors, facts = found
            with restoring():
                self._found = restore(tensors, facts["state"])
                theirs = Budget(*self._found["budget"])
                context.clock.resume(self._found["spent"])
            if theirs != self.budget:
                # Rates and phases depend on the budget: going on with another one would be no run at all.
                raise CheckpointError(
                    f"the checkpoint in {context.checkpoints.folder} is of a run with budget "
                    f"{theirs}, not {self.budget}; use that one or another output folder"
                )

    def minimise(
        self,
        parameters: Iterable[Tensor],
        objective: AbstractObjective,
        phases: Sequence[Phase],
        *,
        balancing: AbstractBalancing | None = None,
        field: Field | None = None,
        share: float = 1.0,
        linear: Iterable[Tensor] = (),
    ) -> Report:
        """Lower the weighted sum of the objective's terms, in place.

        Only step budgets are reproducible to the bit, on the CPU with one thread.

        Args:
            parameters: leaf tensors of one dtype and device, changed in place.
            objective: the loss terms.
            phases: what to do one after another.
            balancing: weights of the terms; frozen in quasi-Newton phases, which need one unchanged loss.
            field: what the monitor of the context looks at.
            share: of the budget of the whole run, 0 to 1.
            linear: the parameters in which the residuals' field is linear; variable-projection needs them.

        Raises:
            SettingsError: no phase, parameters of several dtypes, or linear ones that are not among them.
            OutputError: a checkpoint cannot be written.
        """
        if not phases:
            raise SettingsError("phases: expected at least one")
        flat = FlatParameters(parameters, linear)
        number = len(self._finished)
        try:
            with restoring():
                if self._found and number < len(self._found["finished"]):
                    return self._recall(flat, self._found["finished"][number])
            stage = _Stage(flat, objective, phases, balancing or Fixed(), self, share)
            with restoring():
                if self._found and number == len(self._found["finished"]) and self._found["running"]:
                    stage.load_state_dict(self._found["running"])
                    self._take_over(self._found)
            report = stage.run(field)
            self._finished.append(
                {
                    "parameters": flat.vector.detach().clone(),
                    "random": random_state(self.context.device),
                    "report": {**vars(report), "status": report.status.name},
                    "history": self.history.tensors(),
                    "steps": self.steps,
                }
            )
            self.save(None)
            return report
        finally:
            flat.release()

    def save(self, running: dict[str, Any] | None) -> None:
        """Write a checkpoint, if there is a store; the clock stands still."""
        store = self.context.checkpoints
        if store is None:
            return
        with self.context.clock.paused():
            state = {
                "budget": [self.budget.steps, self.budget.seconds],
                "finished": self._finished,
                "running": running,
                "history": self.history.tensors(),
                "steps": self.steps,
                "random": random_state(self.context.device),
                "spent": self.context.clock.spent,
            }
            tensors, tree = flatten(state)
            store.save(self.steps, tensors, {"state": tree})

    def _recall(self, flat: FlatParameters, finished: dict[str, Any]) -> Report:
        flat.set(finished["parameters"].to(self.context.device))
        self._take_over(finished)
        self._finished.append(finished)
        facts = finished["report"]
        return Report(**{**facts, "status": Status[facts["status"]]})

    def _take_over(self, state: dict[str, Any]) -> None:
        self.history = History({name: column.tolist() for name, column in state["history"].items()})
        self.steps = state["steps"]
        set_random_state(state["random"], self.context.device)


class _Stage:
    """One call of `Trainer.minimise`."""

    def __init__(
        self,
        flat: FlatParameters,
        objective: AbstractObjective,
        phases: Sequence[Phase],
        balancing: AbstractBalancing,
        trainer: Trainer,
        share: float,
    ):
        self._flat, self._objective, self._phases, self._balancing = flat, objective, phases, balancing
        self._trainer, self._clock = trainer, trainer.context.clock
        budget = trainer.budget
        self._max_steps = max(1, round(share * budget.steps)) if budget.steps else None
        self._max_seconds = share * budget.seconds if budget.seconds else None
        total = sum(p.share for p in phases)
        self._ends = [sum(p.share for p in phases[: i + 1]) / total for i in range(len(phases))]
        self._step = 0
        self._phase, self._entered = 0, 0.0
        self._notes: list[str] = []
        self._phase_step = 0
        self._best, self._best_step, self._first = math.inf, 0, math.inf
        self._optimizer = phases[0].start(flat)
        self._memo: list[Evaluation] = []
        self._values: list[Evaluation] = []
        self._stop = ""
        self._loss, self._sized = _Loss(self), False
        self._guard = FiniteGuard(flat.vector.detach().clone())
        # Last: torch imports a second's worth of modules when the first optimiser is made.
        self._began = self._clock.seconds

    def run(self, field: Field | None) -> Report:
        """The loop."""
        saved, reported = time.monotonic(), -math.inf
        store = self._trainer.context.checkpoints
        with noted_interrupts(store is not None) as interrupt:
            while True:
                self._refresh()
                now = self._now()
                last = self._advance()
                self._guard.add(now)
                if last or self._is_read():
                    if not self._guard.finite:
                        return self._nonfinite()
                    self._watch(now)
                    if last or noted(self._step):
                        self._record(now, field, last)
                        if last or time.monotonic() - reported > REPORT_SECONDS:
                            self._report(now)
                            reported = time.monotonic()
                if last:
                    return self._ended(now)
                phase = self._phases[self._phase]
                self._stop = self._optimizer.step(self._loss, phase.rate(self._phase_progress()))
                self._step += 1
                self._trainer.steps += 1
                if interrupt() or (store and time.monotonic() - saved >= store.every):
                    self._trainer.save(self.state_dict())
                    saved = time.monotonic()
                    raise_interrupt(interrupt())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "parameters": self._flat.vector.detach().clone(),
            "optimizer": self._optimizer.state_dict(),
            "balancing": self._balancing.state_dict(),
            "objective": self._objective.state_dict(),
            "step": self._step,
            "phase": [self._phase, self._entered, self._phase_step, self._stop, list(self._notes)],
            "good": self._guard.good,
            "watch": [self._best, self._best_step, self._first],
            "seconds": self._clock.seconds - self._began,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._flat.set(state["parameters"].to(self._flat.vector.device))
        self._phase, self._entered, self._phase_step, self._stop, notes = state["phase"]
        self._notes = list(notes)
        self._guard = FiniteGuard(state["good"].to(self._flat.vector.device))
        self._optimizer = self._phases[self._phase].start(self._flat)
        self._optimizer.load_state_dict(state["optimizer"])
        self._balancing.load_state_dict(state["balancing"])
        self._objective.load_state_dict(state["objective"])
        self._step = state["step"]
        self._best, self._best_step, self._first = state["watch"]
        self._began = self._clock.seconds - state["seconds"]

    def _refresh(self) -> None:
        quasi_newton = self._optimizer.quasi_newton
        changed = self._objective.refresh(self._step, quasi_newton)
        if changed:
            self._optimizer.restart()
        if not quasi_newton:
            changed |= self._balancing.update(self._objective, self._flat, self._step)
        if changed or not self._optimizer.reads:
            self._memo, self._values = [], []
        else:
            self._memo, self._values = (
                [e for e in known if torch.equal(e.at, self._flat.vector)] for known in (self._memo, self._values)
            )

    def _now(self) -> Evaluation:
        """The loss before a step, with the gradient if the step will ask for it."""
        if self._optimizer.by_rows:
            return self.look()
        self._memo = [self.evaluate()]
        return self._memo[0]

    def _is_read(self) -> bool:
        """Whether the loss of this step may leave the device."""
        unhurried = self._optimizer.reads or self._flat.vector.device.type == HOST
        return unhurried or measured(self._step) or self._step % UNREAD_STEPS == 0

    def evaluate(self) -> Evaluation:
        """The loss at the present parameters; the line search asks twice for the same point."""
        if known := self._known(self._memo):
            return known
        terms = self._objective.terms()
        total = self._weighted(terms)
        gradient = self._flat.gradient(total)
        values = torch.stack([total, *terms.values()]).detach()
        values, gradient = self._objective.summed(values, gradient)
        self._memo.append(Evaluation(self._flat.vector.detach().clone(), list(terms), values, gradient))
        return self._memo[-1]

    def look(self) -> Evaluation:
        """The loss at the present parameters without its gradient; the step to a point has asked for it already."""
        if known := self._known(self._values):
            return known
        with torch.no_grad():
            terms = self._objective.terms()
            values = torch.stack([self._weighted(terms), *terms.values()])
        at = self._flat.vector.detach().clone()
        self._values.append(Evaluation(at, list(terms), values, at.new_zeros(0)))
        return self._values[-1]

    def _known(self, evaluations: Sequence[Evaluation]) -> Evaluation | None:
        if not self._optimizer.reads:
            # Nothing has moved since the one there is.
            return evaluations[-1] if evaluations else None
        here = (e for e in reversed(evaluations) if torch.equal(e.at, self._flat.vector))
        return next(here, None)

    def rows(self) -> tuple[Tensor, Tensor]:
        """A vector r whose square is the weighted loss, and its Jacobian, in one piece of memory."""
        n, P = sum(self._lengths().values()), self._flat.vector.numel()
        if not self._sized:
            need = 3.0 * n * P * self._flat.vector.element_size()  # the rows, and two more for QR
            way_out = "use fewer points, or optimizer=ssbroyden or lbfgs"
            check_memory(f"the Jacobian of {n} rows and {P} parameters", need, way_out)
            self._sized = True
        J = self._flat.vector.detach().new_empty(n, P)
        return torch.cat([r for r, _ in self._row_blocks(n, J)]), J

    def residual(self) -> Tensor:
        """The vector of `rows` alone."""
        scales, objective = self._scales(), self._objective
        with torch.no_grad():
            if isinstance(objective, AbstractRowWise):
                return objective.stacked(scales)
            assert isinstance(objective, AbstractLeastSquares)
            return torch.cat([scales[name] * r for name, r in objective.residuals().items()])

    def row_blocks(self, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same as `rows` in one block, or in smaller ones."""
        if sum(self._lengths().values()) <= most:
            yield self.rows()
        else:
            yield from self._row_blocks(most, None)

    def _row_blocks(self, most: int, out: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """See `AbstractRowWise.row_blocks`."""
        scales, objective, parts = self._scales(), self._objective, self._flat.parts
        if isinstance(objective, AbstractRowWise):
            yield from objective.row_blocks(parts, scales, most, out)
        elif isinstance(objective, AbstractLeastSquares):
            rows = Rows(parts, most, out, {})
            for name, r in objective.residuals().items():
                yield from rows.one_by_one(r, scales[name])

    def _scales(self) -> dict[str, float]:
        """What makes the square of each residual vector its weighted mean square."""
        return {name: math.sqrt(self._weight(name) / n) for name, n in self._lengths().items()}

    def _lengths(self) -> dict[str, int]:
        """Rows of each residual vector."""
        if isinstance(self._objective, AbstractRowWise):
            return self._objective.lengths()
        if isinstance(self._objective, AbstractLeastSquares):
            with torch.no_grad():
                return {name: len(r) for name, r in self._objective.residuals().items()}
        raise SettingsError("gauss-newton needs residual vectors; use optimizer=lbfgs or adam here")

    def _weight(self, name: str) -> float:
        return self._balancing.weights.get(name, 1.0)

    def _weighted(self, terms: Terms) -> Tensor:
        return torch.stack([self._weight(name) * term for name, term in terms.items()]).sum()

    def _progress(self) -> float:
        """Share of the stage's budget that is spent."""
        parts = [self._step / self._max_steps] if self._max_steps else []
        if self._max_seconds:
            parts.append((self._clock.seconds - self._began) / self._max_seconds)
        return max(parts)

    def _phase_progress(self) -> float:
        length = self._ends[self._phase] - self._entered
        return min(1.0, (self._progress() - self._entered) / length) if length > 0 else 1.0

    def _advance(self) -> bool:
        """Enter the next phase if it is time; True at the end of the last one."""
        progress = self._progress()
        if not self._stop and progress < self._ends[self._phase] - 1e-12:
            return False
        done = self._step - self._phase_step
        reason = f": {STOP_REASONS[self._stop]}" if self._stop else ""
        self._notes.append(f"{self._phases[self._phase].optimizer} {done} steps{reason}")
        if progress >= 1.0 - 1e-12 or self._phase + 1 == len(self._phases):
            return True
        self._phase += 1
        self._entered, self._phase_step, self._stop = progress, self._step, ""
        self._optimizer = self._phases[self._phase].start(self._flat)
        return False

    def _watch(self, now: Evaluation) -> None:
        """Remember when the unweighted loss last fell by more than 1 %; balancing would blur the weighted one."""
        loss = sum(now.terms.values())
        if self._step == 0:
            self._first = loss
        if loss < (1.0 - FLAT_FALL) * self._best:
            self._best, self._best_step = loss, self._step

    def _record(self, now: Evaluation, field: Field | None, last: bool) -> None:
        row = {"step": self._trainer.steps, "cpu_s": self._clock.seconds, "loss": now.loss, **now.terms}
        monitor = self._trainer.context.monitor
        if last or measured(self._step):
            with self._clock.paused():
                row["error"] = monitor(field) if monitor and field else math.nan
                summed = self._objective.summed
                norms = (
                    (n, summed(self._flat.gradient(t, keep_graph=True))[0].norm())
                    for n, t in self._objective.terms().items()
                )
                row |= {f"grad_{name}": float(norm) for name, norm in norms}
        self._trainer.history.add(row)

    def _report(self, now: Evaluation) -> None:
        progress = Progress(self._trainer.steps, self._trainer.budget.steps, {"loss": now.loss, **now.terms})
        self._trainer.context.report(progress)

    def _ended(self, now: Evaluation) -> Report:
        status, message = Status.BUDGET_SPENT, ", ".join(self._notes)
        flat = self._step - self._best_step
        if self._stop:
            # No lower loss far below the first one is convergence to working precision, else the start was stuck.
            stuck = self._stop == "line search" and self._best > 0.1 * self._first
            status = Status.STAGNATED if stuck else Status.CONVERGED
        elif flat >= max(FLAT_STEPS, FLAT_SHARE * self._step):
            message += f"; the loss has not fallen by {FLAT_FALL:.0%} since step {self._best_step}"
            if self._best > 0.1 * self._first:
                status = Status.STAGNATED
        return Report(status, message, self._stop or "budget", self._step, now.loss)

    def _nonfinite(self) -> Report:
        worst, step = self._guard.found, self._step - self._guard.since
        bad = [name for name, value in worst.terms.items() if not math.isfinite(value)]
        kind = "loss term"
        if not bad:
            self._flat.set(worst.at)
            kind, terms = "gradient of the loss term", self._objective.terms()
            sizes = {name: self._flat.gradient(t, keep_graph=True).sum() for name, t in terms.items()}
            bad = [name for name, size in sizes.items() if not torch.isfinite(size)]
        self._flat.set(self._guard.good)
        culprits = " and ".join(bad) or "weighted sum"
        message = (
            f"{kind} {culprits} became nan or inf after step {step}; the parameters of the last finite "
            f"step are kept; lower the learning rate or use float64"
        )
        return Report(Status.NONFINITE, message, "nonfinite", step, math.nan)


class _Loss(AbstractLoss):
    """The loss of a stage, as its optimiser sees it."""

    def __init__(self, stage: _Stage):
        self._stage = stage

    def __call__(self) -> Evaluation:
        """See `AbstractLoss.__call__`."""
        return self._stage.evaluate()

    def value(self) -> float:
        """See `AbstractLoss.value`."""
        return self._stage.look().loss

    def rows(self) -> tuple[Tensor, Tensor]:
        """See `AbstractLoss.rows`."""
        return self._stage.rows()

    def residual(self) -> Tensor:
        """See `AbstractLoss.residual`."""
        return self._stage.residual()

    def row_blocks(self, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `AbstractLoss.row_blocks`."""
        return self._stage.row_blocks(most)


def minimise(
    parameters: Iterable[Tensor],
    losses: AbstractObjective | Callable[[int], Terms],
    phases: Sequence[Phase],
    *,
    context: Context,
    default: Budget | None = None,
    balancing: AbstractBalancing | None = None,
    field: Field | None = None,
    linear: Iterable[Tensor] = (),
) -> tuple[Report, dict[str, list[float]]]:
    """A training of one stage: lower the weighted sum of named loss terms, in place.

    Args:
        parameters: leaf tensors of one dtype and device, changed in place.
        losses: an objective, or a function step -> {name: scalar}.
        phases: optimisers one after another.
        context: budget, checkpoints, monitor, clock.
        default: budget if the context has none; 2000 steps.
        balancing: weights of the terms; all 1 by default.
        field: what the monitor looks at.
        linear: the parameters in which the residuals' field is linear; variable-projection needs them.

    Returns:
        The report and the history, columns of equal length.
    """
    objective = losses if isinstance(losses, AbstractObjective) else Losses(losses)
    trainer = Trainer(context, default or Budget(steps=2000))
    report = trainer.minimise(parameters, objective, phases, balancing=balancing, field=field, linear=linear)
    return report, trainer.history.columns

"""The solver contract and the driver that does what every solver needs: checks, seeds, timing, failure policy."""

from __future__ import annotations

import abc
import contextlib
import datetime
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch

from pdelab.calculus import Field
from pdelab.errors import IncompatibleProblem, SettingsError, SolveFailed
from pdelab.pde import AbstractFamily, AbstractProblem
from pdelab.solution import Solution, Status
from pdelab.team import ALONE, Team

if TYPE_CHECKING:
    from pdelab.checkpoint import CheckpointStore

State = TypeVar("State")


@dataclass(frozen=True)
class Budget:
    """How long a trained solver may run; whichever limit comes first. None means the solver's own default.

    `seconds` counts CPU seconds per thread (wall seconds on a GPU), so that a busy machine does not
    change what a budget buys. Only step budgets are reproducible to the bit.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | Budget | None) -> Budget:
        """'2000steps' or '120s' or both with a comma; an object is passed through."""
        if text is None or isinstance(text, Budget):
            return text or cls()
        found: dict[str, float] = {}
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(steps?|s)\s*", part)
            if not match or (match[2] != "s" and "." in match[1]) or float(match[1]) <= 0:
                raise SettingsError(f"budget: expected such as '2000steps' or '120s', got {text!r}")
            unit = "seconds" if match[2] == "s" else "steps"
            if unit in found:
                raise SettingsError(f"budget: {unit} are given twice in {text!r}; give them once")
            found[unit] = float(match[1])
        steps = found.get("steps")
        return cls(int(steps) if steps else None, found.get("seconds"))

    def __str__(self) -> str:
        """The form that `parse` reads."""
        given = ((self.steps, "steps"), (self.seconds, "s"))
        return ",".join(f"{limit:.12g}{unit}" for limit, unit in given if limit)


@dataclass(frozen=True)
class Progress:
    """One report of a long run: where it is, of how many (None: open), and what to show beside it."""

    step: int
    total: int | None
    values: dict[str, float]


@dataclass(frozen=True)
class Context:
    """What the driver lends to one run.

    Attributes:
        seed: draw every random number from this; the global torch stream is already seeded with it.
        budget: limits for trained solvers.
        device: where tensors belong.
        checkpoints: where to save and look for a saved state, or None.
        report: call it now and then with a `Progress`.
        monitor: (field) -> relative error against the reference, or None; the clock stands still in it.
        clock: compute seconds spent so far, monitor and checkpoint time left out.
        team: the processes that share the work.
    """

    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoints: CheckpointStore | None = None
    report: Callable[[Progress], None] = lambda progress: None
    monitor: Callable[[Field], float] | None = None
    clock: Clock = field(default_factory=lambda: Clock())
    team: Team = ALONE


class Clock:
    """Compute seconds that can be paused: CPU seconds per thread, or wall seconds on a GPU.

    It also keeps what the whole run has cost, pauses included, in this process and, once `resume` was told,
    in those before it.
    """

    def __init__(self, device: str = "cpu", already: float = 0.0):
        self._wall = device != "cpu"
        self._cpu_from, self._wall_from = time.process_time(), time.perf_counter()
        self._spent = already
        self._since: float | None = self._now()

    def _now(self) -> float:
        if self._wall:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time() / torch.get_num_threads()

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return self._spent + (0.0 if self._since is None else self._now() - self._since)

    @property
    def spent(self) -> dict[str, float]:
        """seconds, cpu and wall of the run so far: what a checkpoint keeps for `resume`."""
        cpu, wall = time.process_time() - self._cpu_from, time.perf_counter() - self._wall_from
        return {"seconds": self.seconds, "cpu": cpu, "wall": wall}

    def resume(self, spent: Mapping[str, float]) -> None:
        """Count what earlier, interrupted parts of the run have spent."""
        self._spent += spent["seconds"]
        self._cpu_from -= spent["cpu"]
        self._wall_from -= spent["wall"]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside; a pause within a pause changes nothing."""
        if self._since is None:
            yield
            return
        self._spent, self._since = self.seconds, None
        try:
            yield
        finally:
            self._since = self._now()


class AbstractSolver(abc.ABC, Generic[State]):
    """Turns a problem into a `Solution`; whatever is learned beforehand is the state.

    Concrete solvers are frozen dataclasses; their fields are the settings.
    """

    name: ClassVar[str]
    accepts: ClassVar[type | tuple[type, ...]] = AbstractProblem
    """The widest problem class, or classes, that `run` can work with."""
    trained: ClassVar[bool] = False
    """Whether the budget matters: True for solvers that iterate until it is spent."""
    weak_form: ClassVar[bool] = False
    """Whether it solves the weak form, so that it needs no more than that holds; see `AbstractProblem.weak`."""

    def refuses(self, problem: AbstractProblem) -> str:
        """Why this problem of an accepted class cannot be solved ('' if it can): dimension, domain, conditions."""
        return ""

    @abc.abstractmethod
    def prepare(self, family: AbstractFamily, *, context: Context) -> State:
        """Do the work that no single problem needs: train an operator, learn a policy."""

    @abc.abstractmethod
    def run(self, problem: Any, state: State, *, context: Context) -> Solution:
        """Solve one problem. Must not change `self`, `problem` or `state`."""


class AbstractOperatorSolver(AbstractSolver[State]):
    """A solver that is trained on a family once and then solves its members; its state is a `torch.nn.Module`."""

    trained: ClassVar[bool] = True

    @abc.abstractmethod
    def blank(self, family: AbstractFamily) -> State:
        """The state before training, to be filled from a file."""


class AbstractInstanceSolver(AbstractSolver[None]):
    """A solver with nothing to learn beforehand."""

    def prepare(self, family: AbstractFamily, *, context: Context) -> None:
        """Nothing to do."""


@torch.enable_grad()
def solve(
    problem: AbstractProblem,
    solver: AbstractSolver[Any],
    *,
    state: Any = None,
    budget: Budget | str | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    throw: bool = True,
    checkpoints: CheckpointStore | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    monitor: bool = False,
) -> Solution:
    """Solve one problem: check that the solver fits, seed, run, time, and judge the result.

    Args:
        problem: what to solve.
        solver: with which settings.
        state: what `solver.prepare` returned, for operator solvers.
        budget: for trained solvers, e.g. "2000steps" or "120s"; the solver's default if None.
        seed: same seed, one thread, CPU: the same bits.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        threads: torch threads; None leaves them as they are.
        throw: raise `SolveFailed` on a bad status; benchmarks pass False and record it.
        checkpoints: where to save the state of a long run, and to resume from if there is one.
        report: called with the progress of a long run.
        monitor: record the error against the reference at times spaced evenly in log scale.

    Raises:
        IncompatibleProblem: the solver cannot work on this problem.
        SolveFailed: it ran and did not succeed (with throw).
    """
    check_admitted(problem, solver)
    where = find_device(device)
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    error_of = None
    if monitor and problem.reference() is not None:
        from pdelab.metrics import Monitor

        error_of = Monitor(problem)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with _seeded(seed):
            clock = Clock(where.type)
            context = Context(seed, Budget.parse(budget), where, checkpoints, report, error_of, clock)
            solution = solver.run(problem, state, context=context)
            stats = {
                **solution.stats,
                "wall_s": clock.spent["wall"],
                "cpu_s": clock.spent["cpu"],
                "peak_memory_mb": _peak_memory_mb(where),
            }
        solution = solution.replaced(
            stats=stats, solver=solver, seed=seed, device=str(where), threads=torch.get_num_threads(), started=started
        )
    finally:
        torch.set_num_threads(before)
    solution = _judged(solution)
    if throw and not solution.status.ok:
        raise SolveFailed(solution)
    return solution


@torch.enable_grad()
def prepare(
    family: AbstractFamily,
    solver: AbstractSolver[State],
    *,
    budget: Budget | str | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    checkpoints: CheckpointStore | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    team: Team = ALONE,
) -> State:
    """What a solver learns from a family, for `solve(..., state=...)`: seed and run `solver.prepare`.

    Args:
        family: whose members are to be solved.
        solver: with which settings.
        budget: of the training; the solver's default if None.
        seed: same seed, one thread, CPU: the same bits.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        threads: torch threads; None leaves them as they are.
        checkpoints: where to save the state of the training, and to resume from if there is one.
        report: called with the progress.
        team: processes that share the work.

    Raises:
        IncompatibleProblem: the solver cannot work on the members.
    """
    check_admitted(family.sample(0), solver)
    with training_context(budget, seed, device, threads, checkpoints, report, team) as context:
        return solver.prepare(family, context=context)


@contextlib.contextmanager
def training_context(
    budget: Budget | str | None,
    seed: int,
    device: str,
    threads: int | None,
    checkpoints: CheckpointStore | None,
    report: Callable[[Progress], None],
    team: Team = ALONE,
) -> Iterator[Context]:
    """What a training is lent, see `prepare`; threads and the global random stream are put back afterwards."""
    where, before = find_device(device), torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        with _seeded(seed):
            yield Context(seed, Budget.parse(budget), where, checkpoints, report, None, Clock(where.type), team)
    finally:
        torch.set_num_threads(before)


def check_admitted(problem: AbstractProblem, solver: AbstractSolver[Any]) -> None:
    """Raise `IncompatibleProblem` unless the solver can work on the problem."""
    if not isinstance(problem, solver.accepts):
        accepted = solver.accepts if isinstance(solver.accepts, tuple) else (solver.accepts,)
        raise IncompatibleProblem(
            f"solver {solver.name!r} needs an {' or '.join(c.__name__ for c in accepted)}; {problem.name!r} is none; "
            f"'pdelab show {problem.name}' lists the solvers that accept it"
        )
    if problem.weak and not solver.weak_form:
        raise IncompatibleProblem(
            f"solver {solver.name!r} cannot solve {problem.name!r}: it uses the equations at points, which lack "
            f"{problem.weak}; use a solver of the weak form such as fem"
        )
    reason = solver.refuses(problem)
    if reason:
        raise IncompatibleProblem(f"solver {solver.name!r} cannot solve {problem.name!r}: {reason}")


def find_device(name: str) -> torch.device:
    """'auto' -> a GPU if there is one; 'cuda' without one is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise SettingsError(f"device: expected auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: no CUDA device was found; use auto or cpu")
    return torch.device(name)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A forked global stream for layers that draw from it; our own draws are functions of the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _judged(solution: Solution) -> Solution:
    """No silent failure: a field with nan or inf on a sample of the domain is never a result."""
    if not solution.status.ok:
        return solution
    from pdelab.sampling import interior

    values = solution.at(interior(solution.problem, 256, seed=0))
    if np.isfinite(values).all():
        return solution
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    return solution.replaced(
        status=Status.NONFINITE, message=f"the field is not finite at {bad} of {len(values)} points"
    )


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

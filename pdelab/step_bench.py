"""What a training step of an operator solver costs: two settings on the same points, in turns, in one process."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pdelab import registry
from pdelab.bench_job import AbstractBenchJob
from pdelab.bench_run import Run, key_of
from pdelab.config import build
from pdelab.errors import PdelabError, SettingsError
from pdelab.results import plain, settings

SEED = 48109


@dataclass(frozen=True)
class StepJob(AbstractBenchJob):
    """A family and a solver with two settings."""

    problem: str
    solver: str
    solver_args: Mapping[str, Any]
    other_args: Mapping[str, Any]
    repeats: int
    device: str = "cpu"
    seed: int = SEED
    problem_args: Mapping[str, Any] = field(default_factory=dict)
    budget: None = None
    mesh: None = None
    threads: int = 1

    kinds: ClassVar[tuple[str, str]] = ("families", "solvers")

    def measure(self) -> dict[str, Any]:
        """Time the steps of both in turns."""
        import torch

        from pdelab.solver import find_device

        where, before = find_device(self.device), time.process_time()
        family = build(registry.load("families", self.problem), self.problem_args)
        solvers = [build(registry.load("solvers", self.solver), a) for a in (self.solver_args, self.other_args)]
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            steps = [solver.steps(family, where, self.seed) for solver in solvers]
        metrics: dict[str, float] = {}
        for part in steps[0]:
            seconds: list[list[float]] = [[], []]
            for number in range(self.repeats + 1):
                for which, functions in enumerate(steps):
                    begin = _now(where.type)
                    functions[part](number)
                    if number:  # the first one warms up
                        seconds[which].append(_now(where.type) - begin)
            first, other = (statistics.median(s) for s in seconds)
            metrics |= {f"{part}_s": first, f"other_{part}_s": other, f"{part}_share": first / other}
        return {
            "solver_args": plain(settings(solvers[0])),
            "status": "CONVERGED",
            "message": "",
            "metrics": metrics,
            "cost": {"cpu_s": time.process_time() - before, "steps": self.repeats},
        }


@dataclass(frozen=True)
class StepCase:
    """Two settings of a solver whose training steps are timed.

    Attributes:
        family, solver: names.
        solver_args, other_args: both settings.
        limits: step_share, layer_share: largest ratio of the first's seconds to those of the other.
        label: of the case.
        repeats: steps of each.
    """

    family: str
    solver: str
    solver_args: Mapping[str, Any]
    other_args: Mapping[str, Any]
    limits: Mapping[str, float] = field(default_factory=dict)
    label: str = ""
    repeats: int = 5

    @property
    def problem(self) -> str:
        """The family."""
        return self.family

    @property
    def name(self) -> str:
        """family/solver, with the label."""
        return f"{self.family}/{self.solver}" + (f"-{self.label}" if self.label else "")

    def checked(self) -> StepCase:
        """With the version of the family; names and settings are right.

        Raises:
            SettingsError: they are not.
        """
        try:
            for arguments in (self.solver_args, self.other_args):
                if not callable(getattr(build(registry.load("solvers", self.solver), arguments), "steps", None)):
                    raise SettingsError(f"solver {self.solver!r} has no method 'steps' that can be timed")
        except PdelabError as error:
            raise SettingsError(str(error)) from None
        return dataclasses.replace(self, family=registry.find("families", self.family))

    def runs(self, seeds: int | None, device: str) -> Iterator[Run]:
        """One."""
        job = StepJob(self.family, self.solver, self.solver_args, self.other_args, self.repeats, device)
        yield Run(self.name, job, key_of(job, self.label), trained=False, pictures=False)


def _now(device: str) -> float:
    """CPU seconds, or wall seconds on a GPU."""
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()

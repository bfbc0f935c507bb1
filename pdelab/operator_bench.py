"""Benchmarks of solvers on families: trained once, then every test member; classical solvers stand in the same rows."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pdelab import registry
from pdelab.bench_job import AbstractBenchJob
from pdelab.bench_run import Run, key_of
from pdelab.config import build
from pdelab.errors import PdelabError, SettingsError
from pdelab.pde import AbstractProblem
from pdelab.results import plain, settings
from pdelab.solution import Solution

SEEDS = (48109, 5521, 77213)


@dataclass(frozen=True)
class OperatorJob(AbstractBenchJob):
    """A family and a solver by name; what a `Job` is for one problem."""

    problem: str
    solver: str
    problem_args: Mapping[str, Any]
    solver_args: Mapping[str, Any]
    members: int
    grid: tuple[int, ...]
    after: float | None
    budget: str | None
    seed: int
    device: str = "cpu"
    mesh: None = None
    threads: int = 1

    kinds: ClassVar[tuple[str, str]] = ("families", "solvers")

    def measure(self) -> dict[str, Any]:
        """Train, solve for all members, and score them, whatever the outcome."""
        from pdelab.solver import AbstractOperatorSolver, prepare, solve

        solver = build(registry.load("solvers", self.solver), self.solver_args)
        family = build(registry.load("families", self.problem), self.problem_args)
        state, report, before = None, None, time.process_time()
        if isinstance(solver, AbstractOperatorSolver):
            state = prepare(family, solver, budget=self.budget, seed=self.seed, device=self.device)
            report = state.report
        train_s = time.process_time() - before
        solutions = [
            solve(
                family.sample(member),
                solver,
                state=state,
                budget=None if state is not None else self.budget,
                seed=self.seed,
                device=self.device,
                throw=False,
            )
            for member in range(self.members)
        ]
        cpu_s = time.process_time() - before  # references and scores are not the solver's
        errors, late, floors = zip(*(self._errors(s) for s in solutions), strict=True)
        metrics = _spread("rel_l2", errors)
        if self.after is not None:
            metrics |= _spread("rel_l2_after", late)
        bad = [s for s in solutions if not s.status.ok]
        metrics["failures"] = float(len(bad))
        validity = {key: statistics.mean(s.validity[key] for s in solutions) for key in solutions[0].validity}
        cost = {
            "cpu_s": cpu_s,
            "train_s": train_s,
            "solve_s": statistics.median(s.stats["cpu_s"] for s in solutions),
            "steps": report.steps if report is not None else solutions[0].stats.get("steps"),
            "n_parameters": solutions[0].stats.get("n_parameters"),
            "dofs": solutions[0].stats.get("dofs"),
        }
        status, message = ("CONVERGED", "") if report is None else (report.status.name, report.message)
        if bad:
            status = bad[0].status.name
            message = f"{len(bad)} of {len(solutions)} members: {bad[0].message or bad[0].status.value}"
        return {
            "problem_args": plain(settings(family)),
            "solver_args": plain(settings(solver)),
            "status": status,
            "message": message,
            "metrics": metrics,
            "cost": cost,
            "reference": {"kind": "computed", "floor": max(floors)},
            "quantities": {"members": self.members},
            "validity": validity,
        }

    def _errors(self, solution: Solution) -> tuple[float, float, float]:
        """Relative L2 error of the first component on the grid, the same at late times, and the reference's floor."""
        from pdelab.reference import resolve

        reference = resolve(solution.problem)
        assert reference is not None
        points = regular_points(solution.problem, self.grid)
        import torch

        with torch.no_grad():
            truth = reference.field(torch.as_tensor(points))[:, 0].numpy()
        miss = solution.at(points)[:, 0] - truth

        def ratio(kept: np.ndarray) -> float:
            return float(np.linalg.norm(miss[kept]) / np.linalg.norm(truth[kept]))

        late = points[:, -1] > (-np.inf if self.after is None else self.after)
        return ratio(np.ones_like(late)), ratio(late), reference.floor


@dataclass(frozen=True)
class OperatorCase:
    """A family and a solver of a suite, as plain data.

    Attributes:
        family, solver, family_args, solver_args: names and settings.
        grid: points at which members are scored, along each axis: centres of cells in space, both ends in time.
        budget: of the training, for trained solvers.
        members: test members, 0 to members - 1; training uses others.
        after: errors at later times are scored too, as rel_l2_after.
        limits: quantity -> largest value that `--check` lets pass: rel_l2 (the mean over the members), rel_l2_median,
            rel_l2_max, rel_l2_after, cost and validity; compared with the median over the seeds.
        label: tells two cases of the same family and solver apart.
        seeds: one run for each; of those a trained solver takes the first of `--seeds`.
    """

    family: str
    solver: str
    grid: tuple[int, ...]
    family_args: Mapping[str, Any] = field(default_factory=dict)
    solver_args: Mapping[str, Any] = field(default_factory=dict)
    budget: str | None = None
    members: int = 20
    after: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    label: str = ""
    seeds: tuple[int, ...] = SEEDS[:1]

    @property
    def problem(self) -> str:
        """The family."""
        return self.family

    @property
    def name(self) -> str:
        """family/solver, with the label."""
        return f"{self.family}/{self.solver}" + (f"-{self.label}" if self.label else "")

    def checked(self) -> OperatorCase:
        """With the version of the family; names and settings are right, and the solver takes the family.

        Raises:
            SettingsError: they are not.
        """
        from pdelab.solver import check_admitted

        try:
            solver = build(registry.load("solvers", self.solver), self.solver_args)
            member = build(registry.load("families", self.family), self.family_args).sample(0)
            check_admitted(member, solver)
        except PdelabError as error:
            raise SettingsError(str(error)) from None
        if len(self.grid) != len(member.axes):
            raise SettingsError(f"grid: expected a number for each of {', '.join(member.axes)}, got {self.grid}")
        return dataclasses.replace(self, family=registry.find("families", self.family))

    def runs(self, seeds: int | None, device: str) -> Iterator[Run]:
        """One for each seed."""
        trained = registry.load("solvers", self.solver).trained
        for seed in SEEDS[:seeds] if seeds is not None and trained else self.seeds:
            job = OperatorJob(
                self.family,
                self.solver,
                self.family_args,
                self.solver_args,
                self.members,
                self.grid,
                self.after,
                self.budget,
                seed,
                device,
            )
            yield Run(self.name, job, key_of(job, self.label), trained, pictures=False)


def regular_points(problem: AbstractProblem, grid: tuple[int, ...]) -> np.ndarray:
    """Centres of cells in the bounds of the domain, at times that include both ends; those inside, (n, d)."""
    lower, upper = problem.domain.bounds
    columns = [a + (b - a) * (np.arange(n) + 0.5) / n for a, b, n in zip(lower, upper, grid, strict=False)]
    if problem.time is not None:
        columns.append(np.linspace(*problem.time, grid[-1]))
    points = np.stack(np.meshgrid(*columns, indexing="ij"), axis=-1).reshape(-1, len(columns))
    return points[problem.domain.inside(points[:, : problem.domain.dimension])]


def _spread(name: str, values: tuple[float, ...]) -> dict[str, float]:
    """Mean, median, largest and standard deviation."""
    return {
        name: statistics.mean(values),
        f"{name}_median": statistics.median(values),
        f"{name}_max": max(values),
        f"{name}_std": statistics.pstdev(values),
    }

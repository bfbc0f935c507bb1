"""Benchmarks of linear solvers: a system, a solver by name, all right-hand sides with one set-up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pdelab.bench_job import AbstractBenchJob
from pdelab.bench_run import Run, key_of
from pdelab.errors import PdelabError, SettingsError
from pdelab.linear import LinearResult, linear_solve_batch, named_solver
from pdelab.systems import GridPoisson

SYSTEMS = {GridPoisson.name: GridPoisson}


@dataclass(frozen=True)
class LinearJob(AbstractBenchJob):
    """A system and a linear solver by name; what a `Job` is for a problem and a solver."""

    problem: str
    solver: str
    problem_args: Mapping[str, Any]
    solver_args: Mapping[str, Any]
    seed: int
    compared: bool
    device: str = "cpu"
    budget: None = None
    mesh: None = None
    threads: int = 1

    kinds: ClassVar[tuple[str, str]] = ("problems", "linear_solvers")

    def measure(self) -> dict[str, Any]:
        """Solve for all right-hand sides, whatever the outcome."""
        before = time.process_time()
        system, solver = SYSTEMS[self.problem](**self.problem_args), named_solver(self._named)
        stencil = system.stencil(self.seed)
        A, B = stencil.matrix(), system.columns(stencil, self.seed)
        found = linear_solve_batch(A, B, solver)
        failed = [r for r in found if not r.status.ok]
        # A right-hand side that was given up counts as no result, not as so many iterations.
        counts = [float(r.stats.get("iterations", 1)) for r in found if r.status.ok]
        metrics: dict[str, float] = {"residual_max": max(r.stats["residual"] for r in found), "failures": len(failed)}
        if counts:
            median = statistics.median(counts)
            metrics |= {"iterations": median, "iterations_min": min(counts), "iterations_max": max(counts)}
            if self.compared:
                plain_cg = linear_solve_batch(A, B, named_solver({"name": "cg", "tolerance": solver.tolerance}))
                metrics["cg_iterations"] = statistics.median(r.stats["iterations"] for r in plain_cg)
                metrics["cg_share"] = median / metrics["cg_iterations"]
        status, message = _worst(found, failed)
        solve_s = found[0].stats["solve_s"] / len(found)
        cost = {
            "cpu_s": found[0].stats["setup_s"] + solve_s * len(found),
            "setup_s": found[0].stats["setup_s"],
            "solve_s": solve_s,
            "steps": metrics.get("iterations"),
            "dofs": int(stencil.active.sum()),
        }
        quantities = {"bench_cpu_s": time.process_time() - before}
        return {"status": status, "message": message, "metrics": metrics, "cost": cost, "quantities": quantities}

    @property
    def _named(self) -> dict[str, Any]:
        return {"name": self.solver, **self.solver_args}


@dataclass(frozen=True)
class LinearCase:
    """One system and one linear solver of a suite, as plain data.

    Attributes:
        system_args: of `GridPoisson`.
        solver, solver_args: name and settings.
        limits: quantity -> largest value that `--check` lets pass: iterations (the median), iterations_max, failures,
            residual_max, cg_share (iterations over those of plain conjugate gradients in the same run), solve_s.
        label: tells two cases of the same system and solver apart.
        seeds: one matrix with its right-hand sides for each.
    """

    system_args: Mapping[str, Any]
    solver: str
    solver_args: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    label: str = ""
    seeds: tuple[int, ...] = (48109,)

    problem: ClassVar[str] = GridPoisson.name

    @property
    def name(self) -> str:
        """system/solver, with the label."""
        return f"{self.problem}/{self.solver}" + (f"-{self.label}" if self.label else "")

    def checked(self) -> LinearCase:
        """The same; names and settings are right.

        Raises:
            SettingsError: they are not.
        """
        try:
            SYSTEMS[self.problem](**self.system_args)
            named_solver({"name": self.solver, **self.solver_args})
        except (PdelabError, TypeError) as error:
            raise SettingsError(str(error)) from None
        return self

    def runs(self, seeds: int | None, device: str) -> Iterator[Run]:
        """One for each seed; `seeds` is for trained solvers and changes nothing here."""
        for seed in self.seeds:
            job = LinearJob(
                self.problem, self.solver, self.system_args, self.solver_args, seed, "cg_share" in self.limits, device
            )
            yield Run(self.name, job, key_of(job, self.label), trained=False, pictures=False)


def _worst(found: list[LinearResult], failed: list[LinearResult]) -> tuple[str, str]:
    if not failed:
        return "CONVERGED", ""
    names = [r.status.name for r in failed]
    first = f"; {failed[0].message}" if failed[0].message else ""
    return max(set(names), key=names.count), f"{len(failed)} of {len(found)} right-hand sides not converged{first}"

"""Benchmarks: suites are data, a finished run is one line of results.jsonl, a rerun continues where the last ended."""

from __future__ import annotations

import dataclasses
import fcntl
import fnmatch
import json
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pdelab import registry
from pdelab.bench_run import Run, failed, key_of, resolve_reference, run_in_folder
from pdelab.errors import (
    IncompatibleProblem,
    OutputError,
    PluginError,
    SettingsError,
    UnknownName,
)
from pdelab.files import write_text
from pdelab.job import Job
from pdelab.shape_of_record import LINE, misshapen
from pdelab.workers import Workers

SEEDS = (48109, 5521, 77213, 30977, 61403, 18229, 90271, 2657, 39119, 84463)
"""The seeds of every suite, in this order; `--seeds N` takes the first N."""


@dataclass(frozen=True)
class Case:
    """One problem and one solver of a suite, as plain data.

    Attributes:
        problem, solver, problem_args, solver_args: names and settings, as on the command line.
        budget: for trained solvers, e.g. "12s"; equal within a problem, so that like is compared with like.
        seeds: one run for each.
        limits: metric or cost -> largest value that `--check` lets pass, e.g. {"rel_l2": 1e-2}; it is
            compared with the median over the seeds. A case without limits may stagnate.
        label: tells two cases of the same problem and solver apart.
    """

    problem: str
    solver: str
    problem_args: Mapping[str, Any] = field(default_factory=dict)
    solver_args: Mapping[str, Any] = field(default_factory=dict)
    budget: str | None = None
    seeds: tuple[int, ...] = SEEDS[:1]
    limits: Mapping[str, float] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """problem/solver, with the label if there is one: how messages and `--only` call it."""
        return f"{self.problem}/{self.solver}" + (f"-{self.label}" if self.label else "")

    def checked(self) -> Case:
        """With the version of the problem filled in.

        Raises:
            UnknownName: no such problem or solver.
        """
        registry.find("solvers", self.solver)
        return dataclasses.replace(self, problem=registry.find("problems", self.problem))

    def runs(self, seeds: int | None, device: str) -> Iterator[Run]:
        """One for each of its seeds; trained solvers take the first `seeds` of `SEEDS`, if that is given."""
        given = (self.problem, self.solver, self.problem_args, self.solver_args)
        job = Job(*given, budget=self.budget, device=device, threads=1)
        trained = False
        try:
            _, solver = job.build()
            trained = solver.trained
        except (IncompatibleProblem, PluginError):
            pass  # the run will say so in its record
        chosen = SEEDS[:seeds] if seeds is not None and trained else self.seeds
        for seed in chosen:
            seeded = dataclasses.replace(job, seed=seed)
            yield Run(self.name, seeded, key_of(seeded, self.label), trained, pictures=seed == chosen[0])


class AnyCase(Protocol):
    """What a suite consists of: `Case`, `linear_bench.LinearCase`, or `operator_bench.OperatorCase`."""

    @property
    def problem(self) -> str:
        """Name of the problem or linear system."""

    @property
    def solver(self) -> str:
        """Name of the solver."""

    @property
    def name(self) -> str:
        """Of the case."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Quantity -> largest value that passes."""

    def checked(self) -> AnyCase:
        """The same; names and settings are right."""

    def runs(self, seeds: int | None, device: str) -> Iterator[Run]:
        """What is to be run."""


def load_suite(name: str) -> tuple[AnyCase, ...]:
    """The cases of a suite, checked, with the versions of their problems filled in.

    Raises:
        UnknownName: no such suite.
        SettingsError: it names a problem or solver that does not exist, or two cases have one name.
    """
    cases = []
    for case in registry.load("suites", name):
        try:
            cases.append(case.checked())
        except (UnknownName, SettingsError) as error:
            raise SettingsError(f"suite {name!r}, case {case.name!r}: {error}") from None
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            raise SettingsError(f"suite {name!r}: two cases are called {case.name!r}; give one of them a label")
        seen.add(case.name)
    return tuple(cases)


def plan(cases: Sequence[AnyCase], *, only: str = "*", seeds: int | None = None, device: str = "cpu") -> list[Run]:
    """The runs of the cases whose name, problem or solver matches a glob.

    Args:
        cases: of a suite.
        only: such as "burgers*", "pinn" or "heat-v1/*".
        seeds: so many of `SEEDS` for each trained solver; None keeps those of the case.
        device: cpu, cuda or auto.

    Raises:
        InputError: nothing matches, or a case has wrong settings.
    """
    chosen = [case for case in cases if _matches(case, only)]
    if not chosen:
        raise UnknownName("case", only, {text for case in cases for text in (case.name, case.problem, case.solver)})
    if seeds is not None and not 1 <= seeds <= len(SEEDS):
        raise SettingsError(f"seeds: expected 1 to {len(SEEDS)}, got {seeds}")
    return [run for case in chosen for run in case.runs(seeds, device)]


def run_suite(
    runs: Sequence[Run],
    out: Path,
    *,
    suite: str,
    workers: int = 1,
    scheduler: str | None = None,
    force: bool = False,
) -> Iterator[dict[str, Any]]:
    """Make the runs that are not in the folder yet; yield the record of each as it finishes.

    References are computed first, so that no run pays for one. Failures are records.

    Args:
        runs: of `plan`.
        out: its results.jsonl grows by one flushed line per finished run; `runs/` holds a folder for each.
        suite: name, kept in the folder.
        workers: processes of one thread.
        scheduler: address of a Dask scheduler; its workers are used instead, `out` must be theirs too.
        force: throw away what the folder holds.

    Raises:
        OutputError: the folder cannot be written, or holds something else, or is in use.
    """
    try:
        # The processes first: a scheduler that does not answer is told before anything is written.
        with Workers(workers, scheduler) as pool:
            _open(out, suite, force)
            yield from _run_pending(runs, out, pool)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error}") from None


def _run_pending(runs: Sequence[Run], out: Path, pool: Workers) -> Iterator[dict[str, Any]]:
    """Make the runs that results.jsonl does not hold, and add their lines to it."""
    from pdelab.drawing import draw_stored

    with open(out / "results.jsonl", "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{out}: another bench is writing there; wait for it or choose another folder") from None
        _drop_half_line(file)
        done = read_records(out)
        pending = [run for run in runs if run.key not in done]
        if not pending:
            return
        solved = [r.job for r in pending if isinstance(r.job, Job)]
        jobs = list({json.dumps([job.problem, job.problem_args]): job for job in solved}.values())
        calls = [(run, str(out.resolve())) for run in pending]
        for _ in pool.outcomes(resolve_reference, jobs):
            pass  # a reference that fails is told by the runs that need it
        for (run, _), outcome in pool.outcomes(run_in_folder, calls):
            if isinstance(outcome, OutputError):
                raise outcome
            record = outcome if isinstance(outcome, dict) else failed(run, outcome)
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            yield record
        for _ in pool.outcomes(draw_stored, [out.resolve() / run.folder for run in pending if run.pictures]):
            pass  # the report draws what is still missing, and tells what it cannot draw


def read_records(out: Path) -> dict[str, dict[str, Any]]:
    """Key -> record of the finished runs in a folder; lines that are cut off or damaged are left out."""
    found = {}
    try:
        lines = (out / "results.jsonl").read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if not misshapen(record, LINE):
            found[record["key"]] = record
    return found


def violations(cases: Sequence[AnyCase], runs: Sequence[Run], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not as the suite promises: case, value and limit, one line each.

    A case without limits is there to be compared with: that it stagnates or takes too long is a result, other
    failures are not.
    """
    limits = {case.name: case.limits for case in cases}
    by_case: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_case.setdefault(run.name, []).append(records.get(run.key, {"status": "MISSING", "message": "did not run"}))
    found = []
    for name, rows in by_case.items():
        good = ("CONVERGED", "BUDGET_SPENT", *(() if limits[name] else ("STAGNATED", "MAX_ITERATIONS")))
        bad = [row for row in rows if row["status"] not in good]
        found += [f"{name}: {row['status']}: {row['message']}" for row in bad]
        if len(bad) == len(rows):
            continue
        for quantity, limit in limits[name].items():
            values = [_value(row, quantity) for row in rows if row not in bad]
            median = (
                statistics.median(v for v in values if v is not None) if any(v is not None for v in values) else None
            )
            if median is None or not median <= limit:
                shown = "no value" if median is None else f"{median:.3g}"
                found.append(f"{name}: {quantity} = {shown}, limit {limit:g}")
    return found


def _value(record: Mapping[str, Any], quantity: str) -> float | None:
    for group in ("metrics", "cost", "validity"):
        value = record.get(group, {}).get(quantity)
        if value is not None:
            return float(value)
    return None


def _matches(case: AnyCase, only: str) -> bool:
    names = (case.name, case.problem, case.problem.rpartition("-v")[0], case.solver)
    return any(fnmatch.fnmatchcase(name, only) for name in names)


def _open(out: Path, suite: str, force: bool) -> None:
    """Make the folder ready: new, or one that holds runs of this suite."""
    try:
        if out.exists() and any(out.iterdir()):
            try:
                holds = json.loads((out / "suite.json").read_text())["suite"]
            except (OSError, ValueError, KeyError, TypeError):
                holds = None
            if holds != suite and not force:
                other = f"the suite {holds!r}" if holds else "something else than a bench"
                raise OutputError(f"{out}: holds {other}; choose another folder or give --force")
            if force and holds is not None:
                shutil.rmtree(out / "runs", ignore_errors=True)
                (out / "results.jsonl").unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "suite.json", json.dumps({"suite": suite}) + "\n")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error}") from None


def _drop_half_line(file: Any) -> None:
    """Cut off what a killed process left after the last line end."""
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)

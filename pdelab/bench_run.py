"""One run of a bench, in a worker: what it is called, where its files are, and its record, whatever happens."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdelab import registry
from pdelab.errors import InputError, OutputError, PdelabError, PluginError
from pdelab.files import write_text
from pdelab.job import Job, execute

if TYPE_CHECKING:
    from pdelab.bench_job import AbstractBenchJob


@dataclass(frozen=True)
class Run:
    """One case with one seed.

    Attributes:
        name: of the case.
        job: what to do.
        key: digest of the job and of the program's source: equal keys, equal results.
        trained: whether the error is followed over time.
        pictures: whether fields and figures are written: for the first seed only.
    """

    name: str
    job: Job | AbstractBenchJob
    key: str
    trained: bool
    pictures: bool

    @property
    def folder(self) -> str:
        """Of this run, relative to the output folder."""
        return f"runs/{self.name}/seed-{self.job.seed}"


@functools.cache
def code_version() -> str:
    """Digest of the source of pdelab, its solvers and meshes: results of other code are not taken for done."""
    digest = hashlib.sha256()
    for name in ("pdelab", "pdelab.solvers", "pdelab.meshes"):
        folder = Path(str(importlib.import_module(name).__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{name}/{path.relative_to(folder)}".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def key_of(job: Job | AbstractBenchJob, label: str) -> str:
    """What identifies a run: digest of the job, the label of its case and the source."""
    identity = json.dumps([job.to_mapping(), label, code_version()], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def resolve_reference(job: Job) -> None:
    """Fill the cache, in a worker."""
    from pdelab.config import build
    from pdelab.reference import resolve

    resolve(build(registry.load("problems", job.problem), job.problem_args))


def run_in_folder(call: tuple[Run, str]) -> dict[str, Any]:
    """One run in its folder, in a worker: continued if the same run was interrupted there."""
    from pdelab.results import record, scored
    from pdelab.runs import history_csv, read_result, save

    run, out = call
    folder = Path(out, run.folder)
    marker = folder / "run.json"
    if not marker.exists() or json.loads(marker.read_text()).get("key") != run.key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(marker, json.dumps({"key": run.key}) + "\n")
    try:
        if not isinstance(run.job, Job):
            return run.job.run() | _identity(run)
        solution = execute(run.job, folder)
        if run.pictures:
            save(solution, folder, force=True, config=run.job.to_mapping(), draw=False)
            facts = read_result(folder)
        else:
            write_text(folder / "history.csv", history_csv(solution))
            facts = record(solution, error=scored(solution), files=["history.csv"])
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    except OutputError:
        raise  # a full disk says nothing about the run, which is to be made again
    except Exception as error:
        return failed(run, error)
    return facts | _identity(run)


def _identity(run: Run) -> dict[str, Any]:
    """What a line of results.jsonl has besides the keys of result.json."""
    return {"key": run.key, "case": run.name, "budget": run.job.budget, "folder": run.folder}


def failed(run: Run, error: BaseException) -> dict[str, Any]:
    """The record of a run without a solution."""
    from pdelab.config import build
    from pdelab.results import plain, settings

    status = "REFUSED" if isinstance(error, InputError) and not isinstance(error, PluginError) else "ERROR"
    message = str(error) if isinstance(error, PdelabError) else f"{type(error).__name__}: {error}"
    job = run.job
    arguments = {}
    for kind, name, given in zip(
        job.kinds, (job.problem, job.solver), (job.problem_args, job.solver_args), strict=True
    ):
        try:  # all settings, as in the record of a run that succeeded
            arguments[kind] = plain(settings(build(registry.load(kind, name), given)), finite=True)
        except PdelabError:
            arguments[kind] = dict(given)
    return {
        "problem": job.problem,
        "problem_args": arguments[job.kinds[0]],
        "solver": job.solver,
        "solver_args": arguments[job.kinds[1]],
        "seed": job.seed,
        "status": status,
        "message": message,
        "metrics": {},
        "reference": {},
        "cost": {},
        "quantities": {},
        "validity": {},
        "versions": {},
        "commit": None,
        "device": job.device,
        "threads": job.threads,
        "started": "",
        "files": [],
    } | _identity(run)

"""What a bench can run besides a problem with a solver: the record around the numbers that such a job measures."""

from __future__ import annotations

import abc
import dataclasses
import datetime
import platform
import resource
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import pdelab
from pdelab.results import commit, plain


class AbstractBenchJob(abc.ABC):
    """Plain data that say what is measured; concrete jobs are frozen dataclasses with the attributes below as fields.

    Attributes:
        problem, solver, problem_args, solver_args: names and settings, of these `kinds` in the registry.
        seed, budget, device, threads: as in `pdelab.job.Job`.
    """

    kinds: ClassVar[tuple[str, str]]
    problem: str
    solver: str
    problem_args: Mapping[str, Any]
    solver_args: Mapping[str, Any]
    seed: int
    budget: str | None
    device: str
    threads: int

    @abc.abstractmethod
    def measure(self) -> dict[str, Any]:
        """status, message, metrics and cost, and what else of a record there is to say."""

    def to_mapping(self) -> dict[str, Any]:
        """Plain values only."""
        return dict(plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)}))  # type: ignore[arg-type]

    def run(self) -> dict[str, Any]:
        """The record: the job, what it measures, when and with what."""
        import torch

        torch.set_num_threads(self.threads)
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        wall = time.perf_counter()
        record = self.to_mapping() | {"reference": {}, "quantities": {}, "validity": {}} | self.measure()
        record["cost"] = {
            "wall_s": time.perf_counter() - wall,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        } | record["cost"]
        versions = {"pdelab": pdelab.__version__, "torch": torch.__version__, "python": platform.python_version()}
        record |= {"versions": versions, "commit": commit(), "started": started, "files": []}
        return dict(plain(record, finite=True))

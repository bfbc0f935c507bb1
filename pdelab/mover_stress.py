"""Movers on meshes of many kinds with steep monitors: whether a cell is ever folded, and what is gained."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from pdelab import registry
from pdelab.bench_job import AbstractBenchJob
from pdelab.bench_run import Run, key_of
from pdelab.calculus import Coordinates
from pdelab.config import build
from pdelab.errors import MeshTangled, PdelabError, SettingsError
from pdelab.pde import Exact
from pdelab.results import plain, settings

SEED = 48109


@dataclass(frozen=True)
class StressJob(AbstractBenchJob):
    """A family, whose solutions make the monitors, and a mover by name."""

    problem: str
    solver: str
    problem_args: Mapping[str, Any]
    solver_args: Mapping[str, Any]
    monitors: int
    peak: float
    seed: int = SEED
    budget: None = None
    mesh: None = None
    device: str = "cpu"
    threads: int = 1

    kinds: ClassVar[tuple[str, str]] = ("families", "movers")

    def measure(self) -> dict[str, Any]:
        """Move meshes of twenty kinds in turns; warnings of movers that are not content are left out."""
        stress = importlib.import_module("pdelab.meshes.movers.stress")
        measured = importlib.import_module("pdelab.meshes.movers.spread").spread
        mover = build(registry.load("movers", self.solver), {**self.solver_args, "monitor": "given"})
        family = build(registry.load("families", self.problem), self.problem_args)
        meshes, rng = stress.stress_meshes(), np.random.default_rng(self.seed)
        inverted, refused, shares, peaks, seconds = 0, 0, [], [], []
        logging.disable(logging.WARNING)
        try:
            for number in range(self.monitors):
                mesh = meshes[number % len(meshes)]
                u = _on_unit_square(family.sample(number), mesh.points)
                m = stress.stress_monitor(u, math.exp(rng.uniform(math.log(1.5), math.log(self.peak))))
                start = time.process_time()
                try:
                    moved = mover.move(mesh, m[:, None], None)
                except MeshTangled:
                    refused += 1
                    continue
                seconds.append(time.process_time() - start)
                inverted += int((moved.volumes() <= 0).sum())
                peaks.append(m.max() / m.mean())
                shares.append(measured(mesh, moved, m) / measured(mesh, mesh, m))
        finally:
            logging.disable(logging.NOTSET)
        return {
            "problem_args": plain(settings(family)),
            "solver_args": plain(settings(mover)),
            "status": "CONVERGED",
            "message": "",
            "metrics": {
                "inverted": float(inverted),
                "refused": float(refused),
                "spread_share": statistics.median(shares),
                "spread_share_max": max(shares),
                "peak_max": max(peaks),
                "move_s": statistics.median(seconds),
            },
            "cost": {"cpu_s": sum(seconds), "solve_s": statistics.median(seconds)},
            "quantities": {"monitors": self.monitors},
        }


@dataclass(frozen=True)
class StressCase:
    """A mover of a suite, as plain data.

    Metrics: inverted cells in all and meshes that were refused (both are to be 0); sigma / mu of the monitor mass
    afterwards as a share of that before, median and largest; the largest max m / mean m; median CPU seconds of a move.

    Attributes:
        mover: name and settings but the monitor.
        family: with solutions in closed form, on the unit square; the member's solution, sharpened, is the monitor.
        monitors: how many.
        peak: largest max m / mean m asked for.
        limits: metric -> largest value that `--check` lets pass.
        label: of the case.
    """

    mover: Mapping[str, Any]
    family: str = "gaussian-sums"
    monitors: int = 1000
    peak: float = 50.0
    limits: Mapping[str, float] = field(default_factory=dict)
    label: str = "stress"

    @property
    def problem(self) -> str:
        """The family."""
        return self.family

    @property
    def solver(self) -> str:
        """The mover."""
        return str(self.mover["name"])

    @property
    def name(self) -> str:
        """family/mover, with the label."""
        return f"{self.family}/{self.solver}" + (f"-{self.label}" if self.label else "")

    @property
    def _args(self) -> dict[str, Any]:
        return {key: value for key, value in self.mover.items() if key != "name"}

    def checked(self) -> StressCase:
        """With the version of the family; names and settings are right.

        Raises:
            SettingsError: they are not, or the solutions are not known in closed form.
        """
        try:
            build(registry.load("movers", self.solver), self._args)
            member = build(registry.load("families", self.family), {}).sample(0)
        except PdelabError as error:
            raise SettingsError(str(error)) from None
        if not isinstance(member.reference(), Exact):
            raise SettingsError(f"family {self.family!r}: expected solutions in closed form")
        return dataclasses.replace(self, family=registry.find("families", self.family))

    def runs(self, seeds: int | None, device: str) -> Iterator[Run]:
        """One."""
        job = StressJob(self.family, self.solver, {}, self._args, self.monitors, self.peak)
        yield Run(self.name, job, key_of(job, self.label), trained=False, pictures=False)


def _on_unit_square(problem: Any, points: np.ndarray) -> np.ndarray:
    """The solution at places (N, 2), whose bounds stand for those of the unit square, (N,)."""
    lower, upper = points.min(axis=0), points.max(axis=0)
    places = torch.as_tensor((points - lower) / (upper - lower))
    return np.asarray(problem.exact(Coordinates(places, problem.axes)).numpy())

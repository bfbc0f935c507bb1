"""Movers on the members of a family with known solutions: quality of the meshes, error on them, and what they cost."""

from __future__ import annotations

import dataclasses
import importlib
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
from pdelab.domain import Box
from pdelab.errors import PdelabError, SettingsError
from pdelab.mesh import Mesh
from pdelab.mover import AbstractMonitorMover
from pdelab.operator_bench import regular_points
from pdelab.pde import AbstractProblem
from pdelab.results import plain, settings

SEED = 48109
CLASSICAL: Mapping[str, Any] = {"name": "monge-ampere", "monitor": "given", "method": "relaxation"}


@dataclass(frozen=True)
class MoverJob(AbstractBenchJob):
    """A family and a mover by name, and the meshes; the same meshes and monitors go to the relaxation."""

    problem: str
    solver: str
    problem_args: Mapping[str, Any]
    solver_args: Mapping[str, Any]
    monitor: str
    resolutions: tuple[int, ...]
    kind: str
    members: int
    grid: tuple[int, int]
    seed: int = SEED
    budget: None = None
    mesh: None = None
    device: str = "cpu"
    threads: int = 1

    kinds: ClassVar[tuple[str, str]] = ("families", "movers")

    def measure(self) -> dict[str, Any]:
        """Move the mesh for every member, and solve on it; making the monitor is not timed."""
        family = build(registry.load("families", self.problem), self.problem_args)
        generate = importlib.import_module("pdelab.meshes.generate")
        meshes = [generate.box_mesh(family.sample(0).domain, n, self.kind) for n in self.resolutions]
        mover = build(registry.load("movers", self.solver), {**self.solver_args, "monitor": "given"})
        rows = [self._row(family.sample(i), meshes[i % len(meshes)], mover) for i in range(self.members)]
        metrics = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        metrics["inverted"] = sum(row["inverted"] for row in rows)
        metrics["worse_share"] = statistics.mean(row["reduction"] <= 0 for row in rows)
        return {
            "problem_args": plain(settings(family)),
            "solver_args": plain(settings(mover)),
            "status": "CONVERGED",
            "message": "",
            "metrics": metrics,
            "cost": {
                "cpu_s": sum(row["move_s"] for row in rows),
                "solve_s": metrics["move_s"],
                "dofs": int(statistics.median(m.n_points for m in meshes)),
            },
            "quantities": {"members": self.members},
        }

    def _row(self, problem: AbstractProblem, mesh: Mesh, mover: AbstractMonitorMover[Any]) -> dict[str, float]:
        classical = _mover(CLASSICAL)
        values = _truth(problem, mesh.points)[:, None]
        monitor = _mover({"name": "monge-ampere", "monitor": self.monitor}).monitor_at_nodes(mesh, values)
        moved, seconds = _timed(mover, mesh, monitor)
        other, other_seconds = _timed(classical, mesh, monitor)
        measure = importlib.import_module("pdelab.meshes.movers.spread").spread
        spreads = [measure(mesh, m, monitor) for m in (mesh, moved, other)]
        errors = [self._error(problem, m) for m in (mesh, moved, other)]
        areas = [m.volumes() for m in (mesh, moved, other)]
        reduction, other_reduction = (1 - e / errors[0] for e in errors[1:])
        return {
            "spread_before": spreads[0],
            "spread_share": spreads[1] / spreads[0],
            "relaxation_spread_share": spreads[2] / spreads[0],
            "area_ratio": float(np.abs(areas[1] - areas[2]).sum() / np.abs(areas[0] - areas[2]).sum()),
            "reduction": reduction,
            "relaxation_reduction": other_reduction,
            "lost_reduction": other_reduction - reduction,
            "inverted": float((areas[1] <= 0).sum()),
            "move_s": seconds,
            "relaxation_s": other_seconds,
            "time_share": seconds / other_seconds,
        }

    def _error(self, problem: AbstractProblem, mesh: Mesh) -> float:
        """Relative L2 error of finite elements on the mesh, on the grid."""
        from pdelab.solver import solve

        solution = solve(problem, build(registry.load("solvers", "fem"), {"mesh": mesh}), device="cpu")
        points = regular_points(problem, self.grid)
        truth = _truth(problem, points)
        return float(np.linalg.norm(solution.at(points)[:, 0] - truth) / np.linalg.norm(truth))


@dataclass(frozen=True)
class MoverCase:
    """A mover of a suite, as plain data; the monitor is that of the nodal values of the solution.

    Metrics, medians over the members: sigma / mu of the monitor mass before (spread_before), afterwards as a share of
    that (spread_share), the same of the Monge-Ampere relaxation on the same mesh and monitor (relaxation_...);
    area_ratio, sum | |K| - |K*| | / sum | |K_0| - |K*| | with its cells K*; reduction of the error of finite elements,
    1 - e / e_0, lost_reduction against that on the relaxation's mesh, worse_share of members where it is none; CPU
    seconds of the move, and as a share of those of the relaxation (time_share); inverted cells in all.

    Attributes:
        mover: name and settings but the monitor.
        family: of steady problems on a box with known solutions.
        monitor: kind of it, with the default strength.
        resolutions: cells across, in turns.
        kind: of the meshes, structured or unstructured.
        members: 0 to members - 1.
        grid: points at which errors are measured.
        limits: metric -> largest value that `--check` lets pass.
        label: of the case.
    """

    mover: Mapping[str, Any]
    family: str = "gaussian-sums"
    monitor: str = "hessian-norm"
    resolutions: tuple[int, ...] = (16, 20, 28, 40)
    kind: str = "structured"
    members: int = 40
    grid: tuple[int, int] = (201, 201)
    limits: Mapping[str, float] = field(default_factory=dict)
    label: str = ""

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

    def checked(self) -> MoverCase:
        """With the version of the family; names and settings are right.

        Raises:
            SettingsError: they are not, or the members are no steady problems on a box with known solutions.
        """
        try:
            _mover(self.mover)
            member = build(registry.load("families", self.family), {}).sample(0)
        except PdelabError as error:
            raise SettingsError(str(error)) from None
        if not isinstance(member.domain, Box) or member.time is not None or member.reference() is None:
            raise SettingsError(f"family {self.family!r}: expected steady problems on a box with known solutions")
        return dataclasses.replace(self, family=registry.find("families", self.family))

    def runs(self, seeds: int | None, device: str) -> Iterator[Run]:
        """One."""
        args = {key: value for key, value in self.mover.items() if key != "name"}
        job = MoverJob(
            self.family, self.solver, {}, args, self.monitor, self.resolutions, self.kind, self.members, self.grid
        )
        yield Run(self.name, job, key_of(job, self.label), trained=False, pictures=False)


def _mover(part: Mapping[str, Any]) -> AbstractMonitorMover[Any]:
    given = {key: value for key, value in part.items() if key != "name"}
    return build(registry.load("movers", part["name"]), given)  # type: ignore[no-any-return]


def _truth(problem: AbstractProblem, points: np.ndarray) -> np.ndarray:
    import torch

    from pdelab.reference import resolve

    reference = resolve(problem)
    assert reference is not None, "the case has been checked"
    with torch.no_grad():
        return np.asarray(reference.field(torch.as_tensor(points))[:, 0].numpy())


def _timed(mover: AbstractMonitorMover[Any], mesh: Mesh, monitor: np.ndarray) -> tuple[Mesh, float]:
    """The moved mesh and the CPU seconds of the faster of two moves: the first one loads and warms up."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        moved = mover.move(mesh, monitor[:, None], None)
        seconds.append(time.process_time() - start)
    return moved, min(seconds)

"""One run as plain data: what the command line, config.yaml and a bench worker have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pdelab import registry
from pdelab.config import build
from pdelab.errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    from pdelab.pde import AbstractProblem
    from pdelab.solution import Solution
    from pdelab.solver import AbstractSolver, Progress


@dataclass(frozen=True)
class Job:
    """A problem and a solver by name, and how to run them; `threads` None leaves the number to torch.

    `state` is a file of what the solver has learned, whose settings it takes; those in `solver_args` win.
    """

    problem: str
    solver: str
    problem_args: Mapping[str, Any] = field(default_factory=dict)
    solver_args: Mapping[str, Any] = field(default_factory=dict)
    mesh: str | None = None
    state: str | None = None
    budget: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None

    kinds: ClassVar[tuple[str, str]] = ("problems", "solvers")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str) -> Job:
        """Checked: what config.yaml or a --config file holds; `source` is named in errors.

        Raises:
            SettingsError: problem or solver is missing, or a value is of the wrong type.
            UnknownName: no such problem or solver.
        """
        for key in ("problem", "solver"):
            if not isinstance(values.get(key), str):
                hint = f"--{key} NAME" if key == "solver" else "its name"
                raise SettingsError(f"{source}: no {key} given; give {hint}, 'pdelab list {key}s' shows what there is")
        job = build(cls, {k: v for k, v in values.items() if v is not None}, source)
        return dataclasses.replace(
            job, problem=registry.find("problems", job.problem), solver=registry.find("solvers", job.solver)
        )

    def to_mapping(self) -> dict[str, Any]:
        """The inverse of `from_mapping`: plain values only."""
        from pdelab.results import plain

        return plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    @property
    def owner(self) -> dict[str, Any]:
        """What a checkpoint of this run belongs to: all that decides the result, but how long it runs and where."""
        every = self.to_mapping()
        keys = ("problem", "problem_args", "solver", "solver_args", "mesh", "seed", *(["state"] if self.state else []))
        return {key: every[key] for key in keys}

    def build(self) -> tuple[AbstractProblem, AbstractSolver[Any]]:
        """The problem and the solver, checked to fit.

        Raises:
            InputError: whatever is wrong with names, settings, mesh, budget or device.
        """
        from pdelab.solver import Budget, check_admitted, find_device

        problem = build(registry.load("problems", self.problem), self.problem_args)
        solver = build(registry.load("solvers", self.solver), self._solver_args())
        if self.mesh is not None:
            from pdelab.restate import on_mesh_file

            problem = on_mesh_file(problem, self.mesh)
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"seed: expected a whole number from 0 to 2^63 - 1, got {self.seed}")
        if self.threads is not None and self.threads < 1:
            raise SettingsError(f"threads: expected a whole number >= 1, got {self.threads}")
        Budget.parse(self.budget)
        find_device(self.device)
        check_admitted(problem, solver)
        return problem, solver

    def _solver_args(self) -> dict[str, Any]:
        """With the settings that a state file holds.

        Raises:
            CheckpointError: the file is of another solver.
        """
        if self.state is None:
            return dict(self.solver_args)
        from pdelab.state import read_about

        about = read_about(self.state)
        if about["solver"] != self.solver:
            raise CheckpointError(f"state {self.state} is of {about['solver']!r}, not of {self.solver!r}")
        return dict(about["solver_args"]) | dict(self.solver_args)

    def resolved(self) -> Job:
        """With every setting, the device, the number of threads and the absolute path of the mesh filled in."""
        import torch

        from pdelab.results import settings
        from pdelab.solver import find_device

        return dataclasses.replace(
            self,
            problem_args=settings(build(registry.load("problems", self.problem), self.problem_args)),
            solver_args=settings(build(registry.load("solvers", self.solver), self._solver_args())),
            state=None if self.state is None else str(Path(self.state).resolve()),
            mesh=None if self.mesh is None else str(Path(self.mesh).resolve()),
            device=find_device(self.device).type,
            threads=self.threads or torch.get_num_threads(),
        )


def execute(job: Job, folder: Path | None, report: Callable[[Progress], None] = lambda progress: None) -> Solution:
    """Solve, whatever the status; the error of trained solvers is followed.

    Args:
        job: what to do.
        folder: `checkpoint/` in it is continued and written; None for neither.
        report: called with the progress.
    """
    from pdelab.checkpoint import CheckpointStore
    from pdelab.solver import find_device, solve
    from pdelab.state import load_state

    problem, solver = job.build()
    state = None if job.state is None else load_state(job.state).network.to(find_device(job.device))
    return solve(
        problem,
        solver,
        state=state,
        budget=job.budget,
        seed=job.seed,
        device=job.device,
        threads=job.threads,
        throw=False,
        checkpoints=None if folder is None else CheckpointStore(folder / "checkpoint", job.owner),
        report=report,
        monitor=solver.trained,
    )

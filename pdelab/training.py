"""Training of operator solvers on families, and of movers: seed, device, checkpoints beside the file, and the file."""

from __future__ import annotations

import abc
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdelab import registry
from pdelab.checkpoint import CheckpointStore, ReadCheckpoints
from pdelab.config import build
from pdelab.errors import IncompatibleProblem, OutputError, SettingsError
from pdelab.mover import AbstractLearnedMover, prepare_mover
from pdelab.pde import AbstractFamily
from pdelab.results import plain, settings
from pdelab.solver import AbstractOperatorSolver, Budget, Progress, check_admitted, find_device, prepare
from pdelab.team import Team, joined


def training(
    name: str, family: str | None, given: Mapping[str, Any], family_given: Mapping[str, Any]
) -> AbstractTraining:
    """That of an operator solver on a family, or of a mover, by name.

    Raises:
        InputError: no such names, wrong settings, something that learns nothing, a family that does not fit.
    """
    if name in registry.names("movers"):
        if family is not None or family_given:
            raise SettingsError(f"family: {name} is a mover and trained on meshes; leave the family out")
        mover = build(registry.load("movers", name), given)
        if not isinstance(mover, AbstractLearnedMover):
            raise SettingsError(f"mover {name!r} has no network; there is nothing to train")
        return MoverTraining(mover)
    solver = build(registry.load("solvers", name), given)
    if not isinstance(solver, AbstractOperatorSolver):
        raise IncompatibleProblem(f"solver {name!r} solves problems one by one; there is nothing to train beforehand")
    if family is None:
        raise SettingsError(f"family: solver {name!r} is trained on one, got none; name it by --family")
    members = build(registry.load("families", family), family_given)
    check_admitted(members.sample(0), solver)
    return SolverTraining(solver, members)


class AbstractTraining(abc.ABC):
    """Something to train, and the file that it makes."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What is trained on what."""

    @property
    @abc.abstractmethod
    def owner(self) -> dict[str, Any]:
        """What checkpoints belong to, JSON values."""

    @abc.abstractmethod
    def learn(self, team: Team, options: dict[str, Any]) -> Any:
        """The network, with its report."""

    @abc.abstractmethod
    def save(self, out: Path, network: Any, facts: dict[str, Any]) -> None:
        """Write the file."""

    def check(self, out: Path, budget: str | None, force: bool) -> None:
        """Raise `InputError` unless the file may be written and the budget can be read."""
        Budget.parse(budget)
        if out.exists() and (out.is_dir() or not force):
            raise OutputError(f"{out}: exists; choose another name{'' if out.is_dir() else ' or give --force'}")

    def run(
        self,
        out: Path,
        *,
        budget: str | None = None,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> dict[str, Any] | None:
        """Train and write the file; checkpoints are in `out` with .checkpoint at the end while it lasts.

        Under torchrun the processes share the experts, and the first one writes.

        Returns:
            status, message, steps, loss, cpu_s and seed; None where another process writes the file.
        """
        folder, began = out.with_name(out.name + ".checkpoint"), time.process_time()
        with joined(find_device(device)) as team:
            store = (CheckpointStore if team.leads else ReadCheckpoints)(folder, {**self.owner, "seed": seed})
            options = {"budget": budget, "seed": seed, "device": device, "threads": threads, "checkpoints": store}
            shown = report if team.leads else (lambda progress: None)
            network = self.learn(team, {**options, "report": shown})
            if not team.leads:
                return None
        done = network.report
        facts = {
            "status": done.status.name,
            "message": done.message,
            "steps": done.steps,
            "loss": done.loss,
            "cpu_s": time.process_time() - began,
            "seed": seed,
        }
        self.save(out, network, facts)
        shutil.rmtree(folder, ignore_errors=True)
        return facts


@dataclass(frozen=True)
class SolverTraining(AbstractTraining):
    """An operator solver and a family that fit."""

    solver: AbstractOperatorSolver[Any]
    family: AbstractFamily

    @property
    def title(self) -> str:
        """What is trained on what."""
        return f"{self.solver.name} on {self.family.name}"

    @property
    def owner(self) -> dict[str, Any]:
        """Both with their settings."""
        named = {"solver": self.solver.name, "solver_args": plain(settings(self.solver))}
        return {**named, "family": self.family.name, "family_args": plain(settings(self.family))}

    def learn(self, team: Team, options: dict[str, Any]) -> Any:
        """See `solver.prepare`."""
        return prepare(self.family, self.solver, team=team, **options)

    def save(self, out: Path, network: Any, facts: dict[str, Any]) -> None:
        """See `state.save_state`."""
        from pdelab.state import save_state

        save_state(out, self.solver, self.family, network, facts)


@dataclass(frozen=True)
class MoverTraining(AbstractTraining):
    """A mover, on its own meshes."""

    mover: AbstractLearnedMover[Any]

    @property
    def title(self) -> str:
        """The mover."""
        return self.mover.name

    @property
    def owner(self) -> dict[str, Any]:
        """The mover with its settings."""
        return {"mover": self.mover.name, "mover_args": plain(settings(self.mover))}

    def learn(self, team: Team, options: dict[str, Any]) -> Any:
        """See `mover.prepare`.

        Raises:
            SettingsError: there are several processes.
        """
        if team.size > 1:
            raise SettingsError(f"{self.mover.name}: a mover is trained by one process, got {team.size}")
        return prepare_mover(self.mover, **options)

    def save(self, out: Path, network: Any, facts: dict[str, Any]) -> None:
        """See `mover_state.save_mover`."""
        from pdelab.mover_state import save_mover

        save_mover(out, self.mover, network, facts)

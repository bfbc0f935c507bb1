"""Training of an operator solver on a family: seed, device, checkpoints beside the file, and the file itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdelab import registry
from pdelab.config import build
from pdelab.errors import IncompatibleProblem, OutputError
from pdelab.pde import AbstractFamily
from pdelab.solver import AbstractOperatorSolver, Progress


@dataclass(frozen=True)
class Training:
    """A solver and a family, checked to fit."""

    solver: AbstractOperatorSolver[Any]
    family: AbstractFamily

    @classmethod
    def of(cls, solver: str, family: str, solver_args: Mapping[str, Any], family_args: Mapping[str, Any]) -> Training:
        """By name.

        Raises:
            InputError: no such names, wrong settings, a solver that learns no operator, or one that refuses the family.
        """
        from pdelab.solver import check_admitted

        chosen = build(registry.load("solvers", solver), solver_args)
        if not isinstance(chosen, AbstractOperatorSolver):
            raise IncompatibleProblem(
                f"solver {solver!r} solves problems one by one; there is nothing to train beforehand"
            )
        members = build(registry.load("families", family), family_args)
        check_admitted(members.sample(0), chosen)
        return cls(chosen, members)

    def check(self, out: Path, budget: str | None, force: bool) -> None:
        """Raise `InputError` unless the file may be written and the budget can be read."""
        from pdelab.solver import Budget

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
        from pdelab.checkpoint import CheckpointStore, ReadCheckpoints
        from pdelab.results import plain, settings
        from pdelab.solver import find_device, prepare
        from pdelab.state import save_state
        from pdelab.team import joined

        folder = out.with_name(out.name + ".checkpoint")
        solver, family = self.solver, self.family
        owner = {"solver": solver.name, "solver_args": plain(settings(solver)), "family": family.name}
        owner |= {"family_args": plain(settings(family)), "seed": seed}
        began = time.process_time()
        with joined(find_device(device)) as team:
            store = (CheckpointStore if team.leads else ReadCheckpoints)(folder, owner)
            shown = report if team.leads else (lambda progress: None)
            options = {"checkpoints": store, "report": shown, "team": team, "threads": threads}
            network = prepare(family, solver, budget=budget, seed=seed, device=device, **options)  # type: ignore[arg-type]
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
        save_state(out, solver, family, network, facts)
        shutil.rmtree(folder, ignore_errors=True)
        return facts

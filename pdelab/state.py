"""What an operator solver has learned, in one file: weights, with the settings and the family that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdelab import registry, state_file
from pdelab.config import build
from pdelab.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

    from pdelab.pde import AbstractFamily
    from pdelab.solver import AbstractOperatorSolver

KEYS = ("solver", "solver_args", "family", "family_args")


@dataclass(frozen=True, eq=False)
class Learned:
    """A solver with the family that it was trained on and its network."""

    solver: AbstractOperatorSolver[Any]
    family: AbstractFamily
    network: nn.Module


def save_state(
    path: Path, solver: AbstractOperatorSolver[Any], family: AbstractFamily, network: nn.Module, facts: dict[str, Any]
) -> None:
    """Write the file, whole or not at all.

    Args:
        path: of the file; its folder is made.
        solver: with its settings, which the file keeps.
        family: likewise.
        network: what `solver.prepare` returned.
        facts: about the training, JSON values: seed, steps, losses.

    Raises:
        OutputError: the file cannot be written.
    """
    from pdelab.results import settings

    about = {"solver": solver.name, "solver_args": settings(solver), "family": family.name}
    state_file.write_state(path, network, {**about, "family_args": settings(family), "facts": facts})


def load_state(path: str | Path) -> Learned:
    """Read the file; no code runs from it.

    Raises:
        CheckpointError: missing, damaged, or of another version or program.
        UnknownName: its solver or family is not installed.
    """
    from torch import nn

    from pdelab.solver import AbstractOperatorSolver

    about = read_about(path)
    solver = build(registry.load("solvers", about["solver"]), about["solver_args"])
    family = build(registry.load("families", about["family"]), about["family_args"])
    if not isinstance(solver, AbstractOperatorSolver):
        raise CheckpointError(f"state {path}: {about['solver']!r} solves problems one by one and learns no state")
    network = solver.blank(family)
    assert isinstance(network, nn.Module)
    state_file.fill(network, path, about)
    return Learned(solver, family, network)


def read_about(path: str | Path) -> dict[str, Any]:
    """What the file says of itself: solver, solver_args, family, family_args, extra and facts; no weights are read.

    Raises:
        CheckpointError: missing, damaged, or of another version or program.
    """
    return state_file.read_about(path, KEYS)

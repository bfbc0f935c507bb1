"""The record of one run as plain data: result.json, and each line of a bench's results.jsonl."""

from __future__ import annotations

import dataclasses
import enum
import functools
import logging
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pdelab
from pdelab import registry
from pdelab.errors import PdelabError
from pdelab.solution import Solution

COST = (
    "wall_s",
    "cpu_s",
    "setup_s",
    "train_s",
    "solve_s",
    "peak_memory_mb",
    "steps",
    "n_parameters",
    "dofs",
)
"""Keys of `cost`; null where a solver does not report one. Seconds, and MiB of memory."""

_log = logging.getLogger(__name__)


def record(solution: Solution, *, error: Mapping[str, Any] | None = None, files: Sequence[str] = ()) -> dict[str, Any]:
    """The object of result.json; every number that is not finite is null.

    Args:
        solution: with the stats that the driver filled in.
        error: what `solution.error()` gave, if it is known already; it is computed if None.
        files: names of the files of the run, relative to its folder.
    """
    problem, solver = solution.problem, solution.solver
    metrics = dict(scored(solution) if error is None else error)
    reference = {"kind": metrics.pop("kind", None), "floor": metrics.pop("floor", None)}
    if solution.unknowns:
        metrics["unknowns"] = dict(solution.unknowns)
    return plain(
        {
            "problem": identity("problems", problem),
            "problem_args": problem.parameters,
            "solver": None if solver is None else identity("solvers", solver),
            "solver_args": {} if solver is None else settings(solver),
            "seed": solution.seed,
            "status": solution.status.name,
            "message": solution.message,
            "metrics": metrics,
            "reference": reference,
            "cost": {key: _count(key, solution.stats.get(key)) for key in COST},
            "quantities": {key: value for key, value in solution.stats.items() if key not in COST},
            "validity": solution.validity,
            "versions": {"pdelab": pdelab.__version__, "torch": torch.__version__, "python": platform.python_version()},
            "commit": commit(),
            "device": solution.device,
            "threads": solution.threads,
            "started": solution.started,
            "files": list(files),
        },
        finite=True,
    )


def scored(solution: Solution) -> dict[str, Any]:
    """`solution.error()`, or nothing with a warning if the reference cannot be computed."""
    try:
        return solution.error()
    except PdelabError as error:
        _log.warning("%s was not scored: %s", solution.problem.name, error)
        return {}


def identity(kind: str, thing: Any) -> str:
    """The registered name of an object, the newest version of several; its own `name` if it is not registered."""
    target = f"{type(thing).__module__}:{type(thing).__name__}"
    names = [entry.name for entry in registry.entries(kind).values() if entry.target == target]

    def version(name: str) -> int:
        number = name.rpartition("-v")[2]
        return int(number) if number.isdigit() else 0

    return max(names, key=version, default=str(thing.name))


def settings(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass, as given."""
    return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing) if field.init}


def plain(value: Any, *, finite: bool = False) -> Any:
    """What JSON and YAML hold: dict, list, str, int, float, bool, None; other objects become their text.

    A nested dataclass becomes the mapping of its fields, with its registered `name` if it has one. With
    `finite`, nan and inf become None: JSON has neither.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = getattr(type(value), "name", None)
        value = ({"name": name} if isinstance(name, str) else {}) | settings(value)
    if isinstance(value, enum.Enum):
        value = value.name
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v, finite=finite) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v, finite=finite) for v in value]
    if isinstance(value, float):
        return None if finite and not math.isfinite(value) else float(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _count(key: str, value: float | None) -> float | None:
    """Whole numbers for what is counted."""
    counted = key in ("steps", "n_parameters", "dofs") and value is not None and math.isfinite(value)
    return int(value) if counted and value is not None else value


@functools.cache
def commit() -> str | None:
    """The commit of pdelab's own source, "-dirty" added if it was changed; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    # An installed package may lie inside a checkout of something else: that one is not meant.
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

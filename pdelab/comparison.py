"""Two runs side by side, and one run made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdelab.job import Job, execute
from pdelab.report import Record, collect, read_folder
from pdelab.solver import Budget, Progress

QUANTITIES = (("metrics", ("rel_l2", "rel_l1", "max_abs")), ("cost", ("cpu_s", "steps", "n_parameters", "dofs")))


@dataclass(frozen=True)
class Difference:
    """One quantity of one case in two places; None where it is missing."""

    case: str
    quantity: str
    first: Any
    second: Any

    @property
    def equal(self) -> bool:
        """Whether both are the same, to the last bit."""
        return self.first == self.second

    @property
    def ratio(self) -> float | None:
        """second / first, where that means something."""
        numbers = isinstance(self.first, int | float) and isinstance(self.second, int | float)
        return self.second / self.first if numbers and self.first else None


def compare(first: Path, second: Path) -> list[Difference]:
    """Errors and costs of two runs, or of all cases of two benches (medians over the seeds).

    Two runs are compared whatever they solved, and their settings too; benches case by case.

    Raises:
        InputError: one of them is no run or bench folder.
    """
    one, two = read_folder(first), read_folder(second)
    if not (first / "results.jsonl").exists() and not (second / "results.jsonl").exists():
        return [*_settings(one[0].facts, two[0].facts), *_numbers("", one[0].number, two[0].number)]
    lines = [{(line.problem, line.label): line for line in collect([folder]).lines} for folder in (first, second)]
    found = []
    for key in sorted({*lines[0], *lines[1]}):
        a, b = (line.get(key) for line in lines)
        none: Callable[[str, str], float | None] = lambda group, name: None  # noqa: E731
        found += [Difference("/".join(key), "status", a and a.status, b and b.status)]
        found += _numbers("/".join(key), a.median if a else none, b.median if b else none)
    return found


def reproduce(
    folder: Path, report: Callable[[Progress], None] = lambda progress: None
) -> tuple[list[Difference], list[Difference]]:
    """Make a finished run again from its config.yaml, without its checkpoints and without writing anything.

    A budget in seconds buys other steps each time: the steps that the run made are the budget of the repetition.

    Returns:
        Metrics then and now; and what differs in the environment (versions, commit, device, threads).

    Raises:
        InputError: the folder holds no finished run, or its config.yaml cannot be used.
    """
    from pdelab.results import record
    from pdelab.runs import read_config, read_result

    stored = read_result(folder)
    config = read_config(folder)
    steps = stored.get("cost", {}).get("steps")
    if config.get("budget") and Budget.parse(config["budget"]).seconds and steps:
        config["budget"] = str(Budget(steps=int(steps)))
    again = record(execute(Job.from_mapping(config, str(folder / "config.yaml")), None, report))
    then, now = Record(stored, folder), Record(again, folder)
    results = [Difference("", "status", stored.get("status"), again["status"]), *_numbers("", then.number, now.number)]
    flat = [_flat({k: facts.get(k) for k in ("versions", "commit", "device", "threads")}) for facts in (stored, again)]
    environment = [Difference("", key, flat[0].get(key), flat[1].get(key)) for key in sorted({*flat[0], *flat[1]})]
    return [d for d in results if d.quantity != "cpu_s"], [d for d in environment if not d.equal]


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """What was solved and how, where it differs, and how it ended."""
    keys = ("problem", "problem_args", "solver", "solver_args", "seed", "status", "device", "threads", "commit")
    a, b = (_flat({key: facts.get(key) for key in keys}) for facts in (first, second))
    every = [Difference("", key, a.get(key), b.get(key)) for key in sorted({*a, *b})]
    return [d for d in every if not d.equal]


def _numbers(
    case: str, first: Callable[[str, str], float | None], second: Callable[[str, str], float | None]
) -> list[Difference]:
    found = [
        Difference(case, name, first(group, name), second(group, name)) for group, names in QUANTITIES for name in names
    ]
    return [d for d in found if d.first is not None or d.second is not None]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found

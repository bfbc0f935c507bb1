"""What runs add up to: a table, curves and pictures as report.html, report.md and results.csv."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdelab import bench
from pdelab.errors import InputError, OutputError, PdelabError
from pdelab.files import write_text

_log = logging.getLogger(__name__)

NEAR_FLOOR = 3.0
"""An error below this many floors is not told apart from the reference's own error."""


@dataclass(frozen=True)
class Record:
    """One finished run: its line of results.jsonl or its result.json, and where its files are."""

    facts: Mapping[str, Any]
    folder: Path

    def number(self, group: str, key: str) -> float | None:
        """One number of metrics, cost, reference or validity; None if it does not apply."""
        value = (self.facts.get(group) or {}).get(key)
        return None if value is None else float(value)

    @property
    def ok(self) -> bool:
        """Whether the run has a result."""
        return self.facts["status"] in ("CONVERGED", "BUDGET_SPENT")

    def curve(self) -> tuple[list[float], list[float]]:
        """CPU seconds and relative L2 error while it was trained; empty if the error was not followed."""
        try:
            with open(self.folder / "history.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            pairs = [(float(r["cpu_s"]), float(r["error"])) for r in rows]
        except (OSError, KeyError, ValueError):
            return [], []
        pairs = [(t, e) for t, e in pairs if t > 0 and e == e and 0 < e < float("inf")]
        return [t for t, _ in pairs], [e for _, e in pairs]

    def seconds_to(self, error: float) -> float:
        """CPU seconds until the error was below a level for good; inf if it ended above."""
        final, cost = self.number("metrics", "rel_l2"), self.number("cost", "cpu_s")
        if not self.ok or final is None or cost is None or final > error:
            return float("inf")
        seconds, errors = self.curve()
        above = [i for i, e in enumerate(errors) if e > error]
        after = above[-1] + 1 if above else 0
        return seconds[after] if after < len(seconds) else cost

    def pictures(self) -> list[Path]:
        """Its figures, if any were drawn."""
        return sorted((self.folder / "figures").glob("*.png"))


@dataclass(frozen=True)
class Line:
    """One case of the table: the same problem, solver, settings and budget, over its seeds."""

    problem: str
    solver: str
    label: str
    settings: str
    budget: str
    records: Sequence[Record]

    @property
    def good(self) -> list[Record]:
        """The runs that have a result."""
        return [r for r in self.records if r.ok]

    @property
    def status(self) -> str:
        """One word if all seeds agree, else counts."""
        words = [r.facts["status"] for r in self.records]
        if len(set(words)) == 1:
            return words[0]
        return ", ".join(f"{words.count(w)} {w}" for w in sorted(set(words)))

    @property
    def message(self) -> str:
        """Why the first run without a result has none."""
        return next((r.facts.get("message", "") for r in self.records if not r.ok), "")

    def values(self, group: str, key: str) -> list[float]:
        """A number of every run that has it, sorted."""
        found = [r.number(group, key) for r in self.good]
        return sorted(v for v in found if v is not None)

    def median(self, group: str, key: str) -> float | None:
        """Over the seeds."""
        values = self.values(group, key)
        return statistics.median(values) if values else None

    @property
    def floor(self) -> float | None:
        """Relative L2 error of the reference itself."""
        return self.median("reference", "floor")

    @property
    def at_floor(self) -> bool:
        """Whether the error cannot be told from the reference's."""
        error = self.median("metrics", "rel_l2")
        return error is not None and self.floor is not None and error < NEAR_FLOOR * self.floor

    @property
    def trained(self) -> bool:
        """Whether an error curve exists."""
        return any(len(r.curve()[0]) > 1 for r in self.good)

    def seconds_to(self, error: float) -> float | None:
        """Median CPU seconds until the error was below a level for good; None unless most seeds got there."""
        median = statistics.median(record.seconds_to(error) for record in self.records)
        return None if median == float("inf") else median


@dataclass(frozen=True)
class Group:
    """One problem with its parameters, and the lines that compare on it."""

    problem: str
    settings: str
    lines: Sequence[Line]

    @property
    def title(self) -> str:
        """Name and parameters."""
        return self.problem + (f" ({self.settings})" if self.settings else "")


@dataclass(frozen=True)
class Report:
    """Everything that is shown, before it is drawn."""

    groups: Sequence[Group]
    environment: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def lines(self) -> list[Line]:
        """All lines, in the order of the groups."""
        return [line for group in self.groups for line in group.lines]


def collect(folders: Sequence[Path]) -> Report:
    """Read bench folders and run folders.

    Raises:
        InputError: a folder holds neither.
    """
    records = [record for folder in folders for record in read_folder(folder)]
    groups: dict[tuple[str, str], dict[tuple[str, str, str, str], list[Record]]] = {}
    for record in records:
        facts = record.facts
        label = facts.get("case", "").partition("/")[2] or facts["solver"]
        place = (facts["problem"], _settings(facts.get("problem_args")))
        case = (facts["solver"], label, _settings(facts.get("solver_args")), facts.get("budget") or "")
        groups.setdefault(place, {}).setdefault(case, []).append(record)
    return Report(
        [
            Group(
                problem,
                settings,
                sorted(_told_apart([Line(problem, *case, rows) for case, rows in cases.items()]), key=_order),
            )
            for (problem, settings), cases in sorted(groups.items())
        ],
        _environment(records),
    )


def read_folder(folder: Path) -> list[Record]:
    """The finished runs of a bench folder, newest of each case and seed, or the one of a run folder.

    Raises:
        InputError: it holds neither.
    """
    if (folder / "results.jsonl").exists():
        newest: dict[tuple, Record] = {}
        for facts in bench.read_records(folder).values():
            newest[(facts["case"], facts["seed"])] = Record(facts, folder / facts["folder"])
        if newest:
            return list(newest.values())
        raise InputError(f"{folder}: no run has finished yet; start 'pdelab bench --out {folder}' again")
    from pdelab.runs import read_result

    return [Record(read_result(folder), folder)]


def write(report: Report, out: Path) -> list[Path]:
    """Write report.html, report.md and results.csv; return their paths.

    Pictures that a bench has left to draw are drawn in the folders of their runs; those that cannot be are left
    out, with a warning.

    Raises:
        OutputError: the folder cannot be written.
    """
    from pdelab.drawing import draw_stored
    from pdelab.report_html import page

    for record in (record for line in report.lines for record in line.records):
        try:
            draw_stored(record.folder)
        except PdelabError as error:
            _log.warning("the report lacks pictures of a run: %s", error)
    texts = {"report.html": page(report), "report.md": markdown(report), "results.csv": table_csv(report)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(out / name, text)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error}") from None
    return [out / name for name in texts]


def markdown(report: Report) -> str:
    """The tables as Markdown, one for each problem."""
    parts = ["# Report", "", *(f"- {key}: {', '.join(values)}" for key, values in report.environment.items()), ""]
    for group in report.groups:
        parts += [f"## {group.title}", ""]
        if any(line.values("metrics", "iterations") for line in group.lines):
            parts += [*_linear_rows(group), ""]
            continue
        parts += ["| solver | budget | seeds | rel. L2 (median) | min to max | floor | CPU s | size | status |"]
        parts += ["|---|---|--:|--:|--:|--:|--:|--:|---|"]
        for line in group.lines:
            errors = line.values("metrics", "rel_l2")
            cells = [line.label, line.budget, str(len(line.records)), short(line.median("metrics", "rel_l2"))]
            cells[-1] += " (at floor)" if line.at_floor else ""
            cells += [f"{short(errors[0])} to {short(errors[-1])}" if len(errors) > 1 else ""]
            cells += [short(line.floor), short(line.median("cost", "cpu_s")), size(line), line.status]
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _linear_rows(group: Group) -> list[str]:
    """The table of linear solvers on one system."""
    parts = ["| solver | iterations (median) | min to max | of those of cg | residual | set-up s | s each | status |"]
    parts += ["|---|--:|--:|--:|--:|--:|--:|---|"]
    for line in group.lines:
        cells = [line.label] + [short(line.median("metrics", key)) for key in ("iterations", "iterations_min")]
        cells[-1] += f" to {short(line.median('metrics', 'iterations_max'))}"
        cells += [short(line.median("metrics", key)) for key in ("cg_share", "residual_max")]
        cells += [short(line.median("cost", key)) for key in ("setup_s", "solve_s")]
        parts.append("| " + " | ".join([*cells, line.status + (f": {line.message}" * bool(line.message))]) + " |")
    return parts


def table_csv(report: Report) -> str:
    """One row for each run, with full digits."""
    columns = ["problem", "problem_args", "solver", "case", "solver_args", "budget", "seed", "status", "message"]
    metrics = ["rel_l2", "rel_l1", "max_abs", "residual_max", "iterations", "iterations_max", "cg_share"]
    costs = ["cpu_s", "wall_s", "setup_s", "solve_s", "steps", "n_parameters", "dofs"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *metrics, "floor", *costs])
    for line in report.lines:
        for record in line.records:
            facts = record.facts
            cells = [json.dumps(v) if isinstance(v, dict) else v for v in (facts.get(c, "") for c in columns)]
            numbers = [record.number("metrics", m) for m in metrics] + [record.number("reference", "floor")]
            writer.writerow([*cells, *numbers, *(record.number("cost", c) for c in costs)])
    return text.getvalue()


def short(value: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"


def size(line: Line) -> str:
    """Trained parameters or degrees of freedom, whichever applies."""
    for key, word in (("n_parameters", "parameters"), ("dofs", "dofs")):
        value = line.median("cost", key)
        if value:
            return f"{value:.0f} {word}"
    return "–"


def _told_apart(lines: Sequence[Line]) -> list[Line]:
    """Lines of one label get the settings and the budget in which they differ added to it."""
    found = []
    for line in lines:
        namesakes = [{*other.settings.split(", "), other.budget} for other in lines if other.label == line.label]
        own = [text for text in (*line.settings.split(", "), line.budget) if not all(text in n for n in namesakes)]
        found.append(dataclasses.replace(line, label=f"{line.label} ({', '.join(own)})") if own else line)
    return found


def _order(line: Line) -> tuple[bool, str]:
    """Classical solvers first."""
    return bool(line.budget) or line.trained, line.label


def _settings(values: Mapping[str, Any] | None) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in (values or {}).items()
    )


def _environment(records: Sequence[Record]) -> dict[str, list[str]]:
    """Versions, commit, device, threads and days of the runs; several values where the runs differ."""
    found: dict[str, set[str]] = {}
    for record in records:
        facts = record.facts
        pairs = dict(facts.get("versions") or {})
        pairs |= {key: facts.get(key) for key in ("commit", "device", "threads")}
        pairs["started"] = str(facts.get("started") or "")[:10]
        for key, value in pairs.items():
            if value:
                found.setdefault(key, set()).add(str(value))
    return {key: sorted(values) for key, values in found.items()}

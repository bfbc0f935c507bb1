"""What `pdelab show` tells about one name: the docstring, the settings, and what fits to it."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

from pdelab import registry
from pdelab.errors import PdelabError, UnknownName


@dataclass(frozen=True)
class Description:
    """One registered thing in words.

    Attributes:
        kind, name, source: where it is registered.
        text: the docstring.
        facts: name -> value, in the order to show.
        settings: (key, type, default) of each.
    """

    kind: str
    name: str
    source: str
    text: str
    facts: dict[str, str]
    settings: list[tuple[str, str, str]]


def describe(name: str) -> list[Description]:
    """All things of that name, as a problem and a family may share one.

    Raises:
        UnknownName: nothing is called so; the nearest names are offered.
        PluginError: its module fails on import.
        SettingsError: it is a suite that names what does not exist.
    """
    found = []
    for kind in registry.KINDS:
        try:
            full = registry.find(kind, name)
        except UnknownName:
            continue
        found.append(_describe(kind, full))
    if not found:
        every = {n for kind in registry.KINDS for n in registry.names(kind)}
        raise UnknownName("problem, solver or suite", name, every | {n.rpartition("-v")[0] for n in every} - {""})
    return found


def _describe(kind: str, name: str) -> Description:
    from pdelab.bench import load_suite

    thing = load_suite(name) if kind == "suites" else registry.load(kind, name)
    entry = registry.entries(kind).get(name)
    source = f"{entry.target} of {entry.distribution}" if entry else "registered in this process"
    text = inspect.getdoc(thing) if isinstance(thing, type) else registry.summary(kind, name)
    facts = {"problems": _problem, "solvers": _solver, "suites": _suite}.get(kind, lambda _: {})(thing)
    return Description(kind, name, source, text or "", facts, _settings(thing))


def _settings(thing: Any) -> list[tuple[str, str, str]]:
    if not (isinstance(thing, type) and dataclasses.is_dataclass(thing)):
        return []
    rows = []
    for field in dataclasses.fields(thing):
        default = "required"
        if field.default is not dataclasses.MISSING:
            default = repr(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = repr(field.default_factory())
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        rows.append((field.name, kind, default))
    return rows


def _problem(thing: Any) -> dict[str, str]:
    problem = thing()
    lower, upper = problem.domain.bounds
    box = " x ".join(f"[{a:g}, {b:g}]" for a, b in zip(lower, upper, strict=True))
    recipe = problem.reference()
    known = "none" if recipe is None else getattr(recipe, "solver", "closed form")
    return {
        "unknowns": ", ".join(problem.components),
        "space": f"{type(problem.domain).__name__} in {box}",
        "boundary parts": ", ".join(problem.domain.parts),
        "time": f"{problem.time[0]:g} to {problem.time[1]:g}" if problem.time else "steady",
        "reference": known,
        "solvers": ", ".join(_fitting(problem)) or "none",
    }


def _fitting(problem: Any) -> list[str]:
    """Names of the solvers that accept a problem with their default settings."""
    from pdelab.errors import IncompatibleProblem
    from pdelab.solver import check_admitted

    found = []
    for name in registry.names("solvers"):
        try:
            check_admitted(problem, registry.load("solvers", name)())
        except (IncompatibleProblem, PdelabError, TypeError):
            continue
        found.append(name)
    return found


def _solver(thing: Any) -> dict[str, str]:
    accepted = thing.accepts if isinstance(thing.accepts, tuple) else (thing.accepts,)
    return {
        "accepts": " or ".join(c.__name__ for c in accepted),
        "budget": "trained until it is spent" if thing.trained else "not used",
    }


def _suite(cases: Any) -> dict[str, str]:
    runs = sum(len(case.seeds) for case in cases)
    return {"cases": ", ".join(case.name for case in cases), "runs": str(runs)}

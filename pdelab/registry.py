"""Names to classes. Built-ins and third parties are found the same way: by entry points.

The groups are `pdelab.problems`, `pdelab.families`, `pdelab.solvers`, `pdelab.movers`,
`pdelab.linear_solvers` and `pdelab.suites`. Nothing is imported before it is used.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import traceback
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pdelab.errors import PluginError, UnknownName

KINDS = {
    "problems": "problem",
    "families": "family",
    "solvers": "solver",
    "movers": "mover",
    "linear_solvers": "linear solver",
    "suites": "suite",
}
"""Kind -> what one of it is called; the entry-point group is `pdelab.<kind>`."""

_BASES = {
    "problems": "pdelab.pde:AbstractProblem",
    "families": "pdelab.pde:AbstractFamily",
    "solvers": "pdelab.solver:AbstractSolver",
    "movers": "pdelab.mover:AbstractMover",
}

_registered: dict[tuple[str, str], Any] = {}


@dataclass(frozen=True)
class Entry:
    """One registered name: where it points to and which distribution brought it."""

    kind: str
    name: str
    target: str
    distribution: str


@functools.cache
def entries(kind: str) -> dict[str, Entry]:
    """All names of a kind, without importing anything.

    A name that two distributions claim stays with pdelab, else with the first in alphabetical order of the
    distributions; `conflicts` lists them.
    """
    found: dict[str, Entry] = {}
    for entry in sorted((_entry(kind, e) for e in entry_points(group=f"pdelab.{kind}")), key=_precedence):
        found.setdefault(entry.name, entry)
    return found


def conflicts(kind: str) -> list[Entry]:
    """Entries that lost their name to another distribution."""
    every = [_entry(kind, e) for e in entry_points(group=f"pdelab.{kind}")]
    return [e for e in every if entries(kind)[e.name] != e]


def register(kind: str, name: str, thing: Any) -> None:
    """Add a class under a name for this process only: the way for notebooks."""
    _registered[(kind, name)] = thing


def names(kind: str) -> list[str]:
    """All names of a kind, sorted; problems with their version."""
    return sorted({*entries(kind), *(n for k, n in _registered if k == kind)})


def find(kind: str, name: str) -> str:
    """The full name: the newest version, if `name` has none.

    Raises:
        UnknownName: no such name; the nearest known ones are offered.
    """
    known = names(kind)
    if name in known:
        return name
    versions = [n for n in known if n.rpartition("-v")[0] == name and n.rpartition("-v")[2].isdigit()]
    if versions:
        return max(versions, key=lambda n: int(n.rpartition("-v")[2]))
    raise UnknownName(KINDS[kind], name, [*known, *_short(known)])


def load(kind: str, name: str) -> Any:
    """The class (or suite) behind a name.

    Raises:
        UnknownName: no such name.
        PluginError: its module fails on import, or it is not what the kind asks for.
    """
    name = find(kind, name)
    if (kind, name) in _registered:
        return _registered[(kind, name)]
    entry = entries(kind)[name]
    module, _, attribute = entry.target.partition(":")
    try:
        thing = getattr(importlib.import_module(module), attribute)
        _check(kind, thing)
    except (Exception, SystemExit) as error:  # a module may even leave the process
        reason = str(error) if isinstance(error, Exception) else f"it leaves with {error!r}"
        raise PluginError(
            f"{kind} {name!r} of {entry.distribution} failed to load ({entry.target}): {reason}"
        ) from error
    return thing


def summary(kind: str, name: str) -> str:
    """First line of the docstring, read from the source without importing it."""
    name = find(kind, name)
    if (kind, name) in _registered:
        return (_registered[(kind, name)].__doc__ or "").strip().partition("\n")[0]
    module, _, attribute = entries(kind)[name].target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        tree = _parsed(str(spec.origin)) if spec else None
    except (Exception, SystemExit):  # a parent package of a plug-in is imported here, and may do anything
        tree = None
    if tree is None:
        return "(cannot be read; see pdelab doctor)"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def failures() -> dict[str, str]:
    """Import everything; name -> traceback of what fails."""
    broken = {}
    for kind in KINDS:
        for name in names(kind):
            try:
                load(kind, name)
            except PluginError:
                broken[f"{kind}: {name}"] = traceback.format_exc()
    return broken


def _check(kind: str, thing: Any) -> None:
    """Raise `TypeError` unless the thing is what the kind asks for."""
    if kind == "suites":
        wanted = (
            all(callable(getattr(case, name, None)) for case in thing for name in ("checked", "runs"))
            if (isinstance(thing, list | tuple))
            else False
        )
        if not wanted or not thing:
            raise TypeError(f"expected a tuple of pdelab.bench.Case or the like, at least one, got {thing!r:.100}")
    elif kind in _BASES:
        module, _, base = _BASES[kind].partition(":")
        fits = isinstance(thing, type) and issubclass(thing, getattr(importlib.import_module(module), base))
        if not fits or not dataclasses.is_dataclass(thing):
            raise TypeError(f"expected a dataclass that is an {base} of {module}, got {thing!r:.100}")


def _entry(kind: str, point: EntryPoint) -> Entry:
    return Entry(kind, point.name, point.value, point.dist.name if point.dist else "?")


def _precedence(entry: Entry) -> tuple[bool, str, str]:
    return entry.distribution != "pdelab", entry.distribution, entry.name


def _short(known: list[str]) -> set[str]:
    return {n.rpartition("-v")[0] for n in known if n.rpartition("-v")[2].isdigit() and "-v" in n}


@functools.cache
def _parsed(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text())

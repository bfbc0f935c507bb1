"""Verified references: closed forms, or our own classical solvers at two resolutions, cached with a checksum."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import Coordinates, Field
from pdelab.pde import AbstractProblem, Computed, Exact

SCHEMA = 1  # raise it when a change of a solver changes stored references
FIELD_KINDS = {"grid": "pdelab.fields:GridField", "mesh": "pdelab.meshes.interpolate:MeshField"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reference:
    """A known solution: `field` (n, d) -> (n, m) float64, and `floor`, its own relative L2 error."""

    field: Field
    kind: str
    floor: float


def resolve(problem: AbstractProblem) -> Reference | None:
    """The reference of a problem, computed now or read from the cache; None if it has none."""
    recipe = problem.reference()
    if recipe is None:
        return None
    if isinstance(recipe, Exact):
        return Reference(ExactField(problem, recipe), "exact", recipe.floor)
    stored = _read(problem, recipe)
    if stored is None:
        stored = _compute(problem, recipe)
        _write(problem, recipe, stored)
    return stored


class ExactField:
    """A closed form as a field."""

    def __init__(self, problem: AbstractProblem, exact: Exact):
        self._problem, self._function = problem, exact.function

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        values = self._function(Coordinates(x, self._problem.axes))
        columns = values if isinstance(values, tuple) else (values,)
        return torch.stack([c.expand(len(x)) for c in columns], dim=1)


def cache_folder() -> Path:
    """$PDELAB_CACHE, or pdelab in the user's cache folder."""
    home = os.environ.get("PDELAB_CACHE")
    if home:
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pdelab"


def _compute(problem: AbstractProblem, recipe: Computed) -> Reference:
    from pdelab import registry
    from pdelab.metrics import _ungauged, _values_at, evaluation_points, relative_errors
    from pdelab.solver import solve

    _log.info("computing the reference of %s with %s", problem.name, recipe.solver)
    solver = registry.load("solvers", recipe.solver)
    target = recipe.problem or problem
    fine, coarse = (
        solve(target, solver(**settings), seed=0, device="cpu").field for settings in (recipe.fine, recipe.coarse)
    )
    if recipe.transform:
        fine, coarse = recipe.transform(fine), recipe.transform(coarse)
    points = evaluation_points(problem)
    a, b = (_ungauged(_values_at(field, points), problem) for field in (fine, coarse))
    distance = relative_errors(b, a, problem.components)["rel_l2"]
    return Reference(fine, recipe.solver, max(distance / (2**recipe.order - 1), 1e-15))


def _key(problem: AbstractProblem, recipe: Computed) -> str:
    target = recipe.problem or problem
    identity = [SCHEMA, problem.name, _plain(problem.parameters), target.name, _plain(target.parameters)]
    identity += [recipe.solver, _plain(recipe.fine), _plain(recipe.coarse), recipe.order]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Settings as text that is the same in every process."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _paths(problem: AbstractProblem, recipe: Computed) -> tuple[Path, Path]:
    stem = cache_folder() / "references" / f"{problem.name}-{_key(problem, recipe)}"
    return stem.with_suffix(".npz"), stem.with_suffix(".json")


def _read(problem: AbstractProblem, recipe: Computed) -> Reference | None:
    data, meta = _paths(problem, recipe)
    try:
        facts = json.loads(meta.read_text())
        raw = data.read_bytes()
        if hashlib.sha256(raw).hexdigest() != facts["sha256"]:
            _log.warning("the cached reference %s is damaged; it is computed again", data)
            return None
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            field = _field_class(facts["field"]).from_arrays(dict(arrays))
        return Reference(field, facts["kind"], float(facts["floor"]))
    except (OSError, ValueError, KeyError):
        return None


def _write(problem: AbstractProblem, recipe: Computed, reference: Reference) -> None:
    """Store beside, then rename; a cache that cannot be written costs time, not the result."""
    from pdelab.files import write_bytes

    data, meta = _paths(problem, recipe)
    field: Any = reference.field
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **field.arrays())
    raw = buffer.getvalue()
    facts = {
        "field": field.kind,
        "kind": reference.kind,
        "floor": reference.floor,
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(data, raw)
        write_bytes(meta, json.dumps(facts).encode())
    except OSError as problem_:
        _log.warning("the reference was not cached: %s", problem_)


def _field_class(kind: str) -> Any:
    import importlib

    module, _, name = FIELD_KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), name)

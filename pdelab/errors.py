"""All exceptions of pdelab, and the checks that raise them at public boundaries."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any


class PdelabError(Exception):
    """Base of every error that pdelab raises on purpose."""


class InputError(PdelabError, ValueError):
    """The input was wrong and nothing was started; the command line exits with status 2."""


class ShapeError(InputError):
    """An array has another shape than the one stated in the docstring."""


class SettingsError(InputError):
    """A setting is unknown, of the wrong type or out of its range."""


class UnknownName(InputError):
    """No problem, solver, suite or key of that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"no {kind} named {name!r}; {hint}")


class IncompatibleProblem(InputError):
    """The solver cannot work on this problem; the message says what it needs."""


class MeshError(InputError):
    """A mesh file or mesh array cannot be used; the message says why."""


class MeshTangled(MeshError):
    """A cell would be inverted or flat."""


class CheckpointError(InputError):
    """A checkpoint is missing, corrupted or belongs to another solver or version."""


class OutputError(InputError):
    """The output folder cannot be written, is full or holds another run."""


class PluginError(InputError):
    """A plug-in failed to import or names something that does not exist."""


class SolveFailed(PdelabError):
    """The solver ran and did not succeed; `solution` holds what there is."""

    def __init__(self, solution: Any):
        self.solution = solution
        super().__init__(f"{solution.status.name}: {solution.message or solution.status.value}")


def check_shape(name: str, array: Any, expected: Sequence[int | None]) -> None:
    """Raise `ShapeError` unless `array.shape` is `expected`; None stands for any length."""
    shape = tuple(array.shape)
    fits = len(shape) == len(expected) and all(e is None or e == s for s, e in zip(shape, expected, strict=True))
    if fits:
        return
    wanted = "(" + ", ".join("any" if e is None else str(e) for e in expected) + ")"
    extra = "; squeeze the last axis" if len(shape) == len(expected) + 1 and shape[-1] == 1 else ""
    raise ShapeError(f"{name}: expected shape {wanted}, got {shape}{extra}")


def check_range(
    name: str, value: float, *, above: float | None = None, least: float | None = None, most: float | None = None
) -> None:
    """Raise `SettingsError` unless value is finite, above < value, least <= value, value <= most (where given)."""
    bounds = [f"> {above}"] * (above is not None) + [f">= {least}"] * (least is not None)
    bounds += [f"<= {most}"] * (most is not None)
    bad = (
        not math.isfinite(value)
        or (above is not None and not value > above)
        or (least is not None and not value >= least)
        or (most is not None and not value <= most)
    )
    if bad:
        kind = "finite number" if math.isinf(value) else "number"
        raise SettingsError(f"{name}: expected a {kind} {' and '.join(bounds)}, got {value!r}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise `SettingsError` unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"{name}: expected one of {', '.join(choices)}, got {value!r}{hint}")

"""Text to settings: 'key=value' and YAML to frozen dataclasses, checked by their own annotations."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pdelab.errors import PdelabError, SettingsError

T = TypeVar("T")


def build(settings_class: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a dataclass from its settings, checked.

    Raises:
        SettingsError: an unknown key (the nearest is named), a wrong type (key, value and what was
            expected), or a value out of range.
    """
    import pydantic

    known = [f.name for f in dataclasses.fields(settings_class) if f.init]  # type: ignore[arg-type]
    label = getattr(settings_class, "name", settings_class.__name__)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
            raise SettingsError(f"{label}: no setting {key!r}; {hint}")
    try:
        checked = pydantic.TypeAdapter(settings_class).validate_python(dict(values))
    except pydantic.PydanticUndefinedAnnotation as error:
        raise SettingsError(f"{label}: its annotations cannot be read: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, PdelabError):
            raise cause from None
        key = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        raise SettingsError(f"{label}: {key}={first['input']!r}: {first['msg']}") from None
    return checked


def parse_assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """['n=3', 'name=x'] -> {'n': 3, 'name': 'x'}; the value is read as YAML.

    Raises:
        SettingsError: no '=' in one of them, or a value that is no plain YAML.
    """
    import yaml

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"expected key=value, got {pair!r}")
        try:
            found[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingsError(f"{key}: {text!r} cannot be read: {error}") from None
    return found

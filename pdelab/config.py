"""Text to settings: 'key=value' and YAML to frozen dataclasses, checked by their own annotations."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pdelab.errors import PdelabError, SettingsError

T = TypeVar("T")


def build(settings_class: type[T], values: Mapping[str, Any], label: str | None = None) -> T:
    """An instance of a dataclass from its settings, checked.

    A field with the metadata `kind`, a kind of the registry, takes a name, `cg`, or a mapping with a name and
    settings, `{name: cg, tolerance: 1e-8}`, as well as the object.

    Args:
        settings_class: what to make.
        values: key -> value.
        label: what errors call it; the `name` of the class, or that of its definition, if None.

    Raises:
        SettingsError: an unknown key (the nearest is named), a wrong type (key, value and what was
            expected), or a value out of range.
        UnknownName: a part that is not in the registry.
    """
    import pydantic

    known = [f.name for f in dataclasses.fields(settings_class) if f.init]  # type: ignore[arg-type]
    label = label or getattr(settings_class, "name", settings_class.__name__)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
            raise SettingsError(f"{label}: no setting {key!r}; {hint}")
    types = {f.name: str(f.type) for f in dataclasses.fields(settings_class)}  # type: ignore[arg-type]
    for key, value in values.items():
        # Python counts True as 1; a width of yes is a slip.
        if isinstance(value, bool) and types[key].split(" ")[0] in ("int", "float"):
            raise SettingsError(f"{label}: {key}={value!r}: expected a number")
    kinds = {f.name: f.metadata["kind"] for f in dataclasses.fields(settings_class) if "kind" in f.metadata}  # type: ignore[arg-type]
    made = {key: _part(kinds[key], value) if key in kinds else value for key, value in values.items()}
    try:
        checked = pydantic.TypeAdapter(settings_class).validate_python(made)
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
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"expected key=value, got {pair!r}")
        found[key.strip()] = read_yaml(text, key)
    return found


def read_yaml(text: str, label: str) -> Any:
    """Plain YAML to numbers, text, lists and mappings; 1e-3 is a number.

    Raises:
        SettingsError: no YAML, or YAML with tags, which could name Python objects.
    """
    import yaml

    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            tag = getattr(event, "tag", None)
            if tag:
                raise SettingsError(f"{label}: tags are not read, got {tag!r}; write plain values")
        return yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{label}: cannot be read as YAML: {' '.join(str(error).split())}") from None


def read_mapping(path: Path, known: Iterable[str]) -> dict[str, Any]:
    """A YAML file with one value for each of some known keys.

    Raises:
        SettingsError: the file is missing, not YAML, no mapping, or has an unknown key (the nearest is named).
    """
    try:
        found = read_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: expected lines 'key: value', got {type(found).__name__}")
    known = list(known)
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise SettingsError(f"{path}: no key {key!r}; {hint}")
    return found


def _part(kind: str, value: Any) -> Any:
    """The object that a name, or a mapping with a name, stands for; anything else as it is."""
    from pdelab import registry

    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        return value
    return build(registry.load(kind, given["name"]), {k: v for k, v in given.items() if k != "name"})


def _loader() -> Any:
    """A safe loader that also takes 1e-3 for a number, as YAML 1.2 does."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )
    return Loader

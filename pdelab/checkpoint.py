"""Checkpoints: the state of a long run as safetensors and JSON, so that loading one never runs code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pdelab
from pdelab import files
from pdelab.errors import CheckpointError, OutputError, PdelabError

KEEP = 2
_NAME = re.compile(r"step-(\d+)\.json")
_log = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one run: `folder/step-0001000.safetensors` with `folder/step-0001000.json` beside it.

    The JSON file is written last and holds the SHA-256 of the tensors, so a run killed while saving leaves
    the checkpoint before it in charge. The newest two are kept.

    Args:
        folder: where the files are; made at the first save.
        owner: what the state belongs to (solver, settings, problem, seed), as JSON values. A checkpoint of
            another owner is refused.
        every: wall seconds between two checkpoints of a training; 0 saves after each step.
    """

    def __init__(self, folder: str | Path, owner: Mapping[str, Any], every: float = 10.0):
        self.folder = Path(folder)
        self.every = every
        # Through JSON once, so that tuples compare equal to the lists that are read back.
        self.owner: dict[str, Any] = json.loads(json.dumps(dict(owner), default=str))

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Write one checkpoint, whole or not at all; remove all but the newest two, and half files of killed processes.

        Args:
            step: number of steps done; names the files.
            tensors: any shapes and dtypes; copied to the CPU.
            facts: JSON values; floats come back exactly.

        Returns:
            The JSON file.

        Raises:
            OutputError: the folder cannot be written or is full.
        """
        from safetensors.torch import save

        data = save({name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()})
        record = {
            "pdelab": pdelab.__version__,
            "owner": self.owner,
            "step": step,
            "sha256": hashlib.sha256(data).hexdigest(),
            "facts": dict(facts),
        }
        path = self.folder / f"step-{step:07d}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path.with_suffix(".safetensors"), data)
            files.write_text(path, json.dumps(record, allow_nan=False))
            for old in self._found()[KEEP:]:
                # The JSON first: tensors without it are no checkpoint, the reverse would look damaged.
                old.unlink(missing_ok=True)
                old.with_suffix(".safetensors").unlink(missing_ok=True)
            for half in self.folder.glob(".step-*"):
                half.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"checkpoint {path} cannot be written ({error.strerror or error}); free some space or choose "
                f"another output folder"
            ) from error
        return path

    def load(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Step, tensors (on the CPU) and facts of the newest sound checkpoint; None if there is none at all.

        Raises:
            CheckpointError: it belongs to another owner or version, or every checkpoint is damaged.
            OutputError: something else than a folder has the folder's name, so nothing could be saved.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(
                f"{self.folder}: a file has the name of the folder for checkpoints; remove it or choose another "
                f"output folder"
            )
        reasons = []
        for path in self._found():
            try:
                found = self._read(path)
            except _DamagedError as damage:
                reasons.append(f"{path.name}: {damage}")
                _log.warning("checkpoint %s is damaged (%s); looking for an older one", path, damage)
                continue
            return found
        if reasons:
            raise CheckpointError(
                f"no sound checkpoint in {self.folder} ({'; '.join(reasons)}); remove the folder to start anew"
            )
        return None

    def _found(self) -> list[Path]:
        """The JSON files, newest first."""
        if not self.folder.is_dir():
            return []
        numbered = [(int(m[1]), p) for p in self.folder.iterdir() if (m := _NAME.fullmatch(p.name))]
        return [path for _, path in sorted(numbered, reverse=True)]

    def _read(self, path: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            version, owner = record["pdelab"], record["owner"]
            step, facts, digest = int(record["step"]), dict(record["facts"]), record["sha256"]
            data = path.with_suffix(".safetensors").read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _DamagedError(f"unreadable: {type(error).__name__}: {error}") from error
        # Whose it is comes first: another run's files are refused, never passed over.
        self._check_owner(path, version, owner)
        if hashlib.sha256(data).hexdigest() != digest:
            raise _DamagedError("the tensors do not match their checksum")
        try:
            return step, load(data), facts
        except SafetensorError as error:
            raise _DamagedError(f"not a safetensors file: {error}") from error

    def _check_owner(self, path: Path, version: Any, owner: Any) -> None:
        if version != pdelab.__version__:
            raise CheckpointError(
                f"{path} was written by pdelab {version}, this is {pdelab.__version__}; use that version or start anew"
            )
        if owner != self.owner:
            differences = ", ".join(_differences(owner if isinstance(owner, dict) else {}, self.owner))
            raise CheckpointError(f"{path} belongs to another run ({differences}); choose another output folder")


class _DamagedError(Exception):
    """This checkpoint cannot be used; the message says why."""


class ReadCheckpoints(CheckpointStore):
    """The checkpoints of a run for the processes that do not write them."""

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Nothing; another process does."""
        return self.folder / f"step-{step:07d}.json"


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    """One text for each value that differs, those of nested mappings by their path."""
    for key in sorted({*theirs, *ours}):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{inside}{key}.")
        elif a != b:
            yield f"{inside}{key}: {a!r} there, {b!r} here"


def flatten(state: Any) -> tuple[dict[str, Tensor], Any]:
    """A nested state (dicts, lists, tuples, tensors, numbers, text, None) as tensors and a JSON tree.

    `restore` gives it back exactly: dictionary keys keep their type, floats their bits.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _encode(state, "state", tensors)


def restore(tensors: Mapping[str, Tensor], tree: Any) -> Any:
    """The inverse of `flatten`.

    Raises:
        CheckpointError: the tree was not made by `flatten`, or lacks a tensor.
    """
    try:
        return _decode(tree, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the state in the checkpoint cannot be read ({error!r}); start anew") from error


@contextlib.contextmanager
def restoring() -> Iterator[None]:
    """Within: a state is put back; one that does not fit is a `CheckpointError`, not a defect."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        if isinstance(error, PdelabError):
            raise
        raise CheckpointError(
            f"the state in the checkpoint does not fit this run ({type(error).__name__}: {error}); "
            f"remove the folder 'checkpoint' of the run to start anew"
        ) from error


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"dict": [[_encode(k, path, tensors), _encode(v, f"{path}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encode(v, f"{path}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be kept in a checkpoint")


def _decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in inner}
    if kind == "float":
        return float(inner)
    items = [_decode(v, tensors) for v in inner]
    return {"list": list, "tuple": tuple}[kind](items)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's global random streams."""
    streams = {"cpu": torch.get_rng_state()}
    return streams | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(streams: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's global random streams back."""
    torch.set_rng_state(streams["cpu"])
    if "cuda" in streams and device.type == "cuda":
        torch.cuda.set_rng_state(streams["cuda"], device)

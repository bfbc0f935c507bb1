"""The weights of a network in one safetensors file, with what they belong to; no code runs from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pdelab
from pdelab.errors import CheckpointError, OutputError
from pdelab.files import write_bytes

if TYPE_CHECKING:
    from torch import nn

VERSION = 1


def write_state(path: Path, network: nn.Module, about: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all.

    Args:
        path: of the file; its folder is made.
        network: whose weights, and extra state if it has such, are kept.
        about: JSON values, e.g. names and settings.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    from pdelab.results import plain

    extra = network.get_extra_state() if _has_extra(network) else None
    facts = {"version": VERSION, "pdelab": pdelab.__version__, "extra": extra, **plain(dict(about))}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in _tensors(network).items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, to_bytes(tensors, {"pdelab": json.dumps(facts)}))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_about(path: str | Path, wanted: Iterable[str]) -> dict[str, Any]:
    """What the file says of itself; no weights are read.

    Args:
        path: of the file.
        wanted: keys that must be there besides version and extra.

    Raises:
        CheckpointError: missing, damaged, or of another version or program.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("pdelab", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"state {path}: cannot be read ({error}); 'pdelab train' makes such files") from None
    version = about.get("version") if isinstance(about, dict) else None
    if version != VERSION:
        raise CheckpointError(f"state {path}: expected version {VERSION}, got {version}; train it again")
    lacking = sorted({"extra", *wanted} - set(about))
    if lacking:
        raise CheckpointError(f"state {path}: does not say its {', '.join(lacking)}; train it again")
    return dict(about)


def fill(network: nn.Module, path: str | Path, about: Mapping[str, Any]) -> None:
    """Put the weights of the file, of which `read_about` told, into a network, and freeze it.

    Raises:
        CheckpointError: the weights are of another network.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    try:
        missing = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"state {path}: the weights do not fit: {error}") from None
    lacking = [k for k in missing.missing_keys if not k.endswith("_extra_state")]
    if lacking or missing.unexpected_keys:
        raise CheckpointError(f"state {path}: the weights do not fit: {lacking or missing.unexpected_keys}")
    if _has_extra(network):
        network.set_extra_state(about["extra"])
    network.requires_grad_(False)


def _tensors(network: nn.Module) -> dict[str, Any]:
    import torch

    return {k: v for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}


def _has_extra(network: nn.Module) -> bool:
    from torch import nn

    return type(network).get_extra_state is not nn.Module.get_extra_state

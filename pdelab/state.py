"""What an operator solver has learned, in one file: weights as safetensors, with the settings that they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pdelab
from pdelab import registry
from pdelab.config import build
from pdelab.errors import CheckpointError, OutputError
from pdelab.files import write_bytes

if TYPE_CHECKING:
    from torch import nn

    from pdelab.pde import AbstractFamily
    from pdelab.solver import AbstractOperatorSolver

VERSION = 1


@dataclass(frozen=True, eq=False)
class Learned:
    """A solver with the family that it was trained on and its network."""

    solver: AbstractOperatorSolver[Any]
    family: AbstractFamily
    network: nn.Module


def save_state(
    path: Path, solver: AbstractOperatorSolver[Any], family: AbstractFamily, network: nn.Module, facts: dict[str, Any]
) -> None:
    """Write the file, whole or not at all.

    Args:
        path: of the file; its folder is made.
        solver: with its settings, which the file keeps.
        family: likewise.
        network: what `solver.prepare` returned.
        facts: about the training, JSON values: seed, steps, losses.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    from pdelab.results import plain, settings

    extra = network.get_extra_state() if _has_extra(network) else None
    about = {
        "version": VERSION,
        "pdelab": pdelab.__version__,
        "solver": solver.name,
        "solver_args": plain(settings(solver)),
        "family": family.name,
        "family_args": plain(settings(family)),
        "extra": extra,
        "facts": plain(facts),
    }
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in _tensors(network).items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, to_bytes(tensors, {"pdelab": json.dumps(about)}))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None


def load_state(path: str | Path) -> Learned:
    """Read the file; no code runs from it.

    Raises:
        CheckpointError: missing, damaged, or of another version or program.
        UnknownName: its solver or family is not installed.
    """
    import torch
    from safetensors import safe_open

    from pdelab.solver import AbstractOperatorSolver

    about = read_about(path)
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    solver = build(registry.load("solvers", about["solver"]), about["solver_args"])
    family = build(registry.load("families", about["family"]), about["family_args"])
    if not isinstance(solver, AbstractOperatorSolver):
        raise CheckpointError(f"state {path}: {about['solver']!r} solves problems one by one and learns no state")
    network = solver.blank(family)
    try:
        missing = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"state {path}: the weights do not fit {about['solver']!r}: {error}") from None
    lacking = [k for k in missing.missing_keys if not k.endswith("_extra_state")]
    if lacking or missing.unexpected_keys:
        raise CheckpointError(f"state {path}: the weights do not fit: {lacking or missing.unexpected_keys}")
    if _has_extra(network):
        network.set_extra_state(about["extra"])
    network.requires_grad_(False)
    assert isinstance(network, torch.nn.Module)
    return Learned(solver, family, network)


def read_about(path: str | Path) -> dict[str, Any]:
    """What the file says of itself: solver, solver_args, family, family_args, extra and facts; no weights are read.

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
    lacking = sorted({"solver", "solver_args", "family", "family_args", "extra"} - set(about))
    if lacking:
        raise CheckpointError(f"state {path}: does not say its {', '.join(lacking)}; train it again")
    return dict(about)


def _tensors(network: nn.Module) -> dict[str, Any]:
    import torch

    return {k: v for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}


def _has_extra(network: nn.Module) -> bool:
    from torch import nn

    return type(network).get_extra_state is not nn.Module.get_extra_state

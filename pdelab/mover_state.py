"""What a mover has learned, in one file: weights, with the settings that they belong to."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdelab import registry, state_file
from pdelab.config import build
from pdelab.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

    from pdelab.mover import AbstractLearnedMover


def save_mover(path: Path, mover: AbstractLearnedMover[Any], network: nn.Module, facts: dict[str, Any]) -> None:
    """Write the file, whole or not at all.

    Args:
        path: of the file; its folder is made.
        mover: with its settings, which the file keeps.
        network: what `mover.prepare` returned.
        facts: about the training, JSON values: seed, steps, losses.

    Raises:
        OutputError: the file cannot be written.
    """
    from pdelab.results import settings

    state_file.write_state(
        path, network, {"mover": mover.name, "mover_args": {**settings(mover), "weights": None}, "facts": facts}
    )


def load_mover(path: str | Path, name: str) -> nn.Module:
    """The network of the file, in the sizes that it was trained with; a file is read once until it changes.

    Args:
        path: of the file.
        name: of the mover that asks for it.

    Raises:
        CheckpointError: missing, damaged, or of another version, program or mover.
    """
    try:
        changed = os.stat(path).st_mtime_ns
    except OSError as error:
        raise CheckpointError(
            f"weights {path}: {error.strerror}; 'pdelab train {name} --out FILE' makes such a file, --set "
            "weights=FILE uses it"
        ) from None
    return _load(str(path), changed, name)


@functools.lru_cache(maxsize=8)
def _load(path: str, changed: int, name: str) -> nn.Module:
    about = state_file.read_about(path, ("mover", "mover_args"))
    if about["mover"] != name:
        raise CheckpointError(f"weights {path}: they are of {about['mover']!r}, not of {name!r}; train {name} for some")
    network: nn.Module = build(registry.load("movers", name), about["mover_args"]).blank()
    state_file.fill(network, path, about)
    return network.eval()

"""Pictures that are drawn after the run, from what was kept of it, so that a bench does not wait for them."""

from __future__ import annotations

import json
from pathlib import Path

from pdelab.errors import InputError, OutputError
from pdelab.files import write_bytes, write_text
from pdelab.manifest import checksums
from pdelab.scene import Scene, from_bytes, to_bytes
from pdelab.staging import staged

STORED = "figures.npz"
"""What the pictures of a run will show; it is gone once they are drawn."""


def store(scene: Scene, folder: Path) -> list[str]:
    """Keep what the pictures show; return the names that they will have in the folder of the run.

    Raises:
        OSError: the file cannot be written.
    """
    write_bytes(folder / STORED, to_bytes(scene))
    return [f"figures/{kind}.png" for kind in scene.kinds]


def draw_stored(folder: Path) -> list[Path]:
    """Draw the pictures that were kept back, if there are any, and add their checksums to manifest.json.

    Args:
        folder: of a finished run.

    Returns:
        The pictures.

    Raises:
        InputError: what was kept cannot be read.
        OutputError: the folder cannot be written; it is then as it was before.
    """
    from pdelab.figures import write_figures

    stored, manifest = folder / STORED, folder / "manifest.json"
    try:
        data, facts = stored.read_bytes(), json.loads(manifest.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: the pictures cannot be drawn: {error}") from None
    with staged(folder) as new:
        written = write_figures(from_bytes(data), new / "figures")
        sums = checksums({f"figures/{path.name}": path for path in written})
        facts["files"] = dict(sorted((facts["files"] | sums).items()))
        write_text(new / manifest.name, json.dumps(facts, indent=2) + "\n")
    try:
        stored.unlink()
    except OSError as error:
        raise OutputError(f"{stored}: cannot be removed: {error.strerror or error}") from None
    return [folder / "figures" / path.name for path in written]

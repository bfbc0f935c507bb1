"""Several files and folders appear in an output folder together, or none of them does."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pdelab.errors import OutputError

PREFIX = ".writing-"


@contextlib.contextmanager
def staged(folder: Path, *, last: str = "") -> Iterator[Path]:
    """An empty folder to write into; at the end each of its entries takes its place in `folder`.

    An entry of the same name that was there before is replaced as a whole, so nothing of an older one is
    left in a folder. Only renames happen at the end: a full disk shows while nothing is in place yet. What a
    process that was killed while writing has left is removed first.

    Args:
        folder: where the entries are to appear; it exists.
        last: the entry that takes its place after all others, the mark of a complete set.

    Raises:
        OutputError: something could not be written; `folder` is then as it was before.
    """
    work = None
    try:
        for remains in Path(folder).glob(f"{PREFIX}*"):
            shutil.rmtree(remains, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        new, old = work / "new", work / "old"
        new.mkdir()
        old.mkdir()
        yield new
        _swap(folder, new, old, last)
    except (OSError, OutputError) as error:
        # What was written in here names a file in the work folder; people know only `folder`.
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise OutputError(f"{folder}: cannot write: {cause.strerror or cause}; nothing was changed there") from cause
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _swap(folder: Path, new: Path, old: Path, last: str) -> None:
    """Rename the old entries away and the new ones into place; put everything back if one rename fails."""
    names = sorted(os.listdir(new), key=lambda name: (name == last, name))
    done: list[tuple[Path, Path]] = []

    def rename(source: Path, target: Path) -> None:
        os.rename(source, target)
        done.append((source, target))

    try:
        for name in reversed(names):
            if os.path.lexists(folder / name):
                rename(folder / name, old / name)
        for name in names:
            rename(new / name, folder / name)
    except OSError:
        for source, target in reversed(done):
            os.rename(target, source)
        raise

"""How the command speaks: progress, tables, logs, warnings and errors, on a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PLAIN_SECONDS = 5.0  # between two progress lines where there is no terminal


@contextlib.contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Any]:
    """A function to call with `Progress`: a bar on a terminal, a line now and then elsewhere, nothing if quiet."""
    if quiet:
        yield lambda progress: None
        return
    with logged():
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(title, total=None)
                yield lambda p: bar.update(task, total=p.total, completed=p.step, description=f"{title} {_state(p)}")
            return
        print(title, file=sys.stderr)
        last = time.monotonic()

        def line(progress: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                print(_state(progress), file=sys.stderr, flush=True)

        yield line


def _state(progress: Any) -> str:
    values = ", ".join(f"{k} {v:.3g}" for k, v in list(progress.values.items())[:2])
    return f"step {progress.step}{f' of {progress.total}' if progress.total else ''}  {values}"


@contextlib.contextmanager
def counter(total: int, done: int, *, quiet: bool) -> Iterator[Any]:
    """A function to call with a line for each finished run: under a bar on a terminal, numbered elsewhere."""
    if quiet:
        yield lambda text: None
    elif sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task("runs", total=total, completed=done)

            def tick(text: str) -> None:
                bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
                bar.advance(task)

            yield tick
    else:
        count = iter(range(done + 1, total + 1))
        yield lambda text: print(f"[{next(count)}/{total}] {text}", flush=True)


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Show what the library logs, for as long as a command works."""
    handler, log = logging.StreamHandler(), logging.getLogger("pdelab")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show each distinct warning of Python once, in one line, without the source of the library."""
    shown: set[str] = set()
    before = warnings.showwarning

    def tell(message: Warning | str, *place: Any, **more: Any) -> None:
        text = str(message)
        if text not in shown:
            shown.add(text)
            print(f"warning: {text}", file=sys.stderr)

    warnings.showwarning = tell
    try:
        yield
    finally:
        warnings.showwarning = before


def table(header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """Columns of text, as wide as they need to be."""
    texts = [header, *([cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]
    for row in texts:
        print("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """A value as text; a dash for None."""
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def print_files(paths: Iterable[Path]) -> None:
    """The list of what was written."""
    print("files:", *(f"  {path}" for path in paths), sep="\n")


def complain(text: str) -> None:
    """An error, on stderr."""
    print(f"error: {text}", file=sys.stderr)

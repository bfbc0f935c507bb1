"""Signals that wait until the state of a run is saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def noted_interrupts(enabled: bool) -> Iterator[Callable[[], int]]:
    """Within: SIGINT and SIGTERM are noted, so that a checkpoint can be written first; a second one acts at once."""
    noted: list[int] = []

    def note(number: int, frame: Any) -> None:
        if noted:
            raise_interrupt(number)
        noted.append(number)

    # Python lets only the main thread install handlers.
    numbers = (signal.SIGINT, signal.SIGTERM)
    here = enabled and threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in numbers} if here else {}
    try:
        yield lambda: noted[0] if noted else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_interrupt(number: int) -> None:
    """What the signal stands for; nothing for 0."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number:
        raise SystemExit(128 + number)

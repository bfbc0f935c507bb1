"""Many independent calls in processes of one thread each; a process that dies is an outcome, not the end."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pdelab.errors import InputError

Item = TypeVar("Item")

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class WorkerDied(Exception):
    """The process that ran the call was killed, e.g. for want of memory."""


class Workers:
    """Processes of this machine, or of a Dask cluster, that live until the end of the `with` block.

    Args:
        workers: processes on this machine, at least 1.
        scheduler: address of a Dask scheduler; its workers are used then.

    Raises:
        InputError: Dask is not installed, or its workers have several threads (seeds would mix).
    """

    _close: Callable[[], object]

    def __init__(self, workers: int, scheduler: str | None = None):
        self._workers, self._scheduler = workers, scheduler
        self._start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *details: object) -> None:
        self._close()

    def outcomes(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """(item, function(item)) as they finish; an exception stands in place of the result of a call that raised.

        If a process dies, the calls that were running are made again one at a time, which tells the one that
        kills its process (outcome `WorkerDied`) from its neighbours.

        Args:
            function: of a module, so that other processes can import it.
            items: its arguments, sent by pickle.
        """
        waiting, alone = collections.deque(items), collections.deque[Item]()
        while waiting or alone:
            source, width = (alone, 1) if alone else (waiting, self._width)
            running: dict[futures.Future, Item] = {}
            try:
                while source or running:
                    while source and len(running) < width:
                        item = source.popleft()
                        running[self._submit(function, item)] = item
                    done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                    for future in done:
                        error = future.exception()
                        if isinstance(error, BrokenProcessPool):
                            raise error
                        yield running.pop(future), error or future.result()
            except BrokenProcessPool:
                self._close()
                self._start()
                if source is alone:
                    for item in running.values():
                        yield item, WorkerDied("the worker process died; it may have run out of memory")
                else:
                    alone.extend(running.values())

    def _start(self) -> None:
        if self._scheduler is not None:
            client = _dask_client(self._scheduler)
            self._width, self._submit = len(client.nthreads()), client.get_executor(pure=False).submit
            self._close = client.close
            return
        from joblib.externals.loky import ProcessPoolExecutor

        executor = ProcessPoolExecutor(self._workers, initializer=_leave_with, initargs=(os.getpid(),), env=ONE_THREAD)
        self._width, self._submit = self._workers, executor.submit
        self._close = lambda: executor.shutdown(wait=True, kill_workers=True)


def _dask_client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--scheduler needs Dask: pip install 'pdelab[dask]'") from None
    try:
        client = Client(scheduler, timeout="10s")
    except OSError as error:
        raise InputError(f"no Dask scheduler answers at {scheduler!r}: {error}") from None
    threads = client.nthreads()
    if not threads or set(threads.values()) != {1}:
        client.close()
        raise InputError(
            f"the Dask workers at {scheduler!r} have {sorted(threads.values()) or 'no'} threads; "
            "start at least one, each with 'dask worker ADDRESS --nthreads 1'"
        )
    return client


def _leave_with(parent: int) -> None:
    """In a new worker: let it end soon after its parent is gone, however that ended."""
    from joblib.externals.loky import process_executor

    # loky takes a large result for a leak, and would start a new process that has to import everything again.
    process_executor._USE_PSUTIL = False

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

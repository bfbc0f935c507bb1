import os
import signal
import sys
import types

import pytest

from pdelab.errors import InputError
from pdelab.workers import ONE_THREAD, WorkerDied, Workers


def call(n):
    """Of a toy worker: dies, fails or answers."""
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 5:
        raise ValueError("five")
    return n * n, {name: os.environ[name] for name in ONE_THREAD}


def test_a_death_or_an_error_is_the_outcome_of_its_own_call():
    with Workers(2) as pool:
        found = dict(pool.outcomes(call, range(8)))
        again = dict(pool.outcomes(call, [7]))
    assert isinstance(found.pop(3), WorkerDied)
    assert str(found.pop(5)) == "five"
    assert found == {n: (n * n, ONE_THREAD) for n in (0, 1, 2, 4, 6, 7)}
    assert again == {7: (49, ONE_THREAD)}


def test_dask_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="pdelab.dask"):
        Workers(1, "tcp://localhost:8786")


def test_dask_workers_need_one_thread_each(monkeypatch):
    closed = []

    class Client:
        def __init__(self, address, timeout):
            if "absent" in address:
                raise OSError("nobody there")

        def nthreads(self):
            return {"a": 1, "b": 4}

        def close(self):
            closed.append(True)

    monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(Client=Client))
    with pytest.raises(InputError, match="have .1, 4. threads"):
        Workers(1, "tcp://localhost:8786")
    assert closed
    with pytest.raises(InputError, match="no Dask scheduler answers at 'tcp://absent:1': nobody there"):
        Workers(1, "tcp://absent:1")

import sys
from pathlib import Path

import pytest

from pdelab import registry

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """The toy plug-in installed beside pdelab, here and in processes started from here; an empty working folder."""
    monkeypatch.syspath_prepend(TOYS)
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    monkeypatch.chdir(tmp_path)
    registry.entries.cache_clear()
    yield tmp_path
    registry.entries.cache_clear()
    sys.modules.pop("pdelab_toys", None)

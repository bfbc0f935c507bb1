"""Benches of movers: a mover that does nothing, and one that does what the relaxation does, have known numbers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from pdelab import registry
from pdelab.errors import MeshTangled, SettingsError
from pdelab.mesh import Mesh
from pdelab.meshes.movers.monge_ampere import MongeAmpere
from pdelab.meshes.movers.stress import stress_meshes, stress_monitor
from pdelab.mover import AbstractMonitorMover
from pdelab.mover_bench import MoverCase
from pdelab.mover_stress import StressCase


@dataclass(frozen=True)
class _Rest(AbstractMonitorMover[None]):
    """Moves nothing."""

    monitor: str = "given"
    name: ClassVar[str] = "rest"

    def prepare(self, cases, *, context):
        return None

    def monitor_at_nodes(self, mesh, values):
        return values[:, 0]

    def move(self, mesh, values, state):
        return mesh


class _Folding(_Rest):
    """Folds one cell, or says that it cannot go on."""

    name: ClassVar[str] = "folding"

    def move(self, mesh, values, state):
        if mesh.n_points < 100:
            raise MeshTangled("no")
        cells = mesh.cells.copy()
        cells[0] = cells[0, ::-1]
        return Mesh(mesh.points, cells, mesh.cell_type)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    known = registry.load
    toys = {"rest": _Rest, "folding": _Folding}
    monkeypatch.setattr(registry, "load", lambda kind, name: toys[name] if name in toys else known(kind, name))


def measured(case):
    (run,) = case.checked().runs(None, "cpu")
    return run.job.run()["metrics"]


def test_a_mover_that_does_nothing_and_the_relaxation_itself():
    few = {"resolutions": (8, 9), "members": 2, "grid": (41, 41)}
    rest = measured(MoverCase({"name": "rest"}, **few))
    assert rest["spread_share"] == 1 and rest["area_ratio"] == 1 and rest["reduction"] == 0
    assert rest["inverted"] == 0 and rest["worse_share"] == 1 and rest["relaxation_spread_share"] < 0.5
    same = measured(MoverCase({"name": "monge-ampere", "method": "relaxation"}, **few))
    assert same["area_ratio"] == 0 and same["lost_reduction"] == 0
    assert same["spread_share"] == same["relaxation_spread_share"] == rest["relaxation_spread_share"]
    assert same["reduction"] == rest["relaxation_reduction"] and 0.3 < same["time_share"] < 3


def test_stress_counts_folded_cells_and_refusals():
    rest, folding = (measured(StressCase({"name": name}, monitors=20)) for name in ("rest", "folding"))
    assert (rest["inverted"], rest["refused"], rest["spread_share"]) == (0, 0, 1)
    assert (folding["inverted"], folding["refused"]) == (19, 1)
    assert 20 < rest["peak_max"] <= 50


def test_stress_monitors_have_the_peak_that_was_asked_for():
    u = np.random.default_rng(0).random(2000) - 0.3
    for peak in (1.5, 5.0, 50.0):
        m = stress_monitor(u, peak)
        assert m.max() / m.mean() == pytest.approx(peak, rel=1e-3) and m.min() >= 1


def test_stress_meshes_are_twenty_and_sound():
    meshes = stress_meshes()
    assert len(meshes) == 20 and all((mesh.volumes() > 0).all() for mesh in meshes)
    assert all(80 <= mesh.n_points <= 600 for mesh in meshes)
    assert len({tuple(np.round(mesh.points.sum(axis=0), 6)) for mesh in meshes}) == 20


@pytest.mark.parametrize("name", ["um2n", "spring"])
def test_no_cell_is_folded_by_steep_monitors(name):
    found = measured(StressCase({"name": name}, monitors=60))
    assert found["inverted"] == 0 and found["refused"] == 0 and found["peak_max"] > 30


def test_nor_by_monge_ampere():
    mesh = stress_meshes()[9]
    for seed in range(3):
        m = stress_monitor(np.random.default_rng(seed).random(mesh.n_points), 30.0)
        assert (MongeAmpere(monitor="given").move(mesh, m[:, None]).volumes() > 0).all()


def test_cases_are_checked():
    with pytest.raises(SettingsError, match="sweps"):
        MoverCase({"name": "um2n", "sweps": 3}).checked()
    with pytest.raises(SettingsError, match="box"):
        MoverCase({"name": "um2n"}, family="darcy-holes").checked()
    with pytest.raises(SettingsError, match="closed form"):
        StressCase({"name": "um2n"}, family="darcy").checked()
    with pytest.raises(SettingsError, match="um2m"):
        StressCase({"name": "um2m"}).checked()

import numpy as np
import pytest
from move_cases import l_shape, random_monitor, spread, square, with_holes

from pdelab import testing
from pdelab.errors import InputError, SettingsError, UnknownName
from pdelab.meshes.movers.spring import Spring

GIVEN = Spring(monitor="given")


def test_contract():
    testing.check_mover(Spring())
    testing.check_mover(Spring(monitor="both", smoothing=10.0))


def test_constant_monitors_move_nothing():
    mesh = with_holes(0.1)
    for constant in (1.0, 3.7e5):
        moved = GIVEN.move(mesh, np.full((mesh.n_points, 1), constant))
        assert np.abs(moved.points - mesh.points).max() <= 1e-13


@pytest.mark.parametrize("make", [square, l_shape, with_holes])
def test_cells_gather_where_the_monitor_is_large_and_none_is_lost(make):
    mesh = make(16) if make is square else make()
    for seed, strength in ((52, 5.0), (913, 60.0)):
        m = random_monitor(mesh, seed, strength)
        moved = GIVEN.move(mesh, m[:, None])
        assert (moved.volumes() > 0).all()
        assert spread(mesh, moved, m) < 0.95 * spread(mesh, mesh, m)


def test_wrong_input_is_told():
    mesh = square(4)
    with pytest.raises(InputError, match="got -1.0 at node 0"):
        GIVEN.move(mesh, -np.ones((25, 1)))
    with pytest.raises(UnknownName):
        Spring(fixed=("walls",)).move(mesh, np.ones((25, 1)))
    with pytest.raises(SettingsError):
        Spring(steps=-1)

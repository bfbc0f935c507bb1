import math

import numpy as np
import pytest

from pdelab.domain import Box
from pdelab.errors import MeshError, SettingsError
from pdelab.meshes.inclusions import inclusion_mesh
from pdelab.meshes.measure import validity
from pdelab.shapes import Ball, Ellipse, Polygon

CELL = Box((-0.5, -0.5), (0.5, 0.5))
DISC = Ball((0.05, -0.02), 0.2)


@pytest.mark.parametrize("order", [1, 2])
def test_edges_follow_the_inclusion_and_opposite_sides_match(order):
    mesh = inclusion_mesh(CELL, [DISC], 0.1, order)
    assert validity(mesh)["inverted_cells"] == 0
    x = mesh.points
    for axis in range(2):
        low, high = (np.sort(x[np.abs(x[:, axis] - at) < 1e-12][:, 1 - axis]) for at in (-0.5, 0.5))
        assert len(low) >= 10 * order and np.abs(low - high).max() < 1e-12
    # Cells of both materials share nodes of the circle only.
    shared = np.intersect1d(*(mesh.cells[mesh.regions[name]] for name in ("matrix", "inclusion")))
    off = np.linalg.norm(x[shared] - DISC.centre, axis=1) - DISC.radius
    assert len(shared) > 30 and np.abs(off).max() < 1e-12
    assert sum(map(len, mesh.regions.values())) == len(mesh.cells)
    straight = float(mesh.volumes()[mesh.regions["inclusion"]].sum())
    assert 0.98 * math.pi * 0.04 < straight < math.pi * 0.04
    assert float(mesh.volumes().sum()) == pytest.approx(1, rel=1e-12)
    assert set(mesh.facets) == {"left", "right", "bottom", "top"}


def test_cells_beside_the_inclusion_are_smaller():
    mesh = inclusion_mesh(CELL, [DISC], 0.1)
    far = np.linalg.norm(mesh.points[mesh.cells].mean(axis=1) - DISC.centre, axis=1)
    volume = mesh.volumes()
    assert volume[np.abs(far - 0.2) < 0.02].mean() < 0.25 * volume[far > 0.4].mean()


def test_several_inclusions_of_several_shapes():
    triangle = Polygon(((-0.4, -0.4), (-0.1, -0.4), (-0.25, -0.2)))
    ellipse = Ellipse((0.2, -0.2), (0.1, 0.2))
    mesh = inclusion_mesh(CELL, [triangle, ellipse, Ball((-0.1, 0.25), 0.15)], 0.1, 2)
    area = 0.03 + math.pi * (0.02 + 0.0225)
    assert float(mesh.volumes()[mesh.regions["inclusion"]].sum()) == pytest.approx(area, rel=2e-2)


def test_without_inclusions_there_are_no_regions():
    mesh = inclusion_mesh(CELL, [], 0.25)
    assert not mesh.regions and float(mesh.volumes().sum()) == pytest.approx(1, rel=1e-12)


def test_same_arguments_same_mesh():
    one, other = (inclusion_mesh(CELL, [DISC], 0.2, 2) for _ in range(2))
    assert np.array_equal(one.points, other.points) and np.array_equal(one.cells, other.cells)


def test_what_cannot_be_meshed_is_refused():
    with pytest.raises(MeshError, match="reaches the sides"):
        inclusion_mesh(CELL, [Ball((0.4, 0.0), 0.2)], 0.1)
    with pytest.raises(MeshError, match="2 dimensions"):
        inclusion_mesh(Box((0.0,) * 3, (1.0,) * 3), [], 0.1)
    with pytest.raises(SettingsError, match="more than 1e6 cells"):
        inclusion_mesh(CELL, [DISC], 1e-4)
    with pytest.raises(SettingsError, match="order: expected 1 or 2, got 3"):
        inclusion_mesh(CELL, [DISC], 0.1, 3)

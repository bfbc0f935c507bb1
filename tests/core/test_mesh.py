import itertools

import numpy as np
import pytest

from pdelab.errors import MeshError, MeshTangled, ShapeError
from pdelab.mesh import CELL_TYPES, Mesh
from pdelab.meshes.shape import TETRA_EDGES

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def square() -> Mesh:
    return Mesh(SQUARE, [[0, 1, 2], [0, 2, 3]], facets={"bottom": [[0, 1]]}, regions={"upper": [1]})


def test_volumes_of_one_cell_of_each_type():
    tetra = np.vstack([np.zeros(3), np.diag([2.0, 3.0, 4.0])])
    mids = 0.5 * (SQUARE + np.roll(SQUARE, -1, axis=0))
    triangle6 = np.array([[0, 0], [2, 0], [0, 1], [1, 0], [1, 0.5], [0, 0.5]])
    cells = {
        "line": (np.array([[0.5], [2.0]]), 1.5),
        "triangle": (SQUARE[:3], 0.5),
        "quad": (SQUARE, 1.0),
        "tetra": (tetra, 4.0),
        "triangle6": (triangle6, 1.0),
        "quad8": (np.vstack([SQUARE, mids]), 1.0),
        "tetra10": (np.vstack([tetra, [0.5 * (tetra[i] + tetra[j]) for i, j in TETRA_EDGES]]), 4.0),
    }
    assert set(cells) == set(CELL_TYPES)
    for kind, (points, volume) in cells.items():
        mesh = Mesh(points, [range(len(points))], kind)
        assert mesh.volumes() == pytest.approx([volume], rel=1e-15)


def test_boundary_facets_run_round_the_square_with_the_cells_on_the_left():
    mesh = square()
    facets, owners = mesh.boundary_facets(), mesh.boundary_cells()
    assert {tuple(f) for f in facets} == {(0, 1), (1, 2), (2, 3), (3, 0)}
    assert {(tuple(f), c) for f, c in zip(facets, owners, strict=True)} == {
        ((0, 1), 0),
        ((1, 2), 0),
        ((2, 3), 1),
        ((3, 0), 1),
    }


def test_boundary_of_a_cube_is_outward_and_has_the_area_six():
    n = 3
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corner = np.stack(np.meshgrid(*[range(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    step = np.array([(n + 1) ** 2, n + 1, 1])
    cells = []
    for order in itertools.permutations(range(3)):
        path = np.concatenate([[0], np.cumsum(step[list(order)])])
        even = np.linalg.det(np.eye(3)[list(order)]) > 0
        cells.append((corner @ step)[:, None] + (path if even else path[[0, 2, 1, 3]]))
    mesh = Mesh(grid, np.concatenate(cells), "tetra")
    assert mesh.volumes().min() > 0
    assert mesh.volumes().sum() == pytest.approx(1.0, rel=1e-14)
    p = grid[mesh.boundary_facets()]
    area = 0.5 * np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    assert np.abs(area.sum(axis=0)).max() < 1e-14
    assert (area * p.mean(axis=1)).sum() / 3 == pytest.approx(mesh.volumes().sum(), rel=1e-13)
    assert np.linalg.norm(area, axis=1).sum() == pytest.approx(6.0, rel=1e-12)


def test_moved_keeps_cells_and_refuses_an_inversion():
    mesh = square()
    moved = mesh.moved(SQUARE + [3.0, -1.0])
    assert moved.volumes() == pytest.approx([0.5, 0.5])
    assert moved.facets.keys() == mesh.facets.keys()
    folded = SQUARE.copy()
    folded[1] = [0.0, 2.0]
    with pytest.raises(MeshTangled, match="1 of 2 cells inverted"):
        mesh.moved(folded)
    with pytest.raises(ShapeError, match=r"points: expected shape \(4, 2\)"):
        mesh.moved(np.vstack([SQUARE, [[2.0, 2.0]]]))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"cells": [[0, 1, 4]]}, r"0\.\.3, got 0\.\.4"),
        ({"cells": [[0, 1, -1]]}, r"0\.\.3, got -1\.\.1"),
        ({"cells": np.empty((0, 3))}, "has none"),
        ({"cells": [[0, 1, 2, 3]]}, r"expected shape \(any, 3\)"),
        ({"cell_type": "hexahedron"}, "expected one of"),
        ({"points": SQUARE * [1.0, np.nan]}, "4 of 4 not finite"),
        ({"points": np.zeros((4, 3))}, r"expected shape \(any, 2\)"),
        ({"facets": {"left": [[3, 9]]}}, "facets 'left': numbers must lie in"),
        ({"facets": {"left": [[3, 0, 1]]}}, r"facets 'left': expected shape \(any, 2\)"),
        ({"regions": {"body": [2]}}, "region 'body': numbers must lie in"),
    ],
)
def test_refuses(change, reason):
    good = {"points": SQUARE, "cells": [[0, 1, 2], [0, 2, 3]]}
    with pytest.raises((MeshError, ShapeError), match=reason):
        Mesh(**(good | change))

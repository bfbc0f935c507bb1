import resource
import time
from pathlib import Path

import meshio
import numpy as np
import pytest
import pyvista
import vtk

from pdelab.errors import InputError, ShapeError
from pdelab.mesh import CELL_TYPES, Mesh
from pdelab.vtk import CELL_CODES, Grid, write_pvd, write_vti, write_vtp, write_vtu
from pdelab.vtkhdf import write_vtkhdf

RNG = np.random.default_rng(70213)

# One cell of each type, nodes in our numbering: corners, then edge middles in the order of the facets.
ONE_CELL = {
    "line": [[0.0], [1.0]],
    "triangle": [[0, 0], [1, 0], [0, 1]],
    "quad": [[0, 0], [2, 0], [2, 1], [0, 1]],
    "tetra": [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "triangle6": [[0, 0], [1, 0], [0, 1], [0.5, 0], [0.5, 0.5], [0, 0.5]],
    "quad8": [[0, 0], [2, 0], [2, 1], [0, 1], [1, 0], [2, 0.5], [1, 1], [0, 0.5]],
    "tetra10": [
        *([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]),
        *([0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0, 0.5], [0, 0.5, 0.5]),
    ],
}
SIZES = {"line": 1.0, "triangle": 0.5, "quad": 2.0, "tetra": 1 / 6, "triangle6": 0.5, "quad8": 2.0, "tetra10": 1 / 6}


def square(n: int) -> Mesh:
    x = np.stack(np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n)), axis=-1).reshape(-1, 2)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, 1:].ravel(), i[1:, :-1].ravel()
    return Mesh(x, np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)]))


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("cell_type", CELL_TYPES)
def test_vtu_round_trip(tmp_path, cell_type, compress):
    points = np.array(ONE_CELL[cell_type])
    mesh = Mesh(points, np.arange(len(points))[None], cell_type)
    d = points.shape[1]
    arrays = {"u": RNG.normal(size=len(points)), "velocity": RNG.normal(size=(len(points), 2))}
    path = write_vtu(tmp_path / "a.vtu", mesh, arrays, cell_arrays={"size": mesh.volumes()}, compress=compress)
    for read in (pyvista.read(path), pyvista.wrap(pyvista.from_meshio(meshio.read(path)))):
        assert np.array_equal(read.points[:, :d], points) and not read.points[:, d:].any()
        assert np.array_equal(read["u"], arrays["u"])
        assert np.array_equal(read["velocity"], np.pad(arrays["velocity"], ((0, 0), (0, 1))))
        assert np.array_equal(read.cell_data["size"], mesh.volumes())
        assert list(read.celltypes) == [CELL_CODES[cell_type]]
        # VTK measures the cell itself: its own node order must agree with ours.
        measured = read.compute_cell_sizes()
        total = measured["Length"] + measured["Area"] + measured["Volume"]
        assert total == pytest.approx(SIZES[cell_type], rel=1e-12)


def test_vtu_across_compression_blocks(tmp_path):
    mesh = square(301)
    noise = RNG.normal(size=(mesh.n_points, 3))
    path = write_vtu(tmp_path / "a.vtu", mesh, {"zero": np.zeros(mesh.n_points), "noise": noise}, time=0.1)
    read = pyvista.read(path)
    assert np.array_equal(read["noise"], noise) and not read["zero"].any()
    assert np.array_equal(read.cells.reshape(-1, 4)[:, 1:], mesh.cells)
    assert read.field_data["TimeValue"] == [0.1]


def test_vtu_names_the_region_of_each_cell(tmp_path):
    mesh = square(3)
    mesh = Mesh(mesh.points, mesh.cells, regions={"fibre": np.array([1, 4]), "matrix": np.array([0, 2, 3])})
    read = pyvista.read(write_vtu(tmp_path / "a.vtu", mesh, {}))
    assert list(read.cell_data["region"]) == [2, 1, 2, 2, 1, 0, 0, 0]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 4)])
def test_vti_round_trip(tmp_path, shape):
    d = len(shape)
    grid = Grid((-1.0, 0.0, 2.0)[:d], (1.0, 0.5, 5.0)[:d], shape)
    arrays = {"x": grid.points[:, 0], "last": grid.points[:, -1], "velocity": RNG.normal(size=(grid.n_points, 2))}
    read = pyvista.read(write_vti(tmp_path / "a.vti", grid, arrays, time=1.25))
    assert read.dimensions == (*shape, 1, 1)[:3]
    assert np.allclose(read.points[:, :d], grid.points, rtol=0, atol=1e-14)
    assert np.array_equal(read["x"], arrays["x"]) and np.array_equal(read["last"], arrays["last"])
    assert np.array_equal(read["velocity"][:, :2], arrays["velocity"]) and not read["velocity"][:, 2].any()
    assert read.field_data["TimeValue"] == [1.25]


@pytest.mark.parametrize("d", [2, 3])
def test_vtp_round_trip(tmp_path, d):
    points, lengths = RNG.normal(size=(9, d)), np.array([4, 1, 2, 2])
    read = pyvista.read(write_vtp(tmp_path / "a.vtp", points, lengths, {"u": points[:, 0], "number": np.arange(9)}))
    assert np.array_equal(read.points[:, :d], points) and not read.points[:, d:].any()
    assert np.array_equal(read["u"], points[:, 0]) and list(read["number"]) == list(range(9))
    assert list(read.lines) == [4, 0, 1, 2, 3, 1, 4, 2, 5, 6, 2, 7, 8]


def test_lines_of_other_lengths_than_their_points_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="points"):
        write_vtp(tmp_path / "a.vtp", np.zeros((3, 2)), np.array([2, 2]), {})


def test_pvd_has_the_times_and_relative_names(tmp_path):
    (tmp_path / "fields").mkdir()
    grid = Grid((0.0,), (1.0,), (3,))
    steps = [
        (t, write_vti(tmp_path / "fields" / f"a & b {i}.vti", grid, {"u": np.full(3, t)}))
        for i, t in enumerate([0.0, 1 / 3])
    ]
    path = write_pvd(tmp_path / "fields.pvd", steps)
    assert str(tmp_path) not in path.read_text()
    reader = pyvista.PVDReader(path)
    assert reader.time_values == [0.0, 1 / 3]
    reader.set_active_time_value(1 / 3)
    assert list(reader.read()[0]["u"]) == [1 / 3] * 3


def test_vtkhdf_round_trip(tmp_path):
    mesh, times = square(7), np.array([0.0, 0.25, 2.0])
    u, velocity = RNG.normal(size=(3, 49)), RNG.normal(size=(3, 49, 2))
    path = write_vtkhdf(tmp_path / "a.vtkhdf", mesh, times, {"u": u, "velocity": velocity})
    reader = vtk.vtkHDFReader()
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    key = vtk.vtkStreamingDemandDrivenPipeline.TIME_STEPS()
    assert list(reader.GetOutputInformation(0).Get(key)) == list(times)
    for step in (2, 0, 1):
        reader.UpdateTimeStep(times[step])
        read = pyvista.wrap(reader.GetOutput())
        assert np.array_equal(read.points[:, :2], mesh.points)
        assert np.array_equal(read.cells.reshape(-1, 4)[:, 1:], mesh.cells)
        assert np.array_equal(read["u"], u[step])
        assert np.array_equal(read["velocity"][:, :2], velocity[step])


def test_wrong_lengths_are_refused_and_nothing_is_written(tmp_path):
    grid, mesh = Grid((0.0, 0.0), (1.0, 1.0), (3, 3)), square(3)
    with pytest.raises(ShapeError, match="u: expected shape"):
        write_vti(tmp_path / "a.vti", grid, {"u": np.zeros(8)})
    with pytest.raises(ShapeError, match="u: expected shape"):
        write_vtu(tmp_path / "a.vtu", mesh, {"u": np.zeros(10)})
    with pytest.raises(ShapeError, match="u: expected shape"):
        write_vtkhdf(tmp_path / "a.vtkhdf", mesh, np.array([0.0, 1.0]), {"u": np.zeros((3, 9))})
    with pytest.raises(InputError, match="at least 2 points"):
        Grid((0.0,), (1.0,), (1,))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_file(tmp_path):
    mesh = square(60)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError):
            write_vtu(tmp_path / "a.vtu", mesh, {"u": RNG.normal(size=3600)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.slow
def test_a_million_points_take_less_than_three_cpu_seconds(tmp_path):
    mesh = square(1000)
    moved = Mesh(mesh.points + 1e-5 * RNG.normal(size=mesh.points.shape), mesh.cells)
    u = np.sin(np.pi * moved.points[:, 0]) * moved.points[:, 1]
    start = time.process_time()
    path = write_vtu(tmp_path / "a.vtu", moved, {"u": u, "velocity": moved.points})
    assert time.process_time() - start < 3.0
    assert np.array_equal(pyvista.read(path)["u"], u)

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import pyvista
import torch
import vtk

from pdelab.domain import Box, Interval
from pdelab.errors import InputError, OutputError, SettingsError, ShapeError
from pdelab.export import export_fields, export_series
from pdelab.lines import Lines
from pdelab.mesh import Mesh
from pdelab.meshes.interpolate import MeshField
from pdelab.pde import AbstractProblem, Computed, Exact
from pdelab.shapes import Disk
from pdelab.snapshots import N_TIMES, RESOLUTION, residual_norm, take
from pdelab.solution import Solution, Status


@dataclass(frozen=True)
class Case(AbstractProblem):
    """u_xx + u_t = 4 where there is time, u_xx = 2 else; u = x^2 + 2 t."""

    dimension: int = 1
    timed: bool = False
    name: ClassVar[str] = "case"

    @property
    def domain(self):
        return Interval(-1.0, 2.0) if self.dimension == 1 else Box((0.0,) * self.dimension, (1.0,) * self.dimension)

    @property
    def time(self):
        return (1.0, 3.0) if self.timed else None

    def residual(self, f):
        first = self.axes[0] * 2
        return getattr(f, f"u_{first}") - 2.0 + (f.u_t - 2.0 if self.timed else 0.0)

    def conditions(self):
        return ()

    def reference(self):
        return Exact(lambda p: p.points[:, 0] ** 2 + (2.0 * p.t if self.timed else 0.0))


@dataclass(frozen=True)
class Flow(AbstractProblem):
    """Two velocities and a pressure, two equations."""

    name: ClassVar[str] = "flow"
    domain: ClassVar = Box((0.0, 0.0), (2.0, 1.0))
    components: ClassVar = ("u", "v", "p")
    gauge: ClassVar = ("p",)

    def residual(self, f):
        return f.u_x + f.v_y - 3.0, f.p_x - 4.0

    def conditions(self):
        return ()

    def reference(self):
        return Exact(lambda p: (p.x, p.y, p.x))


def solution(problem, field, **changes):
    return Solution(problem, field, Status.CONVERGED, **changes)


def truth_plus(amount):
    """The closed form of `Case` with something added to it."""

    def field(x, timed=False):
        return (x[:, 0] ** 2 + amount)[:, None] + (2.0 * x[:, -1:] if timed else 0.0)

    return field


def timed(x):
    return truth_plus(0.25)(x, timed=True)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_steady_box_is_one_grid_with_all_arrays(tmp_path, dimension):
    files = export_fields(take(solution(Case(dimension), truth_plus(0.25))), tmp_path)
    assert files == [tmp_path / "fields.pvd", tmp_path / "fields" / "case.vti"]
    grid = pyvista.read(files[1])
    assert grid.dimensions == ((RESOLUTION[dimension],) * dimension + (1, 1))[:3]
    assert grid.array_names == ["u", "reference", "error", "residual"]
    x = grid.points[:, 0]
    assert np.allclose(grid["u"], x**2 + 0.25, atol=1e-13) and np.allclose(grid["reference"], x**2, atol=1e-13)
    assert np.allclose(grid["error"], 0.25) and np.abs(grid["residual"]).max() < 1e-12


def test_time_gives_a_series_and_the_image_over_x_and_t(tmp_path):
    files = export_fields(take(solution(Case(1, timed=True), timed)), tmp_path)
    reader = pyvista.PVDReader(tmp_path / "fields.pvd")
    assert np.allclose(reader.time_values, np.linspace(1, 3, N_TIMES), rtol=1e-15)
    reader.set_active_time_value(reader.time_values[3])
    grid = reader.read()[0]
    assert np.allclose(grid["u"], grid.points[:, 0] ** 2 + 2 * 1.6 + 0.25)
    assert grid.field_data["TimeValue"] == [reader.time_values[3]]
    assert np.abs(grid["residual"]).max() < 1e-12
    image = pyvista.read(tmp_path / "fields" / "case_xt.vti")
    assert image.bounds[:4] == (-1.0, 2.0, 1.0, 3.0)
    assert np.allclose(image["u"], image.points[:, 0] ** 2 + 2 * image.points[:, 1] + 0.25)
    assert len(files) == N_TIMES + 2 and all(f.exists() for f in files)


def test_resolution_and_times_are_kept_and_old_files_go(tmp_path):
    export_fields(take(solution(Case(2, timed=True), timed), resolution=9), tmp_path)
    files = export_fields(take(solution(Case(2, timed=True), timed), resolution=5, times=3), tmp_path)
    assert sorted(p.name for p in (tmp_path / "fields").iterdir()) == [f"case_{i:04d}.vti" for i in range(3)]
    assert pyvista.read(files[-1]).dimensions == (5, 5, 1)
    assert not list(tmp_path.glob(".*"))


def test_beyond_three_dimensions_a_slice_through_the_middle(tmp_path):
    files = export_fields(take(solution(Case(5), lambda x: x[:, :1] ** 2 + x[:, 4:])), tmp_path)
    grid = pyvista.read(files[1])
    assert grid.dimensions == (RESOLUTION[2], RESOLUTION[2], 1)
    assert np.allclose(grid["u"], grid.points[:, 0] ** 2 + 0.5)


def test_components_velocity_and_gauge(tmp_path):
    def field(x):
        return torch.stack([x[:, 0] + 0.3, x[:, 1] + 0.4, x[:, 0] + 7.0], dim=1)

    grid = pyvista.read(export_fields(take(solution(Flow(), field), resolution=5), tmp_path)[1])
    assert np.allclose(grid["velocity"], np.stack([grid["u"], grid["v"], np.zeros(25)], axis=1))
    # A pressure that is off by a constant only has no error.
    assert np.abs(grid["error_p"]).max() < 1e-12 and np.allclose(grid["error_u"], 0.3)
    assert np.allclose(grid["error"], 0.5)
    # The equations miss by 1 + 1 - 3 and 1 - 4.
    assert np.allclose(grid["residual"], math.sqrt(1 + 9))


def test_the_mesh_of_a_solution_in_a_box_is_written_beside_the_grid(tmp_path):
    mesh = Mesh([[0, 0], [0.2, 0], [0, 1]], [[0, 1, 2]])
    files = export_fields(take(solution(Case(2, timed=True), timed, mesh=mesh), resolution=3, times=2), tmp_path)
    assert files[-1].name == "case_mesh.vtu"
    read = pyvista.read(files[-1])
    assert np.allclose(read["u"], [6.25, 6.29, 6.25]) and read.field_data["TimeValue"] == [3.0]


def test_lines_are_written_as_lines_over_x_and_t(tmp_path):
    points = np.array([[0.0, 1.0], [0.5, 3.0], [1.0, 1.0], [1.5, 2.0], [1.75, 3.0]])
    paths = Lines(points, np.array([2, 3]), {"u": points[:, 0] ** 2, "time": points[:, 1]})
    files = export_fields(take(solution(Case(1, timed=True), timed, lines={"paths": paths})), tmp_path)
    read = pyvista.read(tmp_path / "fields" / "case_paths.vtp")
    assert tmp_path / "fields" / "case_paths.vtp" in files
    assert np.array_equal(read.points[:, :2], points) and list(read.lines) == [2, 0, 1, 3, 2, 3, 4]
    assert np.array_equal(read["u"], points[:, 0] ** 2) and np.array_equal(read["time"], points[:, 1])


def test_lengths_of_lines_add_up():
    points = np.array([[0.0, 0.5], [0.1, 0.7], [0.3, 0.9]])
    first, second = Lines(points, np.array([2, 1])).each()
    assert np.array_equal(first, points[:2]) and np.array_equal(second, points[2:])
    with pytest.raises(ShapeError, match="points"):
        Lines(points, np.array([2, 2]))


@pytest.mark.parametrize(
    "field",
    [
        lambda x: 3.0 * x[:, :1],
        MeshField(Mesh([[-1.0], [0.5], [2.0]], [[0, 1], [1, 2]], "line"), np.array([[1.0], [0.0], [4.0]])),
        lambda x: torch.as_tensor(np.square(x.numpy()[:, :1])),
        lambda x: x[:, :1].detach() ** 2,
    ],
    ids=["linear", "linear elements", "numpy", "without graph"],
)
def test_no_residual_where_the_field_lacks_the_derivatives(tmp_path, field):
    grid = pyvista.read(export_fields(take(solution(Case(1), field)), tmp_path)[1])
    assert grid.array_names == ["u", "reference", "error"]


def test_residuals_use_the_identified_unknowns():
    @dataclass(frozen=True)
    class Inverse(Case):
        unknowns: ClassVar = {"k": 1.0}

        def residual(self, f):
            return f.k * f.u_xx

    found = residual_norm(solution(Inverse(), truth_plus(0.0), unknowns={"k": 3.0}), np.array([[0.5]]))
    assert found == pytest.approx([6.0])


def test_a_reference_that_cannot_be_computed_is_left_out_with_a_warning(tmp_path, caplog):
    class Unknown(Case):
        def reference(self):
            return Computed("no-such-solver", fine={}, coarse={})

    grid = pyvista.read(export_fields(take(solution(Unknown(), truth_plus(0.0))), tmp_path)[1])
    assert grid.array_names == ["u", "residual"] and "no-such-solver" in caplog.text


@pytest.mark.parametrize("wrong", [{"resolution": 1}, {"times": 1}, {"times": 5}])
def test_wrong_settings_are_refused(tmp_path, wrong):
    with pytest.raises(SettingsError, match="times|resolution"):
        export_fields(take(solution(Case(1, timed=wrong != {"times": 5}), timed), **wrong), tmp_path)
    with pytest.raises(OutputError, match="no such folder"):
        export_fields(take(solution(Case(1), truth_plus(0.0))), tmp_path / "missing")
    assert not list(tmp_path.iterdir())


def test_other_domains_get_a_mesh(tmp_path):
    class Round(Case):
        domain = Disk((0.0, 0.0), 1.0)

    files = export_fields(take(solution(Round(2), truth_plus(0.25)), resolution=9), tmp_path)
    read = pyvista.read(files[1])
    assert files[1].suffix == ".vtu" and np.allclose(read["u"], read.points[:, 0] ** 2 + 0.25)
    assert read.area == pytest.approx(math.pi, rel=0.05)


def test_a_point_is_sampled_once_for_all_files(tmp_path):
    asked = []

    def field(x):
        asked.append(x.detach().numpy())
        return timed(x)

    snapshots = take(solution(Case(1, timed=True), field), resolution=41, times=5)
    # The values on the image, from which the series is cut out; the residual, after a probe, on the series.
    assert sum(map(len, asked)) <= 41 * 21 + 2 * 5 * 41 and snapshots.image.place.shape == (41, 21)
    before = len(asked)
    export_fields(snapshots, tmp_path)
    assert len(asked) == before


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_whole_series_in_one_file_on_one_mesh(tmp_path, dimension):
    path = export_series(take(solution(Case(dimension, timed=True), timed), resolution=6, times=4), tmp_path)
    reader = vtk.vtkHDFReader()
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    moments = reader.GetOutputInformation(0).Get(vtk.vtkStreamingDemandDrivenPipeline.TIME_STEPS())
    assert path.name == "fields.vtkhdf" and np.allclose(moments, np.linspace(1, 3, 4))
    reader.UpdateTimeStep(moments[2])
    read = pyvista.wrap(reader.GetOutput())
    assert read.n_points == 6**dimension and read.n_cells == 5**dimension
    assert np.allclose(read["u"], read.points[:, 0] ** 2 + 2 * moments[2] + 0.25)
    sizes = read.compute_cell_sizes()
    assert np.allclose(sizes["Length" if dimension == 1 else "Area"], 0.6 if dimension == 1 else 0.04)


def test_a_series_of_a_steady_problem_or_a_solid_is_refused(tmp_path):
    with pytest.raises(InputError, match="steady"):
        export_series(take(solution(Case(2), truth_plus(0.0)), resolution=3), tmp_path)
    with pytest.raises(InputError, match="three-dimensional"):
        export_series(take(solution(Case(3, timed=True), timed), resolution=3, times=2), tmp_path)
    assert not list(tmp_path.iterdir())

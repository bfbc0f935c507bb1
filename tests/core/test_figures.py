import dataclasses
import io
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from pdelab.domain import Box
from pdelab.errors import InputError, OutputError
from pdelab.figures import _figures, write_figures
from pdelab.lines import Lines
from pdelab.mesh import CELL_TYPES, Mesh
from pdelab.pde import AbstractProblem, Exact
from pdelab.scene import from_bytes, scene, to_bytes
from pdelab.snapshots import Snapshot, take
from pdelab.solution import Solution, Status


@dataclass(frozen=True)
class Wave(AbstractProblem):
    """A product of sines, of any dimension and number of components."""

    dimension: int = 2
    timed: bool = False
    names: str = "u"
    name: ClassVar[str] = "wave"

    @property
    def domain(self):
        return Box((0.0,) * self.dimension, (1.0, 2.0, 1.0, 1.0, 1.0)[: self.dimension])

    @property
    def time(self):
        return (0.0, 1.0) if self.timed else None

    @property
    def components(self):
        return tuple(self.names)

    def residual(self, f):
        return f.u

    def conditions(self):
        return ()

    def reference(self):
        def truth(p):
            value = torch.sin(3.0 * p.points).prod(dim=1)
            return tuple(value * (i + 1) for i in range(len(self.names)))

        return Exact(truth)


def solution(problem, factor=1.01, **changes):
    def field(x):
        value = torch.sin(3.0 * x).prod(dim=1)
        return torch.stack([value * (i + 1) * factor for i in range(len(problem.names))], dim=1)

    return Solution(problem, changes.pop("field", field), Status.CONVERGED, **changes)


def draw(solution, folder):
    return write_figures(scene(take(solution)), folder)


def colours(path) -> int:
    """How many colours a picture has."""
    return len(Image.open(path).convert("RGB").getcolors(2**24))


def size(path) -> tuple[int, int]:
    return Image.open(path).size


@pytest.mark.parametrize("problem", [Wave(1, True), Wave(2), Wave(3, True), Wave(5)])
def test_field_reference_and_error_are_drawn(tmp_path, problem):
    files = draw(solution(problem), tmp_path / "figures")
    assert [f.name for f in files] == ["field.png", "reference.png", "error.png"]
    assert all(colours(f) > 200 for f in files)


def test_a_line_is_drawn_with_its_reference_and_error(tmp_path):
    (file,) = draw(solution(Wave(1)), tmp_path)
    assert file.name == "field.png" and colours(file) > 20


def test_more_components_give_a_higher_picture_and_more_times_a_wider_one(tmp_path):
    one = size(draw(solution(Wave(2)), tmp_path / "a")[0])
    two = size(draw(solution(Wave(2, names="uv")), tmp_path / "b")[0])
    times = size(draw(solution(Wave(2, True)), tmp_path / "c")[0])
    assert two[1] > 1.5 * one[1] and times[0] > 1.2 * one[0]


@pytest.mark.parametrize("size", [1.0, 8e-3, 8e-6, 3e7])
def test_labels_are_inside_the_picture(size):
    def field(x):
        value = torch.cos(7.0 * x).prod(dim=1) * size
        return torch.stack([value, 0.7 * value], dim=1)

    class Centred(Wave):
        domain = Box((-0.5, -0.5), (0.5, 0.5))

    figure = _figures(scene(take(solution(Centred(2, False, "uv"), field=field))))["field"]
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight()


def test_the_history_has_losses_and_errors(tmp_path):
    k = np.arange(50)
    history = {"step": k, "cpu_s": 0.1 * k, "loss": np.exp(-k / 9), "initial": np.where(k == 3, np.nan, 0.1)}
    error = np.where(k % 7 == 0, np.exp(-k / 20), np.nan)
    plain = draw(solution(Wave(1), history=history), tmp_path / "a")[-1]
    watched = draw(solution(Wave(1), history=history | {"error": error}), tmp_path / "b")[-1]
    assert plain.name == watched.name == "history.png"
    assert size(watched)[0] > 1.5 * size(plain)[0]


def square_mesh(cell_type: str) -> Mesh:
    corners = np.array([[0, 0], [1, 0], [1, 2], [0, 2]], dtype=float)
    middles = 0.5 * (corners + np.roll(corners, -1, axis=0))
    points = np.concatenate([corners, middles, [[0.5, 1.0]]])
    cells = {
        "triangle": [[0, 1, 2], [0, 2, 3]],
        "quad": [[0, 1, 2, 3]],
        "triangle6": [[0, 1, 2, 4, 5, 8], [0, 2, 3, 8, 6, 7]],
        "quad8": [[0, 1, 2, 3, 4, 5, 6, 7]],
    }
    return Mesh(points, cells[cell_type], cell_type)


@pytest.mark.parametrize("cell_type", [name for name, facts in CELL_TYPES.items() if facts[0] == 2])
def test_meshes_of_every_cell_type_are_covered(tmp_path, cell_type):
    # A constant field on a mesh of the whole box must fill as much of the picture as it does on a grid.
    problem = Wave(2)
    flat = solution(problem, field=lambda x: torch.full((len(x), 1), 2.0, dtype=torch.float64))
    snapshots = take(flat)
    (grid, *_) = write_figures(scene(snapshots), tmp_path / "grid")
    place = square_mesh(cell_type)
    constant = dict.fromkeys(("u", "reference", "error"), np.full(place.n_points, 2.0))
    other = dataclasses.replace(snapshots, series=(Snapshot(place, constant),))
    (mesh, *_) = write_figures(scene(other), tmp_path / "mesh")
    filled = [np.all(np.asarray(Image.open(f).convert("RGB")) == (68, 1, 84), axis=2).sum() for f in (grid, mesh)]
    assert filled[0] > 50_000 and filled[1] == pytest.approx(filled[0], rel=0.02)


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_fields_without_a_finite_or_varied_value_are_drawn_too(tmp_path, value):
    def field(x):
        return torch.full((len(x), 1), value, dtype=torch.float64)

    for dimension in (1, 2):
        draw(solution(Wave(dimension), field=field), tmp_path)
    draw(solution(Wave(2), factor=1.0), tmp_path)


def test_a_singular_point_does_not_take_all_colours(tmp_path):
    def field(x):
        corner = torch.linalg.norm(x, dim=1) < 0.01
        return (torch.sin(3.0 * x[:, 0]) + 1e4 * corner)[:, None]

    picture = Image.open(draw(solution(Wave(2), field=field), tmp_path)[0]).convert("RGB")
    width, height = picture.size
    middle = picture.crop((width // 3, height // 3, 2 * width // 3, 2 * height // 3))
    assert len(middle.getcolors(2**24)) > 100


def test_the_same_solution_gives_the_same_bytes_and_no_global_state_changes(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    first, again = (draw(solution(Wave(2)), tmp_path / name)[2].read_bytes() for name in "ab")
    assert first == again and dict(mpl.rcParams) == before
    assert "matplotlib" not in Image.open(io.BytesIO(first)).info.get("Software", "")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        draw(solution(Wave(1)), tmp_path / "file")


@pytest.mark.parametrize("problem", [Wave(1), Wave(1, True), Wave(2, True, "uv"), Wave(3)])
def test_stored_pictures_are_drawn_as_they_would_have_been_at_once(tmp_path, problem):
    history = {"step": [1.0, 5.0], "cpu_s": [0.1, 0.7], "loss": [3.0, math.nan]}
    shown = scene(take(solution(problem, history=history)), {"rel_l2": 0.01, "floor": 1e-3})
    at_once = write_figures(shown, tmp_path / "once")
    later = write_figures(from_bytes(to_bytes(shown)), tmp_path / "later")
    assert [f.stem for f in later] == shown.kinds
    assert [f.read_bytes() for f in later] == [f.read_bytes() for f in at_once]


def test_lines_are_drawn_over_the_field_in_one_more_picture(tmp_path):
    t = np.linspace(0.0, 1.0, 5)
    points = np.concatenate([np.stack([x + 0.2 * t, t], axis=1) for x in (0.1, 0.3, 0.6)])
    shown = scene(take(solution(Wave(1, True), lines={"paths": Lines(points, np.array([5, 5, 5]))})))
    assert shown.kinds == ["field", "reference", "error", "paths"]
    drawn = {f.stem: f.read_bytes() for f in write_figures(shown, tmp_path / "once")}
    assert drawn["paths"] != drawn["field"] and size(tmp_path / "once" / "paths.png")[0] > 0
    later = write_figures(from_bytes(to_bytes(shown)), tmp_path / "later")
    assert {f.stem: f.read_bytes() for f in later} == drawn


def test_the_meshes_of_several_times_are_stored_once():
    mesh = square_mesh("triangle6")
    values = {"u": np.linspace(0.0, 1.0, mesh.n_points)}
    snapshots = dataclasses.replace(
        take(solution(Wave(2, True))), series=tuple(Snapshot(mesh, values, t) for t in (0.0, 0.5, 1.0))
    )
    panels = from_bytes(to_bytes(scene(snapshots))).panels
    assert len({id(panel.place) for panel in panels}) == 1
    assert panels[0].place.cell_type == "triangle6"
    assert np.array_equal(panels[0].place.cells, mesh.cells) and np.array_equal(panels[2].arrays["u"], values["u"])


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04"])
def test_what_is_no_stored_picture_is_told(data):
    with pytest.raises(InputError, match="no stored pictures"):
        from_bytes(data)

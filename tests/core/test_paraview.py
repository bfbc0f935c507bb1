import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pdelab
from pdelab.errors import InputError, OutputError
from pdelab.mesh import Mesh
from pdelab.paraview import script, write_inspect
from pdelab.view import view
from pdelab.vtk import Grid, write_pvd, write_vti, write_vtp, write_vtu
from pdelab.vtkhdf import write_vtkhdf


def grid(dimension: int) -> Grid:
    return Grid((0.0, 0.0, 0.0)[:dimension], (1.0, 2.0, 1.0)[:dimension], (9, 7, 6)[:dimension])


def arrays(points: np.ndarray, time: float = 1.0) -> dict[str, np.ndarray]:
    u = time * np.sin(3 * points).sum(axis=1)
    return {"u": u, "reference": u + 0.01 * points[:, 0], "error": 0.01 * points[:, 0]}


def triangles() -> Mesh:
    points = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]], dtype=float)
    return Mesh(points, np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))


def make(folder: Path, kind: str) -> tuple[str, str | None]:
    """A run folder's files: what to open, and the image over (x, t)."""
    if kind.startswith("vti"):
        place = grid(int(kind[-1]))
        write_vti(folder / "a.vti", place, arrays(place.points))
        return "a.vti", None
    mesh, times = triangles(), np.array([0.5, 1.0, 2.0])
    if kind == "vtu":
        write_vtu(folder / "a.vtu", mesh, arrays(mesh.points))
        return "a.vtu", None
    if kind == "vtkhdf":
        values = [arrays(mesh.points, t) for t in times]
        write_vtkhdf(folder / "a.vtkhdf", mesh, times, {n: np.array([v[n] for v in values]) for n in values[0]})
        return "a.vtkhdf", None
    if kind == "pvd":
        steps = [(t, write_vtu(folder / f"a{t}.vtu", mesh, arrays(mesh.points, t))) for t in times]
        write_pvd(folder / "a.pvd", steps)
        return "a.pvd", None
    line, image = grid(1), grid(2)
    steps = [(t, write_vti(folder / f"a{t}.vti", line, arrays(line.points, t))) for t in times]
    write_pvd(folder / "a.pvd", steps)
    write_vti(folder / "a_xt.vti", image, arrays(image.points))
    return "a.pvd", "a_xt.vti"


def share_of_background(path: Path) -> float:
    pixels = Image.open(path).convert("RGB")
    return max(count for count, _ in pixels.getcolors(2**24)) / (pixels.width * pixels.height)


def pvbatch(*arguments: str, folder: Path, **environment: str) -> str:
    """Output of a run of ParaView without a window."""
    program, frame = shutil.which("pvbatch"), shutil.which("xvfb-run")
    if program is None:
        pytest.skip("ParaView's pvbatch is not installed")
    if frame is None and "DISPLAY" not in os.environ:
        pytest.skip("ParaView needs a display or xvfb-run to draw")
    # Without -noreset the server restarts whenever its last client leaves, and ParaView connects twice.
    server = [frame, "-a", "-s", "-screen 0 1280x1024x24 -noreset"] if frame else []
    command = [*server, program, "--force-offscreen-rendering", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in output and "ERR|" not in output, output
    return output


def paraview_version() -> tuple[int, int]:
    text = subprocess.run(["pvbatch", "--version"], capture_output=True, text=True, check=False)
    major, minor = (text.stdout + text.stderr).split()[-1].split(".")[:2]
    return int(major), int(minor)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vti-1", "vti-2", "vti-3", "vtu", "pvd", "x-t", "vtkhdf"])
def test_paraview_draws_every_kind_of_file(tmp_path, kind):
    if kind == "vtkhdf" and shutil.which("pvbatch") and paraview_version() < (5, 12):
        pytest.skip("ParaView reads VTKHDF series from 5.12 on")
    data, image = make(tmp_path, kind)
    axes = ("x", "t") if kind == "x-t" else ("x", "y", "z")
    (tmp_path / "inspect.py").write_text(script(data, ("u",), axes, tmp_path, image=image))
    pvbatch("inspect.py", "picture.png", folder=tmp_path)
    picture = Image.open(tmp_path / "picture.png")
    assert picture.width == 1600 and picture.height == (1280 if kind == "x-t" else 640)
    assert share_of_background(tmp_path / "picture.png") < 0.97
    # Field and error have a view each.
    for left in (0, 800):
        half = picture.convert("RGB").crop((left, 0, left + 800, 640))
        assert len(half.getcolors(2**24)) > (20 if kind == "vti-1" else 200)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["x-t", "pvd"])
def test_paraview_draws_lines_over_the_first_picture(tmp_path, kind):
    data, image = make(tmp_path, kind)
    line = np.array([[0.2, 0.1], [0.5, 0.3], [0.8, 0.2]])
    write_vtp(tmp_path / "a.vtp", line, np.array([3]), {"u": line[:, 0]})
    axes = ("x", "t") if kind == "x-t" else ("x", "y", "z")
    for name, lines in (("with", "a.vtp"), ("without", None)):
        (tmp_path / "inspect.py").write_text(script(data, ("u",), axes, tmp_path, image=image, lines=lines))
        pvbatch("inspect.py", f"{name}.png", folder=tmp_path)
    first, second = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("with", "without"))
    changed = np.abs(first.astype(int) - second.astype(int)) > 20
    assert changed[:, :800].any() and not changed[:, 800:].any()


def test_paraview_draws_a_run_from_elsewhere_by_the_environment(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / "fields").mkdir(parents=True)
    elsewhere.mkdir()
    place = grid(2)
    file = write_vti(run / "fields" / "poisson.vti", place, {"u": np.zeros(place.n_points), "v": place.points[:, 0]})
    write_pvd(run / "fields.pvd", [(0.0, file)])
    write_inspect(run, pdelab.problem("poisson"))
    pvbatch(str(run / "inspect.py"), folder=elsewhere, PDELAB_SCREENSHOT=str(elsewhere / "a.png"))
    # A constant field without an error: one view, one colour.
    assert Image.open(elsewhere / "a.png").size == (800, 640)
    assert share_of_background(elsewhere / "a.png") < 0.97


def test_the_state_is_plain_python_with_the_names_of_the_problem(tmp_path):
    text = write_inspect(tmp_path, pdelab.problem("burgers"), tmp_path / "later").read_text()
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple)
    }
    assert values["IMAGE"] == "fields/burgers_xt.vti" and values["AXES"] == ("x", "t")
    assert (values["DATA"], values["FIELD"], values["REFERENCE"]) == ("fields.pvd", "u", "reference")
    assert values["WRITTEN_TO"] == str(tmp_path / "later") and values["LINES"] is None
    followed = write_inspect(tmp_path, pdelab.problem("burgers"), lines="paths").read_text()
    assert "LINES = 'fields/burgers_paths.vtp'" in followed
    assert "REFERENCE = 'reference_u'" in script("fields.pvd", ("u", "v"), ("x", "y"), tmp_path)


def test_the_state_does_not_hide_the_module_of_its_name(tmp_path):
    write_inspect(tmp_path, pdelab.problem("poisson"))
    code = "import dataclasses, inspect; print(inspect.signature(len)); print(inspect.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "(obj, /)" and str(tmp_path) not in done.stdout


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"inspect\.py: cannot write"):
        write_inspect(tmp_path / "missing", pdelab.problem("poisson"))


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_pyvista_draws_a_run(tmp_path, dimension):
    (tmp_path / "fields").mkdir()
    place = grid(dimension)
    write_pvd(tmp_path / "fields.pvd", [(0.0, write_vti(tmp_path / "fields" / "a.vti", place, arrays(place.points)))])
    view(tmp_path, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (1400, 600)
    assert share_of_background(tmp_path / "a.png") < 0.97


def test_folders_without_fields_cannot_be_viewed(tmp_path):
    with pytest.raises(InputError, match=r"no fields\.pvd"):
        view(tmp_path, tmp_path / "a.png")
    (tmp_path / "fields.pvd").write_text("<VTKFile")
    with pytest.raises(InputError, match="cannot be read"):
        view(tmp_path, tmp_path / "a.png")

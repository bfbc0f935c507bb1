import json

import meshio
import numpy as np
import pytest
import pyvista

from pdelab import cli, files
from pdelab.domain import Box
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, quad_mesh
from pdelab.meshes.read import read_mesh
from pdelab.move_files import gmsh_text, read_values
from pdelab.vtk import write_vtu

MESH = box_mesh(Box((0.0, 0.0), (1.0, 1.0)), 8)
FRONT = "tanh(20*(x-0.5))"


@pytest.fixture
def move(capsys):
    """Run the command in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as leaving:
            cli.main(["move", *(str(a) for a in arguments)])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path):
    regions = {"all": np.arange(len(MESH.cells))}
    (tmp_path / "a.msh").write_bytes(gmsh_text(Mesh(MESH.points, MESH.cells, facets=MESH.facets, regions=regions)))
    return tmp_path


@pytest.mark.parametrize("mover", ["monge-ampere", "spring"])
def test_a_mesh_in_a_file_is_moved_into_a_file(mover, folder, move):
    out = folder / "b.vtu"
    status, text, _ = move(folder / "a.msh", "--mover", mover, "--field", FRONT, "--out", out)
    assert status == 0
    for words in (
        f"{mover}: 81 nodes, 128 cells, 0 inverted",
        "sigma/mu",
        "smallest quality",
        "CPU s",
        "b.vtu",
        "b.png",
    ):
        assert words in text
    found = pyvista.read(out)
    assert set(found.point_data) == {"monitor", "displacement"} and "quality" in found.cell_data
    moved = MESH.moved(found.points[:, :2])
    assert np.abs(moved.points - MESH.points).max() > 0.02
    np.testing.assert_allclose(found.point_data["displacement"][:, :2], moved.points - MESH.points, atol=1e-15)
    assert (folder / "b.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in folder.iterdir()) == ["a.msh", "b.png", "b.vtu"]


def test_json_and_msh_with_names_and_settings(folder, move):
    call = (folder / "a.msh", "--field", FRONT, "--set", "fixed=x0", "--set", "strength=10", "--json")
    names = sorted(MESH.facets)
    call = tuple(str(c).replace("x0", names[0]) for c in call)
    status, text, _ = move(*call, "--out", folder / "b.msh")
    found = json.loads(text)
    assert status == 0 and found["inverted"] == 0 and found["mover"] == "monge-ampere"
    assert found["sigma_over_mu"][1] < 0.7 * found["sigma_over_mu"][0] and len(found["files"]) == 2
    moved = read_mesh(folder / "b.msh")
    assert sorted(moved.facets) == names and list(moved.regions) == ["all"]
    nodes = np.unique(MESH.facets[names[0]])
    assert np.array_equal(moved.points[nodes], MESH.points[nodes])


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".vtu", ".vtk"])
def test_nodal_values_from_files_are_those_of_the_formula(suffix, folder, move):
    values, path = np.tanh(20 * (MESH.points[:, 0] - 0.5)), folder / f"u{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".csv":
        np.savetxt(path, values, header="u", comments="")
    elif suffix == ".vtu":
        write_vtu(path, MESH, {"u": values})
    else:
        points = np.hstack([MESH.points, np.zeros((81, 1))])
        meshio.Mesh(points, [("triangle", MESH.cells)], point_data={"u": values}).write(path)
    np.testing.assert_allclose(read_values(path)[:, 0], values, rtol=1e-12)
    results = []
    for i, source in enumerate((("--field", FRONT), ("--data", path))):
        assert move(folder / "a.msh", *source, "--out", folder / f"{i}.msh")[0] == 0
        results.append(read_mesh(folder / f"{i}.msh").points)
    np.testing.assert_allclose(*results, atol=1e-9)


def test_files_are_overwritten_by_force_only_and_appear_whole(folder, move, monkeypatch):
    call = (folder / "a.msh", "--field", "x", "--out", folder / "b.vtu")
    (folder / "b.png").write_text("mine")
    status, _, err = move(*call)
    assert status == 2 and "b.png: exists" in err and not (folder / "b.vtu").exists()
    assert move(*call, "--force")[0] == 0

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    before = (folder / "b.vtu").read_bytes()
    status, _, err = move(*call, "--force")
    assert status == 2 and "No space left" in err and (folder / "b.vtu").read_bytes() == before


def test_wrong_input_is_status_2_with_the_reason(folder, move):
    mesh, out = folder / "a.msh", folder / "b.vtu"
    np.save(folder / "short.npy", np.ones(80))
    np.save(folder / "nan.npy", np.full(81, np.nan))
    np.save(folder / "text.npy", np.array(["a"] * 81))
    np.save(folder / "zero.npy", np.zeros(81))
    (folder / "torn.npy").write_bytes(b"\x93NUMPY\x01")
    (folder / "torn.vtk").write_bytes(b"nothing")
    (folder / "words.csv").write_text("u\n1\ntwo\n")
    write_vtu(folder / "two.vtu", MESH, {"u": np.ones(81), "v": np.ones(81)})
    (folder / "quad.msh").write_bytes(gmsh_text(quad_mesh(Box((0.0, 0.0), (1.0, 1.0)), 4)))
    for arguments, words in (
        ((mesh,), "one of --field FORMULA and --data FILE"),
        ((mesh, "--field", "x", "--data", "a.npy"), "one of --field FORMULA and --data FILE"),
        ((mesh, "--field", "__import__('os')"), "unknown function"),
        ((mesh, "--field", "1/x"), "not finite at 9 of 81"),
        ((folder / "none.msh", "--field", "x"), "no such file"),
        ((mesh, "--data", folder / "none.npy"), "no such file"),
        ((mesh, "--data", folder / "short.npy"), "expected 81 rows"),
        ((mesh, "--data", folder / "nan.npy"), "81 of 81 are not finite"),
        ((mesh, "--data", folder / "text.npy"), "real numbers"),
        ((mesh, "--data", folder / "torn.npy"), "cannot be read"),
        ((mesh, "--data", folder / "torn.vtk"), "cannot be read"),
        ((mesh, "--data", folder / "words.csv"), "cannot be read"),
        ((mesh, "--data", folder / "two.vtu"), "2 arrays at the points (u, v)"),
        ((mesh, "--data", folder / "two.vtu", "--array", "w"), "no array 'w'"),
        ((mesh, "--data", mesh), "unknown kind of file"),
        ((mesh, "--data", folder / "zero.npy", "--set", "monitor=given"), "expected positive finite numbers, got 0.0"),
        ((mesh, "--field", "x", "--mover", "sprin"), "did you mean spring"),
        ((mesh, "--field", "x", "--set", "strenght=1"), "did you mean 'strength'"),
        ((mesh, "--field", "x", "--set", "fixed=[door]"), "door"),
        ((folder / "quad.msh", "--field", "x"), "cells of type quad"),
    ):
        status, text, err = move(*arguments, "--out", out)
        assert status == 2 and words in err and not text, (arguments, err)
    assert not out.exists()
    assert "expected a name in .vtu or .msh" in move(mesh, "--field", "x", "--out", folder / "b.stl")[2]
    assert "no " in move(mesh, "--field", "x", "--out", folder / "none" / "b.vtu")[2]

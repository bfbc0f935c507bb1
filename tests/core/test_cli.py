import errno
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import warnings

import meshio
import numpy as np
import pytest
import yaml

from pdelab import cli, files

MESH = """$MeshFormat
2.2 0 8
$EndMeshFormat
$Nodes
5
1 0 0 0
2 1 0 0
3 1 1 0
4 0 1 0
5 0.4 0.5 0
$EndNodes
$Elements
4
1 2 2 1 1 1 2 5
2 2 2 1 1 2 3 5
3 2 2 1 1 3 4 5
4 2 2 1 1 4 1 5
$EndElements
"""
TETRA = MESH.replace("5 0.4 0.5 0", "5 0.4 0.5 1").partition("$Elements")[0]
TETRA += "$Elements\n2\n1 4 2 1 1 1 2 3 5\n2 4 2 1 1 1 3 4 5\n$EndElements\n"


@pytest.fixture
def pdelab(toys, capsys):
    """Run a command line in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as leaving:
            cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


def left(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != "profile")


def test_help_and_list_are_quick_and_import_nothing_heavy(toys):
    for command in ("--help", "list"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = f"import sys; from pdelab.cli import main\ntry: main(['{command}'])\n"
        code += "except SystemExit as e: assert not e.code\n"
        code += "assert not {'torch', 'numpy', 'yaml', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.2


def test_every_command_has_help(pdelab):
    text = pdelab("--help")[1]
    commands = [
        "list",
        "show",
        "doctor",
        "solve",
        "train",
        "resume",
        "reproduce",
        "bench",
        "linsolve",
        "move",
        "report",
        "compare",
        "export",
        "view",
    ]
    for command in commands:
        assert re.search(rf"\b{command}\b", text)
        assert pdelab(command, "--help")[0] == 0


def test_list(pdelab):
    status, out, _ = pdelab("list")
    assert status == 0
    assert "burgers-v1" in out and "fem" in out and "quick" in out
    assert "broken-v1" in out
    rows = json.loads(pdelab("list", "solvers", "--json")[1])
    summary = "The exact line, off by a relative error, or an accident instead."
    assert {"kind": "solvers", "name": "guess", "summary": summary} in rows
    status, _, err = pdelab("list", "solvrs")
    assert status == 2 and "did you mean 'solvers'" in err


def test_show(pdelab):
    status, out, _ = pdelab("show", "line")
    assert status == 0
    assert "u_xx = 0" in out and "slope: float = 2.0" in out
    assert {"descent", "guess"} <= set(re.search("solvers: (.*)", out)[1].split(", "))
    assert "accepts: Line" in pdelab("show", "guess")[1]
    assert "line-v2/descent" in pdelab("show", "toys")[1]
    status, _, err = pdelab("show", "toys-unknown")
    assert status == 2 and "suite 'toys-unknown', case 'lime/guess': no problem named 'lime'; did you mean" in err
    assert json.loads(pdelab("show", "line", "--json")[1])[0]["settings"] == [["slope", "float", "2.0"]]
    status, _, err = pdelab("show", "lime")
    assert status == 2 and "did you mean line" in err


def test_doctor_shows_why_a_plugin_failed(pdelab):
    status, out, _ = pdelab("doctor")
    assert status == 1
    assert "this plug-in is broken on purpose" in out and "broken-v1" in out
    assert "No module named 'pdelab_toys_absent'" in out
    assert "poisson-v1" in out and "pdelab keeps the name" in out


def test_solve_writes_the_run_folder(pdelab, toys):
    status, out, _ = pdelab("solve", "line", "--solver", "guess", "--set", "error=1e-2", "--out", "o", "--seed", 7193)
    assert status == 0
    assert "relative L2 error 0.01" in out
    named = {line.strip() for line in out.partition("files:")[2].splitlines() if line.strip()}
    assert {"o/config.yaml", "o/result.json", "o/fields.pvd", "o/manifest.json"} <= named
    assert all((toys / name).exists() for name in named)
    config = yaml.safe_load((toys / "o/config.yaml").read_text())
    assert config["problem"] == "line-v2" and config["problem_args"] == {"slope": 2.0} and config["seed"] == 7193
    assert config["solver_args"] == {"error": 0.01, "accident": "", "weights": []}
    assert left(toys) == ["o"]


def test_solve_prints_json_only(pdelab, toys):
    status, out, err = pdelab("solve", "line", "--solver", "descent", "--budget", "4steps", "--json")
    assert status == 0 and err == ""
    result = json.loads(out)
    assert result == json.loads((toys / "runs/line-v2-descent-0/result.json").read_text())
    assert result["cost"]["steps"] == 4


def test_options_win_over_the_config_file(pdelab, toys):
    (toys / "c.yaml").write_text(
        "problem: line\nsolver: guess\nproblem_args: {slope: 3}\nsolver_args: {error: 0.25}\nseed: 5\n"
    )
    status, out, _ = pdelab("solve", "--config", "c.yaml", "--set", "error=0.125", "--json")
    result = json.loads(out)
    assert status == 0
    assert (result["problem_args"], result["solver_args"]["error"], result["seed"]) == ({"slope": 3.0}, 0.125, 5)
    assert pdelab("solve", "--config", "runs/line-v2-guess-5/config.yaml", "--out", "again")[0] == 0


def test_a_run_without_success_is_kept_and_exits_with_1(pdelab, toys):
    status, out, _ = pdelab("solve", "line", "--solver", "guess", "--set", "accident=nan", "--out", "o")
    assert status == 1
    assert "NONFINITE" in out and "advice:" in out
    assert json.loads((toys / "o/result.json").read_text())["status"] == "NONFINITE"


def test_a_defect_is_told_in_short(pdelab):
    status, _, err = pdelab("solve", "line", "--solver", "guess", "--set", "accident=raise", "--out", "o")
    assert status == 1
    assert "ZeroDivisionError: the toy fell over" in err and "--debug" in err and "Traceback" not in err


def test_debug_shows_where(toys):
    command = ["solve", "line", "--solver", "guess", "--set", "accident=raise", "--out", "o", "--debug"]
    with pytest.raises(ZeroDivisionError):
        cli.main(command)


def test_an_interrupt_is_no_traceback(pdelab):
    status, _, err = pdelab("solve", "line", "--solver", "guess", "--set", "accident=interrupt", "--out", "o")
    assert status == 1 and "interrupted" in err and "pdelab resume" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("lime --solver guess", "no problem named 'lime'; did you mean line"),
        ("line --solver gues", "no solver named 'gues'; did you mean guess"),
        ("line --solver guess --set eror=1", "no setting 'eror'; did you mean 'error'"),
        ("line --solver guess --set error=big", "error='big'"),
        ("line --solver guess --problem-set slope=-1", "slope: expected a number > 0"),
        ("line --solver guess --problem-set slope=.nan", "slope: expected a number > 0.0, got nan"),
        ("line --solver guess --budget 3parsecs", "budget: expected such as '2000steps'"),
        ("line --solver guess --device tpu", "device: expected auto, cpu or cuda"),
        ("line --solver guess --seed -3", "seed: expected a whole number from 0"),
        ("line --solver guess --seed 99999999999999999999", "seed: expected a whole number from 0"),
        ("line --solver guess --problem-set slope=.inf", "slope: expected a finite number > 0.0, got inf"),
        (f"line --solver guess --out {'x' * 300}", "File name too long"),
        ("line --solver guess --threads 0", "threads: expected a whole number >= 1"),
        ("line", "no solver given"),
        ("--solver guess", "no problem given"),
        ("burgers --solver guess", "needs an Line"),
        ("broken --solver guess", "on purpose"),
        ("line --solver guess --set accident=refuse", "the toy does not like this"),
        ("line --solver guess --config absent.yaml", "absent.yaml: cannot be read"),
        ("line --solver guess --mesh absent.msh", "absent.msh"),
        ("line --solver guess --nonsense", "No such option"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(pdelab, toys, arguments, message):
    status, _, err = pdelab("solve", *arguments.split())
    assert status == 2
    assert message in " ".join(err.split()), err
    assert "Traceback" not in err
    assert [name for name in left(toys) if name != "runs"] == []
    assert not list(toys.glob("runs/*"))


def test_yaml_with_tags_is_refused(pdelab, toys):
    (toys / "c.yaml").write_text(f"problem: !!python/object/apply:pathlib.Path.touch [{toys / 'ran'}]\nsolver: guess\n")
    status, _, err = pdelab("solve", "--config", "c.yaml")
    assert status == 2 and "tags are not read" in err
    assert left(toys) == ["c.yaml"]


@pytest.mark.parametrize("text", ["5", "[error]", "{error: []}"])
def test_settings_in_a_config_file_that_are_no_mapping(pdelab, toys, text):
    (toys / "c.yaml").write_text(f"problem: line\nsolver: guess\nsolver_args: {text}\n")
    status, _, err = pdelab("solve", "--config", "c.yaml")
    assert status == 2 and "error" in err and "should not happen" not in err
    assert left(toys) == ["c.yaml"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "m.msh"),
        (MESH.encode()[:120], "m.msh"),
        (b"\x00\xff garbage" * 50, "m.msh"),
        (MESH.replace("0.4 0.5", "nan 0.5").encode(), "m.msh"),
        (TETRA.encode(), "2 space dimensions, the mesh has 3"),
    ],
)
def test_a_bad_mesh_file_is_refused(pdelab, toys, content, message):
    (toys / "m.msh").write_bytes(content)
    status, _, err = pdelab("solve", "poisson", "--solver", "fem", "--mesh", "m.msh")
    assert status == 2
    assert message in err and "Traceback" not in err
    assert left(toys) == ["m.msh"]


def test_solve_on_a_mesh_file(pdelab, toys, monkeypatch):
    monkeypatch.setenv("PDELAB_CACHE", str(toys / "cache"))
    (toys / "m.msh").write_text(MESH)
    status, out, _ = pdelab("solve", "poisson", "--solver", "fem", "--mesh", "m.msh", "--out", "o", "--json")
    result = json.loads(out)
    assert status == 0
    assert result["problem_args"]["mesh"].startswith("m.msh:")
    assert result["reference"]["kind"] == "fem" and result["reference"]["floor"] > 0
    assert result["metrics"]["rel_l2"] < 0.5
    assert yaml.safe_load((toys / "o/config.yaml").read_text())["mesh"] == str(toys / "m.msh")
    assert pdelab("reproduce", "o")[0] == 0
    (toys / "m.msh").write_text(MESH.replace("0.4 0.5", "0.6 0.5"))
    status, _, err = pdelab("reproduce", "o")
    assert status == 2 and "the mesh has changed" in err


def test_solve_inside_a_closed_surface(pdelab, toys, monkeypatch):
    monkeypatch.setenv("PDELAB_CACHE", str(toys / "cache"))
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    meshio.Mesh(corners, {"triangle": faces}).write(toys / "corner.stl", binary=True)
    status, out, _ = pdelab("solve", "poisson-3d", "--solver", "fem", "--mesh", "corner.stl", "--out", "o", "--json")
    assert status == 0 and json.loads(out)["cost"]["dofs"] > 4


def test_a_boundary_part_that_the_mesh_lacks(pdelab, toys):
    from pdelab.errors import IncompatibleProblem
    from pdelab.mesh import Mesh
    from pdelab.meshes.domain import MeshDomain
    from pdelab.pde import Dirichlet
    from pdelab.problems.poisson import Poisson
    from pdelab.restate import on_domain

    class Tagged(Poisson):
        def conditions(self):
            return (Dirichlet("u", 0.0, part="inlet"),)

    domain = MeshDomain(Mesh(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[0, 1, 2]])))
    with pytest.raises(IncompatibleProblem, match="'inlet'; the mesh names boundary"):
        on_domain(Tagged(), domain, identity="x")
    other = on_domain(Poisson(wavenumber=2), domain, identity="x")
    assert other.domain is domain and isinstance(other, Poisson)
    assert other.parameters == {"wavenumber": 2, "mesh": "x"}
    assert Poisson(wavenumber=2).domain is Poisson.domain


def test_another_run_is_only_replaced_by_force(pdelab, toys):
    command = ("solve", "line", "--solver", "guess", "--out", "o")
    assert pdelab(*command)[0] == 0
    before = (toys / "o/result.json").read_bytes()
    status, _, err = pdelab(*command, "--seed", 3)
    assert status == 2 and "holds another run" in err and "--force" in err
    assert (toys / "o/result.json").read_bytes() == before
    assert pdelab(*command, "--seed", 3, "--force")[0] == 0
    assert json.loads((toys / "o/result.json").read_text())["seed"] == 3


def test_a_place_that_cannot_be_written(pdelab, toys):
    (toys / "file").write_text("")
    status, _, err = pdelab("solve", "line", "--solver", "guess", "--out", "file/o")
    assert status == 2 and "file/o" in err
    status, _, err = pdelab("bench", "--suite", "toys", "--out", "file/o")
    assert status == 2 and "file/o" in err


def test_a_wrong_value_in_a_config_file_is_named_without_our_own_words(pdelab, toys):
    (toys / "job.yaml").write_text("problem: line\nsolver: guess\nthreads: yes\n")
    status, _, err = pdelab("solve", "--config", "job.yaml", "--out", "o")
    assert status == 2 and err == "error: solve: threads=True: expected a number\n"
    assert not (toys / "o").exists()


def test_a_full_disk(pdelab, toys, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_bytes", full)
        status, _, err = pdelab("solve", "line", "--solver", "guess", "--out", "o")
    assert status == 2 and "No space left on device" in err
    assert not (toys / "o").exists()
    # The folder that was given is named, not the one inside it where the files are made.
    with monkeypatch.context() as patched:
        patched.setattr("pdelab.figures.write_bytes", full)
        status, _, err = pdelab("solve", "line", "--solver", "guess", "--out", "o")
    assert status == 2 and err.endswith("o: cannot write: No space left on device; nothing was changed there\n")


def interrupted(pdelab, toys):
    """A run folder as a killed process leaves it: config.yaml and a checkpoint in the middle."""
    assert pdelab("solve", "line", "--solver", "descent", "--budget", "6steps", "--out", "whole")[0] == 0
    assert pdelab("solve", "line", "--solver", "descent", "--budget", "6steps", "--out", "half")[0] == 0
    for name in ("result.json", "history.csv", "manifest.json", "fields.pvd"):
        (toys / "half" / name).unlink()
    for path in (toys / "half/checkpoint").glob("step-0000006.*"):
        path.unlink()


def test_resume_ends_as_if_never_interrupted(pdelab, toys):
    interrupted(pdelab, toys)
    status, out, _ = pdelab("resume", "half")
    assert status == 0 and "from step 5" in out
    assert (toys / "half/history.csv").read_bytes() == (toys / "whole/history.csv").read_bytes()
    results = [json.loads((toys / name / "result.json").read_text()) for name in ("half", "whole")]
    assert results[0]["metrics"] == results[1]["metrics"]
    status, out, _ = pdelab("resume", "half")
    assert status == 0 and "this run has ended: BUDGET_SPENT" in out


def test_a_checkpoint_of_another_run_version_or_damaged_is_refused(pdelab, toys):
    interrupted(pdelab, toys)
    (path,) = (toys / "half/checkpoint").glob("step-*.json")
    record = json.loads(path.read_text())

    def resumed(**changes):
        path.write_text(json.dumps(record | changes))
        return pdelab("resume", "half")

    status, _, err = resumed(owner=record["owner"] | {"solver_args": {"pause": 0.5}})
    assert status == 2 and "belongs to another run (solver_args.pause: 0.5 there, 0.0 here);" in err
    status, _, err = resumed(pdelab="0.0.1")
    assert status == 2 and "written by pdelab 0.0.1" in err
    path.write_text("{")
    status, _, err = pdelab("resume", "half")
    assert status == 2 and "no sound checkpoint" in err
    shutil.rmtree(path.parent)
    path.parent.write_text("")
    status, _, err = pdelab("resume", "half")
    assert status == 2 and "a file has the name of the folder for checkpoints" in err
    assert not (toys / "half/result.json").exists()


def test_folders_that_are_no_runs(pdelab, toys):
    (toys / "empty").mkdir()
    for command in ("resume", "reproduce", "report", "export", "view"):
        for folder in ("empty", "absent"):
            status, _, err = pdelab(command, folder)
            assert status == 2 and folder in err, command
    assert left(toys) == ["empty"] and left(toys / "empty") == []


def test_reproduce(pdelab, toys):
    assert pdelab("solve", "line", "--solver", "descent", "--budget", "5steps", "--out", "o", "--seed", 8117)[0] == 0
    status, out, _ = pdelab("reproduce", "o")
    assert status == 0 and "the same result, to the last bit" in out
    result = json.loads((toys / "o/result.json").read_text())
    result["metrics"]["rel_l2"] *= 1.0 + 1e-15
    (toys / "o/result.json").write_text(json.dumps(result | {"commit": "older"}))
    status, out, _ = pdelab("reproduce", "o")
    assert status == 1 and "another result" in out and "commit was older" in out


def test_bench_report_and_check(pdelab, toys):
    command = ("bench", "--suite", "toys", "--out", "b", "--only")
    status, out, _ = pdelab(*command, "descent", "--check")
    assert status == 0
    assert "[3/3]" in out and "all limits of the suite are kept" in out and "b/report.html" in out
    status, out, _ = pdelab(*command, "*-good", "--check", "--json")
    assert status == 1
    assert json.loads(out)["violations"] == ["line-v2/guess-good: rel_l2 = 0.001, limit 0.0001"]
    status, out, _ = pdelab(*command, "*-good")
    assert status == 0 and "1 of 1 runs were done before" in out
    assert pdelab("report", "b", "--out", "r")[0] == 0
    assert left(toys / "r") == ["report.html", "report.md", "results.csv"]
    assert "descent" in (toys / "r/report.md").read_text()
    status, out, _ = pdelab("compare", "b", "b")
    assert status == 0 and "line-v2/descent" in out
    status, _, err = pdelab("resume", "b")
    assert status == 2 and "pdelab bench --out b" in err
    status, out, _ = pdelab(*command, "*-raises")
    assert status == 1
    assert out.endswith(
        "1 of 1 runs ended in an error:\n  line-v2/guess-raises seed 48109: ZeroDivisionError: the toy fell over\n"
    )
    assert pdelab(*command, "*-raises", "--json")[0] == 1
    assert pdelab(*command, "*-refuses")[0] == 0
    status, _, err = pdelab("bench", "--suite", "toy", "--out", "c")
    assert status == 2 and "did you mean toys" in err
    status, _, err = pdelab("bench", "--suite", "toys", "--out", "c", "--only", "gess")
    assert status == 2 and "did you mean guess" in err and not (toys / "c").exists()


def test_compare_two_runs(pdelab):
    for name, error in (("a", 0.5), ("b", 0.25)):
        assert pdelab("solve", "line", "--solver", "guess", "--set", f"error={error}", "--out", name)[0] == 0
    status, out, _ = pdelab("compare", "a", "b")
    assert status == 0
    assert re.search(r"rel_l2 +0.5 +0.25 +0.5", out) and re.search(r"solver_args.error +0.5 +0.25", out)
    found = {d["quantity"]: d for d in json.loads(pdelab("compare", "a", "b", "--json")[1])}
    assert found["max_abs"]["second"] == pytest.approx(0.5, rel=1e-2)


def test_export_of_a_series_in_one_file(pdelab, toys):
    # Crank-Nicolson on few points: only the files are looked at.
    arguments = ("solve", "heat", "--solver", "fd", "--set", "n=8", "--set", "n_steps=9", "--out", "o")
    assert pdelab(*arguments)[0] == 0
    status, out, _ = pdelab("export", "o", "--vtkhdf", "--times", 3, "--resolution", 5)
    assert status == 0 and "o/fields.vtkhdf" in out
    assert "fields.vtkhdf" in json.loads((toys / "o/result.json").read_text())["files"]
    assert pdelab("export", "o", "--times", 3)[0] == 0
    # A file of another resolution than the rest would mislead.
    assert not (toys / "o/fields.vtkhdf").exists()
    assert "fields.vtkhdf" not in (toys / "o/manifest.json").read_text()


def test_each_warning_is_one_line_and_shown_once(pdelab, toys, monkeypatch):
    def noisy(folder):
        for number in (1, 1, 2, 1):
            warnings.warn(f"mesh {number} was mended", UserWarning, stacklevel=2)
        return {"status": "CONVERGED"}

    assert pdelab("solve", "line", "--solver", "guess", "--out", "o")[0] == 0
    monkeypatch.setattr("pdelab.runs.read_result", noisy)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert pdelab("resume", "o")[2] == "warning: mesh 1 was mended\nwarning: mesh 2 was mended\n"
    assert warnings.showwarning == before


def test_export_and_view(pdelab, toys):
    assert pdelab("solve", "line", "--solver", "guess", "--out", "o")[0] == 0
    status, out, _ = pdelab("export", "o", "--resolution", 7)
    assert status == 0 and "o/fields.pvd" in out
    assert 'WholeExtent="0 6 ' in next((toys / "o/fields").glob("*.vti")).read_bytes().decode("latin1")
    manifest = json.loads((toys / "o/manifest.json").read_text())
    result = json.loads((toys / "o/result.json").read_text())
    present = sorted(p.relative_to(toys / "o").as_posix() for p in (toys / "o").rglob("*") if p.is_file())
    assert result["files"] == present
    assert {name: facts["sha256"] for name, facts in manifest["files"].items()} == {
        name: hashlib.sha256((toys / "o" / name).read_bytes()).hexdigest()
        for name in present
        if name != "manifest.json"
    }
    status, _, err = pdelab("export", "o", "--vtkhdf")
    assert status == 2 and "steady" in err and "vtkhdf" in err
    status, _, err = pdelab("export", "o", "--times", 3)
    assert status == 2 and "steady" in err
    status, _, err = pdelab("export", "o", "--resolution", 1)
    assert status == 2 and "resolution" in err
    assert pdelab("view", "o", "--screenshot", "p.png")[0] == 0
    assert (toys / "p.png").read_bytes().startswith(b"\x89PNG")

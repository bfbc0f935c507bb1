"""The commands train and solve --state, and what they refuse."""

import json

import pytest

from pdelab import cli
from pdelab.domain import Box
from pdelab.meshes.generate import box_mesh
from pdelab.vtk import write_vtu

TINY = ["--set", "n_basis=6", "--set", "width=8", "--set", "depth=1", "--set", "n_points=64", "--set", "n_solve=64"]
TRAIN = ["train", "hc-moe", "--family", "burgers-random", "--family-set", "decay=4", "--threads", "1", *TINY]


@pytest.fixture
def pdelab(capsys):
    """Run a command line in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as leaving:
            cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


def test_trains_into_a_file_that_solves(pdelab, tmp_path):
    state, folder = tmp_path / "a" / "state.safetensors", tmp_path / "run"
    status, text, _ = pdelab(*TRAIN, "--budget", "3steps", "--out", state, "--json")
    facts = json.loads(text)
    assert status == 0 and facts["status"] == "BUDGET_SPENT" and facts["steps"] == 3 and facts["files"] == [str(state)]
    assert [p.name for p in state.parent.iterdir()] == ["state.safetensors"]
    problem = ["burgers-random", "--problem-set", "decay=4"]
    status, text, _ = pdelab("solve", *problem, "--solver", "hc-moe", "--state", state, "--out", folder, "--json")
    result = json.loads(text)
    assert status == 0 and result["status"] == "CONVERGED" and result["solver_args"]["n_basis"] == 6
    assert result["cost"]["train_s"] < 0.1
    status, text, _ = pdelab("reproduce", folder)
    assert status == 0 and "to the last bit" in text
    assert pdelab(*TRAIN, "--budget", "4steps", "--out", state, "--force")[0] == 0
    status, _, error = pdelab("reproduce", folder)
    assert status == 2 and "the state has changed since the run" in error


def test_trains_a_mover_into_a_file_that_moves_meshes(pdelab, tmp_path):
    weights, mesh, out = tmp_path / "w.safetensors", tmp_path / "mesh.vtu", tmp_path / "moved.vtu"
    tiny = ["--set", "width=2", "--set", "n_cases=2", "--budget", "2steps", "--threads", "1"]
    status, text, _ = pdelab("train", "um2n", *tiny, "--out", weights, "--json")
    assert status == 0 and json.loads(text)["steps"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    write_vtu(mesh, box_mesh(Box((0.0, 0.0), (1.0, 1.0)), 6), {})
    given = ["--field", "exp(-20*(x^2+y^2))", "--set", f"weights={weights}", "--out", out, "--json"]
    status, text, _ = pdelab("move", mesh, "--mover", "um2n", *given)
    assert status == 0 and json.loads(text)["inverted"] == 0
    status, _, error = pdelab("move", mesh, "--mover", "um2n-published", *given, "--force")
    assert status == 2 and "they are of 'um2n', not of 'um2n-published'" in error
    weights.write_bytes(weights.read_bytes()[:900])
    status, _, error = pdelab("move", mesh, "--mover", "um2n", *given, "--force")
    assert status == 2 and "cannot be read" in error


def test_a_file_that_exists_is_kept(pdelab, tmp_path):
    state = tmp_path / "state"
    state.write_text("mine")
    status, _, error = pdelab(*TRAIN, "--budget", "2steps", "--out", state)
    assert status == 2 and "exists" in error and state.read_text() == "mine"
    assert pdelab(*TRAIN, "--budget", "2steps", "--out", state, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "fem", "--family", "darcy"], "nothing to train beforehand"),
        (["train", "hc-moe"], "name it by --family"),
        (["train", "spring"], "no network"),
        (["train", "um2n", "--family", "darcy"], "leave the family out"),
        (["train", "um2n", "--set", "widht=3"], "did you mean 'width'"),
        (["train", "hc-moe", "--family", "darcyy"], "did you mean darcy"),
        (["train", "hc-moe", "--family", "darcy", "--set", "n_basiss=3"], "did you mean 'n_basis'"),
        (["train", "hc-moe", "--family", "darcy", "--budget", "3"], "budget"),
        (["train", "hc-moe", "--family", "darcy-piecewise"], "lack"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(pdelab, tmp_path, arguments, message):
    status, _, error = pdelab(*arguments, "--out", tmp_path / "state")
    assert status == 2 and message in error
    assert not list(tmp_path.iterdir())


def test_states_of_other_solvers_and_settings_are_refused(pdelab, tmp_path):
    state = tmp_path / "state"
    assert pdelab(*TRAIN, "--budget", "1steps", "--out", state)[0] == 0
    problem = ["solve", "burgers-random", "--state", state, "--out", tmp_path / "run"]
    status, _, error = pdelab(*problem, "--solver", "pinn")
    assert status == 2 and "is of 'hc-moe', not of 'pinn'" in error
    status, _, error = pdelab(*problem, "--solver", "hc-moe", "--set", "width=9")
    assert status == 2 and "width: the state was trained with 8, got 9" in error
    assert not (tmp_path / "run").exists()


def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from pdelab.checkpoint import CheckpointStore
    from pdelab.solver import Progress
    from pdelab.training import training

    monkeypatch.setattr(CheckpointStore.__init__, "__defaults__", (0.0,))
    settings = {"n_basis": 6, "width": 8, "depth": 1, "n_points": 64, "n_solve": 64}
    cut_off = training("hc-moe", "burgers-random", settings, {"decay": 4.0})

    def stop(progress: Progress) -> None:
        if progress.step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off.run(tmp_path / "cut", budget="6steps", device="cpu", threads=1, report=stop)
    assert not (tmp_path / "cut").exists() and list((tmp_path / "cut.checkpoint").glob("step-*.json"))
    for name in ("cut", "whole"):
        cut_off.run(tmp_path / name, budget="6steps", device="cpu", threads=1)
    first, second = (load_file(tmp_path / name) for name in ("cut", "whole"))
    assert all((first[k] == second[k]).all() for k in first)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut", "whole"]

import csv
import hashlib
import json
import math
import resource
import shutil
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml

import pdelab
from pdelab.errors import InputError, OutputError
from pdelab.job import Job
from pdelab.registry import Entry
from pdelab.results import COST, identity, plain, record
from pdelab.runs import config_of, prepare_folder, read_config, read_result, save, write_config
from pdelab.solution import Solution, Status
from pdelab.staging import staged

KEYS = ["problem", "problem_args", "solver", "solver_args", "seed", "status", "message", "metrics", "reference"]
KEYS += ["cost", "quantities", "validity", "versions", "commit", "device", "threads", "started", "files"]
FILES = [
    "config.yaml",
    "fields.pvd",
    "fields/poisson.vti",
    "figures/error.png",
    "figures/field.png",
    "figures/history.png",
    "figures/reference.png",
    "history.csv",
    "inspect.py",
    "manifest.json",
    "result.json",
]


@dataclass(frozen=True)
class Exactly:
    """A stand-in for a trained solver."""

    width: int = 20
    learning_rate: float = 1e-3
    name: ClassVar[str] = "exactly"
    trained: ClassVar[bool] = True


def solved(**changes) -> Solution:
    problem = pdelab.problem("poisson", wavenumber=2)
    solution = Solution(
        problem,
        lambda x: problem.exact(pdelab.calculus.Coordinates(x, "xy"))[:, None] * 1.01,
        Status.BUDGET_SPENT,
        stats={"steps": 300, "loss": 0.1, "wall_s": 2.5, "cpu_s": 2.25, "n_parameters": 41},
        history={"step": [0, 100], "cpu_s": [0.0, 1 / 3], "loss": [1.0, math.nan]},
        validity={"boundary_violation": math.inf},
        solver=Exactly(),
        seed=48109,
        started="2025-01-01T00:00:00+00:00",
    )
    return solution.replaced(**changes)


def checksum(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(folder) -> dict[str, str]:
    return dict(sorted((p.relative_to(folder).as_posix(), checksum(p)) for p in folder.rglob("*") if p.is_file()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A saved run; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "poisson"
    save(solved(), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_the_record_has_the_promised_keys_and_numbers():
    facts = record(solved(), files=["result.json"])
    assert list(facts) == KEYS
    assert (facts["problem"], facts["problem_args"]) == ("poisson-v1", {"wavenumber": 2})
    assert (facts["solver"], facts["solver_args"]) == ("exactly", {"width": 20, "learning_rate": 1e-3})
    assert (facts["seed"], facts["status"], facts["files"]) == (48109, "BUDGET_SPENT", ["result.json"])
    assert facts["metrics"]["rel_l2"] == pytest.approx(0.01, rel=1e-10)
    assert set(facts["metrics"]) == {"rel_l2", "rel_l1", "max_abs", "per_component"}
    assert facts["reference"] == {"kind": "exact", "floor": 1e-14}
    assert tuple(facts["cost"]) == COST
    assert (facts["cost"]["steps"], facts["cost"]["cpu_s"], facts["cost"]["dofs"]) == (300, 2.25, None)
    assert set(facts["versions"]) == {"pdelab", "torch", "python"}


def test_what_a_solver_counted_besides_the_cost_is_a_quantity():
    assert record(solved(stats={"dofs": 9.0, "solve_s": 0.1, "stress_xx": 2.5}))["quantities"] == {"stress_xx": 2.5}


def test_of_several_versions_of_one_class_the_newest_is_named(monkeypatch):
    target = f"{Exactly.__module__}:Exactly"
    found = {n: Entry("solvers", n, target, "toys") for n in ("exactly-v2", "exactly-v10", "exactly-v9")}
    monkeypatch.setattr("pdelab.registry.entries", lambda kind: found)
    assert identity("solvers", Exactly()) == "exactly-v10"
    found.clear()
    assert identity("solvers", Exactly()) == "exactly"


def test_numbers_that_are_not_finite_become_null():
    facts = record(solved(field=lambda x: torch.full((len(x), 1), math.nan, dtype=torch.float64)))
    assert facts["metrics"]["rel_l2"] is None and facts["validity"] == {"boundary_violation": None}
    json.dumps(facts, allow_nan=False)


def test_unknowns_of_an_inverse_problem_are_metrics():
    assert record(solved(unknowns={"k": 0.25}))["metrics"]["unknowns"] == {"k": 0.25}


def test_plain_makes_settings_that_yaml_and_json_hold():
    given = {"a": (1, 2.5), "b": np.float64(0.1), "c": Exactly(), "d": Status.CONVERGED, 5: np.arange(2), "e": None}
    made = plain(given)
    assert made == {
        "a": [1, 2.5],
        "b": 0.1,
        "c": {"name": Exactly.name, "width": 20, "learning_rate": 1e-3},
        "d": "CONVERGED",
        "5": [0, 1],
        "e": None,
    }
    assert yaml.safe_load(yaml.safe_dump(made)) == made


def test_a_run_folder_is_complete(finished):
    assert list(content(finished)) == FILES
    result = read_result(finished)
    assert result["files"] == FILES
    assert result["metrics"]["rel_l2"] == pytest.approx(0.01, rel=1e-10)
    rows = list(csv.reader((finished / "history.csv").open()))
    assert rows[0] == ["step", "cpu_s", "loss"] and float(rows[2][1]) == 1 / 3


def test_the_manifest_holds_the_checksum_of_every_other_file(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    expected = {name: digest for name, digest in content(finished).items() if name != "manifest.json"}
    assert {name: facts["sha256"] for name, facts in manifest["files"].items()} == expected
    assert manifest["versions"]["torch"] == torch.__version__ and manifest["seed"] == 48109


def test_the_config_of_a_solution_rebuilds_its_run(finished):
    config = read_config(finished)
    assert config == config_of(solved())
    assert config["budget"] == "300steps"
    job = Job.from_mapping(config | {"solver": "pinn", "solver_args": {}}, "test")
    assert job.build()[0] == pdelab.problem("poisson", wavenumber=2)


def test_a_prepared_folder_is_completed_and_its_checkpoint_kept(tmp_path):
    folder = prepare_folder(tmp_path / "a" / "b")
    config = config_of(solved()) | {"budget": "9s"}
    write_config(folder, config)
    before = (folder / "config.yaml").read_bytes()
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "step-7.json").write_text("{}")
    save(solved(), folder, config=config)
    assert (folder / "config.yaml").read_bytes() == before
    assert (folder / "checkpoint" / "step-7.json").exists()
    assert list(content(folder)) == sorted([*FILES, "checkpoint/step-7.json"])


def test_another_run_is_refused_and_left_alone(run):
    (run / "notes.txt").write_text("mine")
    before = content(run)
    with pytest.raises(OutputError, match="holds another run"):
        prepare_folder(run)
    with pytest.raises(OutputError, match="holds another run"):
        save(solved(), run)
    (run / "result.json").unlink()
    with pytest.raises(OutputError, match="config.yaml of other settings"):
        save(solved(seed=7), run)
    del before["result.json"]
    assert content(run) == before


def test_force_replaces_the_run_and_nothing_else(run):
    (run / "notes.txt").write_text("mine")
    (run / "fields" / "stale.vti").write_text("")
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "stale.json").write_text("")
    save(solved(seed=7), run, force=True)
    assert list(content(run)) == sorted([*FILES, "notes.txt"])
    assert read_result(run)["seed"] == read_config(run)["seed"] == 7
    prepare_folder(run, force=True)
    assert list(content(run)) == ["notes.txt"]


def test_folders_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="no folder can be made"):
            prepare_folder(folder)


@pytest.mark.parametrize("limit", [600, 20_000])
def test_a_full_disk_changes_nothing(run, limit):
    before = content(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            save(solved(seed=7), run, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(run) == before and not list(run.glob(".*"))


def test_a_swap_that_fails_half_way_is_undone(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_text("old")
    done = []

    def rename(source, target, really=staged.__wrapped__.__globals__["os"].rename):
        done.append(target)
        if len(done) == 5:
            raise OSError(28, "No space left on device")
        really(source, target)

    monkeypatch.setattr("pdelab.staging.os.rename", rename)
    with pytest.raises(OutputError, match="No space left"), staged(tmp_path, last="b") as new:
        for name in "abc":
            (new / name).write_text("new")
    assert len(done) > 5
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys("abc", "old")


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged(tmp_path) as new:
        (new / "a").write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_a_killed_write_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / ".writing-abc" / "new"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    with staged(tmp_path) as new:
        (new / "a").write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_weights_of_a_network_are_saved_without_code(tmp_path):
    from safetensors.torch import load_file

    torch.manual_seed(9)
    layer = torch.nn.Linear(2, 2, dtype=torch.float64)
    network = torch.nn.Sequential(layer, torch.nn.Tanh(), layer, torch.nn.Linear(2, 1, dtype=torch.float64))
    save(solved(field=network), tmp_path)
    stored = load_file(tmp_path / "checkpoint" / "final.safetensors")
    assert stored.keys() == network.state_dict().keys()
    assert all(torch.equal(stored[k], v) for k, v in network.state_dict().items())
    assert "checkpoint/final.safetensors" in read_result(tmp_path)["files"]


def test_a_failed_run_is_saved_too(tmp_path):
    broken = solved(field=lambda x: torch.full((len(x), 1), math.nan, dtype=torch.float64), status=Status.NONFINITE)
    save(broken, tmp_path)
    assert read_result(tmp_path)["status"] == "NONFINITE"
    assert list(content(tmp_path)) == FILES


def test_the_mesh_of_a_config_is_named_in_full_and_checked(tmp_path, monkeypatch):
    mesh = tmp_path / "a.msh"
    mesh.write_text("nodes")
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, config_of(solved()) | {"mesh": "a.msh"})
    assert read_config(tmp_path)["mesh"] == str(mesh)
    mesh.write_text("other")
    with pytest.raises(InputError, match="the mesh has changed"):
        read_config(tmp_path)
    mesh.unlink()
    with pytest.raises(InputError, match=r"a\.msh: cannot be read"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['true']", "problem: !!python/name:os.system", "- 1", "{", ""]
)
def test_configs_that_are_no_plain_mapping_are_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        read_config(tmp_path)


def test_missing_and_damaged_results_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.yaml"):
        read_config(tmp_path)
    with pytest.raises(InputError, match=r"no result\.json"):
        read_result(tmp_path)
    for text in ("{", "[]", '{"status": 5}'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(InputError, match=r"result\.json"):
            read_result(tmp_path)

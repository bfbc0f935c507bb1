"""The package list agrees with the disk, and the wheel works in an empty environment."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_a_listed_package():
    mapped = {
        "meshes": "pdelab.meshes",
        "solvers": "pdelab.solvers",
        "benchmarks": "pdelab.benchmarks",
        "pdelab": "pdelab",
    }
    on_disk = set()
    for folder, package in mapped.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            on_disk.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    assert on_disk == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_every_python_file_lies_in_a_package():
    for folder in ("pdelab", "meshes", "solvers", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


@pytest.mark.parametrize("group", sorted(PYPROJECT["project"]["entry-points"]))
def test_installed_names_are_those_of_the_project_file(group):
    installed = {e.name: e.value for e in entry_points(group=group) if e.dist and e.dist.name == "pdelab"}
    assert installed == PYPROJECT["project"]["entry-points"][group], "run pip install -e . again"


def test_every_registered_name_loads():
    from pdelab import registry

    assert registry.failures() == {}


def test_top_level_is_what_the_readme_says():
    code = {p.name for p in ROOT.iterdir() if p.is_dir() and list(p.glob("*.py"))}
    assert code - {"tests", "examples"} == {"pdelab", "meshes", "solvers", "benchmarks"}


def test_the_wheel_lists_and_solves_in_an_empty_environment(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    # The dependencies are those of this environment, seen through a path file; pdelab itself is not: the
    # editable finder is a .pth file, and path files are not read from a path that another one adds.
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    env = {**os.environ, "PDELAB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    pdelab = [python, "-m", "pdelab"]
    run = dict(cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
    where = subprocess.run([python, "-c", "import pdelab.solvers as s; print(s.__file__)"], **run).stdout
    assert str(tmp_path) in where
    assert "burgers-v1" in subprocess.run([*pdelab, "list"], **run).stdout
    subprocess.run([*pdelab, "solve", "poisson", "--solver", "fem", "--out", "run"], **run)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "CONVERGED"

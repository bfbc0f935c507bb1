"""The example plug-in installs, is listed, passes the contract tests and solves; a broken one breaks nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
CHECK = """
import pdelab
from pdelab import testing
from pdelab_decay import Constant, Decay
testing.check_problem(Decay())
testing.check_solver(Constant(), pdelab.problem("decay"))
testing.check_solver(Constant(), pdelab.problem("poisson"))
print(pdelab.solve(pdelab.problem("decay", rate=1.0), Constant()).error()["rel_l2"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Environment variables under which the plug-in is installed beside pdelab."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", target]
    source = tmp_path_factory.mktemp("source") / "plugin"
    source.mkdir()
    for file in EXAMPLE.glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    subprocess.run([*pip, source], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(target)}, target


def run(env, *arguments):
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=120)


def test_plugin_is_listed_and_passes_the_contract_tests(installed):
    env, _ = installed
    listing = run(env, "-m", "pdelab", "list", "all").stdout
    assert "decay-v1" in listing and "constant" in listing
    result = run(env, "-c", CHECK)
    assert result.returncode == 0, result.stderr
    assert 0.1 < float(result.stdout) < 1.0


def test_a_plugin_that_fails_on_import_breaks_nothing_else(installed, tmp_path):
    env, target = installed
    broken = tmp_path / "site"
    info = broken / "pdelab_broken-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pdelab-broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[pdelab.solvers]\nbroken = pdelab_broken:Broken\n")
    (broken / "pdelab_broken.py").write_text("raise RuntimeError('no such library')\n")
    env = {**env, "PYTHONPATH": f"{broken}{os.pathsep}{target}"}
    assert run(env, "-m", "pdelab", "--help").returncode == 0
    assert "broken" in run(env, "-m", "pdelab", "list", "solvers").stdout
    doctor = run(env, "-m", "pdelab", "doctor")
    assert "no such library" in doctor.stdout and "pdelab-broken" in doctor.stdout
    solve = run(env, "-m", "pdelab", "solve", "poisson", "--solver", "broken", "--out", str(tmp_path / "out"))
    assert solve.returncode == 2 and "no such library" in solve.stderr + solve.stdout
    assert not (tmp_path / "out").exists()

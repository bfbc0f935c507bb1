import subprocess
import sys

import pytest

from pdelab import registry
from pdelab.errors import PluginError, UnknownName
from pdelab.problems.burgers import Burgers


def test_the_newest_version_is_meant():
    assert registry.find("problems", "wave-2d") == "wave-2d-v2"


def test_versions_are_numbers_not_text(monkeypatch):
    known = {f"toy-v{n}": None for n in (2, 9, 10)}
    monkeypatch.setattr(registry, "entries", lambda kind: known)
    assert registry.find("problems", "toy") == "toy-v10"


@pytest.mark.parametrize("name", ["burgers", "burgers-v1"])
def test_load(name):
    assert registry.load("problems", name) is Burgers


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UnknownName, match="no problem named 'burgrs'; did you mean .*burgers"):
        registry.load("problems", "burgrs")


def test_summary_reads_the_docstring_without_importing():
    code = "import sys; from pdelab import registry; print(registry.summary('problems', 'burgers')); "
    code += "assert 'torch' not in sys.modules and 'pdelab.problems.burgers' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == Burgers.__doc__.partition("\n")[0]


def test_register_is_for_this_process(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})

    class Thing:
        """A thing."""

    registry.register("problems", "thing-v3", Thing)
    assert registry.load("problems", "thing") is Thing
    assert registry.summary("problems", "thing") == "A thing."
    assert "thing-v3" in registry.names("problems")


def test_plugins_are_found(toys):
    assert registry.find("problems", "line") == "line-v2"
    assert registry.summary("problems", "line") == "A straight line: u_xx = 0, u = slope x at the ends of [0, 1]."
    assert registry.entries("problems")["line-v2"].distribution == "pdelab-toys"


def test_broken_plugins_are_told_and_break_nothing(toys):
    assert "broken-v1" in registry.names("problems")
    assert "doctor" in registry.summary("problems", "absent")
    with pytest.raises(PluginError, match="pdelab-toys.*on purpose"):
        registry.load("problems", "broken")
    with pytest.raises(PluginError, match="pdelab_toys_absent"):
        registry.load("problems", "absent")
    failures = registry.failures()
    assert "on purpose" in failures["problems: broken-v1"]


@pytest.mark.parametrize(
    "kind, code, message",
    [
        ("problems", "import sys; sys.exit(7)", "it leaves with SystemExit"),
        ("problems", "thing = 5", "a dataclass that is an AbstractProblem of pdelab.pde, got 5"),
        ("problems", "from pdelab.solvers.fem import FEM as thing", "AbstractProblem"),
        ("solvers", "from pdelab.solver import AbstractSolver\nclass thing(AbstractSolver): pass", "dataclass"),
        ("suites", "thing = 5", "a tuple of pdelab.bench.Case"),
        ("suites", "thing = ()", "at least one"),
        ("suites", "thing = ('poisson', 'fem')", "a tuple of pdelab.bench.Case"),
    ],
)
def test_what_is_not_of_its_kind_is_a_broken_plugin(kind, code, message, tmp_path, monkeypatch):
    (tmp_path / "odd_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_plugin", raising=False)
    found = {"odd": registry.Entry(kind, "odd", "odd_plugin:thing", "odd-one")}
    monkeypatch.setattr(registry, "entries", lambda k: found if k == kind else {})
    monkeypatch.setattr(registry, "_registered", {})
    with pytest.raises(PluginError, match=f"'odd' of odd-one failed to load .*{message}"):
        registry.load(kind, "odd")
    assert list(registry.failures()) == [f"{kind}: odd"]


def test_a_name_of_pdelab_stays_with_pdelab(toys):
    assert registry.entries("problems")["poisson-v1"].distribution == "pdelab"
    assert [e.distribution for e in registry.conflicts("problems")] == ["pdelab-toys"]

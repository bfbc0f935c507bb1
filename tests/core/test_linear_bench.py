import dataclasses
import json

import numpy as np
import pytest
from scipy import ndimage

from pdelab import registry
from pdelab.bench import load_suite, plan, read_records, run_suite, violations
from pdelab.errors import SettingsError
from pdelab.linear_bench import LinearCase
from pdelab.report import collect, write
from pdelab.systems import GridPoisson

SMALL = {"shape": (16, 16), "walls": "neumann", "obstacles": "discs", "n_right_hand_sides": 3}
CASES = (
    LinearCase(SMALL, "cg", {"tolerance": 1e-6}),
    LinearCase(SMALL, "dcdm", {"tolerance": 1e-6}, {"iterations": 12.0, "cg_share": 0.5, "failures": 0.5}),
    LinearCase(SMALL, "cg", {"tolerance": 1e-6, "max_iterations": 3}, label="short"),
)


def done(tmp_path, cases=CASES):
    runs = plan(cases)
    return runs, list(run_suite(runs, tmp_path, suite="small"))


def test_a_suite_of_linear_systems_runs_once_and_is_reported(tmp_path):
    runs, records = done(tmp_path)
    assert [r["status"] for r in records] == ["CONVERGED", "CONVERGED", "MAX_ITERATIONS"]
    assert "3 of 3 right-hand sides not converged" in records[2]["message"]
    assert "iterations" not in records[2]["metrics"] and records[2]["metrics"]["failures"] == 3
    ours = records[1]["metrics"]
    assert ours["cg_share"] == ours["iterations"] / ours["cg_iterations"]
    assert ours["cg_iterations"] == records[0]["metrics"]["iterations"] and ours["residual_max"] <= 1e-6
    assert list(run_suite(runs, tmp_path, suite="small")) == []
    assert violations(CASES, runs, read_records(tmp_path)) == []
    write(collect([tmp_path]), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| cg | " in text and "not converged" in text and "iterations (median)" in text
    assert "grid-poisson" in (tmp_path / "report.html").read_text()


def test_limits_that_are_broken_are_told(tmp_path):
    cases = (
        dataclasses.replace(CASES[0], limits={"iterations": 2.0}),
        dataclasses.replace(CASES[2], limits={"failures": 0.5}),
    )
    runs, _ = done(tmp_path, cases)
    found = violations(cases, runs, read_records(tmp_path))
    assert len(found) == 2
    assert "iterations = " in found[0] and "limit 2" in found[0]
    assert "MAX_ITERATIONS" in found[1]


def test_a_solver_that_refuses_is_a_record(tmp_path):
    cases = (LinearCase(SMALL, "fast-poisson"),)
    _, (record,) = done(tmp_path, cases)
    assert record["status"] == "REFUSED" and json.dumps(record)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (LinearCase(SMALL, "amgg"), "no linear solver named 'amgg'"),
        (LinearCase({**SMALL, "walls": "wet"}, "cg"), "walls"),
        (LinearCase({**SMALL, "cells": 3}, "cg"), "cells"),
        (LinearCase(SMALL, "cg", {"tolerances": 1.0}), "tolerances"),
    ],
)
def test_wrong_names_and_settings_are_told_when_the_suite_is_loaded(monkeypatch, case, message):
    monkeypatch.setattr(
        registry, "load", lambda kind, name, load=registry.load: (case,) if name == "x" else load(kind, name)
    )
    with pytest.raises(SettingsError, match=message):
        load_suite("x")


@pytest.mark.parametrize("obstacles", ["none", "discs", "bars"])
@pytest.mark.parametrize("kind", ["white", "smooth"])
@pytest.mark.parametrize("shape", [(24, 20), (12, 12, 10)], ids=str)
def test_systems_repeat_themselves_and_have_solutions(shape, kind, obstacles):
    system = GridPoisson(shape, "neumann", obstacles, right_hand_sides=kind, n_right_hand_sides=4)
    stencil, again = system.stencil(5), system.stencil(5)
    np.testing.assert_array_equal(stencil.diagonal, again.diagonal)
    B = system.columns(stencil, 5)
    np.testing.assert_array_equal(B, system.columns(again, 5))
    assert not np.array_equal(B, system.columns(stencil, 6))
    assert (obstacles == "none") == bool(stencil.active.all())
    fields = B.T.reshape(4, *shape)
    assert not fields[:, ~stencil.active].any()
    part, n = ndimage.label(stencil.active)
    for field in fields:
        assert np.abs(ndimage.sum(field, part, np.arange(1, n + 1))).max() < 1e-10

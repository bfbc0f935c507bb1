"""Suites are data: names, settings and limits must hold before anything is solved."""

import math

import pytest

from pdelab import registry
from pdelab.bench import load_suite, plan
from pdelab.config import build
from pdelab.operator_bench import OperatorCase

FAMILIES = ("hc-moe", "movers")
SUITES = [name for name in registry.names("suites") if name not in ("linear", *FAMILIES)]

NOT_CLASSICAL = {
    "burgers-inverse-v1": "no classical solver identifies a coefficient",
    "heat-inverse-v1": "no classical solver identifies a coefficient",
    "poisson-inverse-v2": "no classical solver identifies a coefficient",
    "poisson-nd-v1": "no grid fills five dimensions",
}


@pytest.mark.parametrize("suite", SUITES)
def test_cases_have_names_of_their_own_and_settings_that_build(suite):
    cases = load_suite(suite)
    assert cases
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        build(registry.load("problems", case.problem), case.problem_args)
        build(registry.load("solvers", case.solver), case.solver_args)
    assert len({run.key for run in plan(cases)}) >= len(cases)


@pytest.mark.parametrize("suite", SUITES)
def test_solvers_of_a_suite_take_its_problems(suite):
    for case in load_suite(suite):
        problem = build(registry.load("problems", case.problem), case.problem_args)
        solver = build(registry.load("solvers", case.solver), case.solver_args)
        assert isinstance(problem, solver.accepts), case.name
        assert solver.refuses(problem) == "", case.name


@pytest.mark.parametrize("suite", SUITES)
def test_limits_are_positive_and_budgets_go_to_trained_solvers_only(suite):
    for case in load_suite(suite):
        assert all(0 < limit < math.inf for limit in case.limits.values()), case.name
        assert (case.budget is not None) == registry.load("solvers", case.solver).trained, case.name


@pytest.mark.parametrize("suite", FAMILIES)
def test_suites_of_families_have_names_limits_and_classical_rows(suite):
    cases = load_suite(suite)  # which builds the settings and asks the solver
    assert len({run.key for run in plan(cases)}) == len({case.name for case in cases}) == len(cases)
    assert all(0 < limit < math.inf for case in cases for limit in case.limits.values())
    families = {case.family for case in cases}
    for family in families:
        scored = [case for case in cases if case.family == family and isinstance(case, OperatorCase)]
        assert any(case.limits for case in scored), family
        assert any(case.solver in ("fd", "fem", "spectral") for case in scored), family
        assert len({(case.grid, case.members) for case in scored}) == 1, family


def test_the_suite_of_linear_systems_holds_what_the_method_promises():
    cases = load_suite("linear")
    assert len({run.key for run in plan(cases)}) == len(cases)
    assert all(0 < limit < math.inf for case in cases for limit in case.limits.values())
    assert {case.solver for case in cases if case.limits} == {"dcdm"}
    boxes = [case for case in cases if case.solver == "dcdm" and "box" in case.label and "tight" not in case.label]
    assert len(boxes) == 4 and all(case.limits["cg_share"] <= 0.1 for case in boxes)
    every = {case.label for case in cases if "128" not in case.label}
    for name in ("cg", "ic-cg", "mic-cg", "amg", "multigrid", "dcdm"):
        assert {case.label for case in cases if case.solver == name} >= every, name


def test_every_problem_has_a_classical_row_with_a_limit_on_its_error():
    cases = load_suite("classical")
    assert all("rel_l2" in case.limits for case in cases)
    assert {case.problem for case in cases} == set(registry.names("problems")) - NOT_CLASSICAL.keys()


def test_classical_rows_are_of_untrained_solvers():
    assert not any(registry.load("solvers", case.solver).trained for case in load_suite("classical"))


def test_fine_rows_promise_more_than_coarse_ones():
    rows = {case.name: case.limits["rel_l2"] for case in load_suite("classical")}
    pairs = [(name, name.removesuffix("-coarse") + "-fine") for name in rows if name.endswith("-coarse")]
    assert len(pairs) >= 10
    for coarse, fine in pairs:
        assert rows[fine] < rows[coarse], coarse

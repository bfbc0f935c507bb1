"""Hard constraints by experts: soft, one solve, experts, beside the classical solver, on families of problems.

All modes have the same network, points, budget of CPU seconds and test members, which training has never seen. "untrained"
rows are the layer on a network that has made one step; "uncoupled" experts, and "soft" initial and boundary values, are
as in the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdelab.operator_bench import OperatorCase

SORPTION, BURGERS, VORTICITY = (64, 26), (101, 101), (64, 64, 9)
SMOOTH: Mapping[str, Any] = {"decay": 4.0}
SHORT: Mapping[str, Any] = {"final_time": 1.0}
DS_BUDGET, LATE_BUDGET, BURGERS_BUDGET, VORTICITY_BUDGET = "120s", "120s", "25s", "240s"
STRIPS: Mapping[str, Any] = {"experts": {"x": 4}}


def _sorption(label: str, limits: Mapping[str, float], budget: str = DS_BUDGET, **settings: Any) -> OperatorCase:
    every = {"n_basis": 16, **settings}
    return OperatorCase("diffusion-sorption", "hc-moe", SORPTION, {}, every, budget, limits=limits, label=label)


def _late(label: str, limits: Mapping[str, float], **settings: Any) -> OperatorCase:
    """Trained up to 400, scored from 400 to 500."""
    every = {"n_basis": 16, "horizon": 400.0, **settings}
    return OperatorCase(
        "diffusion-sorption", "hc-moe", SORPTION, {}, every, LATE_BUDGET, after=400.0, limits=limits, label=label
    )


def _burgers(label: str, limits: Mapping[str, float], budget: str = BURGERS_BUDGET, **settings: Any) -> OperatorCase:
    every = {"n_points": 600, **settings}
    return OperatorCase("burgers-random", "hc-moe", BURGERS, SMOOTH, every, budget, 50, limits=limits, label=label)


def _vorticity(label: str, limits: Mapping[str, float], budget: str = VORTICITY_BUDGET, **settings: Any) -> OperatorCase:
    every = {"n_basis": 48, "width": 64, "n_points": 3072, "n_solve": 8192, "batch": 2, "weights": {"jump": 1.0}, **settings}
    return OperatorCase("vorticity", "hc-moe", VORTICITY, SHORT, every, budget, 10, limits=limits, label=label)


CASES = (
    _sorption("pi-sc", {}, mode="pi-sc"),
    _sorption("pi-hc", {"rel_l2": 1e-2}, mode="pi-hc"),
    _sorption("pi-hc-moe", {"rel_l2": 5e-3}, **STRIPS),
    _sorption("untrained", {}, "1steps", **STRIPS),
    _sorption("pi-sc-soft", {}, mode="pi-sc", constraints="soft"),
    _sorption("pi-hc-soft", {}, mode="pi-hc", constraints="soft"),
    _sorption("pi-hc-moe-soft-uncoupled", {}, constraints="soft", coupling="none", **STRIPS),
    OperatorCase("diffusion-sorption", "fd", SORPTION, solver_args={"n": 32, "n_steps": 16, "clustering": 0.9, "grading": 4.0}),
    _late("late-pi-sc", {}, mode="pi-sc"),
    _late("late-pi-hc", {}, mode="pi-hc"),
    _late("late-pi-hc-moe", {"rel_l2_after": 1.5e-1}, **STRIPS),
    _burgers("pi-sc", {}, mode="pi-sc"),
    _burgers("pi-hc", {}, mode="pi-hc"),
    _burgers("pi-hc-moe", {"rel_l2": 6.4e-2}, **STRIPS),
    _burgers("uncoupled", {}, coupling="none", **STRIPS),
    _burgers("untrained", {}, "1steps", **STRIPS),
    OperatorCase("burgers-random", "spectral", BURGERS, SMOOTH, {"n": 64, "n_steps": 100, "n_levels": 101}, members=50),
    _vorticity("pi-sc", {}, mode="pi-sc"),
    _vorticity("pi-hc", {}, mode="pi-hc"),
    _vorticity("pi-hc-moe", {"rel_l2": 8.3e-2}, experts={"x": 3, "y": 3}),
    _vorticity("untrained", {}, "1steps", experts={"x": 3, "y": 3}),
    OperatorCase("vorticity", "spectral", VORTICITY, SHORT, {"n": 32, "n_steps": 20, "n_levels": 11}, members=10),
)

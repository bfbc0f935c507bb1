"""Hard constraints by experts: soft, one solve, experts, beside the classical solver, on families of problems.

All modes have the same network, points, budget of CPU seconds and test members, which training has never seen. Rows
called "untrained" are the layer on a network that has made one step; "uncoupled" experts, and "soft" initial and
boundary values, are as in the source. "pi-sc-wide" is the network without the layer at the size that its users take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pdelab.operator_bench import OperatorCase
from pdelab.step_bench import StepCase

SORPTION, BURGERS, VORTICITY, DARCY = (64, 26), (101, 101), (64, 64, 9), (64, 64)
SMOOTH: Mapping[str, Any] = {"decay": 4.0}
SHORT: Mapping[str, Any] = {"final_time": 1.0}
STRIPS: Mapping[str, Any] = {"experts": {"x": 4}}
SQUARES: Mapping[str, Any] = {"experts": {"x": 4, "y": 4}}
WIDE: Mapping[str, Any] = {"mode": "pi-sc", "n_basis": 64, "width": 64}


def _sorption(label: str, budget: str = "60s", limits: Mapping[str, float] | None = None, **given: Any) -> OperatorCase:
    settings = {"n_basis": 16, **given}
    return OperatorCase(
        "diffusion-sorption", "hc-moe", SORPTION, {}, settings, budget, limits=limits or {}, label=label
    )


def _late(label: str, limits: Mapping[str, float] | None = None, **given: Any) -> OperatorCase:
    """Trained up to 400, scored from 400 to 500."""
    case = _sorption(f"late-{label}", horizon=400.0, limits=limits, **given)
    return dataclasses.replace(case, after=400.0)


def _burgers(label: str, budget: str = "25s", limits: Mapping[str, float] | None = None, **given: Any) -> OperatorCase:
    settings = {"n_points": 600, **given}
    return OperatorCase(
        "burgers-random", "hc-moe", BURGERS, SMOOTH, settings, budget, 50, limits=limits or {}, label=label
    )


def _vorticity(
    label: str, budget: str = "240s", limits: Mapping[str, float] | None = None, **given: Any
) -> OperatorCase:
    sizes = {"n_basis": 48, "width": 64, "n_points": 3072, "n_solve": 8192, "batch": 2}
    settings = {**sizes, "weights": {"jump": 1.0}, **given}
    return OperatorCase("vorticity", "hc-moe", VORTICITY, SHORT, settings, budget, 10, limits=limits or {}, label=label)


def _darcy(label: str, budget: str = "60s", limits: Mapping[str, float] | None = None, **given: Any) -> OperatorCase:
    settings = {"n_basis": 32, "width": 64, "n_points": 1600, "weights": {"jump": 30.0}, **given}
    return OperatorCase("darcy-holes", "hc-moe", DARCY, {}, settings, budget, limits=limits or {}, label=label)


def _classical() -> Iterator[OperatorCase]:
    """A cheap row and a good one for each family."""
    sorption = ("diffusion-sorption", "fd", SORPTION)
    burgers = ("burgers-random", "spectral", BURGERS, SMOOTH)
    vorticity = ("vorticity", "spectral", VORTICITY, SHORT)
    darcy = ("darcy-holes", "fem", DARCY)
    layers = {"clustering": 0.9, "grading": 4.0}
    yield OperatorCase(*sorption, solver_args={"n": 32, "n_steps": 16, **layers}, label="coarse")
    yield OperatorCase(*sorption, solver_args={"n": 64, "n_steps": 40, **layers}, label="fine")
    yield OperatorCase(*burgers, {"n": 32, "n_steps": 50, "n_levels": 51}, members=50, label="coarse")
    yield OperatorCase(*burgers, {"n": 128, "n_steps": 200, "n_levels": 201}, members=50, label="fine")
    yield OperatorCase(*vorticity, {"n": 16, "n_steps": 10, "n_levels": 11}, members=10, label="coarse")
    yield OperatorCase(*vorticity, {"n": 64, "n_steps": 60, "n_levels": 31}, members=10, label="fine")
    yield OperatorCase(*darcy, solver_args={"resolution": 16, "order": 2}, label="coarse")
    yield OperatorCase(*darcy, solver_args={"resolution": 32, "order": 2}, label="fine")


def _step(experts: int, n_points: int, limits: Mapping[str, float] | None = None) -> StepCase:
    """Experts beside one solve with as many coefficients at the same points."""
    sizes = {"n_points": n_points, "width": 16 * experts}
    ours = {**sizes, "n_basis": 16, "experts": {"x": experts}}
    other = {**sizes, "n_basis": 16 * experts, "mode": "pi-hc"}
    repeats = 5 if n_points < 50000 else 1
    return StepCase("diffusion-sorption", "hc-moe", ours, other, limits or {}, f"step-{experts}-{n_points}", repeats)


CASES = (
    *_classical(),
    _sorption("pi-sc", mode="pi-sc"),
    _sorption("pi-sc-wide", **WIDE),
    _sorption("pi-hc", limits={"rel_l2": 1e-2}, mode="pi-hc"),
    _sorption("pi-hc-moe", limits={"rel_l2": 5e-3, "interface_jump": 1.5}, **STRIPS),
    _sorption("untrained", "1steps", **STRIPS),
    _sorption("pi-sc-soft", mode="pi-sc", constraints="soft"),
    _sorption("pi-hc-soft", mode="pi-hc", constraints="soft"),
    _sorption("pi-hc-moe-soft-uncoupled", constraints="soft", coupling="none", **STRIPS),
    _late("pi-sc", mode="pi-sc"),
    _late("pi-hc", mode="pi-hc"),
    _late("pi-hc-moe", {"rel_l2_after": 1.5e-1}, **STRIPS),
    _burgers("pi-sc", mode="pi-sc"),
    _burgers("pi-sc-wide", **WIDE),
    _burgers("pi-hc", mode="pi-hc"),
    _burgers("pi-hc-moe", limits={"rel_l2": 6.4e-2, "interface_jump": 1.5}, **STRIPS),
    _burgers("uncoupled", coupling="none", **STRIPS),
    _burgers("untrained", "1steps", **STRIPS),
    _vorticity("pi-sc", mode="pi-sc"),
    _vorticity("pi-sc-wide", **WIDE),
    _vorticity("pi-hc", mode="pi-hc"),
    _vorticity("pi-hc-moe", limits={"rel_l2": 8.3e-2, "interface_jump": 1.5}, **SQUARES),
    _vorticity("untrained", "1steps", **SQUARES),
    _darcy("pi-sc", mode="pi-sc"),
    _darcy("pi-sc-wide", **WIDE),
    _darcy("pi-hc", mode="pi-hc"),
    _darcy("pi-hc-moe", limits={"rel_l2": 6e-2, "interface_jump": 1.5}, experts=16),
    _darcy("untrained", "1steps", experts=16),
    _step(4, 1000),
    _step(4, 10000),
    _step(8, 10000, {"layer_share": 1 / 3}),
    _step(4, 100000),
)

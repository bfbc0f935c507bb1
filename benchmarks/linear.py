"""Linear solvers on pressure equations: many right-hand sides with one set-up, the same stopping rule for all.

Every solver stops at |b - A x| <= tolerance |b|, judged on the true residual; conjugate gradients multiply by A once in
an iteration. Twenty right-hand sides, one on 128^3 cells. Set-up is told apart. Limits on iterations
are those that the method promises; times have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdelab.linear_bench import LinearCase

CLASSICAL = ("cg", "ic-cg", "mic-cg", "amg", "multigrid")
PLANE, SPACE = (
    {"iterations": 12.0, "iterations_max": 20.0, "cg_share": 0.1},
    {"iterations_max": 20.0, "cg_share": 0.125},
)
OBSTACLES = {"iterations_max": 25.0, "cg_share": 0.125}
NO_FAILURE = {"failures": 0.5}


def _rows(
    label: str, system: Mapping[str, Any], limits: Mapping[str, float], *more: str, tolerance: float = 1e-6
) -> list[LinearCase]:
    """The classical solvers, those in `more`, and ours with limits."""
    settings = {"tolerance": tolerance}
    rows = [LinearCase(system, name, settings, label=label) for name in (*CLASSICAL, *more)]
    return [*rows, LinearCase(system, "dcdm", settings, {**limits, **NO_FAILURE}, label)]


def _published(label: str, system: Mapping[str, Any]) -> LinearCase:
    """The published form on the first three right-hand sides, as it is slow; its failures are results."""
    few = {**system, "n_right_hand_sides": 3}
    return LinearCase(few, "dcdm-published", {"tolerance": 1e-6, "max_iterations": 100}, label=label)


def _cases() -> tuple[LinearCase, ...]:
    rows: list[LinearCase] = []
    for n in (64, 256):
        for kind in ("white", "smooth"):
            box = {"shape": (n, n), "walls": "dirichlet", "right_hand_sides": kind}
            rows += _rows(f"box-{n}-{kind}", box, PLANE, "fast-poisson", "direct")
            rows.append(_published(f"box-{n}-{kind}", box))
        for obstacles in ("discs", "bars"):
            for kind in ("white", "smooth"):
                closed = {"shape": (n, n), "walls": "neumann", "obstacles": obstacles, "right_hand_sides": kind}
                rows += _rows(f"{obstacles}-{n}-{kind}", closed, OBSTACLES)
                if n == 64:
                    rows.append(_published(f"{obstacles}-{n}-{kind}", closed))
    rows += _rows("mixed-256", {"shape": (256, 256), "walls": "mixed", "obstacles": "discs"}, OBSTACLES)
    rows += _rows("variable-256", {"shape": (256, 256), "coefficient": "variable"}, {})
    for n in (32, 64):
        for obstacles in ("discs", "bars"):
            for kind in ("white", "smooth"):
                label = f"{obstacles}-{n}-in-space" + ("-smooth" if kind == "smooth" else "")
                ball = {"shape": (n, n, n), "walls": "neumann", "obstacles": obstacles, "right_hand_sides": kind}
                rows += _rows(label, ball, SPACE)
                if n == 32:
                    rows.append(_published(label, ball))
    large = {"shape": (128, 128, 128), "walls": "neumann", "obstacles": "discs", "n_right_hand_sides": 1}
    rows += [
        LinearCase(large, name, {"tolerance": 1e-6}, {"iterations_max": 20.0} if name == "dcdm" else {}, "discs-128")
        for name in ("amg", "multigrid", "dcdm")
    ]
    tight = {"shape": (64, 64), "walls": "neumann", "obstacles": "bars"}
    rows += _rows("bars-64-tight", tight, {}, tolerance=1e-10)
    rows += _rows("box-256-tight", {"shape": (256, 256)}, {}, tolerance=1e-10)
    rows += _rows("discs-32-tight", {"shape": (32,) * 3, "walls": "neumann", "obstacles": "discs"}, {}, tolerance=1e-10)
    return tuple(rows)


CASES = _cases()

"""Movers put to use: finite elements on moved meshes beside the same number of unknowns unmoved, and uniform ones.

Sums of Gaussians as solutions, twenty members of the law that movers are trained on. n is the number of cells across
the square; `uniform` rows have the size at which the error without a mover meets that of the moved mesh.
Limits are a tenth below the error on the unmoved mesh: solutions in closed form, nothing is random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdelab.operator_bench import OperatorCase

NORM = {"monitor": "hessian-norm"}


def _row(label: str, resolution: int, limits: Mapping[str, float] | None = None, **given: Any) -> OperatorCase:
    settings = {"resolution": resolution, **given}
    return OperatorCase(
        "gaussian-sums", "fem", solver_args=settings, members=20, grid=(201, 201), limits=limits or {}, label=label
    )


CASES = (
    _row("20-unmoved", 20),
    _row("20-monge-ampere", 20, {"rel_l2": 1.2e-2, "failures": 0.5}, mover={"name": "monge-ampere", **NORM}),
    _row("20-monge-ampere-squared", 20, mover={"name": "monge-ampere"}),
    _row("20-spring", 20, mover={"name": "spring", **NORM}),
    _row("uniform-24", 24),
    _row("40-unmoved", 40),
    _row("40-monge-ampere", 40, {"rel_l2": 3.0e-3, "failures": 0.5}, mover={"name": "monge-ampere", **NORM}),
    _row("40-spring", 40, mover={"name": "spring", **NORM}),
    _row("uniform-48", 48),
)

"""Movers: what they make of meshes and errors, whether they ever fold a cell, and finite elements on moved meshes.

Sums of Gaussians as solutions, members that no mover is trained on. "20-" and "40-" rows: a solve, a move with the
monitor of what was found, and another solve, beside the same mesh unmoved and uniform ones; n is the number of cells
across, `uniform` rows have the size at which the error without a mover meets that of the moved mesh.
"meshes" rows: monitors of the exact solution on meshes of four sizes, beside the Monge-Ampere relaxation on the
same. "stress" rows: steep monitors on meshes of twenty kinds. Limits of errors are a tenth below those on the unmoved
mesh: solutions in closed form, nothing is random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdelab.mover_bench import MoverCase
from pdelab.mover_stress import StressCase
from pdelab.operator_bench import OperatorCase

NORM = {"monitor": "hessian-norm"}
UM2N = {"name": "um2n"}
VALID = {"inverted": 0.5, "refused": 0.5}


def _row(label: str, resolution: int, limits: Mapping[str, float] | None = None, **given: Any) -> OperatorCase:
    settings = {"resolution": resolution, **given}
    return OperatorCase(
        "gaussian-sums", "fem", solver_args=settings, members=20, grid=(201, 201), limits=limits or {}, label=label
    )


# Asked of the network on members it has not seen: as near to the mesh of its teacher, helpful nine times in ten.
TAUGHT = {"inverted": 0.5, "area_ratio": 0.35, "worse_share": 0.1, "spread_share": 0.4}

CASES = (
    _row("20-unmoved", 20),
    _row("20-monge-ampere", 20, {"rel_l2": 1.2e-2, "failures": 0.5}, mover={"name": "monge-ampere", **NORM}),
    _row("20-monge-ampere-squared", 20, mover={"name": "monge-ampere"}),
    _row("20-um2n", 20, {"rel_l2": 1.2e-2, "failures": 0.5}, mover={**UM2N, **NORM}),
    _row("20-spring", 20, mover={"name": "spring", **NORM}),
    _row("uniform-24", 24),
    _row("40-unmoved", 40),
    _row("40-monge-ampere", 40, {"rel_l2": 3.0e-3, "failures": 0.5}, mover={"name": "monge-ampere", **NORM}),
    _row("40-um2n", 40, {"rel_l2": 3.0e-3, "failures": 0.5}, mover={**UM2N, **NORM}),
    _row("40-spring", 40, mover={"name": "spring", **NORM}),
    _row("uniform-48", 48),
    MoverCase(UM2N, limits=TAUGHT, label="meshes"),
    MoverCase({**UM2N, "sweeps": 1}, label="meshes-once"),
    MoverCase({**UM2N, "polish": 5}, label="meshes-polished"),
    MoverCase(UM2N, kind="unstructured", limits=TAUGHT, label="meshes-delaunay"),
    MoverCase({"name": "monge-ampere", "method": "dct"}, label="meshes-dct"),
    MoverCase({"name": "spring"}, label="meshes"),
    MoverCase(UM2N, resolutions=(40,), label="meshes-40"),
    MoverCase({**UM2N, "sweeps": 1}, resolutions=(40,), label="meshes-40-once"),
    MoverCase({"name": "monge-ampere", "method": "dct"}, resolutions=(40,), label="meshes-40-dct"),
    *(StressCase({"name": name}, limits=VALID) for name in ("um2n", "spring", "monge-ampere")),
)

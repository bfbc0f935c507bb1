"""Ten families in minutes: `pinn` and `deepxde` with equal CPU seconds, beside the classical solvers they face."""

from __future__ import annotations

from collections.abc import Mapping

from pdelab.bench import Case

BUDGET = "12s"

CLASSICAL: Mapping[str, tuple[str, ...]] = {
    "poisson": ("fem", "fd"),
    "poisson-holes": ("fem",),
    "burgers": ("spectral",),
    "allen-cahn": ("spectral",),
    "heat": ("fem", "fd"),
    "wave": ("fd",),
    "helmholtz": ("fd",),
    "convection": ("spectral",),
    "reaction-diffusion": ("spectral",),
    "darcy": ("fem",),
}

LIMITS: Mapping[tuple[str, str], Mapping[str, float]] = {}
"""(problem, solver) -> largest values; about three times what was measured."""

CASES = tuple(
    Case(
        problem,
        solver,
        budget=BUDGET if solver in ("pinn", "deepxde") else None,
        limits=LIMITS.get((problem, solver), {}),
    )
    for problem, classical in CLASSICAL.items()
    for solver in ("pinn", "deepxde", *classical)
)

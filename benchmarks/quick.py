"""Ten families in minutes: `pinn` and `deepxde` with equal CPU seconds, beside the classical solvers they face."""

from __future__ import annotations

from collections.abc import Mapping

from pdelab.bench import Case

BUDGET = "15s"
POINTS = {"n_interior": 512, "n_boundary": 128, "n_initial": 128}
"""For both trained solvers: few points, as many steps count for more in so short a time."""

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


def _case(problem: str, solver: str) -> Case:
    limits = LIMITS.get((problem, solver), {})
    if solver in ("pinn", "deepxde"):
        return Case(problem, solver, solver_args=POINTS, budget=BUDGET, limits=limits)
    return Case(problem, solver, limits=limits)


CASES = tuple(
    _case(problem, solver) for problem, classical in CLASSICAL.items() for solver in ("pinn", "deepxde", *classical)
)

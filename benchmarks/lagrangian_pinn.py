"""Lagrangian PINNs at every speed, beside the published form, an Eulerian network, DeepXDE and the classical solver.

`pinn` has about as many weights as both networks of labels together, the same points and seconds, and the optimisers of
the paper; with its own, Gauss-Newton, it stands in the suite `engine`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pdelab.bench import SEEDS, Case

SPEEDS = (0.0, 10.0, 30.0, 50.0, 70.0)
CONVECTION, BURGERS, ROTATION, SHOCK, VORTEX = "30s", "50s", "120s", "60s", "60s"
POINTS: Mapping[str, object] = {"n_interior": 2048}
EULERIAN: Mapping[str, object] = {**POINTS, "width": 20, "depth": 3}
DEEP: Mapping[str, object] = {"n_interior": 4000, "width": 14, "depth": 4}
# Nothing diffuses: what there is to learn is the map.
MAP: Mapping[str, object] = {"n_interior": 3000, "depth": 1, "map_depth": 4}
LEVELS: Mapping[str, object] = {"n": 256, "n_steps": 3200, "n_levels": 3201}


def _at(problem: str, key: str, speed: float, budget: str, **limits: float) -> Case:
    name, settings = "lagrangian-pinn", {key: speed}
    return Case(problem, name, settings, POINTS, budget, SEEDS[:3], limits, f"speed-{speed:g}")


def _beside(problem: str, key: str, budget: str) -> list[Case]:
    settings = {key: 50.0}
    return [
        Case(problem, "pinn", settings, {**EULERIAN, "optimizer": "lbfgs"}, budget, label="lbfgs"),
        Case(problem, "pinn", settings, {**EULERIAN, "optimizer": "adam"}, budget, label="adam"),
        Case(problem, "deepxde", settings, EULERIAN, budget),
    ]


CASES = (
    *(_at("convection", "velocity", speed, CONVECTION, rel_l2=1e-4) for speed in SPEEDS),
    *_beside("convection", "velocity", CONVECTION),
    Case("convection", "spectral", {"velocity": 50.0}),
    *(_at("burgers-moving", "speed", speed, BURGERS, rel_l2=3e-3, rel_l2_final=6e-3) for speed in SPEEDS),
    # Its closed form is 1.18e-2 away from the solution.
    Case(
        "burgers-moving",
        "lagrangian-pinn",
        {"speed": 50.0},
        {**POINTS, "diffusion": "label"},
        BURGERS,
        label="published",
    ),
    *_beside("burgers-moving", "speed", BURGERS),
    Case("burgers-moving", "spectral", {"speed": 50.0}, LEVELS),
    # A shock that stays, beyond which no map can follow the flow; in one slab, and with new labels at half the time.
    Case("burgers", "lagrangian-pinn", {}, DEEP, SHOCK, SEEDS[:3], {"rel_l2": 1e-3}),
    Case("burgers", "lagrangian-pinn", {}, {**DEEP, "n_slabs": 2}, SHOCK, SEEDS[:3], {"rel_l2": 1e-3}, "slabs"),
    Case("burgers", "spectral", {}, {"n": 1536, "n_steps": 2000}),
    # A vortex that turns back.
    Case("deformation", "lagrangian-pinn", {}, MAP, VORTEX, SEEDS[:3], {"rel_l2": 5e-3, "rel_l2_final": 6e-3}),
    Case("deformation", "lagrangian-pinn", {}, {**MAP, "n_slabs": 2}, VORTEX, label="slabs"),
    Case("deformation", "fd", {}, {"n": 96, "n_steps": 40}),
    # One turn of a narrow Gaussian.
    Case("advection", "lagrangian-pinn", {}, {"n_interior": 3000}, ROTATION, SEEDS[:3], {"rel_l2": 1e-3}),
    Case("advection", "pinn", {}, {**EULERIAN, "n_interior": 3000, "optimizer": "lbfgs"}, ROTATION, label="lbfgs"),
    Case("advection", "deepxde", {}, {**EULERIAN, "n_interior": 3000}, ROTATION),
    Case("advection", "fd", {}, {"n": 96, "n_steps": 120}),
)

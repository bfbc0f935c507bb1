"""Every registered solver solves or refuses every registered problem, repeats itself, and resumes to the bit."""

import pytest

from pdelab import registry, testing
from pdelab.config import build

TINY = {
    "deepxde": {"width": 6, "depth": 2, "n_interior": 24, "n_boundary": 16, "n_initial": 8, "constraints": "soft"},
    "fd": {"n": 8, "n_steps": 2},
    "fem": {"resolution": 4, "n_steps": 2},
    "hc-moe": {"width": 8, "depth": 1, "n_basis": 6, "n_points": 64, "n_boundary": 16, "n_interface": 4, "n_solve": 64},
    "lagrangian-pinn": {"width": 4, "depth": 1, "map_depth": 1, "n_interior": 64},
    "pig": {
        "n_gaussians": 6,
        "n_features": 2,
        "hidden": 4,
        "n_interior": 24,
        "n_boundary": 16,
        "n_initial": 8,
        "rounds": 2,
    },
    "pinn": {"width": 6, "depth": 2, "n_interior": 24, "n_boundary": 16, "n_initial": 8, "constraints": "soft"},
    "random-features": {"n_features": 40},
    "spig": {
        "n_gaussians": 4,
        "n_features": 2,
        "hidden": 3,
        "rank": 2,
        "n_interior": 27,
        "n_boundary": 16,
        "n_initial": 8,
    },
    "spectral": {"n": 16, "n_steps": 8, "n_levels": 8},
}
SHORT = {
    "heat-long-v1": {"final_time": 0.25},
    "klein-gordon-v1": {"final_time": 0.5},
    "wave-2d-v2": {"final_time": 0.5},
}
"""Shorter time intervals, where two time steps would be a long struggle of Newton's method."""


def test_every_solver_has_tiny_settings():
    assert set(registry.names("solvers")) == set(TINY)


@pytest.mark.parametrize("problem", registry.names("problems"))
@pytest.mark.parametrize("solver", sorted(TINY))
def test_solves_or_refuses(solver, problem):
    chosen = build(registry.load("solvers", solver), TINY[solver])
    testing.check_solver(chosen, registry.load("problems", problem)(**SHORT.get(problem, {})))

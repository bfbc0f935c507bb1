"""The family of Burgers equations in two dimensions."""

import numpy as np
import torch

import pdelab
from pdelab import registry


def test_the_code_is_the_initial_field_of_the_member():
    family = pdelab.family("burgers-2d")
    member = family.sample(3)
    points = np.random.default_rng(0).uniform(0.0, 4.0, (7, 2))
    code = family.encode(member, points)
    for component in (0, 1):
        expected = member.initial(component).at(torch.as_tensor(points)).numpy()
        np.testing.assert_array_equal(code[:, component], expected)
    assert np.abs(code - family.encode(family.sample(4), points)).max() > 0.01


def test_a_longer_time_is_the_same_problem_for_longer():
    short, long = (pdelab.problem("burgers-2d", viscosity=0.05, final_time=t) for t in (0.5, 1.0))
    solver = registry.load("solvers", "spectral")
    ends = [
        pdelab.solve(problem, solver(n=32, n_steps=steps, n_levels=steps + 1)).at(np.array([[1.0, 2.0, 0.5]]))
        for problem, steps in ((short, 20), (long, 40))
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)


def test_the_recipe_of_the_default_is_what_stored_floors_belong_to():
    recipe = pdelab.problem("burgers-2d").reference()
    assert recipe.fine == {"n": 256, "n_steps": 200, "n_levels": 41}
    assert recipe.coarse == {"n": 192, "n_steps": 120, "n_levels": 21}

"""Every registered problem and family keeps the contract."""

import numpy as np
import pytest

from pdelab import registry, sampling, testing
from pdelab.pde import AbstractProblem


@pytest.mark.parametrize("name", registry.names("problems"))
def test_problem_keeps_the_contract(name):
    problem = registry.load("problems", name)()
    assert name.rpartition("-v")[0] == problem.name
    testing.check_problem(problem)


@pytest.mark.parametrize("name", registry.names("families"))
def test_family_members_are_problems_and_differ(name):
    family = registry.load("families", name)()
    one, same, other = family.sample(3), family.sample(3), family.sample(4)
    assert isinstance(one, AbstractProblem)
    sensors = sampling.interior(one, 16, 311)
    codes = [family.encode(member, sensors) for member in (one, same, other)]
    assert codes[0].ndim == 2 and len(codes[0]) == 16
    assert np.array_equal(codes[0], codes[1]) and not np.array_equal(codes[0], codes[2])
    testing.check_problem(one)

import dataclasses

import numpy as np

import pdelab
from pdelab.linear import AbstractLinearSolver
from pdelab.meshes.generate import box_mesh
from pdelab.solvers.fem import FEM
from pdelab.solvers.linear.direct import Direct


class Counting(AbstractLinearSolver):
    name, tolerance = "counting", 1e-9

    def __init__(self):
        self.made = []

    def init(self, A):
        self.made.append(A)
        return Direct().init(A)

    def compute(self, state, b):
        return Direct().compute(state, b)


def test_a_moved_mesh_is_factorised_anew():
    problem, solver = pdelab.problem("poisson"), Counting()
    still = box_mesh(problem.domain, (12, 12))
    lower, upper = problem.domain.bounds
    shift = np.prod(np.sin(np.pi * (still.points - lower) / (upper - lower)), axis=1, keepdims=True)
    moved = dataclasses.replace(still, points=still.points + 0.03 * (upper - lower) * shift)
    for mesh in (still, moved, still):
        found = pdelab.solve(problem, FEM(mesh=mesh, linear_solver=solver))
        fresh = pdelab.solve(problem, FEM(mesh=mesh, linear_solver=Direct()))
        np.testing.assert_array_equal(found.at(mesh.points), fresh.at(mesh.points))
    assert len(solver.made) == 3
    assert abs(solver.made[0] - solver.made[1]).max() > 1e-3
    assert abs(solver.made[0] - solver.made[2]).max() == 0

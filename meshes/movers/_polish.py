"""A few iterations of the Monge-Ampere relaxation from a mesh that is nearly right."""

from __future__ import annotations

import itertools

import numpy as np

from pdelab.mesh import Mesh
from pdelab.meshes.movers._background import Background
from pdelab.meshes.movers._boundary import BoundaryMotion
from pdelab.meshes.movers._equation import MongeAmpereEquation
from pdelab.meshes.movers._matrices import P1Matrices
from pdelab.meshes.movers._relaxation import relax

STEP = 0.1  # the first pseudo-time step, as that of `MongeAmpere`


def polished(mesh: Mesh, monitor: np.ndarray, boundary: BoundaryMotion, points: np.ndarray, n: int) -> np.ndarray:
    """The points (N, d) of the lowest spread among those given and the sound ones of n iterations of the relaxation.

    It starts from the potential whose gradient is nearest to the displacements:  Lap phi = div(x - xi), weakly
    int grad phi . grad psi = int (x - xi) . grad psi.

    Args:
        mesh: before.
        monitor: at its nodes, (N,).
        boundary: how its nodes may move.
        points: sound ones, from another mover.
        n: iterations, >= 1.
    """
    matrices = P1Matrices(mesh)
    equation = MongeAmpereEquation(matrices, boundary, Background(mesh, monitor))
    first = equation.evaluate(matrices.solve_poisson(matrices.gradient.T @ (points - mesh.points).T.ravel()))
    while not first.valid:  # there is a share that is: the mesh before has potential 0
        first = equation.evaluate(first.potential / 2)
    iterates = itertools.islice(relax(equation, first, step=STEP), n)
    best, lowest = points, equation.spread(points)
    for iterate, _ in iterates:
        if iterate.spread < lowest and equation.validity.sound(iterate.points):
            best, lowest = iterate.points, iterate.spread
    return best

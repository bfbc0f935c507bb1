from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import root

from pdelab.domain import Box
from pdelab.errors import IncompatibleProblem, MeshError
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh, quad_mesh
from pdelab.meshes.inclusions import inclusion_mesh
from pdelab.meshes.read import read_quad8_csv
from pdelab.meshes.shape import reference_nodes, shape_functions
from pdelab.metrics import evaluation_points, relative_errors
from pdelab.problems.elasticity import NonlinearElasticRVE
from pdelab.reference import resolve
from pdelab.solution import Status
from pdelab.solver import solve
from pdelab.solvers._fem_elasticity import Cell
from pdelab.solvers.fem import FEM
from pdelab.solvers.linear.cg import CG
from pdelab.solvers.spectral import Spectral

SHARED = Path(__file__).parents[3] / "shared" / "data" / "equino" / "RVE3"
PLAIN = NonlinearElasticRVE(radius=0.0)
CELL = NonlinearElasticRVE()
KINDS = ("triangle", "triangle6", "quad", "quad8")
LOAD = np.array([0.02, -0.01, 0.03])


def law(problem, strain, share):
    return problem.stress(torch.as_tensor(strain)[None], torch.tensor([float(share)], dtype=torch.float64))[0].numpy()


def with_mid_edge_nodes(mesh, kind):
    """The same straight cells with nodes in the middle of their edges."""
    corners = shape_functions(mesh.cell_type, reference_nodes(kind)) @ mesh.points[mesh.cells]
    points, number = np.unique(corners.reshape(-1, 2).round(12), axis=0, return_inverse=True)
    return Mesh(points, number.reshape(len(mesh.cells), -1), kind)


def distorted(kind):
    """A mesh of the cell whose inner nodes were moved, but not across x = 0."""
    flat = (quad_mesh if kind.startswith("quad") else box_mesh)(CELL.domain, 4)
    mesh = flat if kind == flat.cell_type else with_mid_edge_nodes(flat, kind)
    points = mesh.points.copy()
    inner = (np.abs(points) < 0.49).all(axis=1) & (np.abs(points[:, 0]) > 0.01)
    points[inner] += np.random.default_rng(853).uniform(-0.02, 0.02, (int(inner.sum()), 2))
    left = points[mesh.cells].mean(axis=1)[:, 0] < 0
    return Mesh(points, mesh.cells, kind, {}, {"1": np.flatnonzero(left), "2": np.flatnonzero(~left)})


@pytest.mark.parametrize("kind", KINDS)
def test_patch_of_one_material_strains_evenly(kind):
    mesh = distorted(kind)
    found = Cell(PLAIN, Mesh(mesh.points, mesh.cells, kind)).solve(LOAD)
    assert np.abs(found.fluctuation).max() < 1e-12
    assert np.abs(found.homogenised - law(PLAIN, LOAD, 0)).max() < 1e-10
    assert found.imbalance < 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_two_materials_have_the_stress_of_their_balance(kind):
    def strains(jump):
        """Half and half: normal strain and shear jump, e_yy does not."""
        change = np.array([jump[0], 0.0, jump[1]])
        return LOAD + change, LOAD - change

    def tractions(jump):
        soft, stiff = strains(jump)
        return (law(CELL, soft, 0) - law(CELL, stiff, 1))[[0, 2]]

    answer = root(tractions, [0.0, 0.0], tol=1e-14)
    assert answer.success
    soft, stiff = strains(answer.x)
    cell = Cell(CELL, distorted(kind))
    found = cell.solve(LOAD)
    expected = 0.5 * (law(CELL, soft, 0) + law(CELL, stiff, 1))
    assert np.abs(found.homogenised - expected).max() < 1e-8
    in_cells = np.where(cell.share[:, :, None] == 0, soft, stiff)
    assert np.abs(found.strain - in_cells).max() < 1e-11


@pytest.fixture(scope="module")
def solution():
    return solve(CELL, FEM(resolution=12, order=2))


def test_invariants(solution):
    assert solution.status is Status.CONVERGED and not solution.message
    assert solution.validity["hill_mandel_error"] < 1e-8
    assert solution.validity["equilibrium_residual"] < 1e-8
    assert solution.stats["newton_steps"] <= 5
    assert solution.stats["inclusion_fraction"] == pytest.approx(np.pi / 16, rel=1e-6)
    along = np.linspace(-0.5, 0.5, 37)
    for axis in range(2):
        sides = [np.insert(along[:, None], axis, at, axis=1) for at in (-0.5, 0.5)]
        low, high = map(solution.at, sides)
        assert np.abs(low - high).max() < 1e-12 < 1e-4 < np.abs(low).max()
    assert np.abs(solution.at([[-0.5, -0.5], [0.5, 0.5]])).max() < 1e-14


def test_a_stiff_inclusion_raises_the_energy_but_less_than_an_even_strain(solution):
    stress = np.array([solution.stats[f"stress_{name}"] for name in ("xx", "yy", "xy")])
    fraction = solution.stats["inclusion_fraction"]
    even = (1 - fraction) * law(CELL, LOAD, 0) + fraction * law(CELL, LOAD, 1)
    assert law(CELL, LOAD, 0) @ LOAD < 0.9 * stress @ LOAD < 0.8 * even @ LOAD


def test_homogenised_stress_converges():
    stress = [
        np.array([solve(CELL, FEM(resolution=n, order=2)).stats[f"stress_{name}"] for name in ("xx", "yy", "xy")])
        for n in (5, 10, 18)
    ]
    errors = [np.linalg.norm(s - stress[-1]) / np.linalg.norm(stress[-1]) for s in stress[:2]]
    assert errors[1] < 6e-4 and errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("order, limit, ratio", [(1, 0.1, 0.5), (2, 7e-3, 0.3)])
def test_fields_converge_to_the_reference(order, limit, ratio):
    reference = resolve(CELL)
    assert reference.floor < 4e-4
    coarse, fine = (solve(CELL, FEM(resolution=n, order=order)).error()["rel_l2"] for n in (6, 12))
    assert fine < limit and fine < ratio * coarse


def test_homogenised_tangent_is_the_derivative_of_the_homogenised_stress():
    cell = Cell(CELL, inclusion_mesh(CELL.domain, CELL.inclusions, 1 / 6, 2))
    found = cell.solve(LOAD)
    tangent = cell.homogenised_tangent(found.strain)
    h = 1e-5
    columns = [
        (cell.solve(LOAD + h * unit).homogenised - cell.solve(LOAD - h * unit).homogenised) / (2 * h)
        for unit in np.eye(3)
    ]
    assert np.abs(tangent - np.stack(columns, axis=1)).max() < 1e-6 * np.abs(tangent).max()
    assert np.abs(tangent - tangent.T).max() < 1e-10 * np.abs(tangent).max()
    assert np.linalg.eigvalsh(tangent).min() > 100


def test_newton_starts_from_a_given_fluctuation():
    cell = Cell(CELL, inclusion_mesh(CELL.domain, CELL.inclusions, 1 / 6))
    first = cell.solve(LOAD)
    assert cell.solve((1 + 1e-9) * LOAD, first.fluctuation).steps <= 1
    near = cell.solve(1.01 * LOAD, first.fluctuation)
    assert near.steps < cell.solve(1.01 * LOAD).steps
    assert np.abs(near.homogenised - first.homogenised).max() > 1e-2


def test_a_cell_at_rest_stays_at_rest():
    solution = solve(NonlinearElasticRVE(0.0, 0.0, 0.0), FEM(resolution=6))
    assert solution.status is Status.CONVERGED and not solution.at([[0.1, 0.2]]).any()
    assert solution.validity == {"equilibrium_residual": 0.0, "hill_mandel_error": 0.0}


def test_a_smooth_inclusion_agrees_with_collocation_of_the_pointwise_equations():
    problem = NonlinearElasticRVE(transition=0.5)
    points = evaluation_points(problem)
    by_elements, *by_collocation = (
        v - v.mean(axis=0)
        for v in (solve(problem, s).at(points) for s in (FEM(resolution=32, order=2), Spectral(n=20), Spectral(n=28)))
    )
    errors = [relative_errors(v, by_elements, problem.components)["rel_l2"] for v in by_collocation]
    assert errors[1] < 0.04 and errors[1] < 0.6 * errors[0]


def test_mesh_of_three_discs_from_a_file():
    if not SHARED.is_dir():
        pytest.skip(f"no meshes at {SHARED}")
    mesh = read_quad8_csv(SHARED / "nodeCoordinates.csv", SHARED / "elementIncidences.csv")
    solution = solve(CELL, FEM(mesh=mesh))
    assert solution.status is Status.CONVERGED and solution.mesh.cell_type == "quad8"
    assert "other material" in solution.message and not solution.error()
    assert solution.stats["dofs"] == 11230
    assert solution.stats["newton_steps"] <= 5
    assert solution.stats["inclusion_fraction"] == pytest.approx(0.1335, abs=5e-5)
    assert solution.validity["hill_mandel_error"] < 1e-8


def test_a_failed_linear_solve_is_no_result():
    solution = solve(CELL, FEM(resolution=6, linear_solver=CG(max_iterations=2)), throw=False)
    assert solution.status is Status.LINEAR_SOLVE_FAILED and "cg" in solution.message


def test_what_it_cannot_solve_is_refused():
    with pytest.raises(IncompatibleProblem, match="raise resolution instead of refinements"):
        solve(CELL, FEM(refinements=1))
    with pytest.raises(MeshError, match="elements of type triangle, triangle6, quad, quad8 needed, got 'line'"):
        Cell(CELL, box_mesh(Box((0.0,), (1.0,)), 4))
    mesh = quad_mesh(CELL.domain, 4)
    with pytest.raises(MeshError, match="12 of 16 cells lie in none of the regions 1, matrix, 2, inclusion"):
        Cell(CELL, Mesh(mesh.points, mesh.cells, "quad", {}, {"matrix": np.arange(4)}))
    with pytest.raises(MeshError, match="16 of 16 elements are folded or inverted"):
        Cell(CELL, Mesh(mesh.points, mesh.cells[:, ::-1], "quad"))
    points = mesh.points.copy()
    points[(points[:, 0] == 0.5) & (points[:, 1] == 0.0), 1] = 0.1
    with pytest.raises(MeshError, match="periodic axis 0"):
        Cell(CELL, Mesh(points, mesh.cells, "quad"))

import json

import meshio
import numpy as np
import pytest

from pdelab.cli import main
from pdelab.domain import Box
from pdelab.errors import IncompatibleProblem, MeshError
from pdelab.mesh import Mesh
from pdelab.meshes.domain import MeshDomain
from pdelab.meshes.generate import quad_mesh
from pdelab.problems.burgers import Burgers2D
from pdelab.problems.elasticity import NonlinearElasticRVE
from pdelab.restate import on_domain
from pdelab.snapshots import take
from pdelab.solver import solve
from pdelab.solvers.fem import FEM

CELL = NonlinearElasticRVE()


def layers(n: int = 8) -> Mesh:
    """A cell whose left half is the stiff material."""
    mesh = quad_mesh(CELL.domain, n)
    left = mesh.points[mesh.cells].mean(axis=1)[:, 0] < 0
    return Mesh(
        mesh.points, mesh.cells, "quad", {}, {"matrix": np.flatnonzero(~left), "inclusion": np.flatnonzero(left)}
    )


def test_an_elastic_cell_takes_its_materials_from_the_regions_of_the_mesh():
    there = on_domain(CELL, MeshDomain(layers()), identity="layers")
    solution = solve(there, FEM())
    assert solution.problem is there and there.reference() is None and solution.error() == {}
    assert there.parameters["mesh"] == "layers"
    assert solution.stats["inclusion_fraction"] == pytest.approx(0.5, abs=1e-12)
    # Layers strain as a function of x alone.
    ys = np.linspace(-0.4, 0.4, 5)
    rows = solution.at(np.column_stack([np.full(5, 0.25), ys]))
    assert np.abs(rows - rows[0]).max() < 1e-12 < 1e-4 < np.abs(rows).max()
    assert not solution.message


def test_a_solution_on_foreign_regions_is_compared_with_nothing():
    solution = solve(CELL, FEM(mesh=layers()))
    assert solution.error() == {} and "of the cell the other material" in solution.message
    same = solve(CELL, FEM(mesh=quad_mesh(CELL.domain, 16)))
    assert same.problem is CELL and same.error()["rel_l2"] < 0.5


def test_displacement_is_that_of_the_mean_strain_and_the_fluctuation():
    problem = on_domain(CELL, MeshDomain(layers()), identity="layers")
    solution = solve(problem, FEM())
    (snapshot,) = take(solution).series
    points, moved = snapshot.place.points, snapshot.arrays["displacement"]
    assert moved.shape == (len(points), 3) and not moved[:, 2].any() and "residual" not in snapshot.arrays
    lower, upper = (np.flatnonzero((np.abs(points - corner) < 1e-12).all(axis=1))[0] for corner in (-0.5, 0.5))
    xx, yy, xy = CELL.macro_strain
    assert np.abs(moved[upper] - moved[lower] - [xx + xy / 2, yy + xy / 2, 0.0]).max() < 1e-14


def test_other_periodic_problems_have_no_opposite_sides_on_a_mesh():
    with pytest.raises(IncompatibleProblem, match="burgers-2d is periodic in x; a mesh has no opposite sides"):
        on_domain(Burgers2D(), MeshDomain(quad_mesh(Box((0.0, 0.0), (4.0, 4.0)), 4)), identity="square")


def test_sides_that_do_not_match_are_refused():
    mesh = layers()
    points = mesh.points.copy()
    points[(points[:, 0] == 0.5) & (points[:, 1] == 0.0), 1] = 0.05
    domain = MeshDomain(Mesh(points, mesh.cells, "quad", {}, mesh.regions))
    with pytest.raises(MeshError, match="periodic axis 0"):
        solve(on_domain(CELL, domain, identity="torn"), FEM())


def test_a_cell_in_a_file_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mesh = layers()
    material = np.ones(len(mesh.cells), dtype=int)
    material[mesh.regions["inclusion"]] = 2
    points = np.column_stack([mesh.points, np.zeros(mesh.n_points)])
    meshio.Mesh(points, {"quad": mesh.cells}, cell_data={"material": [material]}).write("cell.vtu")
    with pytest.raises(SystemExit) as left:
        main(["solve", "rve", "--solver", "fem", "--mesh", "cell.vtu", "--out", "o"])
    assert left.value.code == 0 and "stress_xx = " in capsys.readouterr().out
    result = json.loads((tmp_path / "o/result.json").read_text())
    assert result["reference"]["kind"] is None and result["metrics"] == {}
    assert result["quantities"]["inclusion_fraction"] == pytest.approx(0.5, abs=1e-12)
    arrays = meshio.read(tmp_path / "o/fields/rve.vtu").point_data
    assert "displacement" in arrays and "residual" not in arrays
    with pytest.raises(SystemExit) as left:
        main(["solve", "rve", "--solver", "pinn", "--mesh", "cell.vtu", "--out", "p"])
    assert left.value.code == 2 and "between the regions of the mesh" in capsys.readouterr().err

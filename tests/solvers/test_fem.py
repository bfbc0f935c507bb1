import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import pdelab
from pdelab.config import build
from pdelab.domain import Box, Interval
from pdelab.errors import IncompatibleProblem, MeshError, SettingsError, SolveFailed, UnknownName
from pdelab.mesh import Mesh
from pdelab.meshes.generate import box_mesh
from pdelab.meshes.measure import min_jacobian, volumes
from pdelab.meshes.movers.monge_ampere import MongeAmpere
from pdelab.meshes.movers.spring import Spring
from pdelab.meshes.movers.um2n import UM2N
from pdelab.pde import AbstractDiffusionProblem, Coefficients, Dirichlet, Exact, Initial, Neumann, Periodic
from pdelab.problems.gaussian_sums import GaussianSum
from pdelab.problems.poisson import Poisson
from pdelab.results import plain, settings
from pdelab.shapes import Ball
from pdelab.solution import Status
from pdelab.solver import solve
from pdelab.solvers._fem_space import Space
from pdelab.solvers.fem import FEM
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.cg import CG

UNIT = {1: Interval(0.0, 1.0), 2: Box((0.0, 0.0), (1.0, 1.0)), 3: Box((0.0,) * 3, (1.0,) * 3)}


def order(errors):
    """Observed order between the last two of a list of errors at doubled resolutions."""
    return math.log2(errors[-2] / errors[-1])


class Manufactured(AbstractDiffusionProblem):
    """A problem whose solution is `exact`; the source and the conditions follow from `law` and `conditions`."""

    name: ClassVar[str] = "manufactured"

    def exact(self, p):
        raise AssertionError

    def law(self, p, u):
        """Coefficients without the manufactured part of the source."""
        raise AssertionError

    def residual(self, f):
        return f.u

    def reference(self):
        return Exact(self.exact)

    def coefficients(self, p, u):
        """The law, with the source that makes `exact` the solution."""
        c = self.law(p, u)
        d = self.domain.dimension
        x = p.points.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            q = type(p)(x, p.axes)
            w = self.exact(q)
            at = self.law(q, w)
            slope = torch.autograd.grad(w.sum(), x, create_graph=True)[0]
            diffusion = at.diffusion if isinstance(at.diffusion, tuple) else (at.diffusion,) * d
            total = torch.as_tensor(0.0)
            for i in range(d):
                total = total - torch.autograd.grad((diffusion[i] * slope[:, i]).sum(), x, create_graph=True)[0][:, i]
                if at.velocity is not None:
                    total = total + at.velocity[i] * slope[:, i]
            if self.time:
                total = total + at.mass * slope[:, -1]
        return Coefficients(c.diffusion, (total - at.source).detach() + c.source, c.velocity, c.mass)


@dataclass(frozen=True)
class Steady(Manufactured):
    """Variable anisotropic diffusion, convection and reaction; Robin on the right, Neumann on the left."""

    dimension: int = 2

    @property
    def domain(self):
        return UNIT[self.dimension]

    def exact(self, p):
        return torch.sin(2.0 * p.points[:, : self.dimension] + 0.3).prod(dim=1)

    def law(self, p, u):
        diffusion = tuple(1.0 + 0.5 * (i + 1) * torch.sin(p.points[:, i] + i) for i in range(self.dimension))
        return Coefficients(diffusion, -3.0 * u, (1.0,) * self.dimension)

    def conditions(self):
        def slope(p, side):
            rest = torch.sin(2.0 * p.points[:, 1 : self.dimension] + 0.3).prod(dim=1)
            return side * 2.0 * torch.cos(2.0 * p.x + 0.3) * rest

        others = [Dirichlet("u", self.exact, part) for part in self.domain.parts[2:]]
        right = Neumann("u", lambda p: slope(p, 1) + (2.0 + p.x) * self.exact(p), "right", lambda p: 2.0 + p.x)
        left = Neumann("u", lambda p: slope(p, -1), "left")
        return (right, left, *others)


@dataclass(frozen=True)
class Nonlinear(Manufactured):
    """-div((1 + u^2) grad u) + u u_x = s with u^3 in the source, and a diffusive flux that depends on u."""

    domain: ClassVar = UNIT[2]

    def exact(self, p):
        return torch.exp(p.x) * torch.cos(p.y)

    def law(self, p, u):
        return Coefficients(1.0 + u**2, -(u**3), (u, 0.0 * u))

    def conditions(self):
        left = Neumann("u", lambda p: -self.exact(p), "left")
        return (left, *(Dirichlet("u", self.exact, part) for part in ("right", "bottom", "top")))


@dataclass(frozen=True)
class Unsteady(Manufactured):
    """(1 + u^2) u_t - div((1 + u/2) grad u) + u_x = s, boundary values that depend on time."""

    domain: ClassVar = UNIT[2]
    time: ClassVar = (0.0, 1.0)

    def exact(self, p):
        return torch.cos(3.0 * p.t) * (1.0 + p.x) * (2.0 - p.y) / 4.0

    def law(self, p, u):
        return Coefficients(1.0 + 0.5 * u, 0.0, (1.0, 0.0), 1.0 + u**2)

    def conditions(self):
        return Dirichlet("u", self.exact), Initial("u", self.exact)


@dataclass(frozen=True)
class Heat(AbstractDiffusionProblem):
    """u_t = u_xx / pi^2, u = exp(-t) sin(pi x)."""

    name: ClassVar[str] = "test-heat"
    domain: ClassVar = UNIT[1]
    time: ClassVar = (0.0, 1.0)

    def residual(self, f):
        return f.u_t - f.u_xx / math.pi**2

    def conditions(self):
        return Dirichlet("u"), Initial("u", lambda p: torch.sin(math.pi * p.x))

    def coefficients(self, p, u):
        return Coefficients(1.0 / math.pi**2)

    def reference(self):
        return Exact(lambda p: torch.exp(-p.t) * torch.sin(math.pi * p.x))


@dataclass(frozen=True)
class Ring(Manufactured):
    """Convection and diffusion on a periodic square."""

    domain: ClassVar = UNIT[2]

    def exact(self, p):
        return torch.sin(2 * math.pi * p.x) * torch.cos(2 * math.pi * p.y) + 0.5

    def law(self, p, u):
        return Coefficients(1.0, -u, (3.0, 1.0))

    def conditions(self):
        return Periodic("x"), Periodic("y")


# In one dimension order 2 is interpolated between the nodes, where its error falls as h^4.
@pytest.mark.parametrize(
    "dimension, degree, resolutions, expected, most",
    [
        (1, 1, (16, 32), 2, 1e-3),
        (1, 2, (8, 16), 4, 1e-5),
        (2, 1, (12, 24), 2, 3e-3),
        (2, 2, (6, 12), 3, 3e-4),
        (3, 1, (4, 8), 2, 0.03),
        (3, 2, (3, 6), 3, 4e-3),
    ],
)
def test_orders_of_convergence(dimension, degree, resolutions, expected, most):
    problem = Steady(dimension)
    errors = [solve(problem, FEM(resolution=n, order=degree)).error()["rel_l2"] for n in resolutions]
    assert order(errors) == pytest.approx(expected, abs=0.25)
    assert errors[-1] < most


def test_orders_of_convergence_with_a_nonlinear_law():
    errors = [solve(Nonlinear(), FEM(resolution=n, order=2)).error()["rel_l2"] for n in (6, 12)]
    assert order(errors) == pytest.approx(3.0, abs=0.25)


def test_the_jacobian_is_the_derivative_of_the_residual():
    from pdelab.solvers._fem_diffusion import Diffusion
    from pdelab.solvers._fem_space import Space

    problem = Unsteady()
    discrete = Diffusion(problem, Space(box_mesh(problem.domain, (5, 5)), 2), CG())
    rng = np.random.default_rng(48109)
    u, known, along = (rng.standard_normal(discrete.space.n_dofs) for _ in range(3))
    free = rng.standard_normal(discrete.n_free)

    def residual(v):
        return discrete.residual(discrete.evaluate(v, 0.3, known, 0.1))

    matrix, _ = discrete.jacobian(discrete.evaluate(u, 0.3, known, 0.1), 0.1)
    along = discrete.P @ free
    h = 1e-5
    difference = (residual(u + h * along) - residual(u - h * along)) / (2 * h)
    assert np.abs(matrix @ free - difference).max() < 1e-7 * np.abs(difference).max()


def test_newtons_method_is_quadratic():
    solution = solve(Nonlinear(), FEM(resolution=8))
    assert solution.stats["linear_solves"] <= 8


def test_linear_problems_take_one_linear_solve():
    assert solve(Poisson(), FEM(resolution=8)).stats["linear_solves"] == 1
    assert solve(Heat(), FEM(resolution=8, n_steps=5)).stats["linear_solves"] == 10


def test_time_steps_are_of_second_order():
    # The solution is linear in x and y: the elements represent it, all of the error is that of time.
    errors = [solve(Unsteady(), FEM(resolution=2, order=2, n_steps=n)).error()["rel_l2"] for n in (10, 20)]
    assert order(errors) == pytest.approx(2.0, abs=0.2)
    assert errors[-1] < 3e-3


def test_heat_against_the_closed_form():
    solution = solve(Heat(), FEM(resolution=64, order=2, n_steps=100))
    assert solution.error()["rel_l2"] < 3e-6
    assert solution.times is not None and len(solution.times) == 101


def test_stiff_modes_are_damped():
    # A jump in the initial values at the boundary would ring for ever under the trapezoid rule.
    @dataclass(frozen=True)
    class Jump(Heat):
        def conditions(self):
            return Dirichlet("u"), Initial("u", 1.0)

    solution = solve(Jump(), FEM(resolution=64, n_steps=20))
    x = np.column_stack([np.linspace(0.001, 0.999, 200), np.full(200, 1.0)])
    exact = sum(4 / (math.pi * k) * np.exp(-(k**2)) * np.sin(k * math.pi * x[:, 0]) for k in range(1, 20, 2))
    assert np.abs(solution.at(x)[:, 0] - exact).max() < 2e-3


def test_periodic_axes():
    errors = [solve(Ring(), FEM(resolution=n, order=2)).error()["rel_l2"] for n in (8, 16)]
    assert order(errors) == pytest.approx(3.0, abs=0.3)
    solution = solve(Ring(), FEM(resolution=8))
    ends = np.array([[0.0, 0.3], [1.0, 0.3], [0.7, 0.0], [0.7, 1.0]])
    values = solution.at(ends)[:, 0]
    assert values[0] == pytest.approx(values[1], abs=1e-12) and values[2] == pytest.approx(values[3], abs=1e-12)


def test_a_mesh_may_be_given_and_its_parts_are_used():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.45, 0.55]])
    cells = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    facets = {n: np.array([f]) for n, f in zip(Poisson.domain.parts, ([3, 0], [1, 2], [0, 1], [2, 3]), strict=True)}
    mesh = Mesh(points, cells, "triangle", facets)

    @dataclass(frozen=True)
    class Slope(Poisson):
        def conditions(self):
            return Dirichlet("u", 1.0, "left"), Dirichlet("u", 3.0, "right")

        def coefficients(self, p, u):
            return Coefficients()

    solution = solve(Slope(), FEM(mesh=mesh))
    x = np.random.default_rng(5521).random((20, 2))
    assert np.allclose(solution.at(x)[:, 0], 1.0 + 2.0 * x[:, 0], atol=1e-12)
    assert solution.mesh.n_points == 5 and set(solution.mesh.facets) == set(facets)
    with pytest.raises(MeshError, match="facets named .left.; the mesh has none"):
        solve(Slope(), FEM(mesh=Mesh(points, cells)))


@dataclass(frozen=True)
class Disc(AbstractDiffusionProblem):
    """-Lap u = source on the unit disc; Dirichlet, or Robin with the normal derivative of the solution."""

    robin: bool = False

    name: ClassVar[str] = "disc"
    domain: ClassVar = Ball((0.0, 0.0), 1.0)

    def exact(self, p):
        return torch.cos(p.x) * torch.exp(p.y)

    def residual(self, f):
        return f.u_xx + f.u_yy

    def conditions(self):
        if not self.robin:
            return (Dirichlet("u", self.exact),)
        slope = lambda p: torch.exp(p.y) * (p.y * torch.cos(p.x) - p.x * torch.sin(p.x))  # noqa: E731
        return (Neumann("u", lambda p: slope(p) + 2.0 * self.exact(p), transfer=2.0),)

    def coefficients(self, p, u):
        return Coefficients()

    def reference(self):
        return Exact(self.exact)


@pytest.mark.parametrize("robin", [False, True])
def test_quadratic_edges_follow_a_curved_boundary(robin):
    errors = [solve(Disc(robin), FEM(resolution=n, order=2)).error()["rel_l2"] for n in (8, 16)]
    assert errors[1] < 2e-5  # straight edges: 1e-3
    assert order(errors) > 2.6


@dataclass(frozen=True)
class Sphere(AbstractDiffusionProblem):
    """-Lap u = source in the unit ball, with the Robin condition of the solution."""

    name: ClassVar[str] = "sphere"
    domain: ClassVar = Ball((0.0, 0.0, 0.0), 1.0)

    def exact(self, p):
        return torch.cos(p.x) * torch.exp(p.y) + p.z**3

    def residual(self, f):
        return f.laplacian("u") - 6.0 * f.z

    def conditions(self):
        def value(p):
            slope = torch.exp(p.y) * (p.y * torch.cos(p.x) - p.x * torch.sin(p.x)) + 3.0 * p.z**3
            return slope + 2.0 * self.exact(p)

        return (Neumann("u", value, transfer=2.0),)

    def coefficients(self, p, u):
        return Coefficients(source=-6.0 * p.z)

    def reference(self):
        return Exact(self.exact)


def test_quadratic_tetrahedra_follow_a_curved_boundary():
    solutions = [solve(Sphere(), FEM(resolution=n, order=2)) for n in (5, 10)]
    errors = [s.error()["rel_l2"] for s in solutions]
    assert order(errors) > 2.5 and errors[1] < 6e-4  # straight edges: order 2
    fine = solutions[1].mesh
    assert fine.cell_type == "tetra10" and (min_jacobian(fine) > 0).all()
    assert abs(volumes(fine).sum() / (4 / 3 * math.pi) - 1.0) < 1e-3
    assert np.abs(np.linalg.norm(fine.points[np.unique(fine.boundary_facets())], axis=1) - 1.0).max() < 1e-12
    # Its own mesh, given back, leads to the same solution.
    again = solve(Sphere(), FEM(mesh=fine, order=2)).error()["rel_l2"]
    assert again == pytest.approx(errors[1], rel=1e-6)


def test_cells_that_bent_edges_would_fold_stay_straight():
    # Four corners on one sphere: all six edges would bend.
    along, down = np.array([0.0, 0.5, 1.0, 1.5]) * math.pi, np.array([0.5, 0.6, 0.5, 0.6])
    corners = np.stack([np.sin(down) * np.cos(along), np.sin(down) * np.sin(along), np.cos(down)], axis=1)
    mesh = Mesh(corners, [[0, 1, 2, 3]], "tetra")
    space = Space(mesh, 2, Ball((0.0, 0.0, 0.0), 1.0))
    assert (min_jacobian(space.output_mesh) > 0).all()
    assert np.abs(space.places[4:].mean(axis=0) - corners.mean(axis=0)).max() < 1e-14


@pytest.mark.parametrize("dimension, resolution", [(1, 16), (2, 8), (3, 4)])
def test_refinement_doubles_the_resolution(dimension, resolution):
    problem = Steady(dimension)
    once, twice = (solve(problem, FEM(resolution=resolution, refinements=k)).error()["rel_l2"] for k in (0, 1))
    assert once / twice > (2.5 if dimension == 3 else 3.4)
    curved = solve(Disc(robin=True), FEM(resolution=8, order=2, refinements=1)).error()["rel_l2"]
    assert curved < 2e-5


def test_settings_can_be_given_as_text():
    assert build(FEM, {"resolution": 8, "linear_solver": "amg"}) == FEM(resolution=8, linear_solver=AMG())
    given = {"linear_solver": {"name": "cg", "max_iterations": 7}}
    assert build(FEM, given) == FEM(linear_solver=CG(max_iterations=7))
    mesh = box_mesh(UNIT[2], 2)
    assert build(FEM, {"mesh": mesh}).mesh is mesh
    with pytest.raises(SettingsError, match="linear solver: expected a name"):
        build(FEM, {"linear_solver": 3})
    with pytest.raises(UnknownName, match="did you mean cg"):
        build(FEM, {"linear_solver": "cgg"})


def test_a_missed_tolerance_is_a_status():
    with pytest.raises(SolveFailed) as caught:
        solve(Disc(robin=True), FEM(resolution=40, linear_solver=CG(max_iterations=5)))
    assert caught.value.solution.status is Status.LINEAR_SOLVE_FAILED
    late = solve(Heat(), FEM(resolution=40, n_steps=4, linear_solver=CG(max_iterations=2)), throw=False)
    assert late.status is Status.LINEAR_SOLVE_FAILED and "t = 0" in late.message


def test_nonfinite_data_are_a_status():
    @dataclass(frozen=True)
    class Bad(Poisson):
        def coefficients(self, p, u):
            return Coefficients(source=torch.log(p.x - 0.5))

    assert solve(Bad(), FEM(resolution=8), throw=False).status is Status.NONFINITE


def test_a_nonlinear_problem_without_solution_is_a_status():
    @dataclass(frozen=True)
    class Bratu(Poisson):
        """-Lap u = 50 exp(u): no solution beyond 6.8."""

        def coefficients(self, p, u):
            return Coefficients(source=50.0 * torch.exp(u))

    assert not solve(Bratu(), FEM(resolution=8), throw=False).status.ok


def test_refusals_say_why():
    @dataclass(frozen=True)
    class Transport(Poisson):
        def coefficients(self, p, u):
            return Coefficients(0.0, velocity=(1.0, p.x))

    with pytest.raises(IncompatibleProblem, match="convection but no diffusion"):
        solve(Transport(), FEM())
    with pytest.raises(SettingsError, match="order: expected 1 or 2, got 3"):
        FEM(order=3)


def test_a_moved_mesh_lowers_the_error_with_equal_unknowns():
    mover = MongeAmpere(monitor="hessian-norm")
    gains = []
    for member in range(900, 920):
        still, moved = (solve(GaussianSum(member), FEM(resolution=20, mover=m)) for m in (None, mover))
        assert moved.stats["dofs"] == still.stats["dofs"] and moved.stats["linear_solves"] == 2
        assert np.array_equal(moved.mesh.cells, still.mesh.cells) and (volumes(moved.mesh) > 0).all()
        gains.append(1 - moved.error()["rel_l2"] / still.error()["rel_l2"])
    assert np.mean(np.array(gains) > 0) >= 0.9 and np.median(gains) > 0.1


@pytest.mark.parametrize("order", [1, 2])
def test_a_moved_mesh_of_a_disc_keeps_its_boundary(order):
    @dataclass(frozen=True)
    class Bump(GaussianSum):
        """One narrow bump off the middle."""

        domain: ClassVar = Ball((0.0, 0.0), 1.0)

        @property
        def bumps(self):
            return np.array([[1.0, 0.3, 0.2, 0.25, 0.25]])

    still, moved = (
        solve(Bump(), FEM(resolution=16, order=order, mover=m)) for m in (None, MongeAmpere(monitor="hessian-norm"))
    )
    assert moved.error()["rel_l2"] < 0.9 * still.error()["rel_l2"]
    rim = moved.mesh.points[np.unique(moved.mesh.boundary_facets())]
    assert np.abs(np.hypot(*rim.T) - 1.0).max() < 1e-9


def test_a_mover_lowers_the_error_of_a_flow_with_the_same_unknowns():
    problem = pdelab.problem("cylinder")
    plain_mesh, moved = (solve(problem, FEM(resolution=10, mover=mover)) for mover in (None, UM2N(monitor="gradient")))
    assert moved.stats["dofs"] == plain_mesh.stats["dofs"] and moved.stats["move_s"] > 0
    assert moved.error()["rel_l2"] < 0.9 * plain_mesh.error()["rel_l2"]
    corners = moved.mesh.points[np.unique(moved.mesh.cells[:, :3])]
    assert np.linalg.norm(corners - 0.2, axis=1).min() > 0.05 - 1e-9, "corners of cells stay on the cylinder"


def test_a_mover_in_space_keeps_cells_and_unknowns():
    problem = pdelab.problem("poisson-3d")
    plain_mesh, moved = (solve(problem, FEM(resolution=5, mover=mover)) for mover in (None, Spring()))
    assert moved.stats["dofs"] == plain_mesh.stats["dofs"]
    assert (moved.mesh.volumes() > 0).all() and not np.array_equal(moved.mesh.points, plain_mesh.mesh.points)


def test_a_mover_where_it_does_not_fit_is_refused():
    mover = MongeAmpere()
    for problem in (pdelab.problem("heat"), pdelab.problem("rve"), pdelab.problem("poisson-nd", dimension=1)):
        with pytest.raises(IncompatibleProblem, match="steady diffusion problems in two or three dimensions"):
            solve(problem, FEM(mover=mover))

    @dataclass(frozen=True)
    class Around(GaussianSum):
        def conditions(self):
            return (Periodic("x"),)

    with pytest.raises(IncompatibleProblem, match="periodic sides opposite each other"):
        solve(Around(), FEM(mover=mover))
    assert build(FEM, {"mover": mover}).mover is mover
    with pytest.raises(SettingsError, match="mover=3"):
        build(FEM, {"mover": 3})


def test_parts_are_named_in_settings():
    made = build(FEM, {"linear_solver": "cg", "mover": {"name": "monge-ampere", "monitor": "gradient"}})
    assert made == FEM(linear_solver=CG(), mover=MongeAmpere(monitor="gradient"))
    assert build(FEM, plain(settings(made))) == made
    with pytest.raises(UnknownName, match="monge-ampere"):
        build(FEM, {"mover": "monge-amper"})
    with pytest.raises(SettingsError, match="no setting 'monitr'; did you mean 'monitor'"):
        build(FEM, {"mover": {"name": "monge-ampere", "monitr": "gradient"}})


@pytest.mark.slow
def test_a_hundred_thousand_unknowns_take_seconds():
    solution = solve(Poisson(), FEM(resolution=316, linear_solver=AMG()))
    assert solution.stats["dofs"] > 100_000
    assert solution.stats["setup_s"] + solution.stats["solve_s"] < 6.0
    assert solution.error()["rel_l2"] < 1e-4

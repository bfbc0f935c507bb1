"""Finite elements: diffusion problems, plane flows and elastic cells on lines, triangles and tetrahedra."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from pdelab.calculus import Coordinates
from pdelab.domain import Box
from pdelab.errors import SettingsError, check_range
from pdelab.linear import AbstractLinearSolver
from pdelab.mesh import Mesh
from pdelab.mover import AbstractMover
from pdelab.pde import (
    AbstractDiffusionProblem,
    AbstractElasticityProblem,
    AbstractFlowProblem,
    AbstractProblem,
    Dirichlet,
    Initial,
    Neumann,
    Observations,
    Periodic,
)
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractInstanceSolver, Context, Progress


@dataclass(frozen=True)
class FEM(AbstractInstanceSolver):
    """Finite elements of order 1 or 2 (scikit-fem), Newton's method, implicit second-order time steps.

    Diffusion problems: errors fall as h^(order + 1) in L2 for smooth solutions. Convection is not stabilised: the cell
    Peclet number |velocity| h / diffusion should stay below about 2, and problems without diffusion are refused.
    Flows: Taylor-Hood elements (velocity of order 2, pressure of order 1), whatever `order` says. Curved boundaries
    are followed by quadratic edges with order 2.
    Elastic cells: edges follow the inclusions, opposite sides match. `stats` holds the homogenised stress as stress_xx,
    stress_yy, stress_xy; `validity` the nodal forces that are left (equilibrium_residual, relative to the sum of
    their magnitudes) and the relative difference of microscopic and macroscopic work (hill_mandel_error).

    Args:
        resolution: cells across the shortest side of the domain's bounds.
        order: of the polynomials, 1 or 2.
        n_steps: equal time steps of unsteady problems.
        refinements: how often each cell of the mesh is cut into 2, 4 or 8.
        linear_solver: for the linear systems; None chooses multigrid for symmetric ones in three dimensions, else
            the direct solver.
        mesh: cells of type line, triangle, triangle6, tetra or tetra10 with facets named like the boundary parts,
            instead of the mesh that is made from the domain. For elastic cells: triangle, triangle6, quad or quad8,
            the type decides the order; regions named 1 or matrix, 2 or inclusion tell the materials, without them the
            problem.
        mover: moves the nodes of the mesh to suit the solution, which is then solved for again (r-adaptivity): the same
            cells and unknowns, mostly a smaller error. For steady diffusion problems and flows on triangles or
            tetrahedra.
    """

    resolution: int = 32
    order: int = 1
    n_steps: int = 100
    refinements: int = 0
    linear_solver: AbstractLinearSolver | None = field(default=None, metadata={"kind": "linear_solvers"})
    mesh: Mesh | None = None
    mover: AbstractMover[Any] | None = field(default=None, metadata={"kind": "movers"})

    name: ClassVar[str] = "fem"
    accepts: ClassVar = (AbstractDiffusionProblem, AbstractElasticityProblem, AbstractFlowProblem)
    weak_form: ClassVar[bool] = True
    __pydantic_config__: ClassVar = {"arbitrary_types_allowed": True}

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("resolution", self.resolution, least=2, most=100_000)
        check_range("n_steps", self.n_steps, least=1)
        check_range("refinements", self.refinements, least=0, most=8)
        if self.order not in (1, 2):
            raise SettingsError(f"order: expected 1 or 2, got {self.order!r}")

    def refuses(self, problem: AbstractProblem) -> str:
        """See `AbstractSolver.refuses`."""
        d = problem.domain.dimension
        if d > 3:
            return f"it works in 1 to 3 dimensions, the problem has {d}; use a mesh-free solver such as pinn"
        if problem.unknowns:
            return "it identifies no coefficients; use an inverse solver such as pinn"
        conditions = problem.conditions()
        if self.mover is not None:
            moving = isinstance(problem, AbstractDiffusionProblem | AbstractFlowProblem)
            if not moving or problem.time is not None or d == 1:
                return (
                    "a mover adapts the mesh of steady diffusion problems in two or three dimensions and of steady "
                    "flows; leave mover out"
                )
            if any(isinstance(condition, Periodic) for condition in conditions):
                return "a mover does not keep the nodes of periodic sides opposite each other; leave mover out"
        if isinstance(problem, AbstractFlowProblem):
            if d != 2:
                return f"flows are solved in the plane, the problem has {d} dimensions"
            allowed: tuple[type, ...] = (Dirichlet, Neumann, Initial, Observations)
        elif isinstance(problem, AbstractElasticityProblem):
            if d != 2 or problem.time is not None:
                return "elastic cells are solved in plane strain and at rest"
            if self.refinements:
                return "it does not cut the curved edges of elastic cells; raise resolution instead of refinements"
            allowed = (Periodic, Observations)
        else:
            assert isinstance(problem, AbstractDiffusionProblem), "the driver admits no other"
            if _without_diffusion(problem):
                return "there is convection but no diffusion, which it cannot stabilise; use fd or spectral"
            allowed = (Dirichlet, Neumann, Initial, Periodic)
        for condition in conditions:
            if not isinstance(condition, allowed):
                return f"it has no way to impose {type(condition).__name__}"
            if isinstance(condition, Initial) and condition.order:
                return "it integrates equations of first order in time"
        return ""

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """See `AbstractSolver.run`."""
        mesh = self.mesh or self._made_mesh(problem)
        if isinstance(problem, AbstractElasticityProblem):
            from pdelab.solvers._fem_elasticity import solve_cell

            return solve_cell(problem, mesh, self.linear_solver, context)
        found = self._solved(problem, mesh, context)
        if self.mover is None or not found.status.ok:
            return found
        return self._adapted(self.mover, problem, mesh, found, context)

    def _solved(self, problem: AbstractProblem, mesh: Mesh, context: Context) -> Solution:
        """The solution of a flow or a diffusion problem on the mesh."""
        if isinstance(problem, AbstractFlowProblem):
            from pdelab.solvers._fem_flow import solve_flow

            domain = None if self.mesh else problem.domain
            return solve_flow(problem, mesh, domain, self.refinements, self.n_steps, self.linear_solver, context)
        assert isinstance(problem, AbstractDiffusionProblem), "the driver admits no other"
        return self._diffusion(problem, mesh, context)

    def _adapted(
        self, mover: AbstractMover[Any], problem: AbstractProblem, mesh: Mesh, found: Solution, context: Context
    ) -> Solution:
        """Solved again on the mesh moved to suit what was found on it; costs are those of both solves and the move.

        Of flows the mover gets the velocity. A second round, with the better solution, changed the errors of diffusion
        problems by at most 7 %, either way.
        """
        start = time.process_time()
        values = found.at(mesh.points)
        moved = mover.move(mesh, values[:, :2] if isinstance(problem, AbstractFlowProblem) else values, None)
        seconds = time.process_time() - start
        again = self._solved(problem, moved, context)
        costs = ("linear_solves", "setup_s", "solve_s")
        both = {key: found.stats[key] + again.stats[key] for key in costs}
        return dataclasses.replace(again, stats={**again.stats, **both, "move_s": seconds})

    def _made_mesh(self, problem: AbstractProblem) -> Mesh:
        from pdelab.meshes.generate import box_mesh, domain_mesh

        lower, upper = problem.domain.bounds
        size = float((upper - lower).min()) / self.resolution
        if isinstance(problem, AbstractElasticityProblem) and isinstance(problem.domain, Box):
            from pdelab.meshes.inclusions import inclusion_mesh

            return inclusion_mesh(problem.domain, problem.inclusions, size, self.order)
        if isinstance(problem.domain, Box):
            return box_mesh(problem.domain, tuple(int(n) for n in np.rint((upper - lower) / size)))
        return domain_mesh(problem.domain, size)

    def _diffusion(self, problem: AbstractDiffusionProblem, mesh: Mesh, context: Context) -> Solution:
        from pdelab.solvers._fem_diffusion import Diffusion, Outcome, integrate
        from pdelab.solvers._fem_space import Space

        start = time.process_time()
        space = Space(mesh, self.order, None if self.mesh else problem.domain, self.refinements)
        discrete = Diffusion(problem, space, self.linear_solver)
        ready = time.process_time()
        status, message, times = Status.CONVERGED, "", None
        if problem.time is None:
            try:
                values = discrete.solve_stage(discrete.start(), None)
            except Outcome as outcome:
                values, status, message = discrete.start(), outcome.status, outcome.message
            values = values[:, None]
        else:
            times = np.linspace(*problem.time, self.n_steps + 1)
            found, ended = integrate(
                discrete, times, lambda step: context.report(Progress(step, self.n_steps, {"t": float(times[step])}))
            )
            if ended is not None:
                status, message = ended.status, f"at t = {times[len(found) - 1]:g}: {ended.message}"
                found += [found[-1]] * (len(times) - len(found))
            values = np.stack(found)[:, :, None]
        stats = {
            "dofs": space.n_dofs,
            "linear_solves": discrete.solves,
            "linear_residual": discrete.worst_residual,
            "setup_s": ready - start,
            "solve_s": time.process_time() - ready,
        }
        return Solution(
            problem,
            space.field(values, times),
            status,
            message,
            stats,
            mesh=space.output_mesh,
            times=times,
        )


def _without_diffusion(problem: AbstractDiffusionProblem) -> bool:
    """Whether there is a velocity and the diffusion is zero at sample points."""
    lower, upper = problem.domain.bounds
    places = np.random.default_rng(7193).uniform(lower, upper, (64, len(lower)))
    if problem.time:
        places = np.column_stack([places, np.full(64, sum(problem.time) / 2)])
    points = torch.as_tensor(places)
    c = problem.coefficients(Coordinates(points, problem.axes), torch.ones(len(points), dtype=torch.float64))
    entries = c.diffusion if isinstance(c.diffusion, tuple) else (c.diffusion,)
    return c.velocity is not None and not any(torch.as_tensor(k).any() for k in entries)

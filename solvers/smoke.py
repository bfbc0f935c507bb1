"""A rising plume of smoke: incompressible flow on a staggered grid, with any linear solver for the pressure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pdelab.errors import SettingsError, ShapeError, check_choice, check_range
from pdelab.linear import AbstractLinearSolver, linear_solve, named_solver
from pdelab.solution import Status
from pdelab.solvers._mac_grid import Faces, advected, cell_places, centred, divergence
from pdelab.stencil import FLUID, SOLID, Stencil, poisson_stencil
from pdelab.vtk import Grid, write_pvd, write_vti

TOPS = {"open": "face-dirichlet", "closed": "neumann"}


@dataclass(frozen=True)
class Step:
    """What one time step cost, and how well it did.

    Attributes:
        iterations: of the linear solver.
        residual: relative, of the pressure equation.
        setup_s, solve_s: CPU seconds of the linear solver; set-up is 0 where the matrix is that of the step before.
        divergence: largest outflow of a fluid cell that is left, over the largest velocity.
    """

    iterations: float
    residual: float
    setup_s: float
    solve_s: float
    divergence: float


@dataclass(frozen=True, eq=False)
class SmokeResult:
    """The last state, and all steps.

    Attributes:
        velocity: on the faces.
        density: of the smoke, of the grid's shape.
        pressure: over the density of the air, of the grid's shape.
        solid: which cells are, bool.
        steps: one for each time step.
        status, message: of the linear solve that failed, or CONVERGED.
        files: what was written for ParaView; the .pvd last.
    """

    velocity: Faces
    density: np.ndarray
    pressure: np.ndarray
    solid: np.ndarray
    steps: list[Step]
    status: Status = Status.CONVERGED
    message: str = ""
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class SmokePlume:
    """Smoke that rises around an obstacle in a box, in the plane or in space; the last axis points up.

    u_t + u . grad u + grad p = buoyancy s e,  div u = 0,  s_t + u . grad s = 0

    with walls that let nothing through, u . n that of the obstacle on its faces, and p = 0 above an open top. A step is
    semi-Lagrangian transport, buoyancy, and a projection u <- u - grad q, A q = -div u, with the 5- or 7-point stencil
    A of the fluid cells. A is set up once, and again in each step in which the obstacle has moved. The box has its
    first side of length 1; smoke of density 1 enters below in a disc or ball of radius 0.1.

    Args:
        shape: cells along each axis, 2 or 3 axes.
        n_steps: time steps.
        dt: time step, > 0.
        buoyancy: acceleration by smoke of density 1.
        radius: of the obstacle, a disc or ball; 0 for none.
        centre: of the obstacle at the start; None puts it above the source.
        obstacle_velocity: of the obstacle, one number for each axis; None is at rest.
        top: "open" or "closed".
        linear_solver: an object, a registered name, or {"name": ..., setting: value}.

    Source: Bridson, Fluid Simulation for Computer Graphics, 2nd ed., CRC Press 2015, chapters 3 and 5.
    """

    shape: tuple[int, ...] = (64, 64)
    n_steps: int = 50
    dt: float = 0.02
    buoyancy: float = 4.0
    radius: float = 0.12
    centre: tuple[float, ...] | None = None
    obstacle_velocity: tuple[float, ...] | None = None
    top: str = "open"
    linear_solver: Any = "auto"

    def __post_init__(self) -> None:
        """Check the settings."""
        d = len(self.shape)
        if d not in (2, 3) or min(self.shape) < 8:
            raise ShapeError(f"shape: expected 2 or 3 axes of at least 8 cells, got {self.shape}")
        check_range("n_steps", self.n_steps, least=1)
        check_range("dt", self.dt, above=0.0)
        check_range("radius", self.radius, least=0.0, most=0.4)
        check_choice("top", self.top, tuple(TOPS))
        for key in ("centre", "obstacle_velocity"):
            value = getattr(self, key)
            if value is not None and (len(value) != d or not np.isfinite(value).all()):
                raise SettingsError(f"{key}: expected {d} finite numbers, one for each axis, got {value}")
        start, end = self._centre(0.0), self._centre(self.n_steps * self.dt)
        inside = [
            (c >= self.radius + 2 * self._h).all() and (c <= self._size - self.radius - 2 * self._h).all()
            for c in (start, end)
        ]
        if self.radius > 0 and not all(inside):
            raise SettingsError(
                f"the obstacle goes from {start} to {end} in a box of {self._size}; with radius {self.radius} it must "
                "stay two cells away from the walls: choose another centre, velocity or number of steps"
            )

    def run(
        self, out: Path | None = None, *, every: int = 5, report: Callable[[int, Step], None] = lambda step, facts: None
    ) -> SmokeResult:
        """Make all steps, or those up to a linear solve that fails.

        Args:
            out: folder for ParaView: smoke.pvd and a .vti for each `every` steps, with the arrays density, pressure,
                velocity and solid in the centres of the cells. None writes nothing.
            every: steps between two files.
            report: called after each step with its number, from 1, and its facts.
        """
        solver = named_solver(self.linear_solver)
        u: Faces = [np.zeros([n + (k == axis) for k, n in enumerate(self.shape)]) for axis in range(len(self.shape))]
        density, pressure = np.zeros(self.shape), np.zeros(self.shape)
        steps: list[Step] = []
        files: list[tuple[float, Path]] = []
        solid, status, message = self._solid(0.0), Status.CONVERGED, ""
        projection = Projection.of(solid, self.top, solver)
        for k in range(1, self.n_steps + 1):
            now = self._solid(k * self.dt)
            if moved := bool((now != solid).any()):
                solid, projection = now, Projection.of(now, self.top, solver)
            density[self._source() & ~solid] = 1.0
            u, density = advected(u, density, self.dt / self._h)
            density[solid] = 0.0
            self._lift(u[-1], density)
            u, q, facts, status, message = projection.apply(u, self.obstacle_velocity, fresh=moved or k == 1)
            pressure = q * self._h / self.dt
            steps.append(facts)
            report(k, facts)
            if not status.ok:
                message = f"step {k}: {message}"
                break
            if out is not None and (k % every == 0 or k == self.n_steps):
                files.append((k * self.dt, self._write(out, k, u, density, pressure, solid)))
        written = [file for _, file in files]
        if out is not None and files:
            written.append(write_pvd(out / "smoke.pvd", files))
        return SmokeResult(u, density, pressure, solid, steps, status, message, written)

    @property
    def _h(self) -> float:
        return 1.0 / self.shape[0]

    @property
    def _size(self) -> np.ndarray:
        return np.array(self.shape) * self._h

    def _centre(self, t: float) -> np.ndarray:
        start = self._size * ([0.5] * (len(self.shape) - 1) + [0.6]) if self.centre is None else np.array(self.centre)
        return np.asarray(start + t * np.array(self.obstacle_velocity or [0.0] * len(self.shape)))

    def _solid(self, t: float) -> np.ndarray:
        return self._ball(self._centre(t), self.radius)

    def _source(self) -> np.ndarray:
        return self._ball(self._size * ([0.5] * (len(self.shape) - 1) + [0.15]), 0.1)

    def _ball(self, centre: np.ndarray, radius: float) -> np.ndarray:
        away = cell_places(self.shape) * self._h - centre.reshape(-1, *(1,) * len(self.shape))
        return np.asarray(np.linalg.norm(away, axis=0) < radius)

    def _lift(self, rising: np.ndarray, density: np.ndarray) -> None:
        """Buoyancy on the faces between two cells, by the mean of their densities."""
        rising[..., 1:-1] += 0.5 * self.dt * self.buoyancy * (density[..., 1:] + density[..., :-1])

    def _write(self, out: Path, k: int, u: Faces, density: np.ndarray, pressure: np.ndarray, solid: np.ndarray) -> Path:
        out.mkdir(parents=True, exist_ok=True)
        half = 0.5 * self._h
        grid = Grid((half,) * len(self.shape), tuple(float(s) - half for s in self._size), self.shape)
        arrays: dict[str, np.ndarray] = {
            "density": density.ravel(),
            "pressure": pressure.ravel(),
            "solid": solid.ravel().astype(np.int32),
        }
        arrays["velocity"] = centred(u).reshape(-1, len(self.shape))
        return write_vti(out / f"smoke-{k:04d}.vti", grid, arrays, time=k * self.dt)


@dataclass(frozen=True, eq=False)
class Projection:
    """Makes velocities free of divergence in the fluid cells of one geometry; holds the solver's state for it."""

    stencil: Stencil
    matrix: Any
    solver: AbstractLinearSolver[Any]
    state: Any
    setup_s: float
    solid: np.ndarray
    top: str

    @classmethod
    def of(cls, solid: np.ndarray, top: str, solver: AbstractLinearSolver[Any]) -> Projection:
        """Matrix and set-up for these solid cells."""
        import time

        walls: list[tuple[str, str]] = [("neumann", "neumann")] * (solid.ndim - 1) + [("neumann", TOPS[top])]
        stencil = poisson_stencil(solid.shape, cells=np.where(solid, SOLID, FLUID), walls=walls)
        matrix = stencil.matrix()
        start = time.process_time()
        state = solver.init(matrix)
        return cls(stencil, matrix, solver, state, time.process_time() - start, solid, top)

    def apply(
        self, u: Faces, obstacle: tuple[float, ...] | None = None, *, fresh: bool = False
    ) -> tuple[Faces, np.ndarray, Step, Status, str]:
        """The projected velocity, q, the facts, and how the linear solve ended.

        Args:
            u: velocity on the faces; those of walls and solid cells are set here.
            obstacle: velocity of the solid cells; None is at rest.
            fresh: whether the set-up is counted in this step.
        """
        u = [
            self._with_walls(component, axis, 0.0 if obstacle is None else obstacle[axis])
            for axis, component in enumerate(u)
        ]
        b = np.where(self.solid, 0.0, -divergence(u))
        result = linear_solve(self.matrix, b.ravel(), self.solver, state=self.state)
        q = np.where(self.solid, 0.0, result.x.reshape(b.shape))
        if result.status.ok:
            u = [self._without_gradient(component, q, axis) for axis, component in enumerate(u)]
        left = np.abs(np.where(self.solid, 0.0, divergence(u))).max()
        fastest = max(max(float(np.abs(component).max()) for component in u), 1e-300)
        stats = result.stats
        facts = Step(
            stats.get("iterations", 1.0), stats["residual"], self.setup_s * fresh, stats["solve_s"], left / fastest
        )
        return u, q, facts, result.status, result.message

    def _with_walls(self, component: np.ndarray, axis: int, velocity: float) -> np.ndarray:
        """The velocity of the obstacle on its faces, 0 on the walls but for an open top."""
        beside = np.moveaxis(
            np.pad(self.solid, [(1, 1) if k == axis else (0, 0) for k in range(self.solid.ndim)]), axis, 0
        )
        found = np.moveaxis(component.copy(), axis, 0)
        found[beside[1:] | beside[:-1]] = velocity
        found[0] = 0.0
        if axis < self.solid.ndim - 1 or self.top == "closed":
            found[-1] = 0.0
        return np.moveaxis(found, 0, axis)

    def _without_gradient(self, component: np.ndarray, q: np.ndarray, axis: int) -> np.ndarray:
        """u minus the difference of q over open faces; over an open top q falls to 0 within half a cell."""
        found = np.moveaxis(component.copy(), axis, 0)
        values, wall = np.moveaxis(q, axis, 0), np.moveaxis(self.solid, axis, 0)
        open_ = ~(wall[1:] | wall[:-1])
        found[1:-1] -= np.where(open_, values[1:] - values[:-1], 0.0)
        if axis == q.ndim - 1 and self.top == "open":
            found[-1] += np.where(wall[-1], 0.0, 2.0 * values[-1])
        return np.moveaxis(found, 0, axis)

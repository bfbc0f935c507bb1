"""Steady flow in a lid-driven square cavity, with a uniform or a parabolic lid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from scipy.interpolate import make_interp_spline
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates, Field, jet
from pdelab.domain import Box
from pdelab.errors import check_range
from pdelab.fields import GridField
from pdelab.pde import AbstractFlowProblem, AbstractProblem, Computed, Dirichlet, Neumann, Observations


class AbstractCavity(AbstractFlowProblem):
    """Steady flow in the unit square: u = lid(x) and v = 0 on top, no slip on the other walls, p(0, 0) = 0.

    The reference is found from the stream function by finite differences of order 4.
    """

    gauge: ClassVar = ("p",)
    domain: ClassVar = Box((0.0, 0.0), (1.0, 1.0))

    def lid(self, p: Coordinates) -> Tensor:
        """Velocity of the lid, (n,)."""
        raise TypeError("AbstractCavity is a base class; use Cavity or ParabolicCavity")

    def conditions(self) -> tuple:
        """The lid, three walls, and the pressure in one corner."""
        walls = [Dirichlet("u", 0.0, part) for part in ("left", "right", "bottom")]
        pinned = Observations("p", np.zeros((1, 2)), np.zeros(1))
        # The walls come last and win in the corners: the lid does not leak through them.
        return Dirichlet("u", self.lid, "top"), *walls, Dirichlet("v", 0.0), pinned

    def reference(self) -> Computed:
        """The stream function on two grids that are finer along the walls; the error falls about like n^-2."""
        settings = {"order": 4, "clustering": 0.8}
        return Computed(
            "fd",
            fine=settings | {"n": 96},
            coarse=settings | {"n": 64},
            order=2,
            problem=Streamfunction(self),
            transform=self._flow,
        )

    def _flow(self, streamfunction: GridField) -> Field:
        return velocity_and_pressure(streamfunction, self)


@dataclass(frozen=True)
class Cavity(AbstractCavity):
    """Lid-driven cavity flow with a uniform lid: steady Navier-Stokes in the unit square.

    u = 1 on top, no slip elsewhere, viscosity 1/reynolds, p(0, 0) = 0. The velocity jumps at the two top
    corners, where the pressure is infinite: points closer than `corner` to them are not scored.

    Args:
        reynolds: lid velocity times width over viscosity; 100, 400 and 1000 are usual.
        corner: length, >= 0.

    Source: U. Ghia, K. N. Ghia, C. T. Shin, J. Comput. Phys. 48 (1982) 387-411.
    """

    reynolds: float = 100.0
    corner: float = 0.05

    name: ClassVar[str] = "cavity"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("reynolds", self.reynolds, least=1.0, most=1000.0)
        check_range("corner", self.corner, least=0.0, most=0.5)

    @property
    def viscosity(self) -> float:  # type: ignore[override]
        """1/reynolds."""
        return 1.0 / self.reynolds

    def lid(self, p: Coordinates) -> Tensor:
        """1."""
        return torch.ones_like(p.x)

    def scored(self, points: np.ndarray) -> np.ndarray:
        """Not the surroundings of the two top corners."""
        return _off_corners(points, self.corner)


@dataclass(frozen=True)
class ParabolicCavity(AbstractCavity):
    """Lid-driven cavity flow with the lid u = amplitude x (1 - x): steady Navier-Stokes in the unit square.

    Viscosity 0.01, no slip on the other walls, p(0, 0) = 0. The vorticity jumps at the two top corners:
    points closer than 0.02 to them are not scored.

    Args:
        amplitude: four times the largest lid velocity; 4 is usual, larger is harder.

    Source: Hao et al., PINNacle, arXiv 2306.08827, case NS 2d-C.
    """

    amplitude: float = 4.0

    name: ClassVar[str] = "cavity-parabolic"
    viscosity: ClassVar = 0.01  # type: ignore[misc]

    def __post_init__(self) -> None:
        """Check the amplitude."""
        check_range("amplitude", self.amplitude, above=0.0, most=40.0)

    def lid(self, p: Coordinates) -> Tensor:
        """amplitude x (1 - x)."""
        return self.amplitude * p.x * (1.0 - p.x)

    def scored(self, points: np.ndarray) -> np.ndarray:
        """Not the surroundings of the two top corners."""
        return _off_corners(points, 0.02)


@dataclass(frozen=True)
class Streamfunction(AbstractProblem):
    """The flow of a cavity by its stream function: u = psi_y, v = -psi_x, w = Lap psi is minus the vorticity.

    u w_x + v w_y = viscosity Lap w,  psi = 0 and dpsi/dn = velocity of the wall on the boundary
    """

    cavity: AbstractCavity

    name: ClassVar[str] = "cavity-streamfunction"
    components: ClassVar = ("psi",)
    domain: ClassVar = AbstractCavity.domain

    def residual(self, f: AbstractJet) -> Tensor:
        """Transport of the vorticity."""
        transport = f.psi_y * (f.psi_xxx + f.psi_xyy) - f.psi_x * (f.psi_xxy + f.psi_yyy)
        return transport - self.cavity.viscosity * (f.psi_xxxx + 2.0 * f.psi_xxyy + f.psi_yyyy)

    def conditions(self) -> tuple:
        """Walls without flow through them, and their velocity."""
        still = [Neumann("psi", 0.0, part) for part in ("left", "right", "bottom")]
        return Dirichlet("psi", 0.0), *still, Neumann("psi", self.cavity.lid, "top")


def velocity_and_pressure(streamfunction: GridField, cavity: AbstractCavity) -> Field:
    """(u, v, p) on the nodes of the stream function.

    The pressure fits its gradient g = viscosity Lap u - u . grad u: the differences between neighbouring
    nodes fit the integrals of g along the grid lines in the sense of weighted least squares. The weight is
    r^4 with the distance r from the nearest top corner, as g may grow like r^-2 there.
    """
    x, y = streamfunction.axes
    nodes = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    f = jet(streamfunction, torch.as_tensor(nodes.reshape(-1, 2)), ("psi",), ("x", "y"))
    u, v, nu = f.psi_y, -f.psi_x, cavity.viscosity
    along_x = nu * (f.psi_xxy + f.psi_yyy) - u * f.psi_xy - v * f.psi_yy
    along_y = -nu * (f.psi_xxx + f.psi_xyy) + u * f.psi_xx + v * f.psi_xy
    on_grid = [a.detach().numpy().reshape(len(x), len(y)) for a in (u, v, along_x, along_y)]
    walls = np.zeros((2, len(x), len(y)))
    walls[:, 1:-1, 1:-1] = np.stack(on_grid[:2])[:, 1:-1, 1:-1]
    walls[0, :, -1] = cavity.lid(Coordinates(torch.as_tensor(nodes[:, -1]), ("x", "y"))).numpy()
    values = np.stack([*walls, _potential(nodes, *on_grid[2:])], axis=-1)
    return GridField((x, y), values)


def _potential(nodes: np.ndarray, along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
    """Values (a, b), 0 at the first node, whose gradient is nearest to the given one at the nodes (a, b, 2)."""
    number = np.arange(along_x.size).reshape(along_x.shape)
    rows, rises, weights = [], [], []
    for axis, slope in enumerate((along_x, along_y)):
        ends = np.moveaxis(nodes, axis, 0)
        pair = np.moveaxis(number, axis, 0)
        rise = make_interp_spline(ends[:, 0, axis], np.moveaxis(slope, axis, 0), k=5).antiderivative()(ends[:, 0, axis])
        middle = 0.5 * (ends[1:] + ends[:-1]).reshape(-1, 2)
        rows.append(np.stack([pair[:-1].ravel(), pair[1:].ravel()], axis=1))
        rises.append(np.diff(rise, axis=0).ravel())
        weights.append(_corner_distance(middle) ** 4)
    edges, rise, weight = np.concatenate(rows), np.concatenate(rises), np.concatenate(weights)
    count = np.arange(len(edges))
    difference = sparse.csr_matrix(
        (np.repeat([-1.0, 1.0], len(edges)), (np.tile(count, 2), edges.T.ravel())), shape=(len(edges), number.size)
    )[:, 1:]
    normal = difference.T @ sparse.diags(weight) @ difference
    found = sparse.linalg.spsolve(normal.tocsc(), difference.T @ (weight * rise))
    return np.concatenate([[0.0], found]).reshape(number.shape)


def _off_corners(points: np.ndarray, distance: float) -> np.ndarray:
    """Which points (n, 2) are at least `distance` away from (0, 1) and (1, 1)."""
    return _corner_distance(points) >= distance


def _corner_distance(points: np.ndarray) -> np.ndarray:
    """Distance of points (n, 2) to the nearest of (0, 1) and (1, 1)."""
    return np.hypot(np.minimum(points[:, 0], 1.0 - points[:, 0]), 1.0 - points[:, 1])

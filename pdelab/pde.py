"""The contract of a PDE problem: a domain, equations, conditions, and a reference if one is known."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pdelab.calculus import AbstractJet, Coordinates, Field, Recorder, Wanted, jet
from pdelab.domain import AbstractDomain
from pdelab.errors import InputError, check_range, check_shape

Value = float | Callable[[Coordinates], Tensor]
"""A number, or a function of named coordinates `p` with values of shape (n,)."""


def evaluate(value: Value, p: Coordinates) -> Tensor:
    """The value at the points of `p`, shape (n,)."""
    result = value(p) if callable(value) else value
    if isinstance(result, float | int):
        return torch.full_like(p.points[:, 0], result)
    return result.to(p.points.dtype).expand(len(p))


@dataclass(frozen=True)
class Dirichlet:
    """component = value on a boundary part (None: the whole boundary)."""

    component: str
    value: Value = 0.0
    part: str | None = None

    def residual(self, f: AbstractJet, normals: Tensor | None = None) -> Tensor:
        """Difference from the value, shape (n,)."""
        return f.derivative(self.component) - evaluate(self.value, f)


@dataclass(frozen=True)
class Neumann:
    """du/dn + transfer * u = value on a boundary part; transfer 0 is Neumann's condition, else Robin's."""

    component: str
    value: Value = 0.0
    part: str | None = None
    transfer: Value = 0.0

    def residual(self, f: AbstractJet, normals: Tensor | None) -> Tensor:
        """Difference from the value, shape (n,); `normals` (n, space dimensions) point outward."""
        assert normals is not None, "a Neumann condition needs the normals"
        slope = f.normal_derivative(self.component, normals)
        return slope + evaluate(self.transfer, f) * f.derivative(self.component) - evaluate(self.value, f)


@dataclass(frozen=True)
class Initial:
    """component (order 0) or its time derivative (order 1) at the first time."""

    component: str
    value: Value = 0.0
    order: int = 0

    def residual(self, f: AbstractJet, normals: Tensor | None = None) -> Tensor:
        """Difference from the value, shape (n,)."""
        return f.derivative(self.component, *["t"] * self.order) - evaluate(self.value, f)


@dataclass(frozen=True)
class Periodic:
    """Every component and its derivatives below `order` agree at both ends of a box axis."""

    axis: str
    order: int = 2


@dataclass(frozen=True, eq=False)
class Observations:
    """component = values at given points: sensor data of an inverse problem, or a pinned value.

    `points` is (n, d) with time last, `values` (n,), `noise` the standard deviation of the values.

    Raises:
        ShapeError: points and values do not fit.
        InputError: there are none, or some are not finite.
        SettingsError: the noise is negative or not finite.
    """

    component: str
    points: np.ndarray
    values: np.ndarray
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        points, values = np.asarray(self.points), np.asarray(self.values)
        check_shape(f"observations of {self.component!r}, points", points, (None, None))
        check_shape(f"observations of {self.component!r}, values", values, (len(points),))
        if not len(points):
            raise InputError(f"observations of {self.component!r}: expected at least one point, got none")
        bad = ~(np.isfinite(points).all(axis=1) & np.isfinite(values))
        if bad.any():
            raise InputError(
                f"observations of {self.component!r}: {int(bad.sum())} of {len(points)} points or values are not "
                f"finite, the first is number {int(bad.argmax())}; leave them out"
            )
        check_range("noise", self.noise, least=0.0)

    def residual(self, f: AbstractJet, normals: Tensor | None = None) -> Tensor:
        """Difference from the data, shape (n,); `f` must be at `points`."""
        return f.derivative(self.component) - torch.as_tensor(self.values, dtype=f.points.dtype, device=f.points.device)


Condition = Dirichlet | Neumann | Initial | Periodic | Observations


@dataclass(frozen=True, eq=False)
class Exact:
    """A closed form; `floor` is its own relative error (round-off or quadrature)."""

    function: Callable[[Coordinates], Tensor | tuple[Tensor, ...]]
    floor: float = 1e-14


@dataclass(frozen=True, eq=False)
class Computed:
    """A reference found by one of our classical solvers, at two resolutions.

    The floor is the relative L2 distance of both runs divided by 2**order - 1 (Richardson); order 1 keeps
    the whole distance. `problem` is solved instead of the one that asks, where another form of the same
    equations is easier to solve; `transform` makes of its field one with the components of the one that asks.
    """

    solver: str
    fine: Mapping[str, Any]
    coarse: Mapping[str, Any]
    order: float = 1.0
    problem: AbstractProblem | None = None
    transform: Callable[[Any], Field] | None = None


class AbstractProblem(abc.ABC):
    """A domain, equations, conditions, and a reference if one is known.

    Concrete problems are frozen dataclasses; their fields are the parameters.
    """

    name: ClassVar[str]
    components: ClassVar[tuple[str, ...]] = ("u",)
    unknowns: ClassVar[Mapping[str, float]] = {}
    """Coefficients to be identified, with their initial guess; read in `residual` as `f.<name>`."""
    gauge: ClassVar[tuple[str, ...]] = ()
    """Components that are defined up to a constant (a pressure); scored after removing the mean."""

    # Properties, so that a problem may give a class attribute, a field or a property of its own.
    @property
    @abc.abstractmethod
    def domain(self) -> AbstractDomain:
        """Where the problem lives, in space."""

    @property
    def time(self) -> tuple[float, float] | None:
        """First and last time, or None for a steady problem."""
        return None

    @abc.abstractmethod
    def residual(self, f: AbstractJet) -> Tensor | tuple[Tensor, ...]:
        """The equations, one tensor of shape (n,) each, zero for the solution."""

    @abc.abstractmethod
    def conditions(self) -> tuple[Condition, ...]:
        """Boundary and initial conditions and data."""

    def reference(self) -> Exact | Computed | None:
        """How the solution is known, or None."""
        return None

    def profile(self, component: str) -> Callable[[Coordinates], Tensor] | None:
        """A function with the initial and Dirichlet values of a component, (n,), or None.

        Where these do not fit together no interpolation of them is bounded and smooth inside; a problem that knows how
        its solution leaves the misfit gives such a function, and solvers that build the values into the field use it.
        """
        return None

    @property
    def weak(self) -> str:
        """What the equations at points lack, such as the jumps at an interface; '' if they lack nothing.

        Such a problem is left to solvers of the weak form.
        """
        return ""

    def scored(self, points: np.ndarray) -> np.ndarray:
        """Which points (n, d) count in the error; all, unless a problem has singular corners."""
        return np.ones(len(points), dtype=bool)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the columns of a point, time last."""
        return self.domain.axes + (("t",) if self.time else ())

    @property
    def parameters(self) -> dict[str, Any]:
        """The settings of this problem, as given."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


class AbstractDiffusionProblem(AbstractProblem):
    """mass du/dt + velocity . grad u - div(diffusion grad u) = source, one component: what `fem` can solve.

    Every coefficient may depend on the unknown; the solver differentiates it for Newton's method.
    """

    @abc.abstractmethod
    def coefficients(self, p: Coordinates, u: Tensor) -> Coefficients:
        """The coefficients at points with values `u` (n,) of the unknown."""


@dataclass(frozen=True)
class Coefficients:
    """Numbers, or tensors of shape (n,); velocity and anisotropic diffusion as a tuple, one entry per space axis."""

    diffusion: float | Tensor | tuple[float | Tensor, ...] = 1.0
    source: float | Tensor = 0.0
    velocity: tuple[float | Tensor, ...] | None = None
    mass: float | Tensor = 1.0


class AbstractPeriodicProblem(AbstractProblem):
    """du/dt = L u + N(u) on a periodic box, L diagonal in Fourier space: what `spectral` integrates by ETDRK4."""

    @abc.abstractmethod
    def symbol(self, wavenumbers: tuple[np.ndarray, ...]) -> np.ndarray:
        """L for each component and wave number, shape (m, *grid of the wave numbers), complex or real."""

    @abc.abstractmethod
    def nonlinear(self, values: np.ndarray, differentiate: Callable[..., np.ndarray]) -> np.ndarray:
        """N(u) at the grid points, shape (m, *grid).

        `values` is u at the grid points (m, *grid); `differentiate(array, axis, order=1)` is the spectral
        derivative of one scalar array on the grid.
        """


class AbstractFlowProblem(AbstractProblem):
    """Incompressible Navier-Stokes in the plane: u_t + u . grad u + grad p - viscosity Lap u = force, div u = 0.

    Components are the velocity and the kinematic pressure, ("u", "v", "p"). Boundary parts without a
    velocity condition have no traction, viscosity du/dn = p n; a pressure given there is that of the
    surroundings, viscosity du/dn = (p - value) n. Without any such part p is defined up to a constant.
    """

    components: ClassVar[tuple[str, ...]] = ("u", "v", "p")

    @property
    @abc.abstractmethod
    def viscosity(self) -> float:
        """Kinematic viscosity, length^2/time, > 0."""

    def force(self, p: Coordinates) -> tuple[float | Tensor, float | Tensor]:
        """Acceleration by the body force, numbers or tensors of shape (n,)."""
        return 0.0, 0.0

    def residual(self, f: AbstractJet) -> tuple[Tensor, ...]:
        """Two momentum equations and the divergence."""
        fx, fy = self.force(f)
        first = f.u * f.u_x + f.v * f.u_y + f.p_x - self.viscosity * (f.u_xx + f.u_yy) - fx
        second = f.u * f.v_x + f.v * f.v_y + f.p_y - self.viscosity * (f.v_xx + f.v_yy) - fy
        if self.time:
            first, second = first + f.u_t, second + f.v_t
        return first, second, f.u_x + f.v_y


class AbstractElasticityProblem(AbstractProblem):
    """Equilibrium div stress = 0 of a periodic cell in plane strain, for small strains: what `fem` can solve.

    The displacement is E x + (ux, uy): a given mean strain E and a periodic fluctuation, the components. A translation
    is free: the fluctuation is set to 0 in the lower corner, and scored without its mean. Strains are
    (e_xx, e_yy, gamma_xy), gamma_xy = 2 e_xy, and stresses (s_xx, s_yy, s_xy), so that stress . strain is work.
    Two materials share the cell: the matrix and the inclusions.
    """

    components: ClassVar[tuple[str, ...]] = ("ux", "uy")
    gauge: ClassVar[tuple[str, ...]] = ("ux", "uy")

    @property
    @abc.abstractmethod
    def macro_strain(self) -> tuple[float, float, float]:
        """The mean strain E as (e_xx, e_yy, gamma_xy), dimensionless."""

    @property
    def inclusions(self) -> tuple[AbstractDomain, ...]:
        """Shapes with a sharp edge, inside the cell and apart, that meshes should follow."""
        return ()

    @abc.abstractmethod
    def share(self, p: Coordinates) -> Tensor:
        """How much of the inclusions' material there is at points, (n,): 0 in the matrix, 1 in an inclusion."""

    @abc.abstractmethod
    def stress(self, strain: Tensor, share: Tensor) -> Tensor:
        """The law of the material, strain (n, 3) and share (n,) -> stress (n, 3)."""

    @abc.abstractmethod
    def tangent(self, strain: Tensor, share: Tensor) -> Tensor:
        """Derivative of the stress by the strain, (n, 3, 3), positive definite."""

    @property
    def weak(self) -> str:
        """See `AbstractProblem.weak`."""
        return "the jump of the strain at the edges of the inclusions" if self.inclusions else ""

    def conditions(self) -> tuple[Condition, ...]:
        """Every side continues on the opposite one; the lower corner rests."""
        corner = self.domain.bounds[0][None]
        rests = (Observations(component, corner, np.zeros(1)) for component in self.components)
        return *(Periodic(axis) for axis in self.domain.axes), *rests

    def strain(self, f: AbstractJet) -> Tensor:
        """E and the strain of the fluctuation, (n, 3)."""
        xx, yy, xy = self.macro_strain
        return torch.stack([xx + f.ux_x, yy + f.uy_y, xy + f.ux_y + f.uy_x], dim=1)


class AbstractFamily(abc.ABC):
    """Problems that differ in their data only: what an operator is trained on."""

    name: ClassVar[str]
    shares_equations: ClassVar[bool] = False
    """Whether members differ in the data of their conditions only, so that one of them gives the residual of all."""

    @abc.abstractmethod
    def sample(self, seed: int) -> AbstractProblem:
        """The member of the family with this number; the same number gives the same member."""

    @abc.abstractmethod
    def encode(self, problem: AbstractProblem, sensors: np.ndarray) -> np.ndarray:
        """The data of a member as network input: its input functions at sensors (s, d) -> (s, channels)."""


def equations(residual: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The equations of a residual as a tuple, whatever way the problem returned them."""
    return residual if isinstance(residual, tuple) else (residual,)


def residual_values(problem: AbstractProblem, field: Field, points: Tensor, **unknowns: Tensor) -> Tensor:
    """The residuals of a field, (n, d) -> (n, equations), without a graph."""
    given = {name: torch.as_tensor(value) for name, value in problem.unknowns.items()} | unknowns
    f = jet(field, points, problem.components, problem.axes, given)
    return torch.stack([r.detach().expand(len(f)) for r in equations(problem.residual(f))], dim=1)


def derivatives_used(problem: AbstractProblem) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Which derivatives the equations ask for: ((component, axes), ...), e.g. ("u", ("x", "x"))."""
    return tuple(_dry_run(problem)[0].asked)


def derivatives_wanted(problem: AbstractProblem) -> Wanted:
    """The same for Taylor mode: of any component, and Laplacians as such."""
    return _dry_run(problem)[0].wanted


def count_equations(problem: AbstractProblem) -> int:
    """How many equations the problem has."""
    return len(_dry_run(problem)[1])


def _dry_run(problem: AbstractProblem) -> tuple[Recorder, tuple[Tensor, ...]]:
    """The residual at the middle of the domain, with a jet that takes notes."""
    lower, upper = problem.domain.bounds
    middle = [0.5 * (a + b) for a, b in zip(lower, upper, strict=True)] + (
        [sum(problem.time) / 2] if problem.time else []
    )
    points = torch.tensor([middle], dtype=torch.float64)
    unknowns = {name: torch.tensor(value) for name, value in problem.unknowns.items()}
    recorder = Recorder(points, problem.components, problem.axes, unknowns)
    return recorder, equations(problem.residual(recorder))

"""The equations and conditions of a linear problem at points: linear forms, and their least squares for features.

A residual is a function of the values and derivatives that it asks for, the channels. If it is linear, its values and
pointwise slopes at zero say everything: with D_c phi_k the derivative of feature k in channel c,

    A_ik = sum_c slope_c(x_i) D_c phi_k(x_i),   b_i = -residual of the zero field at x_i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from pdelab import sampling
from pdelab.calculus import AbstractJet
from pdelab.conditions import PlacedCondition, place
from pdelab.domain import Seed, stream
from pdelab.errors import InputError
from pdelab.pde import AbstractProblem, Periodic, equations
from pdelab.solvers._features import Features, Orders, Scaling

LINEAR = 1e-10
"""Relative gap between a residual and its linear form below which the equation counts as linear."""
CUTOFF = 2e-15
"""Singular values below this share of the largest are dropped."""
CONDITION_WEIGHT = 10.0
"""Of each condition beside an equation, both scaled to size 1; 1 to 100 make little difference."""

Channel = tuple[str, Orders]
"""A component and the orders of its derivative."""
Piece = tuple[str, Callable[[AbstractJet], tuple[Tensor, ...]], np.ndarray]
"""Name, residuals and points (n, d) of the equations or of one condition."""


class ChannelJet(AbstractJet):
    """A jet whose derivatives are independent tensors (n,), made on first use and kept in `channels`."""

    def __init__(self, points: Tensor, problem: AbstractProblem, make: Callable[[int], Tensor]):
        super().__init__(points, problem.axes)
        self.components = problem.components
        self.space_axes = problem.domain.axes
        self.unknowns = {}
        self.channels: dict[Channel, Tensor] = {}
        self._make = make

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        key = (component, tuple(along.count(axis) for axis in self.axes))
        if key not in self.channels:
            self.channels[key] = self._make(len(self)).requires_grad_()
        return self.channels[key]


@dataclass(frozen=True, eq=False)
class Rows:
    """constant + sum over channels of slope * derivative: one equation or condition at n points.

    Attributes:
        name: for messages.
        points: (n, d).
        slopes: channel -> (n,).
        constant: the residual of the zero field, (n,).
    """

    name: str
    points: Tensor
    slopes: dict[Channel, Tensor]
    constant: Tensor

    def size(self, half: Tensor) -> float:
        """Root mean square of the form if the derivatives by scaled coordinates were independent, of size 1."""
        squares = [s.square() / half.pow(2.0 * torch.tensor(o)).prod() for (_, o), s in self.slopes.items()]
        return float(torch.stack(squares).sum(dim=0).mean().sqrt()) if squares else 0.0

    def scaled(self, weight: float) -> Rows:
        """All rows times a number."""
        slopes = {c: weight * s for c, s in self.slopes.items()}
        return Rows(self.name, self.points, slopes, weight * self.constant)


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients (K * m,), the rank of the matrix and the condition number of what the cut-off has kept."""

    coefficients: np.ndarray
    rank: int
    condition: float


class LeastSquares:
    """The weighted rows of a linear problem at Sobol points.

    Every equation and every condition is divided by its size (see `Rows.size`) and by the root of its number of points,
    conditions times `CONDITION_WEIGHT`. The weights are those of the problem, not of the features, so that residuals
    of different features compare.

    Args:
        problem: with linear equations and conditions; periodic conditions are left to the features.
        scaling: of its coordinates.
        n_interior, n_boundary, n_initial: numbers of points.
        seed: of the points.

    Raises:
        InputError: an equation or condition is not finite somewhere.
    """

    def __init__(
        self, problem: AbstractProblem, scaling: Scaling, n_interior: int, n_boundary: int, n_initial: int, seed: Seed
    ):
        self._components = problem.components
        # Rows of the same channels are put together: a domain of many parts has one condition for each.
        groups: dict[tuple[Channel, ...], list[Rows]] = {}
        for i, piece in enumerate(_pieces(problem, n_interior, n_boundary, n_initial, seed)):
            for rows in _forms(problem, piece):
                _check_finite(problem, rows)
                if size := rows.size(scaling.half):
                    weight = (CONDITION_WEIGHT if i else 1.0) / (size * len(rows.points) ** 0.5)
                    groups.setdefault(tuple(sorted(rows.slopes)), []).append(rows.scaled(weight))
        self._rows = [_joined(group) for group in groups.values()]
        self._right = torch.cat([-rows.constant for rows in self._rows]).numpy()

    def __len__(self) -> int:
        return len(self._right)

    def fit(self, features: Features) -> Fit:
        """Least squares by singular values, the columns scaled to length 1."""
        A = self._matrix(features)
        scale = np.linalg.norm(A, axis=0)
        scale[scale == 0.0] = 1.0
        A /= scale
        c, _, rank, singular = scipy.linalg.lstsq(A, self._right, cond=CUTOFF, lapack_driver="gelsd", overwrite_a=True)
        return Fit(c / scale, int(rank), float(singular[0] / singular[rank - 1]))

    def misfit(self, features: Features, fit: Fit) -> float:
        """Norm of the weighted residual over that of the zero field."""
        right = np.linalg.norm(self._right) or 1.0
        return float(np.linalg.norm(self._matrix(features) @ fit.coefficients - self._right) / right)

    def _matrix(self, features: Features) -> np.ndarray:
        """A, with K columns for each component."""
        blocks = []
        for rows in self._rows:
            terms = [{o: s for (c, o), s in rows.slopes.items() if c == name} for name in self._components]
            blocks.append(torch.cat([features.combine(rows.points, t) for t in terms], dim=1))
        return torch.cat(blocks).numpy()


def nonlinear_part(problem: AbstractProblem, seed: int) -> str:
    """Name of the first equation or condition that is not linear in the unknowns ('' if all are).

    Residuals at random derivatives are compared with the forms taken at zero, at 64 points each.
    """
    rng = np.random.default_rng(seed)
    for piece in _pieces(problem, 64, 64, 64, seed):
        _, residual, points = piece
        f = ChannelJet(torch.as_tensor(points), problem, lambda n: torch.as_tensor(rng.standard_normal(n)))
        for form, value in zip(_forms(problem, piece), residual(f), strict=True):
            channels = {c: f.channels[c].detach() for c in form.slopes}
            terms = torch.stack([form.constant, *(slope * channels[c] for c, slope in form.slopes.items())])
            gap = (value.detach() - terms.sum(dim=0)).abs()
            # Written so that nan (a root or a logarithm at zero) counts as nonlinear.
            if not bool((gap <= LINEAR * (terms.abs().sum(dim=0) + value.detach().abs())).all()):
                return form.name
    return ""


def _pieces(problem: AbstractProblem, n_interior: int, n_boundary: int, n_initial: int, seed: Seed) -> list[Piece]:
    """The equations, then the conditions that are not periodic, with their points."""
    interior = sampling.interior(problem, n_interior, stream(seed, 0))
    placed = [
        p for p in place(problem, n_boundary, n_initial, stream(seed, 1)) if not isinstance(p.condition, Periodic)
    ]
    pieces: list[Piece] = [("equation", lambda f: equations(problem.residual(f)), interior)]
    return pieces + [(f"condition '{p.name}'", partial(_condition, p), p.points) for p in placed]


def _check_finite(problem: AbstractProblem, rows: Rows) -> None:
    bad = ~torch.stack([rows.constant, *rows.slopes.values()]).isfinite().all(dim=0)
    if bad.any():
        raise InputError(
            f"{problem.name}: {rows.name} is not finite at {int(bad.sum())} of {len(bad)} points, the first at "
            f"{rows.points[bad][0].tolist()}; give data that are finite in the whole domain"
        )


def _joined(group: list[Rows]) -> Rows:
    """Rows of the same channels, one after the other."""
    slopes = {c: torch.cat([rows.slopes[c] for rows in group]) for c in group[0].slopes}
    points, constant = (torch.cat([getattr(rows, name) for rows in group]) for name in ("points", "constant"))
    return Rows(group[0].name, points, slopes, constant)


def _condition(placed: PlacedCondition, f: AbstractJet) -> tuple[Tensor, ...]:
    return (placed.residual(f),)


def _forms(problem: AbstractProblem, piece: Piece) -> list[Rows]:
    """Residuals of the zero field and their pointwise slopes, one reverse pass for each."""
    name, residual, points = piece
    f = ChannelJet(torch.as_tensor(points), problem, lambda n: torch.zeros(n, dtype=torch.float64))
    with torch.enable_grad():
        values = [r.expand(len(f)) for r in residual(f)]
    forms = []
    for i, value in enumerate(values):
        slopes = {}
        if value.requires_grad:
            # Each row depends on its own point alone, so the gradient of the sum holds every slope.
            channels = list(f.channels.values())
            gradients = torch.autograd.grad(value.sum(), channels, retain_graph=True, allow_unused=True)
            slopes = {c: g for c, g in zip(f.channels, gradients, strict=True) if g is not None}
        label = f"{name} {i + 1}" if len(values) > 1 else name
        forms.append(Rows(label, f.points, slopes, value.detach()))
    return forms

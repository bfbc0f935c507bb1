"""Poisson's equation on a box of cells, solved by fast transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from pdelab.errors import InputError, SettingsError, check_range
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solution import Status
from pdelab.solvers.linear._axes import SAME, Diagonalised, diagonalise
from pdelab.solvers.linear._symmetry import check_symmetric
from pdelab.stencil import Stencil, recognise

ZERO = 1e-14
"""Eigenvalues below this part of the largest are zero."""


@dataclass(frozen=True, eq=False)
class Separated:
    """A box whose matrix is the Kronecker sum of one-dimensional ones.

    Attributes:
        axes: the matrix of each axis, diagonalised; they work on the axes 1, 2, ... of arrays (k, n_1, ..., n_d).
        eigenvalues: of the whole matrix, (n_1, ..., n_d).
        zero: which of them are zero, bool.
    """

    axes: tuple[Diagonalised, ...]
    eigenvalues: np.ndarray
    zero: np.ndarray


@dataclass(frozen=True)
class FastPoisson(AbstractLinearSolver[Separated]):
    """Solves A = T_1 x I x I + I x T_2 x I + I x I x T_3 (Kronecker products) by diagonalising each T_d.

    For the 3-, 5- and 7-point stencil on a full box whose coefficients depend, for the faces across an axis, on the
    place along that axis alone. Constant coefficients with no flux on both ends, u = 0 on both ends or periodic ones
    cost O(n log n); an axis with others n_d^2 per line. If the constants are in the kernel, the solution of zero mean
    is returned.

    Args:
        shape: cells along each axis, C order; None finds it from the matrix.
        tolerance: largest relative residual that counts as solved.

    Source: Buzbee, Golub & Nielson, SIAM J. Numer. Anal. 7 (1970) 627-656; Lynch, Rice & Thomas, Numer. Math. 6
    (1964) 185-199 (tensor products).
    """

    shape: tuple[int, ...] | None = None
    tolerance: float = 1e-10

    name: ClassVar[str] = "fast-poisson"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)
        if self.shape is not None and not (1 <= len(self.shape) <= 3 and min(self.shape) >= 1):
            raise SettingsError(f"shape: expected 1 to 3 positive numbers of cells, got {self.shape}")

    def init(self, A: csr_array) -> Separated:
        """The eigenvalues and the transforms of all axes.

        Raises:
            InputError: A is not symmetric, not the matrix of a stencil on a box, or not a sum over the axes; the
                message names a cell and the solver to use instead.
        """
        check_symmetric(A, self.name)
        return separate(recognise(A, self.shape))

    def compute(self, state: Separated, b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        return self.compute_batch(state, b[:, None])[0]

    def compute_batch(self, state: Separated, B: np.ndarray) -> list[LinearResult]:
        """Solve for all columns of B (n, k) with the same transforms."""
        modes = B.T.reshape(-1, *state.eigenvalues.shape)
        for axis in state.axes:
            modes = axis.forward(modes)
        dropped = np.linalg.norm(modes[:, state.zero], axis=1) / np.linalg.norm(B, axis=0)
        modes = np.where(state.zero, 0.0, modes / np.where(state.zero, 1.0, state.eigenvalues))
        for axis in state.axes:
            modes = axis.backward(modes)
        return [
            LinearResult(x) if part <= max(self.tolerance, SAME) else _incompatible(x, float(part))
            for x, part in zip(modes.reshape(B.shape[1], -1), dropped, strict=True)
        ]


def separate(stencil: Stencil) -> Separated:
    """Diagonalise the axes of a stencil.

    Raises:
        InputError: see `lines`; or an axis without fast transform is too long.
    """
    constant, each = lines(stencil)
    axes = [diagonalise(*line, axis + 1, f"axis {axis}") for axis, line in enumerate(each)]
    eigenvalues = np.full(stencil.shape, constant)
    for k, one in enumerate(axes):
        eigenvalues += one.eigenvalues.reshape([-1 if i == k else 1 for i in range(len(axes))])
    return Separated(tuple(axes), eigenvalues, np.abs(eigenvalues) <= ZERO * np.abs(eigenvalues).max())


def lines(stencil: Stencil) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """The one-dimensional matrices whose Kronecker sum, plus a constant times the identity, is that of the stencil.

    Returns:
        The constant, and for each axis couplings (n_d,) and excess (n_d,), as `diagonalise` takes them.

    Raises:
        InputError: a cell is no unknown, or a coefficient across an axis varies along another one.
    """
    scale = float(np.abs(stencil.diagonal).max())
    if not stencil.active.all():
        cell = tuple(int(k) for k in np.argwhere(~stencil.active)[0])
        raise InputError(f"fast-poisson needs a full box, but cell {cell} is no unknown; use mic-cg or amg")
    middle = tuple(n // 2 for n in stencil.shape)
    excess, each = stencil.excess, []
    constant = float(_snapped(excess[middle], scale))
    rest = excess - constant
    for axis, face in enumerate(stencil.faces):
        line = tuple(slice(None) if k == axis else m for k, m in enumerate(middle))
        lifted = tuple(slice(None) if k == axis else None for k in range(face.ndim))
        _check_same(face - face[line][lifted], scale, f"the coupling along axis {axis}")
        own = _snapped(excess[line] - constant, scale)
        rest = rest - own[lifted]
        each.append((_snapped(face[line], scale), own))
    _check_same(rest, scale, "the diagonal")
    return constant, each


def _snapped(values: np.ndarray, scale: float) -> np.ndarray:
    """Without the round-off of sums that should be zero."""
    return np.where(np.abs(values) <= SAME * scale, 0.0, values)


def _check_same(difference: np.ndarray, scale: float, what: str) -> None:
    worst = int(np.abs(difference).argmax())
    if abs(difference.flat[worst]) > SAME * scale:
        cell = tuple(int(k) for k in np.unravel_index(worst, difference.shape))
        raise InputError(
            f"fast-poisson needs a sum of one-dimensional matrices, but {what} in cell {cell} differs by "
            f"{difference.flat[worst]:.2e} from that on the line through the middle; use amg or mic-cg"
        )


def _incompatible(x: np.ndarray, part: float) -> LinearResult:
    message = f"b has no solution: {part:.2e} of it lies in the kernel of the matrix; subtract its mean"
    return LinearResult(x, Status.LINEAR_SOLVE_FAILED, message)

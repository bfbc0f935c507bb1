"""Newton's method, and the three-stage Radau IIA scheme, for discrete systems G(t, y, y') = 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy import linalg, sparse

from pdelab.errors import PdelabError

MAX_NEWTON = 40
MAX_STAGE_ITERATIONS = 12
SMALLEST_DAMPING = 0.02
SMALLEST_LOAD = 1.0 / 16.0

_R = np.sqrt(6.0)
_C = np.array([(4.0 - _R) / 10.0, (4.0 + _R) / 10.0, 1.0])
_A = np.array(
    [
        [(88.0 - 7.0 * _R) / 360.0, (296.0 - 169.0 * _R) / 1800.0, (-2.0 + 3.0 * _R) / 225.0],
        [(296.0 + 169.0 * _R) / 1800.0, (88.0 + 7.0 * _R) / 360.0, (-2.0 - 3.0 * _R) / 225.0],
        [(16.0 - _R) / 36.0, (16.0 + _R) / 36.0, 1.0 / 9.0],
    ]
)


class NewtonFailed(PdelabError):
    """Newton's method did not reach its tolerance; the message says where."""


class System(Protocol):
    """G(t, y, y') = 0 with sparse Jacobians."""

    def evaluate(self, t: float, y: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """G, (M,)."""

    def linearise(
        self, t: float, y: np.ndarray, rate: np.ndarray
    ) -> tuple[np.ndarray, sparse.csc_matrix, sparse.csc_matrix]:
        """G, dG/dy and dG/dy'."""


def factorise(matrix: sparse.csc_matrix) -> Callable[[np.ndarray], np.ndarray]:
    """The solve of a sparse matrix by LU; dense where more than 1 entry in 40 is stored.

    Raises:
        NewtonFailed: the matrix is singular.
    """
    try:
        if matrix.nnz > matrix.shape[0] ** 2 / 40:
            factors = linalg.lu_factor(matrix.toarray(), check_finite=False)
            if not np.abs(np.diag(factors[0])).min() > 0:
                raise RuntimeError("zero pivot")
            return lambda b: linalg.lu_solve(factors, b, check_finite=False)
        return sparse.linalg.splu(matrix.tocsc(), permc_spec="COLAMD").solve
    except RuntimeError as error:
        raise NewtonFailed(
            f"the linearised equations are singular ({error}); are the boundary conditions enough?"
        ) from error


def steady(system: System, y: np.ndarray, tolerance: float) -> tuple[np.ndarray, int]:
    """A solution of G(0, y, 0) = 0 and the number of Newton steps that it took.

    Where Newton's method fails from the first guess y_0, the residual there is taken away bit by bit,

        G(y) = (1 - s) G(y_0),   s from 0 to 1;

    with y_0 = 0 this raises the boundary values and sources slowly from zero.

    Args:
        system: the equations.
        y: first guess (M,).
        tolerance: on the largest change, relative to 1 + max |y|.

    Raises:
        NewtonFailed: not even with steps of `SMALLEST_LOAD` in s.
    """
    still = np.zeros_like(y)
    start = system.evaluate(0.0, y, still)
    reached, load, steps = 0.0, 1.0, 0
    while True:
        target = min(1.0, reached + load)
        try:
            y, count = _newton(system, y, (1.0 - target) * start, tolerance)
        except NewtonFailed:
            load *= 0.5
            if load < SMALLEST_LOAD:
                raise
            continue
        steps += count
        if target == 1.0:
            return y, steps
        reached, load = target, 2.0 * load


def _newton(system: System, y: np.ndarray, offset: np.ndarray, tolerance: float) -> tuple[np.ndarray, int]:
    """G(0, y, 0) = offset by damped Newton steps, and their number.

    A step is halved until the next simplified Newton step is shorter than the present one, a test that
    does not depend on the scaling of the rows (P. Deuflhard, Newton Methods for Nonlinear Problems, Springer
    2011, section 3.3).
    """
    still = np.zeros_like(y)
    damping = 1.0
    for step in range(1, MAX_NEWTON + 1):
        value, matrix, _ = system.linearise(0.0, y, still)
        solve = factorise(matrix)
        delta = solve(offset - value)
        size = np.abs(delta).max()
        if not np.isfinite(size):
            raise NewtonFailed(f"Newton step {step} is not finite")
        damping = min(1.0, 4.0 * damping)
        while True:
            trial = y + damping * delta
            enough = tolerance * (1.0 + np.abs(trial).max())
            with np.errstate(all="ignore"):
                following = np.abs(solve(offset - system.evaluate(0.0, trial, still))).max()
            if following <= (1.0 - damping / 4.0) * size or size <= enough:
                break
            damping *= 0.5
            if damping < SMALLEST_DAMPING:
                raise NewtonFailed(
                    f"Newton's method stalled in step {step} with a change of {size:.1e}; use a finer grid"
                )
        y = trial
        # `following` is the change that the next step would make: the error that is left.
        if damping == 1.0 and following <= enough:
            return y, step
    raise NewtonFailed(f"no convergence in {MAX_NEWTON} Newton steps, last change {size:.1e}")


class Radau:
    """Radau IIA with three stages: order 5, L-stable, also for algebraic rows (boundary values).

        Y_i = y + h sum_j a_ij K_j,   G(t + c_i h, Y_i, K_i) = 0,   i = 1, 2, 3

    The stage equations are solved by simplified Newton steps. In the eigenbasis of the inverse of (a_ij)
    they fall apart into one real and one complex system of the size of y; their factors are kept from
    step to step while they serve.

    Args:
        system: the equations.
        tolerance: on the change of y in a stage iteration, relative to 1 + max |y|.

    Source: E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, Springer 1996, section IV.8.
    """

    def __init__(self, system: System, tolerance: float):
        self.system = system
        self.tolerance = tolerance
        values, vectors = np.linalg.eig(np.linalg.inv(_A))
        order = np.argsort(np.abs(values.imag))
        # One real eigenvalue and one of the conjugate pair are enough for real data.
        self._real, self._pair = values[order[0]].real, values[order[1]]
        self._to = np.linalg.inv(vectors[:, order]) @ np.linalg.inv(_A)
        self._back = vectors[:, order]
        self._factors: tuple[float, Callable, Callable] | None = None
        self._last: np.ndarray | None = None
        self._last_h = 0.0

    def advance(self, t: float, y: np.ndarray, h: float, halvings: int = 8) -> np.ndarray:
        """y at t + h; a step whose stages are not found is divided in two, up to `halvings` times.

        Raises:
            NewtonFailed: the stage equations were not solved, even with fresh Jacobians.
        """
        stages = None
        if self._factors is not None and abs(self._factors[0] - h) <= 1e-9 * h:
            stages = self._solved(t, y, h)
        if stages is None:
            self._factorise(t, y, h)
            stages = self._solved(t, y, h)
        if stages is not None:
            self._last, self._last_h = stages, h
            return y + h * (_A[-1] @ stages)
        if not halvings:
            raise NewtonFailed(f"the step from t = {t:g} to {t + h:g} did not converge; use more steps")
        self._last = None
        half = self.advance(t, y, 0.5 * h, halvings - 1)
        return self.advance(t + 0.5 * h, half, 0.5 * h, halvings - 1)

    def _guess(self, y: np.ndarray, h: float) -> np.ndarray:
        """The last step's derivatives, extrapolated."""
        if self._last is None:
            return np.zeros((3, len(y)))
        at = 1.0 + _C * h / self._last_h
        lagrange = [[np.prod([(x - c) / (own - c) for c in _C if c != own]) for own in _C] for x in at]
        return np.array(lagrange) @ self._last

    def _factorise(self, t: float, y: np.ndarray, h: float) -> None:
        rate = np.zeros_like(y) if self._last is None else self._last[-1]
        _, by_value, by_rate = self.system.linearise(t + h, y, rate)
        real = factorise(h * by_value + self._real * by_rate)
        pair = factorise((h * by_value + self._pair * by_rate).tocsc())
        self._factors = h, real, pair

    def _solved(self, t: float, y: np.ndarray, h: float) -> np.ndarray | None:
        assert self._factors is not None
        _, real, pair = self._factors
        stages = self._guess(y, h)
        scale = 1.0 + np.abs(y).max()
        before = np.inf
        for iteration in range(MAX_STAGE_ITERATIONS):
            inner = y + h * (_A @ stages)
            with np.errstate(all="ignore"):
                value = np.stack(
                    [self.system.evaluate(t + c * h, u, k) for c, u, k in zip(_C, inner, stages, strict=True)]
                )
            if not np.isfinite(value).all():
                return None
            turned = self._to @ value
            x, z = real(turned[0].real), pair(turned[1])
            delta = -(self._back[:, :1] * x + 2.0 * (self._back[:, 1:2] * z)).real
            stages = stages + delta
            size = h * np.abs(delta).max() / scale
            if not np.isfinite(size) or (iteration > 1 and size > 2.0 * before):
                return None
            if size <= self.tolerance:
                if iteration > 4:
                    self._factors = None  # they no longer fit; make new ones for the next step
                return stages
            before = size
        return None

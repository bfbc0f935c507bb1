"""Linearised residuals r + J p in factored form: damped least-squares steps of every length for one factorisation.

Three factorisations of the same steps, by size and by the precision that is needed:

    J'J = V S^2 V'                   at least as many rows as parameters, summed over blocks of rows
    J J' = U S^2 U',  V = J' U / S   fewer rows than parameters
    J = Q R or J' = Q R, SVD of R    once damping gets so small that the squared condition number would tell

Above `MOST_COLUMNS` rows and parameters a sketch keeps `KEPT_COLUMNS` directions of these, and rows past `EXACT_ROWS`
for each column are sketched too: see `pdelab.sketch`. The gradient J'r is never sketched over the rows, so that
steps vanish where the loss is least, whatever the sketch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.linalg.blas
import torch
from torch import Tensor

from pdelab.sketch import ColumnSketch, RowSketch

MOST_COLUMNS, KEPT_COLUMNS = 1000, 500
EXACT_ROWS = 32
# Singular values below these, relative to the largest, are round-off and carry no direction.
_LEAST_SQUARED, _LEAST = 1e-8, 1e-15


Block = tuple[Tensor, Tensor]
"""r (n,) and J (n, P) of some rows."""


class Factors(NamedTuple):
    """J = U S V' as far as steps need it.

    Attributes:
        S: singular values (k,), falling.
        c: U' r, (k,).
        lift: x (k,) -> V x (P,).
        drop: x (P,) -> V' x (k,).
        least: singular values up to this share of the largest count as zero.
    """

    S: Tensor
    c: Tensor
    lift: Callable[[Tensor], Tensor]
    drop: Callable[[Tensor], Tensor]
    least: float


class Linearised:
    """The steps of one linearisation, by their length.

        p(lam) = -V S/(S^2 + lam) U' r,    J = U S V'
        predicted fall of |r|^2:  sum of  c^2 S^2 (S^2 + 2 lam)/(S^2 + lam)^2,    c = U' r

    Attributes:
        loss: |r|^2.
        gradient: J' r, (P,).
        sketched: whether other random numbers would give other steps.
        largest: the largest singular value, squared.
        longest: length of the Gauss-Newton step, without damping.
        rows: r (n,) and J (n, P), if they came in one block.
    """

    def __init__(self, factors: Factors, loss: float, gradient: Tensor, sketched: bool, rows: Block | None):
        self.loss, self.gradient, self.sketched, self.rows = loss, gradient, sketched, rows
        self._like, self._lift, self._drop = factors.c, factors.lift, factors.drop
        self._S, self._c = factors.S.cpu().numpy().copy(), factors.c.cpu().numpy()
        self._S[factors.least * self._S[0] >= self._S] = 0.0
        self.largest = float(self._S[0] ** 2)
        self.longest = float(np.linalg.norm(self._along(0.0)))

    def step(self, radius: float) -> tuple[Tensor, float]:
        """The step (P,) of this length, or the whole Gauss-Newton step, and the predicted fall of |r|^2."""
        lam = self.damping(radius)
        S2, c2 = self._S**2, self._c**2
        with np.errstate(divide="ignore", invalid="ignore"):
            predicted = float(np.nansum(c2 * S2 * (S2 + 2.0 * lam) / (S2 + lam) ** 2))
        return self._lift(-torch.as_tensor(self._along(lam)).to(self._like)), max(predicted, 1e-300)

    def solve(self, radius: float, v: Tensor) -> Tensor:
        """(J'J + lam I)^-1 v (P,), with the damping of the step of this length."""
        S2, x = self._S**2, self._drop(v)
        nonzero = self._S > 0.0
        inverse = np.divide(1.0, S2 + self.damping(radius), out=np.zeros_like(S2), where=nonzero)
        return self._lift(torch.as_tensor(inverse).to(x) * x)

    def damping(self, radius: float) -> float:
        """The damping at which the step has this length: bisection of its logarithm."""
        if radius >= self.longest:
            return 0.0
        low, high = math.log(self._S[0]) * 2.0 - 80.0, math.log(np.linalg.norm(self._S * self._c) / radius)
        for _ in range(60):
            middle = 0.5 * (low + high)
            if np.linalg.norm(self._along(math.exp(middle))) > radius:
                low = middle
            else:
                high = middle
        return math.exp(high)

    def _along(self, lam: float) -> np.ndarray:
        """The step in the right singular vectors, but for its sign."""
        nonzero = self._S > 0.0
        return np.divide(self._S * self._c, self._S**2 + lam, out=np.zeros_like(self._S), where=nonzero)


def linearise(blocks: Iterable[Block], fine: bool, seed: Sequence[int], directions: Tensor) -> Linearised:
    """Factor r + J p, given in blocks of rows that never exist all at once if they are many.

    Args:
        blocks: of (r (n,), J (n, P)).
        fine: whether to avoid the squared condition number.
        seed: of the sketches, if there are any.
        directions: (P, m), which sketches of the parameters keep.
    """
    kept: list[Block] = []
    whole: Block | None = None
    gradient, loss, n, columns = torch.zeros(()), 0.0, 0, None
    for r, J in blocks:
        whole = (r, J) if n == 0 else None
        gradient, loss, n = gradient.to(J) + J.T @ r, loss + float(r.square().sum()), n + len(r)
        if columns is None:
            kept.append((r, J))
            if n < min(J.shape[1], MOST_COLUMNS + 1):
                continue
            columns = _Columns(J, fine, seed, directions)
            for r_kept, J_kept in kept:
                columns.add(r_kept, J_kept)
            kept = []
        else:
            columns.add(r, J)
    if not torch.isfinite(gradient).all():
        nothing = Factors(gradient.new_zeros(1), gradient.new_zeros(1), lambda x: x * gradient, lambda x: x[:1], 0.0)
        return Linearised(nothing, loss, gradient, False, None)
    if columns is not None:
        return Linearised(columns.factored(gradient), loss, gradient, columns.sketched, whole)
    r, J = kept[0] if len(kept) == 1 else (torch.cat(part) for part in zip(*kept, strict=True))
    factors = _by_rows_fine(r, J, gradient) if fine else _by_rows(r, J, gradient)
    return Linearised(factors, loss, gradient, False, (r, J))


class _Columns:
    """Rows on their way into a factorisation in p columns; the parameters are sketched if they are more."""

    def __init__(self, J: Tensor, fine: bool, seed: Sequence[int], directions: Tensor):
        P = p = J.shape[1]
        self._sketch = None
        if P > MOST_COLUMNS:
            self._sketch = ColumnSketch(P, KEPT_COLUMNS, [*seed, 0], directions)
            p = KEPT_COLUMNS + directions.shape[1]
        self._sum: _AbstractSum = _Triangle(p, J) if fine else _Gram(p, J)
        self._rows: RowSketch | None = None
        self._seed, self._left = [*seed, 1], EXACT_ROWS * p

    @property
    def sketched(self) -> bool:
        """Whether rows or columns were."""
        return self._sketch is not None or self._rows is not None

    def add(self, r: Tensor, J: Tensor) -> None:
        """More rows."""
        J = self._sketch.columns(J) if self._sketch else J
        exact, self._left = self._left, max(0, self._left - len(r))
        if exact:
            self._sum.add(r[:exact], J[:exact])
        if len(r) > exact:
            self._rows = self._rows or RowSketch(J.shape[1], self._seed, J)
            self._rows.add(J[exact:])

    def factored(self, gradient: Tensor) -> Factors:
        """All rows, with their gradient (P,)."""
        buckets, sketch = self._rows.buckets if self._rows else None, self._sketch
        if sketch is None:
            return self._sum.factored(buckets, gradient)
        inner = self._sum.factored(buckets, sketch.columns(gradient[None])[0])
        return inner._replace(
            lift=lambda x: sketch.lift(inner.lift(x)), drop=lambda x: inner.drop(sketch.columns(x[None])[0])
        )


class _AbstractSum(abc.ABC):
    """Rows summed up in p columns."""

    @abc.abstractmethod
    def add(self, r: Tensor, J: Tensor) -> None:
        """More rows."""

    @abc.abstractmethod
    def factored(self, buckets: Tensor | None, gradient: Tensor) -> Factors:
        """With the buckets of sketched rows, and the gradient of all (p,)."""


class _Gram(_AbstractSum):
    """J'J."""

    def __init__(self, p: int, like: Tensor):
        self._lower = like.new_zeros(p, p)

    def add(self, r: Tensor, J: Tensor) -> None:
        add_gram(self._lower, J)

    def factored(self, buckets: Tensor | None, gradient: Tensor) -> Factors:
        if buckets is not None:
            add_gram(self._lower, buckets)
        try:
            squares, V = _eigen(self._lower)
        except np.linalg.LinAlgError:
            V = _direction(gradient)
            squares = (V * (symmetric(self._lower) @ V)).sum(dim=0)
        S, Vh = squares.clamp(min=0.0).sqrt().flip(0), V.T.flip(0)
        return Factors(S, _share(S, Vh @ gradient), lambda x: Vh.T @ x, lambda x: Vh @ x, _LEAST_SQUARED)


class _Triangle(_AbstractSum):
    """The factor R of [J r] = Q R."""

    def __init__(self, p: int, like: Tensor):
        self._R = like.new_zeros(0, p + 1)

    def add(self, r: Tensor, J: Tensor) -> None:
        both = torch.cat([J, r[:, None]], dim=1)
        self._R = _triangle(torch.cat([self._R, both]) if len(self._R) else both)

    def factored(self, buckets: Tensor | None, gradient: Tensor) -> Factors:
        R = self._R[:, :-1] if buckets is None else _triangle(torch.cat([self._R[:, :-1], buckets]))
        U, S, Vh = _singular(R, gradient)
        c = U.T @ self._R[:, -1] if buckets is None else _share(S, Vh @ gradient)
        return Factors(S, c, lambda x: Vh.T @ x, lambda x: Vh @ x, _LEAST)


def _by_rows(r: Tensor, J: Tensor, gradient: Tensor) -> Factors:
    """By J J', for fewer rows than parameters."""
    K = J.new_zeros(len(r), len(r))
    add_kernel(K, J)
    try:
        squares, U = _eigen(K)
    except np.linalg.LinAlgError:
        U, S, Vh = _steepest(J, gradient)
        return Factors(S, U.T @ r, lambda x: Vh.T @ x, lambda x: Vh @ x, _LEAST)
    S, U = squares.clamp(min=0.0).sqrt().flip(0), U.flip(1)
    inverse = _share(S, torch.ones_like(S))
    return Factors(S, U.T @ r, lambda x: J.T @ (U @ (inverse * x)), lambda x: inverse * (U.T @ (J @ x)), _LEAST_SQUARED)


def _by_rows_fine(r: Tensor, J: Tensor, gradient: Tensor) -> Factors:
    """By J' = Q R and the SVD of R', for fewer rows than parameters."""
    Q, R = torch.linalg.qr(J.T)
    U, S, Wh = _singular(R.T, Q.T @ gradient)
    return Factors(S, U.T @ r, lambda x: Q @ (Wh.T @ x), lambda x: Wh @ (Q.T @ x), _LEAST)


def add_gram(lower: Tensor, J: Tensor) -> None:
    """Add J'J (p, p) to the lower triangle, in place; what is above the diagonal has no meaning."""
    _rank_update(lower, J, False)


def add_kernel(lower: Tensor, J: Tensor) -> None:
    """Add J J' (n, n) to the lower triangle, in place; what is above the diagonal has no meaning."""
    _rank_update(lower, J, True)


def symmetric(lower: Tensor) -> Tensor:
    """The whole matrix whose lower triangle is given."""
    return lower.tril() + lower.tril(-1).T


def _rank_update(lower: Tensor, J: Tensor, outer: bool) -> None:
    if J.device.type != "cpu" or J.dtype != torch.float64:
        lower += J @ J.T if outer else J.T @ J
        return
    # BLAS stores columns first: the transposed views are its matrices, without a copy; its upper triangle is our lower.
    a, c = J.contiguous().numpy().T, lower.numpy().T
    scipy.linalg.blas.dsyrk(1.0, a, beta=1.0, c=c, trans=int(outer), overwrite_c=1)


def _eigen(lower: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors of the symmetric matrix whose lower triangle is given.

    Raises:
        numpy.linalg.LinAlgError: did not converge.
    """
    if lower.device.type != "cpu":
        try:
            values, vectors = torch.linalg.eigh(lower, UPLO="L")
        except torch.linalg.LinAlgError as error:
            raise np.linalg.LinAlgError(str(error)) from None
        return values, vectors
    # A third faster than torch's; columns come first, so that our lower triangle is its upper one.
    found = scipy.linalg.eigh(lower.numpy().T, lower=False, driver="evd", check_finite=False)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _triangle(A: Tensor) -> Tensor:
    return torch.linalg.qr(A, mode="r")[1] if A.shape[0] > A.shape[1] else A


def _singular(R: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition; where it fails, the direction of steepest descent alone."""
    try:
        U, S, Vh = torch.linalg.svd(R, full_matrices=False)
    except torch.linalg.LinAlgError:
        return _steepest(R, gradient)
    return U, S, Vh


def _steepest(J: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a decomposition of J would be if the gradient were its one right singular vector."""
    V = _direction(gradient)
    S = (J @ V).norm(dim=0)
    return (J @ V) / S, S, V.T


def _direction(gradient: Tensor) -> Tensor:
    return (gradient / gradient.norm())[:, None]


def _share(S: Tensor, along: Tensor) -> Tensor:
    """along/S, zero where S is round-off."""
    return torch.where(S / S[0] > _LEAST_SQUARED, along / S.clamp(min=1e-300), 0.0)

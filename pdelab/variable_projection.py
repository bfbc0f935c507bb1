"""Variable projection: Gauss-Newton in the features of a network, whose last layer is solved for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pdelab.errors import SettingsError
from pdelab.gauss_newton import GaussNewton
from pdelab.optimise import AbstractLoss, AbstractOptimizer, Evaluation

MOST_SOLVES = 10
WORTH = 0.5
SHORTEST = 2.0**-20
# Singular values up to this many units of round-off carry no direction: 1e-14 of the largest in float64.
LEAST = 50.0
# Where no step in h lowers the loss, c must have lowered it by this share for the next step to be tried.
STUCK = 1e-3


class VariableProjection(AbstractOptimizer):
    """Steps in the parameters h while those in which the field is linear, c, are where the loss is least.

        c:  p_c = -J_c^+ r,    halved until the loss falls, again while it falls to less than a half (ten at most)
        h:  p_h = -(J'J + lam I)^-1 J' r,    J = (I - Q Q') J_h,    c follows by  p_c = -J_c^+ J_h p_h

    Q is an orthonormal basis of the columns of J_c, scaled to length 1, up to singular values that are round-off.
    The step in h, its length and its bend are those of `GaussNewton`, sketched where h are many.

    For a linear equation the first c is the best one for the features as they are: a wide network with one hidden
    layer (siren, or sine units) is then solved by its first step. Later steps train the features. They are worth it
    where these are nearly right; with a narrow, deep network at its start the best c are huge, each change of h
    upsets them, and `GaussNewton`, which moves both within one radius, gets much further.

    Use many points that do not change often, at least three rows for each parameter, and float64.

    Args:
        vector: what is optimised, (P,).
        linear: which entries are c, (P,), true or false.
        gradient_tolerance: stop when max |gradient| is at most this (in units of the loss).
        function_tolerance: stop when a step lowers the loss by at most this, relative to the loss.

    Raises:
        SettingsError: none of the parameters are c, or h are so many that not even sketches fit into memory.

    Sources: G. Golub, V. Pereyra, Inverse Problems 19 (2003) R1-R26 (variable projection); L. Kaufman, BIT 15 (1975)
    49-57 (the Jacobian without the derivative of Q).
    """

    quasi_newton = False
    by_rows = True

    def __init__(
        self, vector: torch.nn.Parameter, linear: Tensor, gradient_tolerance: float, function_tolerance: float
    ):
        n_linear = int(linear.sum())
        if not n_linear:
            raise SettingsError(
                f"variable-projection: expected some of the parameters to be linear, got none of {len(vector)}; "
                f"name those of the last layer (linear=...), or use optimizer=gauss-newton"
            )
        self._vector, self._function_tolerance = vector, function_tolerance
        self._c, self._h = linear.nonzero()[:, 0], (~linear).nonzero()[:, 0]
        self._hidden = torch.nn.Parameter(vector.detach()[self._h])
        self._inner = GaussNewton(self._hidden, gradient_tolerance, 0.0) if len(self._h) else None

    def restart(self) -> None:
        """See `GaussNewton.restart`."""
        self._look()
        if self._inner:
            self._inner.restart()

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; the learning rate is not used."""
        before = loss.value()
        found = self._solve(loss)
        if found is None:
            return "line search"
        solved = loss.value()
        if not self._inner:
            return "" if before - solved > self._function_tolerance * before else "function"
        self._look()
        start = self._vector.detach().clone()
        reduced = _Reduced(loss, self._vector, self._hidden, self._c, self._h, *found)
        stop = self._inner.step(reduced, learning_rate)
        after = reduced.value() if not stop else math.inf
        if not after < solved:
            self._put(start)
            after = solved
        if before - after > STUCK * before:
            return ""
        if not stop and before - after <= self._function_tolerance * before:
            return "function"
        return stop

    def _solve(self, loss: AbstractLoss) -> tuple[Tensor, Tensor, _Columns] | None:
        """Put c where the loss is least; r, J_h and the columns of J_c there, None if they are not finite."""
        columns, left = None, MOST_SOLVES
        while True:
            r, J = loss.rows()
            J_c, J_h = J[:, self._c], J[:, self._h]
            del J
            if not all(torch.isfinite(part).all() for part in (r, J_c, J_h)):
                return None
            if columns is None or not columns.same(J_c):
                columns = _Columns(J_c)
            before = float(r.square().sum())
            value = self._descend(loss, -columns.solve(columns.coordinates(r)), before) if left else before
            if not value < before:
                return r, J_h, columns
            # J_h changes with c: one more look at it, without a solution unless this one was worth it.
            left = left - 1 if value < WORTH * before else 0

    def _descend(self, loss: AbstractLoss, p: Tensor, before: float) -> float:
        """The loss after the longest of the steps p, p/2, ... in c that lowers it, or as it was before."""
        start, share = self._vector.detach().clone(), 1.0
        while share >= SHORTEST:
            self._put(start.index_add(0, self._c, p, alpha=share))
            value = loss.value()
            if value < before:
                return value
            share *= 0.5
        self._put(start)
        return before

    def _look(self) -> None:
        with torch.no_grad():
            self._hidden.copy_(self._vector[self._h])

    def _put(self, values: Tensor) -> None:
        with torch.no_grad():
            self._vector.copy_(values)

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return self._inner.state_dict() if self._inner else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        if self._inner:
            self._inner.load_state_dict(state)


class _Columns:
    """J_c D = Q S V' with the columns scaled to length 1, up to singular values that are round-off."""

    def __init__(self, J: Tensor):
        self._J = J
        lengths = J.norm(dim=0)
        self._lengths = torch.where(lengths > 0.0, lengths, 1.0)
        try:
            Q, R = torch.linalg.qr(J / self._lengths)
            U, S, Vh = torch.linalg.svd(R, full_matrices=False)
        except torch.linalg.LinAlgError:
            Q, U, S, Vh = J, J.new_zeros(J.shape[1], 0), J.new_zeros(0), J.new_zeros(0, J.shape[1])
        floor = LEAST * torch.finfo(S.dtype).eps * S[:1]
        kept = floor < S
        self.basis, self._S, self._Vh = Q @ U[:, kept], S[kept], Vh[kept]

    def same(self, J: Tensor) -> bool:
        """Whether these are the same columns."""
        return torch.equal(J, self._J)

    def coordinates(self, v: Tensor) -> Tensor:
        """Q' v."""
        return self.basis.T @ v

    def solve(self, inside: Tensor) -> Tensor:
        """J_c^+ v of Q' v."""
        return (self._Vh.T @ (inside / self._S)) / self._lengths


class _Reduced(AbstractLoss):
    """The loss as a function of h, with c following along the tangent."""

    def __init__(
        self,
        loss: AbstractLoss,
        vector: torch.nn.Parameter,
        hidden: torch.nn.Parameter,
        c: Tensor,
        h: Tensor,
        r: Tensor,
        J_h: Tensor,
        columns: _Columns,
    ):
        self._loss, self._vector, self._hidden, self._c, self._h = loss, vector, hidden, c, h
        self._columns = columns
        self._start, self._start_c = hidden.detach().clone(), vector.detach()[c]
        self._r, self._J_inside = r, columns.coordinates(J_h)
        self._J = J_h.addmm_(columns.basis, self._J_inside, alpha=-1.0)

    def __call__(self) -> Evaluation:
        """See `AbstractLoss.__call__`; at the start."""
        return Evaluation.known(self._start, float(self._r.square().sum()), 2.0 * (self._J.T @ self._r))

    def value(self) -> float:
        """See `AbstractLoss.value`."""
        self._follow()
        return self._loss.value()

    def rows(self) -> tuple[Tensor, Tensor]:
        """See `AbstractLoss.rows`; at the start."""
        return self._r, self._J

    def residual(self) -> Tensor:
        """See `AbstractLoss.residual`."""
        self._follow()
        return self._loss.residual()

    def row_blocks(self, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `AbstractLoss.row_blocks`; at the start."""
        yield from zip(self._r.split(most), self._J.split(most), strict=True)

    def _follow(self) -> None:
        inside = self._J_inside @ (self._hidden.detach() - self._start)
        with torch.no_grad():
            self._vector[self._h] = self._hidden
            self._vector[self._c] = self._start_c - self._columns.solve(inside)

"""SPRING: Gauss-Newton steps with momentum in the directions that the present rows say nothing about."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pdelab.linearised import add_gram, add_kernel, symmetric
from pdelab.optimise import AbstractLoss, AbstractOptimizer

# Whole steps solve the present rows at once; with 0.7 and more what they leave open grows without bound.
MOMENTUM = 0.5
DAMPINGS = (1e-6, 1e-4, 1e-2, 1.0)
SHORTEST = 2.0**-20
SUFFICIENT = 1e-4
_POWER_STEPS = 20


class SPRING(AbstractOptimizer):
    """Damped least-squares steps towards half the last step instead of towards none.

        d_k = mu d_(k-1) - J'(J J' + lam I)^-1 (r + mu J d_(k-1)),    mu = 1/2,    parameters += eta d_k
            = mu d_(k-1) - (J'J + lam I)^-1 J' (r + mu J d_(k-1))

    Whichever of J J' and J'J is smaller is factored. lam is 1e-6 of its largest eigenvalue; eta is 1, halved until
    the loss |r|^2 falls by 1e-4 of its slope; momentum that does not lead downhill is given up, then lam is raised
    for this step. For points that are drawn anew at every step or so, where momentum keeps what former points
    taught; on points that stay `GaussNewton` gets much further, since its damping fades. Use float64.

    Args:
        vector: what is optimised, (P,).
        gradient_tolerance: stop when max |gradient| is at most this (in units of the loss).
        function_tolerance: stop when a step lowers the loss by at most this, relative to the loss.

    Source: G. Goldshlager, N. Abrahamsen, L. Lin, J. Comput. Phys. 516 (2024) 113351 (there mu is close to 1 and eta
    small, by a schedule and a bound on the length; here the true loss is asked, because it is known).
    """

    quasi_newton = False
    by_rows = True

    def __init__(self, vector: torch.nn.Parameter, gradient_tolerance: float, function_tolerance: float):
        self._vector = vector
        self._gradient_tolerance, self._function_tolerance = gradient_tolerance, function_tolerance
        self._direction = torch.zeros_like(vector.detach())

    def restart(self) -> None:
        """Nothing: momentum is there to outlive a change of the points."""

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; the learning rate is not used."""
        start = self._vector.detach().clone()
        r, J = loss.rows()
        gradient = 2.0 * (J.T @ r)
        if not torch.isfinite(gradient).all():
            return "line search"
        if float(gradient.abs().max()) <= self._gradient_tolerance:
            return "gradient"
        system, before = _Damped(J), float(r.square().sum())
        carried = MOMENTUM * self._direction
        for damping in DAMPINGS:
            if not system.factor(damping):
                continue
            for direction in (carried - system.solve(r + J @ carried), -system.solve(r)):
                value = self._descend(loss, start, direction, before, float(gradient @ direction))
                if value < before:
                    self._direction = direction
                    return "function" if before - value <= self._function_tolerance * before else ""
        self._put(start)
        return "line search"

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return {"direction": self._direction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        self._direction = state["direction"].to(self._vector.device)

    def _descend(self, loss: AbstractLoss, start: Tensor, direction: Tensor, before: float, slope: float) -> float:
        """The loss after the longest step that is worth it, or inf."""
        eta = 1.0
        while slope < 0.0 and eta >= SHORTEST:
            self._put(start + eta * direction)
            value = loss.value()
            if math.isfinite(value) and value <= before + SUFFICIENT * eta * slope:
                return value
            eta *= 0.5
        return math.inf

    def _put(self, values: Tensor) -> None:
        with torch.no_grad():
            self._vector.copy_(values)


class _Damped:
    """J J' + lam I or J'J + lam I as a Cholesky factor, whichever is smaller."""

    def __init__(self, J: Tensor):
        self._J, self._by_rows = J, J.shape[0] < J.shape[1]
        lower = J.new_zeros(min(J.shape), min(J.shape))
        (add_kernel if self._by_rows else add_gram)(lower, J)
        self._matrix = symmetric(lower)
        self._largest = _largest(self._matrix)

    def factor(self, damping: float) -> bool:
        """Factor with this share of the largest eigenvalue as damping, if it can be done."""
        damped = self._matrix.clone()
        damped.diagonal().add_(damping * self._largest)
        self._L, info = torch.linalg.cholesky_ex(damped)
        return not int(info)

    def solve(self, v: Tensor) -> Tensor:
        """J'(J J' + lam I)^-1 v, (P,), of v (n,)."""
        if self._by_rows:
            return self._J.T @ torch.cholesky_solve(v[:, None], self._L)[:, 0]
        return torch.cholesky_solve((self._J.T @ v)[:, None], self._L)[:, 0]


def _largest(matrix: Tensor) -> float:
    """The largest eigenvalue, from below and to a few per cent, by power iteration."""
    v = matrix[:, matrix.diagonal().argmax()]
    for _ in range(_POWER_STEPS):
        v = matrix @ (v / v.norm())
    return float(v.norm())

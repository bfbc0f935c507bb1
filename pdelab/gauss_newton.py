"""Gauss-Newton with a bold trust region, for residual vectors of a few thousand rows and parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdelab.optimise import AbstractLoss, AbstractOptimizer

TARGET = 0.075
GROWTH = math.sqrt(3.0)
LARGEST_MOVE = 3
MIN_RADIUS = 1e-12
FINE = 1e-11


class GaussNewton(AbstractOptimizer):
    """Steps of the linearised residuals, as long as the loss falls by a small share of what they promise.

        p(lam) = -V S/(S^2 + lam) U' r,    J = U S V',    |p(lam)| = radius
        predicted fall of |r|^2:  sum of  c^2 S^2 (S^2 + 2 lam)/(S^2 + lam)^2,    c = U' r

    Singular values and vectors are those of J'J, and once the damping falls below 1e-11 of its largest eigenvalue,
    where the squared condition number would tell, those of J itself (QR, then the SVD of R; twice as dear).
    From the last radius the search goes up or down by factors of sqrt(3), at most 3 up, to the largest radius at
    which the loss falls by at least 0.075 of the prediction: far bolder than the usual 0.25 to 0.75, which is what
    keeps it moving along curved valleys. Use many points that do not change often, at least three rows for each
    parameter, and float64.

    Args:
        vector: what is optimised, (P,).
        gradient_tolerance: stop when max |gradient| is at most this (in units of the loss).
        function_tolerance: stop when a step lowers the loss by at most this, relative to the loss.

    Source: E. Webb, A. Jerad, C. Cartis, arXiv:2607.02194 (the acceptance rule; there 24 radii at once and a
    spline, here a search that needs two or three).
    """

    quasi_newton = True

    def __init__(self, vector: torch.nn.Parameter, gradient_tolerance: float, function_tolerance: float):
        self._vector = vector
        self._gradient_tolerance, self._function_tolerance = gradient_tolerance, function_tolerance
        self._radius = 1.0
        self._fine = False

    def restart(self) -> None:
        """Nothing: the radius outlives a change of the points."""

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; the learning rate is not used."""
        start = self._vector.detach().clone()
        r, J = loss.rows()
        if float((J.T @ r).abs().max()) * 2.0 <= self._gradient_tolerance:
            return "gradient"
        region = _Region(r, J, self._fine)
        before = float(r.square().sum())

        def after(radius: float) -> tuple[float, float]:
            """Loss there, and its fall as a share of the prediction."""
            p, predicted = region.step(radius)
            self._put(start + p)
            found = loss.value()
            return (found, (before - found) / predicted) if math.isfinite(found) else (math.inf, -math.inf)

        radius = min(self._radius, region.longest)
        value, share = after(radius)
        if share >= TARGET:
            for _ in range(LARGEST_MOVE):
                further = min(radius * GROWTH, region.longest)
                if further <= radius:
                    break
                trial, share = after(further)
                if share < TARGET:
                    break
                radius, value = further, trial
        else:
            while share < TARGET and radius > MIN_RADIUS:
                radius /= GROWTH
                value, share = after(radius)
            if share < TARGET:
                self._put(start)
                return "line search"
        self._radius = radius
        self._put(start + region.step(radius)[0])
        self._fine = region.damping(radius) < FINE * region.largest
        return "function" if before - value <= self._function_tolerance * before else ""

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return {"radius": self._radius, "fine": self._fine}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        self._radius, self._fine = state["radius"], state["fine"]

    def _put(self, values: Tensor) -> None:
        with torch.no_grad():
            self._vector.copy_(values)


class _Region:
    """The steps of one linearisation, by their length."""

    def __init__(self, r: Tensor, J: Tensor, fine: bool):
        n, P = J.shape
        if fine or n < P:
            both = torch.cat([J, r[:, None]], dim=1)
            R = torch.linalg.qr(both, mode="r")[1] if n > P else both
            U, S, self._Vh = torch.linalg.svd(R[:, :-1], full_matrices=False)
            c = U.T @ R[:, -1]
        else:
            squares, V = torch.linalg.eigh(J.T @ J)
            S, self._Vh = squares.clamp(min=0.0).sqrt().flip(0), V.T.flip(0)
            c = torch.where(S / S[0] > 1e-8, (self._Vh @ (J.T @ r)) / S.clamp(min=1e-300), 0.0)
        self._S, self._c = S.cpu().numpy().copy(), c.cpu().numpy()
        # Singular values at round-off carry no direction.
        least = 1e-15 if fine or n < P else 1e-8
        self._S[least * self._S[0] >= self._S] = 0.0
        self.largest = float(self._S[0] ** 2)
        self.longest = float(np.linalg.norm(self._along(0.0)))

    def step(self, radius: float) -> tuple[Tensor, float]:
        """The step (P,) of this length, or the whole Gauss-Newton step, and the predicted fall of |r|^2."""
        lam = self.damping(radius)
        S2, c2 = self._S**2, self._c**2
        with np.errstate(divide="ignore", invalid="ignore"):
            predicted = float(np.nansum(c2 * S2 * (S2 + 2.0 * lam) / (S2 + lam) ** 2))
        along = torch.as_tensor(self._along(lam)).to(self._Vh)
        return -(self._Vh.T @ along), max(predicted, 1e-300)

    def _along(self, lam: float) -> np.ndarray:
        """The step in the right singular vectors."""
        nonzero = self._S > 0.0
        return np.divide(self._S * self._c, self._S**2 + lam, out=np.zeros_like(self._S), where=nonzero)

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

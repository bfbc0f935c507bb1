"""Self-scaled Broyden: a quasi-Newton method with a dense inverse Hessian, for small networks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import line_search
from torch import Tensor

from pdelab.optimise import AbstractOptimizer, Evaluation

_MAX_LINE_SEARCH = 20


class SSBroyden(AbstractOptimizer):
    """A member of Broyden's family whose inverse Hessian H is rescaled at each step; strong Wolfe line search.

        H <- (H - Hy Hy'/q + phi q v v')/tau + s s'/(y.s),   q = y.Hy,   v = s/(y.s) - Hy/q

    phi and tau follow from the curvature of the step. y compares gradients of one loss function, so H
    outlives a change of the points. Memory is P^2 numbers: for P up to about 5000. Use float64.

    Args:
        vector: what is optimised, (P,).
        gradient_tolerance: stop when max |gradient| is at most this (in units of the loss).
        function_tolerance: stop when a step lowers the loss by at most this, relative to the loss.

    Sources: M. Al-Baali, H. Khalfan, Optim. Methods Softw. 20 (2005) 1-23 (self-scaling); J. Urban,
    P. Stefanou, J. Pons, J. Comput. Phys. 523 (2025) 113656 (use in PINNs).
    """

    quasi_newton = True

    def __init__(self, vector: torch.nn.Parameter, gradient_tolerance: float, function_tolerance: float):
        self._vector = vector
        self._gradient_tolerance, self._function_tolerance = gradient_tolerance, function_tolerance
        self._H: Tensor | None = None
        self._steps = 0

    def restart(self) -> None:
        """Nothing: each pair of gradients belongs to one loss function."""

    def step(self, evaluate: Callable[[], Evaluation], learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; the learning rate is not used."""
        before = evaluate()
        g = before.gradient
        if g.abs().max() <= self._gradient_tolerance:
            return "gradient"
        if self._H is None:
            self._reset(g)
        assert self._H is not None
        direction = -(self._H @ g)
        if not g @ direction < 0:
            self._reset(g)
            direction = -(self._H @ g)
        fresh = self._steps == 0
        length = self._search(evaluate, before, direction)
        if not length:
            self._put(before.at)
            if fresh:
                return "line search"
            self._H = None
            return self.step(evaluate, learning_rate)
        self._put(before.at + length * direction)
        after = evaluate()
        self._update(length * direction, after.gradient - g, g, length)
        if before.loss - after.loss <= self._function_tolerance * abs(before.loss):
            return "function"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return {"H": self._H, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        self._H = None if state["H"] is None else state["H"].to(self._vector.device)
        self._steps = state["steps"]

    def _reset(self, g: Tensor) -> None:
        # The first step moves all parameters together by at most 1.
        self._H = torch.eye(len(g), dtype=g.dtype, device=g.device) * min(1.0, 1.0 / float(g.abs().sum()))
        self._steps = 0

    def _put(self, values: Tensor) -> None:
        with torch.no_grad():
            self._vector.copy_(values)

    def _search(self, evaluate: Callable[[], Evaluation], before: Evaluation, direction: Tensor) -> float:
        """Step length that meets the strong Wolfe conditions (c1 = 1e-4, c2 = 0.9), or 0."""

        def at(length: np.ndarray) -> Evaluation:
            self._put(before.at + float(length[0]) * direction)
            return evaluate()

        def value(length: np.ndarray) -> float:
            found = at(length)
            return found.loss if found.finite else math.inf

        def slope(length: np.ndarray) -> np.ndarray:
            return np.array([float(at(length).gradient @ direction)])

        # One variable, the length, so that nothing but numbers leaves the device.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            length = line_search(
                value,
                slope,
                np.zeros(1),
                np.ones(1),
                gfk=np.array([float(before.gradient @ direction)]),
                old_fval=before.loss,
                maxiter=_MAX_LINE_SEARCH,
            )[0]
        if length is None:
            return 0.0
        return float(length) if value(np.array([length])) < before.loss else 0.0

    def _update(self, s: Tensor, y: Tensor, g: Tensor, length: float) -> None:
        """Letters as in the papers; a step without positive curvature changes nothing."""
        H = self._H
        assert H is not None
        ys = float(y @ s)
        Hy = H @ y
        q = float(y @ Hy)
        if not (ys > 1e-14 * float(y.norm() * s.norm()) and q > 0):
            return
        r, N = 1.0 / ys, len(s)
        h, b = q * r, -length * r * float(s @ g)
        A = h * b - 1.0
        if A > 1e-12:
            rm = min(1.0, h * (1.0 - math.sqrt(A / (1.0 + A))))
            theta = max((rm - 1.0) / A, min(1.0 / rm, (1.0 - b) / b))
        else:
            A, theta = 0.0, 0.0
        sigma = 1.0 + theta * A
        rk, sn = min(1.0, 1.0 / b), abs(sigma) ** (1.0 / (1.0 - N)) if N > 1 else 1.0
        tau = min(rk * sn, sigma) if theta <= 0 else rk * min(sn, 1.0 / theta)
        if self._steps == 0:
            tau = h / sigma
        phi = (1.0 - theta) / (1.0 + A * theta)
        v = s * r - Hy / q
        left = torch.stack([Hy, v, s], dim=1)
        right = torch.stack([-Hy / (q * tau), (phi * q / tau) * v, r * s])
        torch.addmm(H, left, right, beta=1.0 / tau, out=H)
        self._steps += 1

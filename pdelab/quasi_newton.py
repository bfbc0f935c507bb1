"""Self-scaled BFGS and Broyden: quasi-Newton methods with a dense inverse Hessian, for small networks."""

from __future__ import annotations

import abc
import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import line_search
from torch import Tensor

from pdelab.optimise import AbstractLoss, AbstractOptimizer, Evaluation, check_memory

_MAX_LINE_SEARCH = 20


class AbstractSelfScaled(AbstractOptimizer):
    """Members of Broyden's family whose inverse Hessian H is rescaled at each step; strong Wolfe line search.

        H <- (H - Hy Hy'/q + phi q v v')/tau + s s'/(y.s),   q = y.Hy,   v = s/(y.s) - Hy/q
        phi = (1 - theta)/(1 + theta A),   A = h b - 1,   h = q/(y.s),   b = -a (s.g)/(y.s)

    a is the step length, g the gradient before the step; a member is its theta and tau. The first tau,
    h/(1 + theta A), gives H the size of the curvature along the step. y compares gradients of one loss
    function, so H outlives a change of the points. Memory is P^2 numbers: for P up to about 5000. Use float64.

    Args:
        vector: what is optimised, (P,).
        gradient_tolerance: stop when max |gradient| is at most this (in units of the loss).
        function_tolerance: stop when a step lowers the loss by at most this, relative to the loss.

    Source: M. Al-Baali, Comput. Optim. Appl. 9 (1998) 191-203.
    """

    quasi_newton = True

    def __init__(self, vector: torch.nn.Parameter, gradient_tolerance: float, function_tolerance: float):
        P = vector.numel()
        way_out = "use optimizer=lbfgs or a smaller network"
        check_memory(f"the inverse Hessian of {P} parameters", 2.0 * P * P * vector.element_size(), way_out)
        self._vector = vector
        self._gradient_tolerance, self._function_tolerance = gradient_tolerance, function_tolerance
        self._H: Tensor | None = None
        self._steps = 0

    def restart(self) -> None:
        """Nothing: each pair of gradients belongs to one loss function."""

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; the learning rate is not used."""
        before = loss()
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
        length = self._search(loss, before, direction)
        if not length:
            self._put(before.at)
            if fresh:
                return "line search"
            self._H = None
            return self.step(loss, learning_rate)
        self._put(before.at + length * direction)
        after = loss()
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

    @abc.abstractmethod
    def _member(self, h: float, b: float, A: float, size: int) -> tuple[float, float]:
        """theta and tau of a step; `size` is P, the other letters as above."""

    def _reset(self, g: Tensor) -> None:
        # The first step moves all parameters together by at most 1.
        self._H = torch.eye(len(g), dtype=g.dtype, device=g.device) * min(1.0, 1.0 / float(g.abs().sum()))
        self._steps = 0

    def _put(self, values: Tensor) -> None:
        with torch.no_grad():
            self._vector.copy_(values)

    def _search(self, loss: AbstractLoss, before: Evaluation, direction: Tensor) -> float:
        """Step length that meets the strong Wolfe conditions (c1 = 1e-4, c2 = 0.9), or 0."""

        def at(length: np.ndarray) -> Evaluation:
            self._put(before.at + float(length[0]) * direction)
            return loss()

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
        r = 1.0 / ys
        h, b = q * r, -length * r * float(s @ g)
        # A >= 0 by Cauchy-Schwarz; within rounding of 0 all members are BFGS.
        A = max(0.0, h * b - 1.0)
        theta, tau = self._member(h, b, A, len(s))
        sigma = 1.0 + theta * A
        if self._steps == 0:
            tau = h / sigma
        phi = (1.0 - theta) / sigma
        v = s * r - Hy / q
        left = torch.stack([Hy, v, s], dim=1)
        right = torch.stack([-Hy / (q * tau), (phi * q / tau) * v, r * s])
        torch.addmm(H, left, right, beta=1.0 / tau, out=H)
        self._steps += 1


class SSBFGS(AbstractSelfScaled):
    """Self-scaled BFGS: the member theta = 0 with tau = min(1, 1/b), so that the scaling alone never shrinks H.

    See `AbstractSelfScaled` for the update and the arguments.

    Sources: S. Oren, D. Luenberger, Management Sci. 20 (1974) 845-862 (self-scaling); M. Al-Baali, Comput.
    Optim. Appl. 9 (1998) 191-203 (at most 1).
    """

    def _member(self, h: float, b: float, A: float, size: int) -> tuple[float, float]:
        return 0.0, min(1.0, 1.0 / b)


class SSBroyden(AbstractSelfScaled):
    """Self-scaled Broyden: theta moves from BFGS (0) towards or beyond DFP (1) as the curvature of the step asks.

    See `AbstractSelfScaled` for the update and the arguments.

    Sources: M. Al-Baali, H. Khalfan, Optim. Methods Softw. 20 (2005) 1-23 (self-scaling); J. Urban,
    P. Stefanou, J. Pons, J. Comput. Phys. 523 (2025) 113656 (use in PINNs).
    """

    def _member(self, h: float, b: float, A: float, size: int) -> tuple[float, float]:
        theta = 0.0
        if A > 1e-12:
            rm = min(1.0, h * (1.0 - math.sqrt(A / (1.0 + A))))
            theta = max((rm - 1.0) / A, min(1.0 / rm, (1.0 - b) / b))
        sigma = 1.0 + theta * A
        rk, sn = min(1.0, 1.0 / b), abs(sigma) ** (1.0 / (1.0 - size)) if size > 1 else 1.0
        return theta, min(rk * sn, sigma) if theta <= 0 else rk * min(sn, 1.0 / theta)

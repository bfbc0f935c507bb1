"""Gauss-Newton with a bold trust region, for residual vectors; sketched where rows or parameters are many."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pdelab.linearised import MOST_COLUMNS, Linearised, linearise
from pdelab.optimise import AbstractLoss, AbstractOptimizer, check_memory

TARGET = 0.075
GROWTH = math.sqrt(3.0)
LARGEST_MOVE = 3
FIRST_RADIUS, MIN_RADIUS = 1.0, 1e-12
COLLAPSED = 1e-8
MOST_FAILURES = 3
FINE = 1e-14
BLOCK = 2**25
PROBE, MOST_BEND = 0.2, 0.375


class GaussNewton(AbstractOptimizer):
    """Steps of the linearised residuals, as long as the loss falls by a small share of what they promise.

        p(lam) = -(J'J + lam I)^-1 J' r,    |p(lam)| = radius,    see `Linearised`
        theta <- theta + p + q,    q = -1/2 (J'J + lam I)^-1 J' r''(p, p),    |q| <= 3/8 |p|

    q follows the valley in which the residuals stay small around its bend (geodesic acceleration); r'' along p comes
    from one more evaluation of r. It makes steps two to five times longer, and comes with every step whose rows fit
    into one block.

    Once the damping falls below 1e-14 of the largest eigenvalue of J'J, J itself is factored (twice as dear).
    From the last radius the search goes up or down by factors of sqrt(3), at most 3 up, to the largest radius at
    which the loss falls by at least 0.075 of the prediction: far bolder than the usual 0.25 to 0.75, which is what
    keeps it moving along curved valleys. Use many points that do not change often, at least three rows for each
    parameter, and float64.

    With more than 1000 parameters and rows a step moves in 500 random directions, new ones each time, the gradient
    and the last step; the rows come in blocks, and those past 16 000 are sketched too. A radius that collapsed says
    nothing about convergence: before it stops, the search starts again from 1, with sketches three times.

    Args:
        vector: what is optimised, (P,).
        gradient_tolerance: stop when max |gradient| is at most this (in units of the loss).
        function_tolerance: stop when a step lowers the loss by at most this, relative to the loss.

    Raises:
        SettingsError: the parameters are so many that not even sketches fit into memory.

    Sources: E. Webb, A. Jerad, C. Cartis, arXiv:2607.02194 (the acceptance rule; there 24 radii at once and a
    spline, here a search that needs two or three; there the sketched rows give the gradient too, here it is exact);
    M. Transtrum, J. Sethna, arXiv:1201.5885 (geodesic acceleration; there a step with a larger q is refused, here q
    is shortened).
    """

    quasi_newton = False
    by_rows = True

    def __init__(self, vector: torch.nn.Parameter, gradient_tolerance: float, function_tolerance: float):
        self._vector = vector
        self._gradient_tolerance, self._function_tolerance = gradient_tolerance, function_tolerance
        self._radius, self._fine = FIRST_RADIUS, False
        self._seed, self._steps, self._failures = torch.initial_seed() % 2**32, 0, 0
        self._last = vector.new_zeros(0)
        P = len(vector)
        self._block = max(BLOCK // P, 64)
        # A block with what it takes to make it, rows kept until they are more than 1000, squares of the columns.
        n_numbers = P * (3 * self._block + MOST_COLUMNS) + 8 * min(P, MOST_COLUMNS) ** 2
        check_memory(
            f"the sketched Jacobian of {P} parameters",
            n_numbers * vector.element_size(),
            "use a smaller network, or optimizer=soap or lbfgs",
        )

    def restart(self) -> None:
        """Only a collapsed radius is forgotten: it outlives a change of the points else."""
        if self._collapsed():
            self._radius = FIRST_RADIUS

    def step(self, loss: AbstractLoss, learning_rate: float) -> str:
        """See `AbstractOptimizer.step`; the learning rate is not used."""
        start = self._vector.detach().clone()
        region = linearise(loss.row_blocks(self._block), self._fine, [self._seed, self._steps], self._directions(loss))
        self._steps += 1
        if not torch.isfinite(region.gradient).all():
            return "line search"
        if float(region.gradient.abs().max()) * 2.0 <= self._gradient_tolerance:
            return "gradient"
        found = self._search(region, loss, start, self._radius)
        if found is None and self._collapsed():
            found = self._search(region, loss, start, FIRST_RADIUS)
        if found is None:
            self._put(start)
            self._radius, self._failures = FIRST_RADIUS, self._failures + 1
            return "" if region.sketched and self._failures < MOST_FAILURES else "line search"
        self._radius, value, p = found
        self._failures = 0
        self._last = p if len(p) > MOST_COLUMNS else self._last
        self._put(start + p)
        self._fine = region.damping(self._radius) < FINE * region.largest
        return "function" if region.loss - value <= self._function_tolerance * region.loss else ""

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractOptimizer.state_dict`."""
        return {
            "radius": self._radius,
            "fine": self._fine,
            "sketches": [self._seed, self._steps, self._failures],
            "last": self._last,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AbstractOptimizer.load_state_dict`."""
        self._radius, self._fine = state["radius"], state["fine"]
        self._seed, self._steps, self._failures = state["sketches"]
        self._last = state["last"].to(self._vector.device)

    def _search(
        self, region: Linearised, loss: AbstractLoss, start: Tensor, radius: float
    ) -> tuple[float, float, Tensor] | None:
        """The largest radius near this one whose step is worth it, the loss there, the step; None if there is none."""

        def after(radius: float) -> tuple[bool, tuple[float, float, Tensor]]:
            """Whether the loss falls by enough of the prediction."""
            p, predicted = region.step(radius)
            p = p + self._bend(region, loss, start, radius, p)
            self._put(start + p)
            value = loss.value()
            return math.isfinite(value) and region.loss - value >= TARGET * predicted, (radius, value, p)

        radius = min(radius, region.longest)
        enough, found = after(radius)
        if not enough:
            while not enough and radius > MIN_RADIUS:
                radius /= GROWTH
                enough, found = after(radius)
            return found if enough else None
        for _ in range(LARGEST_MOVE):
            radius, last = min(radius * GROWTH, region.longest), radius
            if radius <= last:
                break
            enough, further = after(radius)
            if not enough:
                break
            found = further
        return found

    def _bend(self, region: Linearised, loss: AbstractLoss, start: Tensor, radius: float, p: Tensor) -> Tensor:
        """The correction q of the step p, zero where it cannot be had."""
        if region.rows is None:
            return torch.zeros_like(p)
        r, J = region.rows
        self._put(start + PROBE * p)
        curvature = 2.0 / PROBE * ((loss.residual() - r) / PROBE - J @ p)
        if not torch.isfinite(curvature).all():
            return torch.zeros_like(p)
        q = -0.5 * region.solve(radius, J.T @ curvature)
        return q * min(1.0, MOST_BEND * float(p.norm()) / max(float(q.norm()), 1e-300))

    def _directions(self, loss: AbstractLoss) -> Tensor:
        """The gradient and the last step, (P, 2 or less), if the parameters will be sketched."""
        P = len(self._vector)
        found = [loss().gradient, self._last] if P > MOST_COLUMNS else []
        kept = [d for d in found if len(d) and bool(d.any()) and bool(torch.isfinite(d).all())]
        return torch.stack(kept, dim=1) if kept else self._vector.new_zeros(P, 0)

    def _collapsed(self) -> bool:
        return self._radius < COLLAPSED * float(self._vector.detach().norm())

    def _put(self, values: Tensor) -> None:
        with torch.no_grad():
            self._vector.copy_(values)

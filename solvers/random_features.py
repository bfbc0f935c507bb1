"""One least-squares fit of random features: what a shallow network can do for a linear equation without training."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from pdelab.domain import stream
from pdelab.errors import check_choice, check_range
from pdelab.pde import AbstractProblem, Initial, Periodic, count_equations
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractInstanceSolver, Context, Progress
from pdelab.solvers._bandwidth import choose
from pdelab.solvers._features import Ansatz, FeatureField, Features, Scaling, draw
from pdelab.solvers._linear_rows import Fit, LeastSquares, nonlinear_part

SEARCH = 300
"""Features of the fits that choose the bandwidth; their points are fewer in the same proportion."""
RESOLVED = 0.03
"""Largest relative residual at held-out points that counts as solved."""
MEMORY = 8e9
"""Bytes that the matrix and its copies may take."""
COPIES = 4


@dataclass(frozen=True)
class RandomFeatures(AbstractInstanceSolver):
    """One least-squares fit of random tanh or cosine features to a linear problem, bandwidth found automatically.

        u(x) = sum_k c_k phi_k(x),   phi_k = g(w_k . s + b_k),   w_k ~ N(0, diag(bandwidth^2)),

    s the coordinates scaled to [-1, 1], g = tanh or cos; only c is fitted, to the equations and conditions at Sobol
    points, in float64, by singular values. Along periodic axes phi_k has a factor cos(v_k . s + c_k) with whole
    multiples of pi in v_k, and is exactly periodic.

    The bandwidth decides everything: too small a one cannot bend, too large a one needs more features to fill.
    It is chosen, for each axis, with tanh or cos and (in more than three dimensions) the number of axes that a feature
    depends on, by the residual at points that the fit has not seen: coarse grid, coordinate search with 300 features,
    a common factor with all. That residual, relative to the one of u = 0, is `validity["held_out_residual"]`; above
    0.03 the run ends with `Status.MAX_ITERATIONS`. The error may be larger (transport, waves) or smaller
    (diffusion) than it.

    Smooth solutions are found to 1e-9 and below in seconds. Layers, corner singularities, many wave lengths in two or
    three dimensions are not; coefficients that jump are solved wrongly, and perhaps unnoticed, unless the
    problem says that it is `weak`: the equations are only asked for between the jumps.

    Args:
        n_features: K, for each component; the time grows like K^3, the memory like K^2.
        n_interior: points for the equations; None means 2 K.
        n_boundary: points for the boundary conditions, shared out by measure; None means K/2.
        n_initial: points for each initial condition; None means K/4.
        feature: "tanh", "cos", or "auto" for the better one.
        bandwidth: radians per half axis, > 0, one for all axes or one for each (time last); None searches for it.

    Source: Huang, Zhu & Siew, Neurocomputing 70 (2006) 489-501 (random features and least squares); Dwivedi &
    Srinivasan, Neurocomputing 391 (2020) 96-118 (for differential equations); Hashemi et al., Appl. Comput. Harmon.
    Anal. 62 (2023) 310-330 (few axes for each feature). The search for the bandwidth is ours.
    """

    n_features: int = 1000
    n_interior: int | None = None
    n_boundary: int | None = None
    n_initial: int | None = None
    feature: Literal["auto", "tanh", "cos"] = "auto"
    bandwidth: float | tuple[float, ...] | None = None

    name: ClassVar[str] = "random-features"
    accepts: ClassVar[type] = AbstractProblem

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("n_features", self.n_features, least=1)
        for key in ("n_interior", "n_boundary", "n_initial"):
            if getattr(self, key) is not None:
                check_range(key, getattr(self, key), least=1)
        check_choice("feature", self.feature, ("auto", "tanh", "cos"))
        for value in self.bandwidth if isinstance(self.bandwidth, tuple) else (self.bandwidth,):
            if value is not None:
                check_range("bandwidth", value, above=0.0)

    def refuses(self, problem: AbstractProblem) -> str:
        """Inverse and nonlinear problems, a bandwidth for other axes, and what does not fit into the memory."""
        if problem.unknowns:
            return f"it has unknown coefficients ({', '.join(problem.unknowns)}); use pinn"
        part = nonlinear_part(problem, seed=52361)
        if part:
            return f"its {part} is not linear, and one least-squares fit needs that; use pinn, or a classical solver"
        d = len(problem.axes)
        if isinstance(self.bandwidth, tuple) and len(self.bandwidth) != d:
            return f"bandwidth = {self.bandwidth} does not give one number for each of its {d} axes"
        interior, boundary, initial = self._points(1.0)
        starts = sum(isinstance(c, Initial) for c in problem.conditions())
        others = sum(not isinstance(c, Initial | Periodic) for c in problem.conditions())
        rows = interior * count_equations(problem) + boundary * others + initial * starts
        needed = 8.0 * COPIES * rows * self.n_features * len(problem.components)
        if needed > MEMORY:
            return f"up to {rows} rows take {needed / 1e9:.0f} GB, the limit is {MEMORY / 1e9:.0f}; lower n_features"
        return ""

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """Choose the distribution of the features, fit, and judge the fit at new points; seconds end the search."""
        began, seconds = context.clock.seconds, context.budget.seconds
        scaling = Scaling.of(problem)
        share = min(1.0, SEARCH / self.n_features)
        held_out = self._rows(problem, scaling, share, [context.seed, 0])
        full = self._rows(problem, scaling, 1.0, [context.seed, 1])
        few = self._rows(problem, scaling, share, [context.seed, 2])
        tried = itertools.count(1)

        def attempt(rows: LeastSquares, n: int, ansatz: Ansatz) -> tuple[float, Features, Fit]:
            features = draw(ansatz, scaling, n, stream(context.seed, 3))
            fit = rows.fit(features)
            misfit = held_out.misfit(features, fit)
            context.report(Progress(next(tried), None, {"held_out_residual": misfit}))
            return misfit, features, fit

        coarse = functools.cache(functools.partial(attempt, few, math.ceil(share * self.n_features)))
        fine = functools.cache(functools.partial(attempt, full, self.n_features))

        def timed(find: Callable[[Ansatz], tuple[float, Features, Fit]]) -> Callable[[Ansatz], float]:
            # Half of the budget is kept for the last fit.
            return lambda a: math.inf if seconds and context.clock.seconds - began > 0.5 * seconds else find(a)[0]

        ansatz = self._choose(problem, timed(coarse), timed(fine))
        misfit, features, fit = fine(ansatz)
        columns = torch.as_tensor(fit.coefficients).reshape(len(problem.components), -1).T.contiguous()
        widths = ", ".join(f"{axis} {b:.3g}" for axis, b in zip(problem.axes, ansatz.bandwidth, strict=True))
        status, advice = Status.CONVERGED, ""
        if not misfit <= RESOLVED:
            status, advice = Status.MAX_ITERATIONS, "; raise n_features, or use another solver"
        return Solution(
            problem,
            FeatureField(features, columns),
            status,
            f"relative residual {misfit:.2g} at new points; {ansatz.kind} features, bandwidth {widths}{advice}",
            stats={
                "dofs": float(columns.numel()),
                "rows": float(len(full)),
                "rank": float(fit.rank),
                "condition": fit.condition,
                "coupling": float(ansatz.coupling),
                "fits": float(next(tried) - 1),
                **{f"bandwidth_{a}": b for a, b in zip(problem.axes, ansatz.bandwidth, strict=True)},
                "solve_s": context.clock.seconds - began,
            },
            validity={"held_out_residual": misfit},
        )

    def _choose(
        self, problem: AbstractProblem, coarse: Callable[[Ansatz], float], fine: Callable[[Ansatz], float]
    ) -> Ansatz:
        """What to draw the features from."""
        d = len(problem.axes)
        kinds = ("cos", "tanh") if self.feature == "auto" else (self.feature,)
        couplings = (d,) if d <= 3 else (2, d)
        if self.bandwidth is None:
            return choose(coarse, fine, d, kinds, couplings)
        given = self.bandwidth if isinstance(self.bandwidth, tuple) else (self.bandwidth,) * d
        return min((Ansatz(k, c, given) for k in kinds for c in couplings), key=coarse)

    def _points(self, share: float) -> tuple[int, int, int]:
        """Numbers of interior, boundary and initial points; a share of them."""
        k = self.n_features
        wanted = (self.n_interior or 2 * k, self.n_boundary or k / 2, self.n_initial or k / 4)
        interior, boundary, initial = (math.ceil(share * n) for n in wanted)
        return interior, boundary, initial

    def _rows(self, problem: AbstractProblem, scaling: Scaling, share: float, seed: list[int]) -> LeastSquares:
        return LeastSquares(problem, scaling, *self._points(share), seed)

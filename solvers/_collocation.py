"""The loss of a field on collocation points: residuals of the equations and of the conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdelab import sampling
from pdelab.calculus import Field, jet
from pdelab.errors import SettingsError
from pdelab.objective import AbstractLeastSquares
from pdelab.pde import AbstractProblem, Condition, Dirichlet, Initial, Neumann, Observations, Periodic, equations

CAUSAL_CHUNKS = 32
CAUSAL_HOLD = 100
_POOL = 4


@dataclass(frozen=True)
class Points:
    """How many points are drawn, how, and how often.

    Attributes:
        interior, boundary, initial: numbers of points; boundary points are shared out by measure.
        sampler: "sobol", "lhs", "uniform", or "adaptive" (interior points where the residual is large).
        every: steps between draws; 0 draws once.
    """

    interior: int
    boundary: int
    initial: int
    sampler: str
    every: int


class Collocation(AbstractLeastSquares):
    """Mean squares of "residual" (or "residual_0", ...), "initial", "dirichlet", "neumann", "periodic", "data".

    The points of draw k are a function of (seed, k), and for the adaptive sampler of the field at that time:
    candidates x are drawn with probability proportional to 1 + |r(x)|/mean |r|.

    Args:
        problem: equations, domain and time.
        conditions: those that the field does not meet by itself.
        field: what is trained.
        unknowns: coefficients that are trained with it.
        points: numbers of points.
        causality: epsilon of the causal weights exp(-epsilon sum of the losses of earlier times), 32 equal
            parts in time; 0 weighs all alike.
        seed: of all draws.
        like: a tensor with the dtype and device to work with.

    Sources: C. Wu et al., Comput. Methods Appl. Mech. Eng. 403 (2023) 115671, eq. 2 (adaptive sampling);
    S. Wang, S. Sankaran, P. Perdikaris, Comput. Methods Appl. Mech. Eng. 421 (2024) 116813 (causal weights).
    """

    def __init__(
        self,
        problem: AbstractProblem,
        conditions: Sequence[Condition],
        field: Field,
        unknowns: Mapping[str, Tensor],
        points: Points,
        causality: float,
        seed: int,
        like: Tensor,
    ):
        self._problem, self._conditions, self._field, self._unknowns = problem, tuple(conditions), field, unknowns
        self._points, self._causality, self._seed = points, causality, seed
        self._kind = {"dtype": like.dtype, "device": like.device}
        self._draw = -1
        self._interior = torch.empty(0)
        self._sets: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._chunk_losses = torch.zeros(CAUSAL_CHUNKS, **self._kind)
        self._causal = torch.ones(CAUSAL_CHUNKS, **self._kind)
        for condition in conditions:
            if not isinstance(condition, Dirichlet | Neumann | Initial | Periodic | Observations):
                raise SettingsError(f"condition {condition!r} is of no known kind")

    def refresh(self, step: int, quasi_newton: bool) -> bool:
        """See `AbstractObjective.refresh`; causal weights follow every step, or every 100 for quasi-Newton."""
        draw = step // self._points.every if self._points.every else 0
        changed = draw != self._draw
        if changed:
            self._draw = draw
            self._interior = self._place(draw)
            self._sets = self._place_conditions(draw)
        if self._causality and step and (not quasi_newton or step % CAUSAL_HOLD == 0):
            earlier = self._chunk_losses.cumsum(0) - self._chunk_losses
            self._causal = torch.exp(-self._causality * earlier)
            changed = True
        return changed

    def residuals(self) -> dict[str, Tensor]:
        """See `AbstractLeastSquares.residuals`."""
        found = self._equations()
        parts: dict[str, list[Tensor]] = {}
        jets: dict[str, Any] = {}
        for condition in self._conditions:
            if isinstance(condition, Periodic):
                parts.setdefault("periodic", []).extend(self._periodic(condition))
                continue
            name = _set_name(condition)
            points, normals = self._sets[name]
            if name not in jets:
                jets[name] = self._jet(points)
            parts.setdefault(_KINDS[type(condition)], []).append(condition.residual(jets[name], normals))
        return found | {kind: torch.cat(residuals) for kind, residuals in parts.items()}

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractObjective.state_dict`."""
        return {
            "draw": self._draw,
            "interior": self._interior,
            "chunk_losses": self._chunk_losses,
            "causal": self._causal,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `AbstractObjective.load_state_dict`; the points of the conditions are drawn again."""
        self._draw = state["draw"]
        self._interior = state["interior"].to(**self._kind)
        self._chunk_losses = state["chunk_losses"].to(**self._kind)
        self._causal = state["causal"].to(**self._kind)
        self._sets = self._place_conditions(self._draw)

    def _equations(self) -> dict[str, Tensor]:
        f = self._jet(self._interior)
        residuals = [r.expand(len(f)) for r in equations(self._problem.residual(f))]
        if self._causality:
            chunks = [r.reshape(CAUSAL_CHUNKS, -1) for r in residuals]
            self._chunk_losses = torch.stack([c.detach().square().mean(dim=1) for c in chunks]).sum(dim=0)
            residuals = [(self._causal.sqrt()[:, None] * c).reshape(-1) for c in chunks]
        if len(residuals) == 1:
            return {"residual": residuals[0]}
        return {f"residual_{i}": r for i, r in enumerate(residuals)}

    def _periodic(self, condition: Periodic) -> list[Tensor]:
        low, high = (self._jet(self._sets[f"{condition.axis} {end}"][0]) for end in ("low", "high"))
        both = [
            [f.derivative(c, *[condition.axis] * k) for c in self._problem.components for k in range(condition.order)]
            for f in (low, high)
        ]
        return [a - b for a, b in zip(*both, strict=True)]

    def _jet(self, points: Tensor) -> Any:
        return jet(self._field, points, self._problem.components, self._problem.axes, self._unknowns)

    def _place(self, draw: int) -> Tensor:
        """Interior points, sorted in time if the causal weights need it."""
        n, method = self._points.interior, self._points.sampler
        if self._causality:
            n = CAUSAL_CHUNKS * max(1, n // CAUSAL_CHUNKS)
        seed = [self._seed, draw, 0]
        if method == "adaptive":
            points = sampling.interior(self._problem, n * (_POOL if draw else 1), seed)
            if draw:
                points = self._chosen(points, n, seed)
        else:
            points = sampling.interior(self._problem, n, seed, method)
        if self._causality:
            points = points[np.argsort(points[:, -1], kind="stable")]
        return torch.as_tensor(points, **self._kind)

    def _chosen(self, pool: np.ndarray, n: int, seed: list[int]) -> np.ndarray:
        sizes = []
        for part in torch.as_tensor(pool, **self._kind).split(max(1024, n)):
            f = self._jet(part)
            sizes.append(torch.stack([r.detach().expand(len(f)).abs() for r in equations(self._problem.residual(f))]))
        size = torch.cat(sizes, dim=1).sum(dim=0).cpu().double().numpy()
        chance = 1.0 + size / max(size.mean(), np.finfo(float).tiny)
        chance = np.nan_to_num(chance, nan=1.0, posinf=1.0)
        return pool[np.random.default_rng(seed).choice(len(pool), n, replace=False, p=chance / chance.sum())]

    def _place_conditions(self, draw: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Points, and normals where there are any, of every group of conditions."""
        problem, sizes = self._problem, self._points
        method = "sobol" if sizes.sampler == "adaptive" else sizes.sampler
        total = problem.domain.boundary_measure()
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for number, condition in enumerate(self._conditions):
            seed = [self._seed, draw, 1 + number]
            if isinstance(condition, Periodic):
                i = problem.domain.axes.index(condition.axis)
                low = sampling.boundary(problem, sizes.boundary, seed, problem.domain.parts[2 * i], method).points
                high = low.copy()
                high[:, i] = problem.domain.bounds[1][i]
                found[f"{condition.axis} low"] = self._tensor(low), None
                found[f"{condition.axis} high"] = self._tensor(high), None
                continue
            name = _set_name(condition)
            if name in found:
                continue
            if isinstance(condition, Initial):
                found[name] = self._tensor(sampling.initial(problem, sizes.initial, seed, method)), None
            elif isinstance(condition, Observations):
                found[name] = self._tensor(condition.points), None
            else:
                share = problem.domain.boundary_measure(condition.part) / total
                count = max(16, round(sizes.boundary * share)) if len(problem.axes) > 1 else 1
                sample = sampling.boundary(problem, count, seed, condition.part, method)
                found[name] = self._tensor(sample.points), self._tensor(sample.normals)
        return found

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, **self._kind)


_KINDS = {Dirichlet: "dirichlet", Neumann: "neumann", Initial: "initial", Observations: "data"}


def _set_name(condition: Condition) -> str:
    """Conditions of the same name share their points."""
    if isinstance(condition, Initial):
        return "first time"
    if isinstance(condition, Observations):
        return f"data {id(condition)}"
    assert isinstance(condition, Dirichlet | Neumann)
    return f"part {condition.part}"

"""The loss of a field on sample points: residuals of the equations and of the conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdelab import sampling
from pdelab.calculus import AbstractJet, Field, Jet, Recorder, Sites, jet
from pdelab.conditions import PlacedCondition, place
from pdelab.domain import stream
from pdelab.objective import AbstractRowWise
from pdelab.pde import (
    AbstractProblem,
    Condition,
    Dirichlet,
    Initial,
    Neumann,
    Observations,
    Periodic,
    count_equations,
    derivatives_wanted,
    equations,
)
from pdelab.rows import Residual, Rows
from pdelab.solvers._admission import check_residual, check_smooth
from pdelab.solvers._hard import ConstrainedField
from pdelab.taylor import recorded

CAUSAL_PARTS = 32
CAUSAL_HOLD = 100
CANDIDATES = 4
KINDS = {Initial: "initial", Dirichlet: "dirichlet", Neumann: "neumann", Periodic: "periodic", Observations: "data"}
"""Condition -> name of its loss term."""
_Compute = Callable[[AbstractJet], list[tuple[str, Tensor]]]
"""Field at points -> residuals by name."""


@dataclass(frozen=True)
class Points:
    """How many points are drawn, how, and how often.

    Attributes:
        interior, boundary, initial: numbers of points; boundary points are shared out by measure.
        sampler: one of `pdelab.domain.SAMPLERS`, or "adaptive": interior points where the residual is large.
        every: steps between draws; 0 draws once.
    """

    interior: int
    boundary: int
    initial: int
    sampler: str
    every: int


class ResidualLoss(AbstractRowWise):
    """Mean squares of "residual" (or "residual_0", ...), "initial", "dirichlet", "neumann", "periodic", "data".

    The points of draw k are a function of (seed, k), and for the adaptive sampler of the field at that time.

    Args:
        problem: equations, conditions, domain and time.
        wanted: whether a condition belongs to the loss; False where the field meets it by itself.
        field: what is trained.
        unknowns: coefficients that are trained with it.
        points: numbers of points.
        causality: epsilon of the causal weights exp(-epsilon * sum of the losses at earlier times), for 32
            parts of equally many points in time; 0 weighs all alike.
        seed: of all draws.
        like: a tensor with the dtype and device to work with.

    Source: S. Wang, S. Sankaran, P. Perdikaris, Comput. Methods Appl. Mech. Eng. 421 (2024) 116813 (causality).
    """

    def __init__(
        self,
        problem: AbstractProblem,
        wanted: Callable[[Condition], bool],
        field: Field,
        unknowns: Mapping[str, Tensor],
        points: Points,
        causality: float,
        seed: int,
        like: Tensor,
    ):
        self._problem, self._wanted, self._field, self._unknowns = problem, wanted, field, unknowns
        self._points, self._causality, self._seed = points, causality, seed
        self._dtype, self._device = like.dtype, like.device
        self._draw = -1
        self._needs = derivatives_wanted(problem)
        self._interior = self._sites(np.empty((0, len(problem.axes))))
        self._groups: list[tuple[Sites, list[PlacedCondition]]] = []
        self._admitted = False
        self._known: dict[int, tuple[int, ...]] = {}
        self._part_losses = self._tensor(np.zeros(CAUSAL_PARTS))
        self._causal = torch.ones_like(self._part_losses)

    def refresh(self, step: int, quasi_newton: bool) -> bool:
        """See `AbstractObjective.refresh`; causal weights follow each step, or each 100th of a quasi-Newton method."""
        draw = step // self._points.every if self._points.every else 0
        changed = draw != self._draw
        if changed:
            self._draw = draw
            self._interior = self._sites(self._place_interior())
            self._groups = self._place_conditions()
        if self._causality and step and (not quasi_newton or step % CAUSAL_HOLD == 0):
            earlier = self._part_losses.cumsum(0) - self._part_losses
            self._causal = torch.exp(-self._causality * earlier)
            changed = True
        return changed

    def residuals(self) -> dict[str, Tensor]:
        """See `AbstractLeastSquares.residuals`; the first ones are checked."""
        if not self._admitted:
            self._admit()
            self._admitted = True
        parts: dict[str, list[Tensor]] = {}
        for points, placed in self._groups:
            f = self._jet(self._field, points, self._unknowns)
            for p in placed:
                parts.setdefault(KINDS[type(p.condition)], []).append(p.residual(f))
        f = self._jet(self._field, self._interior, self._unknowns)
        return dict(self._equations(f)) | {kind: torch.cat(residuals) for kind, residuals in parts.items()}

    def _admit(self) -> None:
        """Refuse what cannot be trained on, before the first step."""
        with torch.no_grad():
            for sites, placed in self._groups:
                f = self._jet(self._field, sites, self._unknowns)
                for p in placed:
                    half = 2 if isinstance(p.condition, Periodic) else 1
                    check_residual(f"condition {p.name!r}", p.residual(f), f, len(f) // half)
            f = self._jet(self._field, self._interior, self._unknowns)
            residuals = equations(self._problem.residual(f))
            for name, r in zip(_names(len(residuals)), residuals, strict=True):
                check_residual(f"equation {name!r}", r, f, len(f))
        if isinstance(f, Jet):
            # Lift and factor may have kinks far from the boundary, for which nobody is to blame.
            plain = self._field.network if isinstance(self._field, ConstrainedField) else self._field
            check_smooth(plain, self._needs, self._problem.components, self._problem.axes, f.points.detach())

    def lengths(self) -> dict[str, int]:
        """See `AbstractRowWise.lengths`."""
        n = len(self._interior.points)
        lengths = dict.fromkeys(_names(count_equations(self._problem)), n)
        for sites, placed in self._groups:
            recorder = self._recorder(sites.points)
            for p in placed:
                kind = KINDS[type(p.condition)]
                lengths[kind] = lengths.get(kind, 0) + len(p.residual(recorder))
        return lengths

    def row_blocks(
        self, parameters: Sequence[Tensor], scales: Mapping[str, float], most: int, out: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `AbstractRowWise.row_blocks`."""
        rows = Rows(parameters, most, out, self._known)
        for sites, compute in self._computed():
            copies = self._copies(sites)
            scalars = {id(self._unknowns[key]): copy for key, copy in copies.items()}
            with recorded() as maps:
                found = compute(self._jet(self._field, sites, copies))
            for i, (name, r) in enumerate(found):

                def again(field: Field, i: int = i, sites: Sites = sites, compute: _Compute = compute) -> Tensor:
                    with recorded():  # in the same mode
                        return compute(self._jet(field, sites, self._unknowns))[i][1]

                yield from rows.blocks(Residual(name, r, maps, scalars, self._field, again), scales[name])

    def stacked(self, scales: Mapping[str, float]) -> Tensor:
        """See `AbstractRowWise.stacked`."""
        found = (compute(self._jet(self._field, sites, self._unknowns)) for sites, compute in self._computed())
        return torch.cat([scales[name] * r for group in found for name, r in group])

    def _computed(self) -> list[tuple[Sites, _Compute]]:
        """Points, and what is computed at them, in the order of the rows."""
        return [(self._interior, self._equations), *((sites, _conditions(placed)) for sites, placed in self._groups)]

    def _copies(self, sites: Sites) -> dict[str, Tensor]:
        """The unknown coefficients once for each point, so that their rows can be told apart."""
        n = len(sites.points)
        return {name: u.detach().expand(n).clone().requires_grad_(True) for name, u in self._unknowns.items()}

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractObjective.state_dict`."""
        return {
            "draw": self._draw,
            "interior": self._interior.points,
            "part_losses": self._part_losses,
            "causal": self._causal,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `AbstractObjective.load_state_dict`; the points of the conditions are drawn again."""
        self._draw = state["draw"]
        self._interior = Sites(state["interior"].to(self._device), self._needs)
        self._part_losses = state["part_losses"].to(self._device)
        self._causal = state["causal"].to(self._device)
        self._groups = self._place_conditions()

    def _equations(self, f: AbstractJet) -> list[tuple[str, Tensor]]:
        residuals = [r.expand(len(f)) for r in equations(self._problem.residual(f))]
        if self._causality:
            parts = [r.reshape(CAUSAL_PARTS, -1) for r in residuals]
            self._part_losses = torch.stack([p.detach().square().mean(dim=1) for p in parts]).sum(dim=0)
            residuals = [(self._causal.sqrt()[:, None] * p).reshape(-1) for p in parts]
        return list(zip(_names(len(residuals)), residuals, strict=True))

    def _jet(self, field: Field, points: Sites, unknowns: Mapping[str, Tensor]) -> AbstractJet:
        return jet(field, points, self._problem.components, self._problem.axes, unknowns)

    def _sites(self, points: np.ndarray) -> Sites:
        return Sites(self._tensor(points), self._needs)

    def _place_interior(self) -> np.ndarray:
        """Points of this draw, (n, d); sorted in time, in 32 equal parts, if there are causal weights."""
        n, method = self._points.interior, self._points.sampler
        seed = stream(self._seed, self._draw, 0)
        if self._causality:
            n = CAUSAL_PARTS * (n // CAUSAL_PARTS)
        if method == "adaptive" and self._draw:
            points = sampling.adaptive(self._problem, self._sizes, n, seed, candidates=CANDIDATES * n)
        else:
            # An untrained field says nothing about where points are needed.
            points = sampling.interior(self._problem, n, seed, "sobol" if method == "adaptive" else method)
        return points[np.argsort(points[:, -1], kind="stable")] if self._causality else points

    def sizes(self, n: int) -> tuple[Tensor, Tensor]:
        """Points spread evenly, (n, d), and the norm of the residuals there, (n,); the same ones in each call."""
        points = sampling.interior(self._problem, n, stream(self._seed, 0, 2), "sobol")
        return self._tensor(points), self._tensor(np.linalg.norm(self._sizes(points), axis=1))

    def _sizes(self, points: np.ndarray) -> np.ndarray:
        """Residuals at candidates, (N, equations); what is not finite is left to the loss to report."""
        found = []
        with torch.no_grad():
            for part in self._tensor(points).split(1024):
                f = self._jet(self._field, Sites(part, self._needs), self._unknowns)
                found.append(torch.stack([r.detach().expand(len(f)) for r in equations(self._problem.residual(f))], 1))
        return np.nan_to_num(torch.cat(found).cpu().double().numpy())

    def _place_conditions(self) -> list[tuple[Sites, list[PlacedCondition]]]:
        """Conditions of this draw in groups that stand at the same points, so that each needs one jet."""
        size = self._points
        method = "sobol" if size.sampler == "adaptive" else size.sampler
        groups: dict[bytes, list[PlacedCondition]] = {}
        for p in place(self._problem, size.boundary, size.initial, stream(self._seed, self._draw, 1), method):
            if self._wanted(p.condition):
                groups.setdefault(p.points.tobytes(), []).append(p)
        return [(self._sites_for(placed), placed) for placed in groups.values()]

    def _sites_for(self, placed: Sequence[PlacedCondition]) -> Sites:
        """The points of conditions, with the derivatives that these ask for."""
        points = self._tensor(placed[0].points)
        recorder = self._recorder(points)
        for p in placed:
            p.residual(recorder)
        return Sites(points, recorder.wanted)

    def _recorder(self, points: Tensor) -> Recorder:
        return Recorder(points, self._problem.components, self._problem.axes, self._unknowns)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=self._dtype, device=self._device)


def _names(n: int) -> list[str]:
    """Of the residuals of n equations."""
    return ["residual"] if n == 1 else [f"residual_{i}" for i in range(n)]


def _conditions(placed: Sequence[PlacedCondition]) -> _Compute:
    """The residuals of conditions at the same points, by name, each with at most one row for a point."""

    def compute(f: AbstractJet) -> list[tuple[str, Tensor]]:
        found = []
        for p in placed:
            r = p.residual(f)
            # Each part of a periodic condition compares one half of the points with the other.
            pieces = r.split(len(f) // 2) if isinstance(p.condition, Periodic) else [r]
            found += [(KINDS[type(p.condition)], piece) for piece in pieces]
        return found

    return compute

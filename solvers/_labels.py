"""A transport problem told in the frame of labels that move with the flow, and its field seen from outside again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdelab import sampling
from pdelab.calculus import AbstractJet, Sites, Wanted, jet
from pdelab.domain import AbstractDomain, Box
from pdelab.pde import AbstractProblem, Condition, Dirichlet, Initial, equations
from pdelab.solvers._hard import ConstrainedField
from pdelab.solvers._pull_back import LabelDiffusion, PulledBack, displacements, inverted, sum_of, velocity
from pdelab.solvers._transport import SAMPLES, SEED, periodic_axes, start_field
from pdelab.taylor import Series

_NEWTON_STEPS, _CLOSE = 60, 1e-13
_BRACKET = 1.05
_TIMES = 32
_ORDER = 2
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Frame:
    """The motion that is taken out of the displacements.

    Attributes:
        drift: mean of the velocity at the first and the last time along periodic axes, 0 along others, (d,),
            length/time.
        speed: largest difference of the velocity from it at five times, at least 1e-3 of the domain's diameter per time
            interval.
    """

    drift: Tensor
    speed: float


def frame_of(problem: AbstractProblem) -> Frame:
    """Mean and spread of the velocity of the initial values, as if they stayed; it may depend on time by itself."""
    at = torch.as_tensor(sampling.initial(problem, SAMPLES, SEED))
    assert problem.time is not None, "labels move in time"
    t0, t1 = problem.time
    late = [torch.cat([at[:, :-1], torch.full_like(at[:, -1:], t0 + share * (t1 - t0))], dim=1) for share in _SHARES]
    f = jet(start_field(problem), torch.cat(late), problem.components, problem.axes)
    v = torch.stack([part.detach() for part in velocity(problem, f)], dim=1).reshape(len(_SHARES), len(at), -1)
    closed = torch.tensor([axis in periodic_axes(problem) for axis in problem.domain.axes])
    drift = torch.where(closed, 0.5 * (v[0].mean(dim=0) + v[-1].mean(dim=0)), 0.0)
    lower, upper = problem.domain.bounds
    least = 1e-3 * float((upper - lower).max()) / (t1 - t0)
    return Frame(drift, max(float((v - drift).norm(dim=2).max()), least))


class LabelProblem(AbstractProblem):
    """A problem in labels: unknown are its components and the displacements of the labels.

        equations of the problem, pulled back;   sqrt(follow) (dx/dt - v) / speed;   10 max(0, floor - det F)

    Args:
        problem: of which `obstacle` finds none.
        frame: its drift and speed.
        box: where labels start; labels from outside the problem's domain bring its boundary values along.
        diffusion: "exact", or "label" as published.
        follow: how much labels are to follow the velocity; the equations hold for any map.
        floor: of det F, below which cells of labels count as too flat.
    """

    def __init__(self, problem: AbstractProblem, frame: Frame, box: Box, diffusion: str, follow: float, floor: float):
        # Class attributes of a problem; this one takes them from its instance.
        vars(self).update({"name": problem.name, "components": problem.components + displacements(problem)})
        self._problem, self._frame, self._box, self._diffusion = problem, frame, box, diffusion
        self._follow, self._floor = follow, floor

    @property
    def domain(self) -> AbstractDomain:
        """Labels are places at the first time."""
        return self._box

    @property
    def time(self) -> tuple[float, float] | None:
        """That of the problem."""
        return self._problem.time

    def seen(self, f: AbstractJet) -> PulledBack:
        """The components at the places of the labels."""
        return (LabelDiffusion if self._diffusion == "label" else PulledBack)(f, self._problem, self._frame.drift)

    def residual(self, f: AbstractJet) -> tuple[Tensor, ...]:
        """The equations, then how far labels leave the flow along each axis, then how flat their cells are."""
        g = PulledBack(f, self._problem, self._frame.drift)
        weight = math.sqrt(self._follow) / self._frame.speed
        strays = [weight * (rate - v) for rate, v in zip(g.rates, velocity(self._problem, g), strict=True)]
        found = [*equations(self._problem.residual(self.seen(f))), *strays]
        return (*found, 10.0 * torch.relu(self._floor - g.determinant)) if self._floor > 0.0 else tuple(found)

    def conditions(self) -> tuple[Condition, ...]:
        """Those of the problem; no displacement at first, nor at walls; none at a boundary that labels cross."""
        own = self._problem.conditions()
        if self._box != self._problem.domain:
            own = tuple(c for c in own if not isinstance(c, Dirichlet))
        rest: list[Condition] = [Initial(d, 0.0) for d in displacements(self._problem)]
        if any(isinstance(c, Dirichlet) for c in own):
            rest += [Dirichlet(d, 0.0) for d in displacements(self._problem)]
        return *own, *rest


class Branches(nn.Module):
    """Two networks of the same inputs side by side: the components, and the displacements times a length."""

    def __init__(self, components: nn.Module, displacements: nn.Module, length: float):
        super().__init__()
        self.components, self.displacements, self._length = components, displacements, length

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, m + d)."""
        return torch.cat([self.components(x), self._length * self.displacements(x)], dim=1)


class EulerianField(nn.Module):
    """What labels carry, at places: the label that is at x at time t is found by Newton's method.

        s <- s - F^-1 (s + drift (t - t0) + D(s, t) - x)

    Differentiable in places and times, twice: two such steps, in whatever arithmetic the points bring along, give the
    first and second derivatives of a label that has been found.

    Args:
        labels: (n, d) -> (n, m + d), components and displacements.
        problem: the problem in labels.
        original: the problem.
        frame: its drift.
    """

    def __init__(self, labels: ConstrainedField, problem: LabelProblem, original: AbstractProblem, frame: Frame):
        super().__init__()
        self.labels = labels
        self._problem, self._original, self._frame = problem, original, frame
        self._closed = periodic_axes(original)
        space, d = tuple(range(len(original.domain.axes))), len(original.axes)
        first = frozenset(tuple(int(i == j) for i in range(d)) for j in space)
        self._first = Wanted(first, False, space, d)
        m = len(original.components)
        self._carried, self._moved = slice(0, m), slice(m, None)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        x = x.to(next(self.labels.parameters()).dtype)
        s = self.label(_value(x))
        if isinstance(x, Series) or (x.requires_grad and torch.is_grad_enabled()):
            s = self._smooth(s, x)
        return self.labels(self._wrapped(s), self._carried)

    def label(self, x: Tensor) -> Tensor:
        """The labels of places and times, both (n, d)."""
        if not len(x):
            return x
        return self._bracketed(x) if x.shape[1] == 2 else self._followed(x)

    def carried(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of labels and times (n, d): the places, (n, space axes), the components there, (n, m), and det F, (n,)."""
        moved, F = self._moved_to(s)
        with torch.no_grad():
            values = self.labels(self._wrapped(s), self._carried)
        return s[:, :-1] + self._drifted(s) + moved, values, inverted(F)[0]

    def determinant(self, s: Tensor) -> Tensor:
        """det F at labels and times (n, d), (n,)."""
        return inverted(self._moved_to(s)[1])[0]

    def miss(self, x: Tensor) -> float:
        """How far from places (n, d) their labels end up, at most; length."""
        return float(self._gap(self.label(x), x)[0].abs().max())

    def _bracketed(self, x: Tensor) -> Tensor:
        """One space axis: Newton's method, and bisection where it leaves what the label must lie between."""
        t = x[:, -1:]
        reach, home = self._reach(t), x[:, 0] - self._drifted(x)[:, 0]
        low, high, s = home - reach, home + reach, home.clone()
        close = _CLOSE * (1.0 + float(x[:, 0].abs().max()))
        open_ = torch.arange(len(x), device=x.device)
        for _ in range(_NEWTON_STEPS):
            now = s[open_]
            gaps, F = self._gap(torch.cat([now[:, None], t[open_]], dim=1), x[open_])
            gap, slope = gaps[:, 0], F[0][0]
            below = torch.where(gap <= 0.0, now, low[open_])
            above = torch.where(gap >= 0.0, now, high[open_])
            newton = now - gap / slope
            # Of a label that has been found the last digits may leave the bracket.
            found = (newton - now).abs() <= close
            inside = (newton > below) & (newton < above) | found
            following = torch.where(inside & (slope > 0.0), newton, 0.5 * (below + above))
            s[open_], low[open_], high[open_] = following, below, above
            open_ = open_[(following - now).abs() > close]
            if not len(open_):
                break
        return torch.cat([s[:, None], t], dim=1)

    def _followed(self, x: Tensor) -> Tensor:
        """Several: from the first time, where label and place are the same, by two Newton steps at each of 32 times."""
        assert self._original.time is not None, "labels move in time"
        t0 = self._original.time[0]
        s = x[:, :-1]
        for share in [*(k / _TIMES for k in range(1, _TIMES)), *[1.0] * 4]:
            now = torch.cat([x[:, :-1], t0 + share * (x[:, -1:] - t0)], dim=1)
            for _ in range(2):
                gaps, F = self._gap(torch.cat([s, now[:, -1:]], dim=1), now)
                _, inverse = inverted(F)
                rows = [sum_of([a * gaps[:, k] for k, a in enumerate(row)]) for row in inverse]
                s = s - torch.stack(rows, dim=1)
        return torch.cat([s, x[:, -1:]], dim=1)

    def _smooth(self, s: Tensor, x: Tensor) -> Tensor:
        """Labels that have been found, (n, d), as functions of places and times."""
        _, inverse = inverted(self._gap(s, _value(x))[1])
        places, t = x[:, :-1], x[:, -1:]
        found = 0.0 * places + s[:, :-1]
        for _ in range(_ORDER):
            now = torch.cat([found, t], dim=1)
            gap = found + self._drifted(x) + self.labels(self._wrapped(now), self._moved) - places
            steps = [sum_of([gap[:, k] * a for k, a in enumerate(row)]) for row in inverse]
            found = found - torch.stack(steps, dim=1)
        return torch.cat([found, t], dim=1)

    def _wrapped(self, s: Tensor) -> Tensor:
        """Labels (n, d) within the domain along periodic axes: networks were trained there and need not be periodic."""
        value = _value(s)
        shift = torch.zeros_like(value)
        lower, upper = self._original.domain.bounds
        for i, axis in enumerate(self._original.domain.axes):
            if axis in self._closed:
                a, length = float(lower[i]), float(upper[i] - lower[i])
                shift[:, i] = a + torch.remainder(value[:, i] - a, length) - value[:, i]
        return s + shift

    def _drifted(self, x: Tensor) -> Tensor:
        """The drift since the first time, (n, space axes)."""
        assert self._original.time is not None, "labels move in time"
        return self._frame.drift.to(x.device, x.dtype) * (x[:, -1:] - self._original.time[0])

    def _gap(self, s: Tensor, x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """How far the labels s are from the places x, both (n, d), and F there."""
        moved, F = self._moved_to(s)
        return s[:, :-1] + self._drifted(s) + moved - x[:, :-1], F

    def _moved_to(self, s: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """The displacements of labels s (n, d), and F there."""
        with torch.no_grad():
            names, axes = displacements(self._original), self._original.domain.axes
            f = jet(self._displacements, Sites(self._wrapped(s), self._first), names, self._problem.axes)
            moved = torch.stack([f.derivative(name) for name in names], dim=1)
            return moved, [
                [float(i == j) + f.derivative(a, b) for j, b in enumerate(axes)] for i, a in enumerate(names)
            ]

    def _displacements(self, x: Tensor) -> Tensor:
        """D at labels and times, (n, d) -> (n, space axes)."""
        return self.labels(x, self._moved)

    def _reach(self, t: Tensor) -> Tensor:
        """How far labels have come from home at most, (n,), from a grid of labels."""
        lower, upper = (float(b[0]) for b in self._original.domain.bounds)
        assert self._original.time is not None, "labels move in time"
        s = torch.linspace(lower, upper, 257, dtype=t.dtype, device=t.device)
        times = torch.linspace(*self._original.time, 65, dtype=t.dtype, device=t.device)
        grid = torch.cartesian_prod(s, times)
        with torch.no_grad():
            found = self._displacements(grid)[:, 0].abs().reshape(len(s), len(times))
        return torch.full_like(t[:, 0], _BRACKET * float(found.max()) + 1e-3 * (upper - lower))


def _value(x: Tensor) -> Tensor:
    """Points without what they bring along for differentiation."""
    return x.value if isinstance(x, Series) else x.detach()

"""Hard constraints: fields that meet Dirichlet and initial conditions whatever the network says.

    u(x, t) = lift(x, t) + factor(x, t) N(x, t)

The lift has the prescribed values, the factor is zero where they are prescribed.

On a box the lift is the transfinite interpolation of the data on all constrained faces, the first time being
one more face, and the factor a product of polynomials. It costs 3^k evaluations for k constrained axes, hence
at most three. On other domains the prescribed values must be numbers: a formula would have to be continued
inside, and where it is that of the solution this would give the answer away. The parts with the same number
make one wall, whose distance is the product of d/(d + near) over its parts: unlike a minimum it is smooth, at
corners too. The lift is the average of the numbers with weights 1/distance, the factor the product of the
distances. Every condition must be compatible with its neighbours (a cavity lid over resting walls is not):
that is tried on sample points, and the conditions of a component that fails stay terms of the loss. So they do
where lift or factor break a periodic condition: the kink of an initial function would stay in the field.

Sources: W. Gordon, SIAM J. Numer. Anal. 8 (1971) 158-177 (transfinite interpolation); N. Sukumar and
A. Srivastava, Comput. Methods Appl. Mech. Eng. 389 (2022) 114333 (distances).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pdelab import sampling
from pdelab.calculus import Coordinates, jet
from pdelab.conditions import place
from pdelab.domain import Box
from pdelab.pde import AbstractProblem, Condition, Dirichlet, Initial, Periodic, Value, evaluate
from pdelab.taylor import once

TOLERANCE = 1e-10
MAX_AXES = 3
_SAMPLES = 64
_SEED = 60331

Scalar = Callable[[Tensor], Tensor]
"""(n, d) -> (n,)."""


class ConstrainedField(nn.Module):
    """A network within the constraints of a problem, (n, d) -> (n, m)."""

    def __init__(self, network: nn.Module, constraints: Constraints):
        super().__init__()
        self.network = network
        self._constraints = constraints

    def forward(self, x: Tensor, columns: slice = slice(None)) -> Tensor:
        """(n, d) -> (n, m), or some of the m alone, without the lifts of the others."""
        raw = self.network(x)[:, columns]
        return self._constraints(x.to(raw.dtype), raw, columns)


class Constraints:
    """What is built into the field: lift and factor of each component, and the `components` that have them.

    Args:
        problem: whose Dirichlet and initial conditions are tried, one component after another.
        rates: False leaves components with a given initial time derivative to the loss: needed where its
            values cannot be differentiated in space.
        closed: whether the network is periodic where the problem is, so that lift and factor must be.
        continued: whether the initial values come from a field that was built on such values in its turn: where they
            meet the walls at all times they are the lift, since each blend at a wall would ask for that field again.
    """

    def __init__(self, problem: AbstractProblem, rates: bool = True, closed: bool = True, continued: bool = False):
        self._pairs: list[tuple[Scalar, Scalar] | None] = []
        self.components: set[str] = set()
        for i, component in enumerate(problem.components):
            wanted = [
                c for c in problem.conditions() if isinstance(c, Dirichlet | Initial) and c.component == component
            ]
            usable = wanted and (rates or not any(isinstance(c, Initial) and c.order for c in wanted))
            tried = [_pair(problem, wanted, blend) for blend in ([False, True] if continued else [True]) if usable]
            if usable and (profile := problem.profile(component)):
                tried.append(_profiled(problem, wanted, profile))
            pair = next((p for p in tried if p and all(_holds(problem, c, p, i) for c in wanted)), None)
            if pair and (not closed or _continues(problem, pair, i)):
                self._pairs.append(pair)
                self.components.add(component)
            else:
                self._pairs.append(None)

    def meets(self, condition: Condition) -> bool:
        """Whether the condition is built in."""
        return isinstance(condition, Dirichlet | Initial) and condition.component in self.components

    def lift(self, x: Tensor) -> Tensor:
        """The field of a network that is zero, (n, d) -> (n, m)."""
        zero = torch.zeros_like(x[:, 0])
        # A sum, so that values without derivatives may stand beside others.
        return torch.stack([zero + once(x, p[0], p[0]) if p else zero for p in self._pairs], dim=1)

    def factor(self, x: Tensor, number: int) -> Tensor | None:
        """What the network is multiplied by in one component, (n,); None where that is 1."""
        pair = self._pairs[number]
        return once(x, pair[1], pair[1]) if pair else None

    def __call__(self, x: Tensor, raw: Tensor, columns: slice = slice(None)) -> Tensor:
        """Points (n, d) and network values (n, m) -> field values (n, m); both of these columns alone."""
        found = []
        for i, pair in enumerate(self._pairs[columns]):
            value = raw[:, i]
            if pair:
                lift, factor = pair
                value = once(x, lift, lift) + once(x, factor, factor) * value
            found.append(value)
        return torch.stack(found, dim=1)


class NoConstraints(Constraints):
    """Nothing is built in: every condition is left to the loss."""

    def __init__(self, problem: AbstractProblem):
        self._pairs, self.components = [None] * len(problem.components), set()


def _pair(problem: AbstractProblem, wanted: Sequence[Condition], blend: bool) -> tuple[Scalar, Scalar] | None:
    """Lift and factor for the conditions of one component; without blending the lift of a box has no boundary data."""
    dirichlet = [c for c in wanted if isinstance(c, Dirichlet)]
    initial = [c for c in wanted if isinstance(c, Initial)]
    if sorted(c.order for c in initial) not in ([], [0], [0, 1]):
        return None
    start, start_factor = _time(problem, initial)
    if not dirichlet:
        return start, start_factor
    if isinstance(problem.domain, Box):
        return _box(problem, dirichlet, start, start_factor, blend)
    return _general(problem, dirichlet, start, start_factor)


def _profiled(
    problem: AbstractProblem, wanted: Sequence[Condition], profile: Callable[[Coordinates], Tensor]
) -> tuple[Scalar, Scalar] | None:
    """The profile that the problem gives, and the factor."""
    pair = _pair(problem, wanted, False)
    return pair and (lambda x: profile(Coordinates(x, problem.axes)), pair[1])


def _time(problem: AbstractProblem, initial: Sequence[Initial]) -> tuple[Scalar, Scalar]:
    """u0(x) + t v0(x), and t or t^2 (scaled); zero and one without initial conditions."""
    if not initial or problem.time is None:
        return lambda x: torch.zeros_like(x[:, 0]), lambda x: torch.ones_like(x[:, 0])
    t0, t1 = problem.time
    axes = problem.axes

    def lift(x: Tensor) -> Tensor:
        first = Coordinates(torch.cat([x[:, :-1], torch.full_like(x[:, -1:], t0)], dim=1), axes)
        return torch.stack([(x[:, -1] - t0) ** c.order * evaluate(c.value, first) for c in initial]).sum(dim=0)

    power = 1 + max(c.order for c in initial)
    return lift, lambda x: ((x[:, -1] - t0) / (t1 - t0)) ** power


def _box(
    problem: AbstractProblem, dirichlet: Sequence[Dirichlet], lift: Scalar, factor: Scalar, blend: bool
) -> tuple[Scalar, Scalar] | None:
    """Boolean sum over the axes: each adds what the lift so far lacks on its faces, blended linearly."""
    box = problem.domain
    assert isinstance(box, Box)
    closed = {c.axis for c in problem.conditions() if isinstance(c, Periodic)}
    faces: dict[str, Value] = {}
    for condition in dirichlet:
        for part in [condition.part] if condition.part else box.parts:
            if part in faces:
                return None
            faces[part] = condition.value
    constrained = {box.parts.index(part) // 2 for part in faces}
    if len(constrained) > MAX_AXES:
        return None
    for i, axis in enumerate(box.axes):
        ends = [(end, faces[part]) for end, part in enumerate(box.parts[2 * i : 2 * i + 2]) if part in faces]
        if ends and axis not in closed:
            lift = _blended(problem, i, ends, lift) if blend else lift
            factor = _vanishing(box, i, [end for end, _ in ends], factor)
    return lift, factor


def _blended(problem: AbstractProblem, axis: int, ends: Sequence[tuple[int, Value]], before: Scalar) -> Scalar:
    a, b = (float(corner[axis]) for corner in problem.domain.bounds)

    def lift(x: Tensor) -> Tensor:
        total = before(x)
        share = (x[:, axis] - a) / (b - a)
        for end, value in ends:
            weight = torch.ones_like(share) if len(ends) == 1 else (share if end else 1.0 - share)
            face = torch.cat([x[:, :axis], torch.full_like(x[:, :1], b if end else a), x[:, axis + 1 :]], dim=1)
            total = total + weight * (evaluate(value, Coordinates(face, problem.axes)) - before(face))
        return total

    return lift


def _vanishing(box: Box, axis: int, ends: Sequence[int], before: Scalar) -> Scalar:
    a, b = box.lower[axis], box.upper[axis]

    def factor(x: Tensor) -> Tensor:
        share = (x[:, axis] - a) / (b - a)
        if len(ends) == 2:
            return before(x) * 4.0 * share * (1.0 - share)
        return before(x) * (1.0 - share if ends[0] else share)

    return factor


def _general(
    problem: AbstractProblem, dirichlet: Sequence[Dirichlet], start: Scalar, start_factor: Scalar
) -> tuple[Scalar, Scalar] | None:
    domain = problem.domain
    walls: dict[float, list[str]] = {}
    for condition in dirichlet:
        if callable(condition.value):
            return None
        walls.setdefault(condition.value, []).extend([condition.part] if condition.part else domain.parts)
    lower, upper = domain.bounds
    near = 0.25 * float((upper - lower).max())

    def distances(x: Tensor) -> list[Tensor]:
        """0 to 1, one for each prescribed value: the product over its parts of d / (d + near)."""
        space = x if problem.time is None else x[:, :-1]
        products = []
        for parts in walls.values():
            each = torch.stack([domain.part_distance(space, part) for part in parts])
            products.append((each / (each + near)).prod(dim=0))
        return products

    def inverse_distances(x: Tensor) -> Tensor:
        # The shift keeps points on the boundary finite; it is far below what the constraint is checked to.
        return torch.stack([1.0 / (d + 1e-15) for d in distances(x)])

    def wall(x: Tensor) -> Tensor:
        if len(walls) == 1:
            return torch.full_like(x[:, 0], next(iter(walls)))
        weights = inverse_distances(x)
        return (weights * torch.tensor(list(walls)).to(x)[:, None]).sum(dim=0) / weights.sum(dim=0)

    def lift(x: Tensor) -> Tensor:
        if problem.time is None:
            return wall(x)
        first = torch.cat([x[:, :-1], torch.full_like(x[:, -1:], problem.time[0])], dim=1)
        return wall(x) + start(x) - (wall(first) if has_start else 0.0)

    has_start = any(isinstance(c, Initial) and c.component == dirichlet[0].component for c in problem.conditions())

    def factor(x: Tensor) -> Tensor:
        return start_factor(x) * torch.stack(distances(x)).prod(dim=0)

    return lift, factor


def _holds(problem: AbstractProblem, condition: Condition, pair: tuple[Scalar, Scalar], number: int) -> bool:
    """Whether a field of this lift and factor meets the condition at sample points."""
    lift, factor = pair

    def field(x: Tensor) -> Tensor:
        value = lift(x) + factor(x) * torch.cos(x.sum(dim=1))
        return torch.stack([value if i == number else x[:, 0] * 0 for i in range(len(problem.components))], dim=1)

    if isinstance(condition, Initial):
        points = sampling.initial(problem, _SAMPLES, _SEED)
    else:
        assert isinstance(condition, Dirichlet)
        points = sampling.boundary(problem, _SAMPLES, _SEED, condition.part).points
    f = jet(field, torch.as_tensor(points), problem.components, problem.axes)
    miss = condition.residual(f).detach()
    return float(miss.abs().max()) <= TOLERANCE * (1.0 + _size(condition, f))


def _continues(problem: AbstractProblem, pair: tuple[Scalar, Scalar], number: int) -> bool:
    """Whether lift and factor are periodic where the field is to be, slopes included.

    An initial function with a kink at the ends would keep the kink in the field for ever.
    """
    wanted = [p for p in place(problem, _SAMPLES, 1, _SEED) if isinstance(p.condition, Periodic)]
    for scalar in pair if wanted else ():

        def field(x: Tensor, scalar: Scalar = scalar) -> Tensor:
            zero = 0.0 * x[:, 0]
            return torch.stack([scalar(x) if i == number else zero for i in range(len(problem.components))], dim=1)

        for p in wanted:
            f = jet(field, torch.as_tensor(p.points), problem.components, problem.axes)
            size = 1.0 + float(f.derivative(problem.components[number]).detach().abs().max())
            if float(p.residual(f).detach().abs().max()) > TOLERANCE * size:
                return False
    return True


def _size(condition: Condition, at: Coordinates) -> float:
    """Largest prescribed value."""
    assert isinstance(condition, Dirichlet | Initial)
    return float(evaluate(condition.value, at).detach().abs().max())

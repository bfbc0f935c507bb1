"""Random features and their derivatives in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor

from pdelab.calculus import AbstractDifferentiableField
from pdelab.domain import Seed
from pdelab.pde import AbstractProblem, Periodic

Orders = tuple[int, ...]
"""Orders of a partial derivative, one for each coordinate."""

CHUNK = 2**22
"""Largest number of entries of a matrix of feature values while a field is evaluated."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """The box of a problem in space and time, for s = (x - centre)/half in [-1, 1]^d.

    Attributes:
        centre, half: middle and half length of each axis, (d,).
        periodic: which axes are periodic.
    """

    centre: Tensor
    half: Tensor
    periodic: tuple[bool, ...]

    @classmethod
    def of(cls, problem: AbstractProblem) -> Scaling:
        """That of the bounds, the time interval and the periodic conditions of a problem."""
        lower, upper = problem.domain.bounds
        if problem.time:
            lower, upper = np.append(lower, problem.time[0]), np.append(upper, problem.time[1])
        closed = {c.axis for c in problem.conditions() if isinstance(c, Periodic)}
        periodic = tuple(axis in closed for axis in problem.axes)
        return cls(torch.as_tensor(0.5 * (lower + upper)), torch.as_tensor(0.5 * (upper - lower)), periodic)


@dataclass(frozen=True, eq=False)
class Features:
    """Ridge functions of the scaled coordinates s in [-1, 1]^d, times waves along the periodic axes.

        phi_k(x) = g(w_k . s + b_k) cos(v_k . s + c_k),   s = (x - centre)/half,   g = tanh or cos

    w_k is zero on the periodic axes, v_k on the others; the entries of v_k are whole multiples of pi, so that phi_k
    is periodic with all its derivatives.

    Attributes:
        kind: "tanh" or "cos", the function g.
        scaling: of the coordinates.
        ridges, phases: w (K, d) and b (K,).
        waves, shifts: v (K, d) and c (K,).
    """

    kind: str
    scaling: Scaling
    ridges: Tensor
    phases: Tensor
    waves: Tensor
    shifts: Tensor

    def __len__(self) -> int:
        return len(self.phases)

    def combine(self, x: Tensor, terms: Mapping[Orders, Tensor]) -> Tensor:
        """The derivatives with these orders, times a coefficient at each point, summed.

        A derivative of phi_k is a power of w_k and v_k times derivatives of g and cos, which only depend on the
        number of differentiations along plain and along periodic axes: terms with the same numbers share them.

        Args:
            x: points, (n, d).
            terms: orders -> coefficients, (n,).

        Returns:
            One column per feature, (n, K).
        """
        centre, half, closed = self.scaling.centre, self.scaling.half, self.scaling.periodic
        s = (x - centre) / half
        shared: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for orders, coefficient in terms.items():
            factor = torch.ones_like(self.phases)
            for i, order in enumerate(orders):
                if order:
                    factor = factor * ((self.waves if closed[i] else self.ridges)[:, i] / half[i]) ** order
            periodic = sum(order for order, wave in zip(orders, closed, strict=True) if wave)
            shared.setdefault((sum(orders) - periodic, periodic), []).append((coefficient, factor))
        result = torch.zeros(len(x), len(self), dtype=s.dtype)
        z = s @ self.ridges.T + self.phases
        outer = torch.tanh(z) if self.kind == "tanh" else z
        angle = s @ self.waves.T + self.shifts if any(closed) else None
        for (plain, periodic), group in shared.items():
            coefficients = torch.stack([c for c, _ in group], dim=1)
            part = coefficients @ torch.stack([f for _, f in group]) * _derivative(self.kind, outer, plain)
            if angle is not None:
                part = part * _derivative("cos", angle, periodic)
            result = result + part
        return result


class FeatureField(AbstractDifferentiableField):
    """sum_k phi_k(x) c_k, c (K, m); differentiable to any order, in closed form."""

    def __init__(self, features: Features, coefficients: Tensor):
        self.features, self.coefficients = features, coefficients

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        return self.derivative(x, (0,) * x.shape[1])

    def derivative(self, x: Tensor, orders: Sequence[int]) -> Tensor:
        """See `AbstractDifferentiableField.derivative`."""
        size = max(1, CHUNK // len(self.features))
        x = x.to(self.coefficients)
        parts = [self.features.combine(p, {tuple(orders): torch.ones_like(p[:, 0])}) for p in x.split(size)]
        return torch.cat([part @ self.coefficients for part in parts])


@dataclass(frozen=True)
class Ansatz:
    """What random features are drawn from.

    Attributes:
        kind: "tanh" or "cos".
        coupling: how many axes each feature depends on, at most d.
        bandwidth: standard deviation of the frequencies along each axis, radians per half axis, d numbers.
    """

    kind: str
    coupling: int
    bandwidth: tuple[float, ...]


def draw(ansatz: Ansatz, scaling: Scaling, n: int, seed: Seed) -> Features:
    """n features; for the same seed they follow the bandwidth continuously (in steps of pi on periodic axes).

    Frequencies are normal. The phases of cosines are uniform; those of tanh put the middle of the step at a uniform
    point of the box.
    """
    rng = np.random.default_rng(seed)
    d = len(scaling.periodic)
    frequencies = rng.standard_normal((n, d)) * ansatz.bandwidth
    middles = rng.uniform(-1.0, 1.0, (n, d))
    angles = rng.uniform(0.0, 2.0 * math.pi, (n, 2))
    # The axes with the smallest of d random numbers are a uniform choice.
    rank = rng.uniform(size=(n, d)).argsort(axis=1).argsort(axis=1)
    frequencies = np.where(rank < ansatz.coupling, frequencies, 0.0)
    ridges = np.where(scaling.periodic, 0.0, frequencies)
    waves = np.where(scaling.periodic, math.pi * np.round(frequencies / math.pi), 0.0)
    phases = -(ridges * middles).sum(axis=1) if ansatz.kind == "tanh" else angles[:, 0]
    arrays = (ridges, phases, waves, angles[:, 1])
    return Features(ansatz.kind, scaling, *(torch.as_tensor(a) for a in arrays))


def _derivative(kind: str, value: Tensor, order: int) -> Tensor:
    """Derivative of cos at the angle `value`, or of tanh where it takes the value `value`."""
    if kind == "cos":
        return torch.cos(value + 0.5 * math.pi * order)
    # tanh' = 1 - tanh^2, so that each derivative is a polynomial in tanh.
    coefficients = np.array([0.0, 1.0])
    for _ in range(order):
        coefficients = polynomial.polymul(polynomial.polyder(coefficients), [1.0, 0.0, -1.0])
    result = torch.full_like(value, coefficients[-1])
    for c in coefficients[-2::-1]:
        result = result * value + c
    return result

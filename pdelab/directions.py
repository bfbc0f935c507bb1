"""Which directional derivatives give the partial derivatives that an equation asks for.

A derivative of order k along a direction v is a combination of the partial derivatives of that order,

    D_v^k u = sum over |a| = k of  k!/a!  v^a  d^a u,

so that enough directions give each of them back, mixed ones included: u_xy = (D_{x+y}^2 - D_x^2 - D_y^2) u / 2.

Source: A. Griewank, J. Utke, A. Walther, Math. Comp. 69 (2000) 1117-1130.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Orders = tuple[int, ...]
"""Order of a partial derivative along each axis."""
Direction = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What a Taylor evaluation must carry.

    Attributes:
        directions: direction -> highest order along it.
        laplacian: axes whose first derivatives and sum of second derivatives are wanted; () for none.
        combinations: partial derivative -> its directional derivatives of the same order, (weight, direction).
    """

    directions: tuple[tuple[Direction, int], ...]
    laplacian: tuple[int, ...]
    combinations: dict[Orders, tuple[tuple[float, Direction], ...]]

    @property
    def order(self) -> int:
        """The highest order of all."""
        return max([2 if self.laplacian else 0, *(order for _, order in self.directions)])


@functools.cache
def plan(wanted: frozenset[Orders], laplacian: tuple[int, ...], d: int) -> Plan:
    """Directions for partial derivatives in d dimensions.

    Args:
        wanted: the partial derivatives.
        laplacian: space axes, if the sum of their second derivatives is wanted and not each of them.
        d: number of axes.
    """
    wanted = wanted - {(0,) * d}
    orders: dict[Direction, int] = {}
    for alpha in wanted:
        if len(axes := _support(alpha)) == 1:
            v = _unit(axes[0], d)
            orders[v] = max(orders.get(v, 0), sum(alpha))
    combinations: dict[Orders, tuple[tuple[float, Direction], ...]] = {
        alpha: ((1.0, _unit(_support(alpha)[0], d)),) for alpha in wanted if len(_support(alpha)) == 1
    }
    for alpha in sorted(a for a in wanted if len(_support(a)) > 1):
        found = _combination(alpha, tuple(v for v, order in orders.items() if order >= sum(alpha)))
        for _, v in found:
            orders[v] = max(orders.get(v, 0), sum(alpha))
        combinations[alpha] = found
    # First derivatives come with the Laplacian.
    for i in laplacian:
        if orders.get(_unit(i, d)) == 1:
            del orders[_unit(i, d)]
    return Plan(tuple(sorted(orders.items(), key=lambda item: (item[1], item[0]))), laplacian, combinations)


def _combination(alpha: Orders, known: tuple[Direction, ...]) -> tuple[tuple[float, Direction], ...]:
    """Directional derivatives of order |alpha| that make up one mixed derivative; known directions first."""
    k, axes = sum(alpha), _support(alpha)
    d = len(alpha)
    monomials = [m for m in itertools.product(range(k + 1), repeat=len(axes)) if sum(m) == k]
    target = np.array([float(m == tuple(alpha[i] for i in axes)) for m in monomials])
    inside = [v for v in known if set(_support(v)) <= set(axes)]
    lattice = itertools.product(range(-k, k + 1), repeat=len(axes))
    more = sorted((v for v in lattice if _first_is_positive(v) and math.gcd(*v) == 1), key=lambda v: (_square(v), v))
    chosen: list[Direction] = []
    rows: list[np.ndarray] = []
    for v in [*inside, *(w for w in (_spread(v, axes, d) for v in more) if w not in inside)]:
        row = np.array([math.factorial(k) * _monomial(v, axes, m) for m in monomials])
        if np.linalg.matrix_rank(np.array([*rows, row])) == len(rows):
            continue
        chosen.append(v)
        rows.append(row)
        weights, *_ = np.linalg.lstsq(np.array(rows).T, target, rcond=None)
        if np.abs(np.array(rows).T @ weights - target).max() < 1e-12:
            return tuple((float(w), v) for w, v in zip(weights, chosen, strict=True) if abs(w) > 1e-13)
    raise AssertionError("the lattice spans all derivatives of its order")


def _monomial(v: Direction, axes: tuple[int, ...], m: tuple[int, ...]) -> float:
    """v^m / m!."""
    return math.prod(v[i] ** p / math.factorial(p) for i, p in zip(axes, m, strict=True))


def _support(alpha: Iterable[int]) -> tuple[int, ...]:
    return tuple(i for i, a in enumerate(alpha) if a)


def _unit(axis: int, d: int) -> Direction:
    return tuple(int(i == axis) for i in range(d))


def _spread(v: tuple[int, ...], axes: tuple[int, ...], d: int) -> Direction:
    return tuple(v[axes.index(i)] if i in axes else 0 for i in range(d))


def _square(v: tuple[int, ...]) -> int:
    return sum(i * i for i in v)


def _first_is_positive(v: tuple[int, ...]) -> bool:
    return next((i for i in v if i), 0) > 0

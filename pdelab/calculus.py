"""Derivatives of fields: the only module that differentiates.

Problems write their equations with a `Jet`, a field at given points whose values and derivatives are
asked for by name in the problem's own letters:

    f.u      value of component u, shape (n,)
    f.u_t    du/dt            f.u_xx   d2u/dx2          f.u_xy   mixed
    f.x      the coordinate itself

Everything is computed on first use and kept, so asking twice costs nothing. Where it is known beforehand
which derivatives an equation needs, they are found together in Taylor mode (`pdelab.taylor`); a field that
does what Taylor mode has no rule for is differentiated step by step, correct but slower.
"""

from __future__ import annotations

import abc
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdelab.directions import Orders, Plan, plan
from pdelab.errors import SettingsError, check_shape
from pdelab.taylor import Series, UnsupportedOperation, all_or_nothing, recording

_log = logging.getLogger(__name__)
_slow: weakref.WeakSet[Any] = weakref.WeakSet()

Field = Callable[[Tensor], Tensor]
"""(n, d) -> (n, m), each row on its own, differentiable."""


class AbstractDifferentiableField(abc.ABC):
    """A field that knows its own derivatives: cheaper than differentiating it automatically, and without a graph."""

    @abc.abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""

    @abc.abstractmethod
    def derivative(self, x: Tensor, orders: Sequence[int]) -> Tensor:
        """The partial derivative with these orders along the axes, (n, d) -> (n, m)."""


class Coordinates:
    """Points with named columns: `p.x`, `p.t` are the columns of `p.points`, shape (n,) each."""

    def __init__(self, points: Tensor, axes: Sequence[str]):
        check_shape("points", points, (None, len(axes)))
        self.points = points
        self.axes = tuple(axes)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name in self.axes:
            return self.points[:, self.axes.index(name)]
        raise AttributeError(f"no coordinate {name!r}; the axes are {', '.join(self.axes)}")

    def __len__(self) -> int:
        return self.points.shape[0]


class AbstractJet(Coordinates):
    """A field at points with its derivatives by name; subclasses say how a derivative is found.

    Three kinds exist: `Jet` (automatic differentiation of a callable), the grid jet of the collocation
    solvers (differentiation matrices), and the recorder that lists which derivatives an equation uses.
    """

    components: tuple[str, ...]
    unknowns: Mapping[str, Tensor]
    space_axes: tuple[str, ...]

    def derivative(self, component: str, *along: str) -> Tensor:
        """The derivative of `component` along the named axes, shape (n,); no axis gives the value."""
        raise TypeError("AbstractJet is a base class; use jet() to make one")

    def laplacian(self, component: str) -> Tensor:
        """Sum of the second derivatives over the space axes, shape (n,)."""
        total = self.derivative(component, self.space_axes[0], self.space_axes[0])
        for axis in self.space_axes[1:]:
            total = total + self.derivative(component, axis, axis)
        return total

    def normal_derivative(self, component: str, normals: Tensor) -> Tensor:
        """Outward normal derivative; `normals` is (n, space dimensions), unit length."""
        total = self.derivative(component, self.space_axes[0]) * normals[:, 0]
        for i, axis in enumerate(self.space_axes[1:], start=1):
            total = total + self.derivative(component, axis) * normals[:, i]
        return total

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("components", "unknowns", "axes", "points", "space_axes"):
            raise AttributeError(name)
        if name in self.axes:
            return self.points[:, self.axes.index(name)]
        if name in self.components:
            return self.derivative(name)
        if name in self.unknowns:
            return self.unknowns[name]
        component, _, letters = name.rpartition("_")
        along = _split_axes(letters, self.axes)
        if component in self.components and along:
            return self.derivative(component, *along)
        raise AttributeError(
            f"{name!r} is no coordinate ({', '.join(self.axes)}), no component ({', '.join(self.components)}), "
            f"no unknown coefficient and no derivative of a component such as "
            f"{self.components[0]}_{self.axes[0]}{self.axes[0]}"
        )


class Jet(AbstractJet):
    """A differentiable callable at points; derivatives by nested reverse-mode differentiation."""

    def __init__(
        self,
        field: Field,
        points: Tensor,
        components: Sequence[str],
        axes: Sequence[str],
        unknowns: Mapping[str, Tensor] | None = None,
    ):
        # A leaf of its own: the graph of the derivatives must start at these points.
        super().__init__(points.detach().clone().requires_grad_(True), axes)
        self.components = tuple(components)
        self.space_axes = tuple(a for a in axes if a != "t")
        self.unknowns = dict(unknowns or {})
        self._field = field
        self._known: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        key = (component, tuple(sorted(along, key=self.axes.index)))
        if key not in self._known:
            if not along:
                self._evaluate()
            else:
                self._differentiate(component, key[1][:-1])
        return self._known[key]

    def _evaluate(self) -> None:
        with torch.enable_grad():
            values = self._field(self.points)
        _check_values(values, len(self), len(self.components))
        for i, name in enumerate(self.components):
            self._known[(name, ())] = values[:, i]

    def _differentiate(self, component: str, lower: tuple[str, ...]) -> None:
        value = self.derivative(component, *lower)
        # The sum trick differentiates each row on its own: legal only because a Field never mixes rows.
        gradient = None
        if value.requires_grad:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(value.sum(), self.points, create_graph=True, allow_unused=True)
        if gradient is None:
            gradient = torch.zeros_like(self.points)
        for i, axis in enumerate(self.axes):
            key = (component, tuple(sorted((*lower, axis), key=self.axes.index)))
            self._known.setdefault(key, gradient[:, i])


class FieldJet(AbstractJet):
    """A field that knows its own derivatives, at points."""

    def __init__(
        self,
        field: AbstractDifferentiableField,
        points: Tensor,
        components: Sequence[str],
        axes: Sequence[str],
        unknowns: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(points.detach(), axes)
        self.components = tuple(components)
        self.space_axes = tuple(a for a in axes if a != "t")
        self.unknowns = dict(unknowns or {})
        self._field = field
        self._known: dict[tuple[int, ...], Tensor] = {}

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`."""
        orders = tuple(along.count(axis) for axis in self.axes)
        if orders not in self._known:
            self._known[orders] = self._field.derivative(self.points, orders)
        return self._known[orders][:, self.components.index(component)]


@dataclass(frozen=True)
class Wanted:
    """Which derivatives an equation needs of a field.

    Attributes:
        derivatives: orders along the axes, asked for one by one.
        laplacian: whether Laplacians are asked for.
        space: numbers of the space axes.
        d: number of axes.
    """

    derivatives: frozenset[Orders]
    laplacian: bool
    space: tuple[int, ...]
    d: int

    @property
    def plan(self) -> Plan:
        """How Taylor mode finds them."""
        second = {tuple(2 * int(i == axis) for i in range(self.d)) for axis in self.space}
        if not self.laplacian:
            return plan(self.derivatives, (), self.d)
        # With more than one of its terms at hand, or one axis only, summing up costs no more channels.
        if len(self.space) == 1 or len(second & self.derivatives) > 1:
            return plan(self.derivatives | second, (), self.d)
        return plan(self.derivatives, self.space, self.d)


class Sites:
    """Points where fields are looked at again and again: what depends on the points alone is done once.

    Args:
        points: (n, d).
        wanted: the derivatives that will be asked for.
    """

    def __init__(self, points: Tensor, wanted: Wanted):
        self.points, self.wanted = points, wanted
        self.plan = wanted.plan
        self.series = Series.of_points(points, self.plan)


class TaylorJet(AbstractJet):
    """A differentiable callable at points, with the derivatives that were announced from one pass in Taylor mode."""

    def __init__(
        self,
        field: Field,
        sites: Sites,
        values: Series,
        components: Sequence[str],
        axes: Sequence[str],
        unknowns: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(sites.points, axes)
        self.components = tuple(components)
        self.space_axes = tuple(a for a in axes if a != "t")
        self.unknowns = dict(unknowns or {})
        self._field, self._sites = field, sites
        self._known: dict[tuple[str, Orders], Tensor] = {}
        self._further: Jet | None = None
        self._data, self._columns = values.data, values.data.unbind(-1)
        self._starts: dict[tuple[tuple[int, ...], int], int] = {}
        self._number_channels()

    def derivative(self, component: str, *along: str) -> Tensor:
        """See `AbstractJet.derivative`; what was not announced is found by nested differentiation."""
        orders = tuple(along.count(axis) for axis in self.axes)
        key = (component, orders)
        if key not in self._known:
            self._known[key] = self._find(component, orders, along)
        return self._known[key]

    def every(self, orders: Orders) -> Tensor:
        """The derivative of these orders along the axes, of all components at once, (n, m).

        Raises:
            SettingsError: it was not announced.
        """
        found = self._announced(self._data, orders)
        if found is None:
            raise SettingsError(f"derivative {orders}: expected one of those that were announced")
        return found

    def laplacian(self, component: str) -> Tensor:
        """See `AbstractJet.laplacian`."""
        if not self._sites.plan.laplacian:
            return super().laplacian(component)
        return self._column(component)[self._laplacian]

    def _column(self, component: str) -> Tensor:
        return self._columns[self.components.index(component)]

    def _find(self, component: str, orders: Orders, along: Sequence[str]) -> Tensor:
        found = self._announced(self._column(component), orders)
        if found is not None:
            return found
        if self._further is None:
            self._further = Jet(self._field, self.points, self.components, self.axes, self.unknowns)
        return self._further.derivative(component, *along)

    def _announced(self, channels: Tensor, orders: Orders) -> Tensor | None:
        """A derivative from the channels (channels, n) or (channels, n, m); None if they do not hold it."""
        order = sum(orders)
        if order == 0:
            return channels[0]
        if order == 1 and (orders, 1) in self._starts:  # along an axis, with a Laplacian or a higher derivative
            return channels[self._starts[(orders, 1)]]
        terms = self._sites.plan.combinations.get(orders)
        if terms is None:
            return None
        parts = [(weight, channels[self._starts[(v, order)]]) for weight, v in terms]
        if len(parts) == 1:
            return parts[0][1]
        return torch.stack([weight * part for weight, part in parts]).sum(dim=0)

    def _number_channels(self) -> None:
        """Which channel holds D_v^k."""
        position = 1
        if axes := self._sites.plan.laplacian:
            for i in axes:
                self._starts[(tuple(int(i == j) for j in range(len(self.axes))), 1)] = position
                position += 1
            self._laplacian = position
            position += 1
        directions = self._sites.plan.directions
        for order in sorted({order for _, order in directions}):
            rows = [v for v, highest in directions if highest == order]
            for k in range(1, order + 1):
                for v in rows:
                    self._starts.setdefault((v, k), position)
                    position += 1


class Recorder(AbstractJet):
    """A jet of zeros that remembers which derivatives were asked for."""

    def __init__(self, points: Tensor, components: Sequence[str], axes: Sequence[str], unknowns: Mapping[str, Tensor]):
        super().__init__(points, axes)
        self.components = tuple(components)
        self.space_axes = tuple(a for a in axes if a != "t")
        self.unknowns = dict(unknowns)
        self.asked: dict[tuple[str, tuple[str, ...]], None] = {}
        self._single: set[Orders] = set()
        self._laplacian = False

    @property
    def wanted(self) -> Wanted:
        """What was asked for, of any component."""
        space = tuple(self.axes.index(a) for a in self.space_axes)
        return Wanted(frozenset(self._single), self._laplacian, space, len(self.axes))

    def laplacian(self, component: str) -> Tensor:
        """Zeros; its terms are in `asked`, but it is not taken for asking for each of them."""
        single = set(self._single)
        found = super().laplacian(component)
        self._single, self._laplacian = single, True
        return found

    def derivative(self, component: str, *along: str) -> Tensor:
        """Zeros of shape (n,); the request is kept in `asked`, in order of first use."""
        self.asked[(component, tuple(sorted(along, key=self.axes.index)))] = None
        self._single.add(tuple(along.count(axis) for axis in self.axes))
        return self.points.new_zeros(len(self))


def jet(
    field: Field,
    points: Tensor | Sites,
    components: Sequence[str],
    axes: Sequence[str],
    unknowns: Mapping[str, Tensor] | None = None,
) -> AbstractJet:
    """The field at the points, ready to be differentiated: the door that every solver uses.

    At `Sites`, points with the derivatives that will be asked for, it works in Taylor mode if the field allows.
    """
    if isinstance(field, AbstractDifferentiableField):
        return FieldJet(field, points.points if isinstance(points, Sites) else points, components, axes, unknowns)
    if not isinstance(points, Sites):
        return Jet(field, points, components, axes, unknowns)
    # For first derivatives alone reverse mode takes less time, where it is only the gradient that is wanted.
    reverse = points.plan.order == 1 and torch.is_grad_enabled() and not recording()
    if field not in _slow and not reverse:
        try:
            with all_or_nothing():
                values: Any = field(points.series)  # type: ignore[arg-type]
                if not isinstance(values, Series):
                    raise UnsupportedOperation("its values do not depend on the points")
            _check_values(values, len(points.points), len(components))
            return TaylorJet(field, points, values, components, axes, unknowns)
        except (UnsupportedOperation, TypeError) as error:
            _slow.add(field)
            _log.warning("%s: nested differentiation, slower than Taylor mode: %s", type(field).__name__, error)
    return Jet(field, points.points, components, axes, unknowns)


def differentiated_like(field: Field, other: Field) -> None:
    """Differentiate a field that stands in for another in the same way, without trying Taylor mode in vain."""
    if field in _slow:
        _slow.add(other)


def gradient_norm(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of the gradient of a scalar loss in the parameters; the graph is kept."""
    gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    return torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()


def _check_values(values: Any, n: int, m: int) -> None:
    """Values of a field at n points, (n, m) and real."""
    check_shape("field values", values, (n, m))
    if values.dtype.is_complex:
        raise SettingsError(
            f"field values: expected real numbers, got {values.dtype}; give the real and the imaginary part as two "
            f"components"
        )


def _split_axes(letters: str, axes: tuple[str, ...]) -> tuple[str, ...]:
    """'xxt' -> ('x', 'x', 't'); () if it cannot be read; longer axis names are tried first."""
    found: list[str] = []
    names = sorted(axes, key=len, reverse=True)
    while letters:
        name = next((a for a in names if letters.startswith(a)), None)
        if name is None:
            return ()
        found.append(name)
        letters = letters[len(name) :]
    return tuple(found)

"""Derivatives of fields: the only module that differentiates.

Problems write their equations with a `Jet`, a field at given points whose values and derivatives are
asked for by name in the problem's own letters:

    f.u      value of component u, shape (n,)
    f.u_t    du/dt            f.u_xx   d2u/dx2          f.u_xy   mixed
    f.x      the coordinate itself

Everything is computed on first use and kept, so asking twice costs nothing.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pdelab.errors import check_shape

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
        check_shape("field values", values, (len(self), len(self.components)))
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


class Recorder(AbstractJet):
    """A jet of zeros that remembers which derivatives were asked for."""

    def __init__(self, points: Tensor, components: Sequence[str], axes: Sequence[str], unknowns: Mapping[str, Tensor]):
        super().__init__(points, axes)
        self.components = tuple(components)
        self.space_axes = tuple(a for a in axes if a != "t")
        self.unknowns = dict(unknowns)
        self.asked: dict[tuple[str, tuple[str, ...]], None] = {}

    def derivative(self, component: str, *along: str) -> Tensor:
        """Zeros of shape (n,); the request is kept in `asked`, in order of first use."""
        self.asked[(component, tuple(sorted(along, key=self.axes.index)))] = None
        return torch.zeros(len(self), dtype=self.points.dtype)


def jet(
    field: Field,
    points: Tensor,
    components: Sequence[str],
    axes: Sequence[str],
    unknowns: Mapping[str, Tensor] | None = None,
) -> AbstractJet:
    """The field at the points, ready to be differentiated: the door that every solver uses."""
    if isinstance(field, AbstractDifferentiableField):
        return FieldJet(field, points, components, axes, unknowns)
    return Jet(field, points, components, axes, unknowns)


def gradient_norm(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of the gradient of a scalar loss in the parameters; the graph is kept."""
    gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    return torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()


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

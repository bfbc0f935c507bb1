"""Taylor mode: a field's derivatives along directions, all orders in one forward pass.

A `Series` stands in for a tensor of shape `shape` and carries, beside the value, its derivatives along
fixed directions of the input, stacked in one tensor (channels, *shape):

    value | D_v u, ..., D_v^k u for each group of directions of equal order k

It flows through ordinary torch code: a linear layer acts on all channels in one matrix product, smooth
functions by the chain rule, products by Leibniz' rule. A collapsed group carries the first derivatives along
its directions and the sum of their second ones, the forward Laplacian. Nothing is recorded for
differentiation in the points: one ordinary backward pass gives the gradient in the parameters.

Sources: A. Griewank, A. Walther, Evaluating Derivatives, SIAM 2008, ch. 13; R. Li et al., Nature Machine
Intelligence 6 (2024) 209-219 (forward Laplacian).
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pdelab.directions import Plan
from pdelab.taylor_smooth import SMOOTH, Chain, Group, Smooth, power


class UnsupportedOperation(Exception):
    """An operation with no Taylor rule here; the caller falls back to nested differentiation."""


Use = Callable[[int, int], Tensor]
"""First and last row -> what one use of a parameter adds to its columns of a Jacobian, (rows, k)."""


class AbstractMap(abc.ABC):
    """One use of parameters at n points, where it maps the channels of each point on their own.

    Attributes:
        outputs: (channels, n, ...).
        parameters: those that were used.
    """

    outputs: Tensor
    parameters: Sequence[Tensor]

    @abc.abstractmethod
    def uses(self, g: Tensor, first: int) -> Sequence[Use]:
        """What each of the parameters adds to the rows of a residual, from its derivatives at the points.

        Args:
            g: derivatives of row i in the outputs at point first + i, (channels, rows, ...).
            first: number of the first row's point.
        """


@dataclass(frozen=True, eq=False)
class AffineMap(AbstractMap):
    """One use of a linear layer: `outputs` = `inputs` weight' + bias, (channels, n, ...)."""

    parameters: Sequence[Tensor]
    inputs: Tensor
    outputs: Tensor

    def uses(self, g: Tensor, first: int) -> Sequence[Use]:
        """See `AbstractMap.uses`: the sum over channels of g_c a_c', and g_0."""
        inputs = self.inputs.detach()[:, first : first + g.shape[1]]

        def weight(start: int, stop: int) -> Tensor:
            left, right = (part[:, start:stop].movedim(0, 1).flatten(1, -2) for part in (g, inputs))
            return torch.bmm(left.mT, right).flatten(1)

        def bias(start: int, stop: int) -> Tensor:
            return g[0, start:stop].reshape(stop - start, -1, g.shape[-1]).sum(dim=1)

        return [weight, bias][: len(self.parameters)]


_TAPE: list[AbstractMap] | None = None


def record(use: AbstractMap) -> None:
    """Put one on the tape, if there is one."""
    if _TAPE is not None:
        _TAPE.append(use)


@contextlib.contextmanager
def recorded() -> Iterator[list[AbstractMap]]:
    """Every use of parameters by a series within the block, as far as it tells."""
    global _TAPE
    before, _TAPE = _TAPE, []
    try:
        yield _TAPE
    finally:
        _TAPE = before


@contextlib.contextmanager
def all_or_nothing() -> Iterator[None]:
    """Strike what was recorded within the block if it ends in an error."""
    length = len(_TAPE or ())
    try:
        yield
    except BaseException:
        if _TAPE is not None:
            del _TAPE[length:]
        raise


def recording() -> bool:
    """Whether uses of parameters are being recorded."""
    return _TAPE is not None


class Series:
    """A tensor with its directional derivatives; see the module.

    Attributes:
        data: (channels, *shape).
        groups: how the channels after the first are shared out.
        kept: only where the series is the points themselves: what `once` has computed for them.
    """

    def __init__(self, data: Tensor, groups: Sequence[Group]):
        self.data = data
        self.groups = tuple(groups)
        self.kept: dict[Any, Any] | None = None

    @classmethod
    def of_points(cls, points: Tensor, plan: Plan) -> Series:
        """The points (n, d) themselves, ready for the directions of a plan."""
        parts, groups = [points[None]], []
        if plan.laplacian:
            groups.append(Group(len(plan.laplacian), 2, collapsed=True))
            parts += [_constant(points, torch.eye(points.shape[1])[list(plan.laplacian)])]
            parts += [torch.zeros_like(points)[None]]
        for order in sorted({order for _, order in plan.directions}):
            rows = [v for v, k in plan.directions if k == order]
            groups.append(Group(len(rows), order))
            parts.append(_constant(points, torch.tensor(rows)))
            parts.append(points.new_zeros((order - 1) * len(rows), *points.shape))
        found = cls(torch.cat(parts), groups)
        found.kept = {}
        return found

    @property
    def value(self) -> Tensor:
        """The value itself."""
        return self.data[0]

    @property
    def shape(self) -> torch.Size:
        """Shape of the value."""
        return self.data.shape[1:]

    @property
    def ndim(self) -> int:
        """Number of axes of the value."""
        return self.data.ndim - 1

    @property
    def dtype(self) -> torch.dtype:
        """Type of the entries."""
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self.data.device

    @property
    def requires_grad(self) -> bool:
        """Whether parameters have had a part in it."""
        return self.data.requires_grad

    def size(self, dim: int | None = None) -> Any:
        """Like that of a tensor."""
        return self.shape if dim is None else self.shape[dim]

    def parts(self, group: int) -> list[Tensor]:
        """[D, D^2, ...] of a group, each (V, *shape); [D (V, *shape), sum of D^2 (1, *shape)] if collapsed."""
        start = 1 + sum(sum(g.sizes) for g in self.groups[:group])
        sizes = self.groups[group].sizes
        return list(self.data[start : start + sum(sizes)].split(sizes))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Series:
        key = key if isinstance(key, tuple) else (key,)
        return self._same(self.data[(slice(None), *key)])

    def __neg__(self) -> Series:
        return self._same(-self.data)

    def __add__(self, other: Any) -> Series:
        return _add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Series:
        return _add(self, -other)

    def __rsub__(self, other: Any) -> Series:
        return _add(-self, other)

    def __mul__(self, other: Any) -> Series:
        return _multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Series:
        return _multiply(self, _power(other, -1) if isinstance(other, Series) else 1.0 / other)

    def __rtruediv__(self, other: Any) -> Series:
        return _multiply(_power(self, -1), other)

    def __pow__(self, exponent: Any) -> Series:
        return _power(self, exponent)

    def __matmul__(self, other: Any) -> Series:
        return _matmul(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return self.value > _value(other)

    def __lt__(self, other: Any) -> Tensor:
        return self.value < _value(other)

    def __ge__(self, other: Any) -> Tensor:
        return self.value >= _value(other)

    def __le__(self, other: Any) -> Tensor:
        return self.value <= _value(other)

    def __getattr__(self, name: str) -> Any:
        # Methods of tensors are the functions of the same name: x.sin() is torch.sin(x).
        rule = _METHODS.get(name)
        if rule is None:
            raise UnsupportedOperation(name)
        return lambda *args, **kwargs: rule(self, *args, **kwargs)

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(func)
        if rule is None:
            raise UnsupportedOperation(getattr(func, "__name__", str(func)))
        return rule(*args, **(kwargs or {}))

    def _same(self, data: Tensor) -> Series:
        return Series(data, self.groups)


def once(x: Any, owner: object, compute: Callable[[Any], Any]) -> Any:
    """compute(x), done once per `owner` for points that are looked at again and again.

    `compute` must depend on nothing that changes while the points last.
    """
    kept = getattr(x, "kept", None) if isinstance(x, Series) else None
    if kept is None:
        return compute(x)
    if owner not in kept:
        try:
            with torch.no_grad():
                kept[owner] = compute(x)
        except (UnsupportedOperation, TypeError):
            kept[owner] = _nested(x, compute)
    return kept[owner]


def _nested(x: Series, compute: Callable[[Tensor], Tensor]) -> Series:
    """compute(x) by nested differentiation, for functions of the points (n, d) -> (n, ...) without a Taylor rule."""
    points = x.value.detach().clone().requires_grad_(True)

    def along(values: Tensor, v: Tensor) -> Tensor:
        """D_v of values (n, k), column by column."""
        if not values.requires_grad:
            return torch.zeros_like(values)
        columns = [
            torch.autograd.grad(c.sum(), points, create_graph=True, allow_unused=True)[0] for c in values.unbind(dim=1)
        ]
        return torch.stack([torch.zeros_like(v[:, 0]) if g is None else (g * v).sum(dim=1) for g in columns], dim=1)

    with torch.enable_grad():
        values = compute(points)
        flat = values.reshape(len(values), -1)
        parts = [flat]
        for i, group in enumerate(x.groups):
            directions = x.parts(i)[0]
            found = [flat] * group.n
            for _ in range(group.order):
                found = [along(f, v) for f, v in zip(found, directions, strict=True)]
                parts += found
            if group.collapsed:
                parts[-group.n :] = [torch.stack(parts[-group.n :]).sum(dim=0)]
    return Series(torch.stack([p.detach().reshape(values.shape) for p in parts]), x.groups)


class _Affine(torch.autograd.Function):
    """data weight' for all channels, the bias for the value alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(data: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        product = nn.functional.linear(data, weight)
        product[0].add_(bias)
        return product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        data, weight, _ = inputs
        ctx.save_for_backward(data, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (g,) = gradients
        data, weight = ctx.saved_tensors
        before = g @ weight if ctx.needs_input_grad[0] else None
        return before, g.flatten(0, -2).T @ data.flatten(0, -2), g[0].flatten(0, -2).sum(dim=0)


def _value(s: Any) -> Any:
    return s.value if isinstance(s, Series) else s


def _constant(points: Tensor, directions: Tensor) -> Tensor:
    return directions.to(points)[:, None, :].expand(-1, len(points), -1)


def _smooth(smooth: Smooth) -> Callable[..., Series]:
    return lambda s: s._same(Chain.apply(s.data, s.groups, smooth))


def _add(a: Series, b: Any) -> Series:
    if isinstance(b, Series):
        return a._same(a.data + b.data if a.ndim == b.ndim else _aligned(a, b) + _aligned(b, a))
    if isinstance(b, Tensor) and (shape := torch.broadcast_shapes(a.shape, b.shape)) != a.shape:
        a = a._same(_expanded(a, shape))
    return a._same(torch.cat([(a.value + b)[None], a.data[1:]]))


def _expanded(a: Series, shape: Sequence[int]) -> Tensor:
    lead = a.data.reshape(a.data.shape[0], *[1] * (len(shape) - a.ndim), *a.shape)
    return lead.expand(a.data.shape[0], *shape)


def _aligned(a: Series, b: Series) -> Tensor:
    """The data of a with as many axes as b has, new ones after the channels."""
    return a.data.reshape(a.data.shape[0], *[1] * max(0, b.ndim - a.ndim), *a.shape)


def _multiply(a: Series, b: Any) -> Series:
    if not isinstance(b, Series):
        if isinstance(b, Tensor) and b.ndim > a.ndim:
            return a._same(_expanded(a, torch.broadcast_shapes(a.shape, b.shape)) * b)
        return a._same(a.data * b)
    if a.ndim != b.ndim:
        a, b = a._same(_aligned(a, b)), b._same(_aligned(b, a))
    u, v = a.value, b.value
    parts = [(u * v)[None]]
    for i, group in enumerate(a.groups):
        x, y = a.parts(i), b.parts(i)
        parts.append(u * y[0] + x[0] * v)
        if group.collapsed:
            parts.append(u * y[1] + 2.0 * (x[0] * y[0]).sum(dim=0, keepdim=True) + x[1] * v)
            continue
        for k in range(2, group.order + 1):
            total = u * y[k - 1] + x[k - 1] * v
            for j in range(1, k):
                total = torch.add(total, x[j - 1] * y[k - j - 1], alpha=math.comb(k, j))
            parts.append(total)
    return a._same(torch.cat(parts))


def _power(s: Any, exponent: Any) -> Series:
    if not isinstance(exponent, int | float):
        raise UnsupportedOperation("power with a tensor as exponent")
    return s * s if exponent == 2 else _smooth(power(exponent))(s)


def _matmul(s: Any, other: Any) -> Series:
    if isinstance(other, Series):
        raise UnsupportedOperation("product of matrices that depend on the points")
    return s._same(s.data @ other)


def _linear(s: Any, weight: Tensor, bias: Tensor | None = None) -> Series:
    if not isinstance(s, Series):
        raise UnsupportedOperation("weights that depend on the points")
    outputs = nn.functional.linear(s.data, weight) if bias is None else _Affine.apply(s.data, weight, bias)
    record(AffineMap([weight] if bias is None else [weight, bias], s.data, outputs))
    return s._same(outputs)


def _lerp(a: Any, b: Any, weight: Any) -> Series:
    return a + weight * (b - a)


def _cat(parts: Sequence[Any], dim: int = 0) -> Series:
    series = _all_series(parts)
    return series[0]._same(torch.cat([p.data for p in series], dim=dim + 1 if dim >= 0 else dim))


def _stack(parts: Sequence[Any], dim: int = 0) -> Series:
    series = _all_series(parts)
    return series[0]._same(torch.stack([p.data for p in series], dim=dim + 1 if dim >= 0 else dim))


def _all_series(parts: Sequence[Any]) -> list[Series]:
    """Constants among the parts as series whose derivatives vanish."""
    like = next(p for p in parts if isinstance(p, Series))

    def lifted(p: Any) -> Series:
        if isinstance(p, Series):
            return p
        return like._same(torch.cat([p[None], p.new_zeros(like.data.shape[0] - 1, *p.shape)]))

    return [lifted(p) for p in parts]


def _sum(s: Series, dim: Any = None, keepdim: bool = False) -> Series:
    dims = tuple(range(s.ndim)) if dim is None else (dim if isinstance(dim, tuple | list) else (dim,))
    return s._same(s.data.sum(dim=[d + 1 if d >= 0 else d for d in dims], keepdim=keepdim))


def _mean(s: Series, dim: int, keepdim: bool = False) -> Series:
    return _sum(s, dim, keepdim) / s.shape[dim]


def _prod(s: Series, dim: int, keepdim: bool = False) -> Series:
    dim = dim if dim >= 0 else dim + s.ndim
    factors = [s._same(f) for f in s.data.unbind(dim + 1)]
    total = factors[0]
    for factor in factors[1:]:
        total = total * factor
    return _unsqueeze(total, dim) if keepdim else total


def _gelu(s: Series, approximate: str = "none") -> Series:
    if approximate != "none":
        raise UnsupportedOperation("the tanh approximation of GELU")
    return _smooth(SMOOTH["gelu"])(s)


def _abs(s: Series) -> Series:
    return s * torch.sign(s.value)


def _reshape(s: Series, *shape: Any) -> Series:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list | torch.Size) else shape
    return s._same(s.data.reshape(s.data.shape[0], *sizes))


def _unsqueeze(s: Series, dim: int) -> Series:
    return s._same(s.data.unsqueeze(dim + 1 if dim >= 0 else dim))


def _squeeze(s: Series, dim: int) -> Series:
    return s._same(s.data.squeeze(dim + 1 if dim >= 0 else dim))


def _expand(s: Series, *shape: Any) -> Series:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list | torch.Size) else shape
    return s._same(_expanded(s, sizes))


def _to(s: Series, *args: Any, **kwargs: Any) -> Series:
    data = s.data.to(*args, **kwargs)
    return s if data is s.data else s._same(data)


def _chosen(condition: Tensor, a: Any, b: Any) -> Series:
    if isinstance(condition, Series):
        raise UnsupportedOperation("a condition that is a series")
    like = a if isinstance(a, Series) else b
    a, b = _all_series([torch.full_like(like.value, p) if isinstance(p, float | int) else p for p in (a, b)])
    return a._same(torch.where(condition, a.data, b.data))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _smooth(smooth) for name, smooth in SMOOTH.items() if hasattr(torch, name)},
    "sqrt": lambda s: _power(s, 0.5),
    "square": lambda s: _multiply(s, s),
    "reciprocal": lambda s: _power(s, -1),
    "abs": _abs,
    "neg": lambda s: -s,
    "sum": _sum,
    "mean": _mean,
    "prod": _prod,
    "reshape": _reshape,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "pow": _power,
}

_METHODS: dict[str, Callable[..., Any]] = _FUNCTIONS | {
    "view": _reshape,
    "expand": _expand,
    "to": _to,
    "double": lambda s: _to(s, torch.float64),
    "contiguous": lambda s: s._same(s.data.contiguous()),
    "detach": lambda s: s._same(s.data.detach()),
    "new_zeros": lambda s, *size, **kwargs: s.data.new_zeros(*size, **kwargs),
    "new_ones": lambda s, *size, **kwargs: s.data.new_ones(*size, **kwargs),
    "new_tensor": lambda s, *args, **kwargs: s.data.new_tensor(*args, **kwargs),
}


def _swapped(rule: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A commutative rule that takes the series first."""
    return lambda a, b: rule(a, b) if isinstance(a, Series) else rule(b, a)


def _difference(a: Any, b: Any) -> Series:
    return a - b if isinstance(a, Series) else -b + a


def _quotient(a: Any, b: Any) -> Series:
    return a / b if isinstance(a, Series) else b.__rtruediv__(a)


_RULES: dict[Any, Callable[..., Any]] = {
    **{getattr(torch, name): rule for name, rule in _FUNCTIONS.items()},
    **{f: _swapped(_add) for f in (torch.add, Tensor.add, Tensor.__radd__)},
    **{f: _swapped(_multiply) for f in (torch.mul, Tensor.mul, Tensor.__rmul__)},
    **{f: _difference for f in (torch.sub, Tensor.sub)},
    **{f: _quotient for f in (torch.div, Tensor.div)},
    Tensor.__rsub__: lambda a, b: _difference(b, a),
    Tensor.__rtruediv__: lambda a, b: _quotient(b, a),
    torch.matmul: _matmul,
    torch.cat: _cat,
    torch.stack: _stack,
    torch.lerp: _lerp,
    torch.where: _chosen,
    torch.zeros_like: lambda s, **kwargs: torch.zeros_like(s.value, **kwargs),
    torch.ones_like: lambda s, **kwargs: torch.ones_like(s.value, **kwargs),
    torch.full_like: lambda s, value, **kwargs: torch.full_like(s.value, value, **kwargs),
    nn.functional.linear: _linear,
    nn.functional.gelu: _gelu,
    nn.functional.silu: lambda s, inplace=False: _smooth(SMOOTH["silu"])(s),
    nn.functional.softplus: _smooth(SMOOTH["softplus"]),
    nn.functional.tanh: _smooth(SMOOTH["tanh"]),
    nn.functional.sigmoid: _smooth(SMOOTH["sigmoid"]),
}

"""Fields with copies of their parameters, one for each point, so that the rows of a Jacobian can be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdelab.calculus import Field, differentiated_like
from pdelab.taylor import Series


class Copies:
    """A field that evaluates a module at each point with the point's own copies of some of its parameters.

    The points are those of a residual vector with n rows, row i of which depends on the points i, n + i, ...

    Args:
        field: a module, at one point as at many.
        parameters: those of its parameters that are copied.
        n: rows of the residual.
        most: rows whose copies are differentiated together.

    Raises:
        LookupError: a parameter is none of the module's.
    """

    def __init__(self, field: Field, parameters: Sequence[Tensor], n: int, most: int):
        named = dict(field.named_parameters()) if isinstance(field, nn.Module) else {}
        names = {id(p): name for name, p in named.items()}
        self._field: Any = field
        self._parameters = list(parameters)
        self._names = [names[id(p)] for p in parameters]
        self._n, self._most = n, most
        self._leaves: dict[int, list[Tensor]] = {}
        self._n_points = 0
        differentiated_like(field, self)

    def __call__(self, x: Any) -> Any:
        """(n, d) -> (n, m), points or their series."""
        self._n_points = len(x)
        pieces = [self._piece(x, start, stop) for start, stop in self._cuts()]
        if isinstance(x, Series):
            return Series(torch.cat(pieces, dim=1), x.groups)
        return torch.cat(pieces)

    def gradients(self, residual: Tensor, start: int, stop: int) -> list[Tensor]:
        """d residual[i] / d parameter for the rows start <= i < stop, which `most` cut off; (rows, k) for each."""
        leaves = [self._leaves[shift + start] for shift in range(0, self._n_points, self._n)]
        flat = [leaf for point in leaves for leaf in point]
        found = torch.autograd.grad(residual.sum(), flat, retain_graph=True, allow_unused=True)
        blocks = [
            residual.new_zeros(stop - start, leaf[0].numel()) if g is None else g.reshape(stop - start, -1)
            for g, leaf in zip(found, flat, strict=True)
        ]
        m = len(self._parameters)
        return [torch.stack(blocks[i::m]).sum(dim=0) if len(blocks) > m else blocks[i] for i in range(m)]

    def influences(self, residual: Tensor, row: int) -> Tensor:
        """The largest derivative of one row in the copies of each point, (points,)."""
        starts = sorted(self._leaves)
        flat = [leaf for start in starts for leaf in self._leaves[start]]
        found = torch.autograd.grad(residual[row], flat, retain_graph=True, allow_unused=True)
        sizes = [
            residual.new_zeros(len(leaf)) if g is None else g.reshape(len(leaf), -1).abs().amax(dim=1)
            for g, leaf in zip(found, flat, strict=True)
        ]
        m = len(self._parameters)
        return torch.cat([torch.stack(sizes[i * m : (i + 1) * m]).amax(dim=0) for i in range(len(starts))])

    def _cuts(self) -> Iterator[tuple[int, int]]:
        for shift in range(0, self._n_points, self._n):
            for start in range(0, self._n, self._most):
                yield shift + start, shift + min(start + self._most, self._n)

    def _piece(self, x: Any, start: int, stop: int) -> Tensor:
        """Values at the points start ... stop; (channels, points, m) for a series."""
        if start not in self._leaves:
            self._leaves[start] = [
                p.detach().expand(stop - start, *p.shape).requires_grad_(True) for p in self._parameters
            ]
        leaves = self._leaves[start]
        if not isinstance(x, Series):
            return torch.func.vmap(lambda p, own: self._at(own, p[None])[0])(x[start:stop], leaves)
        kept = {
            owner: (value.data[:, start:stop] if isinstance(value, Series) else value[start:stop])
            for owner, value in (x.kept or {}).items()
        }
        owners = list(kept)
        axes = [1 if isinstance((x.kept or {})[owner], Series) else 0 for owner in owners]

        def at(data: Tensor, known: list[Tensor], own: list[Tensor]) -> Tensor:
            point = Series(data[:, None], x.groups)
            point.kept = {
                owner: Series(value[:, None], x.groups) if axis else value[None]
                for owner, value, axis in zip(owners, known, axes, strict=True)
            }
            return self._at(own, point).data[:, 0]

        apply = torch.func.vmap(at, in_dims=(1, axes, 0), out_dims=1)
        return apply(x.data[:, start:stop], [kept[owner] for owner in owners], leaves)

    def _at(self, own: Sequence[Tensor], x: Any) -> Any:
        return torch.func.functional_call(self._field, dict(zip(self._names, own, strict=True)), (x,))

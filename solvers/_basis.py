"""A network whose outputs are basis functions, with the hard constraints of a problem around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdelab.calculus import Coordinates, Sites, TaylorJet, Wanted
from pdelab.directions import Orders
from pdelab.pde import AbstractProblem
from pdelab.solvers._blocks import Blocks, partition_of_unity
from pdelab.solvers._hard import Constraints
from pdelab.solvers._nets import InputEmbedding
from pdelab.taylor import Series

Key = tuple[int, Orders]
"""A component and how often it is differentiated along each axis."""


class Basis(nn.Module):
    """N functions b_j of the coordinates; component c of a field is lift_c + factor_c sum over j of omega_cj b_j.

    Args:
        network: (n, d) -> (n, N).
        constraints: whose factors are used; those of all members of a family are the same.
        axes: names of the coordinates.
    """

    def __init__(self, network: nn.Module, constraints: Constraints, axes: Sequence[str]):
        super().__init__()
        self.network = network
        self._constraints, self._axes = constraints, tuple(axes)

    def features(self, points: Tensor, keys: Sequence[Key]) -> Tensor:
        """Derivatives of factor_c b_j at points (n, d), (D, n, N) float64: one pass in Taylor mode for all of them."""
        dtype = next(self.network.parameters()).dtype
        space = tuple(i for i, axis in enumerate(self._axes) if axis != "t")
        wanted = Wanted(frozenset(orders for _, orders in keys), False, space, len(self._axes))
        x = points.detach()
        plain = not any(any(orders) for _, orders in keys)
        sites = None if plain else Sites(x.to(dtype), wanted)
        at = x.to(dtype) if sites is None else sites.series
        raw = self.network(at)
        found: dict[int, Tensor | TaylorJet] = {}
        for component in {c for c, _ in keys}:
            factor = self._constraints.factor(at, component)  # type: ignore[arg-type]
            values = raw if factor is None else factor[:, None] * raw
            if sites is not None:
                assert isinstance(values, Series)
                values = TaylorJet(self.network, sites, values, [str(j) for j in range(values.shape[1])], self._axes)
            found[component] = values
        columns = [f if isinstance(f := found[c], Tensor) else f.every(orders) for c, orders in keys]
        return torch.stack(columns).to(torch.float64)


class ProfileEmbedding(InputEmbedding):
    """The coordinates, and the profiles of a problem as further inputs, so that functions of them are within reach.

    A profile knows how the solution leaves data that do not fit together, on scales that no smooth network has.

    Args:
        problem: any member of the family; the inputs are those of this one, for all.
        waves: see `InputEmbedding`.
    """

    def __init__(self, problem: AbstractProblem, waves: int):
        super().__init__(problem, waves=waves)
        self._axes = problem.axes
        self._profiles = [p for c in problem.components if (p := problem.profile(c)) is not None]
        self.n_outputs += len(self._profiles)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, n_outputs)."""
        found = super().forward(x)
        if not self._profiles:
            return found
        p = Coordinates(x, self._axes)
        return torch.cat([found, *(2.0 * profile(p)[:, None] - 1.0 for profile in self._profiles)], dim=1)


class ExpertsField(nn.Module):
    """lift + factor sum over j of omega_kcj b_j with the coefficients of the expert k of each point, (n, d) -> (n, m).

    Args:
        basis: of all experts.
        constraints: of the problem.
        blocks: of the experts.
        omega: coefficients, (K, C, N).
        blend: width of the zones where experts go over into each other, as a share of their blocks; 0 for none.
    """

    omega: Tensor

    def __init__(self, basis: Basis, constraints: Constraints, blocks: Blocks, omega: Tensor, blend: float = 0.0):
        super().__init__()
        self._blend = blend
        self.basis, self.blocks = basis, blocks
        self._constraints = constraints
        self.register_buffer("omega", omega.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        raw = self.basis.network(x.to(next(self.basis.network.parameters()).dtype)).to(self.omega.dtype)
        x = x.to(self.omega.dtype)
        if self._blend and len(self.blocks) > 1:
            # The basis is the same for all: a blend of fields is a blend of coefficients.
            K, C, N = self.omega.shape
            weights = partition_of_unity(self.blocks, x, self._blend)
            omega = (weights @ self.omega.reshape(K, C * N)).reshape(len(x), C, N)
        else:
            omega = self.omega[self.blocks.label(x.value if isinstance(x, Series) else x)]
        return self._constraints(x, (raw[:, None] * omega).sum(dim=2))


def keys_of(problem: AbstractProblem, derivatives: Sequence[tuple[str, tuple[str, ...]]]) -> list[Key]:
    """Components and axes by name as keys."""
    return [
        (problem.components.index(c), tuple(along.count(axis) for axis in problem.axes)) for c, along in derivatives
    ]

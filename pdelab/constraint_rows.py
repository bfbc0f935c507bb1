"""Rows of non-linear least-squares problems in the coefficients of a basis, for many instances and experts at once.

    z_d(x) = offset_d(x) + sum over j of features_dj(x) omega_{c(d) j}       values and derivatives of a component
    rows   = weight * function(z)                                            equations, conditions: pointwise in z
    jumps  = weight * (features_left omega_k - features_right omega_l)        between two experts, linear

The features are those of a network; `pdelab.constraint_layer` solves for omega and differentiates the solution.
Axes: S instances (1 where all share it), K experts, D derivatives, E equations, m points, C components, N functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdelab.errors import InputError, SettingsError, ShapeError, check_shape
from pdelab.team import Team

Pointwise = Callable[[Tensor, Tensor], Tensor]
"""z (S, K, D, m) and the numbers of the instances (S,) -> (S, K, E, m): each point on its own, twice differentiable."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Equations or conditions at points.

    Attributes:
        function: of the values and derivatives.
        features: (S or 1, K, D, m, N).
        offset: what does not depend on omega, (S or 1, K, D, m).
        components: of which component each derivative is, D numbers.
        weight: factor of each row, >= 0, (S or 1, K, E, m); 0 where a point is there to fill up only.
    """

    function: Pointwise
    features: Tensor
    offset: Tensor
    components: tuple[int, ...]
    weight: Tensor

    def values(self, omega: Tensor) -> Tensor:
        """z for coefficients (S, K, C, N), (S, K, D, m)."""
        chosen = omega[:, :, list(self.components)]
        if len(self.features) > 1:
            return self.offset + torch.matmul(self.features, chosen[..., None])[..., 0]
        # The same features for all instances: one product of matrices instead of S of a matrix and a vector.
        return self.offset + torch.matmul(self.features[0], chosen.permute(1, 2, 3, 0)).permute(3, 0, 1, 2)

    def taken(self, which: Tensor) -> Rows:
        """Those of some instances."""
        return dataclasses.replace(
            self, features=_taken(self.features, which), offset=_taken(self.offset, which),
            weight=_taken(self.weight, which),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Jumps:
    """What two neighbouring experts must agree on, at points of their interface.

    Attributes:
        left, right: experts of each pair, (P,).
        features: of the left and of the right expert, (S or 1, P, D, q, N) each.
        components: of which component each of the D values or derivatives is.
        weight: factor of each row, (P, D, q).
    """

    left: Tensor
    right: Tensor
    features: tuple[Tensor, Tensor]
    components: tuple[int, ...]
    weight: Tensor

    def values(self, omega: Tensor) -> Tensor:
        """weight times the jumps for coefficients (S, K, C, N), (S, P, D, q)."""
        sides = []
        for features, experts in zip(self.features, (self.left, self.right), strict=True):
            chosen = omega[:, experts][:, :, list(self.components)]
            sides.append(torch.matmul(features, chosen[..., None])[..., 0])
        return self.weight * (sides[0] - sides[1])

    def taken(self, which: Tensor) -> Jumps:
        """Those of some instances."""
        left, right = (_taken(f, which) for f in self.features)
        return dataclasses.replace(self, features=(left, right))


@dataclass(frozen=True)
class Share:
    """Experts of several processes.

    Attributes:
        team: the processes.
        places: the numbers of the experts of each.
    """

    team: Team
    places: Sequence[Sequence[int]]

    @property
    def own(self) -> list[int]:
        """The experts of this process."""
        return list(self.places[self.team.rank])

    def gather(self, tensor: Tensor) -> Tensor:
        """(S, own experts, ...) -> (S, K, ...)."""
        return self.team.gather(tensor, self.places, 1)


@dataclass(frozen=True, eq=False)
class System:
    """Least-squares problems of S instances: half the sum of squares of all rows, of the jumps, and a ridge.

        F(omega) = 1/2 |rows|^2 + 1/2 |jumps|^2 + ridge/2 |omega|^2

    Without jumps the K experts of an instance are K problems of their own; with jumps they are one.

    Attributes:
        groups: at least one.
        jumps: between experts, or None.
        n_components: C.
        ridge: > 0 keeps coefficients of no consequence small.
        share: where several processes have the rows of some experts each and jumps join all of them: how the experts
            are shared out. The coefficients are those of all.

    Raises:
        ShapeError: shapes do not fit together.
        InputError: features, offsets or weights are not finite, or an expert has no rows.
        SettingsError: an expert has fewer rows than coefficients.
    """

    groups: tuple[Rows, ...]
    jumps: Jumps | None
    n_components: int
    ridge: float = 1e-8
    share: Share | None = None

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        K, N = self.groups[0].features.shape[1], self.n_basis
        n_rows = torch.zeros(K, dtype=torch.long, device=self.groups[0].features.device)
        for i, rows in enumerate(self.groups):
            D, m = len(rows.components), rows.features.shape[3]
            check_shape(f"rows {i}, features", rows.features, (None, K, D, m, N))
            check_shape(f"rows {i}, offset", rows.offset, (None, K, D, m))
            check_shape(f"rows {i}, weight", rows.weight, (None, K, None, m))
            for name in ("features", "offset", "weight"):
                _check_finite(f"rows {i}, {name}", getattr(rows, name))
            n_rows += (rows.weight > 0).amax(dim=0).sum(dim=(1, 2))
        sizes = {len(t) for rows in self.groups for t in (rows.features, rows.offset, rows.weight)} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"rows: expected one number of instances, got {sorted(sizes)}")
        if not n_rows.all():
            empty = [k for k in range(K) if not n_rows[k]]
            raise InputError(f"expert {empty[0]} has no points ({len(empty)} of {K} are empty); use fewer experts")
        if self.jumps is None and int(n_rows.min()) < self.width:
            k = int(n_rows.argmin())
            raise SettingsError(
                f"expert {k}: expected at least as many rows as its {self.width} coefficients, got {int(n_rows[k])}; "
                f"use more points, fewer basis functions or fewer experts"
            )
        if self.jumps is not None:
            check_shape("jumps, weight", self.jumps.weight, (None, len(self.jumps.components), None))
            for features in self.jumps.features:
                check_shape("jumps, features", features, (None, *self.jumps.weight.shape, N))
                _check_finite("jumps, features", features)

    @property
    def n_instances(self) -> int:
        """S."""
        return max(len(t) for rows in self.groups for t in (rows.features, rows.offset, rows.weight))

    @property
    def n_experts(self) -> int:
        """K."""
        return self.groups[0].features.shape[1] if self.share is None else sum(map(len, self.share.places))

    @property
    def n_basis(self) -> int:
        """N."""
        return self.groups[0].features.shape[-1]

    @property
    def width(self) -> int:
        """Coefficients of an expert, C N."""
        return self.n_components * self.n_basis

    def tensors(self) -> list[Tensor]:
        """What the solution can be differentiated in: features and offsets of the rows, features of the jumps."""
        found = [t for rows in self.groups for t in (rows.features, rows.offset)]
        return found + (list(self.jumps.features) if self.jumps else [])

    def replaced(self, tensors: list[Tensor]) -> System:
        """The same with other `tensors`."""
        rest = list(tensors)
        groups = tuple(dataclasses.replace(rows, features=rest.pop(0), offset=rest.pop(0)) for rows in self.groups)
        jumps = dataclasses.replace(self.jumps, features=(rest[0], rest[1])) if self.jumps else None
        return _unchecked(groups, jumps, self.n_components, self.ridge, self.share)

    def taken(self, which: Tensor) -> System:
        """Some of the instances."""
        groups = tuple(rows.taken(which) for rows in self.groups)
        return _unchecked(groups, self.jumps and self.jumps.taken(which), self.n_components, self.ridge, self.share)

    def own(self, omega: Tensor) -> Tensor:
        """The coefficients (S, K, C, N) of the experts whose rows are here."""
        return omega if self.share is None else omega[:, self.share.own]

    def objective(self, omega: Tensor, which: Tensor) -> Tensor:
        """F of each independent problem, (S, K), or (S, 1) with jumps; omega is (S, K, C, N)."""
        own = self.own(omega)
        total = 0.5 * self.ridge * own.square().sum(dim=(2, 3))
        for rows in self.groups:
            r = rows.weight * rows.function(rows.values(own), which)
            total = total + 0.5 * r.square().sum(dim=(2, 3))
        if self.jumps is None:
            return total
        if self.share is not None:
            total = self.share.gather(total)
        jumps = self.jumps.values(omega).square().sum(dim=(1, 2, 3))
        return (total.sum(dim=1) + 0.5 * jumps)[:, None]

    def derivatives(self, omega: Tensor, which: Tensor, exact: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F (S, G), its gradient (S, G, n) and a Hessian (S, G, n, n): G = K problems of n = C N, or 1 of n = K C N.

        Args:
            omega: (S, K, C, N).
            which: numbers of the instances, (S,).
            exact: for each problem (S, G): the Hessian itself, or its Gauss-Newton part J'J.
        """
        curved = bool(exact.any())
        exact = exact.expand(-1, self.own(omega).shape[1])
        own = self.own(omega)
        S, K, C, N = own.shape
        flat = own.reshape(S, K, C * N)
        value = 0.5 * self.ridge * flat.square().sum(dim=2)
        gradient = self.ridge * flat
        hessian = (self.ridge * torch.eye(C * N, dtype=omega.dtype, device=omega.device)).repeat(S, K, 1, 1)
        for rows in self.groups:
            r, first, second = pointwise(rows, rows.values(own), which, curved)
            value = value + 0.5 * r.square().sum(dim=(2, 3))
            J = _jacobian(rows, first, C)
            gradient = gradient + torch.matmul(J.transpose(-1, -2), r.flatten(2)[..., None])[..., 0]
            hessian = hessian + torch.matmul(J.transpose(-1, -2), J)
            for (d, e), curvature in second.items():
                curvature = torch.where(exact[..., None], curvature, 0.0)
                block = torch.matmul(
                    (rows.features[:, :, d] * curvature[..., None]).transpose(-1, -2), rows.features[:, :, e]
                )
                c, b = rows.components[d], rows.components[e]
                hessian[..., c * N : (c + 1) * N, b * N : (b + 1) * N] += block
        if self.jumps is None:
            return value, gradient, hessian
        if self.share is not None:
            packed = torch.cat([value[..., None], gradient, hessian.flatten(2)], dim=2)
            packed = self.share.gather(packed)
            value, gradient, hessian = packed[..., 0], packed[..., 1 : 1 + C * N], packed[..., 1 + C * N :]
            hessian = hessian.reshape(*hessian.shape[:2], C * N, C * N)
        return self._joined(value, gradient, hessian, omega)

    def _joined(self, value: Tensor, gradient: Tensor, hessian: Tensor, omega: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The experts of an instance as one problem."""
        assert self.jumps is not None
        S, K, C, N = omega.shape
        t = self.jumps.values(omega)
        value = (value.sum(dim=1) + 0.5 * t.square().sum(dim=(1, 2, 3)))[:, None]
        whole = hessian.new_zeros(S, K, K, C * N, C * N)
        whole[:, range(K), range(K)] = hessian
        left, right = (_jump_rows(self.jumps, f, C) for f in self.jumps.features)
        sides = ((self.jumps.left, left, 1.0), (self.jumps.right, right, -1.0))
        for a, J_a, sign_a in sides:
            along = torch.matmul(J_a.transpose(-1, -2), t.flatten(2)[..., None])[..., 0]
            gradient = gradient.index_add(1, a, along, alpha=sign_a)
            for b, J_b, sign_b in sides:
                blocks = torch.matmul(J_a.transpose(-1, -2), J_b).expand(S, -1, -1, -1)
                whole.view(S, K * K, C * N, C * N).index_add_(1, a * K + b, blocks, alpha=sign_a * sign_b)
        n = K * C * N
        return value, gradient.reshape(S, 1, n), whole.transpose(2, 3).reshape(S, 1, n, n)


def pointwise(
    rows: Rows, z: Tensor, which: Tensor, curved: bool
) -> tuple[Tensor, Tensor, dict[tuple[int, int], Tensor]]:
    """Weighted rows and what their derivatives in z are.

    Returns:
        r: weight * function, (S, K, E, m).
        first: its derivatives, (S, K, E, D, m).
        second: for d, e: the sum over the equations of r times its second derivative, (S, K, m); those that vanish
            are left out. Empty unless `curved`.
    """
    D = z.shape[2]
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        r = rows.weight * rows.function(z, which)
        first = []
        for e in range(r.shape[2]):
            slope_e = _gradient(r[:, :, e].sum(), z, curved)
            first.append(torch.zeros_like(z) if slope_e is None else slope_e)
        second: dict[tuple[int, int], Tensor] = {}
        if curved:
            slope = torch.stack([r[:, :, e].detach()[:, :, None] * f for e, f in enumerate(first)]).sum(dim=0)
            for d in range(D):
                found = _gradient(slope[:, :, d].sum(), z, False)
                if found is not None:
                    second |= {(d, e): found[:, :, e] for e in range(D) if bool(found[:, :, e].any())}
    return r.detach(), torch.stack([f.detach() for f in first], dim=2), second


def _gradient(scalar: Tensor, z: Tensor, keep: bool) -> Tensor | None:
    if not scalar.requires_grad:
        return None
    return torch.autograd.grad(scalar, z, create_graph=keep, retain_graph=True, allow_unused=True)[0]


def _jacobian(rows: Rows, first: Tensor, n_components: int) -> Tensor:
    """J of the weighted rows in omega, (S, K, E m, C N)."""
    S, K, E, _, m = first.shape
    N = rows.features.shape[-1]
    J = first.new_zeros(S, K, E, m, n_components, N)
    for e in range(E):
        for d, c in enumerate(rows.components):
            if bool(first[:, :, e, d].any()):
                J[:, :, e, :, c] += first[:, :, e, d, :, None] * rows.features[:, :, d]
    return J.reshape(S, K, E * m, n_components * N)


def _jump_rows(jumps: Jumps, features: Tensor, n_components: int) -> Tensor:
    """Rows of one side in the coefficients of its expert, (S or 1, P, D q, C N)."""
    S, P, D, q, N = features.shape
    J = features.new_zeros(S, P, D, q, n_components, N)
    for d, c in enumerate(jumps.components):
        J[:, :, d, :, c] = jumps.weight[None, :, d, :, None] * features[:, :, d]
    return J.reshape(S, P, D * q, n_components * N)


def _taken(tensor: Tensor, which: Tensor) -> Tensor:
    return tensor if len(tensor) == 1 else tensor[which]


def _check_finite(name: str, tensor: Tensor) -> None:
    finite = torch.isfinite(tensor.detach())
    if not finite.all():
        raise InputError(f"{name}: {int((~finite).sum())} of {tensor.numel()} numbers are not finite")


def _unchecked(
    groups: tuple[Rows, ...], jumps: Jumps | None, n_components: int, ridge: float, share: Share | None
) -> System:
    """A system whose parts were checked before."""
    system = object.__new__(System)
    values = {"groups": groups, "jumps": jumps, "n_components": n_components, "ridge": ridge, "share": share}
    for name, value in values.items():
        object.__setattr__(system, name, value)
    return system

"""Separable physics-informed Gaussians: sums of products of functions of one axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from pdelab.balance import Fixed
from pdelab.errors import check_range
from pdelab.pde import AbstractProblem, Condition, count_equations
from pdelab.schedule import Phase
from pdelab.solution import Solution
from pdelab.solver import AbstractInstanceSolver, Context
from pdelab.solvers._automatic import automatic
from pdelab.solvers._gaussians import Gaussians
from pdelab.solvers._nets import MLP, InputEmbedding, NetworkField
from pdelab.solvers._pointwise import Part, Recipe, built_in, train
from pdelab.solvers._residuals import KINDS, Points
from pdelab.solvers._separable import SeparableField

CONDITION_WEIGHT = 100.0


@dataclass(frozen=True)
class SPIG(AbstractInstanceSolver):
    """Separable physics-informed Gaussians, for boxes in three axes and more.

        u = sum_r prod_a NN_ar(FE_a(x_a)),    FE_aj(x) = sum_i w_aji exp(-(x - mu_aji)^2 / (2 sigma_aji^2))

    The points are those of a tensor grid, so that the features of an axis are asked for at its coordinates only, where
    `pig` evaluates every Gaussian at every point. Points that are drawn otherwise work too, more slowly.

    Args:
        n_gaussians: N, of each feature on each axis; centres at even distances.
        n_features: k.
        hidden: units of the one hidden layer of each axis, tanh.
        rank: R, terms of the sum.
        width: sigma at first, in distances of the centres.
        floor: least sigma, as a share of the axis.
        n_interior, n_boundary, n_initial, sampler, resample_every: collocation points, as in `pinn`; "grid" takes at
            least n_interior, the same number along each axis.
        optimizer, learning_rate, weights, constraints: as in `pinn`.

    Source: N. Kang, J. Oh, Y. Hong, E. Park, ICLR 2025, arXiv:2412.05994, for which no code was published: sizes and
    first values are ours.
    """

    n_gaussians: int = 24
    n_features: int = 4
    hidden: int = 16
    rank: int = 12
    width: float = 1.5
    floor: float = 0.005
    n_interior: int = 4096
    n_boundary: int = 512
    n_initial: int = 256
    sampler: Literal["grid", "sobol", "lhs", "uniform", "adaptive"] = "grid"
    resample_every: int | None = None
    optimizer: Literal["auto", "adam", "lbfgs", "ssbroyden", "gauss-newton"] = "auto"
    learning_rate: float = 5e-3
    weights: Mapping[str, float] = field(default_factory=dict)
    constraints: Literal["soft", "hard"] = "hard"

    name: ClassVar[str] = "spig"
    accepts: ClassVar = AbstractProblem
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        for key in ("n_gaussians", "n_features", "hidden", "rank", "n_interior", "n_boundary", "n_initial"):
            check_range(key, getattr(self, key), least=1)
        for key in ("floor", "learning_rate"):
            check_range(key, getattr(self, key), above=0.0)
        check_range("width", self.width, above=self.floor * self.n_gaussians)
        if self.resample_every is not None:
            check_range("resample_every", self.resample_every, least=0)

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """See `AbstractSolver.run`."""
        weights = dict.fromkeys(KINDS.values(), CONDITION_WEIGHT) | dict(self.weights)
        recipe = Recipe(
            lambda slab, dtype: self._field(slab, context, dtype),
            lambda trained: [],
            self._phases,
            lambda: Fixed(weights),
            Points(self.n_interior, self.n_boundary, self.n_initial, self.sampler, 0),
            self.resample_every,
            0.0,
            1,
            (Part(torch.float64),),
        )
        return train(problem, recipe, context)

    def _field(
        self, problem: AbstractProblem, context: Context, dtype: torch.dtype
    ) -> tuple[nn.Module, Callable[[Condition], bool]]:
        """A new field, with what can be built in, and which conditions remain for the loss."""
        embedding = InputEmbedding(problem)
        groups = embedding.columns()
        factors = [self._factor(len(group), len(problem.components)) for group in groups]
        separable = SeparableField(factors, groups, self.rank)
        plain = NetworkField(embedding, separable).to(context.device, dtype)
        return built_in(plain, problem, self.constraints == "hard", True)

    def _factor(self, n_inputs: int, n_components: int) -> nn.Module:
        """f of one axis, or of the circle that a period becomes."""
        k, N = self.n_features, self.n_gaussians
        # Features start shifted against each other by a share of the distance.
        middles = (torch.arange(N)[None] + (torch.arange(k)[:, None] + 0.5) / k).double() / N
        centres, length = 2.0 * middles[..., None] - 1.0, 2.0
        if n_inputs == 2:
            angle = 2.0 * torch.pi * middles
            centres, length = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1), 2.0 * torch.pi
        widths = torch.full((n_inputs,), self.width * length / N, dtype=torch.float64)
        gaussians = Gaussians(centres, widths, torch.full_like(widths, self.floor * length), False, n_inputs == 1)
        with torch.no_grad():
            # Features of size one: products of small ones would have no gradient to begin with.
            gaussians.weights.normal_(std=(self.width * torch.pi**0.5) ** -0.5)
        return nn.Sequential(gaussians, MLP(k, self.rank * n_components, self.hidden, 1, torch.tanh))

    def _phases(self, problem: AbstractProblem, n_parameters: int) -> list[Phase]:
        if self.optimizer == "auto":
            return automatic(n_parameters, self.n_interior * count_equations(problem), self.learning_rate)
        if self.optimizer == "adam":
            return [Phase("adam", 1.0, self.learning_rate, "exponential")]
        return [Phase(self.optimizer, learning_rate=1.0)]

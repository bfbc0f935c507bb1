"""Physics-informed Gaussians: sums of moving Gaussians as the input of a small network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pdelab import sampling
from pdelab.balance import Fixed
from pdelab.errors import SettingsError, check_range
from pdelab.lines import Lines
from pdelab.pde import AbstractProblem, Condition, count_equations
from pdelab.schedule import Phase
from pdelab.solution import Solution
from pdelab.solver import AbstractInstanceSolver, Context
from pdelab.solvers._automatic import GAUSS_NEWTON_LIMIT, automatic
from pdelab.solvers._density import control_density
from pdelab.solvers._ellipses import ellipses, joined
from pdelab.solvers._gaussians import Gaussians
from pdelab.solvers._hard import ConstrainedField
from pdelab.solvers._linear_rows import nonlinear_part
from pdelab.solvers._nets import MLP, InputEmbedding, NetworkField
from pdelab.solvers._pointwise import Part, Recipe, built_in, train, untimely
from pdelab.solvers._residuals import CAUSAL_PARTS, KINDS, Points, ResidualLoss
from pdelab.solvers._slabs import JoinedField

CONDITION_WEIGHT = 100.0
HIDDEN, LINEAR = 16, 600
WIDE, WIDER = 1.5, 2.5
QUASI_NEWTON = ("lbfgs", "ssbfgs", "ssbroyden")
DENSITY_POINTS = 4096
_SEED = 64951


class GaussianNetwork(nn.Module):
    """Features and a network of one hidden layer, or the features alone, (n, d) -> (n, m).

    Args:
        gaussians: the features.
        network: k -> m; None where there are as many features as components.
    """

    def __init__(self, gaussians: Gaussians, network: MLP | None):
        super().__init__()
        self.gaussians, self.network = gaussians, network

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, m)."""
        features = self.gaussians(x)
        return self.network(features) if self.network else features

    def linear(self) -> list[Tensor]:
        """The parameters in which the output is linear."""
        return list(self.network.head.parameters()) if self.network else [self.gaussians.weights]


@dataclass(frozen=True)
class Size:
    """How many Gaussians each feature has, how many features there are, and units of the network, 0 for none."""

    gaussians: int
    features: int
    hidden: int


@dataclass(frozen=True)
class PIG(AbstractInstanceSolver):
    """Physics-informed Gaussians: moving bumps, alone or as the input of a small network.

        u = NN(FE),    FE_j(x) = sum_i w_ji exp(-(x - mu_ji)' Sigma_ji^-1 (x - mu_ji) / 2)

    minimises the mean squares of the residuals, as `pinn` does, over centres, widths, weights and network. Axes are
    scaled to [-1, 1], periodic ones become cosine and sine. For smooth fields with local detail in two or three axes.

    Args:
        n_gaussians: N, of each feature; None means 600 without a network (shared out to the components), else as many
            as Gauss-Newton takes whole: 1000 parameters.
        n_features: k; not used without a network.
        hidden: units of the network's one hidden layer, tanh; 0 leaves it out: the components are features themselves.
            None means 0 for linear problems and 16 for others.
        covariance: "diagonal" or "full".
        moves: what of the Gaussians is trained beside their weights: "all", "widths" (and covariances), or "nothing".
        width: sigma at first, in spacings of the Gaussians of a feature, (2^d / N)^(1/d) where each axis is scaled to
            [-1, 1]; one for all axes or one for each (time last). None means 2.5 without a network and 1.5 with one.
        floor: least sigma, as a share of the domain's length along each axis.
        n_interior, n_boundary, n_initial, sampler, resample_every: collocation points, as in `pinn`.
        optimizer: "auto" is variable-projection without a network, else what `pinn` chooses for as many parameters.
        learning_rate, schedule: of adam.
        weights, constraints, causality, n_slabs: as in `pinn`.
        rounds: parts of equal budget; before each but the first a tenth of the Gaussians goes where residual times
            width is largest (`_density`).

    Source: N. Kang, J. Oh, Y. Hong, E. Park, ICLR 2025, arXiv:2412.05994: there with a network, N of 100 to 4000, no
    floor, soft conditions, L-BFGS or Adam. Without a network and fixed, this is collocation with radial basis
    functions: E. Kansa, Comput. Math. Appl. 19 (1990) 147-161.
    """

    n_gaussians: int | None = None
    n_features: int = 4
    hidden: int | None = None
    covariance: Literal["diagonal", "full"] = "diagonal"
    moves: Literal["all", "widths", "nothing"] = "all"
    width: float | tuple[float, ...] | None = None
    floor: float = 0.005
    n_interior: int = 4096
    n_boundary: int = 256
    n_initial: int = 256
    sampler: Literal["sobol", "lhs", "uniform", "adaptive"] = "adaptive"
    resample_every: int | None = None
    optimizer: Literal[
        "auto", "adam", "lbfgs", "ssbfgs", "ssbroyden", "gauss-newton", "variable-projection", "spring"
    ] = "auto"
    learning_rate: float = 1e-2
    schedule: Literal["constant", "exponential", "cosine", "step"] = "exponential"
    weights: Mapping[str, float] = field(default_factory=dict)
    constraints: Literal["soft", "hard"] = "hard"
    causality: float = 0.0
    n_slabs: int = 1
    rounds: int = 1

    name: ClassVar[str] = "pig"
    accepts: ClassVar = AbstractProblem
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        for key in ("n_features", "n_interior", "n_boundary", "n_initial", "n_slabs", "rounds"):
            check_range(key, getattr(self, key), least=1)
        if self.n_gaussians is not None:
            check_range("n_gaussians", self.n_gaussians, least=1)
        if self.hidden is not None:
            check_range("hidden", self.hidden, least=0)
        for key in ("floor", "learning_rate"):
            check_range(key, getattr(self, key), above=0.0)
        for width in self.width if isinstance(self.width, tuple) else (self.width,):
            if width is not None:
                check_range("width", width, above=0.0)
        if self.resample_every is not None:
            check_range("resample_every", self.resample_every, least=0)
        check_range("causality", self.causality, least=0.0)
        if self.causality and self.n_interior < CAUSAL_PARTS:
            raise SettingsError(f"n_interior: causal weights need at least {CAUSAL_PARTS}, got {self.n_interior}")

    def refuses(self, problem: AbstractProblem) -> str:
        """Settings that do not go with the problem."""
        if reason := untimely(problem, self.n_slabs, self.causality):
            return reason
        d = len(problem.axes)
        if isinstance(self.width, tuple) and len(self.width) != d:
            return f"width = {self.width} does not give one number for each of its {d} axes"
        size = self._size(problem)
        widths, floor = self._widths(problem, size)
        if not (widths > floor).all():
            return (
                f"sigma would be {min(widths) / 2:.3g} of the domain's length at first, not above its floor of "
                f"{self.floor}; use wider or fewer than {size.gaussians} Gaussians, or a lower floor"
            )
        return ""

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """See `AbstractSolver.run`."""
        weights = dict.fromkeys(KINDS.values(), CONDITION_WEIGHT) | dict(self.weights)
        starts: list[Lines | None] = []

        def begun(slab: AbstractProblem, dtype: torch.dtype) -> tuple[nn.Module, Callable[[Condition], bool]]:
            field, wanted = self._field(slab, context, dtype)
            starts.append(_ellipses(field))
            return field, wanted

        recipe = Recipe(
            begun,
            lambda trained: _network(trained).linear(),
            self._phases,
            lambda: Fixed(weights),
            Points(self.n_interior, self.n_boundary, self.n_initial, self.sampler, 0),
            self.resample_every,
            self.causality,
            self.n_slabs,
            (Part(torch.float64, 1.0 / self.rounds),) * self.rounds,
            _renewed,
        )
        solution = train(problem, recipe, context)
        assert isinstance(solution.field, nn.Module)
        trained = list(solution.field.fields) if isinstance(solution.field, JoinedField) else [solution.field]
        both = {"gaussians": [_ellipses(f) for f in trained], "gaussians_at_first": starts[:: self.rounds]}
        lines = {name: joined([p for p in parts if p]) for name, parts in both.items() if all(parts)}
        return dataclasses.replace(solution, lines=lines)

    def _field(
        self, problem: AbstractProblem, context: Context, dtype: torch.dtype
    ) -> tuple[nn.Module, Callable[[Condition], bool]]:
        """A new field, with what can be built in, and which conditions remain for the loss."""
        embedding = InputEmbedding(problem)
        m, size = len(problem.components), self._size(problem)
        k, N = size.features, size.gaussians
        places = torch.as_tensor(sampling.interior(problem, k * N, [context.seed, _SEED], "sobol"))
        centres = embedding(places).reshape(N, k, -1).movedim(1, 0)
        affine = embedding.n_outputs == places.shape[1]
        widths, floor = (embedding.lengths(torch.as_tensor(w)) for w in self._widths(problem, size))
        gaussians = Gaussians(centres, widths, floor, self.covariance == "full", affine)
        gaussians.centres.requires_grad_(self.moves == "all")
        gaussians.raw_widths.requires_grad_(self.moves != "nothing")
        if gaussians.shears is not None:
            gaussians.shears.requires_grad_(self.moves != "nothing")
        network = MLP(k, m, size.hidden, 1, torch.tanh) if size.hidden else None
        plain = NetworkField(embedding, GaussianNetwork(gaussians, network)).to(context.device, dtype)
        return built_in(plain, problem, self.constraints == "hard", True)

    def _size(self, problem: AbstractProblem) -> Size:
        """What None stands for."""
        linear = self.hidden is None and not nonlinear_part(problem, _SEED)
        hidden = self.hidden if self.hidden is not None else (0 if linear else HIDDEN)
        m, d = len(problem.components), InputEmbedding(problem).n_outputs
        k = self.n_features if hidden else m
        if self.n_gaussians is not None:
            return Size(self.n_gaussians, k, hidden)
        if not hidden:
            return Size(LINEAR // m, k, hidden)
        network = (k + 1) * hidden + (hidden + 1) * m
        each = 1 + 2 * d + (d * (d - 1) // 2 if self.covariance == "full" else 0)
        return Size(max(1, (GAUSS_NEWTON_LIMIT - network) // (k * each)), k, hidden)

    def _widths(self, problem: AbstractProblem, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """sigma at first and the least one, along each axis scaled to [-1, 1], (d,)."""
        d = len(problem.axes)
        width = self.width if self.width is not None else (WIDE if size.hidden else WIDER)
        spacing = (2.0**d / size.gaussians) ** (1.0 / d)
        return spacing * np.broadcast_to(width, d), np.full(d, 2.0 * self.floor)

    def _phases(self, problem: AbstractProblem, n_parameters: int) -> list[Phase]:
        if self.optimizer in QUASI_NEWTON:
            return [Phase(self.optimizer, learning_rate=1.0)]
        if self.optimizer != "auto":
            return [Phase(self.optimizer, 1.0, self.learning_rate, self.schedule)]
        if not self._size(problem).hidden:
            return [Phase("variable-projection")]
        return automatic(n_parameters, self.n_interior * count_equations(problem), self.learning_rate, self.schedule)


def _renewed(trained: nn.Module, objective: ResidualLoss) -> None:
    """Gaussians that do little go where the residual is large."""
    plain = _plain(trained)
    points, sizes = objective.sizes(DENSITY_POINTS)
    control_density(_network(trained).gaussians, plain.embedding(points), sizes)


def _ellipses(field: nn.Module) -> Lines | None:
    return ellipses(_network(field).gaussians, _plain(field).embedding)


def _plain(trained: nn.Module) -> NetworkField:
    plain = trained.network if isinstance(trained, ConstrainedField) else trained
    assert isinstance(plain, NetworkField)
    return plain


def _network(trained: nn.Module) -> GaussianNetwork:
    network = _plain(trained).network
    assert isinstance(network, GaussianNetwork)
    return network

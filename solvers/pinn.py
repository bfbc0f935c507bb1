"""Physics-informed neural networks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pdelab.balance import NTK, AbstractBalancing, Fixed, GradientNorm
from pdelab.errors import SettingsError, check_range
from pdelab.pde import AbstractProblem, Condition, count_equations
from pdelab.schedule import Phase
from pdelab.solution import Solution
from pdelab.solver import AbstractInstanceSolver, Context
from pdelab.solvers._automatic import (
    ADAM_SHARE,
    LEAST_SQUARES,
    automatic,
    first_order_first,
)
from pdelab.solvers._hard import ConstrainedField
from pdelab.solvers._linear_rows import nonlinear_part
from pdelab.solvers._nets import (
    ACTIVATIONS,
    MLP,
    FourierMLP,
    InputEmbedding,
    ModifiedMLP,
    NetworkField,
    Siren,
)
from pdelab.solvers._pointwise import Part, Recipe, built_in, train, untimely
from pdelab.solvers._residuals import CAUSAL_PARTS, KINDS, Points

CONDITION_WEIGHT = 100.0
WIDE = 100
_SEED = 90841
QUASI_NEWTON = ("lbfgs", "ssbfgs", "ssbroyden")

_log = logging.getLogger(__name__)


PARTS = {
    "float64": (Part(torch.float64),),
    "float32": (Part(torch.float32),),
    "mixed": (
        Part(torch.float32, ADAM_SHARE, slice(None, -1)),
        Part(torch.float64, 1.0 - ADAM_SHARE, slice(-1, None)),
    ),
}
"""Settings of `dtype` -> parts one after another."""


@dataclass(frozen=True)
class PINN(AbstractInstanceSolver):
    """Physics-informed neural network: a network trained on the residuals of equations and conditions.

        minimise  sum_i w_i mean |r_i|^2   over the weights (and the unknown coefficients)

    r_i are the equations at interior points and the conditions at boundary, initial and data points.

    Args:
        network: "mlp", "modified-mlp", "fourier" (random features, then an mlp) or "siren".
        width: units of each hidden layer.
        depth: hidden layers.
        activation: of mlp, modified-mlp and fourier.
        frequency: standard deviation of the features of fourier, or omega of siren.
        n_interior, n_boundary, n_initial: collocation points.
        sampler: of these points; "adaptive" draws interior points where the residual is large.
        resample_every: steps between draws of new points; 0 keeps the first ones; None means 200, and 20 for
            gauss-newton, spring and variable-projection, whose steps are dearer.
        optimizer: "auto" is, in float64 and with fixed weights, variable-projection for linear problems if the layers
            have at least 100 units, else gauss-newton for up to 1000 parameters and twice as many rows; otherwise
            adam for the first tenth of the budget, then ssbroyden for up to 4000 parameters, lbfgs beyond.
        learning_rate: of adam, adamw, soap and muon.
        schedule: of the learning rate, over the phase of these.
        balancing: "fixed" weights, or adapted every 100 steps of these ("gradient-norm", "ntk").
        weights: of the loss terms, by name; 1 for the residuals and 100 for the rest unless given.
        constraints: "hard" builds Dirichlet and initial conditions into the field, where they are
            compatible; the others remain loss terms.
        periodicity: "exact" builds periodic conditions into the field, "soft" makes them a loss term.
        causality: epsilon of the causal weights; 0 is off, 1 to 100 are useful.
        n_slabs: time slabs, trained one after another, each from the field before; share the budget.
        dtype: float64; float32 (faster by about 2, but too coarse for quasi-Newton methods); "mixed" is float32 for the
            first tenth of the budget, all phases but the last if there are several, then float64.

    Source: M. Raissi, P. Perdikaris, G. Karniadakis, J. Comput. Phys. 378 (2019) 686-707.
    """

    network: Literal["mlp", "modified-mlp", "fourier", "siren"] = "mlp"
    width: int = 16
    depth: int = 3
    activation: Literal["tanh", "sin", "gelu", "silu"] = "tanh"
    frequency: float = 1.0
    n_interior: int = 4096
    n_boundary: int = 256
    n_initial: int = 256
    sampler: Literal["sobol", "lhs", "uniform", "adaptive"] = "adaptive"
    resample_every: int | None = None
    optimizer: Literal[
        "auto",
        "adam",
        "adamw",
        "soap",
        "muon",
        "lbfgs",
        "ssbfgs",
        "ssbroyden",
        "gauss-newton",
        "variable-projection",
        "spring",
    ] = "auto"
    learning_rate: float = 5e-3
    schedule: Literal["constant", "exponential", "cosine", "step"] = "exponential"
    balancing: Literal["fixed", "gradient-norm", "ntk"] = "fixed"
    weights: Mapping[str, float] = field(default_factory=dict)
    constraints: Literal["soft", "hard"] = "hard"
    periodicity: Literal["exact", "soft"] = "exact"
    causality: float = 0.0
    n_slabs: int = 1
    dtype: Literal["float64", "float32", "mixed"] = "float64"

    name: ClassVar[str] = "pinn"
    accepts: ClassVar = AbstractProblem
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        for key in ("width", "depth", "n_interior", "n_boundary", "n_initial", "n_slabs"):
            check_range(key, getattr(self, key), least=1)
        for key in ("frequency", "learning_rate"):
            check_range(key, getattr(self, key), above=0.0)
        if self.resample_every is not None:
            check_range("resample_every", self.resample_every, least=0)
        check_range("causality", self.causality, least=0.0)
        if self.causality and self.n_interior < CAUSAL_PARTS:
            raise SettingsError(f"n_interior: causal weights need at least {CAUSAL_PARTS}, got {self.n_interior}")

    def refuses(self, problem: AbstractProblem) -> str:
        """Settings that do not go with the problem."""
        return untimely(problem, self.n_slabs, self.causality)

    def run(self, problem: AbstractProblem, state: None, *, context: Context) -> Solution:
        """See `AbstractSolver.run`."""
        if self.dtype == "float32" and self.optimizer in ("auto", *LEAST_SQUARES, *QUASI_NEWTON):
            _log.warning("pinn: second-order methods stop early in float32; use dtype=float64 or optimizer=adam")
        recipe = Recipe(
            lambda slab, dtype: self._field(slab, context, dtype),
            _last_layer,
            self._phases,
            self._balancing,
            Points(self.n_interior, self.n_boundary, self.n_initial, self.sampler, 0),
            self.resample_every,
            self.causality,
            self.n_slabs,
            PARTS[self.dtype],
        )
        return train(problem, recipe, context)

    def _field(
        self, problem: AbstractProblem, context: Context, dtype: torch.dtype = torch.float64
    ) -> tuple[nn.Module, Callable[[Condition], bool]]:
        """A new network, with what can be built in, and which conditions remain for the loss."""
        embedding = InputEmbedding(problem, self._closed)
        network = self._network(embedding.n_outputs, len(problem.components))
        plain = NetworkField(embedding, network).to(context.device, dtype)
        return built_in(plain, problem, self.constraints == "hard", self._closed)

    @property
    def _closed(self) -> bool:
        return self.periodicity == "exact"

    def _network(self, n_in: int, n_out: int) -> nn.Module:
        phi = ACTIVATIONS[self.activation]
        if self.network == "siren":
            return Siren(n_in, n_out, self.width, self.depth, self.frequency)
        if self.network == "fourier":
            return FourierMLP(n_in, n_out, self.width, self.depth, phi, self.frequency)
        return (ModifiedMLP if self.network == "modified-mlp" else MLP)(n_in, n_out, self.width, self.depth, phi)

    def _phases(self, problem: AbstractProblem, n_parameters: int) -> list[Phase]:
        if self.optimizer in QUASI_NEWTON:
            return [Phase(self.optimizer, learning_rate=1.0)]
        if self.optimizer == "auto":
            if not self._suits_least_squares():
                return first_order_first(n_parameters, self.learning_rate, self.schedule)
            if self.width >= WIDE and not nonlinear_part(problem, _SEED):
                return [Phase("variable-projection")]
            n_rows = self.n_interior * count_equations(problem)
            return automatic(n_parameters, n_rows, self.learning_rate, self.schedule)
        return [Phase(self.optimizer, 1.0, self.learning_rate, self.schedule)]

    def _suits_least_squares(self) -> bool:
        """Enough digits, and no weights to adapt."""
        return self.dtype != "float32" and self.balancing == "fixed"

    def _balancing(self) -> AbstractBalancing:
        weights = dict.fromkeys(KINDS.values(), CONDITION_WEIGHT) | dict(self.weights)
        return {"fixed": Fixed, "gradient-norm": GradientNorm, "ntk": NTK}[self.balancing](weights)


def _last_layer(field: nn.Module) -> list[Tensor]:
    """The parameters in which the field is linear."""
    plain = field.network if isinstance(field, ConstrainedField) else field
    assert isinstance(plain, NetworkField)
    head = plain.network.head
    assert isinstance(head, nn.Module)
    return list(head.parameters())

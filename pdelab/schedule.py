"""Phases of a training: which optimiser, for which share of the budget, at which learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pdelab.errors import check_choice, check_range
from pdelab.gauss_newton import GaussNewton
from pdelab.matrix_wise import MatrixWise
from pdelab.optimise import LBFGS, OPTIMIZERS, AbstractOptimizer, FirstOrder, FlatParameters
from pdelab.quasi_newton import SSBFGS, SSBroyden
from pdelab.spring import SPRING
from pdelab.variable_projection import VariableProjection

SCHEDULES = ("constant", "exponential", "cosine", "step")


@dataclass(frozen=True)
class Phase:
    """One optimiser for a share of the budget.

    Args:
        optimizer: "adam", "adamw"; "soap", "muon", which look at the weights as matrices; "lbfgs"; "ssbfgs",
            "ssbroyden" (up to about 5000 parameters); "gauss-newton", "variable-projection", "spring" (residual
            vectors only; quick up to about 1000 parameters or rows, the first two sketch beyond 1000).
        share: weight of this phase in the budget, > 0; the shares of all phases are scaled to sum 1.
        learning_rate: the largest one of the phase; for lbfgs the first trial step, 1 as a rule; not used by
            ssbfgs, ssbroyden, gauss-newton, variable-projection and spring.
        schedule: "constant"; "exponential", down to `final` of it; "cosine", likewise; "step", halved
            at each quarter of the phase.
        final: last learning rate as a fraction of the largest, for exponential and cosine.
        warm_up: share of the phase in which the rate rises linearly from zero.
        history_size: curvature pairs of lbfgs; 50 to 100 are good.
        gradient_tolerance: quasi-Newton methods stop when max |gradient| is at most this.
        function_tolerance: they stop when a step lowers the loss by at most this, relative to the loss.
    """

    optimizer: str
    share: float = 1.0
    learning_rate: float = 1e-3
    schedule: str = "constant"
    final: float = 0.01
    warm_up: float = 0.0
    history_size: int = 100
    gradient_tolerance: float = 0.0
    function_tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_range("share", self.share, above=0.0)
        check_range("learning_rate", self.learning_rate, above=0.0)
        check_range("final", self.final, above=0.0, most=1.0)
        check_range("warm_up", self.warm_up, least=0.0, most=0.9)
        check_range("history_size", self.history_size, least=1)
        check_range("gradient_tolerance", self.gradient_tolerance, least=0.0)
        check_range("function_tolerance", self.function_tolerance, least=0.0)

    def rate(self, progress: float) -> float:
        """The learning rate at a progress of 0 to 1 within the phase."""
        if progress < self.warm_up:
            return self.learning_rate * max(progress / self.warm_up, 1e-3)
        after = min(1.0, (progress - self.warm_up) / (1.0 - self.warm_up))
        factor = {
            "constant": 1.0,
            "exponential": self.final**after,
            "cosine": self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * after)),
            "step": 0.5 ** min(3, int(4 * after)),
        }[self.schedule]
        return self.learning_rate * factor

    def start(self, flat: FlatParameters) -> AbstractOptimizer:
        """A new optimiser for this phase."""
        tolerances = self.gradient_tolerance, self.function_tolerance
        match self.optimizer:
            case "lbfgs":
                return LBFGS(flat.vector, self.history_size, *tolerances)
            case "ssbfgs":
                return SSBFGS(flat.vector, *tolerances)
            case "ssbroyden":
                return SSBroyden(flat.vector, *tolerances)
            case "gauss-newton":
                return GaussNewton(flat.vector, *tolerances)
            case "variable-projection":
                return VariableProjection(flat.vector, flat.linear, *tolerances)
            case "spring":
                return SPRING(flat.vector, *tolerances)
            case "soap" | "muon":
                return MatrixWise(flat.parts, self.optimizer)
        return FirstOrder(flat.vector, self.optimizer)

"""Weights of loss terms: fixed, or found from gradients while training."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pdelab.errors import SettingsError, check_range
from pdelab.objective import AbstractLeastSquares, AbstractObjective
from pdelab.optimise import FlatParameters


class AbstractBalancing(abc.ABC):
    """Gives each loss term its weight; a term without one weighs 1."""

    def __init__(self, weights: Mapping[str, float] | None = None):
        for name, weight in (weights or {}).items():
            check_range(f"weight of {name}", weight, least=0.0)
        self.weights: dict[str, float] = {name: float(w) for name, w in (weights or {}).items()}

    @abc.abstractmethod
    def update(self, objective: AbstractObjective, flat: FlatParameters, step: int) -> bool:
        """Look at the gradients if it is time; True if the weights changed."""

    def state_dict(self) -> dict[str, Any]:
        """The present weights."""
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.weights = dict(state["weights"])


class Fixed(AbstractBalancing):
    """The given weights, from the first to the last step."""

    def update(self, objective: AbstractObjective, flat: FlatParameters, step: int) -> bool:
        """Nothing changes."""
        return False


class AbstractAdaptive(AbstractBalancing):
    """Weights that follow a target: w <- smoothing w + (1 - smoothing) target, every `every` steps.

    Args:
        weights: the first weights.
        every: steps between updates.
        smoothing: 0 jumps to the target, values below 1 follow it slowly.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, every: int = 100, smoothing: float = 0.9):
        super().__init__(weights)
        check_range("every", every, least=1)
        check_range("smoothing", smoothing, least=0.0, most=0.999)
        self._every, self._smoothing = every, smoothing

    def update(self, objective: AbstractObjective, flat: FlatParameters, step: int) -> bool:
        """See `AbstractBalancing.update`; a target that is not finite is left out."""
        if step % self._every:
            return False
        for name, target in self._targets(objective, flat, step).items():
            if math.isfinite(target):
                old = self.weights.get(name, 1.0)
                self.weights[name] = self._smoothing * old + (1.0 - self._smoothing) * target
        return True

    @abc.abstractmethod
    def _targets(self, objective: AbstractObjective, flat: FlatParameters, step: int) -> dict[str, float]:
        """The weights that the present gradients ask for."""


class GradientNorm(AbstractAdaptive):
    """Lifts the gradients of the other terms to the size of the residual's.

        target_i = max |grad L_residual| / mean |grad L_i|

    over the parameters. Terms whose name starts with "residual" keep their weight.

    Source: S. Wang, Y. Teng, P. Perdikaris, SIAM J. Sci. Comput. 43 (2021) A3055-A3081, algorithm 1.
    """

    def _targets(self, objective: AbstractObjective, flat: FlatParameters, step: int) -> dict[str, float]:
        terms = objective.terms()
        size = {name: flat.gradient(term, keep_graph=True).abs() for name, term in terms.items()}
        leading = [name for name in terms if name.startswith("residual")]
        if not leading:
            raise SettingsError(f"gradient-norm balancing: no term 'residual' among {', '.join(terms)}; use 'fixed'")
        largest = max(float(size[name].max()) * self.weights.get(name, 1.0) for name in leading)
        # A term that is met exactly has no gradient: it keeps its weight.
        return {
            name: largest / float(s.mean()) for name, s in size.items() if name not in leading and float(s.mean()) > 0.0
        }


class NTK(AbstractAdaptive):
    """Evens out the speeds at which the terms are learnt, from the traces of the tangent kernel.

        target_i = sum_j T_j / T_i,   T_i = mean over the points of |grad r_i(x)|^2

    Each trace is estimated with one random sign vector z: E |J^T z|^2 = trace(J J^T) (Hutchinson).

    Source: S. Wang, X. Yu, P. Perdikaris, J. Comput. Phys. 449 (2022) 110768, eq. 6.5 and 6.6.
    """

    def _targets(self, objective: AbstractObjective, flat: FlatParameters, step: int) -> dict[str, float]:
        if not isinstance(objective, AbstractLeastSquares):
            raise SettingsError("ntk balancing needs residual vectors; use 'fixed' or 'gradient-norm' here")
        traces = {}
        for number, (name, r) in enumerate(objective.residuals().items()):
            signs = _signs(r, 1009 * step + number)
            traces[name] = float(flat.gradient((signs * r).sum(), keep_graph=True).square().sum()) / len(r)
        total = sum(traces.values())
        return {name: total / trace for name, trace in traces.items() if trace > 0.0}


def _signs(like: Tensor, seed: int) -> Tensor:
    """Random +-1 of the same shape, a pure function of the seed."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like.device, like.dtype)

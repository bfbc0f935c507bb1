"""What a training minimises: named loss terms over data that may be drawn anew between steps."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pdelab.team import ALONE, Team

Terms = dict[str, Tensor]


class AbstractObjective(abc.ABC):
    """Named scalar loss terms of the parameters; the data behind them change only in `refresh`."""

    @abc.abstractmethod
    def terms(self) -> Terms:
        """The loss terms at the present parameters, unweighted, always the same names."""

    @abc.abstractmethod
    def refresh(self, step: int, quasi_newton: bool) -> bool:
        """Get ready for a step, drawing data anew if it is time; True if the terms are other functions now.

        A quasi-Newton optimiser must start anew after a change, so changes should be rare then.
        """

    def summed(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Losses and gradients, (n,) each, summed over all processes that have a part of the objective."""
        return parts

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What `refresh` has chosen, for a checkpoint."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""


class AbstractLeastSquares(AbstractObjective):
    """Terms that are mean squares of residual vectors."""

    @abc.abstractmethod
    def residuals(self) -> dict[str, Tensor]:
        """Residual vectors, (n,) each."""

    def terms(self) -> Terms:
        """mean(r^2) of each residual vector."""
        return {name: r.square().mean() for name, r in self.residuals().items()}


class AbstractRowWise(AbstractLeastSquares):
    """Residual vectors each of whose rows depends on one point only, so that their Jacobian is cheap."""

    @abc.abstractmethod
    def lengths(self) -> dict[str, int]:
        """Rows of each residual vector."""

    @abc.abstractmethod
    def row_blocks(
        self, parameters: Sequence[Tensor], scales: Mapping[str, float], most: int, out: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every row once, in blocks: (rows,) of the residual vectors times their scales, and the Jacobian (rows, P).

        Args:
            parameters: in the order of the columns.
            scales: a factor for each residual vector.
            most: rows of a block, at most.
            out: (rows in all, P) that is filled block by block; without, each block has its own memory.

        Raises:
            SettingsError: a row depends on the points of other rows.
        """

    @abc.abstractmethod
    def stacked(self, scales: Mapping[str, float]) -> Tensor:
        """The vector of all rows, in the order of `row_blocks`, without their Jacobian."""


class Losses(AbstractObjective):
    """Loss terms given by a function of the step number.

    Args:
        losses: step -> terms; must depend on nothing but the step and the parameters, and on the step
            only through step // redrawn_every.
        redrawn_every: steps between changes of the data; 0 means never.
        team: processes whose losses add up, each of the same names.
    """

    def __init__(self, losses: Callable[[int], Terms], redrawn_every: int = 0, team: Team = ALONE):
        self._losses = losses
        self._every = redrawn_every
        self._team = team
        self._step = 0

    def summed(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """See `AbstractObjective.summed`: one message for all."""
        if self._team.size == 1:
            return parts
        return self._team.sum(torch.cat(parts)).split([len(p) for p in parts])

    def terms(self) -> Terms:
        """See `AbstractObjective.terms`."""
        return self._losses(self._step)

    def refresh(self, step: int, quasi_newton: bool) -> bool:
        """See `AbstractObjective.refresh`."""
        changed = bool(self._every) and step // self._every != self._step // self._every
        self._step = step
        return changed

    def state_dict(self) -> dict[str, Any]:
        """See `AbstractObjective.state_dict`."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `AbstractObjective.load_state_dict`."""
        self._step = state["step"]

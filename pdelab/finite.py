"""Guard of a training against nan and inf that does not wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from pdelab.optimise import Evaluation


class FiniteGuard:
    """The last finite parameters, and the first evaluation that is not finite; asks the device for nothing.

    Args:
        good: finite parameters, (P,).
    """

    def __init__(self, good: Tensor):
        self.good = good
        self._fine = torch.ones((), dtype=torch.bool, device=good.device)
        self._late = torch.zeros((), dtype=torch.int64, device=good.device)
        self._found: Evaluation | None = None

    def add(self, now: Evaluation) -> None:
        """The next evaluation."""
        found = self._found or now
        before, self._found = self._fine, now
        if found is not now:
            at, values = torch.where(before, now.at, found.at), torch.where(before, now.values, found.values)
            self._found = Evaluation(at, now.names, values, now.gradient)
        self._fine = before & torch.isfinite(now.values).all() & torch.isfinite(now.gradient).all()
        self._late += ~self._fine
        self.good = torch.where(self._fine, now.at, self.good)

    @property
    def found(self) -> Evaluation:
        """The first that is not finite, or else the last."""
        assert self._found is not None
        return self._found

    @property
    def finite(self) -> bool:
        """Whether all have been; a read."""
        return bool(self._fine)

    @property
    def since(self) -> int:
        """How many evaluations have come after the first that was not finite; a read."""
        return int(self._late) - 1

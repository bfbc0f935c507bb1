"""The record of a training: columns of numbers, and at which steps they are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class History:
    """Columns of equal length; what was not measured in a row is nan."""

    def __init__(self, columns: Mapping[str, Iterable[float]] | None = None):
        self.columns: dict[str, list[float]] = {name: list(values) for name, values in (columns or {}).items()}

    def add(self, row: Mapping[str, float]) -> None:
        """Append one row; a new column is filled up with nan."""
        length = len(next(iter(self.columns.values()), []))
        for name in row:
            self.columns.setdefault(name, [math.nan] * length)
        for name, column in self.columns.items():
            column.append(float(row.get(name, math.nan)))

    def tensors(self) -> dict[str, Tensor]:
        """The columns as float64 tensors."""
        return {name: torch.tensor(column, dtype=torch.float64) for name, column in self.columns.items()}


def noted(step: int) -> bool:
    """Every step up to 1000, every tenth up to 10 000, and so on: each decade costs 900 rows."""
    return step % 10 ** max(0, len(str(step)) - 3) == 0


def measured(step: int) -> bool:
    """Eight steps per decade, evenly spaced in log scale."""
    return step == 0 or math.floor(8 * math.log10(step)) != math.floor(8 * math.log10(max(step - 1, 0.5)))

"""Lines of labels that a solver has followed through time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pdelab.errors import check_shape


@dataclass(frozen=True, eq=False)
class Paths:
    """Lines x(a, t) of some labels a, with what they carry.

    Attributes:
        points: places and times, (N, d): the points of one line after another, in the order of time.
        lengths: how many of the points belong to each line, (K,), together N. What leaves a periodic domain at one end
            comes in at the other as another line.
        arrays: name -> (N,).
    """

    points: np.ndarray
    lengths: np.ndarray
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the lengths."""
        check_shape("points", self.points, (int(self.lengths.sum()), None))
        for name, array in self.arrays.items():
            check_shape(name, array, (len(self.points),))

    @property
    def places(self) -> np.ndarray:
        """Where the lines are drawn: (x, t) in one space dimension, else in space, (N, 2 or 3)."""
        return self.points if self.points.shape[1] == 2 else self.points[:, :-1]

    def lines(self) -> list[np.ndarray]:
        """The places of each line."""
        return np.split(self.places, np.cumsum(self.lengths)[:-1])

"""Lines that say more of a solution than its values do, such as paths of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pdelab.errors import check_shape


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines with what is known along them.

    Attributes:
        points: the points of one line after another, (N, 2 or 3): in (x, t) for one space dimension and time.
        lengths: how many of the points belong to each line, (K,), together N.
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

    def each(self) -> list[np.ndarray]:
        """The points of each line."""
        return np.split(self.points, np.cumsum(self.lengths)[:-1])

"""Linear systems to measure solvers on: pressure equations on boxes of cells with obstacles, many right-hand sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from pdelab.errors import check_choice, check_range
from pdelab.stencil import FLUID, SOLID, WALLS, Stencil, poisson_stencil

OBSTACLES = ("none", "discs", "bars")
RIGHT_HAND_SIDES = ("white", "smooth")
COEFFICIENTS = ("constant", "variable")


@dataclass(frozen=True)
class GridPoisson:
    """-div(a grad u) = f on a box of square cells.

    White right-hand sides are normal numbers in each cell; smooth ones a source and a sink, Gaussians with a radius of
    0.08 sides. Where no wall has u = 0, each connected part of the grid gets a right-hand side of mean zero.

    Args:
        shape: cells along each axis.
        walls: as in `poisson_stencil`; "mixed" closes all sides but the last.
        obstacles: "none", "discs" (two to five of radius 0.05 to 0.15) or "bars" (two to five thin, turned plates; no
            shipped network was trained on them).
        coefficient: "constant" or "variable" (log-normal, smoothed over two cells, from about 0.1 to 10).
        right_hand_sides: "white" or "smooth".
        n_right_hand_sides: how many.
    """

    shape: tuple[int, ...]
    walls: str = "dirichlet"
    obstacles: str = "none"
    coefficient: str = "constant"
    right_hand_sides: str = "white"
    n_right_hand_sides: int = 20

    name: ClassVar[str] = "grid-poisson"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("walls", self.walls, (*WALLS, "mixed"))
        check_choice("obstacles", self.obstacles, OBSTACLES)
        check_choice("coefficient", self.coefficient, COEFFICIENTS)
        check_choice("right_hand_sides", self.right_hand_sides, RIGHT_HAND_SIDES)
        check_range("n_right_hand_sides", self.n_right_hand_sides, least=1)

    def stencil(self, seed: int) -> Stencil:
        """The matrix; the same for the same seed."""
        rng = np.random.default_rng([seed, 1])
        d = len(self.shape)
        walls: list[tuple[str, str]] | str = self.walls
        if self.walls == "mixed":
            walls = [("neumann", "neumann")] * (d - 1) + [("neumann", "dirichlet")]
        cells = np.full(self.shape, FLUID)
        if self.obstacles != "none":
            for _ in range(int(rng.integers(2, 6))):
                cells[self._obstacle(rng)] = SOLID
        a = None
        if self.coefficient == "variable":
            field = ndimage.gaussian_filter(rng.standard_normal(self.shape), 2.0, mode="wrap")
            a = np.exp(1.0 * field / field.std())
        return poisson_stencil(self.shape, cells=cells, walls=walls, coefficient=a)

    def columns(self, stencil: Stencil, seed: int) -> np.ndarray:
        """The right-hand sides, (n, k)."""
        rng = np.random.default_rng([seed, 2])
        places = self._places()
        fields = []
        for _ in range(self.n_right_hand_sides):
            if self.right_hand_sides == "white":
                field = rng.standard_normal(self.shape)
            else:
                ends = rng.uniform(0.15, 0.85, (2, len(self.shape)))
                bumps = [np.exp(-(((places - end) / 0.08) ** 2).sum(-1)) for end in ends]
                field = bumps[0] / bumps[0].sum() - bumps[1] / bumps[1].sum()
            fields.append(field * stencil.active)
        if not (stencil.excess > 1e-12 * stencil.diagonal.max()).any():
            part, n_parts = ndimage.label(stencil.active)
            for field in fields:
                mean = ndimage.mean(field, part, np.arange(1, n_parts + 1))
                field -= np.r_[0.0, mean][part]
        return np.stack([field.ravel() for field in fields], axis=1)

    def _places(self) -> np.ndarray:
        """Centres of the cells in the unit cube, (*shape, d)."""
        return np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in self.shape), indexing="ij"), axis=-1)

    def _obstacle(self, rng: np.random.Generator) -> np.ndarray:
        d = len(self.shape)
        away = self._places() - rng.uniform(0.15, 0.85, d)
        if self.obstacles == "discs":
            return np.asarray(np.linalg.norm(away, axis=-1) < rng.uniform(0.05, 0.15))
        frame, _ = np.linalg.qr(rng.standard_normal((d, d)))
        half = np.full(d, rng.uniform(0.1, 0.2))
        half[0] = max(0.012, 1.0 / min(self.shape))
        return np.asarray((np.abs(away @ frame) < half).all(axis=-1))

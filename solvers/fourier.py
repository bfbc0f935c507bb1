"""A periodic box in Fourier space: transforms, spectral derivatives and the 2/3 rule, in one to three dimensions."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from pdelab.domain import Box


class FourierGrid:
    """n points per axis of a periodic box, its right ends left out, and the transforms of real fields on it.

    Fields are (m, *grid) with grid = (n, ..., n); coefficients are (m, *half), the last axis having
    n // 2 + 1 entries because the fields are real. Products of fields are aliased only into modes with
    3 |index| >= n; those are kept at zero (Orszag's 2/3 rule).
    """

    def __init__(self, box: Box, n: int):
        lower, upper = box.bounds
        d = box.dimension
        self.n = n
        self.sides = upper - lower
        self.axes = tuple(a + side * np.arange(n) / n for a, side in zip(lower, self.sides, strict=True))
        self._fields = tuple(range(-d, 0))
        full, half = fft.fftfreq(n, 1 / n), fft.rfftfreq(n, 1 / n)
        index = np.meshgrid(*[full] * (d - 1), half, indexing="ij")
        self.wavenumbers = tuple(2 * math.pi / side * i for side, i in zip(self.sides, index, strict=True))
        self.kept = np.logical_and.reduce([3 * np.abs(i) < n for i in index])
        self._mask = self.kept.astype(float)
        self._slopes: dict[tuple[int, int], np.ndarray] = {}

    @property
    def points(self) -> np.ndarray:
        """The grid points, (n**d, d), last axis fastest."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, len(self.axes))

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Fields (m, *grid) -> coefficients (m, *half) without the aliased modes."""
        # One-dimensional transforms have their own function, twice as fast for short arrays.
        raw = fft.rfft(values) if len(self.axes) == 1 else fft.rfftn(values, axes=self._fields)
        return raw * self._mask

    def backward(self, coefficients: np.ndarray, refinement: int = 1) -> np.ndarray:
        """Coefficients (m, *half) -> fields on the grid, or on one with `refinement` times as many points per axis."""
        n, d = self.n * refinement, len(self.axes)
        if d == 1:
            return fft.irfft(coefficients, n) * refinement
        if refinement > 1:
            for axis in self._fields[:-1]:
                low, high = np.split(coefficients, [self.n // 2], axis=axis)
                shape = list(low.shape)
                shape[axis] = n - self.n
                coefficients = np.concatenate([low, np.zeros(shape), high], axis=axis)
        return fft.irfftn(coefficients, (n,) * d, axes=self._fields) * refinement**d

    def differentiate(self, array: np.ndarray, axis: int, order: int = 1) -> np.ndarray:
        """Spectral derivative of one field (*grid) along an axis; aliased modes are dropped."""
        if (axis, order) not in self._slopes:
            index = fft.rfftfreq(self.n, 1 / self.n)
            slope = (2j * math.pi / self.sides[axis] * index) ** order * (3 * index < self.n)
            self._slopes[axis, order] = slope.reshape([-1 if i == axis else 1 for i in range(len(self.axes))])
        return fft.irfft(fft.rfft(array, axis=axis) * self._slopes[axis, order], self.n, axis=axis)

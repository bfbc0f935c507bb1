"""Smooth functions on a periodic box: Gaussian fields with a given spectrum as Fourier series; Poisson's equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from pdelab.calculus import Coordinates
from pdelab.domain import Box


@dataclass(frozen=True, eq=False)
class FourierSeries:
    """f(x) = sum over s of cosines_s cos(k_s . x) + sines_s sin(k_s . x).

    Attributes:
        wavevectors: k, (modes, space dimensions), 1/length.
        cosines, sines: amplitudes, (modes,).
    """

    wavevectors: np.ndarray
    cosines: np.ndarray
    sines: np.ndarray

    def __call__(self, p: Coordinates) -> Tensor:
        """Values at the points, (n,)."""
        return self.at(p.points)

    def at(self, points: Tensor) -> Tensor:
        """(n, d) -> (n,); only the first columns, those of space, are read."""

        def like(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=points.dtype, device=points.device)

        phase = points[:, : self.wavevectors.shape[1]] @ like(self.wavevectors).T
        return torch.cos(phase) @ like(self.cosines) + torch.sin(phase) @ like(self.sines)

    def scaled(self, factor: float | np.ndarray) -> FourierSeries:
        """Every mode times a factor, one number or (modes,)."""
        return FourierSeries(self.wavevectors, self.cosines * factor, self.sines * factor)


def gaussian_field(
    box: Box, deviation: Callable[[np.ndarray], np.ndarray], cutoff: int, seed: int | list[int]
) -> FourierSeries:
    """A draw of the periodic Gaussian field whose covariance operator has the eigenvalues deviation(|k|)^2.

        f = z_0 deviation(0) + sqrt(2) sum over k of deviation(|k|) (z_k cos(k . x) + z'_k sin(k . x))

    with independent standard normal z, the sum over one of each pair k, -k. The eigenfunctions are
    normalised on the box scaled to volume 1, so that the variance of f is the sum of all eigenvalues.

    Args:
        box: the periodic box.
        deviation: |k| (modes,), 1/length, to the standard deviation of a mode, (modes,).
        cutoff: largest whole number of waves along an axis, at least 1.
        seed: the same seed gives the same function.
    """
    d = box.dimension
    whole = np.stack(np.meshgrid(*[np.arange(-cutoff, cutoff + 1)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    # The numbering is symmetric about its middle, k = 0: the second half holds one of each pair.
    whole = whole[len(whole) // 2 :]
    lower, upper = box.bounds
    k = 2 * math.pi * whole / (upper - lower)
    size = deviation(np.linalg.norm(k, axis=1))
    z = np.random.default_rng(seed).standard_normal((2, len(k)))
    z[:, 1:] *= math.sqrt(2)
    return FourierSeries(k, z[0] * size, z[1] * size)


def inverse_laplacian(source: np.ndarray, side: float) -> np.ndarray:
    """The solution of mean zero of q_xx + q_yy = source - mean, periodic on a square of this side, (n, n)."""
    n = len(source)
    square = (2 * math.pi / side) ** 2 * (fft.fftfreq(n, 1 / n)[:, None] ** 2 + fft.rfftfreq(n, 1 / n) ** 2)
    square[0, 0] = np.inf
    return fft.irfft2(-fft.rfft2(source) / square, source.shape)

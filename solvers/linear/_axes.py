"""One-dimensional matrices of a box of cells, diagonalised: by fast transforms where their ends are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.linalg import eigh_tridiagonal

from pdelab.errors import InputError

Transform = Callable[[np.ndarray], np.ndarray]

SAME = 1e-12
"""Relative difference up to which two coefficients are the same."""

DENSE_LIMIT = 4096
"""Cells on an axis up to which its eigenvectors are formed where no fast transform has them."""


@dataclass(frozen=True, eq=False)
class Diagonalised:
    """T = V diag(eigenvalues) V^-1 for a symmetric T (n, n); V is applied along one axis of an array.

    Attributes:
        eigenvalues: (n,), in the order in which `forward` returns the modes.
        forward: V^-1 along the axis.
        backward: V along the axis.
        means: which transform it is, for messages.
    """

    eigenvalues: np.ndarray
    forward: Transform
    backward: Transform
    means: str


def diagonalise(couplings: np.ndarray, excess: np.ndarray, axis: int, where: str) -> Diagonalised:
    """Diagonalise (T u)_k = excess_k u_k + c_k (u_k - u_k+1) + c_k-1 (u_k - u_k-1), indices modulo n.

    Args:
        couplings: c (n,); c_n-1 couples the last cell with the first, 0 unless periodic.
        excess: (n,); 0 but for ends beyond which u = 0.
        axis: along which the transforms work.
        where: what errors call the axis.

    Raises:
        InputError: no fast transform has the eigenvectors, and the axis is too long to form them.
    """
    return fast_transform(couplings, excess, axis) or _eigenvectors(couplings, excess, axis, where)


def fast_transform(couplings: np.ndarray, excess: np.ndarray, axis: int) -> Diagonalised | None:
    """The same by a fast transform; None if the coefficient varies or the ends are unlike or unknown.

    Source: Strang, The discrete cosine transform, SIAM Review 41 (1999) 135-147.
    """
    n, c = couplings.size, float(couplings[0])
    close = SAME * abs(c)
    if n < 3 or np.abs(couplings[:-1] - c).max() > close or np.abs(excess[1:-1]).max() > close:
        return None
    ends = [e for e in (0, 1, 2) if np.abs(excess[[0, -1]] - e * c).max() <= close]
    if ends == [0] and abs(couplings[-1] - c) <= close:
        return _periodic(n, c, axis)
    return _walls(n, c, ends[0], axis) if ends and abs(couplings[-1]) <= close else None


def _walls(n: int, c: float, weight: int, axis: int) -> Diagonalised:
    """Constant coefficient and on both ends no flux (0), u = 0 one cell beyond (1) or half a cell beyond (2)."""
    k = np.arange(n)
    angle = (k / n, (k + 1) / (n + 1), (k + 1) / n)[weight]
    kind = (2, 1, 2)[weight]
    there, back = (scipy.fft.dct, scipy.fft.idct) if weight == 0 else (scipy.fft.dst, scipy.fft.idst)
    return Diagonalised(
        4.0 * c * np.sin(0.5 * np.pi * angle) ** 2,
        lambda u: there(u, kind, axis=axis, norm="ortho"),
        lambda u: back(u, kind, axis=axis, norm="ortho"),
        ("DCT-II", "DST-I", "DST-II")[weight],
    )


def _periodic(n: int, c: float, axis: int) -> Diagonalised:
    """Real Fourier transform; cosines first, then sines, so that the modes are as many real numbers as cells."""
    cosines, sines = np.arange(n // 2 + 1), np.arange(1, (n + 1) // 2)

    def forward(u: np.ndarray) -> np.ndarray:
        modes = np.moveaxis(scipy.fft.rfft(u, axis=axis, norm="ortho"), axis, -1)
        return np.moveaxis(np.concatenate([modes.real, modes.imag[..., sines]], axis=-1), -1, axis)

    def backward(u: np.ndarray) -> np.ndarray:
        packed = np.moveaxis(u, axis, -1)
        modes = packed[..., : cosines.size].astype(np.complex128)
        modes[..., sines] += 1j * packed[..., cosines.size :]
        return np.moveaxis(scipy.fft.irfft(modes, n, axis=-1, norm="ortho"), -1, axis)

    waves = np.concatenate([cosines, sines])
    return Diagonalised(4.0 * c * np.sin(np.pi * waves / n) ** 2, forward, backward, "FFT")


def _eigenvectors(couplings: np.ndarray, excess: np.ndarray, axis: int, where: str) -> Diagonalised:
    n = couplings.size
    if n > DENSE_LIMIT:
        raise InputError(
            f"{where} has {n} cells with varying coefficients or unlike ends, and no fast transform has its "
            f"eigenvectors; more than {DENSE_LIMIT} cells are too many to form them: use amg or direct"
        )
    diagonal = excess + couplings + np.roll(couplings, 1)
    if n == 1:
        values, vectors = excess.copy(), np.ones((1, 1))
    elif couplings[-1] == 0:
        values, vectors = eigh_tridiagonal(diagonal, -couplings[:-1])
    else:
        T = np.diag(diagonal)
        k = np.arange(n)
        np.add.at(T, (k, (k + 1) % n), -couplings)
        np.add.at(T, ((k + 1) % n, k), -couplings)
        values, vectors = np.linalg.eigh(T)
    if not excess.any():  # the constants are in the kernel: what is left of their eigenvalue is round-off
        values[np.argmin(np.abs(values))] = 0.0

    def product(u: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.moveaxis(u, axis, -1) @ V, -1, axis)

    return Diagonalised(values, lambda u: product(u, vectors), lambda u: product(u, vectors.T), "eigenvectors")

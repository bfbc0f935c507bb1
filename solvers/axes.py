"""One-dimensional grids with their differentiation matrices: differences, Chebyshev, Fourier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True, eq=False)
class Axis:
    """Nodes of one space axis and how to differentiate along it.

    Attributes:
        nodes: increasing, (n,); a periodic axis leaves out its right end.
        matrix: derivative order -> sparse (n, n) matrix.
        period: length of a periodic axis, else None.
        spectral: whether every node enters each derivative.
    """

    nodes: np.ndarray
    matrix: Callable[[int], sparse.csr_matrix]
    period: float | None = None
    spectral: bool = False


def difference_axis(
    lower: float, upper: float, cells: int, accuracy: int, *, periodic: bool = False, clustering: float = 0.0
) -> Axis:
    """Finite differences: central inside, one-sided at the ends, wrapped around if periodic.

    x(s) = lower + L (s - clustering sin(2 pi s)/(2 pi)), s = i/cells: cells at both ends shrink by 1 - clustering.

    Args:
        lower: left end.
        upper: right end.
        cells: number of cells; at least the width of the widest stencil.
        accuracy: order of the differences, even.
        periodic: identify both ends; the nodes are then uniform.
        clustering: in [0, 1); 0 gives a uniform grid.
    """
    length = upper - lower
    s = np.arange(cells if periodic else cells + 1) / cells
    if periodic:
        nodes = lower + length * s
        return Axis(nodes, lambda order: _periodic_differences(nodes, length, order, accuracy), length)
    nodes = lower + length * (s - clustering * np.sin(2.0 * np.pi * s) / (2.0 * np.pi))
    nodes[-1] = upper
    return Axis(nodes, lambda order: _differences(nodes, order, accuracy))


def chebyshev_axis(lower: float, upper: float, cells: int) -> Axis:
    """Chebyshev-Gauss-Lobatto nodes; derivatives of the interpolating polynomial.

    Source: L. N. Trefethen, Spectral Methods in MATLAB, SIAM 2000, chapter 6.
    """
    angle = np.pi * np.arange(cells + 1) / cells
    nodes = lower + (upper - lower) * 0.5 * (1.0 - np.cos(angle))
    nodes[-1] = upper
    # Differences of cosines as products of sines: no cancellation near the ends.
    half_sum, half_difference = (0.5 * (angle[:, None] + sign * angle) for sign in (1.0, -1.0))
    apart = (upper - lower) * np.sin(half_sum) * np.sin(half_difference)
    weight = (-1.0) ** np.arange(cells + 1)
    weight[[0, -1]] *= 0.5
    first = np.zeros_like(apart)
    off = ~np.eye(cells + 1, dtype=bool)
    first[off] = (weight[None, :] / weight[:, None])[off] / apart[off]
    first -= np.diag(first.sum(axis=1))

    def matrix(order: int) -> sparse.csr_matrix:
        power = np.linalg.matrix_power(first, order)
        power -= np.diag(power.sum(axis=1)) if order else 0.0
        return sparse.csr_matrix(power)

    return Axis(nodes, matrix, spectral=True)


def fourier_axis(lower: float, upper: float, cells: int) -> Axis:
    """Equal spacing and derivatives of the trigonometric interpolant; the highest mode has no odd derivative."""
    length = upper - lower
    wavenumber = 2.0 * np.pi * np.fft.fftfreq(cells, length / cells)

    def matrix(order: int) -> sparse.csr_matrix:
        symbol = (1j * wavenumber) ** order
        if order % 2 and cells % 2 == 0:
            symbol[cells // 2] = 0.0
        return sparse.csr_matrix(np.fft.ifft(symbol[:, None] * np.fft.fft(np.eye(cells), axis=0), axis=0).real)

    return Axis(lower + length * np.arange(cells) / cells, matrix, length, spectral=True)


def _differences(nodes: np.ndarray, order: int, accuracy: int) -> sparse.csr_matrix:
    n = len(nodes)
    if order == 0:
        return sparse.identity(n, format="csr")
    reach = (order + 1) // 2 - 1 + accuracy // 2
    central = np.arange(reach, n - reach)
    stencils = [(central, central[:, None] + np.arange(-reach, reach + 1))]
    width = min(order + accuracy, n)
    ends = np.array([i for i in range(n) if i < reach or i >= n - reach])
    first = np.where(ends < n // 2, 0, n - width)
    stencils.append((ends, first[:, None] + np.arange(width)))
    return sum(_weighted(rows, columns, nodes[columns] - nodes[rows, None], order, n) for rows, columns in stencils)


def _periodic_differences(nodes: np.ndarray, length: float, order: int, accuracy: int) -> sparse.csr_matrix:
    n = len(nodes)
    if order == 0:
        return sparse.identity(n, format="csr")
    reach = (order + 1) // 2 - 1 + accuracy // 2
    rows, offsets = np.arange(n), np.arange(-reach, reach + 1)
    distance = np.tile(offsets * length / n, (n, 1))
    return _weighted(rows, (rows[:, None] + offsets) % n, distance, order, n)


def _weighted(rows: np.ndarray, columns: np.ndarray, distance: np.ndarray, order: int, n: int) -> sparse.csr_matrix:
    """Weights that differentiate every polynomial on each stencil exactly, as a matrix."""
    width = columns.shape[1]
    scale = np.abs(distance).max(axis=1, keepdims=True)
    powers = (distance / scale)[:, None, :] ** np.arange(width)[None, :, None]
    target = np.zeros((len(rows), width, 1))
    target[:, order, 0] = float(np.prod(np.arange(1, order + 1)))
    weights = np.linalg.solve(powers, target)[..., 0] / scale**order
    return sparse.csr_matrix((weights.ravel(), (np.repeat(rows, width), columns.ravel())), shape=(n, n))

"""Exponential time differencing of fourth order: the stiff linear part exactly, the rest by Runge-Kutta."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

N_CONTOUR = 32


class ETDRK4:
    """One step of dv/dt = L v + N(v), L diagonal: fourth order in `step`, no stiffness from L.

        a = e^{hL/2} v + Q N(v)                     b = e^{hL/2} v + Q N(a)
        c = e^{hL/2} a + Q (2 N(b) - N(v))
        v(t + h) = e^{hL} v + f1 N(v) + 2 f2 (N(a) + N(b)) + f3 N(c)

    The weights Q, f1, f2, f3 are differences of nearly equal numbers for small hL; they are means over a
    circle of radius 1 around each hL instead, exact to round-off.

    Args:
        linear: L, any shape, real or complex, 1/time.
        step: h, time, > 0.
        nonlinear: N, keeps the shape of `linear`.

    Source: Cox & Matthews, J. Comput. Phys. 176 (2002) 430-455, eqs. 26-29; weights by Kassam & Trefethen,
    SIAM J. Sci. Comput. 26 (2005) 1214-1233.
    """

    def __init__(self, linear: np.ndarray, step: float, nonlinear: Callable[[np.ndarray], np.ndarray]):
        self._nonlinear = nonlinear
        scaled = step * linear
        self._whole, self._half = np.exp(scaled), np.exp(scaled / 2)
        weights = [np.zeros(scaled.shape, dtype=complex) for _ in range(4)]
        for root in np.exp(2j * np.pi * (np.arange(N_CONTOUR) + 0.5) / N_CONTOUR):
            z = scaled + root
            e = np.exp(z)
            weights[0] += (np.exp(z / 2) - 1) / z
            weights[1] += (-4 - z + e * (4 - 3 * z + z**2)) / z**3
            weights[2] += (2 + z + e * (z - 2)) / z**3
            weights[3] += (-4 - 3 * z - z**2 + e * (4 - z)) / z**3
        weights = [step / N_CONTOUR * (w if np.iscomplexobj(linear) else w.real) for w in weights]
        self._q, self._f1, self._f2, self._f3 = weights

    def __call__(self, v: np.ndarray) -> np.ndarray:
        """v(t) -> v(t + h)."""
        half = self._half * v
        n_v = self._nonlinear(v)
        a = half + self._q * n_v
        n_a = self._nonlinear(a)
        n_b = self._nonlinear(half + self._q * n_a)
        n_c = self._nonlinear(self._half * a + self._q * (2 * n_b - n_v))
        return self._whole * v + self._f1 * n_v + 2 * self._f2 * (n_a + n_b) + self._f3 * n_c

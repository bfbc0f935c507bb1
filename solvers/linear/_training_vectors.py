"""Right-hand sides to train on: mixtures of eigenvectors in which the smooth ones weigh more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from scipy.linalg import eigh_tridiagonal

SMOOTH_WEIGHT = 9.0


def ritz_pairs(matvec: Callable[[np.ndarray], np.ndarray], start: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values (k,), ascending, and vectors (k, n) of m Lanczos steps with full reorthogonalisation.

    Values below 1e-8, of the kernel, are left out.

    Args:
        matvec: A v, symmetric, for v (n,).
        start: first vector before it is scaled, (n,); A z with random z lies in the range of A.
        m: steps; fewer if the Krylov space is exhausted.

    Source: Saad, Numerical Methods for Large Eigenvalue Problems, 2nd ed., SIAM 2011, section 6.6; drop rule of Kaneda
    et al., ICML 2023.
    """
    basis = np.zeros((m, len(start)))
    alpha, beta = np.zeros(m), np.zeros(m)
    v = start / np.linalg.norm(start)
    k = 0
    while k < m:
        basis[k] = v
        w = matvec(v)
        alpha[k] = v @ w
        for _ in range(2):  # twice is enough
            w = w - basis[: k + 1].T @ (basis[: k + 1] @ w)
        beta[k] = np.linalg.norm(w)
        k += 1
        if beta[k - 1] < 1e-10 * abs(alpha[:k]).max():
            break
        v = w / beta[k - 1]
    values, mixing = eigh_tridiagonal(alpha[:k], beta[: k - 1])
    kept = values >= 1e-8
    return values[kept], mixing.T[kept] @ basis[:k]


def mixtures(vectors: np.ndarray, n_samples: int, theta: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors (n_samples, n): normal coefficients, times 9 for the first half of the vectors and theta more.

    Args:
        vectors: orthonormal, in the order of ascending eigenvalues, (m, n).
        n_samples: how many.
        theta: how many beyond half are weighted too.
        rng: of the coefficients.

    Source: Kaneda et al., ICML 2023.
    """
    c = rng.standard_normal((n_samples, len(vectors)))
    c[:, : len(vectors) // 2 + theta] *= SMOOTH_WEIGHT
    b = c @ vectors
    return np.asarray(b / np.linalg.norm(b, axis=1, keepdims=True))


def box_mixtures(
    shape: Sequence[int], ends: Sequence[tuple[str, str]], n_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """The same, (n_samples, *shape), from the exact eigenvectors of the Laplacian on a box by fast transforms.

    Args:
        shape: cells along each axis.
        ends: for each axis ("neumann", "neumann"), ("dirichlet", "dirichlet") or ("face-dirichlet", "face-dirichlet").
        n_samples: how many.
        rng: of the coefficients.
    """
    values = np.zeros(tuple(shape))
    for axis, n in enumerate(shape):
        k = np.arange(n)
        angle = {"neumann": k / n, "dirichlet": (k + 1) / (n + 1), "face-dirichlet": (k + 1) / n}[ends[axis][0]]
        along = 2.0 - 2.0 * np.cos(np.pi * angle)
        values = values + along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    c = rng.standard_normal((n_samples, *shape))
    c *= np.where(values <= np.median(values), SMOOTH_WEIGHT, 1.0) * (values > 1e-12)
    for axis in range(len(shape)):
        kind = ends[axis][0]
        transform, number = {
            "neumann": (scipy.fft.idct, 2),
            "dirichlet": (scipy.fft.idst, 1),
            "face-dirichlet": (scipy.fft.idst, 2),
        }[kind]
        c = transform(c, type=number, axis=axis + 1, norm="ortho")
    return np.asarray(c / np.linalg.norm(c.reshape(n_samples, -1), axis=1).reshape(-1, *(1,) * len(shape)))

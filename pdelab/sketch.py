"""Random sketches of a Jacobian: fewer columns (a random subspace of the parameters), fewer rows (a count sketch)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
import scipy.sparse
import torch
from torch import Tensor

_HASHES = 4
_BUCKETS_PER_COLUMN = 4


class ColumnSketch:
    """p of the P columns of J, after random signs and a cosine transform that spread what single columns hold.

        J -> J Omega,    Omega = [D C' E, G]  (P, p),    Omega' Omega = I

    D holds random signs, C is the orthonormal DCT-II, E chooses columns at random. G holds what given directions
    have outside of them: with the gradient and the last step among the directions a descent in random subspaces
    needs two to four times fewer steps, as conjugate gradients do.

    Args:
        n_columns: P.
        n_kept: columns of E, at most P.
        seed: of the signs and the choice; equal seeds give equal sketches.
        directions: (P, m), none of them zero.

    Source: N. Ailon, B. Chazelle, SIAM J. Comput. 39 (2009) 302 (there with Hadamard's transform).
    """

    def __init__(self, n_columns: int, n_kept: int, seed: Sequence[int], directions: Tensor):
        rng = np.random.default_rng(seed)
        self._signs = torch.from_numpy(rng.choice([-1.0, 1.0], n_columns))
        self._chosen = torch.from_numpy(np.sort(rng.choice(n_columns, n_kept, replace=False)))

        self._given = directions / directions.norm(dim=0)
        for _ in range(2):  # once more against round-off
            inside = [self._lift(q) for q in self._columns(self._given.T)]
            outside = self._given - torch.stack(inside, dim=1) if inside else self._given
            self._given = torch.linalg.qr(outside)[0]

    def columns(self, J: Tensor) -> Tensor:
        """J Omega, (n, p), of J (n, P)."""
        return torch.cat([self._columns(J), J @ self._given], dim=1)

    def lift(self, q: Tensor) -> Tensor:
        """Omega q, (P,), of q (p,)."""
        k = len(self._chosen)
        return self._lift(q[:k]) + self._given @ q[k:]

    def _columns(self, J: Tensor) -> Tensor:
        mixed = _cosines(J * self._signs.to(J))
        return mixed[:, self._chosen.to(J.device)]

    def _lift(self, q: Tensor) -> Tensor:
        full = np.zeros(len(self._signs))
        full[self._chosen.numpy()] = q.detach().cpu().numpy()
        return (torch.from_numpy(scipy.fft.idct(full, norm="ortho", overwrite_x=True)) * self._signs).to(q)


def _cosines(x: Tensor) -> Tensor:
    """Orthonormal DCT-II along the last axis."""
    if x.device.type == "cpu":
        return torch.from_numpy(scipy.fft.dct(x.numpy(), norm="ortho", overwrite_x=True))
    # By one real FFT of the even entries followed by the odd ones backwards (Makhoul, IEEE Trans. ASSP 28 (1980) 27).
    P = x.shape[-1]
    spectrum = torch.fft.rfft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1))
    k = torch.arange(P // 2 + 1, dtype=x.dtype, device=x.device)
    turned = spectrum * torch.polar(torch.full_like(k, math.sqrt(2.0 / P)), -math.pi * k / (2.0 * P))
    found = torch.cat([turned.real, -turned.imag[..., 1 : (P + 1) // 2].flip(-1)], dim=-1)
    found[..., 0] /= math.sqrt(2.0)
    return found


class RowSketch:
    """Rows of J added, with random signs, into s = 4 p buckets B (s, p), so that E[B'B] = J'J.

    Each row goes to four buckets with weight 1/2. The rows may come in any number of blocks; memory does not grow
    with them.

    Args:
        n_columns: p.
        seed: of buckets and signs; equal seeds and blocks give equal sketches.
        like: a tensor of the wanted dtype and device.

    Source: M. Charikar, K. Chen, M. Farach-Colton, Theor. Comput. Sci. 312 (2004) 3; several hashes: D. Kane,
    J. Nelson, J. ACM 61 (2014) 4.
    """

    def __init__(self, n_columns: int, seed: Sequence[int], like: Tensor):
        self._rng = np.random.default_rng(seed)
        self.buckets = like.new_zeros(_BUCKETS_PER_COLUMN * n_columns, n_columns)

    def add(self, J: Tensor) -> None:
        """Add the rows of J (n, p)."""
        n, s = len(J), len(self.buckets)
        where = self._rng.integers(s, size=(_HASHES, n))
        signs = self._rng.choice([-1.0, 1.0], (_HASHES, n)) / math.sqrt(_HASHES)
        if J.device.type == "cpu":
            rows = np.broadcast_to(np.arange(n), where.shape)
            entries = (signs.astype(J.numpy().dtype).ravel(), (where.ravel(), rows.ravel()))
            self.buckets += torch.from_numpy(scipy.sparse.csr_matrix(entries, shape=(s, n)) @ J.numpy())
            return
        for target, sign in zip(torch.from_numpy(where).to(J.device), torch.from_numpy(signs).to(J), strict=True):
            self.buckets.index_add_(0, target, sign[:, None] * J)

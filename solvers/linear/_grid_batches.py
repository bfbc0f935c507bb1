"""Between the columns of right-hand sides and fields on a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from pdelab.errors import InputError
from pdelab.linear import LinearResult
from pdelab.solution import Status
from pdelab.solvers.linear._conjugate_directions import Outcome
from pdelab.solvers.linear._hierarchy import Level, finest
from pdelab.solvers.linear._symmetry import check_symmetric
from pdelab.stencil import recognise


def grid_level(A: csr_array, shape: Sequence[int] | None, device: str, solver: str) -> Level:
    """The stencil of A as tensors.

    Raises:
        InputError: A is not a stencil on a box, not symmetric, periodic, or no M-matrix.
    """
    check_symmetric(A, solver)
    stencil = recognise(A, shape)
    if any(stencil.periodic):
        raise InputError(f"{solver} has no periodic axes, but the matrix has; use fast-poisson or amg")
    lowest = min(float(face.min()) for face in stencil.faces)
    if lowest < 0 or float(stencil.excess.min()) < -1e-10 * float(stencil.diagonal.max()):
        raise InputError(
            f"{solver} needs couplings <= 0 and row sums >= 0 as of -div(a grad u), but the largest coupling is "
            f"{-lowest:.3g} and the smallest row sum {float(stencil.excess.min()):.3g}; use amg, ic-cg or direct"
        )
    return finest(stencil, device=device)


def as_fields(B: np.ndarray, level: Level) -> Tensor:
    """Columns (n, k) as fields (k, *shape)."""
    columns = np.ascontiguousarray(B.T)
    return torch.as_tensor(columns, device=level.diagonal.device).reshape(-1, *level.shape)


def results(outcome: Outcome, B: np.ndarray, more: dict[str, float] | None = None) -> list[LinearResult]:
    """One result for each right-hand side."""
    history = torch.stack(outcome.residuals).cpu().numpy()
    found = outcome.x.cpu().numpy().reshape(B.shape[1], -1)
    each = []
    for k, x in enumerate(found):
        n = int(outcome.iterations[k])
        ok = bool(outcome.converged[k])
        stalled = n >= 10 and history[n, k] > 0.5 * history[n // 2, k]
        failure = Status.STAGNATED if stalled else Status.MAX_ITERATIONS
        message = f"not converged: {n} iterations spent" + (", the residual no longer falls" if stalled else "")
        stats = {"iterations": n, **(more or {})}
        if outcome.switched is not None:
            stats["switched_at"] = outcome.switched
        residuals = tuple(float(v) for v in history[: n + 1, k])
        each.append(LinearResult(x, Status.CONVERGED if ok else failure, "" if ok else message, residuals, stats))
    return each

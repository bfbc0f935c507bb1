"""The deep conjugate direction method: ours by default, and as published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from pdelab.errors import InputError, check_range
from pdelab.files import write_bytes
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.solvers.linear._conjugate_directions import Iteration, Operator, minimise
from pdelab.solvers.linear._grid_batches import as_fields, grid_level, results
from pdelab.solvers.linear._hierarchy import Level
from pdelab.solvers.linear._learned_cycle import LearnedCycle
from pdelab.solvers.linear._published_net import PublishedNet

WEIGHTS = Path(__file__).parent / "weights"
VERSION = "1"


@dataclass(frozen=True)
class DCDM(AbstractLinearSolver[tuple[Level, Operator]]):
    """Deep conjugate directions with a network that is linear and symmetric in the residual and sees the geometry.

    x <- argmin |x - A^-1 b|_A over x + span{d_k, ..., d_(k-window)},  d_k = M(A) r / |r|

    M(A) is a V-cycle whose smoothers and interpolation a small network predicts, cell by cell, from couplings, walls
    and obstacles (`LearnedCycle`); the same weights serve every grid. Float32 network in a float64 iteration. Where an
    iteration does not halve the residual, D^-1 r joins as a second direction, D the diagonal; where `patience`
    iterations together do not, the network is given up and conjugate gradients with D^-1 go on (`switched_at` in the
    stats). So it converges with any weights.

    Beyond the paper: see `PublishedDCDM` for what that does.

    Args:
        tolerance: relative residual, > 0.
        max_iterations: when to give up, those after a switch included.
        window: iterations before to whose directions new ones are made A-orthogonal.
        patience: iterations in which the residual must halve.
        shape: cells along each axis, 2 or 3 of them; None recognises it in the matrix.
        weights: safetensors file of `dcdm_training`; None takes those of the package.
        device: of torch, such as "cpu" or "cuda".

    Source: Kaneda et al., ICML 2023, arXiv 2205.10763; predicted kernels after Lan et al., ICML 2024, arXiv 2310.00177.
    """

    tolerance: float = 1e-10
    max_iterations: int = 2000
    window: int = 10
    patience: int = 5
    shape: tuple[int, ...] | None = None
    weights: str | None = None
    device: str = "cpu"

    name: ClassVar[str] = "dcdm"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)
        for key in ("max_iterations", "window", "patience"):
            check_range(key, getattr(self, key), least=1)

    def init(self, A: csr_array) -> tuple[Level, Operator]:
        """The finest level and the network's cycle for it.

        Raises:
            InputError: A is not the matrix of a stencil on a box of 2 or 3 axes, or the weights do not fit.
        """
        level = _level(A, self.shape, self.device, self.name)
        net = LearnedCycle(level.d)
        load(net, self.weights or WEIGHTS / f"dcdm-{level.d}d.safetensors", level.d)
        with torch.no_grad():
            cycle = net.to(self.device)(level.to(torch.float32, self.device))
        return level, lambda r: cycle(r.float()).double()

    def compute(self, state: tuple[Level, Operator], b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        return self.compute_batch(state, b[:, None])[0]

    def compute_batch(self, state: tuple[Level, Operator], B: np.ndarray) -> list[LinearResult]:
        """All columns at once."""
        level, network = state
        iteration = Iteration(self.tolerance, self.max_iterations, self.window, patience=self.patience)
        directions = (network, lambda r: level.inverse_diagonal * r)
        with torch.no_grad():
            return results(minimise(level.matvec, as_fields(B, level), directions, iteration), B)

    def apply(self, state: tuple[Level, Operator], r: np.ndarray) -> Any:
        """The network's cycle, which is linear and symmetric: a preconditioner for conjugate gradients."""
        level, network = state
        size = float(np.linalg.norm(r)) or 1.0
        with torch.no_grad():
            return size * network(as_fields(r[:, None] / size, level)).cpu().numpy().reshape(-1)


@dataclass(frozen=True)
class PublishedDCDM(AbstractLinearSolver[tuple[Level, Operator]]):
    """The deep conjugate direction method as published, which may stagnate: it says so instead of an answer.

    d = f(r / |r|);  d <- d - sum_j d_j (d^T A d_j) / (d_j^T A d_j) over the two before, both from one d;
    x <- x + d (d^T r) / (d^T A d);  r <- b - A x

    f is one convolutional network (`PublishedNet`), trained on Ritz vectors of one empty box: in the plane with
    closed walls if the matrix has u = 0 nowhere, else, and in space, with u = 0 around it.
    Differences: the matrix is stored in float64, directions are set to zero in solid cells, which the program of the
    paper leaves to chance, and the weights are our own from a reduced protocol (64^2 and 32^3 cells).

    Args:
        tolerance: relative residual, > 0; the paper has 1e-4.
        max_iterations: when to give up.
        shape: cells along each axis, 2 or 3 of them; None recognises it in the matrix.
        weights: safetensors file of `dcdm_training`; None takes those of the package.
        device: of torch, such as "cpu" or "cuda".

    Source: Kaneda et al., ICML 2023, arXiv 2205.10763.
    """

    tolerance: float = 1e-6
    max_iterations: int = 200
    shape: tuple[int, ...] | None = None
    weights: str | None = None
    device: str = "cpu"

    name: ClassVar[str] = "dcdm-published"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tolerance", self.tolerance, above=0.0)
        check_range("max_iterations", self.max_iterations, least=1)

    def init(self, A: csr_array) -> tuple[Level, Operator]:
        """The finest level and the network.

        Raises:
            InputError: A is not the matrix of a stencil on a box of 2 or 3 axes, or the weights do not fit.
        """
        level = _level(A, self.shape, self.device, self.name)
        net = PublishedNet(level.d)
        kind = "dirichlet" if level.d == 3 or bool(level.excess.any()) else "neumann"
        load(net, self.weights or WEIGHTS / f"dcdm-published-{kind}-{level.d}d.safetensors", level.d)
        net = net.to(self.device)
        return level, lambda r: level.active * net(r.float()).double()

    def compute(self, state: tuple[Level, Operator], b: np.ndarray) -> LinearResult:
        """See `AbstractLinearSolver.compute`."""
        return self.compute_batch(state, b[:, None])[0]

    def compute_batch(self, state: tuple[Level, Operator], B: np.ndarray) -> list[LinearResult]:
        """All columns at once."""
        level, network = state
        iteration = Iteration(self.tolerance, self.max_iterations, window=2, modified=False)
        with torch.no_grad():
            return results(minimise(level.matvec, as_fields(B, level), (network,), iteration), B)


def load(net: nn.Module, path: str | Path, d: int) -> None:
    """Fill a network with the weights of a safetensors file.

    Raises:
        InputError: no such file, or weights of another network, dimension or version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            values: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"weights {path}: cannot be read: {error}") from None
    wanted = {"network": type(net).__name__, "d": str(d), "version": VERSION}
    found = {key: facts.get(key, "none") for key in wanted}
    if found != wanted:
        raise InputError(f"weights {path}: expected those of {wanted}, got {found}; train them again")
    net.load_state_dict(values)
    net.requires_grad_(False)


def save(net: nn.Module, path: str | Path, d: int, facts: dict[str, str]) -> None:
    """Write the weights and how they came about."""
    from safetensors.torch import save as to_bytes

    labels = {"network": type(net).__name__, "d": str(d), "version": VERSION, **facts}
    write_bytes(Path(path), to_bytes({key: value.contiguous() for key, value in net.state_dict().items()}, labels))


def _level(A: csr_array, shape: tuple[int, ...] | None, device: str, solver: str) -> Level:
    level = grid_level(A, shape, device, solver)
    if level.d == 1:
        raise InputError(f"{solver} works on grids of 2 or 3 axes, the matrix has 1; use direct")
    return level

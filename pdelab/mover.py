"""The contract of mesh movers: they redistribute the nodes of a mesh and keep its cells."""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np
from torch import nn

from pdelab.mesh import Mesh
from pdelab.solver import Budget, Context, Progress, training_context

if TYPE_CHECKING:
    from pdelab.checkpoint import CheckpointStore

State = TypeVar("State")
Network = TypeVar("Network", bound=nn.Module)


class AbstractMover(abc.ABC, Generic[State]):
    """Redistributes the nodes to suit a field given at the nodes; connectivity is kept.

    Concrete movers are frozen dataclasses; their fields are the settings. The returned mesh is made by
    `mesh.moved`, which refuses inverted cells; nodes on the boundary stay on it.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def prepare(self, cases: Sequence[tuple[Mesh, np.ndarray]], *, context: Context) -> State:
        """Learn from meshes with nodal values; nothing to do for a classical mover."""

    @abc.abstractmethod
    def move(self, mesh: Mesh, values: np.ndarray, state: State) -> Mesh:
        """The moved mesh for nodal values (N, m).

        Raises:
            MeshTangled: no valid mesh was found.
        """


class AbstractMonitorMover(AbstractMover[State]):
    """A mover that aims at cells of equal monitor mass, and can say which monitor."""

    @abc.abstractmethod
    def monitor_at_nodes(self, mesh: Mesh, values: np.ndarray) -> np.ndarray:
        """The monitor (N,), all > 0, that nodal values (N, m) ask for."""


class AbstractLearnedMover(AbstractMonitorMover[Network]):
    """A mover with a network, trained by `pdelab train`; one that ships is used unless `weights` names another.

    A frozen dataclass as all movers, one of whose fields is `weights`: the file, None for that of the package, which is
    `weights/NAME.safetensors` beside the module. `move` uses the state that it is given, else `trained()`.
    """

    default_budget: ClassVar[Budget]
    weights: str | None

    @abc.abstractmethod
    def cases(self, seed: int) -> Sequence[tuple[Mesh, np.ndarray]]:
        """Meshes with nodal values (N, m) to learn from; the same seed gives the same ones."""

    @abc.abstractmethod
    def blank(self) -> Network:
        """The network before training, in the sizes of the settings."""

    def trained(self) -> Network:
        """The network of the file `weights`, in the sizes that it was trained with.

        Raises:
            CheckpointError: no such file, or one of another mover or version.
        """
        from pdelab.mover_state import load_mover

        spec = importlib.util.find_spec(type(self).__module__)
        beside = Path(spec.origin).parent if spec and spec.origin else Path()
        return load_mover(self.weights or beside / "weights" / f"{self.name}.safetensors", self.name)  # type: ignore[return-value]


def prepare_mover(
    mover: AbstractLearnedMover[Network],
    *,
    budget: Budget | str | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    checkpoints: CheckpointStore | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Network:
    """What a mover learns from its own cases, for `move`: seed and run `mover.prepare`.

    Args:
        mover: with which settings.
        budget: of the training; the mover's default if None.
        seed: same seed, one thread, CPU: the same bits.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        threads: torch threads; None leaves them as they are.
        checkpoints: where to save the state of the training, and to resume from if there is one.
        report: called with the progress.
    """
    with training_context(budget, seed, device, threads, checkpoints, report) as context:
        return mover.prepare(mover.cases(seed), context=context)

"""The contract of mesh movers: they redistribute the nodes of a mesh and keep its cells."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import numpy as np

from pdelab.mesh import Mesh
from pdelab.solver import Context

State = TypeVar("State")


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

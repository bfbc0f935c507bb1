"""What a solver returns: a field, a status that says how it ended, and what it cost."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdelab.calculus import Field
from pdelab.errors import check_shape
from pdelab.lines import Lines
from pdelab.mesh import Mesh
from pdelab.pde import AbstractProblem


class Status(enum.Enum):
    """How a run ended; the text of each member is the advice."""

    CONVERGED = "tolerance met"
    BUDGET_SPENT = "ran for its whole budget; normal for trained solvers, not convergence"
    STAGNATED = "the loss stopped falling; use another optimiser, more points or a larger network"
    MAX_ITERATIONS = "tolerance not met; raise the iteration limit or precondition"
    NONFINITE = "nan or inf appeared; lower the learning rate or use float64"
    UNSTABLE = "the values grew without bound; use another scheme, finer steps, or fewer conditions on outflow"
    MESH_TANGLED = "a cell was inverted; lower the mover strength"
    MAP_FOLDED = "labels overtook one another; train longer, raise follow or floor, or end before the shock"
    LINEAR_SOLVE_FAILED = "a linear solve missed its tolerance; use the direct solver or raise its iteration limit"

    @property
    def ok(self) -> bool:
        """Whether the field may be used as a result."""
        return self in (Status.CONVERGED, Status.BUDGET_SPENT)


@dataclass(frozen=True, eq=False)
class Solution:
    """The answer of one solver to one problem.

    Attributes:
        problem: what was solved.
        field: (n, d) -> (n, m), differentiable where the representation allows it.
        status: how the run ended.
        message: one line on the particular case; may be empty.
        stats: numbers: steps, n_parameters, dofs, loss, setup_s, train_s, solve_s, and, once the driver
            is through, wall_s, cpu_s, peak_memory_mb.
        history: columns of equal length, "step" and "cpu_s" among them, for trained solvers.
        mesh: the nodes that were solved for, if there are any.
        times: the time levels that were solved for, if there are any, (k,).
        unknowns: identified coefficients of an inverse problem.
        validity: checks that apply (min_jacobian, constraint_residual, ...).
        lines: name -> lines to be looked at over the field, such as paths of labels.
        marks: name -> what else there is to say of points, (n, d) -> (n,), such as which part they belong to; written
            to the files beside the components.
        solver, solver_args, seed, device, threads, started: filled in by the driver.
    """

    problem: AbstractProblem
    field: Field
    status: Status
    message: str = ""
    stats: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)
    mesh: Mesh | None = None
    times: np.ndarray | None = None
    unknowns: Mapping[str, float] = dataclasses.field(default_factory=dict)
    validity: Mapping[str, float] = dataclasses.field(default_factory=dict)
    lines: Mapping[str, Lines] = dataclasses.field(default_factory=dict)
    marks: Mapping[str, Callable[[np.ndarray], np.ndarray]] = dataclasses.field(default_factory=dict)
    solver: Any = None
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    started: str = ""

    def at(self, points: Any) -> np.ndarray:
        """Values at points, (n, d) -> (n, m) float64, without gradient, in chunks."""
        x = torch.as_tensor(np.asarray(points, dtype=np.float64))
        check_shape("points", x, (None, len(self.problem.axes)))
        with torch.no_grad():
            return torch.cat([self.field(part).to("cpu", torch.float64) for part in x.split(65536)]).numpy()

    def error(self) -> dict[str, Any]:
        """Errors against the verified reference, with its floor; see `pdelab.metrics.score`."""
        from pdelab.metrics import score

        return score(self)

    def save(self, folder: str | Path, *, force: bool = False) -> list[Path]:
        """Write the run folder: result.json, history.csv, fields for ParaView, figures."""
        from pdelab.runs import save

        return save(self, Path(folder), force=force)

    def replaced(self, **changes: Any) -> Solution:
        """A copy with other values in some attributes."""
        return dataclasses.replace(self, **changes)

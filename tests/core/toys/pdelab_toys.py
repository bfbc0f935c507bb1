"""A problem and solvers so small that what is around them can be tested."""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from pdelab.bench import Case
from pdelab.domain import Interval
from pdelab.errors import InputError, check_range
from pdelab.pde import AbstractProblem, Dirichlet, Exact
from pdelab.solution import Solution, Status
from pdelab.solver import AbstractInstanceSolver, Progress


@dataclass(frozen=True)
class Line(AbstractProblem):
    """A straight line: u_xx = 0, u = slope x at the ends of [0, 1]."""

    slope: float = 2.0

    name: ClassVar[str] = "line"
    domain: ClassVar = Interval(0.0, 1.0)

    def __post_init__(self):
        check_range("slope", self.slope, above=0.0)

    def residual(self, f):
        return f.u_xx

    def conditions(self):
        return (Dirichlet("u", lambda p: self.slope * p.x),)

    def reference(self):
        return Exact(lambda p: self.slope * p.x, floor=1e-3)


@dataclass(frozen=True)
class Guess(AbstractInstanceSolver):
    """The exact line, off by a relative error, or an accident instead."""

    error: float = 0.5
    accident: str = ""
    weights: tuple[float, ...] = field(default_factory=tuple)

    name: ClassVar[str] = "guess"
    accepts: ClassVar = Line

    def run(self, problem, state, *, context):
        if self.accident == "raise":
            raise ZeroDivisionError("the toy fell over")
        if self.accident == "refuse":
            raise InputError("the toy does not like this")
        if self.accident == "interrupt":
            raise KeyboardInterrupt
        factor = float("nan") if self.accident == "nan" else 1.0 + self.error
        return Solution(
            problem, lambda x: problem.slope * factor * x, Status.CONVERGED, stats={"dofs": 1, "solve_s": 0.0}
        )


@dataclass(frozen=True)
class Descent(AbstractInstanceSolver):
    """One number that halves its distance from the slope at each step; it starts at a random one."""

    pause: float = 0.0

    name: ClassVar[str] = "descent"
    accepts: ClassVar = Line
    trained: ClassVar[bool] = True

    def run(self, problem, state, *, context):
        slope, first = float(torch.rand(())), 0
        history = {"step": [], "cpu_s": [], "error": []}
        saved = context.checkpoints.load() if context.checkpoints else None
        if saved:
            first, tensors, history = saved[0], saved[1], saved[2]
            slope = float(tensors["slope"])
        steps = context.budget.steps or 10
        for step in range(first, steps):
            slope += 0.5 * (problem.slope - slope)
            history["step"].append(float(step + 1))
            history["cpu_s"].append(0.01 * (step + 1))
            history["error"].append(context.monitor(lambda x, s=slope: s * x) if context.monitor else float("nan"))
            time.sleep(self.pause)
            context.report(Progress(step + 1, steps, {"slope": slope}))
            if context.checkpoints:
                context.checkpoints.save(step + 1, {"slope": torch.tensor(slope, dtype=torch.float64)}, history)
        stats = {"steps": steps, "n_parameters": 1, "first": first}
        return Solution(problem, lambda x: slope * x, Status.BUDGET_SPENT, f"from step {first}", stats, history)


CASES = (
    Case("line", "guess", limits={"rel_l2": 0.6}),
    Case("line", "guess", solver_args={"error": 1e-3}, label="good", limits={"rel_l2": 1e-4, "dofs": 1}),
    Case("line", "guess", solver_args={"accident": "raise"}, label="raises"),
    Case("line", "guess", solver_args={"accident": "refuse"}, label="refuses"),
    Case("line", "guess", solver_args={"accident": "nan"}, label="nan"),
    Case("line", "descent", budget="8steps", seeds=(7193, 8117, 9311), limits={"rel_l2": 0.02, "steps": 8}),
)
DOUBLED = (Case("line", "guess"), Case("line-v2", "guess"))
UNKNOWN = (Case("lime", "guess"),)
SLOW = (
    Case("line", "guess"),
    Case("line", "descent", solver_args={"pause": 0.25}, budget="12steps"),
)

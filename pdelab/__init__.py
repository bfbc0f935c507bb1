"""pdelab: a neural PDE solver platform. One problem definition, neural and classical solvers, a fair benchmark.

Names are loaded when they are first used: `import pdelab` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "AbstractDiffusionProblem": "pdelab.pde",
    "AbstractElasticityProblem": "pdelab.pde",
    "AbstractFamily": "pdelab.pde",
    "AbstractFlowProblem": "pdelab.pde",
    "AbstractInstanceSolver": "pdelab.solver",
    "AbstractLinearSolver": "pdelab.linear",
    "AbstractMover": "pdelab.mover",
    "AbstractOperatorSolver": "pdelab.solver",
    "AbstractPeriodicProblem": "pdelab.pde",
    "AbstractProblem": "pdelab.pde",
    "AbstractSolver": "pdelab.solver",
    "Annulus": "pdelab.shapes",
    "Ball": "pdelab.shapes",
    "Box": "pdelab.domain",
    "Budget": "pdelab.solver",
    "Coefficients": "pdelab.pde",
    "Computed": "pdelab.pde",
    "ConstraintLayer": "pdelab.constraint_layer",
    "Context": "pdelab.solver",
    "Difference": "pdelab.csg",
    "Dirichlet": "pdelab.pde",
    "Disk": "pdelab.shapes",
    "Ellipse": "pdelab.shapes",
    "Exact": "pdelab.pde",
    "Initial": "pdelab.pde",
    "Intersection": "pdelab.csg",
    "Interval": "pdelab.domain",
    "Mesh": "pdelab.mesh",
    "Neumann": "pdelab.pde",
    "Observations": "pdelab.pde",
    "PdelabError": "pdelab.errors",
    "Periodic": "pdelab.pde",
    "Polygon": "pdelab.polygon",
    "Solution": "pdelab.solution",
    "SolveFailed": "pdelab.errors",
    "Status": "pdelab.solution",
    "Union": "pdelab.csg",
    "linear_solve": "pdelab.linear",
    "linear_solve_batch": "pdelab.linear",
    "load_state": "pdelab.state",
    "prepare": "pdelab.solver",
    "register": "pdelab.registry",
    "solve": "pdelab.solver",
}

_MODULES = ("benchmarks", "meshes", "problems", "solvers", "testing")

if TYPE_CHECKING:
    from pdelab.pde import AbstractFamily, AbstractProblem


def problem(name: str, **parameters: Any) -> AbstractProblem:
    """The problem of that name: `pdelab.problem("burgers", viscosity=0.01)`.

    Raises:
        UnknownName: no such problem or parameter; the nearest names are offered.
        SettingsError: a parameter is of the wrong type or out of range.
    """
    from pdelab import registry
    from pdelab.config import build

    return build(registry.load("problems", name), parameters)


def family(name: str, **parameters: Any) -> AbstractFamily:
    """The family of that name: `pdelab.family("diffusion-sorption")`; `sample(number)` gives its members.

    Raises:
        UnknownName: no such family or parameter; the nearest names are offered.
        SettingsError: a parameter is of the wrong type or out of range.
    """
    from pdelab import registry
    from pdelab.config import build

    return build(registry.load("families", name), parameters)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"pdelab.{name}")
    raise AttributeError(f"module 'pdelab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_LAZY, *_MODULES, "family", "problem", "__version__"])

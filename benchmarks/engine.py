"""The optimisers of `pinn` against one another, DeepXDE, random features and a classical solver, in equal time.

Within a problem every trained row has the same network, points by the same rule and the same CPU seconds. The
budgets are a tenth of what a user who wants all digits would give, so that three seeds of every row take about an
hour on two cores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from pdelab.bench import Case

OPTIMIZERS = ("auto", "gauss-newton", "ssbroyden", "lbfgs", "adam", "soap")
SAME: Mapping[str, object] = {
    "width": 16,
    "depth": 3,
    "n_interior": 1280,
    "n_boundary": 128,
    "n_initial": 128,
}


@dataclass(frozen=True)
class Race:
    """The CPU seconds of each trained row of a problem, and the rows of the other solvers.

    Attributes:
        budget: of each trained row.
        others: solver -> settings.
        settings: of the problem.
        label: tells two races on one problem apart.
        constraints: of every trained row; soft where the boundary values alone would give the solution.
    """

    budget: str
    others: Mapping[str, Mapping[str, object]]
    settings: Mapping[str, object] = field(default_factory=dict)
    label: str = ""
    constraints: str = "hard"


RACES: Mapping[str, tuple[Race, ...]] = {
    "burgers": (Race("30s", {"spectral": {}}),),
    "allen-cahn": (Race("60s", {"spectral": {}}),),
    "kdv": (Race("60s", {"spectral": {}}),),
    "convection": (Race("12s", {"spectral": {}, "random-features": {}}),),
    "reaction": (Race("12s", {"spectral": {}}),),
    "reaction-diffusion": (Race("12s", {"spectral": {}}),),
    "helmholtz": (Race("12s", {"spectral": {}, "random-features": {}}),),
    # Its solution is bilinear in space, which is what the values on the boundary are continued by.
    "klein-gordon": (Race("30s", {"spectral": {"n": 12}}, constraints="soft"),),
    "poisson": (Race("6s", {"spectral": {"n": 16}, "random-features": {}}),),
    "poisson-holes": (Race("30s", {"fem": {"order": 2}, "random-features": {}}),),
    "poisson-nd": (
        Race("30s", {"random-features": {}}, {"dimension": 5}, "5d"),
        Race("30s", {"random-features": {}}, {"dimension": 10}, "10d"),
    ),
    "cavity-parabolic": (Race("60s", {"fem": {}}),),
}


def _cases() -> tuple[Case, ...]:
    cases = []
    for problem, races in RACES.items():
        for race in races:
            before = f"{race.label}-" if race.label else ""
            common = Case(problem, "pinn", problem_args=race.settings, budget=race.budget)
            same = {**SAME, "constraints": race.constraints}
            for optimizer in OPTIMIZERS:
                settings = {**same, "optimizer": optimizer}
                cases.append(dataclasses.replace(common, solver_args=settings, label=before + optimizer))
            cases.append(dataclasses.replace(common, solver="deepxde", solver_args=same, label=race.label))
            for name, other in race.others.items():
                cases.append(Case(problem, name, race.settings, other, label=race.label))
    return tuple(cases)


CASES = _cases()

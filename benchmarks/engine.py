"""The optimisers of `pinn` against one another, DeepXDE, random features and a classical solver, in equal time.

Within a problem every trained row has the same network, points by the same rule and the same CPU seconds; rows called
`wide` show what `auto` makes of a wide, shallow network for a linear equation, whose last layer it solves for. One
seed of all rows takes about two hours on two cores; `--only "*auto*"` and other patterns run a part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from pdelab.bench import Case

OPTIMIZERS = ("auto", "gauss-newton", "ssbroyden", "lbfgs", "adam", "soap")
SMALL: Mapping[str, object] = {"width": 16, "depth": 3, "n_interior": 5000}
DEEP: Mapping[str, object] = {"width": 16, "depth": 4, "n_interior": 6000}
SINE: Mapping[str, object] = {**SMALL, "activation": "sin"}


@dataclass(frozen=True)
class Race:
    """What the rows of a problem share, and the rows of the other solvers.

    Attributes:
        budget: of each trained row.
        same: network, points and constraints of each trained row.
        others: solver -> settings.
        limit: of the relative L2 error of `auto`, or of the row `wide` if there is one.
        settings: of the problem.
        label: tells two races on one problem apart.
        wide: budget and settings of the row `wide`.
    """

    budget: str
    same: Mapping[str, object]
    others: Mapping[str, Mapping[str, object]]
    limit: float
    settings: Mapping[str, object] = field(default_factory=dict)
    label: str = ""
    wide: tuple[str, Mapping[str, object]] | None = None


def _shallow(width: int, frequency: float, n_interior: int) -> Mapping[str, object]:
    """One layer of sines."""
    return {"network": "siren", "depth": 1, "width": width, "frequency": frequency, "n_interior": n_interior}


RACES: Mapping[str, tuple[Race, ...]] = {
    "burgers": (Race("300s", DEEP, {"spectral": {}}, 5e-6),),
    "allen-cahn": (Race("200s", DEEP, {"spectral": {}}, 3e-5),),
    "kdv": (Race("300s", DEEP, {"spectral": {}}, 3e-4),),
    "convection": (
        Race("60s", SINE, {"spectral": {}, "random-features": {}}, 1e-6, wide=("60s", _shallow(1300, 64.0, 6000))),
    ),
    "reaction": (Race("120s", SMALL, {"spectral": {}}, 1e-6),),
    "reaction-diffusion": (Race("120s", SMALL, {"spectral": {}}, 1e-6),),
    "helmholtz": (
        Race("60s", SINE, {"spectral": {}, "random-features": {}}, 1e-7, wide=("30s", _shallow(600, 24.0, 4000))),
    ),
    # Its solution is bilinear in space, which is what the values on the boundary are continued by.
    "klein-gordon": (Race("150s", {**SINE, "constraints": "soft"}, {"spectral": {"n": 12}}, 1e-4),),
    "poisson": (Race("6s", {**SMALL, "depth": 2}, {"spectral": {"n": 16}, "random-features": {}}, 1e-8),),
    "poisson-holes": (Race("40s", SMALL, {"fem": {"order": 2}, "random-features": {}}, 2e-3),),
    "poisson-nd": (
        Race("150s", SMALL, {"random-features": {}}, 1e-6, {"dimension": 5}, "5d"),
        Race("100s", SMALL, {"random-features": {}}, 1e-4, {"dimension": 10}, "10d"),
    ),
    "cavity-parabolic": (Race("60s", {**SMALL, "n_interior": 3000}, {"fem": {}}, 5e-3),),
}


def _cases() -> tuple[Case, ...]:
    return tuple(case for problem, races in RACES.items() for race in races for case in _rows(problem, race))


def _rows(problem: str, race: Race) -> list[Case]:
    before = f"{race.label}-" if race.label else ""
    limits = {"rel_l2": race.limit}
    common = Case(problem, "pinn", problem_args=race.settings, budget=race.budget)
    rows = [
        dataclasses.replace(common, solver_args={**race.same, "optimizer": optimizer}, label=before + optimizer)
        for optimizer in OPTIMIZERS
    ]
    if race.wide:
        budget, settings = race.wide
        rows.append(dataclasses.replace(common, solver_args=settings, budget=budget, label="auto-wide", limits=limits))
    else:
        rows[0] = dataclasses.replace(rows[0], limits=limits)
    rows.append(dataclasses.replace(common, solver="deepxde", solver_args=race.same, label=race.label))
    others = race.others.items()
    return rows + [Case(problem, name, race.settings, other, label=race.label) for name, other in others]


CASES = _cases()

"""The optimisers of `pinn` against one another, DeepXDE, random features and a classical solver, in equal time.

Within a problem every trained row has the same network, points by the same rule and the same CPU seconds; rows called
`wide` show what `auto` makes of a wide, shallow network for a linear equation, whose last layer it solves for. On the
other networks here `auto` is `gauss-newton`, so that there is no row of that name.

`auto` and DeepXDE run with three seeds, the others with one; `--seeds 3` runs all with three.
About 90 minutes on two cores; `--only "*auto*"` and other patterns run a part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from pdelab.bench import SEEDS, Case

OTHERS = ("ssbroyden", "lbfgs", "adam", "soap")
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
        wide: settings of the row `wide`.
        auto: what the row `auto` has instead, or beside that.
        ours, theirs: what `pinn` and `deepxde` call differently, or what one of them does not have.
    """

    budget: str
    same: Mapping[str, object]
    others: Mapping[str, Mapping[str, object]]
    limit: float
    settings: Mapping[str, object] = field(default_factory=dict)
    label: str = ""
    wide: Mapping[str, object] | None = None
    auto: Mapping[str, object] = field(default_factory=dict)
    ours: Mapping[str, object] = field(default_factory=dict)
    theirs: Mapping[str, object] = field(default_factory=dict)


def _shallow(width: int, frequency: float, n_interior: int) -> Mapping[str, object]:
    """One layer of sines."""
    return {"network": "siren", "depth": 1, "width": width, "frequency": frequency, "n_interior": n_interior}


RACES: Mapping[str, tuple[Race, ...]] = {
    "burgers": (Race("120s", DEEP, {"spectral": {}}, 5e-6),),
    # Sobol points where the initial values have a kink between periodic ends: the residual stays large there, and
    # adaptive points would see little else.
    "allen-cahn": (Race("240s", {**DEEP, "sampler": "sobol"}, {"spectral": {}}, 3e-5),),
    # Two networks for two halves of the time; DeepXDE, which has no slabs, gets one with as many weights as both.
    "kdv": (Race("200s", DEEP, {"spectral": {}}, 3e-4, ours={"n_slabs": 2}, theirs={"width": 23}),),
    "convection": (Race("60s", SINE, {"spectral": {}, "random-features": {}}, 1e-6, wide=_shallow(1300, 64.0, 6000)),),
    "reaction": (Race("80s", {**SMALL, "n_interior": 3000}, {"spectral": {}}, 1e-6),),
    # What each does better with: tanh and this weight, or sines and the usual weight of 100.
    "reaction-diffusion": (
        Race(
            "80s",
            {**SINE, "sampler": "sobol"},
            {"spectral": {}},
            1e-6,
            auto={"activation": "tanh", "weights": {"initial": 1.0}},
        ),
    ),
    "helmholtz": (Race("30s", SINE, {"spectral": {}, "random-features": {}}, 1e-7, wide=_shallow(600, 24.0, 4000)),),
    # Its solution is bilinear in space, which is what the values on the boundary are continued by.
    "klein-gordon": (Race("60s", {**SINE, "constraints": "soft"}, {"spectral": {"n": 12}}, 1e-4),),
    "poisson": (Race("12s", {**SMALL, "depth": 2}, {"spectral": {"n": 16}, "random-features": {}}, 1e-8),),
    "poisson-holes": (Race("60s", SMALL, {"fem": {"order": 2}, "random-features": {}}, 2e-3),),
    "poisson-nd": (
        Race("60s", SINE, {"random-features": {}}, 1e-6, {"dimension": 5}, "5d"),
        Race("60s", SINE, {"random-features": {}}, 1e-4, {"dimension": 10}, "10d"),
    ),
    "cavity-parabolic": (Race("60s", {**SMALL, "n_interior": 3000}, {"fem": {}}, 5e-3),),
}


def _cases() -> tuple[Case, ...]:
    return tuple(case for problem, races in RACES.items() for race in races for case in _rows(problem, race))


def _rows(problem: str, race: Race) -> list[Case]:
    before = f"{race.label}-" if race.label else ""
    ours, theirs = {**race.same, **race.ours}, {**race.same, **race.theirs}
    trained = Case(problem, "pinn", race.settings, ours, race.budget, SEEDS[:3])
    limits = {"rel_l2": race.limit}
    first = dataclasses.replace(trained, label=before + "auto", limits={} if race.wide else limits)
    rows = [dataclasses.replace(first, solver_args={**ours, **race.auto})]
    if race.wide:
        rows.append(dataclasses.replace(trained, solver_args=race.wide, label=before + "auto-wide", limits=limits))
    rows += [
        dataclasses.replace(
            trained, solver_args={**ours, "optimizer": optimizer}, label=before + optimizer, seeds=SEEDS[:1]
        )
        for optimizer in OTHERS
    ]
    rows.append(dataclasses.replace(trained, solver="deepxde", solver_args=theirs, label=race.label))
    others = race.others.items()
    return rows + [Case(problem, name, race.settings, other, label=race.label) for name, other in others]


CASES = _cases()

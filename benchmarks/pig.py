"""Physics-informed Gaussians beside their published form, a network, and the classical solver, in equal time.

Rows without a label are ours: widths and numbers as the problem asks, the rest by default. `published` has features,
network, conditions, weights and optimisers of the paper with fewer Gaussians and points (each feature has N of them);
`network` is a network of 16 units in three layers with the same points, and what `pinn` chooses for it. `spig` takes
points of its own, on a grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from pdelab.bench import SEEDS, Case

Settings = Mapping[str, object]
NETWORK: Settings = {"width": 16, "depth": 3}
PUBLISHED: Settings = {
    "n_gaussians": 200,
    "n_features": 4,
    "hidden": 16,
    "constraints": "soft",
    "sampler": "uniform",
    "resample_every": 20,
}


@dataclass(frozen=True)
class Trial:
    """The rows of one problem.

    Attributes:
        budget: of each trained row.
        points: of each trained row.
        ours: what PIG has beside them.
        limit: of its relative L2 error.
        published: what the paper's form has beside them.
        classical: solver -> settings.
        settings: of the problem.
        label: tells two trials on one problem apart.
        network: what `pinn` has beside points and size.
        separable: what `spig` has beside its defaults; None for no row.
    """

    budget: str
    points: Settings
    ours: Settings
    limit: float
    published: Settings
    classical: Mapping[str, Settings]
    settings: Settings = field(default_factory=dict)
    label: str = ""
    network: Settings = field(default_factory=dict)
    separable: Settings | None = None


HARMONIC: Settings = {"optimizer": "lbfgs", "width": 1.4, "weights": {"residual": 1e-4, "dirichlet": 1.0}}
EVEN: Settings = {"optimizer": "adam", "width": 1.0, "weights": {"initial": 1.0, "dirichlet": 1.0}}
WAVE: Settings = {"n_interior": 4000, "n_boundary": 1000}

TRIALS: Mapping[str, tuple[Trial, ...]] = {
    "helmholtz": (
        Trial(
            "60s",
            {"n_interior": 2000},
            {"n_gaussians": 400, "width": 3.0},
            1e-6,
            {**HARMONIC, "n_boundary": 2000},
            {"spectral": {"n": 28}},
            {"a1": 4, "a2": 1},
            network={"activation": "sin"},
        ),
        Trial(
            "60s",
            {"n_interior": 4500},
            {"n_gaussians": 1600, "moves": "nothing"},
            1e-3,
            {**HARMONIC, "n_boundary": 2000},
            {"spectral": {"n": 48}},
            {"a1": 10, "a2": 10},
            "10-10",
            network={"activation": "sin"},
        ),
    ),
    "klein-gordon": (
        Trial(
            "60s",
            WAVE,
            {"n_gaussians": 700, "hidden": 0, "width": (6.0, 6.0, 1.2), "moves": "nothing", "constraints": "soft"},
            5e-4,
            {**EVEN, "n_gaussians": 100},
            {"spectral": {"n": 12}},
            network={"activation": "sin", "constraints": "soft"},
            separable={"constraints": "soft", "n_boundary": 1000},
        ),
        Trial(
            "60s",
            WAVE,
            {"n_gaussians": 700, "hidden": 0, "width": (6.0, 6.0, 1.2), "moves": "nothing", "constraints": "soft"},
            1.0,
            {**EVEN, "n_gaussians": 100},
            {},
            {"start_velocity": False},
            "no-velocity",
            network={"activation": "sin", "constraints": "soft"},
        ),
    ),
}


def _rows(problem: str, trial: Trial) -> list[Case]:
    before = f"{trial.label}-" if trial.label else ""
    case = Case(problem, "pig", trial.settings, {}, trial.budget, SEEDS[:3])
    ours, published, network = (
        {**same, **trial.points, **own}
        for same, own in (({}, trial.ours), (PUBLISHED, trial.published), (NETWORK, trial.network))
    )
    rows = [
        dataclasses.replace(case, solver_args=ours, label=trial.label, limits={"rel_l2": trial.limit}),
        dataclasses.replace(case, solver_args=published, label=before + "published"),
        dataclasses.replace(case, solver="pinn", solver_args=network, label=before + "network"),
    ]
    if trial.separable is not None:
        rows.append(dataclasses.replace(case, solver="spig", solver_args=trial.separable, label=trial.label))
    others = trial.classical.items()
    return rows + [Case(problem, name, trial.settings, other, label=trial.label) for name, other in others]


CASES = tuple(case for problem, trials in TRIALS.items() for trial in trials for case in _rows(problem, trial))

NETWORKS: Mapping[str, Settings] = {
    "network": {"n_gaussians": 45, "n_features": 4, "hidden": 16},
    "features": {"n_gaussians": 190, "hidden": 0},
}
"""About 1000 parameters each if all of them move."""


def _ablated(label: str, **settings: object) -> Case:
    chosen = {"n_interior": 2500, "width": 1.5, "optimizer": "gauss-newton", **settings}
    return Case("helmholtz", "pig", {}, chosen, "20s", SEEDS[:3], {}, label)


ABLATION = (
    *(
        _ablated(f"{name}-{label}", moves=moves, **settings)
        for name, settings in NETWORKS.items()
        for label, moves in (("learned", "all"), ("fixed-centres", "widths"), ("fixed", "nothing"))
    ),
    *(_ablated(f"network-n-{n}", n_gaussians=n, n_features=4, hidden=16) for n in (11, 22)),
)
"""What the network and the moves of the Gaussians do, and their number: all by Gauss-Newton, in equal time."""

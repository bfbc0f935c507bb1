"""What the pictures of a run show, as plain text and arrays: drawn at once, or stored and drawn later."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pdelab.errors import InputError
from pdelab.mesh import Mesh
from pdelab.snapshots import Snapshot, Snapshots, compare
from pdelab.solution import Solution
from pdelab.vtk import Grid

PLANE = 65
"""Points on each axis of a plane through a solid."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture: where, what is on its axes, and the sampled arrays.

    Attributes:
        title: above it, may be empty.
        labels: of the horizontal and the vertical axis; a line has only the first.
        place: a grid of one or two axes, or a mesh in the plane.
        arrays: the components under their names, `reference` and `error` as `pdelab.snapshots.compare` gives
            them, (N,) each.
        equal: whether both axes have one scale.
    """

    title: str
    labels: tuple[str, ...]
    place: Grid | Mesh
    arrays: Mapping[str, np.ndarray]
    equal: bool = True


@dataclass(frozen=True, eq=False)
class Scene:
    """The pictures of one run before they are drawn.

    Attributes:
        problem: its name, for the title of the reference.
        title: of every other picture.
        components: names, a row of a picture for each.
        panels: beside each other; a single one over a grid of one axis is drawn as lines.
        history: of the training, may be empty.
        floor: relative L2 error of the reference, if there is one.
        lines: name -> lines, (k, 2) each, that are drawn over the field in one more picture.
    """

    problem: str
    title: str
    components: tuple[str, ...]
    panels: Sequence[Panel]
    history: Mapping[str, Sequence[float]]
    floor: float | None
    lines: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)

    @property
    def is_line(self) -> bool:
        """Whether the values are a function of one variable."""
        return self.panels[0].place.points.shape[1] == 1

    @property
    def kinds(self) -> list[str]:
        """Names of the pictures."""
        compared = not self.is_line and any(name.startswith("error") for name in self.panels[0].arrays)
        trained = len(self.history.get("step", ())) > 1
        return ["field", *["reference", "error"] * compared, *self.lines, *["history"] * trained]


def scene(snapshots: Snapshots, error: Mapping[str, Any] | None = None) -> Scene:
    """What is to be drawn of a solution.

    In one space dimension the line, or the image over (x, t); in two the first, middle and last time; in three the
    planes through the middle at the last time. In two dimensions, (x, t) or space, with the lines that there are.

    Args:
        snapshots: of the solution.
        error: what `solution.error()` gave, for the title and the floor.
    """
    solution, error = snapshots.solution, error or {}
    name, components = solution.problem.name, solution.problem.components
    history = {name: [float(v) for v in values] for name, values in solution.history.items()}
    flat = len(solution.problem.axes) == 2
    lines = {
        key: found.each()
        for key, found in solution.lines.items()
        if flat and found.points.shape[1] == 2 and len(found.lengths)
    }
    return Scene(name, _title(solution, error), components, _panels(snapshots), history, error.get("floor"), lines)


def to_bytes(scene: Scene) -> bytes:
    """A scene as a .npz file without compression; `from_bytes` gives it back exactly."""
    arrays = {f"history/{name}": np.asarray(values, dtype=float) for name, values in scene.history.items()}
    places = list({id(panel.place): panel.place for panel in scene.panels}.values())
    stored_places: list[dict[str, Any]] = []
    panels: list[dict[str, Any]] = []
    for number, place in enumerate(places):
        if isinstance(place, Grid):
            stored_places.append({"grid": [place.lower, place.upper, place.shape]})
        else:
            stored_places.append({"cell_type": place.cell_type})
            arrays |= {f"place{number}/points": place.points, f"place{number}/cells": place.cells}
    for number, panel in enumerate(scene.panels):
        where = next(i for i, place in enumerate(places) if place is panel.place)
        panels.append({"title": panel.title, "labels": panel.labels, "equal": panel.equal, "place": where})
        arrays |= {f"panel{number}/{name}": values for name, values in panel.arrays.items()}
    facts: dict[str, Any] = {
        "problem": scene.problem,
        "title": scene.title,
        "components": scene.components,
        "floor": scene.floor,
    }
    facts |= {"places": stored_places, "panels": panels}
    facts["lines"] = {key: [len(line) for line in lines] for key, lines in scene.lines.items()}
    arrays |= {f"lines/{key}": np.concatenate(lines) for key, lines in scene.lines.items()}
    memory = io.BytesIO()
    np.savez(memory, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
    return memory.getvalue()


def from_bytes(data: bytes) -> Scene:
    """The inverse of `to_bytes`.

    Raises:
        InputError: these are no such bytes.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = dict(stored)
        facts = json.loads(str(arrays.pop("facts")))
        places = [_place(place, _under(f"place{i}/", arrays)) for i, place in enumerate(facts["places"])]
        panels = [
            Panel(p["title"], tuple(p["labels"]), places[p["place"]], _under(f"panel{i}/", arrays), p["equal"])
            for i, p in enumerate(facts["panels"])
        ]
        history = {name: values.tolist() for name, values in _under("history/", arrays).items()}
        stored = _under("lines/", arrays)
        lines = {key: np.split(stored[key], np.cumsum(n)[:-1]) for key, n in facts.get("lines", {}).items()}
        named = facts["problem"], facts["title"], tuple(facts["components"])
        return Scene(*named, panels, history, facts["floor"], lines)
    except Exception as error:  # zipfile, zlib, numpy and json have their own ways to say it
        raise InputError(f"no stored pictures: {type(error).__name__}: {error}") from None


def _place(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Grid | Mesh:
    if "grid" in facts:
        lower, upper, shape = (tuple(part) for part in facts["grid"])
        return Grid(lower, upper, shape)
    return Mesh(arrays["points"], arrays["cells"], facts["cell_type"])


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _title(solution: Solution, error: Mapping[str, Any]) -> str:
    parts = [solution.problem.name, *([solution.solver.name] if solution.solver is not None else [])]
    if "rel_l2" in error:
        parts.append(f"relative L2 error {error['rel_l2']:.2e}")
    if not solution.status.ok:
        parts.append(solution.status.name)
    return "  |  ".join(parts)


def _panels(snapshots: Snapshots) -> list[Panel]:
    problem, series = snapshots.solution.problem, snapshots.series
    if len(problem.axes) == 1:
        return [Panel("", problem.axes, series[0].place, _shown(series[0]), equal=False)]
    if snapshots.image is not None:
        return [Panel("", (problem.axes[0], "t"), snapshots.image.place, _shown(snapshots.image), equal=False)]
    if problem.domain.dimension == 3:
        return [_plane(snapshots, a, b) for a, b in ((0, 1), (0, 2), (1, 2))]
    chosen = [series[i] for i in sorted({0, (len(series) - 1) // 2, len(series) - 1})]
    labels = (problem.axes[0], problem.axes[1])
    return [Panel(_when(snapshot), labels, snapshot.place, _shown(snapshot)) for snapshot in chosen]


def _shown(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """The arrays that are drawn."""
    return {name: array for name, array in snapshot.arrays.items() if name not in ("residual", "velocity")}


def _when(snapshot: Snapshot) -> str:
    return "" if snapshot.time is None else f"t = {snapshot.time:.4g}"


def _plane(snapshots: Snapshots, a: int, b: int) -> Panel:
    """The plane of two axes through the middle of the third at the last time, outside of the domain left out."""
    problem = snapshots.solution.problem
    lower, upper = problem.domain.bounds
    grid = Grid((lower[a], lower[b]), (upper[a], upper[b]), (PLANE, PLANE))
    centre = 0.5 * (lower + upper)
    points = np.tile(centre, (grid.n_points, 1))
    points[:, [a, b]] = grid.points
    # Shrunk by a hair: the sides of the bounds belong to the picture.
    inside = problem.domain.inside(centre + (1 - 1e-9) * (points - centre))
    (c,) = {0, 1, 2} - {a, b}
    title = f"{problem.axes[c]} = {centre[c]:.3g}"
    if problem.time:
        points = np.hstack([points, np.full((len(points), 1), problem.time[1])])
        title += f", t = {problem.time[1]:.4g}"
    arrays = {}
    for name, values in compare(snapshots.solution, points[inside], snapshots.reference).items():
        arrays[name] = np.full(len(points), np.nan)
        arrays[name][inside] = values
    return Panel(title, (problem.axes[a], problem.axes[b]), grid, arrays)

"""Error against CPU seconds: trained solvers as curves, classical ones as points, on the same axes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from pdelab.report import Group, Line

NEUTRAL = "#808790"  # readable on white and on black


def solver_colours(groups: Sequence[Group]) -> dict[str, str]:
    """Solver label -> colour, the same in every picture of a report."""
    labels = sorted({line.label for group in groups for line in group.lines})
    return {label: f"C{i % 10}" for i, label in enumerate(labels)}


def error_curves(lines: Sequence[Line], colours: Mapping[str, str]) -> bytes:
    """An SVG of relative L2 error over CPU seconds, both axes logarithmic; b'' if there is nothing to draw.

    One thin curve for each seed of a trained solver, ending in a point at its last iterate; a diamond for
    each solver without a curve; a dashed line at the floor of the reference.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogFormatter

    drawn = [line for line in lines if line.values("metrics", "rel_l2") and line.values("cost", "cpu_s")]
    if not drawn:
        return b""
    style: dict[str, Any] = {
        "text.color": NEUTRAL,
        "axes.labelcolor": NEUTRAL,
        "xtick.color": NEUTRAL,
        "ytick.color": NEUTRAL,
    }
    style |= {"axes.edgecolor": NEUTRAL, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    style |= {"svg.hashsalt": "pdelab"}
    with rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for line in drawn:
            _draw(axes, line, colours[line.label])
        floors = [line.floor for line in drawn if line.floor]
        # A floor at round-off would squeeze the curves into the upper half of the picture.
        least = min(line.values("metrics", "rel_l2")[0] for line in drawn)
        if floors and max(floors) > 0.01 * least:
            axes.axhline(max(floors), color=NEUTRAL, linestyle="--", linewidth=1, label="reference floor")
        axes.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="relative L2 error")
        # Seconds as 0.1, 2 and 50, not as powers of ten.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        axes.grid(color=NEUTRAL, alpha=0.25, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        text = io.BytesIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _draw(axes, line: Line, colour: str) -> None:
    label: str | None = line.label
    for record in line.good:
        end = record.number("cost", "cpu_s"), record.number("metrics", "rel_l2")
        seconds, errors = record.curve()
        if len(seconds) > 1:
            axes.plot(seconds, errors, color=colour, linewidth=1.5, alpha=0.9, label=label)
            axes.plot(seconds[-1:], errors[-1:], "o", color=colour, markersize=4)
        elif None not in end:
            axes.plot(*([v] for v in end), "D", color=colour, markersize=7, label=label)
        label = None

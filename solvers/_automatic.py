"""The optimisers that `optimizer=auto` chooses by size, and how long they go without a budget."""

from __future__ import annotations

from collections.abc import Sequence

from pdelab.schedule import Phase

ADAM_SHARE = 0.1
DENSE_LIMIT = 4000
GAUSS_NEWTON_LIMIT = 1000
ROWS_PER_PARAMETER = 2
LEAST_SQUARES = ("gauss-newton", "spring", "variable-projection")
"""Their steps cost tens of others: fewer of them, and new points after fewer."""
STEPS, STEPS_OF_LEAST_SQUARES = 2000, 300
EVERY, EVERY_OF_LEAST_SQUARES = 200, 20


def automatic(n_parameters: int, n_rows: int, learning_rate: float, schedule: str = "exponential") -> list[Phase]:
    """Gauss-Newton if it is small enough for an eigen-decomposition in each step, with more rows than parameters.

    Otherwise Adam for the first tenth, then the quasi-Newton method whose memory fits.
    """
    if n_parameters <= GAUSS_NEWTON_LIMIT and n_rows >= ROWS_PER_PARAMETER * n_parameters:
        return [Phase("gauss-newton")]
    return first_order_first(n_parameters, learning_rate, schedule)


def first_order_first(n_parameters: int, learning_rate: float, schedule: str = "exponential") -> list[Phase]:
    """Adam for the first tenth, then the quasi-Newton method whose memory fits."""
    second = "ssbroyden" if n_parameters <= DENSE_LIMIT else "lbfgs"
    return [Phase("adam", ADAM_SHARE, learning_rate, schedule), Phase(second, 1.0 - ADAM_SHARE, learning_rate=1.0)]


def is_dear(phases: Sequence[Phase]) -> bool:
    """Whether all steps are those of least-squares methods."""
    return all(phase.optimizer in LEAST_SQUARES for phase in phases)


def redraw(every: int | None, phases: Sequence[Phase]) -> int:
    """Steps between draws of new points: as given, else by what a step costs."""
    if every is not None:
        return every
    return EVERY_OF_LEAST_SQUARES if is_dear(phases) else EVERY

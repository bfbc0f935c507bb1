"""Fields on a staggered (marker-and-cell) grid: velocities on the faces of cells, scalars in their centres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates

Faces = list[np.ndarray]
"""For each axis the velocity along it on the faces normal to it, one entry more along that axis than the grid."""


def divergence(u: Faces) -> np.ndarray:
    """Outflow of each cell, sum over the axes of u_+ - u_-; of the grid's shape, times the width of a cell."""
    return np.asarray(sum(np.diff(component, axis=axis) for axis, component in enumerate(u)))


def centred(u: Faces) -> np.ndarray:
    """Velocity in the centres, (*shape, d)."""
    halves = []
    for axis, component in enumerate(u):
        n = component.shape[axis] - 1
        halves.append(0.5 * (np.take(component, range(n), axis) + np.take(component, range(1, n + 1), axis)))
    return np.stack(halves, axis=-1)


def face_places(shape: Sequence[int], axis: int) -> np.ndarray:
    """Middles of the faces normal to an axis, in widths of cells, (d, *face shape)."""
    along = [np.arange(n + 1.0) if k == axis else np.arange(n) + 0.5 for k, n in enumerate(shape)]
    return np.stack(np.meshgrid(*along, indexing="ij"))


def cell_places(shape: Sequence[int]) -> np.ndarray:
    """Centres of the cells, in widths of cells, (d, *shape)."""
    return np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"))


def velocity_at(u: Faces, places: np.ndarray) -> np.ndarray:
    """Linear interpolation of the velocity to places (d, ...), in widths of cells; constant beyond the walls."""
    found = []
    for axis, component in enumerate(u):
        shift = np.array([0.0 if k == axis else 0.5 for k in range(len(u))])
        at = places - shift.reshape(-1, *(1,) * (places.ndim - 1))
        found.append(map_coordinates(component, at, order=1, mode="nearest"))
    return np.stack(found)


def origins(u: Faces, places: np.ndarray, courant: float) -> np.ndarray:
    """Where what is at `places` was a time step earlier, by the midpoint rule; `courant` is time step over width."""
    middle = places - 0.5 * courant * velocity_at(u, places)
    return places - courant * velocity_at(u, middle)


def advected(u: Faces, density: np.ndarray, courant: float) -> tuple[Faces, np.ndarray]:
    """Velocity and density after one semi-Lagrangian step with the velocity u.

    Source: Stam, Stable fluids, SIGGRAPH 1999.
    """
    shape = density.shape
    moved = [velocity_at(u, origins(u, face_places(shape, axis), courant))[axis] for axis in range(len(u))]
    back = origins(u, cell_places(shape), courant) - 0.5
    return moved, map_coordinates(density, back, order=1, mode="nearest")

"""Matrices of -div(a grad u) on a box of cells: the 3-, 5- and 7-point stencil, its matrix, and how to recognise it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from pdelab.errors import InputError, SettingsError, ShapeError, check_choice, check_shape

SOLID, FLUID, AIR = 0, 2, 3
"""What a cell is: closed to flow, unknown, or u = 0."""

WALLS = ("neumann", "dirichlet", "face-dirichlet", "periodic")


@dataclass(frozen=True, eq=False)
class Stencil:
    """Couplings of the cells of a box with their neighbours; cells without coupling and diagonal are no unknowns.

    (A u)_i = diagonal_i u_i - sum over the faces f between i and its neighbours j of faces_f u_j

    Unknowns are numbered in C order, the last axis fastest.

    Attributes:
        diagonal: array of the grid's shape, (n_1, ..., n_d), d = 1, 2 or 3.
        faces: for each axis the couplings of the cells k and k + 1, of the grid's shape; the last entry along the
            axis couples the last cell with the first (0 unless periodic).
    """

    diagonal: np.ndarray
    faces: tuple[np.ndarray, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return self.diagonal.shape

    @property
    def active(self) -> np.ndarray:
        """Which cells are unknowns, bool, of the grid's shape."""
        coupled = self.diagonal != 0
        for axis, face in enumerate(self.faces):
            coupled = coupled | (face != 0) | (np.roll(face, 1, axis) != 0)
        return coupled

    @property
    def excess(self) -> np.ndarray:
        """Diagonal minus the couplings, which is positive next to u = 0, of the grid's shape."""
        return self.diagonal - sum(face + np.roll(face, 1, axis) for axis, face in enumerate(self.faces))

    @property
    def periodic(self) -> tuple[bool, ...]:
        """For each axis whether the last cells are coupled with the first."""
        return tuple(bool(np.take(face, -1, axis).any()) for axis, face in enumerate(self.faces))

    def matrix(self) -> csr_array:
        """The matrix (n, n); rows of cells that are no unknowns are empty."""
        number = np.arange(self.diagonal.size).reshape(self.shape)
        rows, columns, values = [number.ravel()], [number.ravel()], [self.diagonal.ravel()]
        for axis, face in enumerate(self.faces):
            next_ = np.roll(number, -1, axis)
            rows += [number.ravel(), next_.ravel()]
            columns += [next_.ravel(), number.ravel()]
            values += [-face.ravel()] * 2
        kept = np.concatenate(values) != 0
        entries = (np.concatenate(values)[kept], (np.concatenate(rows)[kept], np.concatenate(columns)[kept]))
        return csr_array(coo_array(entries, shape=(number.size, number.size)))


def poisson_stencil(
    shape: Sequence[int],
    *,
    cells: np.ndarray | None = None,
    walls: str | Sequence[str | tuple[str, str]] = "neumann",
    coefficient: np.ndarray | None = None,
) -> Stencil:
    """Stencil of -h^2 div(a grad u) on square cells of width h.

    Args:
        shape: cells along each axis.
        cells: SOLID (no flux through its faces), FLUID or AIR (u = 0 in its centre) for each cell; all FLUID if None.
        walls: for all sides, or for each axis one or a pair (lower, upper): "neumann" (no flux), "dirichlet" (u = 0 one
            cell beyond the last centre), "face-dirichlet" (u = 0 half a cell beyond it) or "periodic".
        coefficient: a > 0 in the cells; couplings are harmonic means. 1 if None.

    Raises:
        ShapeError: an array has another shape than the grid.
        SettingsError: an unknown kind of wall, or periodic on one side only.
    """
    shape = tuple(int(n) for n in shape)
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise ShapeError(f"shape: expected 1 to 3 positive numbers of cells, got {shape}")
    kinds = np.full(shape, FLUID) if cells is None else np.asarray(cells)
    check_shape("cells", kinds, shape)
    a = np.ones(shape) if coefficient is None else np.asarray(coefficient, dtype=np.float64)
    check_shape("coefficient", a, shape)
    if not (np.isfinite(a).all() and (a > 0).all()):
        raise InputError(f"coefficient: expected positive numbers, got values from {a.min():g} to {a.max():g}")
    fluid, air = kinds == FLUID, kinds == AIR
    diagonal, faces = np.zeros(shape), []
    for axis, ends in enumerate(_ends(walls, len(shape))):
        n = shape[axis]
        next_ = np.roll(a, -1, axis)
        flux = 2.0 * a * next_ / (a + next_)
        for k, (cell, side) in enumerate(((n - 1, 1), (0, 0))):
            if ends[0] == "periodic":
                break
            at = [slice(None)] * len(shape)
            at[axis] = slice(cell, cell + 1)
            weight = {"neumann": 0.0, "dirichlet": 1.0, "face-dirichlet": 2.0}[ends[side]]
            diagonal[tuple(at)] += weight * a[tuple(at)] * fluid[tuple(at)]
            if k == 0:
                flux[tuple(at)] = 0.0
        beyond_fluid, beyond_air = np.roll(fluid, -1, axis), np.roll(air, -1, axis)
        face = flux * (fluid & beyond_fluid)
        open_ = flux * (fluid & (beyond_fluid | beyond_air))
        behind = np.roll(flux * (beyond_fluid & (fluid | air)), 1, axis)
        diagonal += open_ + behind
        faces.append(face)
    return Stencil(diagonal, tuple(faces))


def recognise(A: csr_array, shape: Sequence[int] | None = None) -> Stencil:
    """The stencil whose matrix is A.

    Args:
        A: (n, n), symmetric; only what lies on or above the diagonal is read.
        shape: cells along each axis; None finds it by the distances of the entries from the diagonal.

    Raises:
        InputError: A is not the matrix of a stencil on a box; the message says why.
    """
    n = A.shape[0]
    entries = coo_array(A)
    rows, columns = entries.coords
    upper = (columns >= rows) & (entries.data != 0)
    rows, columns, values = rows[upper], columns[upper], entries.data[upper]
    distances = sorted(int(d) for d in np.unique(columns - rows) if d)
    if shape is not None:
        tried = [tuple(int(k) for k in shape)]
        if math.prod(tried[0]) != n:
            raise InputError(f"shape {tried[0]} has {math.prod(tried[0])} cells, but the matrix {n} rows")
    else:
        tried = _candidates(n, distances)
    for found in tried:
        if _explained(distances, found):
            stencil = _placed(rows, columns, values, found)
            if stencil is not None:
                return stencil
    what = f"distances from the diagonal {distances[:6]}{' ...' if len(distances) > 6 else ''}"
    raise InputError(
        f"the matrix ({n} rows, {what}) is not that of a 3-, 5- or 7-point stencil on a box of cells"
        + ("" if shape is None else f" of shape {tuple(shape)}")
        + "; use amg, ic-cg or direct"
    )


def _ends(walls: str | Sequence[str | tuple[str, str]], d: int) -> list[tuple[str, str]]:
    each = [walls] * d if isinstance(walls, str) else list(walls)
    if len(each) != d:
        raise SettingsError(f"walls: expected one or a pair for each of {d} axes, got {len(each)}")
    pairs = [(w, w) if isinstance(w, str) else (w[0], w[1]) for w in each]
    for pair in pairs:
        for kind in pair:
            check_choice("walls", kind, WALLS)
        if "periodic" in pair and pair[0] != pair[1]:
            raise SettingsError(f"walls: {pair} is periodic on one side only; name both periodic")
    return pairs


def _candidates(n: int, distances: list[int]) -> list[tuple[int, ...]]:
    """Shapes whose strides are among the distances."""
    found: list[tuple[int, ...]] = [(n,)]
    strides = [d for d in distances if d > 1 and n % d == 0]
    found += [(n // m, m) for m in strides]
    found += [(n // k, k // m, m) for m in strides for k in strides if k > m and k % m == 0]
    return sorted(found, key=len)


def _explained(distances: list[int], shape: tuple[int, ...]) -> bool:
    allowed, stride = set(), 1
    for n in reversed(shape):
        allowed |= {stride, (n - 1) * stride}
        stride *= n
    return set(distances) <= allowed


def _placed(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> Stencil | None:
    """The stencil of these entries, or None if one couples cells that are no neighbours."""
    here, there = np.unravel_index(rows, shape), np.unravel_index(columns, shape)
    apart = np.stack([b - a for a, b in zip(here, there, strict=True)])
    diagonal = np.zeros(math.prod(shape))
    own = rows == columns
    diagonal[rows[own]] = values[own]
    used, faces = own.copy(), []
    for axis, n in enumerate(shape):
        alone = np.count_nonzero(apart, axis=0) == 1
        face = np.zeros(math.prod(shape))
        step, wrap = alone & (apart[axis] == 1), alone & (apart[axis] == n - 1) & (n > 2)
        face[rows[step]] = -values[step]
        face[columns[wrap]] = -values[wrap]
        used |= step | wrap
        faces.append(face.reshape(shape))
    return Stencil(diagonal.reshape(shape), tuple(faces)) if used.all() else None

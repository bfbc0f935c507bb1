"""Meshes that minimise a functional of their cells, for domains where optimal transport folds cells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array, csr_array

from pdelab.meshes.movers._equation import MongeAmpereEquation
from pdelab.meshes.movers._matrices import factorised

SHAPE = 0.05  # weight of the shape of cells; smaller makes volumes more equal and cells less regular
LONG, WALL = 1.6, 10.0  # edges of curves that are that much longer than before count like so many bad cells
REACH = 0.5  # of the size of its smallest cell that a node may go in one step
HALVINGS = 12
PATIENCE, GAIN = 5, 0.99  # done after so many steps that do not lower the functional above its least to this share


class CellFunctional:
    """Equal monitor mass and kept shape of cells.

        sum_K |K_0| ( q + 1 / q + SHAPE |F|^2 / (d det(F)^(2/d)) ),   q = m_K |K| / (theta |K_0|)

    K_0 is the cell K before, F the derivative of the way from K_0 to K, |F| its Frobenius norm, m_K the mean of m at
    the corners, theta such that q has the mean 1. Edges of curves that get longer have a term of their own. q + 1 / q
    is smallest for q = 1, the other part for cells similar to those before; both are infinite for flat cells, so a
    descent never meets one. A constant monitor leaves the mesh at rest.

    Source: our own; in the manner of Huang & Kamenski, J. Comput. Phys. 301 (2015).
    """

    def __init__(self, equation: MongeAmpereEquation):
        self.equation, self.validity, self.mesh = equation, equation.validity, equation.mesh
        slopes = equation.matrices.slopes
        self._wall = WALL * float(self.validity.volumes.mean())
        self._stiffness = np.einsum("cik,cjk->cij", slopes, slopes)
        n, d = self.mesh.points.shape
        self._rows = (self.mesh.cells[:, :, None] + n * np.arange(d)).reshape(len(self.mesh.cells), -1)
        width = self._rows.shape[1]
        self._places = (np.repeat(self._rows, width, axis=1).ravel(), np.tile(self._rows, width).ravel())

    def mass(self, points: np.ndarray) -> np.ndarray:
        """m_K |K| / |K_0| with the nodes at points (N, d), (C,)."""
        m = self.equation.monitor(points)[self.mesh.cells].mean(axis=1)
        return m * self.validity.moved_volumes(points) / self.validity.volumes

    def theta(self, mass: np.ndarray) -> float:
        """The mean of the mass over the domain."""
        return float(self.validity.volumes @ mass / self.validity.volumes.sum())

    def energy(self, points: np.ndarray, theta: float) -> float:
        """The functional with the nodes at points (N, d)."""
        q, d = self.mass(points) / theta, self.mesh.dimension
        size = self._size(points[self.mesh.cells])
        shape = size / (d * (self.validity.moved_volumes(points) / self.validity.volumes) ** (2 / d))
        excess = self._excess(points)
        return float(self.validity.volumes @ (q + 1 / q + SHAPE * shape) + self._wall * (excess**4).sum())

    def newton(self, points: np.ndarray, theta: float) -> tuple[np.ndarray, csr_array]:
        """Gradient (d N,) and a positive semidefinite part of the Hessian at points (N, d).

        With l = log q the first part is 2 cosh l; of its Hessian 2 cosh(l) times the square of the slope of l is
        taken, of that of the other part the two terms that are squares.
        """
        mesh, d = self.mesh, self.mesh.dimension
        corners = points[mesh.cells]
        inner = np.linalg.inv(corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
        spread = np.concatenate([-inner.sum(axis=1, keepdims=True), inner], axis=1)  # slope of log |K|, (C, d + 1, d)
        m, moved = self.equation.monitor(points), self.validity.moved_volumes(points)
        q = m[mesh.cells].mean(axis=1) * moved / (self.validity.volumes * theta)
        uphill = self._monitor_slope(m, moved, spread)[mesh.cells] / m[mesh.cells].sum(axis=1)[:, None, None]
        slope = (spread + uphill).reshape(len(q), -1)
        ratio = (moved / self.validity.volumes) ** (-2 / d)
        size, pull = self._size(corners), np.einsum("cij,cjk->cik", self._stiffness, corners).reshape(len(q), -1)
        spread = spread.reshape(len(q), -1)
        weight = self.validity.volumes * SHAPE * ratio / d
        gradient = self.validity.volumes[:, None] * (q - 1 / q)[:, None] * slope
        gradient += weight[:, None] * (2 * pull - (2 / d) * size[:, None] * spread)
        H = (self.validity.volumes * (q + 1 / q))[:, None, None] * slope[:, :, None] * slope[:, None, :]
        H += (weight * size * (2 / d) ** 2)[:, None, None] * spread[:, :, None] * spread[:, None, :]
        blocks = np.einsum("cij,kl->cikjl", 2 * weight[:, None, None] * self._stiffness, np.eye(d))
        H += blocks.reshape(H.shape)
        n = d * mesh.n_points
        matrix = csr_array(coo_array((H.ravel(), self._places), (n, n)))
        gradient = np.bincount(self._rows.ravel(), gradient.ravel(), n)
        return self._with_curves(points, gradient, matrix)

    def _excess(self, points: np.ndarray) -> np.ndarray:
        """(stretch^2 - 1) / (LONG^2 - 1) of the edges of curves, 0 for those that are not longer than before, (B,)."""
        return np.maximum(self.equation.boundary.stretch(points) ** 2 - 1.0, 0.0) / (LONG**2 - 1.0)

    def _with_curves(self, points: np.ndarray, gradient: np.ndarray, matrix: csr_array) -> tuple[np.ndarray, csr_array]:
        """Gradient and Hessian with those of the wall, WALL sum_B excess^4 in units of a mean cell."""
        s, (start, end) = self._excess(points), self.equation.boundary.bent.T
        if not s.any():
            return gradient, matrix
        n, d = points.shape
        along = points[end] - points[start]
        scale = 2.0 / ((along**2).sum(axis=1) / self.equation.boundary.stretch(points) ** 2 * (LONG**2 - 1.0))
        slope = scale[:, None] * np.concatenate([-along, along], axis=1)
        twist = np.kron([[1.0, -1.0], [-1.0, 1.0]], np.eye(d))
        H = (12.0 * s**2)[:, None, None] * slope[:, :, None] * slope[:, None, :]
        H += (4.0 * s**3 * scale)[:, None, None] * twist
        rows = np.concatenate([start[:, None] + n * np.arange(d), end[:, None] + n * np.arange(d)], axis=1)
        places = (np.repeat(rows, 2 * d, axis=1).ravel(), np.tile(rows, 2 * d).ravel())
        pull = np.bincount(rows.ravel(), (4.0 * s**3)[:, None].repeat(2 * d, axis=1).ravel() * slope.ravel(), d * n)
        wall = csr_array(coo_array((H.ravel(), places), matrix.shape))
        return gradient + self._wall * pull, csr_array(matrix + self._wall * wall)

    def _size(self, corners: np.ndarray) -> np.ndarray:
        """|F|^2 of cells with corners (C, d + 1, d)."""
        return np.einsum("cik,cij,cjk->c", corners, self._stiffness, corners, optimize=True)

    def _monitor_slope(self, m: np.ndarray, moved: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """grad m at the nodes (N, d): the mean of the slopes of m (N,) on the moved cells around each, by volume.

        The slope of an interpolated monitor itself jumps from cell to cell, which would stop Newton's method.
        """
        cells, n = self.mesh.cells, self.mesh.n_points
        slope = moved[:, None] * np.einsum("ci,cik->ck", m[cells], spread)
        nodes, k = cells.ravel(), cells.shape[1]
        around = np.bincount(nodes, np.repeat(moved, k), n)
        total = [np.bincount(nodes, np.repeat(column, k), n) for column in slope.T]
        return np.stack(total, axis=1) / np.maximum(around, 1e-300)[:, None]


def minimise(equation: MongeAmpereEquation, points: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Points (N, d) that lower the functional by Newton's method, and sigma / mu of the mass of their cells.

    They end when a few steps together hardly lower it. Nodes go at most half of the width of their smallest cell in a
    step.

    Args:
        equation: with mesh, boundary and monitor.
        points: where to start, (N, d), sound.
    """
    functional, validity, mesh = CellFunctional(equation), equation.validity, equation.mesh
    least = float(validity.volumes.sum()) * (2.0 + SHAPE)
    goal, waited = np.inf, 0
    while True:
        room = np.full(mesh.n_points, np.inf)
        for column in mesh.cells.T:
            np.minimum.at(room, column, validity.moved_volumes(points) ** (1 / mesh.dimension))
        theta = functional.theta(functional.mass(points))
        gradient, matrix = functional.newton(points, theta)
        basis = equation.boundary.basis_at(points)
        step = basis @ factorised(basis.T @ matrix @ basis)(-(basis.T @ gradient))
        step = step.reshape(mesh.dimension, -1).T
        share = min(1.0, REACH / max(float((np.linalg.norm(step, axis=1) / room).max()), 1e-300))
        energy = functional.energy(points, theta)
        waited = 0 if energy - least < goal else waited + 1
        goal = min(goal, GAIN * (energy - least))
        if waited == PATIENCE or not np.isfinite(step).all():
            return
        for _ in range(HALVINGS):
            trial = equation.boundary.placed(points + share * step)
            if validity.sound(trial) and functional.energy(trial, theta) < energy:
                break
            share /= 2
        else:
            return
        points = trial
        yield points, equation.spread(points)

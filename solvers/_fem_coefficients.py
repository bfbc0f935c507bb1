"""Coefficients of diffusion problems at quadrature points, with their derivatives by the unknown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pdelab.calculus import Coordinates
from pdelab.pde import AbstractDiffusionProblem, Value, evaluate


@dataclass(frozen=True, eq=False)
class Local:
    """Coefficients at quadrature points, arrays (C, Q), and their derivatives by the unknown (None: zero)."""

    mass: np.ndarray
    source: np.ndarray
    velocity: np.ndarray | None  # (d, C, Q)
    diffusion: np.ndarray  # (d, C, Q)
    mass_slope: np.ndarray | None
    source_slope: np.ndarray | None
    velocity_slope: np.ndarray | None
    diffusion_slope: np.ndarray | None
    isotropic: bool
    linear: bool


def coefficients_at(problem: AbstractDiffusionProblem, x: np.ndarray, t: float | None, u: np.ndarray) -> Local:
    """Coefficients at points x (d, C, Q) with values u (C, Q) of the unknown, and their derivatives by u."""
    shape, d = u.shape, len(x)
    value = torch.tensor(u.ravel(), requires_grad=True)
    with torch.enable_grad():
        c = problem.coefficients(coordinates(x, t, problem.axes), value)
        linear = True

        def split(entry) -> tuple[np.ndarray, np.ndarray | None]:
            nonlocal linear
            if not (isinstance(entry, torch.Tensor) and entry.requires_grad):
                number = torch.as_tensor(entry, dtype=torch.float64).detach()
                return number.expand(value.shape).numpy().reshape(shape), None
            (slope,) = torch.autograd.grad(entry.expand(value.shape).sum(), value, create_graph=True, allow_unused=True)
            plain: np.ndarray = entry.detach().expand(value.shape).numpy().reshape(shape)
            if slope is None:
                return plain, None
            # Only a source that is affine in u leaves the problem linear.
            linear = linear and entry is c.source and not slope.requires_grad
            return plain, slope.detach().numpy().reshape(shape)

        def stack(entries) -> tuple[np.ndarray, np.ndarray | None]:
            plain, slopes = zip(*map(split, entries), strict=True)
            if all(s is None for s in slopes):
                return np.stack(plain), None
            return np.stack(plain), np.stack([np.zeros(shape) if s is None else s for s in slopes])

        mass, mass_slope = split(c.mass)
        source, source_slope = split(c.source)
        velocity, velocity_slope = (None, None) if c.velocity is None else stack(c.velocity)
        isotropic = not isinstance(c.diffusion, tuple)
        diffusion, diffusion_slope = stack((c.diffusion,) * d if isotropic else c.diffusion)
    return Local(
        mass,
        source,
        velocity,
        diffusion,
        mass_slope,
        source_slope,
        velocity_slope,
        diffusion_slope,
        isotropic,
        linear,
    )


def values_at(value: Value, x: np.ndarray, t: float | None, axes: tuple[str, ...]) -> np.ndarray:
    """A value of a condition at points x (d, ...), shape (...)."""
    return evaluate(value, coordinates(x, t, axes)).detach().numpy().reshape(x.shape[1:])


def coordinates(x: np.ndarray, t: float | None, axes: tuple[str, ...]) -> Coordinates:
    """Points x (d, ...) with their time, by name."""
    columns = [*x.reshape(len(x), -1)]
    if t is not None:
        columns.append(np.full_like(columns[0], t))
    return Coordinates(torch.as_tensor(np.stack(columns, axis=1)), axes)

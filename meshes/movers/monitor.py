"""Monitors: positive densities of cells, from the derivatives of nodal fields or in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pdelab.errors import InputError, check_choice, check_range
from pdelab.mesh import Mesh
from pdelab.meshes.movers._matrices import P1Matrices, factorised
from pdelab.meshes.movers.recovery import recovered_hessian

Monitor = Callable[[np.ndarray], np.ndarray]
"""A monitor in closed form: places (n, d) -> densities (n,), all > 0."""

MONITORS = ("hessian", "hessian-norm", "gradient", "both", "given")
ROUND_OFF = 1e-11  # derivatives below this share of the field over the (squared) cell size are round-off


def monitor_at_nodes(
    mesh: Mesh,
    values: np.ndarray,
    kind: str = "hessian",
    strength: float = 5.0,
    smoothing: float = 0.0,
    matrices: P1Matrices | None = None,
) -> np.ndarray:
    """The monitor that nodal fields ask for.

        gradient       m = 1 + a |grad u|^2 / max |grad u|^2
        hessian        m = 1 + a |H|^2 / max |H|^2,  |H| the Frobenius norm of the second derivatives
        hessian-norm   m = 1 + a |H| / max |H|
        both           m = 1 + max(a |H|^2 / max |H|^2, 2 a |grad u|^2 / max |grad u|^2), node by node
        given          m = u

    Of several fields the largest monitor counts, node by node. A field without derivatives has m = 1. The part after
    "1 +" is smoothed by `smoothed`, if asked for.

    Args:
        mesh: of triangles or tetrahedra.
        values: nodal fields (N, m); any unit, it cancels.
        kind: one of `MONITORS`.
        strength: a, dimensionless, >= 0. Good values: 1 to 50; max m / min m is 1 + a.
        smoothing: N in K = N h^2 / 4, >= 0; 10 to 40 for fields with fronts thinner than cells, 0 for none.
        matrices: of the mesh, if they are there already.

    Returns:
        Monitor at the nodes, (N,), all > 0.

    Raises:
        InputError: a given monitor has other than one column, or is not positive.
        SettingsError: an unknown kind or a number out of range.

    Source: Zhang et al., UM2N, NeurIPS 2024 (hessian); Wallwork et al., the library movement (hessian-norm); Clare et
    al., J. Comput. Phys. 2022 (both, with its smoothing).
    """
    check_choice("monitor", kind, MONITORS)
    check_range("strength", strength, least=0)
    check_range("smoothing", smoothing, least=0)
    if kind == "given":
        if values.shape[1] != 1:
            raise InputError(f"monitor: expected one field, got {values.shape[1]}; pass the column that is the monitor")
        return checked_monitor(values[:, 0])
    matrices = matrices or P1Matrices(mesh)
    excess = np.max([_excess(matrices, u, kind, strength) for u in values.T], axis=0)
    return 1.0 + (smoothed(matrices, excess, smoothing) if smoothing else excess)


def checked_monitor(m: np.ndarray) -> np.ndarray:
    """The monitor (n,) itself.

    Raises:
        InputError: an entry is not positive or not finite.
    """
    bad = ~(np.isfinite(m) & (m > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"monitor: expected positive finite numbers, got {m[first]} at node {first} and {int(bad.sum())} such in "
            f"{m.size}; add a constant, or let the mover derive it from the field (monitor=hessian)"
        )
    return m


def ring(
    centre: Sequence[float] = (0.5, 0.5), radius: float = 0.4, amplitude: float = 20.0, sharpness: float = 200.0
) -> Monitor:
    """A ring (in space a sphere) of small cells:  m(x) = 1 + amplitude / cosh^2(sharpness (|x - centre|^2 - radius^2)).

    Source: McRae, Cotter & Budd, SIAM J. Sci. Comput. 40 (2018).
    """

    def monitor(points: np.ndarray) -> np.ndarray:
        offset = sharpness * (((points - np.asarray(centre)) ** 2).sum(axis=1) - radius**2)
        return 1.0 + amplitude / np.cosh(np.clip(offset, -300.0, 300.0)) ** 2

    return monitor


def smoothed(matrices: P1Matrices, s: np.ndarray, n: float) -> np.ndarray:
    """The solution f (N,) of f - K Laplace f = s with f = s on the boundary, K = n h^2 / 4, h the mean cell size.

    Source: Clare et al., J. Comput. Phys. 2022, as in the swirl case of UM2N.
    """
    mesh = matrices.mesh
    diffusion = n * float(matrices.volumes.mean()) ** (2 / mesh.dimension) / 4.0
    fixed = np.zeros(mesh.n_points, dtype=bool)
    fixed[mesh.boundary_facets()] = True
    free = np.flatnonzero(~fixed)
    if not len(free):
        return s
    # Lumped mass: the result then lies between the values of s, as that of the equation does.
    A = matrices.stiffness * diffusion
    A.setdiag(A.diagonal() + matrices.integrals)
    result = s.copy()
    load = matrices.integrals[free] * s[free] - A[free][:, fixed] @ s[fixed]
    result[free] = factorised(A[free][:, free])(load)
    return np.maximum(result, 0.0)


def _excess(matrices: P1Matrices, u: np.ndarray, kind: str, strength: float) -> np.ndarray:
    """What the monitor of one field (N,) has above 1, (N,)."""
    shift = u - u.mean()
    scale, h = float(np.abs(shift).max()), float(matrices.volumes.min()) ** (1 / matrices.mesh.dimension)
    if scale <= 1e-13 * float(np.abs(u).max()):
        return np.zeros(len(u))
    gradient = hessian = np.zeros(len(u))
    if kind in ("gradient", "both"):
        size = np.linalg.norm(matrices.gradients(shift), axis=0)
        gradient = _relative(size, ROUND_OFF * scale / h) ** 2
    if kind != "gradient":
        size = np.linalg.norm(recovered_hessian(matrices.mesh, shift), axis=(1, 2))
        hessian = _relative(size, ROUND_OFF * scale / h**2) ** (1 if kind == "hessian-norm" else 2)
    return strength * np.maximum(hessian, 2.0 * gradient if kind == "both" else gradient)


def _relative(size: np.ndarray, noise: float) -> np.ndarray:
    most = float(size.max())
    return size / most if most > noise else np.zeros(len(size))

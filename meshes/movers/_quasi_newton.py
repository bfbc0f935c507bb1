"""Newton's method for the Monge-Ampere equation, the dependence of the monitor on the potential left out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.sparse import block_array, coo_array, csc_array
from scipy.sparse.linalg import LinearOperator, gmres, splu

from pdelab.meshes.movers._equation import Iterate, MongeAmpereEquation

STEPS = (0.8, 0.56, 0.4, 0.2, 0.1)
DIRECT = 3000  # nodes up to which the bordered system is factorised


def quasi_newton(
    equation: MongeAmpereEquation, first: Iterate, *, damping: float = 0.8, direct: bool | None = None
) -> Iterator[tuple[Iterate, float]]:
    """Iterates of Newton's method for (phi, H), m and theta frozen in its matrix, with the shares of the step taken.

        M dH_kl - R_kl dphi = 0,      sum_kl (int m cof_kl psi_i psi_j) dH_kl - c_i dtheta = - r_i,      int dphi = 0

    The rows of phi do not sum to zero, so dtheta has to be an unknown with the column c_i = int psi_i: fixing phi at
    one node instead would put a point source there, and the iteration blows up. Steps are tried from `damping`
    downwards; the first that lowers the residual and inverts no cell is taken. The iterates end when none does.

    Args:
        equation: to solve.
        first: where to start.
        damping: the largest share of a step. 0.8 is that of the library movement; 1 needs fewer iterations.
        direct: sparse factors of the whole system, or GMRES for dphi alone, preconditioned by the Laplacian; by the
            number of nodes if None.

    Source: McRae, Cotter & Budd, SIAM J. Sci. Comput. 40 (2018), section 3; Wallwork et al., the library movement.
    """
    current, shares = first, [damping * s / STEPS[0] for s in STEPS]
    use_factors = equation.mesh.n_points <= DIRECT if direct is None else direct
    while True:
        step = (_by_factors if use_factors else _by_krylov)(equation, current)
        if not np.isfinite(step).all():
            return
        for share in shares:
            trial = equation.evaluate(current.potential + share * step)
            if trial.valid and math.isfinite(trial.residual) and trial.residual < current.residual:
                break
        else:
            return
        current = trial
        yield current, share


def _couplings(equation: MongeAmpereEquation, at: Iterate) -> list[csc_array]:
    """int m cof_kl psi_i psi_j, row by row."""
    m = equation.matrices.at_quadrature(at.monitor)
    return [equation.matrices.weighted_mass(m * c) for row in equation.cofactors(at.hessian) for c in row]


def _by_factors(equation: MongeAmpereEquation, at: Iterate) -> np.ndarray:
    """The step in phi from the whole bordered system."""
    mat, n = equation.matrices, equation.mesh.n_points
    couplings = _couplings(equation, at)
    count = len(couplings)
    column = coo_array(mat.integrals[:, None])
    rows = [
        [None] * k + [mat.mass] + [None] * (count - k - 1) + [-mat.hessian[k * n : (k + 1) * n], None]
        for k in range(count)
    ]
    rows.append([*couplings, None, -column])
    rows.append([None] * count + [column.T, None])
    right = np.concatenate([np.zeros(count * n), -at.defect, [0.0]])
    solution = splu(csc_array(block_array(rows, format="csc"))).solve(right)
    return solution[count * n : (count + 1) * n]


def _by_krylov(equation: MongeAmpereEquation, at: Iterate) -> np.ndarray:
    """The step in phi with H eliminated, to a tenth: the direction is only good to first order anyway."""
    mat, n = equation.matrices, equation.mesh.n_points
    couplings, total = _couplings(equation, at), mat.integrals.sum()

    def applied(phi: np.ndarray) -> np.ndarray:
        H = mat.second_derivatives(phi).reshape(-1, n)
        r = sum(A @ h for A, h in zip(couplings, H, strict=True))
        # dtheta takes what the rows sum to.
        return -mat.solve_poisson(r - mat.integrals * (r.sum() / total))

    right = mat.solve_poisson(at.defect)
    step, _ = gmres(LinearOperator((n, n), applied, dtype=float), right, rtol=1e-2, restart=40, maxiter=3)
    return step

import numpy as np
import pytest
import scipy.sparse as sp

from pdelab.errors import InputError, SettingsError
from pdelab.linear import linear_solve
from pdelab.solution import Status
from pdelab.solvers.linear._incomplete_cholesky import factorise
from pdelab.solvers.linear.cg import CG
from pdelab.solvers.linear.ic_cg import ICCG
from pdelab.solvers.linear.mic_cg import MICCG
from pdelab.stencil import FLUID, SOLID, poisson_stencil

BOTH = pytest.mark.parametrize("solver", [ICCG(), MICCG()], ids=lambda s: s.name)


def product(factor):
    n = factor.inverse.size
    L = sp.csc_array((factor.values, factor.rows, factor.start), (n, n)).toarray()
    L[np.diag_indices(n)] = np.divide(1.0, factor.inverse, where=factor.inverse > 0, out=np.zeros(n))
    return L @ L.T


def test_the_product_is_the_matrix_on_its_pattern():
    A = poisson_stencil((5, 6), walls="dirichlet").matrix()
    where = A.toarray() != 0
    LLT = product(factorise(A, "ic-cg", relaxation=0.0, guard=0.0))
    np.testing.assert_allclose(LLT[where], A.toarray()[where], rtol=0, atol=1e-13)
    assert abs(LLT[~where]).max() > 0.1


def test_the_fully_modified_product_has_the_row_sums_of_the_matrix():
    A = poisson_stencil((5, 6, 4), walls="dirichlet").matrix()
    LLT = product(factorise(A, "mic-cg", relaxation=1.0, guard=0.0))
    np.testing.assert_allclose(LLT.sum(axis=1), A.sum(axis=1), rtol=0, atol=1e-13)


def test_without_dropped_fill_the_factor_is_that_of_cholesky():
    rng = np.random.default_rng(660)
    B = rng.standard_normal((12, 12))
    A = B @ B.T + 0.01 * np.eye(12)
    factor = factorise(sp.csr_array(A), "ic-cg", relaxation=0.0, guard=0.0)
    L = sp.csc_array((factor.values, factor.rows, factor.start), (12, 12)).toarray() + np.diag(1 / factor.inverse)
    np.testing.assert_allclose(L, np.linalg.cholesky(A), rtol=0, atol=1e-11)
    r = rng.standard_normal(12)
    np.testing.assert_allclose(A @ factor.solve(r), r, rtol=0, atol=1e-9)


def test_iterations_fall_from_plain_to_incomplete_to_modified():
    A = poisson_stencil((60, 60), walls="dirichlet").matrix()
    b = np.random.default_rng(41).standard_normal(3600)
    plain, ic, mic = (linear_solve(A, b, s).stats["iterations"] for s in (CG(), ICCG(), MICCG()))
    assert mic < 0.7 * ic < 0.35 * plain


def test_modified_iterations_grow_slower_than_the_cells_on_an_axis():
    counts = []
    for n in (32, 128):
        A = poisson_stencil((n, n), walls="dirichlet").matrix()
        counts.append(linear_solve(A, np.random.default_rng(n).standard_normal(n * n), MICCG()).stats["iterations"])
    assert counts[1] < 3 * counts[0]  # plain and IC(0): 4


@BOTH
def test_empty_rows_are_passed_through(solver):
    rng = np.random.default_rng(52)
    cells = np.where(rng.random((14, 15)) < 0.3, SOLID, FLUID)
    stencil = poisson_stencil((14, 15), cells=cells, walls="dirichlet")
    A, active = stencil.matrix(), stencil.active.ravel()
    x = rng.standard_normal(210) * active
    result = linear_solve(A, A @ x, solver)
    assert result.status is Status.CONVERGED
    assert not result.x[~active].any()
    assert not solver.apply(solver.init(A), rng.standard_normal(210))[~active].any()


@BOTH
def test_apply_is_symmetric_and_positive(solver):
    A = poisson_stencil((9, 8), walls="neumann").matrix()
    state = solver.init(A)
    M = np.column_stack([solver.apply(state, e) for e in np.eye(72)])
    np.testing.assert_allclose(M, M.T, rtol=0, atol=1e-12)
    assert np.linalg.eigvalsh(M).min() > 0


@BOTH
def test_a_definite_matrix_whose_incomplete_factor_breaks_down_is_solved(solver):
    # Kershaw's matrix: positive definite, but a pivot of IC(0) is negative.
    A = sp.csr_array(np.array([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]]))
    assert np.linalg.eigvalsh(A.toarray()).min() > 0
    assert factorise(A, "ic-cg", relaxation=0.0, guard=0.0).shift > 0
    result = linear_solve(A, np.array([1.0, 2, 3, 4]), solver)
    assert result.status is Status.CONVERGED


@BOTH
def test_what_cannot_be_factorised_is_refused(solver):
    A = poisson_stencil((4, 4), walls="dirichlet").matrix()
    with pytest.raises(InputError, match=f"{solver.name} needs a symmetric matrix.*direct"):
        solver.init(sp.csr_array(A + sp.eye_array(16, k=1)))
    with pytest.raises(InputError, match=r"diagonal entry of row 0 is -4; use the direct solver"):
        solver.init(-A)
    with pytest.raises(InputError, match=r"diagonal entry of row 0 is 0"):
        solver.init(sp.csr_array(np.array([[0.0, 1], [1, 1]])))


def test_settings_are_checked():
    with pytest.raises(SettingsError, match="relaxation"):
        MICCG(relaxation=1.5)
    with pytest.raises(SettingsError, match="max_iterations"):
        ICCG(max_iterations=0)

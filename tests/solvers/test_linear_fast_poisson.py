import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from pdelab.errors import InputError, SettingsError
from pdelab.linear import linear_solve
from pdelab.solution import Status
from pdelab.solvers.linear.fast_poisson import FastPoisson
from pdelab.stencil import FLUID, SOLID, poisson_stencil

ENDS = [*itertools.product(("neumann", "dirichlet", "face-dirichlet"), repeat=2), ("periodic", "periodic")]


def check(A, shape, rng):
    b = rng.standard_normal(A.shape[0])
    if abs(A.sum(axis=1)).max() < 1e-12:
        b -= b.mean()
    solver = FastPoisson(shape=shape)
    x = solver.compute(solver.init(A), b).x
    expected = np.linalg.pinv(A.toarray(), rcond=1e-12, hermitian=True) @ b
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-11 * max(1.0, np.abs(expected).max()))
    assert linear_solve(A, b, solver).status is Status.CONVERGED


@pytest.mark.parametrize("ends", ENDS, ids="/".join)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
def test_every_pair_of_ends_on_a_line(n, ends):
    A = poisson_stencil((n,), walls=[ends]).matrix()
    if not A.toarray().any():  # one cell without neighbours
        return
    check(A, (n,), np.random.default_rng(n))


@pytest.mark.parametrize("pair", list(itertools.product(ENDS, ENDS)), ids=lambda p: "-".join("/".join(e) for e in p))
def test_every_two_pairs_of_ends_on_a_rectangle(pair):
    check(poisson_stencil((6, 7), walls=list(pair)).matrix(), (6, 7), np.random.default_rng(67))


@pytest.mark.parametrize("first", ENDS, ids="/".join)
def test_every_three_pairs_of_ends_in_a_box(first):
    rng = np.random.default_rng(345)
    for second, third in itertools.product(ENDS[::2], ENDS[1::2] + ENDS[:1]):
        check(poisson_stencil((3, 4, 5), walls=[first, second, third]).matrix(), (3, 4, 5), rng)


@pytest.mark.parametrize("walls", ["neumann", "periodic", ("dirichlet", "neumann")], ids=str)
def test_coefficients_that_vary_along_their_own_axis(walls):
    rng = np.random.default_rng(90)
    lines = []
    for n in (5, 6):
        lines.append(poisson_stencil((n,), walls=[walls], coefficient=rng.uniform(0.5, 2, n)).matrix())
    check(sp.csr_array(sp.kronsum(lines[1], lines[0])), (5, 6), rng)
    check(sp.csr_array(sp.kronsum(lines[1], lines[0]) + 0.3 * sp.eye_array(30)), (5, 6), rng)


def test_a_long_box_with_unlike_widths_is_recognised_and_solved():
    rng = np.random.default_rng(11)
    lines = [w * poisson_stencil((n,), walls="dirichlet").matrix() for n, w in ((60, 1.0), (50, 1e3))]
    A = sp.csr_array(sp.kronsum(lines[1], lines[0]))
    x = rng.standard_normal(3000)
    result = linear_solve(A, A @ x, FastPoisson())
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.x, x, rtol=0, atol=1e-11)


def test_a_batch_has_the_columns_of_single_solves():
    A = poisson_stencil((7, 8), walls=["periodic", "dirichlet"]).matrix()
    solver, B = FastPoisson(), np.random.default_rng(4).standard_normal((56, 3))
    state = solver.init(A)
    for column, result in zip(B.T, solver.compute_batch(state, B), strict=True):
        np.testing.assert_allclose(result.x, solver.compute(state, column).x, rtol=0, atol=1e-14)


def test_right_hand_sides_without_solution_are_no_success():
    A = poisson_stencil((6, 6), walls="neumann").matrix()
    solver = FastPoisson()
    result = solver.compute(solver.init(A), np.ones(36))
    assert result.status is Status.LINEAR_SOLVE_FAILED and "subtract its mean" in result.message
    assert linear_solve(A, np.ones(36), solver).status is Status.LINEAR_SOLVE_FAILED


def test_what_is_no_box_is_refused_with_the_cell():
    cells = np.full((6, 7), FLUID)
    cells[2, 3] = SOLID
    with pytest.raises(InputError, match=r"cell \(2, 3\) is no unknown; use mic-cg"):
        FastPoisson().init(poisson_stencil((6, 7), cells=cells, walls="dirichlet").matrix())
    a = np.ones((6, 7))
    a[1, 5] = 2.0
    with pytest.raises(InputError, match=r"coupling along axis 0 in cell \([01], 5\) differs.*use amg"):
        FastPoisson().init(poisson_stencil((6, 7), coefficient=a, walls="dirichlet").matrix())
    A = poisson_stencil((6, 7), walls="dirichlet").matrix().tolil()
    A[9, 9] += 1e-6
    with pytest.raises(InputError, match=r"the diagonal in cell \(1, 2\) differs by 1.00e-06"):
        FastPoisson().init(sp.csr_array(A))
    with pytest.raises(InputError, match="not that of a 3-, 5- or 7-point"):
        FastPoisson().init(sp.csr_array(np.ones((12, 12))))
    with pytest.raises(InputError, match="symmetric"):
        FastPoisson().init(sp.csr_array(np.triu(np.ones((4, 4)))))
    with pytest.raises(InputError, match="shape"):
        FastPoisson(shape=(3, 3)).init(poisson_stencil((4, 4), walls="dirichlet").matrix())
    with pytest.raises(SettingsError, match="shape"):
        FastPoisson(shape=(2, 2, 2, 2))
    mixed = poisson_stencil((5000,), walls=[("dirichlet", "neumann")]).matrix()
    with pytest.raises(InputError, match="axis 0 has 5000 cells .* use amg or direct"):
        FastPoisson().init(mixed)

import numpy as np
import pytest
import scipy.sparse as sp

from pdelab.errors import InputError, ShapeError
from pdelab.linear import AbstractLinearSolver, LinearResult, linear_solve
from pdelab.solution import Status
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.cg import CG
from pdelab.solvers.linear.direct import Direct
from pdelab.solvers.linear.ic_cg import ICCG
from pdelab.solvers.linear.mic_cg import MICCG

SOLVERS = [Direct(), CG(), AMG(), AMG(coarsening="ruge-stuben"), ICCG(), MICCG()]


def poisson(n):
    one = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    eye = sp.eye_array(n)
    return sp.csr_array(sp.kron(one, eye) + sp.kron(eye, one))


def random_definite(n, rng):
    B = sp.random_array((n, n), density=0.05, rng=rng)
    return sp.csr_array(B @ B.T + sp.eye_array(n))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{s.name}-{getattr(s, 'coarsening', '')}")
@pytest.mark.parametrize("make", [lambda rng: poisson(23), lambda rng: random_definite(150, rng)])
def test_the_known_solution_is_found(solver, make):
    rng = np.random.default_rng(48109)
    A = make(rng)
    x = rng.standard_normal(A.shape[0])
    state = solver.init(A)
    for scale in (1.0, 1e6):
        result = linear_solve(A, scale * (A @ x), solver, state=state)
        assert result.status is Status.CONVERGED
        assert np.linalg.norm(result.x - scale * x) < 1e-7 * scale * np.linalg.norm(x)
        assert result.stats["residual"] <= solver.tolerance


def test_conjugate_gradients_are_exact_after_as_many_steps_as_eigenvalues():
    values = np.repeat([1.0, 3.0, 7.0, 50.0], 12)
    Q, _ = np.linalg.qr(np.random.default_rng(5521).standard_normal((48, 48)))
    A = sp.csr_array(Q * values @ Q.T)
    result = linear_solve(A, np.ones(48), CG(tolerance=1e-11))
    assert result.status is Status.CONVERGED
    assert result.stats["iterations"] == 4
    assert len(result.residuals) == 5 and result.residuals[0] == 1.0


def test_multigrid_iterations_do_not_grow_with_the_grid():
    counts = [linear_solve(poisson(n), np.ones(n * n), AMG()).stats["iterations"] for n in (20, 80)]
    plain = [linear_solve(poisson(n), np.ones(n * n), CG()).stats["iterations"] for n in (20, 80)]
    assert counts[1] < 1.6 * counts[0] + 2
    assert plain[1] > 3 * plain[0]


@pytest.mark.parametrize("solver", [CG(max_iterations=5), AMG(max_iterations=2)], ids=lambda s: s.name)
def test_too_few_iterations_are_no_success(solver):
    result = linear_solve(poisson(40), np.ones(1600), solver)
    assert result.status is Status.MAX_ITERATIONS
    assert result.stats["residual"] > solver.tolerance
    assert "iterations spent" in result.message


@pytest.mark.parametrize("solver", [Direct(), CG(max_iterations=300)], ids=lambda s: s.name)
def test_a_singular_matrix_is_no_success(solver):
    A = poisson(9)
    A = sp.csr_array(A - sp.diags_array(A.sum(axis=1)))  # Neumann: constants are in the kernel
    result = linear_solve(A, np.ones(81), solver)
    assert not result.status.ok
    zero_row = sp.csr_array(sp.diags_array(np.r_[np.ones(7), 0.0]))
    assert not linear_solve(zero_row, np.ones(8), solver).status.ok


def test_conjugate_gradients_name_an_indefinite_matrix():
    A = sp.csr_array(sp.diags_array([1.0, -2.0, 3.0]))
    result = linear_solve(A, np.array([1.0, 5.0, 1.0]), CG())
    assert result.status is Status.LINEAR_SOLVE_FAILED
    assert "positive definite" in result.message


def test_the_driver_overrules_a_solver_that_claims_success():
    class Liar(AbstractLinearSolver):
        name, tolerance = "liar", 1e-6

        def init(self, A):
            return None

        def compute(self, state, b):
            return LinearResult(0.5 * b)

    result = linear_solve(sp.eye_array(4), np.ones(4), Liar())
    assert result.status is Status.LINEAR_SOLVE_FAILED
    assert "5.00e-01" in result.message


def test_direct_solves_unsymmetric_and_saddle_point_systems():
    rng = np.random.default_rng(77213)
    A, B = poisson(12), sp.random_array((30, 144), density=0.1, rng=rng)
    saddle = sp.block_array([[A, B.T], [B, None]], format="csr")
    unsymmetric = sp.csr_array(A + sp.random_array((144, 144), density=0.02, rng=rng))
    for matrix in (saddle, unsymmetric):
        x = rng.standard_normal(matrix.shape[0])
        result = linear_solve(matrix, matrix @ x, Direct())
        assert result.status is Status.CONVERGED
        assert np.allclose(result.x, x, rtol=0, atol=1e-8)


def test_a_zero_right_hand_side_has_the_zero_solution():
    result = linear_solve(poisson(5), np.zeros(25), CG())
    assert result.status is Status.CONVERGED and not result.x.any()


def test_wrong_input_is_named():
    A = poisson(4)
    with pytest.raises(ShapeError, match=r"square matrix, got shape \(3, 16\)"):
        linear_solve(A[:3], np.ones(3), CG())
    with pytest.raises(ShapeError, match=r"b: expected shape \(16\), got \(16, 1\); squeeze"):
        linear_solve(A, np.ones((16, 1)), CG())
    with pytest.raises(InputError, match="b: 1 of 16 entries are not finite"):
        linear_solve(A, np.r_[np.ones(15), np.nan], CG())
    with pytest.raises(InputError, match="symmetric matrix"):
        linear_solve(sp.csr_array(A + sp.eye_array(16, k=1)), np.ones(16), AMG())
    with pytest.raises(InputError, match="tolerance"):
        CG(tolerance=0.0)


def test_amg_repeats_itself_to_the_bit_and_leaves_the_global_stream_alone():
    A, b = poisson(40), np.random.default_rng(13).random(1600)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (linear_solve(A, b, AMG()).x for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002

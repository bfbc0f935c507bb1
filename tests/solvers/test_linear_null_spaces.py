import numpy as np
import pytest
import scipy.sparse as sp

import pdelab
from pdelab.compatibility import null_space
from pdelab.errors import InputError, SettingsError, ShapeError, UnknownName
from pdelab.linear import linear_solve, linear_solve_batch
from pdelab.solution import Status
from pdelab.solvers.linear.amg import AMG
from pdelab.solvers.linear.cg import CG
from pdelab.solvers.linear.direct import Direct
from pdelab.solvers.linear.fast_poisson import FastPoisson
from pdelab.solvers.linear.ic_cg import ICCG
from pdelab.solvers.linear.mic_cg import MICCG
from pdelab.stencil import FLUID, SOLID, poisson_stencil

GENERAL = [Direct(), CG(), AMG(), AMG(coarsening="ruge-stuben"), ICCG(), MICCG()]
ids = pytest.mark.parametrize("solver", GENERAL, ids=lambda s: f"{s.name}-{getattr(s, 'coarsening', '')}")


def two_rooms(n, rng):
    """Closed rooms beside a wall of solid cells, and scattered solid cells."""
    cells = np.full((n, n), FLUID)
    cells[n // 3] = SOLID
    cells[rng.random((n, n)) < 0.05] = SOLID
    return poisson_stencil((n, n), cells=cells, walls="neumann")


@ids
@pytest.mark.parametrize("walls", ["neumann", "periodic"])
def test_pure_neumann_and_periodic_systems_have_the_solution_of_zero_mean(solver, walls):
    A = poisson_stencil((24, 31), walls=walls).matrix()
    x = np.random.default_rng(331).standard_normal(A.shape[0])
    result = linear_solve(A, A @ x, solver)
    assert result.status is Status.CONVERGED, result.message
    np.testing.assert_allclose(result.x, x - x.mean(), rtol=0, atol=1e-7)
    assert abs(result.x.mean()) < 1e-13


@ids
def test_each_closed_room_has_its_own_mean_and_solid_cells_are_passed_through(solver):
    rng = np.random.default_rng(29)
    stencil = two_rooms(21, rng)
    A, active = stencil.matrix(), stencil.active.ravel()
    kernel = null_space(A)
    assert kernel.sizes.size >= 2 and (kernel.part >= 0).sum() == active.sum()
    x = rng.standard_normal(A.shape[0]) * active
    result = linear_solve(A, A @ x, solver)
    assert result.status is Status.CONVERGED, result.message
    np.testing.assert_allclose(result.x, kernel.without_means(x), rtol=0, atol=1e-7)
    assert not result.x[~active].any()


@ids
def test_right_hand_sides_without_solution_are_told_with_the_reason(solver):
    stencil = two_rooms(15, np.random.default_rng(3))
    A, active = stencil.matrix(), stencil.active.ravel()
    b = np.zeros(225)
    b[np.flatnonzero(active)[-1]] = 1.0
    result = linear_solve(A, b, solver)
    assert result.status is Status.LINEAR_SOLVE_FAILED
    assert "unknowns connected with row" in result.message and "sums there to 1; subtract its mean" in result.message
    solid = int(np.flatnonzero(~active)[2])
    result = linear_solve(A, np.where(np.arange(225) == solid, 2.5, 0.0), solver)
    assert result.status is Status.LINEAR_SOLVE_FAILED
    assert f"row {solid} of A is empty, but b is 2.5 there" in result.message
    one = linear_solve(poisson_stencil((6, 6)).matrix(), np.ones(36), solver)
    assert one.status is Status.LINEAR_SOLVE_FAILED and "over all unknowns" in one.message


def test_a_right_hand_side_that_is_nearly_compatible_is_solved_to_the_tolerance():
    A = poisson_stencil((12, 12)).matrix()
    b = np.random.default_rng(8).standard_normal(144)
    b -= b.mean() - 1e-8
    for solver in (Direct(tolerance=1e-6), CG(tolerance=1e-6), FastPoisson(tolerance=1e-6)):
        assert linear_solve(A, b, solver).status is Status.CONVERGED
    assert linear_solve(A, b + 1e-3, CG(tolerance=0.1)).status is Status.LINEAR_SOLVE_FAILED
    assert "no solution" in linear_solve(A, b, CG(tolerance=1e-10)).message


def test_only_symmetric_parts_with_row_sum_zero_have_constants_in_their_kernel():
    open_ = poisson_stencil((5, 5), walls="dirichlet").matrix()
    closed = poisson_stencil((4, 4)).matrix()
    both = sp.csr_array(sp.block_diag([open_, closed]))
    kernel = null_space(both)
    np.testing.assert_array_equal(kernel.part, np.r_[np.full(25, -1), np.zeros(16)])
    upwind = sp.csr_array(np.array([[1.0, -1, 0], [0, 1, -1], [-1, 0, 1]]))
    assert null_space(upwind).sizes.size == 0
    stored = both.copy()
    stored.data[stored.indptr[3] : stored.indptr[4]] = 0.0
    assert null_space(stored).empty[3] and stored.nnz == both.nnz


def test_direct_factorises_nothing_if_all_rows_are_empty():
    assert Direct().compute(Direct().init(sp.csr_array((3, 3))), np.ones(3)).x.tolist() == [0, 0, 0]
    assert linear_solve(sp.csr_array((3, 3)), np.ones(3), AMG()).status is Status.LINEAR_SOLVE_FAILED


def test_complex_and_other_entries_are_refused():
    A = poisson_stencil((4, 4), walls="dirichlet").matrix()
    with pytest.raises(InputError, match="A: expected real entries, got complex128; solve for the real"):
        linear_solve(A * 1j, np.ones(16), CG())
    with pytest.raises(InputError, match="b: expected real entries"):
        linear_solve(A, np.ones(16) * 1j, CG())
    with pytest.raises(InputError, match="b: expected numbers"):
        linear_solve(A, np.array(["a"] * 16), CG())
    assert linear_solve(A.astype(np.float32), np.ones(16, dtype=int), CG()).status is Status.CONVERGED


def test_a_tolerance_beyond_float64_is_told():
    A = poisson_stencil((40, 40), walls="dirichlet").matrix()
    b = np.random.default_rng(6).standard_normal(1600)
    for solver in (Direct(tolerance=1e-18), CG(tolerance=1e-18, max_iterations=400), FastPoisson(tolerance=1e-18)):
        result = linear_solve(A, b, solver)
        assert not result.status.ok and "float64 cannot reach 1e-18" in result.message
    short = linear_solve(A, b, CG(max_iterations=3))
    assert "float64" not in short.message


def test_a_solver_may_be_a_name_or_name_and_settings():
    A, b = poisson_stencil((9, 9), walls="dirichlet").matrix(), np.ones(81)
    assert pdelab.linear_solve(A, b, "mic-cg").status is Status.CONVERGED
    result = linear_solve(A, b, {"name": "cg", "max_iterations": 2})
    assert result.status is Status.MAX_ITERATIONS and result.stats["iterations"] == 2
    with pytest.raises(UnknownName, match="named 'mic-gc'; did you mean"):
        linear_solve(A, b, "mic-gc")
    with pytest.raises(SettingsError, match="expected a name such as"):
        linear_solve(A, b, 3)


@pytest.mark.parametrize("solver", [*GENERAL, FastPoisson()], ids=lambda s: f"{s.name}-{getattr(s, 'coarsening', '')}")
def test_the_columns_of_a_batch_are_judged_one_by_one(solver):
    A = poisson_stencil((8, 9)).matrix()
    X = np.random.default_rng(17).standard_normal((72, 4))
    B = A @ X
    B[:, 1], B[:, 2] = 0.0, 1.0
    results = pdelab.linear_solve_batch(A, B, solver, state=solver.init(A))
    assert [r.status.ok for r in results] == [True, True, False, True]
    for k in (0, 3):
        np.testing.assert_allclose(results[k].x, X[:, k] - X[:, k].mean(), rtol=0, atol=1e-7)
    assert not results[1].x.any() and results[1].stats["residual"] == 0
    assert results[2].status is Status.LINEAR_SOLVE_FAILED
    assert linear_solve_batch(A, np.zeros((72, 0)), solver) == []


def test_wrong_batches_are_named():
    A = poisson_stencil((4, 4), walls="dirichlet").matrix()
    with pytest.raises(ShapeError, match="B: expected shape"):
        linear_solve_batch(A, np.ones(16), CG())
    with pytest.raises(InputError, match="B: 1 of 32 entries are not finite"):
        linear_solve_batch(A, np.r_[np.nan, np.ones(31)].reshape(16, 2), CG())


@pytest.mark.parametrize("solver", [*GENERAL, FastPoisson()], ids=lambda s: f"{s.name}-{getattr(s, 'coarsening', '')}")
def test_sizes_of_the_numbers_do_not_matter(solver):
    A, x = poisson_stencil((6, 6), walls="dirichlet").matrix(), np.arange(36.0)
    for of_A, of_x in ((1e200, 1.0), (1e-200, 1.0), (1.0, 1e-250), (1.0, 1e250)):
        result = linear_solve(of_A * A, of_A * (A @ x) * of_x, solver)
        assert result.status is Status.CONVERGED, result.message
        np.testing.assert_allclose(result.x / of_x, x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("solver", [*GENERAL, FastPoisson()], ids=lambda s: f"{s.name}-{getattr(s, 'coarsening', '')}")
def test_no_unknown_and_entries_stored_twice(solver):
    assert linear_solve(sp.csr_array((0, 0)), np.zeros(0), solver).status is Status.CONVERGED
    twice = sp.csr_array((np.array([1.0, 1, 2]), np.array([0, 0, 1]), np.array([0, 2, 3])), (2, 2))
    assert linear_solve(twice, np.array([4.0, 2.0]), solver).x == pytest.approx([2.0, 1.0])
    assert twice.nnz == 3

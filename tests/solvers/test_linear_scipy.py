import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg

from pdelab import registry
from pdelab.errors import InputError
from pdelab.linear import AbstractLinearSolver, LinearResult
from pdelab.scipy_face import preconditioner, scipy_function
from pdelab.solvers.linear.cg import CG
from pdelab.stencil import poisson_stencil

A = poisson_stencil((40, 37), walls="dirichlet").matrix()
B = np.random.default_rng(1201).standard_normal(A.shape[0])
every = pytest.mark.parametrize("name", registry.names("linear_solvers"))


@every
def test_every_solver_preconditions_the_conjugate_gradients_of_scipy(name):
    counts = {}
    for key, M in (("plain", None), ("with", preconditioner(A, name))):
        steps = []
        x, info = cg(A, B, rtol=1e-8, M=M, callback=steps.append)
        assert info == 0 and np.linalg.norm(B - A @ x) <= 1.01e-8 * np.linalg.norm(B)
        counts[key] = len(steps)
    assert counts["with"] < 0.7 * counts["plain"]


@every
def test_every_solver_is_a_function_as_those_of_scipy(name):
    solve = scipy_function(name)
    x, info = solve(A, B, rtol=1e-7)
    assert info == 0 and np.linalg.norm(B - A @ x) <= 1e-7 * np.linalg.norm(B)
    again, info = solve(A, B[:, None], x, rtol=1e-7)
    assert info == 0 and np.array_equal(again, x)
    closer, info = solve(A, B, x + 0.1, atol=1e-6, rtol=0.0)
    assert info == 0 and np.linalg.norm(B - A @ closer) <= 1.0001e-6
    seen = []
    zero, info = solve(A, 0 * B, callback=seen.append)
    assert info == 0 and not zero.any() and len(seen) == 1
    singular = poisson_stencil((5, 5)).matrix()
    assert solve(singular, np.ones(25))[1] > 0
    assert solve(A, B, rtol=0.0, atol=0.0, maxiter=60)[1] > 0


def test_info_is_the_number_of_iterations_after_a_failure():
    x, info = scipy_function(CG())(A, B, rtol=1e-12, maxiter=7)
    assert info == 7 and x.any()


def test_a_preconditioner_maps_zero_to_zero_and_has_the_shape_of_the_matrix():
    M = preconditioner(A, CG())
    assert M.shape == A.shape and not (M @ np.zeros(A.shape[0])).any()


def test_a_solver_without_these_settings_is_used_as_it_is():
    class Halves(AbstractLinearSolver):
        name, tolerance = "halves", 1e-6

        def init(self, A):
            return None

        def compute(self, state, b):
            return LinearResult(0.5 * b)

    assert scipy_function(Halves())(2 * sp.eye_array(3), np.ones(3))[1] == 0
    assert scipy_function(Halves())(3 * sp.eye_array(3), np.ones(3))[1] == 1


def test_wrong_calls_are_named():
    solve = scipy_function("cg")
    with pytest.raises(InputError, match="M: cg has a preconditioner of its own"):
        solve(A, B, M=sp.eye_array(A.shape[0]))
    with pytest.raises(InputError, match="LinearOperator"):
        solve(LinearOperator(A.shape, matvec=lambda v: v), B)
    with pytest.raises(InputError, match="rtol"):
        solve(A, B, rtol=-1.0)
    with pytest.raises(InputError, match="x0"):
        solve(A, B, np.ones(3))
    with pytest.raises(InputError, match="real entries"):
        solve(A, B + 1j)

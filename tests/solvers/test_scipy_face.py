import numpy as np
import pytest
import scipy.sparse.linalg as spla

from pdelab import registry
from pdelab.errors import InputError
from pdelab.linear import find_linear_solver
from pdelab.scipy_face import preconditioner, scipy_function
from pdelab.stencil import poisson_stencil

A = poisson_stencil((40, 40), walls="dirichlet").matrix()
B = np.random.default_rng(8).standard_normal(1600)
NAMES = sorted(registry.names("linear_solvers"))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("cg", "dcdm-published")])
def test_every_solver_preconditions_the_conjugate_gradients_of_scipy(name):
    counts = []

    def solve(M):
        count = [0]
        x, info = spla.cg(A, B, rtol=1e-8, M=M, callback=lambda x: count.__setitem__(0, count[0] + 1))
        assert info == 0 and np.linalg.norm(B - A @ x) <= 1.01e-8 * np.linalg.norm(B)
        return count[0]

    counts = [solve(None), solve(preconditioner(A, find_linear_solver(name)))]
    assert counts[1] < 0.6 * counts[0]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "dcdm-published"])
def test_every_solver_can_be_called_like_the_one_of_scipy(name):
    solve, seen = scipy_function(find_linear_solver(name)), []
    exact = spla.spsolve(A.tocsc(), B)
    for start in (None, exact + 1e-3, exact):
        x, info = solve(A, B, start, rtol=1e-9, callback=seen.append)
        assert info == 0 and np.linalg.norm(B - A @ x) <= 1e-9 * np.linalg.norm(B)
    assert len(seen) == 2
    with pytest.raises(InputError, match="leave M out"):
        solve(A, B, M=A)


def test_failure_gives_the_number_of_iterations_and_an_absolute_tolerance_counts():
    solve = scipy_function(find_linear_solver("cg"))
    assert solve(A, B, maxiter=7)[1] == 7
    assert solve(A, B, rtol=0.0, atol=10 * np.linalg.norm(B))[1] == 0
    x, info = solve(A, B, rtol=0.0, atol=1e-6)
    assert info == 0 and np.linalg.norm(B - A @ x) <= 1e-6

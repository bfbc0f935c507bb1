import numpy as np
import pytest
import scipy.sparse as sp

from pdelab.linear import linear_solve, linear_solve_batch
from pdelab.solution import Status
from pdelab.solvers.linear.auto import SMALL, Auto, choose
from pdelab.stencil import FLUID, SOLID, poisson_stencil

RNG = np.random.default_rng(70)
VARYING = RNG.uniform(0.5, 2.0, (150, 150))
SPACE = RNG.uniform(0.5, 2.0, (30, 30, 30))
HOLE = np.full((9, 9), FLUID)
HOLE[3, 4] = SOLID
ROOMS = np.where(RNG.random((14, 15, 13)) < 0.1, SOLID, FLUID)
INDEFINITE = sp.csr_array(poisson_stencil((9, 9), cells=HOLE).matrix() - 3.0 * sp.eye_array(81))
CASES = {
    "box": (poisson_stencil((30, 40), walls="dirichlet").matrix(), "fast-poisson", "box of 30 x 40 cells"),
    "closed box": (poisson_stencil((8, 9, 7)).matrix(), "fast-poisson", "8 x 9 x 7"),
    "mixed box": (poisson_stencil((30, 40), walls=[("neumann", "dirichlet"), "periodic"]).matrix(), "fast-poisson", ""),
    "hole": (poisson_stencil((9, 9), cells=HOLE).matrix(), "direct", "81 <= 20000 unknowns"),
    "long mixed line": (
        poisson_stencil((30_000,), walls=[("neumann", "dirichlet")]).matrix(),
        "direct",
        "narrow band",
    ),
    "large": (
        poisson_stencil((150, 150), coefficient=VARYING, walls="dirichlet").matrix(),
        "multigrid",
        "a grid of 150 x 150 cells",
    ),
    "large in space": (
        poisson_stencil((30, 30, 30), coefficient=SPACE, walls="dirichlet").matrix(),
        "mic-cg",
        "7-point stencil",
    ),
    "large without walls": (
        poisson_stencil((150, 150), coefficient=VARYING, walls=["periodic", "dirichlet"]).matrix(),
        "amg",
        "22500 > 20000 unknowns",
    ),
    "rooms": (poisson_stencil((14, 15, 13), cells=ROOMS).matrix(), "mic-cg", "7-point stencil"),
    "unlike couplings": (
        poisson_stencil((14, 15, 13), coefficient=np.exp(3 * RNG.standard_normal((14, 15, 13)))).matrix(),
        "direct",
        "2730 <= 20000",
    ),
    "unsymmetric": (sp.csr_array(np.eye(9) + np.eye(9, k=1)), "direct", "not symmetric"),
    "indefinite": (sp.csr_array(INDEFINITE), "direct", "not positive on the diagonal"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_structure_decides_and_the_reason_is_told(case):
    A, name, reason = CASES[case]
    solver, why = choose(A, 1e-7)
    assert solver.name == name and reason in why and solver.tolerance == 1e-7
    x = RNG.standard_normal(A.shape[0])
    result = linear_solve(A, A @ x, Auto(tolerance=1e-7))
    assert result.status is Status.CONVERGED, result.message
    assert Auto().init(A).reason == why


def test_batches_and_applications_go_to_the_chosen_solver():
    A, *_ = CASES["box"]
    auto = Auto()
    state, B = auto.init(A), RNG.standard_normal((1200, 2))
    for b, result in zip(B.T, linear_solve_batch(A, B, auto, state=state), strict=True):
        assert result.status is Status.CONVERGED
        np.testing.assert_allclose(auto.apply(state, b), result.x, rtol=0, atol=1e-12)


def test_a_failure_names_the_choice():
    A = sp.csr_array(np.ones((4, 4)))
    result = linear_solve(A, np.arange(4.0), Auto())
    assert not result.status.ok
    assert f"auto chose direct: symmetric with 4 <= {SMALL} unknowns" in result.message

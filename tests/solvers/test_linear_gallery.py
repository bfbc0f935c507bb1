import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from pyamg import gallery

from pdelab import registry
from pdelab.errors import InputError
from pdelab.linear import linear_solve
from pdelab.solution import Status
from pdelab.solvers.linear.fast_poisson import FastPoisson

GRIDS = ("multigrid", "dcdm", "dcdm-published")
GENERAL = [name for name in registry.names("linear_solvers") if name not in ("fast-poisson", *GRIDS)]
EXAMPLES = ("airfoil", "bar", "helmholtz_2D", "knot", "local_disc_galerkin_diffusion", "recirc_flow", "unit_cube")
EXAMPLES = (*EXAMPLES, "unit_square")


def anisotropic():
    stencil = gallery.diffusion_stencil_2d(epsilon=0.01, theta=np.pi / 6, type="FE")
    return gallery.stencil_grid(stencil, (30, 30), format="csr")


DEFINITE = {
    "poisson 1-D": lambda: gallery.poisson((500,), format="csr"),
    "poisson 2-D": lambda: gallery.poisson((40, 31), format="csr"),
    "poisson 3-D": lambda: gallery.poisson((11, 12, 13), format="csr"),
    "anisotropic": anisotropic,
    "elasticity": lambda: gallery.linear_elasticity((20, 20), format="csr")[0],
}


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("case", DEFINITE)
def test_definite_matrices_of_the_gallery_are_solved(case, name):
    A = sp.csr_array(DEFINITE[case]())
    x = np.random.default_rng(4001).standard_normal(A.shape[0])
    result = linear_solve(A, A @ x, {"name": name, "tolerance": 1e-9})
    assert result.status is Status.CONVERGED, result.message
    np.testing.assert_allclose(result.x, x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", GRIDS[:2])
@pytest.mark.parametrize("case", ["poisson 2-D", "poisson 3-D"])
def test_grids_of_the_gallery_are_solved_by_cycles(case, name):
    A = sp.csr_array(DEFINITE[case]())
    x = np.random.default_rng(4001).standard_normal(A.shape[0])
    result = linear_solve(A, A @ x, {"name": name, "tolerance": 1e-9})
    assert result.status is Status.CONVERGED, result.message
    np.testing.assert_allclose(result.x, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("case", ["anisotropic", "elasticity"])
def test_what_is_no_grid_is_refused_by_cycles(case, name):
    with pytest.raises(InputError, match="not that of a 3-, 5- or 7-point stencil.*use amg"):
        linear_solve(DEFINITE[case](), np.ones(DEFINITE[case]().shape[0]), name)


@pytest.mark.parametrize("name", [*GENERAL, "fast-poisson", *GRIDS])
@pytest.mark.parametrize("example", EXAMPLES)
def test_no_solver_claims_what_it_has_not_reached_on_an_example(example, name):
    A = gallery.load_example(example)["A"].tocsr()
    if np.iscomplexobj(A.data):
        with pytest.raises(InputError, match="real entries"):
            linear_solve(A, np.ones(A.shape[0]), name)
        return
    A = sp.csr_array(A)
    b = A @ np.random.default_rng(4001).standard_normal(A.shape[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = linear_solve(A, b, name)
        except InputError as error:
            assert "use" in str(error)
            return
    tolerance = registry.load("linear_solvers", name)().tolerance
    reached = np.linalg.norm(b - A @ result.x) <= tolerance * np.linalg.norm(b)
    assert result.status.ok == reached
    assert result.status.ok or result.message
    if name in ("direct", "auto"):
        assert result.status.ok, result.message


@pytest.mark.parametrize("case", ["poisson 1-D", "poisson 2-D", "poisson 3-D"])
def test_boxes_of_the_gallery_are_solved_by_transforms(case):
    A = sp.csr_array(DEFINITE[case]())
    x = np.random.default_rng(4001).standard_normal(A.shape[0])
    result = linear_solve(A, A @ x, FastPoisson())
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.x, x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", ["anisotropic", "elasticity"])
def test_what_is_no_box_is_refused_by_transforms(case):
    with pytest.raises(InputError, match="not that of a 3-, 5- or 7-point stencil.*use amg"):
        FastPoisson().init(sp.csr_array(DEFINITE[case]()))

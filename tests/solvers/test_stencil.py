import numpy as np
import pytest
import scipy.sparse as sp

from pdelab.errors import InputError, SettingsError, ShapeError
from pdelab.stencil import AIR, FLUID, SOLID, poisson_stencil, recognise


def line(n, first, last):
    one = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1]).toarray()
    one[0, 0], one[-1, -1] = 1 + first, 1 + last
    return one


WEIGHTS = {"neumann": 0.0, "dirichlet": 1.0, "face-dirichlet": 2.0}


@pytest.mark.parametrize("walls", [("neumann", "dirichlet"), ("face-dirichlet", "neumann")])
def test_the_matrix_is_the_kronecker_sum_of_three_lines(walls):
    lines = [line(n, *(WEIGHTS[w] for w in walls)) for n in (3, 4, 5)]
    eyes = [np.eye(n) for n in (3, 4, 5)]
    expected = (
        np.kron(np.kron(lines[0], eyes[1]), eyes[2])
        + np.kron(np.kron(eyes[0], lines[1]), eyes[2])
        + np.kron(np.kron(eyes[0], eyes[1]), lines[2])
    )
    np.testing.assert_array_equal(poisson_stencil((3, 4, 5), walls=[walls] * 3).matrix().toarray(), expected)


def test_periodic_rows_sum_to_zero_and_shift_into_one_another():
    A = poisson_stencil((6, 5), walls="periodic").matrix().toarray()
    first = A[0].reshape(6, 5)
    for row, (i, j) in enumerate(np.ndindex(6, 5)):
        np.testing.assert_array_equal(A[row].reshape(6, 5), np.roll(first, (i, j), (0, 1)))
    assert A[0].sum() == 0 and A[0, 0] == 4


def test_solid_cells_have_empty_rows_and_let_no_flux_through_while_air_is_zero():
    cells = np.full((5, 6), FLUID)
    cells[2, 3], cells[0, 0] = SOLID, AIR
    stencil = poisson_stencil((5, 6), cells=cells, walls="neumann")
    A = stencil.matrix()
    assert not A.toarray()[[0, 15]].any() and not A.toarray()[:, [0, 15]].any()
    excess = np.zeros((5, 6))
    excess[0, 1] = excess[1, 0] = 1.0
    np.testing.assert_array_equal(stencil.excess, excess)
    np.testing.assert_array_equal(stencil.active, cells == FLUID)
    assert abs(A - A.T).max() == 0


def test_couplings_of_two_materials_are_harmonic_means():
    a = np.array([1.0, 1.0, 4.0, 4.0])
    stencil = poisson_stencil((4,), coefficient=a, walls="dirichlet")
    np.testing.assert_allclose(stencil.faces[0], [1.0, 1.6, 4.0, 0.0])
    np.testing.assert_allclose(stencil.diagonal, [2.0, 2.6, 5.6, 8.0])


@pytest.mark.parametrize("walls", ["neumann", "dirichlet", "periodic"])
@pytest.mark.parametrize("shape", [(9,), (6, 7), (4, 5, 6), (8, 8)])
def test_a_stencil_is_recognised_from_its_matrix(shape, walls):
    rng = np.random.default_rng(771)
    cells = np.where(rng.random(shape) < 0.15, SOLID, FLUID)
    stencil = poisson_stencil(shape, cells=cells, walls=walls, coefficient=rng.uniform(1, 2, shape))
    found = recognise(stencil.matrix())
    assert found.shape == shape
    np.testing.assert_array_equal(found.diagonal, stencil.diagonal)
    np.testing.assert_array_equal(found.faces, stencil.faces)


def test_other_matrices_are_told_apart():
    nine = sp.csr_array(sp.kron(sp.eye_array(5), sp.diags_array([1.0, 3.0, 1.0], offsets=[-1, 0, 1], shape=(5, 5))))
    crossed = sp.csr_array(nine + sp.eye_array(25, k=4) + sp.eye_array(25, k=-4))
    with pytest.raises(InputError, match="not that of a 3-, 5- or 7-point stencil"):
        recognise(crossed)
    with pytest.raises(InputError, match="has 24 cells, but the matrix 25 rows"):
        recognise(crossed, (4, 6))
    with pytest.raises(ShapeError, match="cells"):
        poisson_stencil((4, 4), cells=np.zeros((3, 4)))
    with pytest.raises(SettingsError, match="periodic on one side"):
        poisson_stencil((4,), walls=[("periodic", "neumann")])

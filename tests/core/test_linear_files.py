import json

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from pdelab.cli import main
from pdelab.errors import InputError
from pdelab.linear_files import (
    read_binary_cells,
    read_binary_matrix,
    read_binary_vector,
    read_matrix,
    read_vector,
    write_vector,
)
from pdelab.stencil import poisson_stencil

A = poisson_stencil((5, 4), walls="dirichlet").matrix()


def binary_matrix(A, kind="<f8"):
    head = np.array([*A.shape, A.nnz, A.shape[0], A.shape[1]], "<i4").tobytes()
    return (
        head + A.data.astype(kind).tobytes() + A.indptr[:-1].astype("<i4").tobytes() + A.indices.astype("<i4").tobytes()
    )


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["linsolve", *map(str, arguments)])
    return ended.value.code


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_the_binary_matrix_is_read(tmp_path, kind):
    (tmp_path / "A.bin").write_bytes(binary_matrix(A, kind))
    assert abs(read_matrix(tmp_path / "A.bin") - A).max() == 0


def test_binary_vectors_and_cells_are_read(tmp_path):
    x = np.linspace(0, 1, 7)
    (tmp_path / "x.bin").write_bytes(np.uint64(7).tobytes() + x.tobytes())
    np.testing.assert_array_equal(read_vector(tmp_path / "x.bin"), x)
    (tmp_path / "c.bin").write_bytes(np.uint64(4).tobytes() + np.array([0, 1, 2, 3], "<i4").tobytes())
    np.testing.assert_array_equal(read_binary_cells(tmp_path / "c.bin"), [0, 0, 2, 3])


def test_damaged_binary_files_are_told(tmp_path):
    whole, file = binary_matrix(A), tmp_path / "A.bin"
    for cut in (0, 19, 40, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="cut off"):
            read_binary_matrix(file)
    wrong = sp.csr_array((A.data, np.where(A.indices == 19, 99, A.indices), A.indptr), shape=(20, 100))
    file.write_bytes(binary_matrix(wrong)[:4] + np.int32(20).tobytes() + binary_matrix(wrong)[8:])
    with pytest.raises(InputError, match="out of range"):
        read_binary_matrix(file)
    file.write_bytes(np.uint64(9).tobytes() + b"1234")
    with pytest.raises(InputError, match="cut off"):
        read_binary_vector(file)
    file.write_bytes(np.uint64(1).tobytes() + np.int32(7).tobytes())
    with pytest.raises(InputError, match="flags 0 to 3"):
        read_binary_cells(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_binary_vector(tmp_path / "none.bin")


def test_vectors_survive_matrix_market(tmp_path):
    x = np.random.default_rng(3).standard_normal(20)
    write_vector(tmp_path / "x.mtx", x)
    np.testing.assert_array_equal(read_vector(tmp_path / "x.mtx"), x)


@pytest.mark.parametrize("solver", ["direct", "cg", "amg", "multigrid", "dcdm"])
def test_the_command_solves_and_writes(tmp_path, capsys, solver):
    scipy.io.mmwrite(tmp_path / "A.mtx", A, symmetry="symmetric")
    b = A @ np.arange(20.0)
    write_vector(tmp_path / "b.mtx", b)
    arguments = [tmp_path / "A.mtx", tmp_path / "b.mtx", "--solver", solver, "--out", tmp_path / "x.mtx"]
    assert run(*arguments, "--tol", "1e-10", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["status"] == "CONVERGED" and facts["residual"] <= 1e-10
    np.testing.assert_allclose(read_vector(tmp_path / "x.mtx"), np.arange(20.0), atol=1e-7)
    assert run(*arguments) == 2  # nothing is overwritten
    assert run(*arguments, "--force") == 0
    assert solver in capsys.readouterr().out


def test_a_missed_tolerance_is_status_1_and_wrong_input_status_2(tmp_path, capsys):
    scipy.io.mmwrite(tmp_path / "A.mtx", A)
    assert run(tmp_path / "A.mtx", "--solver", "cg", "--set", "max_iterations=1", "--out", tmp_path / "x.mtx") == 1
    assert not (tmp_path / "x.mtx").exists()
    assert run(tmp_path / "A.mtx", "--solver", "conjugate") == 2
    assert run(tmp_path / "none.mtx") == 2
    (tmp_path / "bad.mtx").write_text("%%MatrixMarket matrix coordinate real general\n3 3\n")
    assert run(tmp_path / "bad.mtx") == 2
    scipy.io.mmwrite(tmp_path / "wide.mtx", sp.csr_array(np.ones((2, 3))))
    assert run(tmp_path / "wide.mtx") == 2
    scipy.io.mmwrite(tmp_path / "complex.mtx", sp.csr_array(A * 1j))
    assert run(tmp_path / "complex.mtx") == 2
    scipy.io.mmwrite(tmp_path / "short.mtx", np.ones((3, 1)))
    assert run(tmp_path / "A.mtx", tmp_path / "short.mtx") == 2
    assert "b: expected shape (20), got (3)" in capsys.readouterr().err

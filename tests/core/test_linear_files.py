import gzip
import json

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.io import mmread, mmwrite

from pdelab import cli, files
from pdelab.errors import InputError
from pdelab.linear_files import read_flags, read_matrix, read_vector
from pdelab.stencil import poisson_stencil

A = poisson_stencil((6, 7), walls="dirichlet").matrix()
X = np.random.default_rng(612).standard_normal(42)


@pytest.fixture
def linsolve(capsys):
    """Run the command in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as leaving:
            cli.main(["linsolve", *(str(a) for a in arguments)])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def system(tmp_path):
    mmwrite(tmp_path / "A.mtx", sp.coo_matrix(A), symmetry="symmetric")
    mmwrite(tmp_path / "b.mtx", (A @ X)[:, None], precision=17)
    return tmp_path


def binary(path, matrix, kind="<f8"):
    header = [*matrix.shape, matrix.nnz, *matrix.shape]
    parts = [np.array(header, "<i4"), matrix.data.astype(kind), matrix.indptr[:-1].astype("<i4")]
    path.write_bytes(b"".join(p.tobytes() for p in [*parts, matrix.indices.astype("<i4")]))


def counted(path, values, kind):
    path.write_bytes(np.array([len(values)], "<i8").tobytes() + np.asarray(values, kind).tobytes())


@pytest.mark.parametrize("solver", ["auto", "direct", "cg", "amg", "ic-cg", "mic-cg", "fast-poisson"])
def test_a_system_in_files_is_solved_into_a_file(solver, system, linsolve):
    out = system / "x.mtx"
    status, text, _ = linsolve(system / "A.mtx", system / "b.mtx", "--solver", solver, "--tol", "1e-10", "--out", out)
    assert status == 0 and "CONVERGED" in text and "relative residual" in text and "CPU s" in text and str(out) in text
    assert ("fast-poisson (a full box of 6 x 7 cells)" in text) == (solver == "auto")
    np.testing.assert_allclose(mmread(out).ravel(), X, rtol=0, atol=1e-8)
    assert sorted(p.name for p in system.iterdir()) == ["A.mtx", "b.mtx", "x.mtx"]


def test_without_b_it_is_the_matrix_times_ones_and_the_user_is_told(system, linsolve):
    status, text, _ = linsolve(system / "A.mtx", "--out", system / "x.mtx.gz")
    assert status == 0 and "right-hand side: A times ones" in text
    np.testing.assert_allclose(mmread(system / "x.mtx.gz").ravel(), 1.0, rtol=0, atol=1e-8)
    found = json.loads(linsolve(system / "A.mtx", "--solver", "mic-cg", "--set", "relaxation=0.5", "--json")[1])
    assert found["solver"] == "mic-cg" and found["status"] == "CONVERGED" and found["b"] == "A @ ones"
    assert found["stats"]["iterations"] > 1 and found["unknowns"] == 42 and found["files"] == []


def test_the_matrix_of_a_closed_box_times_ones_is_zero(tmp_path, linsolve):
    coefficient = np.random.default_rng(8).uniform(0.5, 2.0, (9, 8))
    closed = poisson_stencil((9, 8), coefficient=coefficient).matrix()
    mmwrite(tmp_path / "A.mtx", sp.coo_matrix(closed), precision=17)
    status, text, _ = linsolve(tmp_path / "A.mtx")
    assert status == 0 and "A times ones, which is zero; give a file of b" in text
    mmwrite(tmp_path / "b.mtx", np.ones((72, 1)))
    status, text, _ = linsolve(tmp_path / "A.mtx", tmp_path / "b.mtx")
    assert status == 1 and "b has no solution: the constants over all unknowns are in the kernel" in text


def test_files_are_overwritten_by_force_only_and_appear_whole(system, linsolve, monkeypatch):
    out = system / "x.mtx"
    out.write_text("mine")
    status, _, err = linsolve(system / "A.mtx", "--out", out)
    assert status == 2 and "exists; choose another file or give --force" in err and out.read_text() == "mine"
    assert linsolve(system / "A.mtx", "--out", out, "--force")[0] == 0
    before = out.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    status, _, err = linsolve(system / "A.mtx", system / "b.mtx", "--out", out, "--force")
    assert status == 2 and "No space left" in err and out.read_bytes() == before
    assert linsolve(system / "A.mtx", "--out", system / "none" / "x.mtx")[0] == 2
    assert linsolve(system / "A.mtx", "--out", system, "--force")[0] == 2


def test_a_failed_solve_is_status_1_and_writes_nothing(system, linsolve):
    call = (system / "A.mtx", system / "b.mtx", "--solver", "cg", "--set", "max_iterations=2")
    status, text, _ = linsolve(*call, "--out", system / "x.mtx")
    assert status == 1 and "MAX_ITERATIONS" in text and not (system / "x.mtx").exists()
    assert json.loads(linsolve(*call, "--json")[1])["status"] == "MAX_ITERATIONS"


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_the_binary_formats_are_read(kind, tmp_path, linsolve):
    binary(tmp_path / "A.bin", A, kind)
    counted(tmp_path / "b.bin", A @ X, "<f8")
    counted(tmp_path / "flags.bin", [0, 1, 2, 3, 2], "<i4")
    assert abs(read_matrix(tmp_path / "A.bin") - A).max() == 0
    np.testing.assert_array_equal(read_vector(tmp_path / "b.bin"), A @ X)
    np.testing.assert_array_equal(read_flags(tmp_path / "flags.bin"), [0, 1, 2, 3, 2])
    assert linsolve(tmp_path / "A.bin", tmp_path / "b.bin", "--out", tmp_path / "x.mtx")[0] == 0
    np.testing.assert_allclose(mmread(tmp_path / "x.mtx").ravel(), X, rtol=0, atol=1e-8)


def test_vectors_and_matrices_in_every_form_of_matrix_market(tmp_path):
    b = np.where(np.arange(42) % 3 == 0, X, 0.0)
    mmwrite(tmp_path / "c.mtx", sp.coo_matrix(b[:, None]), precision=17)
    np.testing.assert_array_equal(read_vector(tmp_path / "c.mtx"), b)
    mmwrite(tmp_path / "row.mtx", b[None, :], precision=17)
    np.testing.assert_array_equal(read_vector(tmp_path / "row.mtx"), b)
    mmwrite(tmp_path / "dense.mtx", A.toarray())
    assert abs(read_matrix(tmp_path / "dense.mtx") - A).max() == 0
    mmwrite(tmp_path / "integer.mtx", sp.coo_matrix(A.astype(int)))
    (tmp_path / "integer.mtx.gz").write_bytes(gzip.compress((tmp_path / "integer.mtx").read_bytes()))
    assert abs(read_matrix(tmp_path / "integer.mtx.gz") - A).max() == 0


def test_wrong_files_are_status_2_with_the_reason(system, linsolve):
    def told(name, *more):
        status, out, err = linsolve(system / name, *more)
        assert status == 2 and out == "" and name in err, (status, out, err)
        return err

    text = (system / "A.mtx").read_text()
    assert "cannot be read: No such file" in told("none.mtx")
    (system / "cut.mtx").write_text(text[: len(text) // 2])
    assert "is the file whole?" in told("cut.mtx")
    (system / "empty.mtx").write_text("")
    told("empty.mtx")
    (system / "cut.mtx.gz").write_bytes(gzip.compress(text.encode())[:60])
    assert "is the file whole?" in told("cut.mtx.gz")
    (system / "a.txt").write_text(text)
    assert "expected a name in .mtx" in told("a.txt")
    mmwrite(system / "wide.mtx", sp.coo_matrix(A[:5]))
    assert "expected a square matrix, got shape (5, 42)" in told("wide.mtx")
    mmwrite(system / "complex.mtx", sp.coo_matrix(A * 1j))
    assert "expected real numbers" in told("complex.mtx")
    lines = text.splitlines()
    lines[-1] = " ".join([*lines[-1].split()[:2], "nan"])
    (system / "nan.mtx").write_text("\n".join(lines))
    assert "1 of" in told("nan.mtx")
    status, _, err = linsolve(system / "A.mtx", system / "A.mtx")
    assert status == 2 and "expected a vector" in err
    mmwrite(system / "short.mtx", np.ones((7, 1)))
    status, _, err = linsolve(system / "A.mtx", system / "short.mtx")
    assert status == 2 and "expected 42 numbers" in err and "got 7" in err
    assert "did you mean mic-cg" in linsolve(system / "A.mtx", "--solver", "micg")[2]
    assert linsolve(system / "A.mtx", "--tol", "-1")[0] == 2
    assert linsolve(system / "A.mtx", "--set", "colour=red")[0] == 2


def test_damaged_binary_files_are_refused(tmp_path):
    binary(tmp_path / "A.bin", A)
    whole = (tmp_path / "A.bin").read_bytes()
    cases = {
        "5 int32 numbers first": whole[:10],
        "entries need": whole[:-4],
        "outer size": np.array([42, 42, A.nnz, 41, 42], "<i4").tobytes() + whole[20:],
        "column 999 of 42": whole[:-4] + np.array([999], "<i4").tobytes(),
        "column is negative": whole[:-4] + np.array([-1], "<i4").tobytes(),
        "not finite": whole[:20] + np.array([np.nan]).tobytes() + whole[28:],
    }
    for message, data in cases.items():
        (tmp_path / "A.bin").write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_matrix(tmp_path / "A.bin")
    (tmp_path / "b.bin").write_bytes(b"123")
    with pytest.raises(InputError, match="the length as 8-byte integer first, got 3"):
        read_vector(tmp_path / "b.bin")
    counted(tmp_path / "b.bin", X, "<f8")
    (tmp_path / "b.bin").write_bytes((tmp_path / "b.bin").read_bytes()[:-3])
    with pytest.raises(InputError, match="42 numbers need 344 bytes, got 341"):
        read_vector(tmp_path / "b.bin")
    counted(tmp_path / "flags.bin", [2, 7], "<i4")
    with pytest.raises(InputError, match="got 7"):
        read_flags(tmp_path / "flags.bin")

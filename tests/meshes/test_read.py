import resource
import time
import warnings
from pathlib import Path

import meshio
import numpy as np
import pytest

from pdelab.errors import MeshError
from pdelab.mesh import Mesh
from pdelab.meshes import measure
from pdelab.meshes.read import read_mesh, read_quad8_csv, read_surface
from pdelab.meshes.shape import reference_nodes

SHARED = Path("../shared/data")
KINDS = {"line": 1, "triangle": 2, "quad": 2, "tetra": 3, "triangle6": 2, "quad8": 2, "tetra10": 3}

# suffix and options of the writer for each variant of each format
VARIANTS = {
    "gmsh22-ascii": (".msh", {"file_format": "gmsh22", "binary": False}),
    "gmsh22-binary": (".msh", {"file_format": "gmsh22", "binary": True}),
    "gmsh41-ascii": (".msh", {"file_format": "gmsh", "binary": False}),
    "gmsh41-binary": (".msh", {"file_format": "gmsh", "binary": True}),
    "vtu-ascii": (".vtu", {"file_format": "vtu", "binary": False}),
    "vtu-binary": (".vtu", {"file_format": "vtu", "binary": True}),
    "vtu-plain": (".vtu", {"file_format": "vtu", "binary": True, "compression": None}),
    "abaqus": (".inp", {"file_format": "abaqus"}),
    "xdmf-xml": (".xdmf", {"file_format": "xdmf", "data_format": "XML"}),
    "xdmf-hdf": (".xdmf", {"file_format": "xdmf", "data_format": "HDF"}),
}


def grid(n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A square of 2 n^2 triangles."""
    x = np.linspace(0, 1, n + 1)
    points = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    i, j = (a.ravel() for a in np.meshgrid(range(n), range(n), indexing="ij"))
    c = i * (n + 1) + j
    return points, np.concatenate([np.stack([c, c + n + 1, c + n + 2], 1), np.stack([c, c + n + 2, c + 1], 1)])


def write(path: Path, points, blocks, **options) -> Path:
    """Write with meshio, points in space."""
    points = np.asarray(points, dtype=float)
    points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    cell_data = options.pop("cell_data", None)
    extra = {k: options.pop(k) for k in ("field_data", "cell_sets", "point_sets", "point_data") if k in options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mesh = meshio.Mesh(points, blocks, cell_data=cell_data, **extra)
        mesh.write(path, **options)
    return path


def as_variant(folder: Path, variant: str, points, blocks, **extra) -> Path:
    suffix, options = VARIANTS[variant]
    return write(folder / f"mesh{suffix}", points, blocks, **options, **extra)


def one_cell(kind: str) -> tuple[np.ndarray, list]:
    nodes = reference_nodes(kind)
    return nodes, [(kind, np.arange(len(nodes))[None])]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_type_in_every_format(tmp_path, variant, kind):
    if variant == "abaqus" and kind == "line":
        pytest.skip("the writer has no plain line element")
    nodes, blocks = one_cell(kind)
    mesh = read_mesh(as_variant(tmp_path, variant, nodes, blocks))
    assert mesh.cell_type == kind and mesh.dimension == KINDS[kind]
    assert mesh.points == pytest.approx(nodes, abs=1e-15)
    assert mesh.cells.tolist() == [list(range(len(nodes)))]
    assert measure.validity(mesh)["inverted_cells"] == 0


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.startswith(("gmsh22", "vtu", "xdmf"))])
def test_tags_become_parts_and_regions(tmp_path, variant):
    points, triangles = grid()
    lines = np.array([[0, 4], [4, 8], [3, 7]])
    tags = [np.array([7, 7, 2]), np.array([1] * 9 + [3] * 9)]
    path = as_variant(
        tmp_path,
        variant,
        points,
        [("line", lines), ("triangle", triangles)],
        cell_data={"gmsh:physical": tags, "gmsh:geometrical": tags},
        field_data={"floor": np.array([7, 1]), "left half": np.array([1, 2])},
    )
    mesh = read_mesh(path)
    named = variant.startswith("gmsh")  # only Gmsh files hold names
    floor, left = ("floor", "left half") if named else ("7", "1")
    assert {k: len(v) for k, v in mesh.facets.items()} == {floor: 2, "2": 1}
    assert {k: v.tolist() for k, v in mesh.regions.items()} == {left: list(range(9)), "3": list(range(9, 18))}
    assert np.array_equal(mesh.facets[floor], lines[:2])


@pytest.mark.parametrize("version, binary", [(2.2, False), (2.2, True), (4.1, False), (4.1, True)])
@pytest.mark.parametrize("order", [1, 2])
def test_files_of_gmsh_itself(tmp_path, version, binary, order):
    gmsh = pytest.importorskip("gmsh")
    gmsh.initialize(interruptible=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.option.setNumber("Mesh.MshFileVersion", version)
        gmsh.option.setNumber("Mesh.Binary", binary)
        disc = gmsh.model.occ.addDisk(0, 0, 0, 1, 1)
        gmsh.model.occ.synchronize()
        rim = gmsh.model.getBoundary([(2, disc)], oriented=False)
        gmsh.model.addPhysicalGroup(2, [disc], 5, "plate")
        gmsh.model.addPhysicalGroup(1, [tag for _, tag in rim], 6)
        gmsh.model.mesh.setSize(gmsh.model.getEntities(0), 0.3)
        gmsh.model.mesh.generate(2)
        gmsh.model.mesh.setOrder(order)
        gmsh.write(str(tmp_path / "disc.msh"))
    finally:
        gmsh.finalize()
    mesh = read_mesh(tmp_path / "disc.msh")
    assert mesh.cell_type == {1: "triangle", 2: "triangle6"}[order]
    assert set(mesh.facets) == {"6"} and set(mesh.regions) == {"plate"}
    assert measure.boundary_measure(mesh, "6") == pytest.approx(2 * np.pi, rel={1: 0.02, 2: 1e-4}[order])
    assert measure.volumes(mesh).sum() == pytest.approx(np.pi, rel={1: 0.03, 2: 1e-3}[order])


def test_gmsh_file_with_some_entities_in_no_group(tmp_path):
    gmsh = pytest.importorskip("gmsh")
    gmsh.initialize(interruptible=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.option.setNumber("Mesh.SaveAll", 1)
        disc = gmsh.model.occ.addDisk(0, 0, 0, 1, 1)
        gmsh.model.occ.synchronize()
        gmsh.model.addPhysicalGroup(2, [disc], 5, "plate")
        gmsh.model.mesh.generate(2)
        gmsh.write(str(tmp_path / "disc.msh"))
    finally:
        gmsh.finalize()
    with pytest.raises(MeshError, match="Mesh.SaveAll = 0"):
        read_mesh(tmp_path / "disc.msh")


def test_abaqus_sets(tmp_path):
    points, triangles = grid()
    path = as_variant(
        tmp_path,
        "abaqus",
        points,
        [("triangle", triangles)],
        cell_sets={"core": [np.array([2, 3])]},
        point_sets={"left": np.arange(4)},
    )
    mesh = read_mesh(path)
    assert mesh.regions["core"].tolist() == [2, 3]
    assert {tuple(sorted(f)) for f in mesh.facets["left"]} == {(0, 1), (1, 2), (2, 3)}


def test_shared_meshes():
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is absent")
    with pytest.warns(UserWarning, match="9494 of 9494 cells were inverted"):
        mesh = read_mesh(SHARED / "um2n/cylinder_015.msh")
    assert mesh.n_points == 4933
    lengths = [measure.boundary_measure(mesh, part) for part in "1234"]
    # Walls, inflow, outflow, and the cylinder as a polygon of 22 sides.
    assert lengths == pytest.approx([4.4, 0.41, 0.41, 22 * 0.1 * np.sin(np.pi / 22)], rel=1e-9)
    for number, cells in ((1, 3456), (3, 1872)):
        folder = SHARED / f"equino/RVE{number}"
        mesh = read_quad8_csv(folder / "nodeCoordinates.csv", folder / "elementIncidences.csv")
        assert mesh.cell_type == "quad8" and len(mesh.cells) == cells
        assert set(mesh.regions) == {"1", "2"} and sum(map(len, mesh.regions.values())) == cells
        assert measure.volumes(mesh).sum() == pytest.approx(1.0, rel=1e-9)
        assert measure.validity(mesh)["inverted_cells"] == 0


def test_repairs_are_made_and_reported(tmp_path):
    points, triangles = grid()
    volume = Mesh(points, triangles).volumes().sum()
    turned = triangles.copy()
    turned[4] = turned[4, ::-1]
    split = np.vstack([points, points[triangles[0, 0]] + 1e-13])
    split_cells = triangles.copy()
    split_cells[0, 0] = len(points)
    cases = [
        (points, turned, "1 of 18 cells were inverted"),
        (points, triangles[:, ::-1], "18 of 18 cells were inverted"),
        (points, np.vstack([triangles, triangles[2:3, [1, 2, 0]]]), "1 repeated cells were dropped"),
        (np.vstack([[[5.0, 5.0]], points]), triangles + 1, "1 points that no cell uses"),
        (split, split_cells, "1 points coincide"),
    ]
    for p, cells, message in cases:
        path = as_variant(tmp_path, "vtu-ascii", p, [("triangle", cells)])
        with pytest.warns(UserWarning) as caught:
            mesh = read_mesh(path)
        assert [str(w.message).split(": ")[0] for w in caught] == [str(path)] * len(caught)
        assert message in str(caught[0].message) and caught[0].filename == __file__
        assert mesh.n_points == len(points) and len(mesh.cells) == len(triangles)
        assert mesh.volumes().min() > 0 and mesh.volumes().sum() == pytest.approx(volume)
        assert measure.boundary_measure(mesh) == pytest.approx(4.0)


@pytest.mark.parametrize("kind", KINDS)
def test_inverted_cells_of_each_type_are_turned_round(tmp_path, kind):
    nodes, blocks = one_cell(kind)
    mirrored = nodes * np.array([-1.0, 1.0, 1.0])[: nodes.shape[1]]
    with pytest.warns(UserWarning, match="1 of 1 cells were inverted"):
        mesh = read_mesh(as_variant(tmp_path, "vtu-ascii", mirrored, blocks))
    assert measure.validity(mesh)["inverted_cells"] == 0
    assert measure.volumes(mesh) == pytest.approx(measure.volumes(Mesh(nodes, [range(len(nodes))], kind)))


def test_facets_of_no_cell_are_dropped_with_a_warning(tmp_path):
    points, triangles = grid()
    lines = np.array([[0, 4], [0, 15]])
    tags = [np.array([1, 2]), np.zeros(18, dtype=int)]
    path = as_variant(
        tmp_path, "vtu-ascii", points, [("line", lines), ("triangle", triangles)], cell_data={"gmsh:physical": tags}
    )
    with pytest.warns(UserWarning, match="1 named facets belong to no cell"):
        mesh = read_mesh(path)
    assert set(mesh.facets) == {"1"} and not mesh.regions


def test_unusable_meshes_are_refused_with_path_and_reason(tmp_path):
    points, triangles = grid()
    quad = np.array([[0, 4, 5, 1]])
    tilted = np.hstack([points, points[:, :1]])
    bad = points.copy()
    bad[5] = np.nan
    far = triangles.copy()
    far[0, 0] = 99
    flat = np.vstack([triangles, [[0, 1, 2]]])
    cube = np.array([[x, y, z] for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))], dtype=float)
    three = np.vstack([points, [[0.5, 0.51]]])
    cases = [
        (points, [("triangle", triangles), ("quad", quad)], "2 types, quad, triangle"),
        (cube, [("hexahedron", np.arange(8)[None])], "cells of type hexahedron"),
        (tilted, [("triangle", triangles)], "read_surface"),
        (bad, [("triangle", triangles)], "1 of 16 points are not finite"),
        (points, [("triangle", far)], r"must lie in 0\.\.15"),
        (points, [("triangle", flat)], "1 of 19 cells have no volume, the first is cell 18"),
        (points * 0, [("triangle", triangles)], "extent 0"),
        (points, [("triangle", triangles), ("line3", np.array([[0, 8, 4]]))], "boundary elements of type line3"),
        (three, [("triangle", np.vstack([triangles, [[5, 10, 16]]]))], "shared by more than two"),
        (points, [("quad", np.array([[0, 4, 5, 1], [0, 12, 5, 3]]))], "folded or not convex"),
    ]
    for p, blocks, reason in cases:
        path = as_variant(tmp_path, "vtu-ascii", p, blocks)
        with pytest.raises(MeshError, match=reason) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_mesh(path)
        assert str(caught.value).startswith(str(path))


def test_files_that_are_none(tmp_path, capfd):
    for name, content, reason in (
        ("missing.msh", None, "no such file"),
        ("empty.vtu", b"", "empty"),
        ("mesh.docx", b"x", "unknown kind of file '.docx'"),
        ("noise.msh", bytes(range(256)) * 9, "damaged"),
        ("noise.vtu", b"<VTKFile", "damaged"),
        ("noise.inp", b"\xff\xfe\x00", "damaged|no points"),
        ("noise.xdmf", b"<Xdmf/>", "damaged"),
        ("words.msh", b"$MeshFormat\nfour\n", "damaged"),
        ("surface.stl", b"solid\nendsolid\n", "unknown kind of file '.stl'"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(MeshError, match=reason):
            read_mesh(path)
    (tmp_path / "folder.msh").mkdir()
    with pytest.raises(MeshError, match="not a file"):
        read_mesh(tmp_path / "folder.msh")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "variant, before, after",
    [
        ("gmsh22-ascii", "$Nodes\n16\n", "$Nodes\n1000000000000\n"),
        ("gmsh22-ascii", "\n16 1.0", "\n2147483647 1.0"),
        ("gmsh22-ascii", "\n16 1.0", "\n1e9 1.0"),
        ("gmsh22-ascii", "$Elements\n18\n", "$Elements\n1000000000000\n"),
        ("gmsh41-ascii", "$Nodes\n1 16 ", "$Nodes\n1 1000000000 "),
        ("gmsh41-ascii", "$Nodes\n1 16 ", "$Nodes\n1000000000 16 "),
        ("gmsh41-ascii", "\n16\n", "\n2147483647\n"),
        ("gmsh41-ascii", "$Elements\n1 ", "$Elements\n1000000000 "),
    ],
)
def test_absurd_counts_are_refused_at_once(tmp_path, variant, before, after):
    points, triangles = grid()
    path = as_variant(tmp_path, variant, points, [("triangle", triangles)])
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    start = time.process_time()
    with pytest.raises(MeshError, match="cannot be right"):
        read_mesh(path)
    assert time.process_time() - start < 1.0


def test_references_and_generated_sets_are_not_followed_blindly(tmp_path):
    (tmp_path / "loop.inp").write_text("*INCLUDE, INPUT=loop.inp\n")
    with pytest.raises(MeshError, match="INCLUDE"):
        read_mesh(tmp_path / "loop.inp")
    (tmp_path / "set.inp").write_text("*NSET, NSET=a, GENERATE\n1, 2000000000, 1\n")
    with pytest.raises(MeshError, match="cannot be right"):
        read_mesh(tmp_path / "set.inp")
    item = '<DataItem DataType="Float" Dimensions="9 2" Format="Binary" Precision="8">/dev/zero</DataItem>'
    (tmp_path / "zero.xdmf").write_text(f'<Xdmf Version="3.0"><Domain><Grid>{item}</Grid></Domain></Xdmf>')
    with pytest.raises(MeshError, match="/dev/zero"):
        read_mesh(tmp_path / "zero.xdmf")


def test_quad8_tables(tmp_path):
    nodes = tmp_path / "nodes.csv"
    elements = tmp_path / "elements.csv"
    np.savetxt(nodes, reference_nodes("quad8"), delimiter=",")
    elements.write_text("1,4,1,2,3,4,5,6,7,8\n")
    mesh = read_quad8_csv(nodes, elements)
    assert measure.volumes(mesh) == pytest.approx([4.0]) and mesh.regions["4"].tolist() == [0]
    for text, reason in (
        ("1,4,1,2,3,4,5,6,7\n", "lines of 10 numbers"),
        ("1,4,1,2,3,4,5,6,7,9\n", r"0\.\.7"),
        ("1,4,1,2,3,4,5,6,7,1.5\n", "not a whole number"),
        ("1,4,1,2,3,4,5,6,7,x\n", "damaged"),
        ("", "lines of 10 numbers"),
    ):
        elements.write_text(text)
        with pytest.raises(MeshError, match=reason) as caught:
            read_quad8_csv(nodes, elements)
        assert str(elements) in str(caught.value)
    with pytest.raises(MeshError, match="no such file"):
        read_quad8_csv(tmp_path / "absent.csv", elements)


@pytest.mark.parametrize("binary", [False, True])
def test_surface(tmp_path, binary):
    points = np.vstack([np.zeros(3), np.eye(3)])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    path = write(tmp_path / "tetra.stl", points, [("triangle", faces)], file_format="stl", binary=binary)
    p, f = read_surface(path)
    assert p.shape == (4, 3) and f.shape == (4, 3)
    assert np.linalg.det(p[f]).sum() / 6 == pytest.approx(1 / 6)
    path.write_bytes(path.read_bytes()[:-70])
    with pytest.raises(MeshError, match="damaged"):
        read_surface(path)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one kind of damage."""
    raw = bytearray(content)
    place = int(rng.integers(len(raw)))
    kind = rng.integers(6)
    if kind == 0:
        for _ in range(int(rng.integers(1, 6))):
            raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
    elif kind == 1:
        del raw[place:]
    elif kind == 2:
        lines = bytes(raw).split(b"\n")
        del lines[rng.integers(len(lines))]
        return b"\n".join(lines)
    elif kind == 3:
        # One number of the text becomes another one, some of them absurd.
        words = bytes(raw).split(b" ")
        new = [b"0", b"-1", b"7", b"1000000000000", b"2147483647", b"99999999999999999999", b"nan", b"1e308", b"2"]
        words[rng.integers(len(words))] = new[rng.integers(len(new))]
        return b" ".join(words)
    elif kind == 4:
        raw[place : place + int(rng.integers(64))] = rng.bytes(int(rng.integers(1, 64)))
    else:
        other = int(rng.integers(len(raw)))
        raw[place : place + 8], raw[other : other + 8] = raw[other : other + 8], raw[place : place + 8]
    return bytes(raw)


def attempt(reader, path: Path) -> Mesh | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return reader(path)
        except MeshError as error:
            assert str(path.parent) in str(error)
            return None


@pytest.mark.parametrize("variant", VARIANTS)
def test_damaged_files_are_read_or_refused(tmp_path, variant, capfd):
    points, triangles = grid()
    lines = np.array([[0, 4], [4, 8], [3, 7]])
    blocks = [("triangle", triangles)]
    extra = {}
    if not variant.startswith(("gmsh41", "abaqus")):
        blocks = [("line", lines), *blocks]
        extra["cell_data"] = {"gmsh:physical": [np.array([7, 7, 2]), np.ones(18, dtype=int)]}
        extra["cell_data"]["gmsh:geometrical"] = extra["cell_data"]["gmsh:physical"]
        extra["field_data"] = {"floor": np.array([7, 1])}
    path = as_variant(tmp_path, variant, points, blocks, **extra)
    target = path.with_suffix(".h5") if variant == "xdmf-hdf" else path
    content = target.read_bytes()
    capfd.readouterr()  # what the writer said
    rng = np.random.default_rng(sum(variant.encode()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, good = time.process_time(), 0
    for _ in range(300):
        target.write_bytes(mutated(content, rng))
        one = time.process_time()
        mesh = attempt(read_mesh, path)
        assert time.process_time() - one < 2.0
        if mesh is not None:
            good += 1
            assert measure.validity(mesh)["inverted_cells"] == 0
            assert len(measure.unreferenced_points(mesh)) == 0
    assert good < 300, "no mutation was noticed: the damage does not reach the reader"
    assert time.process_time() - start < 15.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("binary", [False, True])
def test_damaged_surfaces_are_read_or_refused(tmp_path, binary):
    points = np.vstack([np.zeros(3), np.eye(3)])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    path = write(tmp_path / "tetra.stl", points, [("triangle", faces)], file_format="stl", binary=binary)
    content = path.read_bytes()
    rng = np.random.default_rng(5521)
    for _ in range(300):
        path.write_bytes(mutated(content, rng))
        surface = attempt(read_surface, path)
        if surface is not None:
            assert np.isfinite(surface[0]).all() and surface[1].max() < len(surface[0])

import numpy as np
import pytest

from pdelab.errors import MeshError, UnknownName
from pdelab.mesh import Mesh
from pdelab.meshes import measure
from pdelab.meshes.shape import reference_nodes, shape_functions, shape_gradients

EQUILATERAL = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
REGULAR_TETRA = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
KINDS = ("line", "triangle", "tetra", "quad", "triangle6", "quad8", "tetra10")


def quarter_disc() -> Mesh:
    """One triangle6 with a curved side: corners on the axes and at the origin, mid node on the unit circle."""
    s = np.sqrt(0.5)
    points = [[0, 0], [1, 0], [0, 1], [0.5, 0], [s, s], [0, 0.5]]
    return Mesh(np.array(points), [range(6)], "triangle6", {"arc": [[1, 2, 4]], "axis": [[0, 1, 3]]})


@pytest.mark.parametrize("kind", KINDS)
def test_shape_functions_are_nodal_and_their_gradients_match_differences(kind):
    nodes = reference_nodes(kind)
    assert shape_functions(kind, nodes) == pytest.approx(np.eye(len(nodes)), abs=1e-14)
    at = np.random.default_rng(48109).random((5, nodes.shape[1])) * 0.4
    assert shape_functions(kind, at).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-14)
    for axis, gradient in enumerate(shape_gradients(kind, at)):
        step = 1e-5 * np.eye(nodes.shape[1])[axis]
        difference = (shape_functions(kind, at + step) - shape_functions(kind, at - step)) / 2e-5
        assert gradient == pytest.approx(difference, abs=1e-9)


def test_equilateral_shapes_score_one():
    triangle = Mesh(3.0 * EQUILATERAL, [[0, 1, 2]])
    tetra = Mesh(REGULAR_TETRA, [[0, 1, 2, 3]], "tetra")
    quad = Mesh([[0, 0], [2, 0], [2, 2], [0, 2]], [[0, 1, 2, 3]], "quad")
    for mesh in (triangle, tetra, quad):
        assert np.abs(measure.quality(mesh)) == pytest.approx([1.0], rel=1e-14)
        assert measure.aspect(mesh) == pytest.approx([1.0], rel=1e-14)
    assert measure.smallest_angle(triangle) == pytest.approx([np.pi / 3])
    assert measure.smallest_angle(tetra) == pytest.approx([np.arccos(1 / 3)])
    assert measure.smallest_angle(quad) == pytest.approx([np.pi / 2])


def test_quality_does_not_depend_on_size_and_changes_sign_when_turned():
    cells = np.array([[0, 1, 2]])
    right = [[0, 0], [4, 0], [0, 3]]
    expected = 4 * np.sqrt(3) * 6 / (16 + 9 + 25)
    assert measure.quality(Mesh(right, cells)) == pytest.approx([expected])
    assert measure.quality(Mesh(1e-9 * np.array(right), cells)) == pytest.approx([expected])
    assert measure.quality(Mesh(right, cells[:, ::-1])) == pytest.approx([-expected])
    assert measure.aspect(Mesh(right, cells)) == pytest.approx([5 * 12 / (4 * np.sqrt(3) * 6)])
    assert measure.smallest_angle(Mesh(right, cells)) == pytest.approx([np.arctan(3 / 4)])


def test_straight_second_order_triangle_is_judged_like_its_corners():
    corners = np.array([[0, 0], [4, 0], [0, 3.0]])
    points = np.vstack([corners, 0.5 * (corners + np.roll(corners, -1, axis=0))])
    mesh, flat = Mesh(points, [range(6)], "triangle6"), Mesh(corners, [[0, 1, 2]])
    for function in (measure.quality, measure.aspect, measure.smallest_angle, measure.volumes):
        assert function(mesh) == pytest.approx(function(flat), rel=1e-13)


def test_curved_volume_and_arc_match_their_integrals():
    mesh = quarter_disc()
    # The side is the parabola through three points: area of the triangle plus 2/3 chord times sagitta.
    chord, sagitta = np.sqrt(2.0), 1.0 - np.sqrt(0.5)
    assert measure.volumes(mesh) == pytest.approx([0.5 + 2 / 3 * chord * sagitta], rel=1e-13)
    c = 4 * sagitta / chord**2  # y = c x^2 around its top, |x| <= chord / 2
    half = 2 * c * chord / 2
    arc = (half * np.sqrt(1 + half**2) + np.arcsinh(half)) / (2 * c)
    assert measure.boundary_measure(mesh, "arc") == pytest.approx(arc, rel=1e-7)
    assert measure.boundary_measure(mesh) == pytest.approx(arc + 2.0, rel=1e-7)
    assert 0.1 < measure.quality(mesh)[0] < 1.0


def test_folded_second_order_cell_is_found_although_its_corners_are_fine():
    mesh = quarter_disc()
    points = mesh.points.copy()
    points[4] = [0.1, 0.1]
    folded = Mesh(points, mesh.cells, "triangle6")
    assert folded.volumes()[0] > 0
    report = measure.validity(folded)
    assert report["min_jacobian"] < 0 and report["inverted_cells"] == 1
    assert measure.quality(folded)[0] < 0
    assert measure.validity(mesh)["inverted_cells"] == 0


def test_concave_quad_is_invalid():
    mesh = Mesh([[0, 0], [1, 0], [0.2, 0.2], [0, 1]], [[0, 1, 2, 3]], "quad")
    assert mesh.volumes()[0] > 0
    assert measure.validity(mesh)["inverted_cells"] == 1
    assert measure.quality(mesh)[0] < 0


def test_jacobian_of_simplices_is_factorial_times_volume():
    tetra = Mesh(REGULAR_TETRA * [1, 2, 3], [[0, 1, 2, 3]], "tetra")
    assert measure.min_jacobian(tetra) == pytest.approx(6 * tetra.volumes(), rel=1e-14)
    line = Mesh([[0.0], [2.5]], [[0, 1]], "line")
    assert measure.min_jacobian(line) == pytest.approx([2.5])
    assert measure.boundary_measure(line) == 2.0


def test_quad8_with_straight_sides_has_the_area_of_its_corners():
    corners = np.array([[0, 0], [2, 0.3], [1.7, 1.5], [-0.2, 1.1]])
    points = np.vstack([corners, 0.5 * (corners + np.roll(corners, -1, axis=0))])
    mesh = Mesh(points, [range(8)], "quad8")
    assert measure.volumes(mesh) == pytest.approx(mesh.volumes(), rel=1e-13)


def test_defects_of_the_numbering():
    points = [[0, 0], [1, 0], [0, 1], [1, 1], [9, 9]]
    mesh = Mesh(points, [[0, 1, 2], [1, 3, 2], [2, 0, 1]])
    assert measure.unreferenced_points(mesh).tolist() == [4]
    assert measure.duplicate_cells(mesh.cells).tolist() == [2]
    assert measure.overlapping_facets(mesh) == 1
    assert measure.overlapping_facets(Mesh(points, mesh.cells[:2])) == 0


def test_refusals():
    with pytest.raises(UnknownName, match="arc"):
        measure.boundary_measure(quarter_disc(), "arch")
    with pytest.raises(MeshError, match="no angles"):
        measure.smallest_angle(Mesh([[0.0], [1.0]], [[0, 1]], "line"))

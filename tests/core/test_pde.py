import numpy as np
import pytest

from pdelab.errors import InputError, SettingsError, ShapeError
from pdelab.pde import Observations

POINTS, VALUES = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]), np.array([1.0, 2.0, 3.0])


def test_sound_data_are_taken_as_they_are():
    data = Observations("u", POINTS, VALUES, noise=0.1)
    assert data.points is POINTS and data.values is VALUES


@pytest.mark.parametrize(
    "points, values, noise, error, message",
    [
        (POINTS, VALUES[:, None], 0.0, ShapeError, r"values: expected shape \(3\), got \(3, 1\); squeeze"),
        (POINTS, VALUES[:2], 0.0, ShapeError, r"values: expected shape \(3\), got \(2,\)"),
        (POINTS[0], VALUES, 0.0, ShapeError, r"'u', points: expected shape \(any, any\)"),
        (POINTS, np.array([1.0, np.nan, 3.0]), 0.0, InputError, "1 of 3 points or values.*number 1; leave them out"),
        (np.array([[0.1, np.inf]]), VALUES[:1], 0.0, InputError, "1 of 1 points or values are not finite"),
        (POINTS[:0], VALUES[:0], 0.0, InputError, "at least one point"),
        (POINTS, VALUES, -0.1, SettingsError, "noise: expected a number >= 0"),
    ],
)
def test_data_that_cannot_be_used_are_refused_at_once(points, values, noise, error, message):
    with pytest.raises(error, match=message):
        Observations("u", points, values, noise)

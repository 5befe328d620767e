from typing import Any

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.report.latent_grid import grid_points, interpolate


def test_grid_runs_row_by_row_from_the_top_left() -> None:
    grid = grid_points(4, bounds=(-3.0, 3.0))
    expected = [(x, y) for y in (3, 1, -1, -3) for x in (-3, -1, 1, 3)]
    assert grid.z.dtype == np.float32
    assert grid.z.tolist() == [list(point) for point in expected]
    assert grid.x.tolist() == [-3, -1, 1, 3]
    assert grid.y.tolist() == [3, 1, -1, -3]


def test_grid_of_the_keras_tutorial() -> None:
    grid = grid_points(bounds=(-1.0, 1.0))
    assert grid.z.shape == (900, 2)
    assert grid.z[0].tolist() == [-1, 1]
    assert grid.z[29].tolist() == [1, 1]
    assert grid.z[-1].tolist() == [1, -1]
    np.testing.assert_allclose(np.diff(grid.x), 2 / 29, rtol=1e-5)


def test_coordinates_are_standard_normal_quantiles() -> None:
    # From a table of the inverse CDF at 0.1, 0.3, 0.5, 0.7, 0.9.
    table = [-1.2815516, -0.5244005, 0.0, 0.5244005, 1.2815516]
    grid = grid_points(5)
    np.testing.assert_allclose(grid.x, table, atol=1e-6)
    np.testing.assert_allclose(grid.y, table[::-1], atol=1e-6)


@pytest.mark.parametrize("n", [2, 7, 30])
def test_quantiles_are_symmetric_and_increase(n: int) -> None:
    x = grid_points(n).x
    np.testing.assert_allclose(x, -x[::-1], atol=1e-6)
    assert (np.diff(x) > 0).all()


def test_other_dimensions_are_fixed_at_the_center() -> None:
    grid = grid_points(3, bounds=(-1.0, 1.0), latent_dim=5, dims=(3, 1), center=[9.0, 8.0, 7.0, 6.0, 5.0])
    np.testing.assert_array_equal(grid.z[:, [0, 2, 4]], np.tile([9.0, 7.0, 5.0], (9, 1)))
    np.testing.assert_array_equal(grid.z[:, 3], [-1, 0, 1] * 3)
    np.testing.assert_array_equal(grid.z[:, 1], [1, 1, 1, 0, 0, 0, -1, -1, -1])
    assert not grid_points(3, latent_dim=5, dims=(3, 1)).z[:, [0, 2, 4]].any()


@pytest.mark.parametrize(("arguments", "middle"), [({"bounds": (1.0, 4.0)}, 2.5), ({}, 0.0)])
def test_single_point_is_the_midpoint(arguments: dict[str, Any], middle: float) -> None:
    grid = grid_points(1, **arguments)
    assert grid.z.tolist() == [[middle, middle]]


def test_one_latent_dimension_gives_one_row() -> None:
    grid = grid_points(3, latent_dim=1, bounds=(-2.0, 2.0))
    assert grid.z.tolist() == [[-2], [0], [2]]
    assert grid.x.tolist() == [-2, 0, 2]
    assert grid.y.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n = 0"),
        ({"latent_dim": 0}, "latent_dim = 0"),
        ({"bounds": (1.0, 1.0)}, r"bounds = \(1, 1\)"),
        ({"bounds": (2.0, -2.0)}, r"bounds = \(2, -2\)"),
        ({"bounds": (0.0, float("inf"))}, r"bounds = \(0, inf\)"),
        ({"bounds": (float("nan"), 1.0)}, r"bounds = \(nan, 1\)"),
        ({"dims": (0, 2)}, r"dims = \(0, 2\): not a plane; pass two different dimensions from 0 to 1"),
        ({"dims": (-1, 0)}, r"dims = \(-1, 0\)"),
        ({"dims": (1, 1)}, r"dims = \(1, 1\)"),
        ({"latent_dim": 1, "dims": (2, 3)}, r"dims = \(2, 3\)"),
        ({"center": [0.0]}, r"center.shape = \(1,\): invalid; pass 2 finite numbers"),
        ({"center": [0.0, float("nan")]}, "pass 2 finite numbers"),
    ],
)
def test_invalid_arguments_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid_points(**arguments)


def test_spherical_interpolation_keeps_the_distance_from_its_origin() -> None:
    origin = np.array([10.0, -20.0, 5.0])
    start, end = origin + np.array([3.0, 0.0, 0.0]), origin + np.array([0.0, 0.0, 3.0])
    path = interpolate(start, end, 7, spherical=True, origin=origin)
    np.testing.assert_allclose(np.linalg.norm(path - origin, axis=1), 3, rtol=1e-5)
    np.testing.assert_allclose(path[3], origin + 3 * np.sqrt(0.5) * np.array([1, 0, 1]), rtol=1e-5)
    np.testing.assert_allclose(path[[0, -1]], [start, end], rtol=1e-6)
    # A straight line does not depend on the origin.
    np.testing.assert_array_equal(interpolate(start, end, 7, origin=origin), interpolate(start, end, 7))

from typing import Any

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.core.latent_grid import grid_points


def test_the_page_runs_from_the_top_left_as_a_loop_would_draw_it() -> None:
    grid = grid_points(4, bounds=(-3.0, 3.0))
    expected = [(x, y) for y in (3, 1, -1, -3) for x in (-3, -1, 1, 3)]
    assert grid.z.dtype == np.float32
    assert grid.z.tolist() == [list(point) for point in expected]
    assert grid.x.tolist() == [-3, -1, 1, 3]
    assert grid.y.tolist() == [3, 1, -1, -3]


def test_the_tutorials_page() -> None:
    grid = grid_points(bounds=(-1.0, 1.0))
    assert grid.z.shape == (900, 2)
    assert grid.z[0].tolist() == [-1, 1]
    assert grid.z[29].tolist() == [1, 1]
    assert grid.z[-1].tolist() == [1, -1]
    np.testing.assert_allclose(np.diff(grid.x), 2 / 29, rtol=1e-5)


def test_quantiles_are_those_of_the_standard_normal() -> None:
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


def test_the_other_dimensions_stay_at_the_center() -> None:
    grid = grid_points(3, bounds=(-1.0, 1.0), latent_dim=5, dims=(3, 1), center=[9.0, 8.0, 7.0, 6.0, 5.0])
    np.testing.assert_array_equal(grid.z[:, [0, 2, 4]], np.tile([9.0, 7.0, 5.0], (9, 1)))
    np.testing.assert_array_equal(grid.z[:, 3], [-1, 0, 1] * 3)
    np.testing.assert_array_equal(grid.z[:, 1], [1, 1, 1, 0, 0, 0, -1, -1, -1])
    assert not grid_points(3, latent_dim=5, dims=(3, 1)).z[:, [0, 2, 4]].any()


@pytest.mark.parametrize(("arguments", "middle"), [({"bounds": (1.0, 4.0)}, 2.5), ({}, 0.0)])
def test_one_point_is_the_middle(arguments: dict[str, Any], middle: float) -> None:
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
        ({"n": 0}, "n is 0"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"bounds": (1.0, 1.0)}, "bounds are 1, 1"),
        ({"bounds": (2.0, -2.0)}, "bounds are 2, -2"),
        ({"bounds": (0.0, float("inf"))}, "bounds are 0, inf"),
        ({"bounds": (float("nan"), 1.0)}, "bounds are nan, 1"),
        ({"dims": (0, 2)}, "dims are 0, 2: pass two different dimensions from 0 to 1"),
        ({"dims": (-1, 0)}, "dims are -1, 0"),
        ({"dims": (1, 1)}, "dims are 1, 1"),
        ({"latent_dim": 1, "dims": (2, 3)}, "dims are 2, 3"),
        ({"center": [0.0]}, r"center has shape \(1,\): pass 2 finite numbers"),
        ({"center": [0.0, float("nan")]}, "pass 2 finite numbers"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid_points(**arguments)

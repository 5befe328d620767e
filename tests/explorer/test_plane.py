"""Planes through a latent space, and views of them."""

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.explorer.plane import View, coordinate_plane, fit_view, principal_plane
from keras_vae.report.latent_grid import grid_points


def test_codes_of_points_project_back_to_the_points() -> None:
    rng = np.random.default_rng(0)
    for plane in (
        coordinate_plane(np.arange(5), (3, 1)),
        principal_plane(rng.normal(size=(50, 5)) * [1, 2, 3, 4, 5] + 7),
    ):
        points = rng.normal(size=(20, 2))
        np.testing.assert_allclose(plane.points(plane.codes(points)), points, atol=1e-4)


def test_a_coordinate_plane_holds_the_other_dimensions_at_the_center() -> None:
    code = coordinate_plane([9.0, 0.0, 9.0, 0.5], (2, 0)).codes([[5.0, 7.0]])[0]
    assert code.tolist() == [7.0, 0.0, 5.0, 0.5]


def test_principal_directions_are_eigenvectors_of_the_covariance() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3))
    values, vectors = np.linalg.eigh(np.cov(codes.T))
    plane = principal_plane(codes)
    # The sign of a direction is arbitrary.
    np.testing.assert_allclose(np.abs(plane.basis @ vectors[:, [2, 1]]), np.eye(2), atol=1e-4)
    np.testing.assert_allclose(plane.points(codes).var(axis=0, ddof=1), values[[2, 1]], rtol=1e-4)
    assert (plane.basis.max(axis=1) >= np.abs(plane.basis).max(axis=1)).all()


def test_equal_dimensions_are_rejected() -> None:
    with pytest.raises(InputError, match=r"dims = \(1, 1\)"):
        coordinate_plane(np.zeros(3), (1, 1))


def test_a_region_is_the_smallest_square_around_a_box() -> None:
    assert View.around(-1.0, 0.0, 1.0, 1.0) == View(0.0, 0.5, 1.0)
    # Drawn from any corner.
    assert View.around(1.0, 1.0, -1.0, 0.0) == View(0.0, 0.5, 1.0)
    # A point, and a region that is too large.
    assert View.around(2.0, 3.0, 2.0, 3.0).half > 0
    assert View.around(-1e30, 0.0, 1e30, 0.0).half == 500


def test_zooming_in_stops_before_points_coincide() -> None:
    view = View(0.0, 0.0, 3.0)
    for _ in range(100):
        view = view.zoom(0.5, (1.0, 1.0))
    assert (view.u, view.v) == (1.0, 1.0)
    assert view.half > 0
    centers = view.cell_centers(4)
    assert np.isfinite(centers).all()
    assert len(np.unique(centers[:, 0])) == 4


def test_cell_centers_lie_half_a_cell_inside_the_view() -> None:
    # The side of a cell is 0.5, so that the first and the last center lie 0.25 from the edges.
    centers = View(10.0, 0.0, 1.0).cell_centers(4)
    assert centers[0].tolist() == [9.25, 0.75]
    assert centers[-1].tolist() == [10.75, -0.75]
    shift = np.array([10, 0])
    np.testing.assert_allclose(centers, grid_points(4, bounds=(-0.75, 0.75)).z + shift)


def test_the_fitted_view_shows_nearly_all_points_and_nothing_far_from_them() -> None:
    points = np.random.default_rng(0).normal(size=(1000, 2)) * 2
    for middle in ([0.0, 0.0], [30.0, -7.0]):
        view = fit_view(points + middle)
        inside = np.abs(points + middle - [view.u, view.v]).max(axis=1) <= view.half
        assert inside.mean() > 0.97
        # The 1 % and 99 % quantiles of N(0, 4) are ±4.65.
        assert view.half == pytest.approx(4.65 * 1.1, rel=0.1)
        assert view.center == pytest.approx(middle, abs=0.6)
    assert fit_view(np.zeros((5, 2))).half > 0

"""Planes and views: where codes fall, and what is looked at."""

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.explorer.plane import View, around, coordinate_plane, principal_plane
from keras_vae.report.latent_grid import grid_points


def test_points_of_a_plane_come_back_from_their_codes() -> None:
    rng = np.random.default_rng(0)
    for plane in (
        coordinate_plane(np.arange(5), (3, 1)),
        principal_plane(rng.normal(size=(50, 5)) * [1, 2, 3, 4, 5] + 7),
    ):
        points = rng.normal(size=(20, 2))
        np.testing.assert_allclose(plane.points(plane.codes(points)), points, atol=1e-4)


def test_a_coordinate_plane_holds_the_others_where_the_middle_is() -> None:
    code = coordinate_plane([9.0, 0.0, 9.0, 0.5], (2, 0)).codes([[5.0, 7.0]])[0]
    assert code.tolist() == [7.0, 0.0, 5.0, 0.5]


def test_principal_directions_are_those_of_the_covariance() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3))
    values, vectors = np.linalg.eigh(np.cov(codes.T))
    plane = principal_plane(codes)
    # A direction and its opposite are the same.
    np.testing.assert_allclose(np.abs(plane.basis @ vectors[:, [2, 1]]), np.eye(2), atol=1e-4)
    np.testing.assert_allclose(plane.points(codes).var(axis=0, ddof=1), values[[2, 1]], rtol=1e-4)
    assert (plane.basis.max(axis=1) >= np.abs(plane.basis).max(axis=1)).all()


def test_refuses_what_spans_no_plane() -> None:
    with pytest.raises(InputError, match=r"dims = \(1, 1\)"):
        coordinate_plane(np.zeros(3), (1, 1))


def test_a_view_runs_from_its_lower_left_to_its_upper_right() -> None:
    view = View(1.0, 2.0, 0.5)
    assert view.at(0, 0) == (0.5, 1.5)
    assert view.at(1, 1) == (1.5, 2.5)


def test_a_region_is_the_square_about_its_box() -> None:
    assert View(0, 0, 2).region(0.25, 0.5, 0.75, 0.75) == View(0.0, 0.5, 1.0)
    # Drawn from any corner.
    assert View(0, 0, 2).region(0.75, 0.75, 0.25, 0.5) == View(0.0, 0.5, 1.0)


def test_zooming_ends_before_numbers_do() -> None:
    view = View()
    for _ in range(100):
        view = view.zoomed(0.5, (1.0, 1.0))
    assert (view.u, view.v) == (1.0, 1.0)
    assert view.half > 0
    lattice = view.lattice(4)
    assert np.isfinite(lattice).all()
    assert len(np.unique(lattice[:, 0])) == 4


def test_cells_of_a_lattice_are_centred_on_their_codes() -> None:
    # Cells of a half, so that the first and last lie a quarter from the edges.
    lattice = View(10.0, 0.0, 1.0).lattice(4)
    assert lattice[0].tolist() == [9.25, 0.75]
    assert lattice[-1].tolist() == [10.75, -0.75]
    shift = np.array([10, 0])
    np.testing.assert_allclose(lattice, grid_points(4, bounds=(-0.75, 0.75)).z + shift)


def test_the_first_view_shows_nearly_all_points_and_never_less_than_the_prior() -> None:
    assert around(np.zeros((5, 2))).half == 2.5
    assert around(np.zeros((0, 2))).half == 3.0
    points = np.random.default_rng(0).normal(size=(1000, 2)) * 2
    for middle in ([0.0, 0.0], [30.0, -7.0]):
        view = around(points + middle)
        inside = np.abs(points + middle - [view.u, view.v]).max(axis=1) <= view.half
        assert inside.mean() > 0.97

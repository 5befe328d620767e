"""Scatter plots and histograms of latent codes."""

from typing import Any

import matplotlib
import numpy as np
import pytest
from figure_helpers import axes_of

from keras_vae.core.errors import InputError
from keras_vae.report import figures
from keras_vae.report.figures.scatter import SHARES, plane_density


def test_points_are_colored_by_label_and_circles_have_the_radii_of_the_prior() -> None:
    rng = np.random.default_rng(0)
    means, numbers = rng.normal(size=(200, 5)), rng.integers(0, 3, 200)
    figure = figures.latents(means, numbers, ["a", "b", "c"], dims=(3, 1))
    axes = axes_of(figure)[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[3]", "z[1]")
    (points,) = axes.collections
    shown = {
        tuple(place): number for place, number in zip(np.asarray(points.get_offsets()), points.get_array(), strict=True)
    }
    assert shown == {(mean[3], mean[1]): number for mean, number in zip(means, numbers, strict=True)}
    points.update_scalarmappable()
    colors = {matplotlib.colors.to_hex(color) for color in points.get_facecolors()}
    assert colors == set(figures.PALETTE[:3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert [patch.get_radius() for patch in axes.patches] == [1, 2]


def test_short_labels_are_written_at_the_median_of_their_points() -> None:
    means = np.array([[0.0, 1.0], [2.0, 3.0], [1.0, 8.0], [-5.0, -5.0]])
    axes = axes_of(figures.latents(means, np.array([0, 0, 0, 1])))[0]
    assert {text.get_text(): text.get_position() for text in axes.texts if text.get_text() in "01"} == {
        "0": (1, 3),
        "1": (-5, -5),
    }
    named = figures.latents(means, np.array([0, 0, 0, 1]), ["Trouser", "Bag"])
    assert {text.get_text() for text in named.axes[0].texts} == {"1σ", "2σ"}


def test_overlapping_labels_are_moved_apart() -> None:
    means = np.array([[0.0, 0.0], [0.0, 0.0], [10.0, 0.0]])
    places = {text.get_text(): text.get_position() for text in axes_of(figures.latents(means, np.arange(3)))[0].texts}
    # Their distance is 4.5 % of the extent of the points.
    assert abs(places["0"][0] - places["1"][0]) == pytest.approx(0.45)
    assert places["2"] == (10, 0)


def test_many_classes_get_a_color_bar() -> None:
    numbers = np.arange(11).repeat(2)
    figure = figures.latents(np.random.default_rng(0).normal(size=(22, 2)), numbers, [f"class {i}" for i in range(11)])
    assert figure.legends == []
    _, bar = axes_of(figure)
    assert [text.get_text() for text in bar.get_yticklabels()] == [f"class {i}" for i in range(11)]


def test_sparse_labels_become_classes_named_by_their_values() -> None:
    means = np.random.default_rng(0).normal(size=(6, 2))
    dates = np.array([20_240_101, 19_991_231, 20_240_101, 7, 7, 7], np.uint64)
    figure = figures.latents(means, dates)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["7", "19991231", "20240101"]
    (points,) = axes_of(figure)[0].collections
    shown = {tuple(place): rank for place, rank in zip(points.get_offsets().tolist(), points.get_array(), strict=True)}
    assert shown == dict(zip(map(tuple, means.tolist()), [2, 1, 2, 0, 0, 0], strict=True))
    assert len(axes_of(figures.latents(means[:, :1], dates))[0].patches) == 2 * 3


def test_many_sparse_labels_get_a_color_bar_of_their_ranks() -> None:
    numbers = np.arange(40) ** 2 * 10**15
    figure = figures.latents(np.random.default_rng(0).normal(size=(40, 2)), numbers[::-1])
    scatter, bar = axes_of(figure)
    (points,) = scatter.collections
    assert sorted(points.get_array()) == list(range(40))
    assert bar.get_ylim() == (-0.5, 39.5)
    ticks = {float(place): text.get_text() for place, text in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True)}
    assert len(ticks) == 20
    assert ticks == {float(rank): str(numbers[rank]) for rank in range(0, 40, 2)}


def test_unlabeled_points_have_one_color_and_no_legend() -> None:
    figure = figures.latents(np.zeros((4, 2)))
    assert len(figure.axes) == 1
    assert figure.legends == []
    assert len(axes_of(figure)[0].collections[0].get_facecolors()) == 1


def test_one_latent_dimension_gives_one_normalized_histogram_per_class() -> None:
    rng = np.random.default_rng(0)
    means, numbers = rng.normal(2.0, 3.0, (400, 1)), rng.integers(0, 2, 400)
    for labels_, count in ((numbers, 2), (None, 1)):
        axes = axes_of(figures.latents(means, labels_))[0]
        assert axes.get_xlabel() == "z[0]"
        areas = [polygon_area(patch.get_path().vertices) for patch in axes.patches if patch.get_fill()]
        assert sum(areas) == pytest.approx(count)
        (prior,) = axes.lines
        assert np.trapezoid(prior.get_ydata(), prior.get_xdata()) == pytest.approx(1, abs=1e-2)


def outlines(figure: Any) -> list[np.ndarray]:
    """Return the points of each contour."""
    return [
        np.concatenate([path.vertices for path in lines.get_paths()]) for lines in axes_of(figure)[0].collections[1:]
    ]


def test_contours_of_a_normal_prior_are_ellipses_at_one_and_two_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    mean, std = np.array([10.0, 99.0, -4.0]), np.array([2.0, 1.0, 0.5])
    prior = rng.normal(size=(40_000, 3)) * std + mean
    figure = figures.latents(rng.normal(size=(50, 3)), dims=(0, 2), prior=prior)
    for sigma, outline in zip((1, 2), outlines(figure), strict=True):
        radii = np.linalg.norm((outline - mean[[0, 2]]) / std[[0, 2]], axis=1)
        assert radii.mean() == pytest.approx(sigma, rel=0.03)
        assert radii.std() < 0.08 * sigma
    assert not axes_of(figure)[0].patches
    assert {text.get_text() for text in axes_of(figure)[0].texts} == {"39%", "86%"}
    # The axes show the prior and the codes.
    assert axes_of(figure)[0].get_xlim()[1] > 13
    assert axes_of(figure)[0].get_xlim()[0] < -2


def test_contours_of_a_mixture_contain_their_shares_of_it() -> None:
    rng = np.random.default_rng(1)
    weights, means, std = np.array([0.7, 0.3]), np.array([[-6.0, 0.0], [6.0, 3.0]]), 1.5
    chosen = rng.choice(2, 60_000, p=weights)
    density = plane_density(means[chosen] + std * rng.normal(size=(60_000, 2)))

    def exact(points: np.ndarray) -> np.ndarray:
        squares = np.square(points[:, None] - means).sum(axis=2) / std**2
        return np.exp(-squares / 2) @ weights / (2 * np.pi * std**2)

    points = np.stack(np.meshgrid(density.x, density.y), axis=-1).reshape(-1, 2)
    expected = exact(points).reshape(density.values.shape)
    assert np.abs(density.values - expected).max() < 0.08 * expected.max()
    own = exact(means[chosen] + std * rng.normal(size=(60_000, 2)))
    for share in SHARES:
        # The density that a share of independent samples exceeds.
        assert density.level(share) == pytest.approx(np.quantile(own, 1 - share), rel=0.08)


@pytest.mark.parametrize("prior", [None, np.random.default_rng(3).normal(size=(5000, 2))])
def test_a_few_outliers_do_not_shrink_the_other_points_to_a_spot(prior: Any) -> None:
    points = np.random.default_rng(0).normal(size=(500, 2))
    plain = axes_of(figures.latents(points, prior=prior))[0]
    points[:2] = [[300.0, -200.0], [0.0, 5000.0]]
    axes = axes_of(figures.latents(points, prior=prior))[0]
    np.testing.assert_allclose([*axes.get_xlim(), *axes.get_ylim()], [*plain.get_xlim(), *plain.get_ylim()], atol=0.6)
    assert "2 of 500 points lie outside" in {text.get_text() for text in axes.texts}
    assert not [text for text in plain.texts if "outside" in text.get_text()]


def test_a_prior_with_heavy_tails_does_not_shrink_the_points_to_a_spot() -> None:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(500, 2))
    prior = rng.standard_t(1.5, (20_000, 2))
    axes = axes_of(figures.latents(points, prior=prior))[0]
    plain = axes_of(figures.latents(points, prior=rng.normal(size=(20_000, 2))))[0]
    assert np.ptp(axes.get_xlim()) < 3 * np.ptp(plain.get_xlim())


def test_the_prior_of_a_histogram_is_that_of_its_samples() -> None:
    rng = np.random.default_rng(2)
    prior = rng.normal(12.0, 3.0, (40_000, 1))
    axes = axes_of(figures.latents(rng.normal(size=(300, 1)), prior=prior))[0]
    (line,) = axes.lines
    z, density = line.get_data()
    exact = np.exp(-np.square((z - 12) / 3) / 2) / (3 * np.sqrt(2 * np.pi))
    assert np.abs(density - exact).max() < 0.06 * exact.max()
    assert axes.get_xlim()[1] > 18


def polygon_area(vertices: np.ndarray) -> float:
    x, y = vertices[:, 0], vertices[:, 1]
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z_mean": np.zeros(3)}, r"z_mean.shape = \(3,\)"),
        ({"z_mean": np.zeros((0, 2))}, r"z_mean.shape = \(0, 2\)"),
        ({"z_mean": np.array([[0.0, np.nan], [1.0, 1.0]])}, "not finite for 1 of 2 images"),
        ({"z_mean": np.zeros((3, 2)), "labels": np.zeros(2, int)}, "pass 3 class numbers"),
        ({"z_mean": np.zeros((3, 2)), "labels": np.zeros(3)}, "labels = float64"),
        ({"z_mean": np.zeros((2, 2)), "labels": np.array([0, -1])}, "labels = -1"),
        ({"z_mean": np.zeros((2, 2)), "labels": np.array([0, 2]), "classes": ["a", "b"]}, "labels go up to 2"),
        ({"z_mean": np.zeros((2, 3)), "dims": (0, 3)}, r"dims = \(0, 3\)"),
        ({"z_mean": np.zeros((2, 3)), "dims": (1, 1)}, r"dims = \(1, 1\)"),
    ],
)
def test_invalid_latents_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.latents(**arguments)

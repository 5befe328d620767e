import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.report import figures
from keras_vae.report.latent_grid import grid_points


def images(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def axes_of(figure: Figure) -> list[Any]:
    """Return the axes, whose getters Matplotlib types too widely to be read from."""
    return list(figure.axes)


def page_of(figure: Figure, path: Path) -> tuple[np.ndarray, int]:
    """Return the pixels inside the first axes of a saved figure, and how many of them an image pixel covers."""
    picture = np.asarray(Image.open(figures.save(figure, path)).convert("RGB"))
    axes = axes_of(figure)[0]
    box = axes.get_window_extent()
    left, top = round(box.x0), round(picture.shape[0] - box.y1)
    wide, high = round(box.width), round(box.height)
    assert box.width == pytest.approx(wide, abs=0.02)
    scale, rest = divmod(wide, round(axes.get_xlim()[1]))
    assert rest == 0
    return picture[top : top + high, left : left + wide], scale


# contact_sheet


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_every_tile_is_at_its_place_and_the_rest_is_fill(channels: int, pad: int) -> None:
    tiles = images(7, 3, 5, channels)
    sheet = figures.contact_sheet(tiles, columns=4, pad=pad, fill=77)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 3 + pad, 4 * 5 + 3 * pad) + ((3,) if channels == 3 else ())
    rest = np.ones(sheet.shape, bool)
    for index, tile in enumerate(tiles):
        y, x = (index // 4) * (3 + pad), (index % 4) * (5 + pad)
        place = slice(y, y + 3), slice(x, x + 5)
        np.testing.assert_array_equal(sheet[place].reshape(3, 5, channels), tile)
        rest[place] = False
    assert rest.any()
    assert (sheet[rest] == 77).all()


def test_floats_become_the_nearest_level() -> None:
    tile = np.array([0.0, 0.25, 0.5, 1.0], np.float32).reshape(1, 1, 4, 1)
    assert figures.contact_sheet(tile).tolist() == [[0, 64, 128, 255]]
    assert figures.contact_sheet(tile.astype(np.float64)).tolist() == [[0, 64, 128, 255]]


def test_the_mixed_precision_of_a_decoder_is_accepted() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert figures.contact_sheet(np.ones((1, 1, 1, 1), ml_dtypes.bfloat16)).tolist() == [[255]]


@pytest.mark.parametrize(
    ("count", "height", "width", "rows", "columns"),
    [(64, 28, 28, 8, 8), (1, 9, 9, 1, 1), (8, 10, 20, 4, 2), (3, 99, 1, 1, 3)],
)
def test_a_page_is_about_square_by_default(count: int, height: int, width: int, rows: int, columns: int) -> None:
    assert figures.contact_sheet(images(count, height, width, 1), pad=0).shape == (rows * height, columns * width)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 4, 4)), r"images has shape \(2, 4, 4\)"),
        (np.zeros((0, 4, 4, 1)), r"images has shape \(0, 4, 4, 1\)"),
        (np.zeros((2, 4, 4, 2)), "1 or 3 channels"),
        (np.full((1, 4, 4, 1), 1.01), "from 1.01 to 1.01"),
        (np.full((1, 4, 4, 1), -0.5), "from -0.5"),
        (np.full((1, 4, 4, 1), np.nan), "nan"),
        (np.zeros((1, 4, 4, 1), np.int64), "dtype int64"),
    ],
)
def test_what_is_no_image_is_refused(wrong: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.contact_sheet(wrong)


@pytest.mark.parametrize(("name", "value"), [("columns", 0), ("pad", -1), ("fill", 256), ("fill", -1)])
def test_a_sheet_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        figures.contact_sheet(images(2, 4, 4, 1), **{name: value})


# Pages of images


@pytest.mark.parametrize(
    ("height", "width", "channels", "title"), [(28, 28, 1, None), (7, 13, 3, "Two\nlines"), (45, 5, 1, "t")]
)
def test_every_pixel_of_a_grid_is_drawn_as_a_square_of_its_exact_level(
    height: int, width: int, channels: int, title: str | None, tmp_path: Path
) -> None:
    tiles = images(36, height, width, channels)
    page, scale = page_of(
        figures.latent_grid(tiles, grid_points(6, bounds=(-1.0, 1.0)), title=title), tmp_path / "grid.png"
    )
    # Rows of tiles from the top, columns from the left, nothing between them.
    expected = (
        tiles.reshape(6, 6, height, width, channels).transpose(0, 2, 1, 3, 4).reshape(6 * height, 6 * width, channels)
    )
    expected = np.broadcast_to(expected, (*expected.shape[:2], 3))
    assert scale >= 2
    np.testing.assert_array_equal(page, expected.repeat(scale, axis=0).repeat(scale, axis=1))


@pytest.mark.parametrize(("count", "height", "width", "columns"), [(64, 28, 28, None), (5, 9, 31, 2), (12, 28, 28, 1)])
def test_every_pixel_of_a_sheet_is_drawn(
    count: int, height: int, width: int, columns: int | None, tmp_path: Path
) -> None:
    tiles = images(count, height, width, 1)
    page, scale = page_of(figures.sheet(tiles, "samples", columns), tmp_path / "sheet.png")
    np.testing.assert_array_equal(page[::scale, ::scale, 0], figures.contact_sheet(tiles, columns=columns))


def labels(axes: Any, axis: str) -> dict[str, float]:
    ticks = axes.get_xticks() if axis == "x" else axes.get_yticks()
    texts = axes.get_xticklabels() if axis == "x" else axes.get_yticklabels()
    return {text.get_text().replace("−", "-"): float(tick) for text, tick in zip(texts, ticks, strict=True)}


def test_ticks_are_at_the_middle_of_the_tiles_they_name() -> None:
    grid = grid_points(5, bounds=(-2.0, 2.0), latent_dim=6, dims=(4, 2))
    axes = axes_of(figures.latent_grid(images(25, 10, 20, 1), grid, dims=(4, 2)))[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[4]", "z[2]")
    assert labels(axes, "x") == pytest.approx({"-2": 10, "-1": 30, "0": 50, "1": 70, "2": 90})
    assert labels(axes, "y") == pytest.approx({"2": 5, "1": 15, "0": 25, "-1": 35, "-2": 45})
    assert axes.get_ylim() == (50, 0)


def test_ticks_of_quantiles_are_as_unequally_spaced_as_the_quantiles() -> None:
    axes = axes_of(figures.latent_grid(images(900, 1, 1, 1), grid_points(30)))[0]
    places = labels(axes, "x")
    # Φ(1) of the prior lies to the left of z = 1, so Φ(1) of the columns does.
    assert places["0"] == pytest.approx(15)
    assert places["1"] == pytest.approx(0.8413 * 30, abs=0.02)
    assert places["-1"] == pytest.approx(0.1587 * 30, abs=0.02)


def test_one_latent_dimension_is_a_strip_and_one_point_has_its_own_tick() -> None:
    strip = axes_of(figures.latent_grid(images(9, 4, 4, 1), grid_points(9, latent_dim=1)))[0]
    assert strip.get_xlabel() == "z[0]"
    assert list(strip.get_yticks()) == []
    assert strip.get_xlim() == (0, 36)
    assert labels(axes_of(figures.latent_grid(images(1, 4, 4, 1), grid_points(1)))[0], "y") == {"0": 2}


def test_a_grid_needs_an_image_for_each_point() -> None:
    with pytest.raises(InputError, match="images has 8 images: the grid has 9 points"):
        figures.latent_grid(images(8, 4, 4, 1), grid_points(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_stand_below_their_originals(channels: int, tmp_path: Path) -> None:
    above, below = images(5, 28, 9, channels), images(6, 28, 9, channels)[1:]
    figure = figures.stacks({"original": above, "reconstruction": below}, title="pairs", columns=3)
    page, scale = page_of(figure, tmp_path / "pairs.png")
    page = page[::scale, ::scale, :channels]
    # 28 / 14 = 2 pixels between neighbors and within a pair, five times that between rows of pairs.
    for index in range(5):
        y, x = (index // 3) * (28 + 2 + 28 + 10), (index % 3) * (9 + 2)
        np.testing.assert_array_equal(page[y : y + 28, x : x + 9], above[index])
        np.testing.assert_array_equal(page[y + 30 : y + 58, x : x + 9], below[index])
    assert page.shape[:2] == (58 + 10 + 58, 3 * 9 + 2 * 2)
    axes = axes_of(figure)[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["original", "reconstruction"] * 2
    assert axes.get_yticks() == pytest.approx([14, 44, 82, 112])


def test_reconstructions_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"lower has shape \(2, 4, 5, 1\): pass \(2, 4, 4, 1\)"):
        figures.stacks({"upper": images(2, 4, 4, 1), "lower": images(2, 4, 5, 1)})


# curves


def metrics(epochs: int, **changes: Sequence[float]) -> dict[str, Any]:
    kl = [5 + 0.01 * i for i in range(epochs)]
    reconstruction = [150.0 - i for i in range(epochs)]
    total = [a + b for a, b in zip(kl, reconstruction, strict=True)]
    columns = {"total_loss": total, "negative_elbo": total, "reconstruction_loss": reconstruction, "kl_loss": kl}
    columns |= {f"val_{name}": [value + 1 for value in values] for name, values in columns.items()}
    return {"epoch": list(range(1, epochs + 1)), **columns, "seconds": [3.0] * epochs} | changes


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def note(axes: Any) -> str:
    return " ".join(text.get_text() for text in axes.texts)


def test_each_panel_shows_training_against_validation() -> None:
    columns = metrics(8)
    figure = figures.curves(columns, "a title")
    assert titles(figure) == ["total loss = negative ELBO", "reconstruction loss", "KL loss"]
    for axes, name in zip(axes_of(figure), ["negative_elbo", "reconstruction_loss", "kl_loss"], strict=True):
        train, validation = axes.lines
        np.testing.assert_array_equal(train.get_xdata(), columns["epoch"])
        np.testing.assert_allclose(train.get_ydata(), columns[name])
        np.testing.assert_allclose(validation.get_ydata(), columns[f"val_{name}"])
        assert note(axes) == ""
    legend = axes_of(figure)[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train 148.1", "validation 149.1"]


def test_a_total_loss_that_is_not_the_negative_elbo_has_its_own_panel() -> None:
    figure = figures.curves(metrics(3, total_loss=[100.0, 90.0, 80.0]))
    assert titles(figure) == ["total loss", "negative ELBO", "reconstruction loss", "KL loss"]


def test_without_validation_there_is_one_line() -> None:
    figure = figures.curves({"kl_loss": [3.0, 4.0]})
    assert titles(figure) == ["KL loss"]
    assert [line.get_xdata().tolist() for line in axes_of(figure)[0].lines] == [[1, 2]]


def test_one_epoch_is_a_visible_point_over_a_whole_number(tmp_path: Path) -> None:
    figure = figures.curves(metrics(1))
    figures.save(figure, tmp_path / "curves.png")
    for axes in axes_of(figure):
        for line in axes.lines:
            assert line.get_marker() == "o"
            assert line.get_markevery() == [0]
            low, high = axes.get_ylim()
            assert low < line.get_ydata()[0] < high
    low, high = axes_of(figure)[-1].get_xlim()
    assert [tick for tick in axes_of(figure)[-1].get_xticks() if low <= tick <= high] == [1]


def test_a_huge_first_epoch_is_cut_off_and_named() -> None:
    values = [54321.0, *(160 - 0.5 * i for i in range(19))]
    axes = axes_of(figures.curves({"negative_elbo": values}))[0]
    low, high = axes.get_ylim()
    assert low < min(values)
    assert max(values[1:]) < high < 200
    assert "epoch 1, up to 54,321" in note(axes)


def test_a_mild_first_epoch_is_not_cut_off() -> None:
    values = [180.0, *(160 - 0.5 * i for i in range(19))]
    axes = axes_of(figures.curves({"negative_elbo": values}))[0]
    assert axes.get_ylim()[1] > 180
    assert note(axes) == ""


def test_a_divergence_at_the_end_is_in_view() -> None:
    axes = axes_of(figures.curves({"negative_elbo": [*(160 - 0.5 * i for i in range(19)), 9999.0]}))[0]
    assert axes.get_ylim()[1] > 9999


def test_epochs_that_are_not_finite_are_gaps_and_named(tmp_path: Path) -> None:
    values = [5.0, np.nan, 4.0, np.inf, np.nan, 3.0]
    figure = figures.curves({"kl_loss": values, "negative_elbo": [np.nan] * 6})
    figures.save(figure, tmp_path / "curves.png")
    gone, kl = axes_of(figure)
    np.testing.assert_array_equal(kl.lines[0].get_ydata(), [5, np.nan, 4, np.nan, np.nan, 3])
    assert "not finite: epoch 2, 4–5" in note(kl)
    assert kl.get_ylim()[1] > 5
    assert "not finite: epoch 1–6" in note(gone)
    assert list(gone.get_yticks()) == []


def test_a_point_between_gaps_is_seen_in_a_long_run() -> None:
    values = np.full(50, 2.0)
    values[[20, 22]] = np.nan
    assert figures.curves({"kl_loss": values.tolist()}).axes[0].lines[0].get_markevery() == [21]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epoch": [1], "seconds": [2.0]}, "pass one at least of total_loss"),
        ({"kl_loss": [], "epoch": []}, "no epochs"),
        ({"kl_loss": [1.0, 2.0], "val_kl_loss": [1.0]}, r"metrics\['val_kl_loss'\] has 1 epochs: the others have 2"),
    ],
)
def test_metrics_without_losses_are_refused(wrong: dict[str, list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.curves(wrong)


# latents


def test_points_have_the_colors_of_their_labels_and_circles_the_radii_of_the_prior() -> None:
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


def test_labels_of_one_or_two_letters_stand_at_their_medians() -> None:
    means = np.array([[0.0, 1.0], [2.0, 3.0], [1.0, 8.0], [-5.0, -5.0]])
    axes = axes_of(figures.latents(means, np.array([0, 0, 0, 1])))[0]
    assert {text.get_text(): text.get_position() for text in axes.texts if text.get_text() in "01"} == {
        "0": (1, 3),
        "1": (-5, -5),
    }
    named = figures.latents(means, np.array([0, 0, 0, 1]), ["Trouser", "Bag"])
    assert {text.get_text() for text in named.axes[0].texts} == {"1σ", "2σ"}


def test_many_classes_have_a_color_bar() -> None:
    numbers = np.arange(11).repeat(2)
    figure = figures.latents(np.random.default_rng(0).normal(size=(22, 2)), numbers, [f"class {i}" for i in range(11)])
    assert figure.legends == []
    _, bar = axes_of(figure)
    assert [text.get_text() for text in bar.get_yticklabels()] == [f"class {i}" for i in range(11)]


def test_sparse_labels_are_classes_named_by_their_values() -> None:
    means = np.random.default_rng(0).normal(size=(6, 2))
    dates = np.array([20_240_101, 19_991_231, 20_240_101, 7, 7, 7], np.uint64)
    figure = figures.latents(means, dates)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["7", "19991231", "20240101"]
    (points,) = axes_of(figure)[0].collections
    shown = {tuple(place): rank for place, rank in zip(points.get_offsets().tolist(), points.get_array(), strict=True)}
    assert shown == dict(zip(map(tuple, means.tolist()), [2, 1, 2, 0, 0, 0], strict=True))
    assert len(axes_of(figures.latents(means[:, :1], dates))[0].patches) == 2 * 3


def test_many_sparse_labels_have_a_color_bar_of_their_ranks() -> None:
    numbers = np.arange(40) ** 2 * 10**15
    figure = figures.latents(np.random.default_rng(0).normal(size=(40, 2)), numbers[::-1])
    scatter, bar = axes_of(figure)
    (points,) = scatter.collections
    assert sorted(points.get_array()) == list(range(40))
    assert bar.get_ylim() == (-0.5, 39.5)
    ticks = {float(place): text.get_text() for place, text in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True)}
    assert len(ticks) == 20
    assert ticks == {float(rank): str(numbers[rank]) for rank in range(0, 40, 2)}


def test_without_labels_there_is_one_color_and_no_legend() -> None:
    figure = figures.latents(np.zeros((4, 2)))
    assert len(figure.axes) == 1
    assert figure.legends == []
    assert len(axes_of(figure)[0].collections[0].get_facecolors()) == 1


def test_one_latent_dimension_gives_a_histogram_a_class_that_integrates_to_one() -> None:
    rng = np.random.default_rng(0)
    means, numbers = rng.normal(2.0, 3.0, (400, 1)), rng.integers(0, 2, 400)
    for labels_, count in ((numbers, 2), (None, 1)):
        axes = axes_of(figures.latents(means, labels_))[0]
        assert axes.get_xlabel() == "z[0]"
        areas = [polygon_area(patch.get_path().vertices) for patch in axes.patches if patch.get_fill()]
        assert sum(areas) == pytest.approx(count)
        (prior,) = axes.lines
        assert np.trapezoid(prior.get_ydata(), prior.get_xdata()) == pytest.approx(1, abs=1e-2)


def polygon_area(vertices: np.ndarray) -> float:
    x, y = vertices[:, 0], vertices[:, 1]
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z_mean": np.zeros(3)}, r"z_mean has shape \(3,\)"),
        ({"z_mean": np.zeros((0, 2))}, r"z_mean has shape \(0, 2\)"),
        ({"z_mean": np.array([[0.0, np.nan], [1.0, 1.0]])}, "not finite for 1 of 2 images"),
        ({"z_mean": np.zeros((3, 2)), "labels": np.zeros(2, int)}, "pass 3 class numbers"),
        ({"z_mean": np.zeros((3, 2)), "labels": np.zeros(3)}, "labels are float64"),
        ({"z_mean": np.zeros((2, 2)), "labels": np.array([0, -1])}, "-1 among them"),
        ({"z_mean": np.zeros((2, 2)), "labels": np.array([0, 2]), "classes": ["a", "b"]}, "labels go up to 2"),
        ({"z_mean": np.zeros((2, 3)), "dims": (0, 3)}, r"dims = \(0, 3\)"),
        ({"z_mean": np.zeros((2, 3)), "dims": (1, 1)}, r"dims = \(1, 1\)"),
    ],
)
def test_latents_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.latents(**arguments)


# save, style and state


def all_figures() -> list[Figure]:
    tiles = images(9, 6, 6, 1)
    means, numbers = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    return [
        figures.sheet(tiles, "title"),
        figures.latent_grid(tiles, grid_points(3)),
        figures.stacks({"upper": tiles, "lower": tiles}),
        figures.curves(metrics(9), "title"),
        figures.latents(means, numbers),
    ]


def test_equal_figures_give_equal_bytes_whatever_the_settings(tmp_path: Path) -> None:
    first = [figures.save(figure, tmp_path / "a.png").read_bytes() for figure in all_figures()]
    theirs: dict[Any, Any] = {
        "font.size": 30,
        "savefig.dpi": 30,
        "savefig.bbox": "tight",
        "lines.linewidth": 9,
        "axes.facecolor": "red",
    }
    with matplotlib.rc_context(theirs):
        second = [figures.save(figure, tmp_path / "b.png").read_bytes() for figure in all_figures()]
        assert matplotlib.rcParams["font.size"] == 30
    assert first == second
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info.keys() <= {"dpi"}


def test_a_name_with_dollar_signs_is_drawn_as_it_is(tmp_path: Path) -> None:
    figures.save(figures.curves(metrics(2), "cost in $^$"), tmp_path / "curves.png")
    figures.save(figures.latents(np.zeros((2, 2)), np.array([0, 1]), ["$^$", "b"]), tmp_path / "latents.png")


def test_images_are_written_pixel_for_pixel(tmp_path: Path) -> None:
    levels = images(2, 3, 5, 3)
    figures.save_images(levels, tmp_path / "sheet.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), figures.contact_sheet(levels))


def test_drawing_leaves_pyplot_alone_and_importing_leaves_matplotlib_alone(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
from keras_vae.report import figures
assert "matplotlib" not in sys.modules
figures.save(figures.sheet(np.zeros((1, 2, 2, 1))), Path({str(tmp_path / "sheet.png")!r}))
figures.save(figures.latents(np.zeros((3, 2)), np.arange(3)), Path({str(tmp_path / "latents.png")!r}))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_rows_of_traversals_are_named_and_columns_valued(tmp_path: Path) -> None:
    tiles = images(6, 5, 4, 1).reshape(2, 3, 5, 4, 1)
    figure = figures.strips(figures.Strips(tiles, ["z[3]", "z[0]"], [-3.0, 0.0, 3.0], "z", "title"))
    page_of(figure, tmp_path / "traversals.png")
    axes = axes_of(figure)[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["z[3]", "z[0]"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["−3", "0", "3"]


def test_rates_fall_from_left_to_right_and_those_in_use_are_counted() -> None:
    axes = axes_of(figures.rates(np.array([0.5, 0.0, 2.0]), threshold=0.01))[0]
    assert [bar.get_height() for bar in axes.patches] == [2.0, 0.5, 0.0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["z[2]", "z[0]", "z[1]"]
    assert "2 of 3 in use" in axes.get_xlabel()


def test_lines_of_equal_elbo_cross_the_path_of_a_training() -> None:
    metrics = {"kl_loss": [1.0, 4.0], "reconstruction_loss": [9.0, 5.0]}
    axes = axes_of(figures.rate_distortion(metrics))[0]
    path, _, *lines = axes.get_lines()
    assert path.get_xydata().tolist() == [[1, 9], [4, 5]]
    assert lines
    for line in lines:
        assert np.ptp(line.get_xydata().sum(axis=1)) < 1e-9


def test_runs_are_overlaid_by_validation_where_there_is_one() -> None:
    runs = {"a": {"negative_elbo": [9, 7], "val_negative_elbo": [8, 6]}, "b": {"negative_elbo": [5.0]}, "c": {}}
    axes = axes_of(figures.overlay(runs))[0]
    assert [line.get_ydata().tolist() for line in axes.get_lines()] == [[8, 6], [5]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b (training)"]

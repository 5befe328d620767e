"""Figures made of images: exact pixels, labels, and errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_helpers import axes_of, pixels_of, random_images

from keras_vae.core.errors import InputError
from keras_vae.report import figures
from keras_vae.report.latent_grid import grid_points


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_tiles_are_placed_row_by_row_on_the_fill_color(channels: int, pad: int) -> None:
    tiles = random_images(7, 3, 5, channels)
    sheet = figures.tile_images(tiles, columns=4, pad=pad, fill=77)
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


def test_floats_are_rounded_to_the_nearest_level() -> None:
    tile = np.array([0.0, 0.25, 0.5, 1.0], np.float32).reshape(1, 1, 4, 1)
    assert figures.tile_images(tile).tolist() == [[0, 64, 128, 255]]
    assert figures.tile_images(tile.astype(np.float64)).tolist() == [[0, 64, 128, 255]]


def test_bfloat16_images_are_accepted() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert figures.tile_images(np.ones((1, 1, 1, 1), ml_dtypes.bfloat16)).tolist() == [[255]]


@pytest.mark.parametrize(
    ("count", "height", "width", "rows", "columns"),
    [(64, 28, 28, 8, 8), (1, 9, 9, 1, 1), (8, 10, 20, 4, 2), (3, 99, 1, 1, 3)],
)
def test_tiled_picture_is_about_square_by_default(count: int, height: int, width: int, rows: int, columns: int) -> None:
    assert figures.tile_images(random_images(count, height, width, 1), pad=0).shape == (rows * height, columns * width)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 4, 4)), r"images.shape = \(2, 4, 4\)"),
        (np.zeros((0, 4, 4, 1)), r"images.shape = \(0, 4, 4, 1\)"),
        (np.zeros((2, 4, 4, 2)), "1 or 3 channels"),
        (np.full((1, 4, 4, 1), 1.01), "from 1.01 to 1.01"),
        (np.full((1, 4, 4, 1), -0.5), "from -0.5"),
        (np.full((1, 4, 4, 1), np.nan), "nan"),
        (np.zeros((1, 4, 4, 1), np.int64), "images.dtype = int64"),
    ],
)
def test_invalid_images_are_rejected(wrong: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.tile_images(wrong)


@pytest.mark.parametrize(("name", "value"), [("columns", 0), ("pad", -1), ("fill", 256), ("fill", -1)])
def test_tiling_options_out_of_range_are_rejected(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} = {value}: "):
        figures.tile_images(random_images(2, 4, 4, 1), **{name: value})


@pytest.mark.parametrize(
    ("height", "width", "channels", "title"), [(28, 28, 1, None), (7, 13, 3, "Two\nlines"), (45, 5, 1, "t")]
)
def test_latent_grid_draws_every_pixel_as_a_square_of_its_exact_level(
    height: int, width: int, channels: int, title: str | None, tmp_path: Path
) -> None:
    tiles = random_images(36, height, width, channels)
    page, scale = pixels_of(
        figures.latent_grid(tiles, grid_points(6, bounds=(-1.0, 1.0)), title=title), tmp_path / "grid.png"
    )
    # Rows of tiles from the top, columns from the left, without gaps.
    expected = (
        tiles.reshape(6, 6, height, width, channels).transpose(0, 2, 1, 3, 4).reshape(6 * height, 6 * width, channels)
    )
    expected = np.broadcast_to(expected, (*expected.shape[:2], 3))
    assert scale >= 2
    np.testing.assert_array_equal(page, expected.repeat(scale, axis=0).repeat(scale, axis=1))


@pytest.mark.parametrize(("count", "height", "width", "columns"), [(64, 28, 28, None), (5, 9, 31, 2), (12, 28, 28, 1)])
def test_image_grid_draws_every_pixel(count: int, height: int, width: int, columns: int | None, tmp_path: Path) -> None:
    tiles = random_images(count, height, width, 1)
    page, scale = pixels_of(figures.image_grid(tiles, "samples", columns), tmp_path / "sheet.png")
    np.testing.assert_array_equal(page[::scale, ::scale, 0], figures.tile_images(tiles, columns=columns))


def labels(axes: Any, axis: str) -> dict[str, float]:
    ticks = axes.get_xticks() if axis == "x" else axes.get_yticks()
    texts = axes.get_xticklabels() if axis == "x" else axes.get_yticklabels()
    return {text.get_text().replace("−", "-"): float(tick) for text, tick in zip(texts, ticks, strict=True)}


def test_ticks_are_centered_on_their_tiles() -> None:
    grid = grid_points(5, bounds=(-2.0, 2.0), latent_dim=6, dims=(4, 2))
    axes = axes_of(figures.latent_grid(random_images(25, 10, 20, 1), grid, names=("z[4]", "z[2]")))[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[4]", "z[2]")
    assert labels(axes, "x") == pytest.approx({"-2": 10, "-1": 30, "0": 50, "1": 70, "2": 90})
    assert labels(axes, "y") == pytest.approx({"2": 5, "1": 15, "0": 25, "-1": 35, "-2": 45})
    assert axes.get_ylim() == (50, 0)


def test_ticks_of_a_quantile_grid_are_spaced_like_the_quantiles() -> None:
    axes = axes_of(figures.latent_grid(random_images(900, 1, 1, 1), grid_points(30)))[0]
    places = labels(axes, "x")
    # Φ(1) of the prior lies to the left of z = 1, so Φ(1) of the columns does.
    assert places["0"] == pytest.approx(15)
    assert places["1"] == pytest.approx(0.8413 * 30, abs=0.02)
    assert places["-1"] == pytest.approx(0.1587 * 30, abs=0.02)


def test_latent_grid_of_one_dimension_is_one_row_and_one_point_has_one_tick() -> None:
    strip = axes_of(figures.latent_grid(random_images(9, 4, 4, 1), grid_points(9, latent_dim=1)))[0]
    assert strip.get_xlabel() == "z[0]"
    assert list(strip.get_yticks()) == []
    assert strip.get_xlim() == (0, 36)
    assert labels(axes_of(figures.latent_grid(random_images(1, 4, 4, 1), grid_points(1)))[0], "y") == {"0": 2}


def test_latent_grid_needs_one_image_per_point() -> None:
    with pytest.raises(InputError, match="images = 8 images: the grid has 9 points"):
        figures.latent_grid(random_images(8, 4, 4, 1), grid_points(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_image_rows_draws_reconstructions_below_their_originals(channels: int, tmp_path: Path) -> None:
    above, below = random_images(5, 28, 9, channels), random_images(6, 28, 9, channels)[1:]
    figure = figures.image_rows({"original": above, "reconstruction": below}, title="pairs", columns=3)
    page, scale = pixels_of(figure, tmp_path / "pairs.png")
    page = page[::scale, ::scale, :channels]
    # 28 / 14 = 2 pixels between neighbors and within a pair, five times as many between rows of pairs.
    for index in range(5):
        y, x = (index // 3) * (28 + 2 + 28 + 10), (index % 3) * (9 + 2)
        np.testing.assert_array_equal(page[y : y + 28, x : x + 9], above[index])
        np.testing.assert_array_equal(page[y + 30 : y + 58, x : x + 9], below[index])
    assert page.shape[:2] == (58 + 10 + 58, 3 * 9 + 2 * 2)
    axes = axes_of(figure)[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["original", "reconstruction"] * 2
    assert axes.get_yticks() == pytest.approx([14, 44, 82, 112])


def test_image_rows_of_different_shapes_are_rejected() -> None:
    with pytest.raises(InputError, match=r"lower.shape = \(2, 4, 5, 1\): upper has \(2, 4, 4, 1\)"):
        figures.image_rows({"upper": random_images(2, 4, 4, 1), "lower": random_images(2, 4, 5, 1)})


def test_image_strips_label_rows_with_names_and_columns_with_values(tmp_path: Path) -> None:
    tiles = random_images(6, 5, 4, 1).reshape(2, 3, 5, 4, 1)
    figure = figures.image_strips(figures.ImageStrips(tiles, ["z[3]", "z[0]"], [-3.0, 0.0, 3.0], "z", "title"))
    pixels_of(figure, tmp_path / "traversals.png")
    axes = axes_of(figure)[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["z[3]", "z[0]"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["−3", "0", "3"]


def test_names_of_strips_in_several_lines_are_as_wide_as_their_longest_line() -> None:
    tiles = random_images(6, 5, 4, 1).reshape(2, 3, 5, 4, 1)
    lefts = []
    for name in ("z[3]\nfrom 1 to 2", "from 1 to 2"):
        figure = figures.image_strips(figures.ImageStrips(tiles, [name, "z[0]"], [0.0, 0.5, 1.0], "z", "title"))
        lefts.append(axes_of(figure)[0].get_window_extent().x0)
    assert lefts[0] == pytest.approx(lefts[1])

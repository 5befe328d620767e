from typing import Any

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.data import sprites
from keras_vae.data.sources import load

RNG = np.random.default_rng(0)
EVERY = np.array([[s, k, o, 7, 20] for s in range(3) for k in range(6) for o in range(40)])


def test_positions_and_factors_are_inverse() -> None:
    index = np.arange(sprites.COUNT)
    factors = sprites.index_to_factors(index)
    np.testing.assert_array_equal(sprites.factors_to_index(factors), index)
    # The last factor varies fastest, as in dSprites.
    np.testing.assert_array_equal(factors @ [6 * 40 * 32 * 32, 40 * 32 * 32, 32 * 32, 32, 1], index)
    assert factors.max(0).tolist() == [2, 5, 39, 31, 31]


def test_images_are_black_and_white() -> None:
    images = sprites.draw(EVERY)
    assert (images.shape, images.dtype) == ((720, 64, 64, 1), np.uint8)
    assert np.unique(images).tolist() == [0, 255]


def test_x_and_y_translate_by_whole_pixels() -> None:
    factors = sprites.index_to_factors(RNG.integers(sprites.COUNT, size=60))
    origin = factors * [1, 1, 1, 0, 0]
    for image, first, (x, y) in zip(sprites.draw(factors), sprites.draw(origin), factors[:, 3:], strict=True):
        np.testing.assert_array_equal(image, np.roll(first, (y, x), axis=(0, 1)))


@pytest.mark.parametrize("corner", [(0, 0), (31, 0), (0, 31), (31, 31)])
def test_no_shape_touches_the_border(corner: tuple[int, int]) -> None:
    factors = EVERY.copy()
    factors[:, 3:] = corner
    images = sprites.draw(factors)
    assert not images[:, [0, -1]].any()
    assert not images[:, :, [0, -1]].any()
    # A shift by up to 31 pixels cuts off nothing.
    np.testing.assert_array_equal(images.sum((1, 2, 3)), sprites.draw(EVERY).sum((1, 2, 3)))


def test_images_are_distinct_up_to_symmetry() -> None:
    images = sprites.draw(EVERY).reshape(3, 6, 40, -1)
    for shape, period in enumerate((10, 20, 40)):
        for scale in range(6):
            tiles = images[shape, scale]
            np.testing.assert_array_equal(tiles, tiles[np.arange(40) % period])
            assert len(np.unique(tiles, axis=0)) == period
    assert len(np.unique(images.reshape(720, -1), axis=0)) == 6 * (10 + 20 + 40)


def test_area_is_proportional_to_squared_scale_and_independent_of_orientation() -> None:
    areas = (sprites.draw(EVERY) > 0).sum((1, 2, 3)).reshape(3, 6, 40)
    np.testing.assert_allclose(areas, areas.mean(2, keepdims=True) * np.ones(40), rtol=0.12)
    wanted = (np.linspace(0.5, 1, 6) * 14.9) ** 2
    # A square of diagonal 2 r, and an ellipse of semi-axes r and r / 2.
    np.testing.assert_allclose(areas[0].mean(1), 2 * wanted, rtol=0.02)
    np.testing.assert_allclose(areas[1].mean(1), np.pi / 2 * wanted, rtol=0.02)


def test_orientation_turns_clockwise() -> None:
    tiles = sprites.draw([[2, 5, 0, 0, 0], [2, 5, 10, 0, 0]])[:, :33, :33, 0]
    np.testing.assert_array_equal(tiles[1], np.rot90(tiles[0], -1))
    # An upright heart is symmetric, with its lobes at the top and its point at the bottom.
    np.testing.assert_array_equal(tiles[0], tiles[0, :, ::-1])
    widths = (tiles[0] > 0).sum(1)
    assert widths[:16].max() > 2 * widths[26:].max()


def test_loaded_images_are_a_fixed_selection() -> None:
    train, test, notes, _ = load("sprites")
    assert test is not None
    assert (train.images.shape, test.images.shape) == ((60_000, 64, 64, 1), (20_000, 64, 64, 1))
    assert notes == ("sprites: a fixed selection of 80,000 from all 737,280 combinations of factors",)
    chosen = []
    for part, split in ((train, "train"), (test, "test")):
        assert part.factors is not None
        assert part.labels is not None
        assert (part.factors.names, part.factors.sizes) == (sprites.NAMES, sprites.SIZES)
        assert (part.split, part.classes) == (split, ("square", "ellipse", "heart"))
        np.testing.assert_array_equal(part.labels, part.factors.values[:, 0])
        some = RNG.integers(len(part), size=100)
        np.testing.assert_array_equal(part.images[some], sprites.draw(part.factors.values[some]))
        chosen.append(sprites.factors_to_index(part.factors.values))
    assert len(np.unique(np.concatenate(chosen))) == 80_000
    # Published numbers depend on these images, so that they must never change.
    assert test.checksum == "55fbcb8288236aed617936ae5d6efe11c450479d4c3da0e3d8a3354232474b1a"


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([[0, 0, 0, 0]], r"factors: int64 of shape \(1, 4\); pass integers, N x 5"),
        ([0, 0, 0, 0, 0], r"factors: int64 of shape \(5,\)"),
        ([[0.0, 0, 0, 0, 0]], "factors: float64"),
        (
            [[3, 0, 0, 0, 0]],
            r"factors: from \[3, 0, 0, 0, 0\] to \[3, 0, 0, 0, 0\]; pass values from 0 to below \(3, 6",
        ),
        ([[0, 0, 0, 0, -1]], "factors: from"),
    ],
)
def test_invalid_factors_are_rejected(factors: list[Any], message: str) -> None:
    for function in (sprites.draw, sprites.factors_to_index):
        with pytest.raises(InputError, match=message):
            function(factors)


@pytest.mark.parametrize("index", [[-1], [737_280], [0.5], [[1]]])
def test_invalid_positions_are_rejected(index: list[Any]) -> None:
    with pytest.raises(InputError, match=r"index: .*; pass N integers from 0 to 737279"):
        sprites.index_to_factors(index)

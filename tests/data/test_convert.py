from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.data.convert import FITS, Color, Conversion, Fit, convert
from keras_vae.data.dataset import Dataset
from keras_vae.data.sources import load, stream

T = TypeVar("T")
RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
GRAY = RGB[..., :1]


def make_dataset(images: object, labels: object = None) -> Dataset:
    return Dataset.from_arrays(images, labels, name="random", split="test", classes="abcd")  # type: ignore[arg-type]


@pytest.mark.parametrize("conversion", [Conversion(), Conversion((6, 5)), Conversion((6, 5), "rgb")])
def test_images_that_already_fit_are_unchanged(conversion: Conversion) -> None:
    data = make_dataset(RGB)
    assert convert(data, conversion) == (data, ())


def test_gray_is_luma() -> None:
    converted, notes = convert(make_dataset(RGB, [0, 1, 2, 3]), Conversion(color="gray"))
    assert converted.image_shape == (6, 5, 1)
    np.testing.assert_allclose(converted.images[..., 0], RGB @ [0.299, 0.587, 0.114], atol=0.51)
    assert notes == ("RGB converted to gray (luma): 4 of 4 images",)
    assert converted.labels is not None
    assert converted.labels.tolist() == [0, 1, 2, 3]
    assert (converted.name, converted.split, converted.classes) == ("random", "test", tuple("abcd"))


def test_conversion_to_rgb_repeats_gray_and_can_be_undone() -> None:
    converted, notes = convert(make_dataset(GRAY), Conversion(color="rgb"))
    np.testing.assert_array_equal(converted.images, np.repeat(GRAY, 3, axis=-1))
    assert notes == ("gray repeated to RGB: 4 of 4 images",)
    np.testing.assert_array_equal(convert(converted, Conversion(color="gray"))[0].images, GRAY)


@pytest.mark.parametrize("images", [RGB, GRAY])
@pytest.mark.parametrize("size", [(6, 4), (3, 7), (28, 28), (1, 1)])
@pytest.mark.parametrize("color", [None, "gray", "rgb"])
def test_converted_images_have_the_target_shape(
    images: NDArray[np.uint8], size: tuple[int, int], color: Color | None
) -> None:
    channels = {None: images.shape[-1], "gray": 1, "rgb": 3}[color]
    converted, notes = convert(make_dataset(images), Conversion(size, color))
    assert converted.image_shape == (*size, channels)
    assert notes[0] == f"resized to {size[0]}x{size[1]} (H x W, fit = crop): 4 of 4 images"


def test_uniform_image_stays_uniform() -> None:
    converted, _ = convert(make_dataset(np.full((2, 9, 12), 77)), Conversion((20, 7)))
    assert (converted.images == 77).all()


def test_aspect_ratio_is_kept_and_the_center_is_cropped() -> None:
    images = np.zeros((1, 10, 30), np.uint8)
    images[0, :, 10:20] = RGB[0, 0, 0, 0]
    converted, _ = convert(make_dataset(images), Conversion((10, 10)))
    assert (converted.images == RGB[0, 0, 0, 0]).all()


def test_shrinking_does_not_alias() -> None:
    checkerboard = np.indices((64, 64)).sum(0) % 2 * 255
    converted, _ = convert(make_dataset(checkerboard[np.newaxis]), Conversion((8, 8)))
    np.testing.assert_allclose(converted.images[0, 1:-1, 1:-1], 127.5, atol=3)


def test_progress_counts_every_image() -> None:
    seen: list[object] = []

    def show(items: Iterable[T], label: str, /) -> Iterable[T]:
        for item in items:
            seen.append(label)
            yield item

    convert(make_dataset(RGB), Conversion((3, 3)), show)
    assert seen == ["converting random"] * 4


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (4, 4, 1), (4.0, 4), (True, 4), 28, "28"])
def test_invalid_sizes_are_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"^image_size = .*: not a size; pass two positive integers, height and width"):
        Conversion(size)


def test_unknown_colors_are_rejected() -> None:
    with pytest.raises(InputError, match="color = 'grey': unknown; did you mean 'gray'"):
        Conversion(color="grey")  # type: ignore[arg-type]


WIDE = np.zeros((1, 4, 8, 3), np.uint8)
WIDE[:, :, [0, 1, 6, 7]] = (255, 0, 0)


@pytest.mark.parametrize(
    ("fit", "red", "margins"), [("crop", False, False), ("pad", True, True), ("stretch", True, False)]
)
def test_fit_crops_pads_or_stretches(fit: Fit, red: bool, margins: bool) -> None:
    """A wide black image with red sides loses them, keeps them between blue margins, or keeps them closer together."""
    dataset = Dataset.from_arrays(WIDE, name="wide")
    found, notes = convert(dataset, Conversion((8, 8), fit=fit, padding=(0, 0, 255)))
    inner = found.images[0, 2:6]
    assert (inner[:, 0] == (255, 0, 0)).all() == red
    assert (found.images[0, [0, 1, 6, 7]] == (0, 0, 255)).all() == margins
    assert notes == (f"resized to 8x8 (H x W, fit = {fit}): 1 of 1 images",)


def test_padding_without_resampling_keeps_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 5, 8, 1), np.uint8)
    found, _ = convert(Dataset.from_arrays(pixels, name="x"), Conversion((8, 8), fit="pad"))
    np.testing.assert_array_equal(found.images[0, 1:6], pixels[0])
    assert not found.images[0, [0, 6, 7]].any()


@pytest.mark.parametrize("shape", [(1, 1, 999, 1), (1, 999, 1, 3)])
@pytest.mark.parametrize("fit", FITS)
def test_extreme_aspect_ratios_fit(shape: tuple[int, ...], fit: Fit) -> None:
    found, _ = convert(Dataset.from_arrays(np.full(shape, 200, np.uint8), name="x"), Conversion((8, 6), fit=fit))
    assert found.image_shape == (8, 6, shape[3])
    assert found.images.max() == 200


def test_margins_of_gray_images_have_a_color_only_if_the_images_become_rgb() -> None:
    gray = Dataset.from_arrays(np.full((1, 2, 4, 1), 100, np.uint8), name="x")
    colored = convert(gray, Conversion((4, 4), "rgb", "pad", (0, 0, 255)))[0].images[0]
    assert colored[0, 0].tolist() == [0, 0, 255]
    assert colored[1, 0].tolist() == [100, 100, 100]
    # The luma of blue is 0.114 · 255 = 29.07.
    assert convert(gray, Conversion((4, 4), fit="pad", padding=(0, 0, 255)))[0].images[0, 0, 0].tolist() == [29]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((100_000, 8), r"^image_size = 100000x8: too large; choose at most 16384 pixels per side"),
        ((16_000, 16_000), r"^image_size = 16000x16000: 3 images of 16000x16000x1 need .* GiB; choose a smaller size"),
    ],
)
def test_sizes_that_are_too_large_are_blamed(
    size: tuple[int, int], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("keras_vae.data.convert.total_memory", lambda: 2**29)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
    np.save(tmp_path / "x.npy", images)
    (tmp_path / "photos").mkdir()
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    for source in ("x.npy", "photos"):
        with pytest.raises(InputError, match=message):
            load(tmp_path / source, image_size=size)
    with pytest.raises(InputError, match=message):
        stream(tmp_path / "photos", image_size=size).read(0)


def test_unknown_fits_are_rejected() -> None:
    with pytest.raises(InputError, match=r"^fit = 'krop': unknown; did you mean 'crop'\?"):
        Conversion((8, 8), fit="krop")  # type: ignore[arg-type]

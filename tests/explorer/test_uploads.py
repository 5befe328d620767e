"""Uploaded images: errors of invalid ones, and the conversion of the others."""

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.explorer import uploads


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def moving() -> bytes:
    frames = [Image.new("L", (20, 20), shade) for shade in (0, 90, 255)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: b"no picture at all",
            r"image = uploaded file: cannot be read \(.*\); pass PNG, JPEG, WEBP, BMP or GIF",
        ),
        (lambda: b"", "cannot be read"),
        (lambda: encoded(Image.effect_noise((30, 30), 90))[:300], "cannot be read"),
        (lambda: encoded(Image.new("L", (8, 8)), "TIFF"), "cannot be read"),
        (lambda: bytes(50 * 2**20), "image = 50 MB: too large; at most 10 MB"),
        (lambda: encoded(Image.new("1", (1, 1))), "1×1 pixels; both sides must have 4 to 4096 pixels"),
        (lambda: encoded(Image.new("1", (8000, 8000))), "image = uploaded file: 8000×8000 pixels"),
        (moving, "image = uploaded file: an animated image"),
        (lambda: encoded(Image.fromarray(np.full((20, 20), 0x1234, "uint16"))), "more than 8 bits per channel"),
    ],
)
def test_invalid_images_are_rejected_in_one_line(content: Callable[[], bytes], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        uploads.convert(content(), (28, 28, 1))
    assert len(str(raised.value).splitlines()) == 1


def test_the_size_of_a_file_is_checked_before_reading_it(tmp_path: object) -> None:
    file = tmp_path / "large.png"  # type: ignore[operator]
    with file.open("wb") as hole:
        hole.truncate(2**40)
    with pytest.raises(InputError, match="1048576 MB"):
        uploads.read_file(file)


def test_transparency_is_replaced_by_white_and_noted() -> None:
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    picture.putpixel((3, 2), (0, 0, 0, 0))
    image, notes = uploads.convert(encoded(picture), (16, 16, 1))
    assert (image[2, 3, 0], image[0, 0, 0]) == (255, 0)
    assert notes == ("transparency replaced by white", "converted to grayscale")
    picture.putpixel((3, 2), (0, 0, 0, 255))
    assert "transparency replaced by white" not in uploads.convert(encoded(picture), (16, 16, 1)).notes


def test_a_photo_with_an_embedded_preview_is_accepted() -> None:
    picture = Image.new("L", (20, 20), 90)
    content = encoded(picture, "MPO", save_all=True, append_images=[Image.new("L", (10, 10))])
    np.testing.assert_allclose(uploads.convert(content, (20, 20, 1)).image, 90, atol=2)


def test_size_and_color_follow_the_model() -> None:
    red = Image.new("RGB", (40, 20), (255, 0, 0))
    image, notes = uploads.convert(encoded(red, "JPEG"), (9, 11, 3))
    assert (image.shape, image.dtype) == ((9, 11, 3), np.uint8)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(0), (255, 0, 0), atol=3)
    assert notes == ("resized from 40×20 to 11×9",)
    gray = uploads.convert(encoded(red, "WEBP", lossless=True), (9, 11, 1)).image
    np.testing.assert_allclose(gray, 76, atol=1)


def test_an_image_of_the_right_size_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11), dtype="uint8")
    picture = uploads.convert(encoded(Image.fromarray(pixels)), (9, 11, 1))
    np.testing.assert_array_equal(picture.image[..., 0], pixels)
    assert picture.notes == ()
    inverted = uploads.convert(encoded(Image.fromarray(pixels)), (9, 11, 1), invert=True)
    np.testing.assert_array_equal(inverted.image[..., 0], 255 - pixels)


def test_data_uris_are_decoded_or_rejected() -> None:
    assert uploads.read_uri(f"data:image/png;base64,{base64.b64encode(b'abc').decode()}") == b"abc"
    for text, message in (
        ("http://example.org/a.png", "not a data URI; pass data:image/png"),
        ("data:image/png;base64,%%", "damaged"),
        ("data:image/png;base64," + "A" * (20 * 2**20), "image = 15 MB"),
    ):
        with pytest.raises(InputError, match=message):
            uploads.read_uri(text)

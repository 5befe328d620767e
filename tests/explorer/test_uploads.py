"""Pictures from outside: what is refused, and what the rest becomes."""

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
        (lambda: b"no picture at all", "not a PNG, JPEG, WEBP, BMP, GIF file"),
        (lambda: b"", "not a PNG"),
        (lambda: encoded(Image.effect_noise((30, 30), 90))[:300], "not a PNG"),
        (lambda: encoded(Image.new("L", (8, 8)), "TIFF"), "not a PNG"),
        (lambda: bytes(50 * 2**20), "picture of 50 MB: at most 10 MB"),
        (lambda: encoded(Image.new("1", (1, 1))), "picture: 1×1 pixels: accepted are 4 to 4096 a side"),
        (lambda: encoded(Image.new("1", (8000, 8000))), "picture: 8000×8000 pixels"),
        (moving, "picture: an animated image"),
        (lambda: encoded(Image.fromarray(np.full((20, 20), 0x1234, "uint16"))), "more than 8 bits a channel"),
    ],
)
def test_refuses_in_one_line(content: Callable[[], bytes], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        uploads.prepare(content(), (28, 28, 1))
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_is_not_read_before_its_size_is_known(tmp_path: object) -> None:
    file = tmp_path / "large.png"  # type: ignore[operator]
    with file.open("wb") as hole:
        hole.truncate(2**40)
    with pytest.raises(InputError, match="1048576 MB"):
        uploads.read_file(file)


def test_transparent_pixels_are_laid_on_white_and_said() -> None:
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    picture.putpixel((3, 2), (0, 0, 0, 0))
    image, notes = uploads.prepare(encoded(picture), (16, 16, 1))
    assert (image[2, 3, 0], image[0, 0, 0]) == (255, 0)
    assert notes == ("transparent pixels laid on white", "turned gray")
    picture.putpixel((3, 2), (0, 0, 0, 255))
    assert "transparent pixels laid on white" not in uploads.prepare(encoded(picture), (16, 16, 1)).notes


def test_a_camera_s_picture_with_a_preview_in_it_is_a_still_one() -> None:
    picture = Image.new("L", (20, 20), 90)
    content = encoded(picture, "MPO", save_all=True, append_images=[Image.new("L", (10, 10))])
    np.testing.assert_allclose(uploads.prepare(content, (20, 20, 1)).image, 90, atol=2)


def test_size_and_color_follow_the_model() -> None:
    red = Image.new("RGB", (40, 20), (255, 0, 0))
    image, notes = uploads.prepare(encoded(red, "JPEG"), (9, 11, 3))
    assert (image.shape, image.dtype) == ((9, 11, 3), np.uint8)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(0), (255, 0, 0), atol=3)
    assert notes == ("resized from 40×20 to 11×9",)
    gray = uploads.prepare(encoded(red, "WEBP", lossless=True), (9, 11, 1)).image
    np.testing.assert_allclose(gray, 76, atol=1)


def test_the_same_pixels_stay_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11), dtype="uint8")
    picture = uploads.prepare(encoded(Image.fromarray(pixels)), (9, 11, 1))
    np.testing.assert_array_equal(picture.image[..., 0], pixels)
    assert picture.notes == ()
    inverted = uploads.prepare(encoded(Image.fromarray(pixels)), (9, 11, 1), invert=True)
    np.testing.assert_array_equal(inverted.image[..., 0], 255 - pixels)


def test_texts_are_decoded_or_refused() -> None:
    assert uploads.read_uri(f"data:image/png;base64,{base64.b64encode(b'abc').decode()}") == b"abc"
    for text, message in (
        ("http://example.org/a.png", "pass data:image/png"),
        ("data:image/png;base64,%%", "damaged"),
        ("data:image/png;base64," + "A" * (20 * 2**20), "picture of 15 MB"),
    ):
        with pytest.raises(InputError, match=message):
            uploads.read_uri(text)

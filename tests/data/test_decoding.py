"""Formats of image files, and levels of images with more than 8 bits per channel."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.sources import load

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (9, 7), np.uint8)
RGB = RNG.integers(0, 256, (9, 7, 3), np.uint8)
DEEP = RNG.integers(0, 4096, (9, 7), np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    return path


@pytest.mark.parametrize("suffix", ["tif", "tiff", "TIF", "pgm", "pnm"])
def test_gray_files_keep_their_pixels(folder: Path, suffix: str) -> None:
    Image.fromarray(GRAY).save(folder / f"a.{suffix}", format="TIFF" if "t" in suffix.lower() else "PPM")
    np.testing.assert_array_equal(load(folder).train.images[0, ..., 0], GRAY)


@pytest.mark.parametrize(("suffix", "options"), [("tif", {"compression": "tiff_lzw"}), ("tif", {}), ("ppm", {})])
def test_color_files_keep_their_pixels(folder: Path, suffix: str, options: dict[str, str]) -> None:
    Image.fromarray(RGB).save(folder / f"a.{suffix}", **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(load(folder).train.images[0], RGB)


def test_jfif_files_are_jpeg(folder: Path) -> None:
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8) * 6
    Image.fromarray(smooth).save(folder / "a.jfif", format="JPEG", quality=95)
    np.testing.assert_allclose(load(folder).train.images[0, ..., 0], smooth, atol=4)


def test_black_and_white_files_become_levels_0_and_255(folder: Path) -> None:
    Image.fromarray(GRAY > 99).save(folder / "a.pbm")
    np.testing.assert_array_equal(load(folder).train.images[0, ..., 0], 255 * (GRAY > 99))


def png_16(pixels: NDArray[np.uint16]) -> bytes:
    """Return a PNG file with 16 bits per channel, written byte by byte, because Pillow cannot write RGB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    color_type = 2 if pixels.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_16(pixels: NDArray[np.uint16]) -> bytes:
    """Return an uncompressed little-endian TIFF file with 16 bits per channel, written byte by byte."""
    height, width, channels = pixels.shape
    data = pixels.astype("<u2").tobytes()
    bits = 8 + len(data)
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data))),
    ]
    start = bits + 2 * channels
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<3H", 16, 16, 16) + directory


def expected(values: Array, white: float) -> NDArray[np.uint8]:
    return np.floor(values / white * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("white", [4095, 65535, 5000.5])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_is_scaled(folder: Path, suffix: str, white: float) -> None:
    Image.fromarray(DEEP).save(folder / f"a.{suffix}")
    loaded = load(folder, scale=white)
    np.testing.assert_array_equal(loaded.train.images[0, ..., 0], expected(DEEP.astype(float), white))
    assert loaded.notes == (f"scaled to 8 bits (white = {white:g}): 1 of 1 images",)


@pytest.mark.parametrize(("suffix", "write"), [("png", png_16), ("tif", tiff_16)])
def test_16_bit_color_is_scaled_with_both_bytes(folder: Path, suffix: str, write: object) -> None:
    values = RNG.integers(0, 4096, (9, 7, 3), np.uint16)
    (folder / f"a.{suffix}").write_bytes(write(values))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"more than 8 bits per channel; .* pass the value of white, such as --scale"):
        load(folder)
    np.testing.assert_array_equal(load(folder, scale=4095).train.images[0], expected(values.astype(float), 4095))


def test_float_tiff_is_scaled(folder: Path) -> None:
    values = RNG.random((9, 7), np.float32)
    Image.fromarray(values).save(folder / "a.tif")
    np.testing.assert_array_equal(load(folder, scale=1).train.images[0, ..., 0], expected(values, 1))


def test_maximum_of_a_pgm_file_counts_as_65535(folder: Path) -> None:
    (folder / "a.pgm").write_bytes(b"P5 7 9 4095\n" + DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(
        load(folder, scale=65535).train.images[0, ..., 0], expected(np.rint(DEEP / 4095 * 65535), 65535)
    )


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_orientation_of_16_bit_files_is_applied(folder: Path, compression: str | None) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = 6
    Image.fromarray(DEEP).save(folder / "a.tif", tiffinfo=tags, compression=compression)
    found = load(folder, scale=4095).train.images[0, ..., 0]
    np.testing.assert_array_equal(found, np.rot90(expected(DEEP.astype(float), 4095), -1))
    Image.fromarray(GRAY).save(folder / "a.tif", tiffinfo=tags, compression=compression)
    np.testing.assert_array_equal(load(folder).train.images[0, ..., 0], np.rot90(GRAY, -1))


def test_values_above_white_are_rejected(folder: Path) -> None:
    Image.fromarray(DEEP).save(folder / "a.png")
    with pytest.raises(InputError, match=rf"values from {DEEP.min()} to {DEEP.max()}, outside of 0 to 255; pass"):
        load(folder, scale=255)
    (folder / "a.png").unlink()
    Image.fromarray(np.full((3, 3), np.nan, np.float32)).save(folder / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: values from nan to nan"):
        load(folder, scale=255)


def test_8_bit_files_ignore_the_scale(folder: Path) -> None:
    Image.fromarray(DEEP).save(folder / "a.png")
    Image.fromarray(GRAY).save(folder / "b.png")
    np.testing.assert_array_equal(load(folder, scale=4095).train.images[1, ..., 0], GRAY)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("color.ppm", b"P6 1 1 4095\n" + bytes(6)),
        ("alpha.png", png_16(DEEP[..., None].repeat(3, 2)).replace(b"IDAT", b"tRNS", 1)),
    ],
)
def test_other_deep_files_are_refused_in_one_line(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(folder, scale=65535)
    assert str(caught.value).startswith(f"{folder / name}: ")
    assert "\n" not in str(caught.value)

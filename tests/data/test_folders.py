import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.data import folders, headers
from keras_vae.data.convert import Conversion
from keras_vae.data.folders import load_folder

T = TypeVar("T")
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 9, 7), np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 7, 3), np.uint8)


def write(path: Path, pixels: NDArray[np.uint8], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("pixels", "suffix"), [(GRAY, s) for s in ("png", "bmp", "gif")] + [(RGB, "png"), (RGB, "bmp")]
)
def test_lossless_files_keep_their_pixels_and_are_sorted_by_name(
    folder: Path, pixels: NDArray[np.uint8], suffix: str
) -> None:
    for index in (3, 0, 2, 1):
        write(folder / f"{index}.{suffix}", pixels[index])
    train, test, notes, _ = load_folder(folder, Conversion())
    np.testing.assert_array_equal(train.images, pixels[:4].reshape(4, 9, 7, -1))
    assert (train.name, train.split, train.labels, test, notes) == ("pictures", "all", None, None, ())


def test_lossless_webp_keeps_its_pixels(folder: Path) -> None:
    write(folder / "a.webp", RGB[0], lossless=True)
    np.testing.assert_array_equal(load_folder(folder, Conversion()).train.images[0], RGB[0])


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG", "JPEG"])
def test_jpeg_suffixes_are_case_insensitive(folder: Path, suffix: str) -> None:
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8) * 6
    write(folder / f"a.{suffix}", smooth, format="JPEG", quality=95)
    found = load_folder(folder, Conversion()).train
    assert found.image_shape == (16, 24, 1)
    np.testing.assert_allclose(found.images[0, ..., 0], smooth, atol=4)


def test_first_level_folders_are_classes(folder: Path) -> None:
    write(folder / "dog" / "a.png", GRAY[0])
    write(folder / "cat" / "deep" / "er" / "z.png", GRAY[1])
    write(folder / "cat" / "b.png", GRAY[2])
    train = load_folder(folder, Conversion()).train
    assert train.classes == ("cat", "dog")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(train.images[..., 0], GRAY[[2, 1, 0]])


def test_images_both_directly_and_in_sub_folders_are_rejected(folder: Path) -> None:
    write(folder / "a.png", GRAY[0])
    write(folder / "cat" / "b.png", GRAY[1])
    with pytest.raises(InputError, match=r"both directly in it \(a.png\) and in sub-folders \(cat/b.png\)"):
        load_folder(folder, Conversion())


def test_other_files_are_ignored_and_noted(folder: Path) -> None:
    write(folder / "cat" / "a.png", GRAY[0])
    write(folder / ".hidden" / "b.png", GRAY[1])
    write(folder / "cat" / "._a.png", GRAY[1])
    (folder / "dog").mkdir()
    (folder / "labels.csv").write_text("a.png,cat")
    train, _, notes, _ = load_folder(folder, Conversion())
    assert len(train) == 1
    assert train.classes == ("cat",)
    assert notes == (
        "ignored, hidden or system files: 2 (.hidden, ._a.png)",
        "ignored, not images: 2 (dog, labels.csv)",
    )


@pytest.mark.parametrize("names", [(), ("notes.txt", "mnist.npz")])
def test_folder_without_images_is_rejected(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).write_text("text")
    content = ", only mnist.npz, notes.txt" if names else ""
    with pytest.raises(InputError, match=rf"pictures: no images{content}; accepted: .png, "):
        load_folder(folder, Conversion())


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_file_is_rejected_with_its_path(folder: Path, suffix: str, damage: str) -> None:
    write(folder / f"a.{suffix}", RGB[0])
    bad = write(folder / f"b.{suffix}", RGB[1])
    whole = bad.read_bytes()
    bad.write_bytes({"truncated": whole[: len(whole) * 2 // 3], "text": b"not an image\n", "empty": b""}[damage])
    with pytest.raises(InputError, match=rf"b\.{suffix}: cannot be read: ") as caught:
        load_folder(folder, Conversion())
    assert str(caught.value).count(str(bad)) == 1
    assert "\n" not in str(caught.value)
    if damage != "truncated":
        assert "not a complete PNG, JPEG, WEBP, BMP, GIF, TIFF or PGM/PPM image" in str(caught.value)


def test_different_sizes_are_rejected_with_both_files(folder: Path) -> None:
    write(folder / "a.png", GRAY[0])
    write(folder / "b.png", GRAY[1].T.copy())
    with pytest.raises(
        InputError,
        match=r"different sizes \(H x W\), .*a.png 9x7 and .*b.png 7x9; resize them with --image-size",
    ):
        load_folder(folder, Conversion())
    train, _, notes, _ = load_folder(folder, Conversion((9, 7)))
    np.testing.assert_array_equal(train.images[0, ..., 0], GRAY[0])
    assert train.image_shape == (9, 7, 1)
    assert notes == ("resized to 9x7 (H x W, fit = crop): 1 of 2 images",)


def test_mixed_colors_need_a_conversion(folder: Path) -> None:
    write(folder / "a.png", GRAY[0])
    write(folder / "b.png", RGB[1])
    with pytest.raises(
        InputError, match=r"a.png is gray and .*b.png is rgb; convert them with --color gray or --color rgb"
    ):
        load_folder(folder, Conversion())
    gray, _, notes, _ = load_folder(folder, Conversion(color="gray"))
    np.testing.assert_array_equal(gray.images[0, ..., 0], GRAY[0])
    np.testing.assert_allclose(gray.images[1, ..., 0], RGB[1] @ [0.299, 0.587, 0.114], atol=0.51)
    assert notes == ("RGB converted to gray (luma): 1 of 2 images",)
    color, _, notes, _ = load_folder(folder, Conversion(color="rgb"))
    np.testing.assert_array_equal(color.images, [np.stack([GRAY[0]] * 3, -1), RGB[1]])
    assert notes == ("gray repeated to RGB: 1 of 2 images",)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA"])
def test_all_gray_modes_become_gray(folder: Path, mode: str) -> None:
    image = Image.fromarray(np.where(GRAY[0] > 99, 255, 0).astype(np.uint8))
    image.convert(mode).save(folder / "a.png")
    found = load_folder(folder, Conversion()).train
    np.testing.assert_array_equal(found.images[0, ..., 0], np.asarray(image))


@pytest.mark.parametrize(("mode", "suffix"), [("P", "png"), ("P", "gif"), ("RGBA", "png"), ("CMYK", "jpg")])
def test_all_color_modes_become_rgb(folder: Path, mode: str, suffix: str) -> None:
    image = Image.new("RGB", (4, 8), (255, 0, 0))
    image.convert(mode).save(folder / f"a.{suffix}")
    found = load_folder(folder, Conversion()).train
    assert found.image_shape == (8, 4, 3)
    np.testing.assert_allclose(found.images[0], np.broadcast_to([255, 0, 0], (8, 4, 3)), atol=2)


def test_exif_orientation_is_applied(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # The stored picture must be rotated by 90° clockwise.
    write(folder / "a.png", GRAY[0], exif=exif)
    np.testing.assert_array_equal(load_folder(folder, Conversion()).train.images[0, ..., 0], np.rot90(GRAY[0], -1))


def test_transparent_pixels_need_a_background(folder: Path) -> None:
    alpha = np.full((9, 7, 1), 255, np.uint8)
    write(folder / "a.png", np.concatenate([RGB[0], alpha], -1))
    np.testing.assert_array_equal(load_folder(folder, Conversion()).train.images[0], RGB[0])
    alpha[2:5, 1:3] = 0
    write(folder / "a.png", np.concatenate([RGB[0], alpha], -1))
    with pytest.raises(
        InputError, match=r"a.png: transparent pixels; choose a color for them, such as --background white"
    ):
        load_folder(folder, Conversion())
    for background, color in {"white": (255, 255, 255), "#102030": (16, 32, 48)}.items():
        found = load_folder(folder, Conversion(), background=background).train
        np.testing.assert_array_equal(found.images[0], np.where(alpha, RGB[0], color))


@pytest.mark.parametrize(("background", "channels"), [("black", 1), ("red", 3)])
def test_gray_images_stay_gray_only_on_a_gray_background(folder: Path, background: str, channels: int) -> None:
    write(folder / "a.png", np.stack([GRAY[0], GRAY[1]], -1))
    found = load_folder(folder, Conversion(), background=background).train
    assert found.image_shape == (9, 7, channels)
    opacity = GRAY[1].astype(int)[..., np.newaxis] / 255
    behind = np.array({"black": [0], "red": [255, 0, 0]}[background])
    np.testing.assert_allclose(found.images[0], GRAY[0][..., np.newaxis] * opacity + behind * (1 - opacity), atol=1)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_transparent_palette_entries_need_a_background(folder: Path, suffix: str) -> None:
    image = Image.fromarray(np.indices((4, 4)).sum(0).astype(np.uint8) % 2, "P")
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.save(folder / f"a.{suffix}", transparency=1)
    with pytest.raises(InputError, match="transparent pixels"):
        load_folder(folder, Conversion())
    found = load_folder(folder, Conversion(), background="blue").train.images[0]
    assert found[0, :2].tolist() == [[200, 10, 10], [0, 0, 255]]


@pytest.mark.parametrize("background", ["whit", "", "#ffffff00"])
def test_invalid_backgrounds_are_rejected(folder: Path, background: str) -> None:
    write(folder / "a.png", GRAY[0])
    with pytest.raises(InputError, match=f"^background = '{background}': not an opaque color; pass"):
        load_folder(folder, Conversion(), background=background)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_rejected(folder: Path, suffix: str) -> None:
    frames = [Image.fromarray(pixels) for pixels in RGB[:3]]
    frames[0].save(folder / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=rf"a\.{suffix}: an animated image; pass still images"):
        load_folder(folder, Conversion())


def test_jpeg_with_a_second_picture_is_not_an_animation(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("white", "black")]
    frames[0].save(folder / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert (load_folder(folder, Conversion()).train.images == 255).all()


def deep_png(path: Path, color_type: int, channels: int) -> None:
    """Write a PNG with 16 bits per channel, which Pillow supports only for gray."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 4, 4, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(4 * 2 * channels)) for _ in range(4))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_rejected(folder: Path, color_type: int, channels: int) -> None:
    deep_png(folder / "a.png", color_type, channels)
    with pytest.raises(InputError, match=r"a.png: more than 8 bits per channel; convert it to 8 bits"):
        load_folder(folder, Conversion())


def test_masks_of_zeros_and_ones_are_rejected(folder: Path) -> None:
    write(folder / "a.png", GRAY[0] % 2)
    with pytest.raises(InputError, match="pictures: images: integers that are all 0 or 1"):
        load_folder(folder, Conversion())


def test_links_are_followed_but_cycles_are_not(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.png", GRAY[0])
    os.symlink(tmp_path / "elsewhere", folder / "one")
    os.symlink(tmp_path / "elsewhere", folder / "two")
    os.symlink(folder, folder / "one" / "back")
    os.symlink(folder / "lost", folder / "one" / "lost.png")
    os.symlink("itself.png", folder / "one" / "itself.png")
    train, _, notes, _ = load_folder(folder, Conversion())
    assert train.classes == ("one", "two")
    assert len(train) == 2
    assert notes[0].startswith("ignored, not images: 6 (back, itself.png, lost.png")


def test_named_pipe_with_an_image_suffix_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "a.png")
    with pytest.raises(InputError, match=r"no images, only a.png"):
        load_folder(folder, Conversion())


@pytest.mark.parametrize("threaded", [True, False])
def test_threads_change_neither_order_nor_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch, threaded: bool) -> None:
    monkeypatch.setattr(folders, "MIN_THREADED_PIXELS", 1 if threaded else 10**9)
    monkeypatch.setattr(headers, "_THREADED_BATCH", 4)
    images = RNG.integers(0, 256, (30, 5, 5), np.uint8)
    for index, pixels in enumerate(images):
        write(folder / f"{index:02}.png", pixels)
    seen: list[object] = []

    def show(items: Iterable[T], label: str, /) -> Iterable[T]:
        for item in items:
            seen.append((item, label))
            yield item

    found = load_folder(folder, Conversion(), progress=show).train
    np.testing.assert_array_equal(found.images[..., 0], images)
    labels = ("checking images", "reading images")
    assert seen == [(path, label) for label in labels for path in sorted(folder.iterdir())]


def test_current_folder_can_be_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "a.png", GRAY[0])
    monkeypatch.chdir(folder)
    assert load_folder(Path(), Conversion()).train.name == "pictures"

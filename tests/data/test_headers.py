"""Unusable files of a folder are found before any image is decoded, listed at once, and skipped on request."""

import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.data import decoding, sources
from keras_vae.data.sources import load, stream

RNG = np.random.default_rng(0)
GOOD = RNG.integers(0, 256, (6, 20, 30), np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]


def truncated(path: Path) -> None:
    save(path, Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8)))
    path.write_bytes(path.read_bytes()[:-400])


def animated(path: Path) -> None:
    first, *others = map(Image.fromarray, GOOD[:3])
    save(path, first, save_all=True, append_images=others)


def claims(height: int, width: int) -> bytes:
    """Return a PNG file whose header claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


BROKEN: dict[str, Callable[[Path], object]] = {
    "truncated.png": truncated,
    "truncated.jpg": truncated,
    "truncated.bmp": truncated,
    "truncated.tif": truncated,
    "truncated.ppm": truncated,
    "text.png": lambda path: path.write_text("<html>404</html>"),
    "empty.jpg": lambda path: path.write_bytes(b""),
    "clear.png": lambda path: save(path, Image.new("RGBA", (30, 20))),
    "sixteen.png": lambda path: save(path, Image.fromarray(GOOD[0].astype("uint16") * 100)),
    "sixteen.pgm": lambda path: save(path, Image.fromarray(GOOD[0].astype("uint16") * 100)),
    "float.tiff": lambda path: save(path, Image.fromarray(GOOD[0].astype("float32"))),
    "animated.gif": animated,
    "pages.tif": animated,
    "bomb.png": lambda path: path.write_bytes(claims(30_000, 30_000)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    for index, pixels in enumerate(GOOD):
        save(path / f"good{index}.png", Image.fromarray(pixels))
    return path


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [load, stream])
def test_each_kind_is_rejected_before_decoding_and_can_be_skipped(
    name: str, read: Callable[..., object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BROKEN[name](folder / name)
    decoded: list[str] = []
    original = decoding.Decoder.__call__

    def decode(self: decoding.Decoder, file: Path) -> decoding.DecodedImage:
        decoded.append(Path(file.name).name)
        return original(self, file)

    monkeypatch.setattr(decoding.Decoder, "__call__", decode)
    with pytest.raises(InputError, match=rf"^{folder}/{name}: ") as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    assert not [other for other in decoded if other.startswith("good")]
    loaded = load(folder, skip_broken=True)
    np.testing.assert_array_equal(loaded.train.images[..., 0], GOOD)
    assert [note for note in loaded.notes if note.startswith(f"skipped, cannot be used: 1 of 7 files: {name} (")]
    streamed = stream(folder, skip_broken=True)
    assert (len(streamed), streamed.notes[-1]) == (6, loaded.notes[-1])
    np.testing.assert_array_equal(streamed.read(0).images[..., 0], GOOD)


def test_all_unusable_files_are_listed_at_once(folder: Path) -> None:
    for name, write in BROKEN.items():
        write(folder / name)
    with pytest.raises(InputError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: 14 of 20 files cannot be used: animated.gif (an animated image), bomb.png (")
    assert all(name in message for name in BROKEN)
    for remedy in ("--background white", "--scale 65535", "--skip-broken"):
        assert remedy in message
    for index in range(30):
        (folder / f"more{index}.png").write_text("damaged")
    with pytest.raises(InputError, match=r": 44 of 50 files cannot be used: .*, …; ") as caught:
        load(folder)
    named = re.findall(r"\w+\.\w{3,4}\b", str(caught.value).partition("used: ")[2])
    assert len(named) == 30, "the first 30 are named"
    assert len(load(folder, skip_broken=True).train) == 6
    assert len(load(folder, skip_broken=True, scale=70_000).train) == 6 + 3


def test_damage_inside_a_file_is_listed_after_reading_all_files(folder: Path) -> None:
    for name in ("good1.png", "good4.png"):
        content = bytearray((folder / name).read_bytes())
        content[60:90] = bytes(30)
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=r"2 of 6 files cannot be used: good1.png, good4.png \("):
        load(folder)
    loaded = load(folder, skip_broken=True)
    np.testing.assert_array_equal(loaded.train.images[..., 0], GOOD[[0, 2, 3, 5]])
    streamed = stream(folder, skip_broken=True)
    assert streamed.read(0).names == ("good0.png", "good2.png", "good3.png", "good5.png")


def test_classes_and_splits_keep_their_images_without_skipped_files(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number, name in enumerate(("ant", "bee", "cat")):
            save(tmp_path / split / name / "a.png", Image.fromarray(GOOD[number]))
    (tmp_path / "train" / "bee" / "a.png").write_text("damaged")
    (tmp_path / "test" / "ant" / "a.png").write_text("damaged")
    train, test, _, _ = load(tmp_path, skip_broken=True)
    assert test is not None
    assert [train.classes[number] for number in np.asarray(train.labels)] == ["ant", "cat"]
    assert [test.classes[number] for number in np.asarray(test.labels)] == ["bee", "cat"]
    np.testing.assert_array_equal(test.images[..., 0], GOOD[[1, 2]])
    (tmp_path / "train" / "ant" / "a.png").write_text("damaged")
    (tmp_path / "train" / "cat" / "a.png").write_text("damaged")
    with pytest.raises(InputError, match="no usable training images"):
        load(tmp_path, skip_broken=True)


def test_a_folder_without_any_usable_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("damaged")
    for read in (load, stream):
        with pytest.raises(InputError, match=r"a\.png: cannot be read"):
            read(tmp_path, skip_broken=True)


def test_sizes_and_colors_are_compared_before_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding.Decoder, "__call__", lambda self, file: pytest.fail("decoded"))
    save(folder / "other.png", Image.fromarray(GOOD[0].T.copy()))
    with pytest.raises(InputError, match=r"different sizes \(H x W\), .*good0.png 20x30 and .*other.png 30x20"):
        stream(folder)
    save(folder / "other.png", Image.new("RGB", (30, 20)))
    with pytest.raises(InputError, match=r"both gray and color images, .*good0.png is gray and .*other.png is rgb"):
        stream(folder)


def test_opaque_alpha_channels_and_appended_bytes_are_accepted(folder: Path) -> None:
    save(folder / "good0.png", Image.fromarray(GOOD[0]).convert("LA"))
    smooth = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8)
    save(folder / "good6.jpg", Image.fromarray(smooth), quality=95)
    with (folder / "good6.jpg").open("ab") as file:
        file.write(bytes(100_000))
    found = load(folder).train.images[..., 0]
    np.testing.assert_array_equal(found[0], GOOD[0])
    np.testing.assert_allclose(found[6], smooth, atol=4)


def test_large_images_cause_no_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(folder).train) == len(stream(folder).read(0).images) == 6
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    with pytest.raises(InputError, match=r"good0.png, .* \(600 pixels, of at most 500\); reduce its size; repair"):
        load(folder)


@pytest.mark.parametrize("turned", [False, True])
def test_orientation_counts_in_sizes(folder: Path, turned: bool) -> None:
    exif = Image.Exif()
    exif[274] = 6
    pixels = np.rot90(GOOD[0]) if turned else GOOD[0]
    save(folder / "turned.png", Image.fromarray(np.ascontiguousarray(pixels)), exif=exif if turned else None)
    np.testing.assert_array_equal(load(folder).train.images[6, ..., 0], GOOD[0])
    assert not [note for note in load(folder, image_size=(20, 30)).notes if "resized" in note]


@pytest.mark.parametrize("option", [{"scale": 255.0}, {"skip_broken": True}, {"background": "red"}])
def test_options_of_files_are_rejected_for_arrays(option: dict[str, object], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GOOD)
    for source in (tmp_path / "x.npy", "digits"):
        for read in (sources.load, sources.stream):
            with pytest.raises(InputError, match=f"^{next(iter(option))} = .*folders only"):
                read(source, **option)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf")])
def test_invalid_scales_are_rejected(folder: Path, scale: float) -> None:
    with pytest.raises(InputError, match=re.escape(f"scale = {scale}: not a positive number")):
        load(folder, scale=scale)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes_do_not_block(tmp_path: Path) -> None:
    for name in ("x.npz", "x.npy"):
        os.mkfifo(tmp_path / name)
        for read in (load, stream):
            with pytest.raises(InputError, match="not a regular file"):
                read(tmp_path / name)

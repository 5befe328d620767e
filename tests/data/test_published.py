import gzip
import hashlib
import operator
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.progress import silent
from keras_vae.data import published
from keras_vae.data.published import FASHION_MNIST, MNIST, PublishedDataset

T = TypeVar("T")
RNG = np.random.default_rng(0)
ARRAYS = {
    "x_train": RNG.integers(0, 256, (12, 28, 28), np.uint8),
    "y_train": RNG.integers(0, 10, 12).astype(np.uint8),
    "x_test": RNG.integers(0, 256, (5, 28, 28), np.uint8),
    "y_test": RNG.integers(0, 10, 5).astype(np.uint8),
}
IDX = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]


def write_npz(path: Path, first: int = 0, **arrays: NDArray[np.generic]) -> Path:
    """Write images whose first pixel identifies the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**ARRAYS, "x_train": ARRAYS["x_train"].copy(), **arrays}
    content["x_train"].flat[0] = first
    with path.open("wb") as file:
        np.savez(file, **content)  # type: ignore[arg-type]
    return path


def write_idx(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(IDX, ARRAYS.values(), strict=True):
        header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


def first_pixel(source: PublishedDataset) -> int:
    return int(source.load(silent).train.images.flat[0])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that serves downloads, and register the checksums of its files."""
    folder = tmp_path / "server"
    write_npz(folder / "mnist.npz", 77)
    write_idx(folder)
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    for source in (MNIST, FASHION_MNIST):
        remotes = tuple(remote._replace(sha256=sums[remote.file]) for remote in source.remotes)
        monkeypatch.setitem(source.__dict__, "remotes", remotes)
    monkeypatch.setattr(published, "URL", folder.as_uri() + "/")
    monkeypatch.setattr(published, "urlopen", urlopen)
    return folder


def remaining_files(home: Path) -> list[str]:
    """Return the files below the home folder, including those of unfinished downloads."""
    return sorted(
        str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() or path.name.startswith(".download-")
    )


def test_pixels_labels_and_splits_are_read(home: Path) -> None:
    write_npz(home / ".keras/datasets/mnist.npz", 9)
    train, test, notes, _ = MNIST.load(silent)
    assert test is not None
    assert train.labels is not None
    np.testing.assert_array_equal(test.images[..., 0], ARRAYS["x_test"])
    np.testing.assert_array_equal(train.images[..., 0].flat[1:], ARRAYS["x_train"].flat[1:])
    np.testing.assert_array_equal(train.labels, ARRAYS["y_train"])
    assert (train.name, train.split, test.split) == ("mnist", "train", "test")
    assert train.classes == test.classes == tuple("0123456789")
    assert notes == (f"mnist was read from {home}/.keras/datasets/mnist.npz",)


def test_idx_files_in_the_cache_are_read(home: Path) -> None:
    write_idx(home / ".keras/datasets/fashion-mnist")
    assert FASHION_MNIST.locate().startswith(f"Keras cache {home}")
    train, test, *_ = FASHION_MNIST.load(silent)
    assert test is not None
    assert train.labels is not None
    assert test.labels is not None
    for found, name in ((train.images, "x_train"), (test.images, "x_test")):
        np.testing.assert_array_equal(found[..., 0], ARRAYS[name])
    for labels, name in ((train.labels, "y_train"), (test.labels, "y_test")):
        np.testing.assert_array_equal(labels, ARRAYS[name])
    assert train.classes[9] == "Ankle boot"


def test_local_file_takes_precedence_over_cache_and_download(
    tmp_path: Path, home: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MNIST.locate() == "download, 11 MB"
    assert first_pixel(MNIST) == 77
    write_npz(home / ".keras/datasets/mnist.npz", 1)
    assert first_pixel(MNIST) == 1
    assert MNIST.locate() == f"Keras cache {home}/.keras/datasets/mnist.npz"
    write_npz(tmp_path / "keras/datasets/mnist.npz", 2)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert first_pixel(MNIST) == 2
    local = write_npz(tmp_path / "data/mnist.npz", 3)
    for value in (local.parent, local):
        monkeypatch.setenv("KERAS_VAE_DATA", str(value))
        assert first_pixel(MNIST) == 3
        assert MNIST.locate() == f"local file {local}"
    write_npz(home / "mnist.npz", 4)
    monkeypatch.setenv("KERAS_VAE_DATA", "~/mnist.npz")
    assert first_pixel(MNIST) == 4


@pytest.mark.parametrize("value", ["data/fashion_mnist.npz", "data"])
def test_local_file_with_another_name_is_ignored(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    write_npz(tmp_path / "data/fashion_mnist.npz", 5)
    write_npz(home / ".keras/datasets/mnist.npz", 6)
    monkeypatch.setenv("KERAS_VAE_DATA", str(tmp_path / value))
    assert first_pixel(MNIST) == 6
    assert MNIST.load(silent).notes[1] == f"$KERAS_VAE_DATA = {tmp_path / value} has no mnist.npz"
    assert first_pixel(FASHION_MNIST) == 5


def test_variable_with_a_missing_path_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_VAE_DATA", str(tmp_path / "lost"))
    with pytest.raises(InputError, match=r"\$KERAS_VAE_DATA = .*/lost: does not exist; set it"):
        MNIST.load(silent)
    assert "does not exist" in MNIST.locate()


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": RNG.integers(0, 256, (12, 32, 32), np.uint8)},
        {"x_test": RNG.integers(0, 256, (5, 32, 32), np.uint8)},
        {k: RNG.integers(0, 256, (n, 32, 32), np.uint8) for k, n in (("x_train", 12), ("x_test", 5))},
        {k: RNG.integers(0, 256, (n, 28, 28, 3), np.uint8) for k, n in (("x_train", 12), ("x_test", 5))},
    ],
)
def test_file_with_another_data_set_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, NDArray[np.uint8]]
) -> None:
    monkeypatch.setenv("KERAS_VAE_DATA", str(write_npz(tmp_path / "mnist.npz", 0, **arrays)))
    with pytest.raises(InputError, match=r"mnist.npz: not mnist; expected x_train, y_train, x_test, y_test"):
        MNIST.load(silent)


def test_missing_labels_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=ARRAYS["x_train"], x_test=ARRAYS["x_test"])
    monkeypatch.setenv("KERAS_VAE_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"mnist\.npz: not mnist"):
        MNIST.load(silent)


@pytest.mark.parametrize("end", [0, 30, -40])
def test_damaged_file_in_the_cache_is_rejected_with_its_path(home: Path, end: int) -> None:
    folder = home / ".keras/datasets/fashion-mnist"
    write_idx(folder)
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte.gz: cannot be read: ."):
        FASHION_MNIST.load(silent)


def test_idx_file_of_another_type_is_rejected(home: Path) -> None:
    folder = home / ".keras/datasets/fashion-mnist"
    write_idx(folder)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd"))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz: not an IDX file of unsigned bytes"):
        FASHION_MNIST.load(silent)


@pytest.mark.parametrize("source", [MNIST, FASHION_MNIST])
def test_message_about_a_failed_download_names_the_alternatives(home: Path, source: PublishedDataset) -> None:
    with pytest.raises(RunError, match=f"^data = '{source.name}': download from https://") as caught:
        source.load(silent)
    message = str(caught.value)
    ways = ("--data PATH", "$KERAS_VAE_DATA", str(home / ".keras/datasets"), source.remotes[0].file, "--data digits")
    assert [way for way in ways if way not in message] == []
    assert "failed (no network); pass --data PATH" in message
    assert "\n" not in message
    assert remaining_files(home) == []


def test_download_is_kept_in_the_cache(home: Path, server: Path) -> None:
    train = FASHION_MNIST.load(silent).train
    np.testing.assert_array_equal(train.images[..., 0], ARRAYS["x_train"])
    cache = ".keras/datasets/fashion-mnist"
    assert remaining_files(home) == sorted(f"{cache}/{name}-ubyte.gz" for name in IDX)
    for file in server.glob("*.gz"):
        file.unlink()
    assert FASHION_MNIST.load(silent).train.checksum == train.checksum


def test_only_missing_files_are_downloaded(home: Path, server: Path) -> None:
    write_idx(home / ".keras/datasets/fashion-mnist")
    (home / ".keras/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz").unlink()
    for name in IDX[:3]:
        (server / f"{name}-ubyte.gz").unlink()
    assert len(FASHION_MNIST.load(silent).train) == 12


def test_download_reports_its_progress(home: Path, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_CHUNK_BYTES", 1000)
    shown: list[tuple[str, int, int]] = []

    def show(items: Iterable[T], label: str, /) -> Iterable[T]:
        chunks = list(items)
        shown.append((label, operator.length_hint(items), len(chunks)))
        return chunks

    MNIST.load(show)
    chunks = -(-(server / "mnist.npz").stat().st_size // 1000)
    assert shown == [("downloading mnist.npz", chunks, chunks)]


@pytest.mark.parametrize("change", ["other", "short"])
def test_file_with_a_wrong_checksum_is_not_kept(home: Path, server: Path, change: str) -> None:
    file = server / "mnist.npz"
    if change == "other":
        write_npz(file, 78)
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match="wrong checksum, SHA-256 "):
        MNIST.load(silent)
    assert remaining_files(home) == []


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(ConnectionResetError("reset by peer"), RunError), (TimeoutError(), RunError), (KeyboardInterrupt(), None)],
)
def test_interrupted_download_leaves_no_files(
    home: Path, server: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, raised: type[Exception] | None
) -> None:
    monkeypatch.setattr(published, "_CHUNK_BYTES", 1000)

    def interrupt(items: Iterable[T], label: str, /) -> Iterable[T]:
        for index, item in enumerate(items):
            if index == 2:
                assert len(remaining_files(home)) == 2
                assert not (home / ".keras/datasets/mnist.npz").exists()
                raise failure
            yield item

    with pytest.raises(raised or type(failure)):
        MNIST.load(interrupt)
    assert remaining_files(home) == []


def test_unwritable_cache_is_reported(home: Path, server: Path) -> None:
    (home / ".keras").write_text("a file where the cache should be")
    with pytest.raises(RunError, match=r"download from .* failed .*(Not a directory|File exists)"):
        MNIST.load(silent)

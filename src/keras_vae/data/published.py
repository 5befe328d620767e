"""MNIST and Fashion-MNIST, loaded from a local file or the cache of Keras, or downloaded into that cache."""

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import reading
from keras_vae.core.progress import Progress
from keras_vae.data.arrays import load_arrays
from keras_vae.data.dataset import Dataset, LoadedData

DATA_VARIABLE = "KERAS_VAE_DATA"
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 18
_IDX_UBYTE = 8


class RemoteFile(NamedTuple):
    """Name of a file that Keras hosts at `URL`, its folder in the cache of Keras, and its SHA-256."""

    file: str
    folder: str
    sha256: str


@dataclass(frozen=True)
class PublishedDataset:
    """A data set of 28 x 28 gray images that Keras hosts.

    Args:
        name: Name that the user types; a local copy is `<name>.npz`, in the layout of Keras.
        classes: Names of the labels.
        size: Size of the download, such as `"11 MB"`.
        remotes: Files to download.
        read: Loads the images from the files, given the name and the classes.
    """

    name: str
    classes: tuple[str, ...]
    size: str
    remotes: tuple[RemoteFile, ...]
    read: Callable[[Sequence[Path], str, tuple[str, ...]], LoadedData]

    def locate(self) -> str:
        """Return the current origin of the images: a local file, the cache of Keras, or a download."""
        try:
            local = self.local()
        except InputError as error:
            return str(error)
        if local:
            return f"local file {local}"
        cached = self.cached()
        return f"Keras cache {cached[0]}" if all(path.exists() for path in cached) else f"download, {self.size}"

    def load(self, progress: Progress) -> LoadedData:
        """Load the images from a local file, from the cache of Keras, or by download, in this order.

        Args:
            progress: Reports the progress of downloading.

        Returns:
            Training and test images; the first note names the location.

        Raises:
            InputError: The file is damaged or contains something else.
            RunError: A download fails.
        """
        local = self.local()
        if local:
            return self._check_content(load_arrays(local, name=self.name, classes=self.classes), local)
        cached = self.cached()
        for path, remote in zip(cached, self.remotes, strict=True):
            if not path.exists():
                self._fetch(remote, path, progress)
        loaded = self._check_content(self.read(cached, self.name, self.classes), cached[0])
        value = os.environ.get(DATA_VARIABLE)
        if not value:
            return loaded
        note = f"${DATA_VARIABLE} = {value} has no {self.name}.npz"
        return loaded._replace(notes=(*loaded.notes, note))

    def local(self) -> Path | None:
        """Return this data set's file at `$KERAS_VAE_DATA`, if any.

        Raises:
            InputError: The variable names a path that does not exist.
        """
        value = os.environ.get(DATA_VARIABLE)
        if not value:
            return None
        path = Path(os.path.expanduser(value))
        if not path.exists():
            raise InputError(
                f"${DATA_VARIABLE} = {path.absolute()}: does not exist; set it to an existing file or folder"
            )
        file = path / f"{self.name}.npz" if path.is_dir() else path
        return file if file.name == f"{self.name}.npz" and file.exists() else None

    def cached(self) -> list[Path]:
        """Return the paths of the files in the cache of Keras, whether or not they exist."""
        home = os.path.expanduser(os.environ.get("KERAS_HOME") or os.path.join("~", ".keras"))
        return [Path(home, "datasets", remote.folder, remote.file) for remote in self.remotes]

    def _check_content(self, loaded: LoadedData, path: Path) -> LoadedData:
        """Raise an error if a file contains another data set."""
        train, test, notes, _ = loaded
        if test is None or test.labels is None or {train.image_shape, test.image_shape} != {(28, 28, 1)}:
            raise InputError(
                f"{path}: not {self.name}; expected x_train, y_train, x_test, y_test with gray images of 28x28"
            )
        return LoadedData(train, test, (f"{self.name} was read from {path}", *notes))

    def _fetch(self, remote: RemoteFile, target: Path, progress: Progress) -> None:
        try:
            _download(URL + remote.file, target, remote.sha256, progress)
        except (OSError, HTTPException) as error:
            reason = str(error).strip("<>").removeprefix("urlopen error ") or type(error).__name__
            files = ", ".join(remote.file for remote in self.remotes)
            raise RunError(
                f"data = {self.name!r}: download from {URL + remote.file} failed ({reason}); pass --data PATH,"
                f" set ${DATA_VARIABLE} to {self.name}.npz or its folder, put {files} into {target.parent},"
                " or use --data digits, which needs no download"
            ) from error


class _ResponseChunks:
    """Iterate over the body of a response; `operator.length_hint` returns the number of chunks, 0 if unknown."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return iter(partial(self._response.read, _CHUNK_BYTES), b"")

    def __length_hint__(self) -> int:
        return -(-int(self._response.headers.get("Content-Length") or 0) // _CHUNK_BYTES)


def _download(url: str, target: Path, sha256: str, progress: Progress) -> None:
    """Download and verify a file. Unlike `keras.utils.get_file`, never leave an incomplete or wrong file behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        partial_file = Path(folder, target.name)
        digest = hashlib.sha256()
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as response, partial_file.open("wb") as file:
            for chunk in progress(_ResponseChunks(response), f"downloading {target.name}"):
                file.write(chunk)
                digest.update(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise OSError(f"wrong checksum, SHA-256 {digest.hexdigest()}")
        os.replace(partial_file, target)


def _read_npz(paths: Sequence[Path], name: str, classes: tuple[str, ...]) -> LoadedData:
    return load_arrays(paths[0], name=name, classes=classes)


def _read_idx(paths: Sequence[Path], name: str, classes: tuple[str, ...]) -> LoadedData:
    x_train, y_train, x_test, y_test = map(_idx, paths)
    part = partial(Dataset.from_arrays, name=name, classes=classes)
    with reading(paths[0].parent):
        return LoadedData(part(x_train, y_train, split="train"), part(x_test, y_test, split="test"), ())


def _idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file: two zero bytes, type, rank, big-endian sizes, then the values."""
    with reading(path), gzip.open(path) as file:
        zeros, kind, rank = file.read(2), *file.read(2)
        if zeros != b"\0\0" or kind != _IDX_UBYTE:
            raise InputError("not an IDX file of unsigned bytes; delete it to download it again")
        shape = np.frombuffer(file.read(4 * rank), ">u4")
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


MNIST = PublishedDataset(
    name="mnist",
    classes=tuple("0123456789"),
    size="11 MB",
    remotes=(RemoteFile("mnist.npz", "", "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"),),
    read=_read_npz,
)
FASHION_MNIST = PublishedDataset(
    name="fashion_mnist",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    size="30 MB",
    remotes=tuple(
        RemoteFile(f"{part}-ubyte.gz", "fashion-mnist", sha256)
        for part, sha256 in (
            ("train-images-idx3", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("train-labels-idx1", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ("t10k-images-idx3", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            ("t10k-labels-idx1", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        )
    ),
    read=_read_idx,
)

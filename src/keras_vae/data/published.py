"""MNIST and Fashion-MNIST: a local file, else Keras's cache, else a download into it."""

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


class Remote(NamedTuple):
    """A file that Keras hosts at `URL`, its folder in Keras's cache, and its SHA-256."""

    file: str
    folder: str
    sha256: str


@dataclass(frozen=True)
class Published:
    """A set of 28 x 28 gray images that Keras hosts.

    Args:
        name: What the user calls it; a local file of it is `<name>.npz`, in Keras's layout.
        classes: The names of the labels.
        size: What a download takes, such as `"11 MB"`.
        remotes: The files.
        read: Files, class names → images.
    """

    name: str
    classes: tuple[str, ...]
    size: str
    remotes: tuple[Remote, ...]
    read: Callable[[Sequence[Path], str, tuple[str, ...]], LoadedData]

    def locate(self) -> str:
        """Return where the images would be taken from now, in words."""
        try:
            local = self.local()
        except InputError as error:
            return str(error)
        if local:
            return f"local file {local}"
        cached = self.cached()
        return f"Keras cache {cached[0]}" if all(path.exists() for path in cached) else f"download, {self.size}"

    def load(self, progress: Progress) -> LoadedData:
        """Return the images, from the first place that has them.

        Args:
            progress: Shown while files are downloaded.

        Returns:
            Training and test images; the first note says where they were.

        Raises:
            InputError: When the file found is damaged or holds something else.
            RunError: When a download fails.
        """
        local = self.local()
        if local:
            return self._checked(load_arrays(local, name=self.name, classes=self.classes), local)
        cached = self.cached()
        for path, remote in zip(cached, self.remotes, strict=True):
            if not path.exists():
                self._fetch(remote, path, progress)
        loaded = self._checked(self.read(cached, self.name, self.classes), cached[0])
        value = os.environ.get(DATA_VARIABLE)
        if not value:
            return loaded
        passed = f"${DATA_VARIABLE}, {value}, has no {self.name}.npz"
        return loaded._replace(notes=(*loaded.notes, passed))

    def local(self) -> Path | None:
        """Return the file that `$KERAS_VAE_DATA` offers for this set, if it does.

        Raises:
            InputError: When the variable names something that is not there.
        """
        value = os.environ.get(DATA_VARIABLE)
        if not value:
            return None
        path = Path(os.path.expanduser(value))
        if not path.exists():
            raise InputError(f"${DATA_VARIABLE}: nothing at {path.absolute()}; accepted: a file or folder that exists")
        file = path / f"{self.name}.npz" if path.is_dir() else path
        return file if file.name == f"{self.name}.npz" and file.exists() else None

    def cached(self) -> list[Path]:
        """Return where Keras's cache holds, or would hold, the files."""
        home = os.path.expanduser(os.environ.get("KERAS_HOME") or os.path.join("~", ".keras"))
        return [Path(home, "datasets", remote.folder, remote.file) for remote in self.remotes]

    def _checked(self, loaded: LoadedData, path: Path) -> LoadedData:
        """Refuse another data set under this name."""
        train, test, notes = loaded
        if test is None or test.labels is None or {train.image_shape, test.image_shape} != {(28, 28, 1)}:
            raise InputError(
                f"{path} is not {self.name}; accepted: x_train, y_train, x_test, y_test with gray images of 28x28"
            )
        return LoadedData(train, test, (f"{self.name} was read from {path}", *notes))

    def _fetch(self, remote: Remote, target: Path, progress: Progress) -> None:
        try:
            _download(URL + remote.file, target, remote.sha256, progress)
        except (OSError, HTTPException) as error:
            reason = str(error).strip("<>").removeprefix("urlopen error ") or type(error).__name__
            files = ", ".join(remote.file for remote in self.remotes)
            raise RunError(
                f"{self.name} could not be downloaded from {URL + remote.file}: {reason}. Three ways on: pass"
                f" --data PATH; set ${DATA_VARIABLE} to {self.name}.npz or its folder; put {files} in"
                f" {target.parent}. (--data digits needs no download)"
            ) from error


class _Chunks:
    """The body of a response, piece by piece; `operator.length_hint` tells how many pieces, as far as is known."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return iter(partial(self._response.read, _CHUNK_BYTES), b"")

    def __length_hint__(self) -> int:
        return -(-int(self._response.headers.get("Content-Length") or 0) // _CHUNK_BYTES)


def _download(url: str, target: Path, sha256: str, progress: Progress) -> None:
    """Put a file in its place whole and verified, or not at all (which `keras.utils.get_file` does not promise)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        part = Path(folder, target.name)
        digest = hashlib.sha256()
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as response, part.open("wb") as file:
            for chunk in progress(_Chunks(response), f"downloading {target.name}"):
                file.write(chunk)
                digest.update(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise OSError(f"what arrived is damaged or another file (SHA-256 {digest.hexdigest()})")
        os.replace(part, target)


def _read_npz(paths: Sequence[Path], name: str, classes: tuple[str, ...]) -> LoadedData:
    return load_arrays(paths[0], name=name, classes=classes)


def _read_idx(paths: Sequence[Path], name: str, classes: tuple[str, ...]) -> LoadedData:
    x_train, y_train, x_test, y_test = map(_idx, paths)
    part = partial(Dataset.from_arrays, name=name, classes=classes)
    with reading(paths[0].parent):
        return LoadedData(part(x_train, y_train, split="train"), part(x_test, y_test, split="test"), ())


def _idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of a gzipped IDX file: two zero bytes, type, rank, big-endian sizes, then the values."""
    with reading(path), gzip.open(path) as file:
        zeros, kind, rank = file.read(2), *file.read(2)
        if zeros != b"\0\0" or kind != _IDX_UBYTE:
            raise InputError("not an IDX file of unsigned bytes")
        shape = np.frombuffer(file.read(4 * rank), ">u4")
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


MNIST = Published(
    name="mnist",
    classes=tuple("0123456789"),
    size="11 MB",
    remotes=(Remote("mnist.npz", "", "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"),),
    read=_read_npz,
)
FASHION_MNIST = Published(
    name="fashion_mnist",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    size="30 MB",
    remotes=tuple(
        Remote(f"{part}-ubyte.gz", "fashion-mnist", sha256)
        for part, sha256 in (
            ("train-images-idx3", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("train-labels-idx1", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ("t10k-images-idx3", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            ("t10k-labels-idx1", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        )
    ),
    read=_read_idx,
)

"""WebDataset tars: consecutive files of one name are a sample, an image with its label."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading
from keras_vae.core.progress import Progress
from keras_vae.data.layout import SUFFIXES
from keras_vae.data.records import RecordFiles, Records
from keras_vae.data.sequential import EncodedImage

# In the order of precedence.
_LABELS = ("cls", "json", "txt")


class _Image(NamedTuple):
    """An image in a tar: its name, position and size, its label, and the suffix of the file of the label."""

    name: str
    offset: int
    size: int
    label: int | str | None
    origin: str


def read_tars(found: RecordFiles, progress: Progress) -> Records:
    """List the images of WebDataset tars, and read their labels.

    The label of a sample is the content of its `.cls` file, `label` of its `.json` file, or the content of its `.txt`
    file.

    Args:
        found: The tars.
        progress: Reports the progress of listing.

    Raises:
        InputError: A tar is damaged or truncated, a sample has several images, or only some samples have labels.
    """
    images = [list(_list_images(file)) for file in progress(found.files, "listing images")]
    counts = Counter(image.origin for part in images for image in part)
    total, unlabeled = counts.total(), counts.pop("", 0)
    if 0 < unlabeled < total:
        raise InputError(
            f"{printable(found.root)}: {unlabeled:,} of {total:,} samples have no label; label all or none"
        )
    labels = [image.label for part in images for image in part if image.label is not None]

    def read(number: int, start: int) -> Iterator[EncodedImage]:
        file = found.files[number]
        with file.open("rb") as opened:
            for image in images[number][start:]:
                opened.seek(image.offset)
                path = file / image.name.lstrip("/")
                name = image.name if len(found.files) == 1 else f"{file.name}/{image.name}"
                yield EncodedImage(path, printable(name), opened.read(image.size))

    notes = [f"labels are the content of .{origin} files: {count:,} images" for origin, count in counts.items()]
    return Records(list(map(len, images)), read, _numbers_or_names(labels) if labels else None, (), tuple(notes))


def _numbers_or_names(labels: list[int | str]) -> list[int] | list[str]:
    """Return labels as class numbers if all are integers, otherwise as names."""
    texts = [str(label) for label in labels]
    if all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts):
        return list(map(int, texts))
    return list(map(printable, texts))


def _list_images(file: Path) -> Iterator[_Image]:
    """Yield the images of a tar, in its order."""
    with reading(file), tarfile.open(file, "r:") as tar:
        key, members = "", dict[str, tarfile.TarInfo]()
        while (member := tar.next()) is not None:
            # The archive would keep the headers of all files.
            tar.members = []  # type: ignore[attr-defined]
            path = PurePosixPath(member.name)
            if not member.isreg() or path.name.startswith("."):
                continue
            stem, _, suffix = path.name.partition(".")
            if (current := str(path.with_name(stem))) != key:
                yield from _image(tar, key, members)
                key, members = current, {}
            members[suffix.lower()] = member
        yield from _image(tar, key, members)
        _check_end(file, tar.offset)


def _image(tar: tarfile.TarFile, key: str, members: dict[str, tarfile.TarInfo]) -> Iterator[_Image]:
    """Yield the image of a sample, if any."""
    images = [member for suffix, member in members.items() if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    if len(images) > 1:
        names = " and ".join(printable(member.name) for member in images[:2])
        raise InputError(
            f"several images in the sample {printable(key)}, {names}; keep one per name up to the first dot"
        )
    label, origin = _label(tar, members)
    if images:
        yield _Image(images[0].name, images[0].offset_data, images[0].size, label, origin)
    elif origin:
        raise InputError(
            f"sample {printable(key)}: a label without an image; write the files of a sample one after the other"
        )


def _label(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> tuple[int | str | None, str]:
    """Return the label of a sample and the suffix of its file; None and no suffix without a label."""
    for suffix in _LABELS:
        opened = tar.extractfile(members[suffix]) if suffix in members else None
        if opened is None:
            continue
        text = opened.read().decode("utf-8")
        label: Any = text.strip()
        if suffix == "json":
            content = json.loads(text)
            label = content.get("label") if isinstance(content, dict) else None
        if isinstance(label, int | str) and not isinstance(label, bool):
            return label, suffix
    return None, ""


def _check_end(file: Path, offset: int) -> None:
    """Reject a tar without the block of zeros that ends it: Python ignores that, and headers that are damaged."""
    with file.open("rb") as opened:
        opened.seek(offset)
        if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise InputError(f"no end mark at byte {offset:,}: truncated or damaged; download or write it again")

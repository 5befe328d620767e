"""Sets of images, with optional labels and factors of variation, and their splits."""

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.typing import ImageShape
from keras_vae.data.combining import check_compatible, join, with_same_classes
from keras_vae.data.factors import Factors
from keras_vae.data.labels import encode_labels, renumber
from keras_vae.data.lazy import is_lazy
from keras_vae.data.validation import check_image_shape, mask_missing, numeric_array, pixel_levels

SAMPLE_BYTES = 2**27
"""Size of the sample that represents a larger set of streamed images."""

SPLITS = ("train", "validation", "test", "all")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one shape as 8-bit levels, with optional labels and factors.

    Args:
        images: uint8 levels 0..255, N x H x W x C with C = 1 (gray) or 3 (RGB): an array, a masked array if pixels are
            missing, or `LazyImages`, which are read when they are indexed.
        labels: int64 class numbers, one per image, or `None`.
        name: Name in records, such as `"mnist"` or the name of a file or folder.
        split: Part of the source: `"train"`, `"validation"`, `"test"` or `"all"`.
        classes: Names of the classes 0, 1, …. Without them, the distinct labels become the names of the classes, and
            `labels` the class numbers: see `labels.encode_labels`.
        factors: Factors of variation, or `None`.
        positions: Position of each image in the source, or `None` for all images in their original order.
        is_lossy: Whether image files of the source were compressed with loss, as JPEG files are.

    Raises:
        InputError: A field is invalid; `from_arrays` accepts more types.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    name: str
    split: str
    classes: tuple[str, ...] = ()
    factors: Factors | None = None
    positions: NDArray[np.integer] | None = None
    is_lossy: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise InputError(
                f"images: {self.images.dtype} of shape {self.images.shape}; pass uint8, N x H x W x C"
                " (Dataset.from_arrays accepts more types)"
            )
        check_image_shape(self.images.shape)
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        if self.factors is not None and len(self.factors.values) != len(self):
            raise InputError(f"factors: {len(self.factors.values)} rows for {len(self)} images; pass one row per image")
        if self.labels is None:
            return
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self),):
            raise InputError(
                f"labels: {self.labels.dtype} of shape {self.labels.shape} for {len(self)} images;"
                f" pass int64 of shape ({len(self)},)"
            )
        if len(set(self.classes)) < len(self.classes):
            raise InputError(f"classes = {self.classes}: a name occurs twice; pass unique names")
        if not self.classes:
            numbers, classes = encode_labels(self.labels, len(self))
            object.__setattr__(self, "labels", numbers)
            object.__setattr__(self, "classes", classes)
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0:
            raise InputError(f"labels: from {low} to {high}; pass class numbers, counted from 0")
        if high >= len(self.classes):
            raise InputError(
                f"labels: from {low} to {high} with {len(self.classes)} classes; pass 0 to {len(self.classes) - 1}"
            )

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        name: str,
        split: str = "all",
        classes: Sequence[str] = (),
        factors: Factors | None = None,
        mask: ArrayLike | None = None,
    ) -> "Dataset":
        """Return a data set made from arrays of any numeric dtype.

        Booleans become the levels 0 and 255, floats in [0, 1] are rounded to the nearest of the 256 levels, and
        integers 0..255 are kept.

        Args:
            images: N x H x W or N x H x W x C, with C = 1 (gray) or 3 (RGB); a masked array if pixels are missing.
            labels: Integers or texts, N or N x 1, or one-hot vectors, N x K; see `labels.encode_labels`.
            name: Name in records.
            split: Part of the source.
            classes: Names of the classes 0, 1, …, if known. Integer labels are then class numbers.
            factors: Factors of variation.
            mask: True for observed pixels, N x H x W or N x H x W x C; the others are missing, and may be NaN.

        Returns:
            The data set; uint8 images share memory with the argument.

        Raises:
            InputError: The shape, dtype or range is invalid. Integers that are all 0 or 1 are also rejected, because
                they would be nearly black on the scale 0..255.

        Example:
            >>> Dataset.from_arrays([[[0.0, 0.5], [1.0, 0.2]]], name="four pixels").images.ravel().tolist()
            [0, 128, 255, 51]
        """
        pixels = numeric_array("images", images)
        # A last axis of size 1 or 3 is interpreted as the channels of one image, not as the width of several.
        if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3):
            pixels = pixels[..., np.newaxis]
        if pixels.ndim != 4:
            hint = " (for a single image, add a first axis)" if pixels.ndim == 3 else ""
            raise InputError(
                f"images.shape = {pixels.shape}: not images; pass N x H x W or N x H x W x C, C = 1 or 3{hint}"
            )
        check_image_shape(pixels.shape)
        pixels = mask_missing(pixels, None if mask is None else np.asarray(mask))
        numbers, names = None, tuple(classes)
        if labels is not None:
            numbers, names = encode_labels(labels, len(pixels), classes)
        return cls(pixel_levels(pixels), numbers, name, split, names, factors)

    def __repr__(self) -> str:
        """Return the size of the data set in one line."""
        kind = {"train": "training ", "all": ""}.get(self.split, f"{self.split} ")
        classes = f", {len(self.classes)} classes" if self.classes else ""
        factors = f", {len(self.factors.names)} factors" if self.factors is not None else ""
        return f"Dataset({self.name!r}: {len(self):,} {kind}images of {_size(self)}{classes}{factors})"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def present_classes(self) -> tuple[str, ...]:
        """Names of the classes of at least one image; empty without labels."""
        return () if self.labels is None else tuple(self.classes[number] for number in np.unique(self.labels))

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of each image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def is_streamed(self) -> bool:
        """Whether the images are read when they are indexed."""
        return is_lazy(self.images)

    @property
    def has_missing(self) -> bool:
        """Whether pixels are missing."""
        return isinstance(self.images, np.ma.MaskedArray)

    @functools.cached_property
    def checksum(self) -> str:
        """Hexadecimal SHA-256 of shape, pixels, mask, labels and factors; the same on every machine.

        For streamed images, it contains names, sizes and times of files and samples of their content, not the pixels.
        """
        digest = hashlib.sha256(repr(self.images.shape).encode())
        if is_lazy(self.images):
            digest.update(f"files {self.images.fingerprint}".encode())
        else:
            digest.update(np.ascontiguousarray(self.images).data)
        if self.has_missing:
            digest.update(b"mask")
            digest.update(np.packbits(np.ma.getmaskarray(self.images)).data)
        if self.labels is not None:
            digest.update(b"labels")
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        if self.factors is not None:
            digest.update(f"factors {self.factors.names} {self.factors.sizes}".encode())
            digest.update(np.ascontiguousarray(self.factors.values, dtype="<i8").data)
        return digest.hexdigest()

    def subset(self, indices: NDArray[np.integer], split: str) -> "Dataset":
        """Return the images at the given positions, in that order, as another split of the same source.

        Args:
            indices: Positions in this data set.
            split: Name of the new split.

        Returns:
            The subset, with its own copy of the pixels; streamed images remain on disk.
        """
        labels = None if self.labels is None else self.labels[indices]
        factors = None if self.factors is None else self.factors.subset(indices)
        positions = indices if self.positions is None else self.positions[indices]
        images: Any = self.images.subset(indices) if is_lazy(self.images) else self.images[indices]
        return replace(self, images=images, labels=labels, split=split, factors=factors, positions=positions)

    def with_classes(self, classes: Sequence[str]) -> "Dataset":
        """Return the same images with the class numbers of other names; each image keeps the name of its class.

        Args:
            classes: Names of the classes 0, 1, …; more than those of this data set are accepted.

        Raises:
            InputError: `classes` lacks the class of an image.
        """
        if self.labels is None or self.classes == tuple(classes):
            return self
        labels = renumber(self.labels, self.classes, classes, argument=f"data = {self.name}")
        return replace(self, labels=labels, classes=tuple(classes))

    def subsample_evenly(self, count: int) -> "Dataset":
        """Return at most `count` images in memory, evenly spaced, because sources are often sorted by class.

        Args:
            count: Number of images, at least 1.
        """
        return self.subset(evenly_spaced(len(self), count), self.split).in_memory()

    def sample(self) -> "Dataset":
        """Return the data set itself or, of streamed images, a sample of at most 128 MiB, evenly spaced.

        Measurements that need all images at once use this sample.
        """
        if not self.is_streamed:
            return self
        count = max(1, SAMPLE_BYTES // math.prod(self.image_shape))
        return self.in_memory() if len(self) <= count else self.subsample_evenly(count)

    def in_memory(self) -> "Dataset":
        """Return the data set with all images in memory."""
        return replace(self, images=np.asarray(self.images)) if self.is_streamed else self


def _size(dataset: Dataset) -> str:
    return "×".join(map(str, dataset.image_shape))


def evenly_spaced(total: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` evenly spaced positions from 0 to `total` − 1.

    Args:
        total: Number of items.
        count: Number of positions, at least 1.

    Example:
        >>> evenly_spaced(10, 4).tolist()
        [0, 3, 6, 9]
    """
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


class LoadedData(NamedTuple):
    """Images of a source: training images, its own test and validation images if any, and one note per change made."""

    train: Dataset
    test: Dataset | None
    notes: tuple[str, ...]
    validation: Dataset | None = None


class Splits(NamedTuple):
    """Images for training, for validation during training, and for the final test."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None

    def __repr__(self) -> str:
        """Return the sizes of the splits in one line."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(part):,} {kind}" for kind, part in parts.items() if part is not None)
        return f"Splits({self.train.name!r}: {counts} images of {_size(self.train)})"

    @property
    def held_out(self) -> Dataset | None:
        """The images for evaluation: the test split, else the validation split."""
        return self.test if self.test is not None else self.validation

    @property
    def are_complete(self) -> bool:
        """Whether no pixel is missing."""
        return not any(part is not None and part.has_missing for part in self)

    def sample(self) -> "Splits":
        """Return the samples of all splits; see `Dataset.sample`."""
        return Splits(*(None if part is None else part.sample() for part in self))  # type: ignore[arg-type]

    @property
    def checksum(self) -> str:
        """The checksums of the splits, joined by hyphens."""
        return "-".join(dataset.checksum for dataset in self if dataset is not None)


def split(
    train: Dataset,
    test: Dataset | None,
    *,
    validation: float,
    test_size: float,
    holdout: bool,
    seed: int,
    own_validation: Dataset | None = None,
) -> Splits:
    """Split a source at random into training, validation and test images.

    A size is either a number of images (an `int`), or a fraction in [0, 1) of the source's training images, rounded to
    at least one image unless it is 0. Equal seeds give equal splits. The test images do not depend on `validation`.

    Args:
        train: The source's training images, or all of its images.
        test: The source's own test images, if any; they are kept whole.
        validation: Size of the validation split, which is taken from `train`; unused if the source has validation
            images.
        test_size: Size of the test split, which is taken from `train`; unused if the source has test images.
        holdout: `False` trains on all images, including the test images, and holds none out.
        seed: Non-negative integer.
        own_validation: The source's own validation images, if any; they are kept whole.

    Returns:
        The splits, each in the source's order; `None` for an empty split. Their classes have the same numbers: those
        of the training images, then those that occur only in other images.

    Raises:
        InputError: A size is out of range or leaves no training images, or there is only one image.

    Example:
        >>> digits = Dataset.from_arrays(np.arange(80.0).reshape(10, 2, 4) / 79, name="ten")
        >>> [len(part) for part in split(digits, None, validation=0.2, test_size=1, holdout=True, seed=0)]
        [7, 2, 1]
    """
    own = [part for part in (own_validation, test) if part is not None]
    for other in own:
        check_compatible(train, other)
    train, own_validation, test = with_same_classes(train, own_validation, test)
    if not holdout:
        whole = functools.reduce(join, (part for part in (own_validation, test) if part is not None), train)
        _check_count(len(whole))
        return Splits(replace(whole, split="all"), None, None)
    _check_count(len(train))
    count = len(train)
    num_test = _number_of_images("test_size", test_size, count) if test is None else 0
    num_validation = _number_of_images("validation", validation, count) if own_validation is None else 0
    num_held_out = num_test + num_validation
    if num_held_out >= count:
        raise InputError(
            f"validation = {validation}, test_size = {test_size}: they hold out {num_validation} and {num_test} of"
            f" {count} images, which leaves none to train on; reduce them"
        )
    order = _generator(seed).permutation(count)
    test_indices, validation_indices, train_indices = np.split(order, [num_test, num_held_out])

    def part(indices: NDArray[np.integer], name: str) -> Dataset | None:
        return train.subset(np.sort(indices), name) if len(indices) else None

    return Splits(
        train=train.subset(np.sort(train_indices), "train") if num_held_out else replace(train, split="train"),
        validation=(
            part(validation_indices, "validation")
            if own_validation is None
            else replace(own_validation, split="validation")
        ),
        test=part(test_indices, "test") if test is None else replace(test, split="test"),
    )


def _check_count(count: int) -> None:
    if count < 2:
        raise InputError("images: a single image cannot be split or trained on; pass at least two")


def _number_of_images(name: str, value: float, count: int) -> int:
    """Convert a size, which may be a fraction of `count`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    if isinstance(value, float | np.floating) and 0 <= value < 1:
        return max(1, math.floor(value * count + 0.5)) if value else 0
    raise InputError(f"{name} = {value!r}: not a size; pass a fraction in [0, 1) or a number of images")


def _generator(seed: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed = {seed!r}: not a seed; pass a non-negative integer")
    return np.random.default_rng(seed)

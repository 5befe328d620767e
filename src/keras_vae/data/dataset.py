"""What a set of images is: 8-bit pixels, optional labels and factors, and how they are split."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.typing import ImageShape

SPLITS = ("train", "validation", "test", "all")


@dataclass(frozen=True, eq=False)
class Factors:
    """What is known to vary from image to image: a few whole numbers an image, such as its shape and its place.

    Args:
        names: What each factor is called.
        sizes: How many values each can take.
        values: int64 (N, F), one row an image, each value counted from 0 and below its factor's size.

    Raises:
        InputError: When a field is not of the form above; `from_array` takes other forms.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    values: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse fields that break the promises above."""
        values, count = self.values, len(self.names)
        if values.dtype != np.int64 or values.ndim != 2 or 0 in values.shape:
            raise InputError(f"factors: {values.dtype} of shape {values.shape}; accepted: int64, N x F, none of them 0")
        if values.shape[1] != count or len(self.sizes) != count or len(set(self.names)) != count:
            raise InputError(
                f"factors: {values.shape[1]} columns, names {self.names}, sizes {self.sizes}; accepted: one name, "
                "not used twice, and one size a column"
            )
        low, high = values.min(0), values.max(0)
        if (low < 0).any() or (high >= self.sizes).any():
            raise InputError(
                f"factors: values from {low.tolist()} to {high.tolist()} for sizes {self.sizes}; accepted: whole "
                "numbers, counted from 0, below the size"
            )

    @classmethod
    def from_array(cls, values: ArrayLike, names: Sequence[str] = (), sizes: Sequence[int] = ()) -> "Factors":
        """Return the factors of an array as people have it.

        Args:
            values: Integers (N, F), counted from 0.
            names: What they are called; `factor_0` and so on unless given.
            sizes: How many values each can take; unless given, one more than the largest that occurs.

        Raises:
            InputError: For any other shape, type or range.

        Example:
            >>> Factors.from_array([[0, 3], [1, 0]]).sizes
            (2, 4)
        """
        numbers = _array("factors", values)
        if numbers.dtype.kind not in "iu" or numbers.ndim != 2 or 0 in numbers.shape:
            raise InputError(f"factors: {numbers.dtype} of shape {numbers.shape}; accepted: integers, N x F")
        return cls(
            tuple(names) or tuple(f"factor_{column}" for column in range(numbers.shape[1])),
            tuple(map(int, sizes)) or tuple((numbers.max(0) + 1).tolist()),
            numbers.astype(np.int64, copy=False),
        )

    def take(self, indices: NDArray[np.integer]) -> "Factors":
        """Return the factors of the images at the given positions, in that order."""
        return replace(self, values=self.values[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one shape as 8-bit levels, with their labels and factors where there are any.

    Args:
        images: uint8 levels 0..255, N x H x W x C with C = 1 (gray) or 3 (RGB).
        labels: int64 class numbers, one an image, or `None`.
        name: What the images are called in records, such as `"mnist"` or the name of a file or folder.
        split: Which part of the source this is: `"train"`, `"validation"`, `"test"` or `"all"`.
        classes: The names of the labels 0, 1, …, where they are known.
        factors: What is known to vary between the images, or `None`.
        positions: Where in the source each image stood, if this is a part of it, or `None` for all of it in its order.

    Raises:
        InputError: When a field is not of the form above; `from_arrays` takes other forms.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    name: str
    split: str
    classes: tuple[str, ...] = ()
    factors: Factors | None = None
    positions: NDArray[np.integer] | None = None

    def __post_init__(self) -> None:
        """Refuse fields that break the promises above."""
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise InputError(
                f"images: {self.images.dtype} of shape {self.images.shape}; accepted: uint8, N x H x W x C"
                " (Dataset.from_arrays takes other forms)"
            )
        _require_images(self.images.shape)
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        if self.factors is not None and len(self.factors.values) != len(self):
            raise InputError(f"factors: {len(self.factors.values)} rows for {len(self)} images; accepted: one an image")
        if self.labels is None:
            return
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self),):
            raise InputError(
                f"labels: {self.labels.dtype} of shape {self.labels.shape} for {len(self)} images;"
                f" accepted: int64 of shape ({len(self)},)"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0:
            raise InputError(f"labels: from {low} to {high}; accepted: class numbers, counted from 0")
        if self.classes and high >= len(self.classes):
            raise InputError(
                f"labels: from {low} to {high} with {len(self.classes)} classes; accepted: 0 to {len(self.classes) - 1}"
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
    ) -> "Dataset":
        """Return the data set of arrays as people have them.

        Booleans become the levels 0 and 255, floats in [0, 1] are rounded to the nearest of the 256 levels, integers
        0..255 are kept.

        Args:
            images: N x H x W or N x H x W x C, with C = 1 (gray) or 3 (RGB).
            labels: Integers, N or N x 1.
            name: What the images are called in records.
            split: Which part of the source this is.
            classes: The names of the labels 0, 1, …, where they are known.
            factors: What is known to vary between the images.

        Returns:
            The data set; uint8 images share memory with the argument.

        Raises:
            InputError: For any other shape, type or range: integers that are all 0 or 1 among them, which would be
                nearly black on the scale 0..255.

        Example:
            >>> Dataset.from_arrays([[[0.0, 0.5], [1.0, 0.2]]], name="four pixels").images.ravel().tolist()
            [0, 128, 255, 51]
        """
        pixels = _array("images", images)
        # A last axis of 1 or 3 is the channels of one image rather than the width of many.
        if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3):
            pixels = pixels[..., np.newaxis]
        if pixels.ndim != 4:
            one = " (one image? give it a first axis, and others beside it)" if pixels.ndim == 3 else ""
            raise InputError(f"images: shape {pixels.shape}{one}; accepted: N x H x W or N x H x W x C, C = 1 or 3")
        _require_images(pixels.shape)
        numbers = None if labels is None else _labels(labels, len(pixels))
        return cls(_levels(pixels), numbers, name, split, tuple(classes), factors)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of each image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over shape, pixels, labels and factors, in hexadecimal; the same on every machine."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            digest.update(b"labels")
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        if self.factors is not None:
            digest.update(f"factors {self.factors.names} {self.factors.sizes}".encode())
            digest.update(np.ascontiguousarray(self.factors.values, dtype="<i8").data)
        return digest.hexdigest()

    def take(self, indices: NDArray[np.integer], split: str) -> "Dataset":
        """Return the images at the given positions, in that order, as another split of the same source.

        Args:
            indices: Positions in this data set.
            split: What the new part is called.

        Returns:
            The part, with its own copy of the pixels.
        """
        labels = None if self.labels is None else self.labels[indices]
        factors = None if self.factors is None else self.factors.take(indices)
        positions = indices if self.positions is None else self.positions[indices]
        images = self.images[indices]
        return replace(self, images=images, labels=labels, split=split, factors=factors, positions=positions)

    def subsample_evenly(self, count: int) -> "Dataset":
        """Return at most so many of the images, evenly spaced: sources often come sorted by class.

        Args:
            count: How many, at least 1.
        """
        return self.take(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int), self.split)


class LoadedData(NamedTuple):
    """What a source gave: its training images, its own test images if it has any, and one line on each change made."""

    train: Dataset
    test: Dataset | None
    notes: tuple[str, ...]


class Splits(NamedTuple):
    """What a model is trained on, watched on and judged on."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None

    @property
    def held_out(self) -> Dataset | None:
        """The images on which a model may be judged: the test split, else the validation split."""
        return self.test if self.test is not None else self.validation

    @property
    def checksum(self) -> str:
        """The checksums of the parts, in one text."""
        return "-".join(dataset.checksum for dataset in self if dataset is not None)


def split(
    train: Dataset,
    test: Dataset | None,
    *,
    validation: float,
    test_size: float,
    holdout: bool,
    seed: int,
) -> Splits:
    """Divide what a source gave into training, validation and test images, drawn at random from the seed alone.

    A size is a fraction in [0, 1) of the source's training images, rounded to whole images and never to none, or a
    whole number of images (an `int`). The test images are the same whatever `validation` is.

    Args:
        train: The source's training images, or all it has.
        test: The source's own test images, kept whole, if it has any.
        validation: Size of the validation part, taken from `train`.
        test_size: Size of the test part, taken from `train`; it counts only where the source has no test images.
        holdout: `False` trains on every image, train and test together, and holds none back.
        seed: Non-negative integer that decides who goes where.

    Returns:
        The parts, each in the source's order; `None` for a part of no images.

    Raises:
        InputError: When a size is out of range or leaves no image to train on, and when there is only one image.

    Example:
        >>> digits = Dataset.from_arrays(np.arange(80.0).reshape(10, 2, 4) / 79, name="ten")
        >>> [len(part) for part in split(digits, None, validation=0.2, test_size=1, holdout=True, seed=0)]
        [7, 2, 1]
    """
    if not holdout:
        whole = train if test is None else _join(train, test)
        _require_two(len(whole))
        return Splits(replace(whole, split="all"), None, None)
    _require_two(len(train))
    if test is not None:
        require_alike(train, test)
    count = len(train)
    held_test = _size("test_size", test_size, count) if test is None else 0
    held_validation = _size("validation", validation, count)
    if held_test + held_validation >= count:
        raise InputError(
            f"validation, test_size: {validation} and {test_size} hold back {held_validation} and {held_test} of"
            f" {count} images, which leaves none to train on"
        )
    order = _generator(seed).permutation(count)
    tested, validated, trained = np.split(order, [held_test, held_test + held_validation])

    def part(indices: NDArray[np.integer], name: str) -> Dataset | None:
        return train.take(np.sort(indices), name) if len(indices) else None

    return Splits(
        train=train.take(np.sort(trained), "train") if len(trained) < count else replace(train, split="train"),
        validation=part(validated, "validation"),
        test=part(tested, "test") if test is None else replace(test, split="test"),
    )


def require_alike(train: Dataset, test: Dataset) -> None:
    """Refuse training and test images that cannot be shown to the same model.

    Args:
        train: The training images.
        test: The test images.

    Raises:
        InputError: When shapes, classes or the kinds of factors differ, or only one of the two has labels.
    """
    if train.image_shape != test.image_shape:
        shapes = " and ".join(" x ".join(map(str, part.image_shape)) for part in (train, test))
        raise InputError(f"train and test images differ in shape: {shapes}; accepted: the same H x W x C")
    if (train.labels is None) != (test.labels is None) or train.classes != test.classes:
        raise InputError("train and test differ in labels: give both labels of the same classes, or neither")
    kinds = [part.factors and (part.factors.names, part.factors.sizes) for part in (train, test)]
    if kinds[0] != kinds[1]:
        raise InputError("train and test differ in factors: give both factors of the same names and sizes, or neither")


def _join(train: Dataset, test: Dataset) -> Dataset:
    require_alike(train, test)
    labels = None
    if train.labels is not None and test.labels is not None:
        labels = np.concatenate([train.labels, test.labels])
    factors = None
    if train.factors is not None and test.factors is not None:
        factors = replace(train.factors, values=np.concatenate([train.factors.values, test.factors.values]))
    return replace(train, images=np.concatenate([train.images, test.images]), labels=labels, factors=factors)


def _require_two(count: int) -> None:
    if count < 2:
        raise InputError("images: one image cannot be split or trained on; give at least two")


def _size(name: str, value: float, count: int) -> int:
    """Return a size as a number of images."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    if isinstance(value, float | np.floating) and 0 <= value < 1:
        return max(1, math.floor(value * count + 0.5)) if value else 0
    raise InputError(f"{name}: {value!r}; accepted: a fraction in [0, 1) or a whole number of images")


def _generator(seed: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: {seed!r}; accepted: a non-negative integer")
    return np.random.default_rng(seed)


def _array(name: str, values: ArrayLike) -> NDArray[np.generic]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: not one array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: an array of {array.dtype}; accepted: numbers or booleans")
    return array


def _require_images(shape: tuple[int, ...]) -> None:
    """Refuse N x H x W x C shapes that hold no image, or images of other than one or three channels."""
    if 0 in shape:
        raise InputError(f"images: shape {shape} holds no pixels; give at least one image")
    if shape[3] not in (1, 3):
        hint = "; channels come last: transpose to N x H x W x C" if shape[1] in (1, 3) else ""
        raise InputError(f"images: shape {shape} has {shape[3]} channels; accepted: 1 (gray) or 3 (RGB){hint}")


def _levels(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return pixels of any accepted type as the levels 0..255."""
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f":
        if not np.isfinite([low, high]).all():
            raise InputError("images: NaN or infinite pixels; accepted: floats in [0, 1]")
        if low < 0 or high > 1:
            raise InputError(
                f"images: floats from {low:.6g} to {high:.6g}; accepted: floats in [0, 1]"
                " (divide levels 0..255 by 255, or give them as uint8)"
            )
        unit = pixels.astype(np.promote_types(pixels.dtype, np.float32))
        levels: NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
        return levels
    if low < 0 or high > 255:
        raise InputError(f"images: integers from {low} to {high}; accepted: integers 0 to 255")
    if high <= 1:
        raise InputError(
            "images: integers that are all 0 or 1, nearly black on the scale 0..255;"
            " accepted: levels 0 and 255, booleans, or floats in [0, 1]"
        )
    return pixels.astype(np.uint8, copy=False)


def _labels(labels: ArrayLike, count: int) -> NDArray[np.int64]:
    numbers = _array("labels", labels)
    if numbers.dtype.kind == "f":
        raise InputError(f"labels: an array of {numbers.dtype}; accepted: integers")
    if numbers.shape == (count, 1):
        numbers = numbers[:, 0]
    if numbers.shape != (count,):
        raise InputError(f"labels: shape {numbers.shape} for {count} images; accepted: one integer an image")
    if numbers.max() > np.iinfo(np.int64).max:
        raise InputError(f"labels: up to {numbers.max()}; accepted: integers that fit 64 bits")
    return numbers.astype(np.int64, copy=False)

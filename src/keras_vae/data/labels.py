"""Class labels: the number and the name of each class."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.errors import InputError, listed, unknown
from keras_vae.data.validation import numeric_array

_MAX_DIGITS = 9
"""Number of digits up to which a label can be a class number; Python refuses to convert thousands of digits."""


def class_index(names: Sequence[str], label: str | int, *, argument: str = "label") -> int:
    """Return the number of the class that a label refers to, by the rule that every entry point follows.

    A label given as text is a class name. If no class name is a number, text of digits is a class number, counted
    from 0. A label given as an integer is a class number, as in `Dataset.labels`; it is rejected if classes are named
    by other numbers, because `1` could then mean either the class named 1 or the class after class 0.

    Args:
        names: Names of the classes 0, 1, ….
        label: The label.
        argument: Name of the argument, for messages.

    Returns:
        A class number, from 0 to `len(names)` − 1.

    Raises:
        InputError: There is no such class, or the label is an integer and the names are other numbers.

    Example:
        >>> class_index(("1", "2", "3"), "1"), class_index(("cat", "dog"), "1")
        (0, 1)
    """
    # `isdecimal` accepts the digits of every script, and `int` reads them all.
    named_by_numbers = any(name.isdecimal() for name in names)
    if isinstance(label, str):
        if label in names:
            return names.index(label)
        if not named_by_numbers and label.isdecimal() and len(label) <= _MAX_DIGITS and int(label) < len(names):
            return int(label)
        raise unknown(argument, label, names)
    number = int(label)
    is_number = 0 <= number < len(names)
    if is_number and (not named_by_numbers or names[number] == str(number)):
        return number
    if is_number or str(number) in names:
        raise InputError(
            f"{argument} = {number}: ambiguous, because classes are named by other numbers ({listed(names)}); pass a "
            "name as text, or an array of class numbers"
        )
    raise unknown(argument, number, names)


def encode_labels(
    labels: ArrayLike, count: int, classes: Sequence[str] = (), *, argument: str = "labels"
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the class number of each image, and the names of the classes.

    The classes are the distinct labels, in numerical or alphabetical order, so that labels 3, 7 and 250 are three
    classes. One-hot vectors of length K have the classes 0 to K − 1.

    Args:
        labels: One integer or text per image, N or N x 1; or one-hot vectors, N x K with K of at least 2.
        count: Number of images, N.
        classes: Names of the classes, if known. Integers are then class numbers, and texts are names.
        argument: Name of the argument, for messages.

    Returns:
        int64 (N,), and one name per class.

    Raises:
        InputError: The labels have another type, are negative or not among the classes, or their number differs from
            that of the images.

    Example:
        >>> numbers, classes = encode_labels([250, 3, 7, 3], 4)
        >>> numbers.tolist(), classes
        ([2, 0, 1, 0], ('3', '7', '250'))
    """
    values, size = _values(labels, count, argument)
    if values.dtype.kind == "U":
        names, numbers = np.unique(values, return_inverse=True)
        found = tuple(names.tolist())
        if not classes:
            return numbers.astype(np.int64), found
        return renumber(numbers, found, classes, argument=argument), tuple(classes)
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise InputError(f"{argument}: from {low} to {high}; pass class numbers, counted from 0, or names")
    if classes:
        if size and size != len(classes):
            raise InputError(
                f"{argument}: one-hot vectors of {size} with {len(classes)} classes; pass one entry per class"
            )
        return values, tuple(classes)
    if size:
        return values, tuple(map(str, range(size)))
    distinct, numbers = np.unique(values, return_inverse=True)
    return numbers.astype(np.int64), tuple(map(str, distinct.tolist()))


def renumber(
    numbers: NDArray[np.integer[Any]], names: Sequence[str], target: Sequence[str], *, argument: str = "data"
) -> NDArray[np.int64]:
    """Return the class numbers of the same classes in another list of names.

    Args:
        numbers: Class numbers, (N,).
        names: Names of the classes 0, 1, … so far.
        target: Names of the classes 0, 1, … of the result.
        argument: Name of the argument, for messages.

    Returns:
        int64 (N,).

    Raises:
        InputError: `target` lacks the name of a number that occurs.

    Example:
        >>> renumber(np.array([0, 1, 1]), ("cat", "dog"), ("bird", "cat", "dog")).tolist()
        [1, 2, 2]
    """
    check_known((names[number] for number in np.unique(numbers).tolist()), target, argument=argument)
    positions = {name: number for number, name in enumerate(target)}
    return np.array([positions.get(name, -1) for name in names], np.int64)[numbers]


def check_known(names: Iterable[str], known: Sequence[str], *, argument: str = "data", run: str | None = None) -> None:
    """Raise an error if a class is unknown.

    Args:
        names: Names of classes.
        known: Names of the known classes.
        argument: Name of the argument, for messages.
        run: Name of the run that was trained on the known classes, if any, for messages.

    Raises:
        InputError: A name is unknown. The message lists the unknown and the known names.
    """
    new = sorted(set(names) - set(known))
    if new:
        remedy = "accepted labels:" if run is None else f"{run} was trained on the labels"
        raise InputError(f"{argument}: unknown labels {listed(new)}; {remedy} {listed(known)}")


def united(*classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of several sets of classes without repetition, in the order of their first occurrence."""
    return tuple(dict.fromkeys(name for names in classes for name in names))


def _values(labels: ArrayLike, count: int, argument: str) -> tuple[NDArray[Any], int]:
    """Return labels as int64 or text, (N,), and the length of one-hot vectors, or 0."""
    text = _text(labels)
    array: NDArray[Any] = numeric_array(argument, labels) if text is None else text
    if array.ndim == 2 and len(array) == count and array.shape[1] > 1 and array.dtype.kind in "biuf":
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise InputError(f"{argument}.shape = {array.shape}: rows without exactly one 1; pass one-hot vectors")
        return array.argmax(axis=1).astype(np.int64), array.shape[1]
    if array.dtype.kind == "f":
        raise InputError(f"{argument}: an array of {array.dtype}; pass integers, names or one-hot vectors")
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,):
        raise InputError(
            f"{argument}.shape = {array.shape}: there are {count} images; pass one integer or name per image"
        )
    if array.dtype.kind == "U":
        return array, 0
    if array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{argument}: up to {array.max()}; pass integers that fit into 64 bits")
    return array.astype(np.int64, copy=False), 0


def _text(labels: ArrayLike) -> NDArray[np.str_] | None:
    """Return labels as an array of text, or None if they are not text."""
    try:
        array = np.asarray(labels)
    except ValueError:
        return None
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "backslashreplace")
    is_object_text = array.dtype.kind == "O" and all(isinstance(value, str) for value in array.ravel())
    return array.astype(np.str_) if array.dtype.kind == "U" or is_object_text else None

"""Validation of arrays, and their conversion to the dtypes of a `Dataset`."""

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.errors import InputError


def numeric_array(name: str, values: ArrayLike) -> NDArray[np.generic]:
    """Return values as an array of numbers or booleans.

    Args:
        name: Name of the argument, for messages.
        values: Anything that NumPy can turn into an array.

    Raises:
        InputError: The values are ragged or not numeric.
    """
    try:
        array = np.asanyarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: not one array ({error}); pass rows of equal length") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: an array of {array.dtype}; pass numbers or booleans")
    return array


def check_image_shape(shape: tuple[int, ...]) -> None:
    """Reject empty arrays and images with other than one or three channels.

    Args:
        shape: N x H x W x C.

    Raises:
        InputError: The shape contains no pixels, or C is not 1 or 3.
    """
    if 0 in shape:
        raise InputError(f"images.shape = {shape}: no pixels; pass at least one image")
    if shape[3] not in (1, 3):
        hint = "; channels come last: transpose to N x H x W x C" if shape[1] in (1, 3) else ""
        raise InputError(f"images.shape = {shape}: {shape[3]} channels; pass 1 (gray) or 3 (RGB){hint}")


def pixel_levels(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return pixels as the levels 0..255.

    Args:
        pixels: Booleans, floats in [0, 1], or integers 0..255.

    Raises:
        InputError: The pixels are not finite, out of range, or integers that are all 0 or 1.
    """
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f":
        if not np.isfinite([low, high]).all():
            raise InputError("images: NaN or infinite pixels; pass floats in [0, 1]")
        if low < 0 or high > 1:
            raise InputError(
                f"images: floats from {low:.6g} to {high:.6g}; pass floats in [0, 1]"
                " (divide levels 0..255 by 255, or pass them as uint8)"
            )
        unit = pixels.astype(np.promote_types(pixels.dtype, np.float32))
        levels: NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
        return levels
    if low < 0 or high > 255:
        raise InputError(f"images: integers from {low} to {high}; pass integers 0 to 255")
    if high <= 1:
        raise InputError(
            "images: integers that are all 0 or 1, nearly black on the scale 0..255;"
            " pass levels 0 and 255, booleans, or floats in [0, 1]"
        )
    return pixels.astype(np.uint8, copy=False)


def check_mask(mask: NDArray[np.generic], image_shape: tuple[int, ...]) -> NDArray[np.bool]:
    """Return the mask of observed pixels in the shape of its images.

    Args:
        mask: True for observed pixels, N x H x W, N x H x W x 1 or N x H x W x C.
        image_shape: N x H x W x C of the images.

    Raises:
        InputError: The mask has another shape, or is not boolean.
    """
    if mask.dtype != bool:
        raise InputError(f"mask.dtype = {mask.dtype}: not a mask; pass booleans, True for observed pixels")
    pixels, shape = tuple(image_shape[:-1]), tuple(image_shape)
    if mask.shape not in (pixels, (*pixels, 1), shape):
        raise InputError(
            f"mask.shape = {mask.shape}: does not fit images of {shape}; pass {pixels}, or {shape} for single channels"
        )
    # PyTorch warns of arrays whose elements share memory.
    return np.array(np.broadcast_to(mask if mask.ndim == len(shape) else mask[..., np.newaxis], shape), bool)


def find_unobserved(mask: NDArray[np.bool]) -> NDArray[np.integer]:
    """Return the positions of images without any observed pixel, given a mask with one row per image."""
    return np.flatnonzero(~mask.reshape(len(mask), -1).any(axis=1))


def mask_missing(pixels: NDArray[np.generic], mask: NDArray[np.generic] | None) -> NDArray[np.generic]:
    """Return images with missing pixels as a masked array, with zeros in their place; complete images unchanged.

    Args:
        pixels: N x H x W x C; a masked array has missing pixels already.
        mask: True for observed pixels, as for `check_mask`, or None.

    Raises:
        InputError: The mask does not fit the images.
    """
    missing = np.ma.getmaskarray(pixels)
    if mask is not None:
        missing = missing | ~check_mask(mask, pixels.shape)
    if not missing.any():
        return np.ma.getdata(pixels)
    data = np.where(missing, np.zeros((), pixels.dtype), np.ma.getdata(pixels))
    return np.ma.masked_array(data, missing)


def total_memory() -> int:
    """Return the number of bytes of memory of this machine, or a very large number if it is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def memory_limit() -> int:
    """Return the bytes of memory that this process may use: those of the machine, or the limit of its control group."""
    return min([total_memory(), *_group_limits()])


def _group_limits() -> list[int]:
    """Return the memory limits of the control groups of this process, which clusters and containers set."""
    try:
        groups = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    limits = []
    for controllers, group in groups:
        if controllers not in ("", "memory"):
            continue
        top, name = (_GROUPS / controllers, "memory.limit_in_bytes") if controllers else (_GROUPS, "memory.max")
        folder = top / group.lstrip("/")
        # A container sees its own group as the top.
        for path in {folder, *folder.parents, top}:
            if not path.is_relative_to(top):
                continue
            try:
                limits.append(int((path / name).read_text()))
            except (OSError, ValueError):
                continue
    return limits


_GROUPS = Path("/sys/fs/cgroup")

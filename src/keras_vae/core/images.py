"""Pixel encodings: checks of images, their conversion to the range [0, 1], and random numbers seeded by them."""

import hashlib
import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Floats, Tensor


def to_unit(images: Tensor) -> Tensor:
    """Convert images to float32 in [0, 1]: divide uint8 levels by 255, and keep the values of floats.

    Args:
        images: (…, H, W, C), uint8 or floating.

    Returns:
        Images of the same shape, float32.

    Raises:
        InputError: The images are neither uint8 nor floating.
    """
    are_levels = _are_levels(keras.backend.standardize_dtype(images.dtype))
    floats = ops.cast(images, "float32")
    return floats / 255.0 if are_levels else floats


def check_images(images: Array, shape: tuple[int | None, ...]) -> None:
    """Reject an array that a model would misinterpret.

    Args:
        images: The array, expected to be (n, H, W, C), uint8 or floating.
        shape: (H, W, C) of the model, with None for sizes that may vary.

    Raises:
        InputError: The shape or the data type differs, there are no images, or floats lie outside [0, 1] or are not
            finite.
    """
    expected = "(" + ", ".join(["n", *("any" if size is None else str(size) for size in shape)]) + ")"
    fits = images.ndim == len(shape) + 1 and all(
        size in (None, got) for size, got in zip(shape, images.shape[1:], strict=True)
    )
    if not fits:
        raise InputError(f"images.shape = {images.shape}: the model expects {expected}; pass images of that shape")
    if len(images) == 0:
        raise InputError(f"images.shape = {images.shape}: there are no images; pass at least one")
    if not _are_levels(images.dtype.name):
        low, high = float(images.min()), float(images.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(
                "images: NaN or infinite pixels; pass floats in [0, 1]; if NaN pixels are missing, pass "
                '{"images": x, "mask": ~np.isnan(x)}'
            )
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"images: floats from {low:g} to {high:g}, outside of [0, 1]; divide by 255, or pass uint8 levels"
            )


def image_generators(images: Array, *seed: int) -> list[np.random.Generator]:
    """Return a generator of random numbers for each image, seeded by its pixels.

    Equal images have equal generators in any row of any array, as uint8 levels or as floats.

    Args:
        images: (N, H, W, C), uint8 or floats in [0, 1]. Floats are rounded to levels, only to seed the generators.
        *seed: Further numbers that seed the generators, integers ≥ 0.

    Example:
        >>> black, white = np.zeros((1, 2, 2, 1), "uint8"), np.ones((1, 2, 2, 1), "float32")
        >>> first, second = (rng.random() for rng in image_generators(np.concatenate([white, black]), 0))
        >>> second == image_generators(black, 0)[0].random(), first == second
        (True, False)
    """
    levels = images if images.dtype == np.uint8 else np.rint(255 * images.astype("float32")).astype("uint8")
    shape = np.array(images.shape[1:], "<u4").tobytes()
    digests = [hashlib.blake2b(shape + image.tobytes(), digest_size=8).digest() for image in levels]
    return [np.random.default_rng([*seed, int.from_bytes(digest, "little")]) for digest in digests]


def normal_noise(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Floats:
    """Return standard normal noise from one generator per image, (N, *shape), float32."""
    return np.stack([generator.standard_normal(shape, dtype="float32") for generator in generators])


def uniform_noise(seed: Sequence[int], shape: tuple[int, ...], rows: NDArray[np.integer]) -> Floats:
    """Return some rows of uniform noise that a seed determines, without holding the others in memory.

    Args:
        seed: Seed of the noise.
        shape: (N, …) of the noise, of which all rows up to the last one in `rows` are drawn.
        rows: Positions of the returned rows, (n,).

    Returns:
        (n, …), float32 in [0, 1).

    Example:
        >>> rows = np.array([2, 0])
        >>> whole = np.random.default_rng([5]).random((3, 2), dtype="float32")
        >>> bool((uniform_noise([5], (3, 2), rows) == whole[rows]).all())
        True
    """
    generator, noise = np.random.default_rng(seed), np.empty((len(rows), *shape[1:]), "float32")
    size = max(1, _NOISE_AT_ONCE // math.prod(shape[1:]))
    for start in range(0, int(rows.max()) + 1, size):
        block = generator.random((min(size, shape[0] - start), *shape[1:]), dtype="float32")
        inside = (rows >= start) & (rows < start + len(block))
        noise[inside] = block[rows[inside] - start]
    return noise


_NOISE_AT_ONCE = 2**22


def _are_levels(dtype: str) -> bool:
    """Return whether images of this data type are levels 0…255 rather than floats."""
    if dtype != "uint8" and "float" not in dtype:
        raise InputError(f"images.dtype = {dtype}: not supported; pass uint8 levels 0…255, or floats in [0, 1]")
    return dtype == "uint8"

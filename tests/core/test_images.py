"""Pixel encodings: conversion to [0, 1], and rejection of misleading arrays."""

import numpy as np
import pytest
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.images import check_images, image_generators, to_unit


def test_levels_are_divided_by_255() -> None:
    levels = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
    unit = ops.convert_to_numpy(to_unit(levels))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit.ravel(), np.arange(256) / 255, rtol=1e-6)


def test_floats_are_unchanged() -> None:
    floats = np.random.default_rng(0).random((2, 3, 3, 1), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(to_unit(floats)), floats)


def test_other_integers_are_rejected() -> None:
    with pytest.raises(InputError, match=r"^images\.dtype = int32: not supported; pass uint8 levels"):
        to_unit(np.zeros((1, 2, 2, 1), "int32"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 28, 28), "uint8"), r"^images.shape = \(4, 28, 28\): the model expects \(n, 28, 28, 1\)"),
        (np.zeros((4, 28, 27, 1), "uint8"), "27"),
        (
            np.zeros((0, 28, 28, 1), "uint8"),
            r"^images.shape = \(0, 28, 28, 1\): there are no images; pass at least one",
        ),
        (np.full((1, 28, 28, 1), 255.0), r"^images: floats from 255 to 255, outside of \[0, 1\]; divide by 255"),
        (np.full((1, 28, 28, 1), -0.1), "from -0.1"),
        (
            np.full((1, 28, 28, 1), np.nan),
            r"^images: NaN or infinite pixels; pass floats in \[0, 1\]; if NaN pixels are missing, pass \{.images.: x",
        ),
    ],
)
def test_misleading_array_is_rejected(images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_images(images, (28, 28, 1))


def test_generators_follow_from_the_pixels_and_the_seed() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 1), dtype="uint8")
    levels[3] = levels[0]
    draws = np.array([rng.random() for rng in image_generators(levels, 2, 1)])
    assert draws[3] == draws[0]
    assert len(set(draws)) == 3
    for floats in (levels / 255, (levels / 255).astype("float32"), (levels / 255).astype("float16")):
        np.testing.assert_array_equal([rng.random() for rng in image_generators(floats[::-1], 2, 1)], draws[::-1])
    others = [image_generators(levels, 2, 2), image_generators(levels.reshape(4, 5, 3, 1), 2, 1)]
    changed = levels.copy()
    changed[:, 2, 4] ^= 1
    for generators in (*others, image_generators(changed, 2, 1)):
        assert not set(draws) & {rng.random() for rng in generators}

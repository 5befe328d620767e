"""What an image's numbers mean."""

import numpy as np
import pytest
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.images import check_images, to_unit


def test_every_level_becomes_its_255th() -> None:
    levels = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
    unit = ops.convert_to_numpy(to_unit(levels))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit.ravel(), np.arange(256) / 255, rtol=1e-6)


def test_floats_stay_as_they_are() -> None:
    floats = np.random.default_rng(0).random((2, 3, 3, 1), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(to_unit(floats)), floats)


def test_other_integers_are_refused() -> None:
    with pytest.raises(InputError, match="int32"):
        to_unit(np.zeros((1, 2, 2, 1), "int32"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 28, 28), "uint8"), r"shape \(4, 28, 28\): this model takes \(n, 28, 28, 1\)"),
        (np.zeros((4, 28, 27, 1), "uint8"), "27"),
        (np.zeros((0, 28, 28, 1), "uint8"), "no images"),
        (np.full((1, 28, 28, 1), 255.0), "from 255 to 255.*divide by 255"),
        (np.full((1, 28, 28, 1), -0.1), "from -0.1"),
        (np.full((1, 28, 28, 1), np.nan), "from nan"),
    ],
)
def test_array_the_model_would_misread_is_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_images(images, (28, 28, 1))

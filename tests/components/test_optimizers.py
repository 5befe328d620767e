"""Optimizers that average weights and skip updates, against closed forms and plain optimizers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from helpers import to_numpy
from keras_vae.components.optimizers import AveragingOptimizer, SkippingOptimizer
from keras_vae.core.typing import Array


@pytest.mark.parametrize("window", [1.5, 4.0, 1e4])
def test_average_has_geometric_weights_that_sum_to_one(window: float) -> None:
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer = AveragingOptimizer(keras.optimizers.SGD(1.0), window)
    for step in range(1, 9):
        # The weights after the steps are −1, −2, −3, ….
        optimizer.apply([ops.ones(1)], [variable])
        shares = (1 - 1 / window) ** (step - np.arange(1, step + 1))
        expected = -(shares * np.arange(1, step + 1)).sum() / shares.sum()
        np.testing.assert_allclose(to_numpy(optimizer.averages[0]), [expected], rtol=1e-4)
    np.testing.assert_allclose(to_numpy(variable), [-8.0])
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(to_numpy(variable), [expected], rtol=1e-4)


def dense_model(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    return model


def images_with_nan(batches: int) -> Array:
    """Return images of so many batches of two, all NaN except for those of the last batch."""
    images = np.full((2 * batches, 2), np.nan, "float32")
    images[-2:] = [[1.0, 2.0], [3.0, 5.0]]
    return images


@pytest.mark.parametrize("average", [False, True])
def test_update_after_many_skipped_ones_is_that_of_the_plain_optimizer(average: bool) -> None:
    def wrap(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        return AveragingOptimizer(optimizer, 3.0) if average else optimizer

    plain, skipping = (dense_model(wrap(keras.optimizers.Adam(0.01))) for _ in range(2))
    skipping = dense_model(SkippingOptimizer(skipping.optimizer.from_config(skipping.optimizer.get_config())))
    images = images_with_nan(160)
    for model, x in ((plain, images[-2:]), (skipping, images)):
        model.fit(x, np.zeros((len(x), 1), "float32"), batch_size=2, shuffle=False, verbose=0)
    for one, other in zip(plain.get_weights(), skipping.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6)
    assert int(skipping.optimizer.skipped) == 159
    assert skipping.optimizer.skipped_in_a_row == 0
    skipping.fit(images[:4], np.zeros((4, 1), "float32"), batch_size=2, verbose=0)
    assert (int(skipping.optimizer.skipped), skipping.optimizer.skipped_in_a_row) == (161, 2)


def test_saved_optimizer_continues_with_the_same_updates(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 8, 2)).astype("float32")
    model = dense_model(SkippingOptimizer(AveragingOptimizer(keras.optimizers.Adam(0.1), 5.0)))
    model.fit(x, y[:, :1], batch_size=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.inner_optimizer.window == 5.0
    for trained in (model, loaded):
        trained.optimizer.learning_rate = 0.05
        trained.fit(x, y[:, :1], batch_size=2, shuffle=False, verbose=0)
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert float(to_numpy(loaded.optimizer.learning_rate)) == pytest.approx(0.05)

"""Codebook against NumPy: quantization, moving averages, dead codes, gradients and usage."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae.components.quantizers import VectorQuantizerEMA, codebook_usage
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array


def nearest_indices(maps: Array, vectors: Array) -> Array:
    return ((maps[..., None, :] - vectors) ** 2).sum(-1).argmin(-1)


def with_vectors(codebook: VectorQuantizerEMA, counts: Array, vectors: Array) -> VectorQuantizerEMA:
    """Set the averages of a codebook so that it has these vectors."""
    codebook.build((None, 3, 2, vectors.shape[1]))
    codebook.counts.assign(counts)
    codebook.sums.assign(counts[:, None] * vectors)
    return codebook


def test_outputs_are_quantized_to_the_nearest_vector() -> None:
    rng = np.random.default_rng(1)
    maps, vectors = rng.normal(size=(7, 3, 2, 4)).astype("float32"), rng.normal(size=(6, 4))
    result = with_vectors(VectorQuantizerEMA(num_codes=6, commitment=0.4), np.full(6, 10.0), vectors)(maps)
    indices = nearest_indices(maps, vectors)
    np.testing.assert_array_equal(ops.convert_to_numpy(result.indices), indices)
    np.testing.assert_allclose(ops.convert_to_numpy(result.vectors), vectors[indices], rtol=1e-4, atol=1e-5)
    commitment_loss = 0.4 * ((maps - vectors[indices]) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(ops.convert_to_numpy(result.loss), commitment_loss, rtol=1e-4)


def test_averages_change_in_training_only() -> None:
    rng = np.random.default_rng(2)
    maps, vectors, counts = rng.normal(size=(7, 3, 2, 4)), rng.normal(size=(6, 4)), rng.uniform(1, 5, 6)
    codebook = with_vectors(VectorQuantizerEMA(num_codes=6, decay=0.9, dead_code_threshold=0.0), counts, vectors)
    codebook(maps.astype("float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.counts), counts, rtol=1e-6)

    codebook(maps.astype("float32"), np.zeros(6, "float32"))
    assignments = np.eye(6)[nearest_indices(maps, vectors).reshape(-1)]
    sums = 0.9 * counts[:, None] * vectors + 0.1 * assignments.T @ maps.reshape(-1, 4)
    counts = 0.9 * counts + 0.1 * assignments.sum(0)
    smoothed = (counts + 1e-5) / (counts.sum() + 6e-5) * counts.sum()
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.counts), counts, rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.vectors), sums / smoothed[:, None], rtol=1e-4, atol=1e-5)


def test_first_batch_restarts_all_codes_at_its_outputs() -> None:
    maps = np.random.default_rng(3).normal(size=(7, 3, 2, 4)).astype("float32")
    codebook = VectorQuantizerEMA(num_codes=6, decay=0.999999)
    assert not ops.convert_to_numpy(codebook(maps).vectors).any()
    codebook(maps, np.linspace(0, 0.99, 6).astype("float32"))
    distances = ((ops.convert_to_numpy(codebook.vectors)[:, None] - maps.reshape(-1, 4)) ** 2).sum(-1)
    assert distances.min(1).max() < 1e-6
    assert len(set(distances.argmin(1))) == 6


def test_dead_code_restarts_at_an_output_far_from_all_codes() -> None:
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0]])
    maps = np.zeros((4, 3, 2, 2), "float32")
    maps[:2, ..., 0] = 1
    maps[3, 1, 1] = [-7, 3]
    codebook = with_vectors(VectorQuantizerEMA(num_codes=3, decay=0.999999), np.array([12.0, 12.0, 0.1]), vectors)
    codebook(maps, np.array([0.3, 0.5, 0.9], "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.vectors), [[0, 0], [1, 0], [-7, 3]], atol=1e-3)


def test_gradients_pass_straight_through_the_quantizer() -> None:
    class Quadratic(keras.Model):
        def __init__(self, codebook: VectorQuantizerEMA) -> None:
            super().__init__()
            self.dense, self.codebook = keras.layers.Dense(4, use_bias=False), codebook

        def call(self, x: object) -> object:
            return self.codebook(self.dense(x)).vectors

        def compute_loss(self, x: object, y: object, y_pred: object, *args: object, **kwargs: object) -> object:
            return ops.sum(ops.square(y_pred))

    rng = np.random.default_rng(4)
    x, vectors = rng.normal(size=(2, 3, 2, 5)).astype("float32"), rng.normal(size=(6, 4))
    model = Quadratic(with_vectors(VectorQuantizerEMA(num_codes=6), np.full(6, 10.0), vectors))
    model.compile(keras.optimizers.SGD(1.0))
    model(x)
    before = model.dense.get_weights()[0]
    codes = vectors[nearest_indices(x @ before, vectors)]
    model.train_on_batch(x, x)
    # The gradient of the loss at the quantized vectors is 2·code.
    expected = np.einsum("nijk,nijd->kd", x, 2 * codes)
    np.testing.assert_allclose(before - model.dense.get_weights()[0], expected, rtol=1e-3, atol=1e-4)


def test_codebook_usage_equals_perplexity_and_count_in_numpy() -> None:
    indices = np.array([[[0, 0], [0, 3]], [[3, 3], [5, 0]]], "int32")
    frequencies = np.array([4, 3, 1]) / 8
    perplexity, used = codebook_usage(indices, 6)
    assert float(perplexity) == pytest.approx(np.exp(-(frequencies * np.log(frequencies)).sum()), rel=1e-5)
    assert float(used) == 3
    assert float(codebook_usage(np.zeros((2, 2, 2), "int32"), 6)[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_codes": 1}, "num_codes = 1"),
        ({"decay": 1.0}, r"decay = 1\.0"),
        ({"dead_code_threshold": -0.1}, r"dead_code_threshold = -0\.1"),
        ({"commitment": -1.0}, r"commitment = -1\.0"),
        ({"commitment": float("nan")}, "commitment = nan"),
    ],
)
def test_errors_name_the_setting_and_its_value(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VectorQuantizerEMA(**settings)

"""Quantizers against vector-quantize-pytorch and closed forms: values, indices, losses, gradients and errors."""

import json
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae.components.quantizers import (
    FiniteScalarQuantizer,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizerEMA,
)
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array

SHAPE, DIM, CODES = (5, 3, 2), 4, 16
Reference = Callable[[Any], tuple[Any, Any, Any]]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def gradients(quantizer: Quantizer, maps: Array, direction: Array, gradient: str) -> tuple[Array, Array]:
    """Return the gradients of Σ direction · vectors and of Σ loss with respect to the maps."""

    class Model(keras.Model):
        def __init__(self, term: int) -> None:
            super().__init__()
            self.maps, self.quantizer, self.term = self.add_weight(shape=maps.shape), quantizer, term
            self.maps.assign(maps)

        def call(self, x: Any) -> Any:
            return self.quantizer(ops.convert_to_tensor(self.maps) + 0.0 * x, gradient=gradient)

        def compute_loss(self, x: Any, y: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
            # The loss of fsq has no gradient, which Keras would reject.
            term = (y_pred.vectors * ops.convert_to_tensor(direction), y_pred.loss)[self.term]
            return ops.sum(term) + 0.0 * ops.sum(self.maps)

    steps = []
    for term in range(2):
        model = Model(term)
        quantizer.trainable = False
        model.compile(keras.optimizers.SGD(1.0))
        zeros = np.zeros_like(maps)
        model.train_on_batch(zeros, zeros)
        steps.append(maps - ops.convert_to_numpy(model.maps))
    return steps[0], steps[1]


def with_vectors(quantizer: VectorQuantizerEMA, vectors: Array) -> VectorQuantizerEMA:
    quantizer.build((None, *SHAPE[1:], vectors.shape[-1]))
    counts = np.full(len(vectors), 1e4)
    quantizer.counts.assign(counts)
    smoothed = (counts + 1e-5) * counts.sum() / (counts.sum() + len(vectors) * 1e-5)
    quantizer.sums.assign(vectors * smoothed[:, None])
    return quantizer


def fsq(gradient: str, levels: tuple[int, ...] = (8, 5, 7, 4)) -> tuple[Quantizer, Reference]:
    library = pytest.importorskip("vector_quantize_pytorch")
    module = library.FSQ(levels=list(levels))
    return FiniteScalarQuantizer(levels), lambda x: (*module(x), None)


def simvq(gradient: str) -> tuple[Quantizer, Reference]:
    library, torch = pytest.importorskip("vector_quantize_pytorch"), pytest.importorskip("torch")
    codebook, transform = normal(CODES, DIM, seed=1), normal(DIM, DIM, seed=2)
    rotation = gradient == "rotation"
    module = library.SimVQ(DIM, CODES, rotation_trick=rotation, input_to_quantize_commit_loss_weight=0.4)
    module.frozen_codebook.copy_(torch.tensor(codebook))
    with torch.no_grad():
        module.code_transform.weight.copy_(torch.tensor(transform.T))
    quantizer = SimVQ(CODES, commitment=0.4)
    quantizer.build((None, *SHAPE[1:], DIM))
    quantizer.codebook.assign(codebook)
    quantizer.transform.assign(transform)
    return quantizer, module


def ema(gradient: str) -> tuple[Quantizer, Reference]:
    library, torch = pytest.importorskip("vector_quantize_pytorch"), pytest.importorskip("torch")
    vectors = normal(CODES, DIM, seed=3)
    rotation = gradient == "rotation"
    module = library.VectorQuantize(DIM, CODES, rotation_trick=rotation, commitment_weight=0.25, freeze_codebook=True)
    module.codebook = torch.tensor(vectors)
    return with_vectors(VectorQuantizerEMA(CODES), vectors), module


def reference_gradients(module: Reference, maps: Array, direction: Array) -> list[Array]:
    torch = pytest.importorskip("torch")
    found = []
    for term in (0, 2):
        x = torch.tensor(maps.reshape(maps.shape[0], -1, maps.shape[-1]), requires_grad=True)
        result = module(x)
        # The library averages its losses over all numbers of the maps.
        scalar = (result[0] * torch.tensor(direction.reshape(x.shape))).sum() if term == 0 else result[2]
        if scalar is not None:
            scalar.sum().backward()
            factor = 1 if term == 0 else maps.size
            found.append((x.grad * factor).numpy().reshape(maps.shape))
    return found


@pytest.mark.parametrize(
    ("make", "gradient"),
    [
        (fsq, "straight-through"),
        (simvq, "straight-through"),
        (simvq, "rotation"),
        (ema, "straight-through"),
        (ema, "rotation"),
    ],
)
def test_values_indices_losses_and_gradients_equal_the_reference(
    make: Callable[[str], tuple[Quantizer, Reference]], gradient: str
) -> None:
    torch = pytest.importorskip("torch")
    quantizer, reference = make(gradient)
    maps, direction = 1.5 * normal(*SHAPE, DIM, seed=4), normal(*SHAPE, DIM, seed=5)
    vectors, indices, loss = quantizer(maps, gradient=gradient)
    expected, expected_indices, expected_loss = reference(torch.tensor(maps.reshape(SHAPE[0], -1, DIM)))
    assert len(np.unique(expected_indices)) > 5
    np.testing.assert_array_equal(ops.convert_to_numpy(indices), expected_indices.numpy().reshape(SHAPE))
    expected = expected.detach().numpy().reshape(maps.shape)
    np.testing.assert_allclose(ops.convert_to_numpy(vectors), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(quantizer.lookup(indices)), expected, rtol=1e-6, atol=1e-6)
    mean_loss = ops.convert_to_numpy(loss).sum() / maps.size
    np.testing.assert_allclose(mean_loss, 0 if expected_loss is None else expected_loss.item(), rtol=1e-6)
    ours, theirs = gradients(quantizer, maps, direction, gradient), reference_gradients(reference, maps, direction)
    for one, other in zip(ours, theirs, strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


def test_the_transform_of_simvq_has_the_gradient_of_the_reference() -> None:
    torch = pytest.importorskip("torch")
    quantizer, module = simvq("rotation")
    maps = normal(*SHAPE, DIM, seed=6)
    module(torch.tensor(maps.reshape(SHAPE[0], -1, DIM)))[2].backward()
    expected = module.code_transform.weight.grad.numpy().T * maps.size

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = quantizer

        def call(self, x: Any) -> Any:
            return self.quantizer(x, gradient="rotation")

        def compute_loss(self, x: Any, y: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
            # The vectors themselves must not send a gradient to the transform.
            return ops.sum(y_pred.loss) + ops.sum(y_pred.vectors)

    before = ops.convert_to_numpy(quantizer.transform)
    model = Model()
    model.compile(keras.optimizers.SGD(1.0))
    model.train_on_batch(maps, maps)
    np.testing.assert_allclose(before - ops.convert_to_numpy(quantizer.transform), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", ["straight-through", "rotation"])
def test_residual_quantizer_equals_the_reference(gradient: str) -> None:
    library, torch = pytest.importorskip("vector_quantize_pytorch"), pytest.importorskip("torch")
    settings = {"rotation_trick": gradient == "rotation", "commitment_weight": 0.25, "freeze_codebook": True}
    module = library.ResidualVQ(dim=DIM, num_quantizers=3, codebook_size=CODES, **settings)
    quantizer = ResidualQuantizer(VectorQuantizerEMA(CODES), num_quantizers=3)
    for index, (stage, layer) in enumerate(zip(quantizer.stages, module.layers, strict=True)):
        vectors = normal(CODES, DIM, seed=index) / (index + 1)
        layer.codebook = torch.tensor(vectors)
        with_vectors(stage, vectors)
    maps = normal(*SHAPE, DIM, seed=7)
    vectors, indices, loss = quantizer(maps, gradient=gradient)
    x = torch.tensor(maps.reshape(SHAPE[0], -1, DIM), requires_grad=True)
    expected, expected_indices, losses = module(x)
    np.testing.assert_array_equal(ops.convert_to_numpy(indices), expected_indices.numpy().reshape(*SHAPE, 3))
    expected = expected.detach().numpy().reshape(maps.shape)
    np.testing.assert_allclose(ops.convert_to_numpy(vectors), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(quantizer.lookup(indices)), expected, rtol=1e-6, atol=1e-6)
    mean_loss = ops.convert_to_numpy(loss).sum() / maps.size
    np.testing.assert_allclose(mean_loss, losses.sum().item(), rtol=1e-6)
    # The library estimates the gradient of every term of the sum; we estimate that of the sum once.
    losses.sum().backward()
    _, of_loss = gradients(quantizer, maps, maps, gradient)
    np.testing.assert_allclose(of_loss, (x.grad * maps.size).numpy().reshape(maps.shape), rtol=1e-5, atol=1e-5)


def test_rotation_turns_gradients_by_the_angle_between_output_and_code() -> None:
    # From e = (2, 0) to q = (0, 3): R turns by 90°, and λ = 3/2, so the gradient g becomes λ Rᵀg.
    quantizer = with_vectors(VectorQuantizerEMA(2), np.array([[0.0, 3.0], [50.0, 50.0]], "float32"))
    maps = np.broadcast_to(np.array([2.0, 0.0], "float32"), (*SHAPE, 2)).copy()
    direction = np.broadcast_to(np.array([0.5, 1.0], "float32"), maps.shape)
    found, _ = gradients(quantizer, maps, direction, "rotation")
    np.testing.assert_allclose(found, np.broadcast_to([1.5, -0.75], maps.shape), rtol=1e-5)


@pytest.mark.parametrize("gradient", ["straight-through", "rotation"])
def test_outputs_of_length_zero_have_the_values_of_codes_and_finite_gradients(gradient: str) -> None:
    quantizer = with_vectors(VectorQuantizerEMA(2), np.array([[0.3, 0.1], [5.0, 5.0]], "float32"))
    maps = np.zeros((*SHAPE, 2), "float32")
    vectors = ops.convert_to_numpy(quantizer(maps, gradient=gradient).vectors)
    np.testing.assert_allclose(vectors, np.broadcast_to([0.3, 0.1], maps.shape), rtol=1e-5)
    assert np.isfinite(gradients(quantizer, maps, np.ones_like(maps), gradient)[0]).all()


def test_fsq_reaches_every_level_of_its_grid() -> None:
    quantizer = FiniteScalarQuantizer((8, 5, 3))
    axis = np.linspace(-6, 6, 121).astype("float32")
    maps = np.stack([axis, axis[::-1], np.roll(axis, 40)], -1)[None, None]
    vectors, indices, _ = quantizer(maps)
    vectors, indices = ops.convert_to_numpy(vectors)[0, 0], ops.convert_to_numpy(indices)[0, 0]
    for column, levels in enumerate(([-4, -3, -2, -1, 0, 1, 2, 3], [-2, -1, 0, 1, 2], [-1, 0, 1])):
        np.testing.assert_allclose(np.unique(vectors[:, column].round(5)), np.array(levels) / -levels[0], atol=1e-5)
    digits = np.rint(vectors * [4, 2, 1] + [4, 2, 1]) @ [1, 8, 40]
    np.testing.assert_array_equal(indices, digits)
    every = np.arange(120, dtype="int32").reshape(1, 10, 12)
    assert len(np.unique(ops.convert_to_numpy(quantizer.lookup(every)).reshape(-1, 3), axis=0)) == 120


def test_codes_of_residual_quantizers_are_numbered_by_quantizer() -> None:
    quantizer = ResidualQuantizer(SimVQ(8), num_quantizers=3)
    numbers = quantizer.number_codes(ops.convert_to_tensor(np.array([[[[0, 7, 2]]]], "int32")))
    np.testing.assert_array_equal(ops.convert_to_numpy(numbers), [[[[0, 15, 18]]]])


def test_residual_quantizers_survive_serialization_with_their_settings() -> None:
    quantizer = ResidualQuantizer(VectorQuantizerEMA(num_codes=8, decay=0.9), num_quantizers=3)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(quantizer)))
    loaded = keras.saving.deserialize_keras_object(config)
    assert registry.spec("quantizer", loaded) == registry.spec("quantizer", quantizer)
    assert [stage.decay for stage in loaded.stages] == [0.9] * 3
    assert len({id(stage) for stage in loaded.stages}) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "fsq", "levels": [8, 1]}, "levels = [8, 1]: 1 is not a number of levels; pass integers ≥ 3"),
        ({"name": "fsq", "levels": []}, "levels = []: no dimensions"),
        ({"name": "fsq", "levels": [256, 256, 3]}, "levels = [256, 256, 3]: 196,608 codes do not fit in memory"),
        ({"name": "simvq", "num_codes": 10**6}, "num_codes = 1000000: too large"),
        ({"name": "simvq", "commitment": -1.0}, "commitment = -1.0"),
        ({"name": "residual", "quantizer": "fsq"}, "quantizer = fsq"),
        ({"name": "residual", "quantizer": {"name": "residual"}}, "quantizer = residual: already a stack"),
        ({"name": "residual", "num_quantizers": 65}, "num_quantizers = 65: too large"),
        ({"name": "residual", "quantizer": {"name": "ema", "num_codes": 1}}, "quantizer.quantizer.num_codes = 1"),
        ({"name": "fqs"}, "did you mean 'fsq'"),
    ],
)
def test_errors_name_the_setting_and_its_value(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        registry.build("quantizer", spec)
    assert "\n" not in str(error.value)


def test_the_rotation_gradient_is_refused_for_fsq() -> None:
    with pytest.raises(InputError, match="gradient = 'rotation': undefined for fsq"):
        FiniteScalarQuantizer().check_gradient("rotation")
    with pytest.raises(InputError, match="did you mean 'rotation'"):
        SimVQ().check_gradient("rotations")

"""Graphs equal the methods of the models, are deterministic, and consist of plain Keras layers."""

import json
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae import VAE, VQVAE, HierarchicalVAE
from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.components.conditions import ClassLabel, ContinuousCondition
from keras_vae.components.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Laplace,
    Normal,
)
from keras_vae.components.posteriors import Deterministic, FullCovarianceNormal, InverseAutoregressiveFlow
from keras_vae.components.priors import ConditionalNormal, MixtureOfNormals, RealNVP, VampPrior
from keras_vae.components.quantizers import (
    FiniteScalarQuantizer,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizerEMA,
)
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array, Tensor
from keras_vae.integrations.export.graphs import in_float32, trace
from keras_vae.models.base import BaseVAE
from keras_vae.networks import MLP, Conv

SHAPE = (9, 11, 1)


def small(likelihood: object = None, posterior: object = None, width: int = 0, **kwargs: object) -> VAE:
    likelihood, posterior, network = likelihood or Bernoulli(), posterior or FullCovarianceNormal(), MLP(widths=(6,))
    encoder = network.encoder((9, 11, 1 + width), 3, posterior.param_sizes(3))
    decoder = network.decoder(3 + width, (9, 11, likelihood.decoder_channels(1)))
    return VAE(encoder, decoder, likelihood=likelihood, posterior=posterior, seed=0, **kwargs)


def quantized(quantizer: Quantizer) -> VQVAE:
    prior = AutoregressivePrior(width=4, num_blocks=1, num_heads=1)
    model = VQVAE.from_network(Conv(widths=(2, 3)), SHAPE, quantizer=quantizer, code_dim=2, prior=prior, seed=0)
    # Training would adapt the averages to the small outputs of an untrained encoder, which have a single code.
    model.encoder.get_layer("standardized").moving_variance.assign([1e-3, 1e-3])
    return model


MODELS: dict[str, Callable[[], BaseVAE]] = {
    "iaf": lambda: small(posterior=InverseAutoregressiveFlow(hidden=(5,), context_dim=2)),
    "no noise": lambda: small(posterior=Deterministic()),
    "dynamic": lambda: small(Bernoulli(binarize="dynamic")),
    "static": lambda: small(Bernoulli(binarize="static")),
    "threshold": lambda: small(Bernoulli(binarize="threshold")),
    "continuous": lambda: small(ContinuousBernoulli()),
    "normal": lambda: small(Normal(scale="pixel")),
    "laplace": lambda: small(Laplace(scale="learned")),
    "levels": lambda: small(DiscretizedLogistic(num_components=2)),
    "categorical": lambda: small(Categorical()),
    "flow": lambda: small(prior=RealNVP(num_couplings=2, hidden=(4,))),
    "mixture": lambda: small(prior=MixtureOfNormals(num_components=2)),
    "vamp": lambda: small(prior=VampPrior(num_components=2)),
    "label": lambda: small(width=10, condition=ClassLabel(classes=10), prior=ConditionalNormal(hidden=4)),
    "vector": lambda: small(width=2, condition=ContinuousCondition(size=2)),
    "ladder": lambda: HierarchicalVAE(SHAPE, widths=(2,), groups=(2,), latent_channels=1, condition=ClassLabel(10)),
    "vq": lambda: VQVAE.from_network(
        Conv(widths=(2, 3)), SHAPE, quantizer=VectorQuantizerEMA(num_codes=8), code_dim=2, condition=ClassLabel(10)
    ),
    "fsq": lambda: quantized(FiniteScalarQuantizer(levels=(3, 4))),
    "simvq": lambda: quantized(SimVQ(num_codes=8)),
    "residual": lambda: quantized(ResidualQuantizer(SimVQ(num_codes=8), num_quantizers=2)),
}


def randomized(name: str) -> BaseVAE:
    """Return a model by name, with randomly shifted weights."""
    model, rng = MODELS[name](), np.random.default_rng(3)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(ops.convert_to_numpy(weight) + rng.uniform(0.02, 0.2, weight.shape).astype("float32"))
    return model


def call_graph(network: keras.Model, **inputs: Array) -> dict[str, Array]:
    return {name: ops.convert_to_numpy(value) for name, value in network.predict_on_batch(inputs).items()}


def conditions(model: BaseVAE, n: int) -> dict[str, Array]:
    if model.condition is None:
        return {}
    values = np.random.default_rng(1).integers(0, 10, (n, *model.condition.value_shape))
    return {"condition": values.astype(model.condition.dtype)}


@pytest.mark.parametrize("name", [pytest.param("ladder", marks=pytest.mark.slow), *sorted(MODELS.keys() - {"ladder"})])
def test_graphs_compute_the_same_as_the_methods(name: str, images: Array) -> None:
    model = randomized(name)
    graphs, condition = trace(model), conditions(model, len(images))
    # Random binarization leaves black and white pixels unchanged.
    is_binarized = model.likelihood.stochastic_binarization
    inputs = np.where(images >= 128, 255, 0).astype("uint8") if is_binarized else images
    assert 0 < (inputs > 127).mean() < 1
    codes = model.encode(inputs, condition=condition.get("condition"))
    expected = codes.as_dict()
    found = call_graph(graphs.networks["encoder"], images=images, **condition)
    assert graphs.code_output == next(iter(expected))
    assert set(found) == set(expected)
    for output, values in found.items():
        np.testing.assert_allclose(values, expected[output], atol=1e-5)
    first = expected[graphs.code_output]
    decoded = model.decode(first, condition=condition.get("condition"))
    assert decoded.std() > 0
    images_of_codes = call_graph(graphs.networks["decoder"], **{model.code_name: first}, **condition)["mean_images"]
    np.testing.assert_allclose(images_of_codes, decoded, atol=1e-5)
    again = call_graph(graphs.networks["reconstruct"], images=images, **condition)["mean_images"]
    np.testing.assert_allclose(again, decoded, atol=1e-5)
    # The first dimension is variable: call the graph with one image.
    one = call_graph(
        graphs.networks["encoder"], images=images[:1], **{key: value[:1] for key, value in condition.items()}
    )
    np.testing.assert_allclose(one[graphs.code_output], first[:1], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_graphs_are_plain_keras_and_deterministic(name: str) -> None:
    for network in trace(MODELS[name]()).networks.values():
        config = json.dumps(keras.saving.serialize_keras_object(network))
        assert "keras_vae" not in config
        assert "random" not in config.lower().replace("randomnormal", "").replace("randomuniform", "")
        assert "seed_generator" not in config.lower()


def test_sampler_transforms_noise_like_the_prior() -> None:
    noise = np.random.default_rng(0).standard_normal((5, 3), dtype="float32")
    model = randomized("dynamic")
    samples = call_graph(trace(model).networks["sampler"], noise=noise)["mean_images"]
    np.testing.assert_allclose(samples, model.decode(noise), atol=1e-6)

    model = randomized("label")
    condition = conditions(model, 5)
    weights = [ops.convert_to_numpy(weight) for weight in (*model.prior.inner.weights, *model.prior.outer.weights)]
    hidden = np.maximum(np.eye(10)[condition["condition"]] @ weights[0] + weights[1], 0)
    mean, log_var = np.split(hidden @ weights[2] + weights[3], 2, axis=-1)
    samples = call_graph(trace(model).networks["sampler"], noise=noise, **condition)["mean_images"]
    expected = model.decode(mean + np.exp(log_var / 2) * noise, condition=condition["condition"])
    np.testing.assert_allclose(samples, expected, atol=1e-5)


def test_sampler_of_a_flow_prior_inverts_the_flow() -> None:
    model = randomized("flow")
    noise = np.random.default_rng(0).standard_normal((5, 3), dtype="float32")
    density = model.prior(model._prior_inputs(None))
    z = density.rsample(ops.convert_to_tensor(noise)).z
    back, total = z, 0.0
    for step in model.prior.flow:
        back, change = step.transform(back)
        total = total + change
    np.testing.assert_allclose(ops.convert_to_numpy(back), noise, atol=1e-4)
    samples = call_graph(trace(model).networks["sampler"], noise=noise)["mean_images"]
    np.testing.assert_allclose(samples, model.decode(ops.convert_to_numpy(z)), atol=1e-5)


def test_sampler_of_a_hierarchical_model_equals_its_sample_method() -> None:
    model = randomized("ladder")
    noise = np.random.default_rng(4).standard_normal((3, model.latent_dim), dtype="float32")
    labels = np.array([1, 2, 3], "int32")
    samples = call_graph(trace(model).networks["sampler"], noise=noise, condition=labels)["mean_images"]
    np.testing.assert_allclose(samples, model.sample(3, seed=4, condition=labels), atol=1e-5)


@pytest.mark.parametrize(("name", "reason"), [("mixture", "component"), ("vamp", "component"), ("vq", "after another")])
def test_undefined_samplers_are_omitted_with_a_reason(name: str, reason: str) -> None:
    graphs = trace(MODELS[name]())
    assert list(graphs.networks) == ["encoder", "decoder", "reconstruct"]
    assert reason in graphs.omitted["sampler"]


def test_graphs_accept_floats_on_request(images: Array) -> None:
    model = randomized("normal")
    unit = (images / 255).astype("float32")
    levels, floats = (trace(model, input_dtype).networks["encoder"] for input_dtype in ("uint8", "float32"))
    np.testing.assert_allclose(
        call_graph(levels, images=images)["z_mean"], call_graph(floats, images=unit)["z_mean"], atol=1e-6
    )
    assert floats.input["images"].dtype == "float32"


def test_mixed_precision_models_are_copied_in_float32(images: Array) -> None:
    model = randomized("normal")
    assert in_float32(model) is model
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = small(Normal(scale="pixel"))
        mixed.set_weights(model.get_weights())
    finally:
        keras.config.set_dtype_policy(policy)
    assert np.abs(mixed.encode(images).z_mean - model.encode(images).z_mean).max() > 1e-4
    found = in_float32(mixed)
    np.testing.assert_allclose(found.encode(images).z_mean, model.encode(images).z_mean, atol=1e-6)
    encoder = trace(found).networks["encoder"]
    np.testing.assert_allclose(call_graph(encoder, images=images)["z_mean"], model.encode(images).z_mean, atol=1e-5)


def test_unbuilt_and_untraceable_models_are_rejected() -> None:
    model = small()
    model.built = False
    with pytest.raises(InputError, match="model: not built"):
        trace(model)

    class Opaque(Bernoulli):
        def __call__(self, outputs: Tensor) -> object:
            if isinstance(outputs, keras.KerasTensor):
                raise TypeError("symbolic tensors are not supported\nin this class")
            return super().__call__(outputs)

    with pytest.raises(
        RunError, match=r"cannot be traced \(symbolic tensors are not supported\); use only Keras operations"
    ):
        trace(small(Opaque()))

"""All network families (sizes, outputs, gradients, files, precision), and the specific features of each family."""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae import networks
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Tensor
from keras_vae.networks.base import SpatialNetwork, VectorNetwork
from keras_vae.networks.conv import Conv
from keras_vae.networks.mlp import MLP
from keras_vae.networks.resnet import ResNet, residual_block

SMALL: dict[str, list[VectorNetwork]] = {
    "conv": [Conv(widths=(2, 3), dense_units=4)],
    "mlp": [MLP(widths=(6, 5)), MLP(widths=(6, 6), activation="gelu", residual=True)],
    "resnet": [
        ResNet(widths=(4, 6), dense_units=4),
        ResNet(widths=(8,), blocks=2, dense_units=5, attention=True, groups=2),
    ],
}
# A family without settings above is tested with its defaults. Those of maps have their own tests.
FAMILIES = {name: cls for name, cls in registry.registered("network").items() if issubclass(cls, VectorNetwork)}
NETWORKS = [network for name, cls in FAMILIES.items() for network in SMALL.get(name, [cls()])]
SPATIAL = [network for network in NETWORKS if isinstance(network, SpatialNetwork)]
MAP_SHAPES = [(9, 11, 1), (4, 5, 1), (1, 1, 1)]

all_networks = pytest.mark.parametrize("network", NETWORKS, ids=str)
spatial_networks = pytest.mark.parametrize("network", SPATIAL, ids=str)


class Autoencoder(keras.Model):
    """A plain Keras model of an encoder and a decoder, independent of the library's models."""

    def __init__(self, encoder: keras.Model, decoder: keras.Model) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        codes = self.encoder(x, training=training)
        return self.decoder(sum(codes) if isinstance(codes, list) else codes, training=training)


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(policy)


def noise(*shape: int) -> Array:
    return np.random.default_rng(3).random(shape, dtype="float32")


def layer_table(model: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    return [(type(layer).__name__, tuple(layer.output.shape[1:])) for layer in model.layers]


@all_networks
# JAX needs seconds to compile the initial weights of every new shape, so use few shapes.
@pytest.mark.parametrize(("shape", "latent_dim"), [((31, 45, 3), 5), ((28, 28, 1), 1), ((1, 1, 1), 5)], ids=str)
def test_outputs_have_the_requested_sizes(network: VectorNetwork, shape: tuple[int, int, int], latent_dim: int) -> None:
    encoder, decoder = network.encoder(shape, latent_dim), network.decoder(latent_dim, (*shape[:2], 7))
    assert (encoder.name, decoder.name) == ("encoder", "decoder")
    assert [layer.name for layer in encoder.layers[-2:]] == ["z_mean", "z_log_var"]
    assert [output.shape for output in encoder.outputs] == [(None, latent_dim)] * 2
    assert decoder.output_shape == (None, *shape[:2], 7)


@all_networks
def test_encoder_outputs_follow_the_order_of_param_sizes(network: VectorNetwork) -> None:
    encoder = network.encoder((9, 11, 1), 3, param_sizes={"z_mean": 3, "factor": 6, "context": 4})
    outputs = encoder(noise(2, 9, 11, 1))
    assert isinstance(outputs, list)
    assert [tuple(output.shape) for output in outputs] == [(2, 3), (2, 6), (2, 4)]
    assert [layer.name for layer in encoder.layers[-3:]] == ["z_mean", "factor", "context"]
    assert tuple(network.encoder((9, 11, 1), 3, param_sizes={"z": 3})(noise(2, 9, 11, 1)).shape) == (2, 3)


def assert_training_changes_every_weight(encoder: keras.Model, decoder: keras.Model, images: Array) -> None:
    model = Autoencoder(encoder, decoder)
    # Adam changes a weight by about the learning rate, however small its gradient. In the first step, the gradient is
    # zero behind a convolution that starts at zero, so train for three. Compiling would take longer, except on JAX.
    model.compile(keras.optimizers.Adam(1e-2), "mse", run_eagerly=keras.backend.backend() != "jax")
    model.build((None, *images.shape[1:]))
    before = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    model.fit(images, noise(len(images), *decoder.output_shape[1:]), epochs=3, batch_size=len(images), verbose=0)
    unchanged = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(ops.convert_to_numpy(weight), old)
    ]
    assert unchanged == []
    assert all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in model.trainable_weights)


@all_networks
def test_gradients_reach_every_weight(network: VectorNetwork) -> None:
    shape = (9, 11, 1)
    assert_training_changes_every_weight(network.encoder(shape, 3), network.decoder(3, shape), noise(6, *shape))


@spatial_networks
def test_gradients_reach_every_weight_of_map_models(network: SpatialNetwork) -> None:
    shape = (9, 11, 1)
    decoder = network.map_decoder((*network.map_size(shape), 2), shape)
    assert_training_changes_every_weight(network.map_encoder(shape, 2), decoder, noise(6, *shape))


@all_networks
def test_saved_and_loaded_models_have_equal_outputs(network: VectorNetwork, tmp_path: Path) -> None:
    shape = (9, 11, 3)
    for model, inputs in (
        (network.encoder(shape, 3), noise(2, *shape)),
        (network.decoder(3, shape), noise(2, 3)),
    ):
        model.save(tmp_path / "network.keras")
        loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
        keras.tree.map_structure(
            lambda left, right: np.testing.assert_array_equal(ops.convert_to_numpy(left), ops.convert_to_numpy(right)),
            model(inputs),
            loaded(inputs),
        )


@all_networks
def test_outputs_are_float32_under_mixed_precision(network: VectorNetwork, mixed_precision: None) -> None:
    shape = (9, 11, 1)
    encoder, decoder = network.encoder(shape, 3), network.decoder(3, shape)
    outputs = [*encoder(noise(2, *shape)), decoder(noise(2, 3))]
    assert {keras.backend.standardize_dtype(output.dtype) for output in outputs} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in (*encoder.layers, *decoder.layers)}
    # If a layer after the last one rounded to bfloat16, its eight bits of mantissa would show in all outputs.
    images = ops.convert_to_numpy(outputs[-1])
    assert (images != ops.convert_to_numpy(ops.cast(ops.cast(images, "bfloat16"), "float32"))).any()


@spatial_networks
@pytest.mark.parametrize("shape", MAP_SHAPES, ids=str)
def test_map_sizes_round_up_and_decoders_restore_the_image_size(
    network: SpatialNetwork, shape: tuple[int, int, int]
) -> None:
    size = tuple(int(np.ceil(side / 2**network.halvings)) for side in shape[:2])
    assert network.map_size(shape) == size
    encoder, decoder = network.map_encoder(shape, 7), network.map_decoder((*size, 7), (*shape[:2], 4))
    codes = encoder(noise(2, *shape))
    assert tuple(codes.shape) == (2, *size, 7)
    assert tuple(decoder(codes).shape) == (2, *shape[:2], 4)


@spatial_networks
def test_outputs_of_map_models_are_float32_under_mixed_precision(
    network: SpatialNetwork, mixed_precision: None
) -> None:
    shape = (9, 11, 1)
    encoder, decoder = network.map_encoder(shape, 2), network.map_decoder((*network.map_size(shape), 2), shape)
    assert {keras.backend.standardize_dtype(model.output.dtype) for model in (encoder, decoder)} == {"float32"}


@spatial_networks
def test_map_decoder_rejects_a_map_of_the_wrong_size(network: SpatialNetwork) -> None:
    rows, columns = network.map_size((9, 11, 1))
    with pytest.raises(InputError, match=rf"map_shape = \(1, 9, 2\).*use \({rows}, {columns}, 2\)"):
        network.map_decoder((1, 9, 2), (9, 11, 1))


@all_networks
def test_invalid_sizes_are_rejected(network: VectorNetwork) -> None:
    with pytest.raises(InputError, match="latent_dim = 0"):
        network.encoder((9, 11, 1), 0)
    with pytest.raises(InputError, match="z_scale = 0"):
        network.encoder((9, 11, 1), 2, param_sizes={"z_mean": 2, "z_scale": 0})
    with pytest.raises(InputError, match=r"param_sizes = \{\}"):
        network.encoder((9, 11, 1), 2, param_sizes={})
    with pytest.raises(InputError, match=r"image_shape = \(9, 0, 1\)"):
        network.decoder(2, (9, 0, 1))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        *(({"name": name, "widths": []}, "widths = []") for name in SMALL),
        *(({"name": name, "widths": [8, 0]}, "widths = [8, 0]") for name in SMALL),
        ({"name": "conv", "dense_units": 0}, "dense_units = 0"),
        ({"name": "mlp", "activation": "tahn"}, "activation = 'tahn'"),
        ({"name": "mlp", "widths": [8, 6], "residual": True}, "widths = [8, 6]: residual blocks need equal widths"),
        ({"name": "mlp", "widths": [8], "residual": True}, "widths = [8]: residual blocks need equal widths"),
        ({"name": "resnet", "blocks": 0}, "blocks = 0"),
        ({"name": "resnet", "dense_units": 0}, "dense_units = 0"),
        ({"name": "resnet", "groups": 0}, "groups = 0"),
    ],
)
def test_errors_name_the_setting_and_its_value(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        registry.build("network", spec)
    assert message in str(error.value)


@pytest.mark.parametrize("cls", registry.registered("network").values())
def test_widths_may_be_a_list_but_not_a_number(cls: type) -> None:
    assert cls(widths=[8, 8]) == cls(widths=(8, 8))
    hash(cls(widths=[8, 8]))
    with pytest.raises(InputError, match="widths = 8"):
        cls(widths=8)


def test_default_conv_encoder_is_the_classic_one() -> None:
    encoder = Conv().encoder((28, 28, 1), 2)
    assert layer_table(encoder) == [
        ("InputLayer", (28, 28, 1)),
        ("Conv2D", (14, 14, 32)),
        ("Conv2D", (7, 7, 64)),
        ("Flatten", (3136,)),
        ("Dense", (16,)),
        ("Dense", (2,)),
        ("Dense", (2,)),
    ]
    assert encoder.count_params() == (9 * 32 + 32) + (9 * 32 * 64 + 64) + (3136 * 16 + 16) + 2 * (16 * 2 + 2)


def test_default_conv_decoder_is_the_classic_one() -> None:
    assert layer_table(Conv().decoder(2, (28, 28, 1))) == [
        ("InputLayer", (2,)),
        ("Dense", (3136,)),
        ("Reshape", (7, 7, 64)),
        ("Conv2DTranspose", (14, 14, 64)),
        ("Conv2DTranspose", (28, 28, 32)),
        ("Conv2D", (28, 28, 1)),
    ]


def test_default_mlp_has_the_layers_of_the_paper() -> None:
    assert layer_table(MLP().encoder((28, 28, 1), 50))[1:] == [
        *[("Flatten", (784,)), ("Dense", (200,)), ("Dense", (200,)), ("Dense", (50,)), ("Dense", (50,))]
    ]
    decoder = MLP(widths=(300, 200)).decoder(50, (28, 28, 1))
    assert layer_table(decoder)[1:] == [
        *[("Dense", (200,)), ("Dense", (300,)), ("Dense", (784,)), ("Reshape", (28, 28, 1))]
    ]
    assert decoder.layers[1].activation is keras.activations.tanh


def test_mlp_decoder_orders_its_outputs_as_pixels() -> None:
    decoder = MLP(widths=(3,)).decoder(2, (2, 3, 4))
    decoder.layers[-2].set_weights([np.zeros((3, 24)), np.arange(24)])
    np.testing.assert_array_equal(ops.convert_to_numpy(decoder(noise(1, 2)))[0], np.arange(24).reshape(2, 3, 4))


def test_residual_blocks_start_as_the_identity() -> None:
    features = keras.Input((5, 6, 8))
    block = keras.Model(features, residual_block(features, 8))
    maps = noise(2, 5, 6, 8)
    np.testing.assert_array_equal(ops.convert_to_numpy(block(maps)), maps)
    wider = keras.Model(features, residual_block(features, 12, groups=3))
    assert wider.output_shape == (None, 5, 6, 12)
    assert [layer.groups for layer in wider.layers if isinstance(layer, keras.layers.GroupNormalization)] == [2, 3]


def test_residual_mlp_starts_as_its_first_layer() -> None:
    network = MLP(widths=(6, 6, 6), residual=True)
    features = network.features(images := keras.Input((3, 4, 1)))
    first = next(layer for layer in keras.Model(images, features).layers if isinstance(layer, keras.layers.Dense))
    batch = noise(2, 3, 4, 1)
    expected = np.tanh(batch.reshape(2, 12) @ ops.convert_to_numpy(first.kernel))
    np.testing.assert_allclose(ops.convert_to_numpy(keras.Model(images, features)(batch)), expected, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 6, 9, 32, 100])
def test_number_of_normalization_groups_divides_every_width(width: int) -> None:
    features = keras.Input((3, 3, width))
    norm = keras.Model(features, residual_block(features, width, groups=8)).layers[1]
    assert width % norm.groups == 0
    assert norm.groups == 1 or width // norm.groups >= 4


def test_resnet_has_few_weights_for_large_images() -> None:
    network, shape = ResNet(), (256, 256, 3)
    assert network.encoder(shape, 32).count_params() + network.decoder(32, shape).count_params() < 4e6


def test_network_families_are_registered_by_short_name() -> None:
    expected = {"conv": networks.Conv, "mlp": networks.MLP, "resnet": networks.ResNet}
    assert expected.items() <= registry.registered("network").items()

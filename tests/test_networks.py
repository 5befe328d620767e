"""The convolutional network: the classic sizes, and every other size."""

import keras
import pytest

from keras_vae import Conv


def layer_table(model: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    return [(type(layer).__name__, tuple(layer.output.shape[1:])) for layer in model.layers]


def test_defaults_are_the_classic_encoder() -> None:
    encoder = Conv().encoder((28, 28, 1), 2)
    assert encoder.name == "encoder"
    assert layer_table(encoder) == [
        ("InputLayer", (28, 28, 1)),
        ("Conv2D", (14, 14, 32)),
        ("Conv2D", (7, 7, 64)),
        ("Flatten", (3136,)),
        ("Dense", (16,)),
        ("Dense", (2,)),
        ("Dense", (2,)),
    ]
    assert [layer.name for layer in encoder.layers[-2:]] == ["z_mean", "z_log_var"]
    assert encoder.count_params() == (9 * 32 + 32) + (9 * 32 * 64 + 64) + (3136 * 16 + 16) + 2 * (16 * 2 + 2)


def test_defaults_are_the_classic_decoder() -> None:
    decoder = Conv().decoder(2, (28, 28, 1))
    assert decoder.name == "decoder"
    assert layer_table(decoder) == [
        ("InputLayer", (2,)),
        ("Dense", (3136,)),
        ("Reshape", (7, 7, 64)),
        ("Conv2DTranspose", (14, 14, 64)),
        ("Conv2DTranspose", (28, 28, 32)),
        ("Conv2D", (28, 28, 1)),
    ]


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 9, 3), (31, 45, 3), (8, 8, 1), (29, 27, 2)])
@pytest.mark.parametrize("latent_dim", [1, 5])
def test_decoder_puts_out_exactly_the_size_asked_for(shape: tuple[int, int, int], latent_dim: int) -> None:
    network = Conv(widths=(2, 3, 4), dense=2)
    assert [output.shape for output in network.encoder(shape, latent_dim).outputs] == [(None, latent_dim)] * 2
    assert network.decoder(latent_dim, shape).output_shape == (None, *shape)

"""Settings of small models, one per architecture."""

from collections.abc import Callable

from keras_vae import Run

MakeRun = Callable[..., Run]

NETWORK = 'model.network={ name = "conv", widths = [4, 6], dense_units = 8 }'
CLASSIC = ('model.network={ name = "mlp", widths = [8] }', "model.latent_dim=2")


def vq(quantizer: str) -> tuple[str, ...]:
    """Return the settings of a VQ-VAE with a quantizer, given as in an experiment file."""
    architecture = f'{{ name = "vq", quantizer = {quantizer}, code_dim = 4, prior_width = 8, prior_blocks = 1 }}'
    return f"model.architecture={architecture}", NETWORK


VQ = vq('{ name = "ema", num_codes = 4 }')
QUANTIZERS = (
    '{ name = "fsq", levels = [3, 3, 3, 3] }',
    '{ name = "simvq", num_codes = 8 }',
    '{ name = "residual", num_quantizers = 2, quantizer = { name = "simvq", num_codes = 4 } }',
)
LADDER = ('model.architecture={ name = "ladder", widths = [4], groups = [1], latent_channels = 2 }',)

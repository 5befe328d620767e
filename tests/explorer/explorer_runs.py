"""Settings of small models, one per architecture."""

from collections.abc import Callable

from keras_vae import Run

MakeRun = Callable[..., Run]

CLASSIC = ('model.network={ name = "mlp", widths = [8] }', "model.latent_dim=2")
VQ = (
    'model.architecture={ name = "vq", quantizer = { name = "ema", num_codes = 4 }, code_dim = 4, prior_width = 8, '
    "prior_blocks = 1 }",
    'model.network={ name = "conv", widths = [4, 6], dense_units = 8 }',
)
LADDER = ('model.architecture={ name = "ladder", widths = [4], groups = [1], latent_channels = 2 }',)

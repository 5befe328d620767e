"""Vector quantizers: from the encoder's map to a map of code indices."""

# Importing the package registers all quantizers.
from keras_vae.components.quantizers.base import Quantized, Quantizer
from keras_vae.components.quantizers.ema import VectorQuantizerEMA
from keras_vae.components.quantizers.fsq import FiniteScalarQuantizer
from keras_vae.components.quantizers.gradients import GRADIENTS, pass_gradient
from keras_vae.components.quantizers.residual import ResidualQuantizer
from keras_vae.components.quantizers.simvq import SimVQ
from keras_vae.components.quantizers.usage import codebook_usage

__all__ = [
    "GRADIENTS",
    "FiniteScalarQuantizer",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "SimVQ",
    "VectorQuantizerEMA",
    "codebook_usage",
    "pass_gradient",
]

"""The inputs of a forward pass."""

from typing import Any, NamedTuple

from keras_vae.core.typing import Tensor


class Batch(NamedTuple):
    """Inputs of a model's forward pass.

    Args:
        images: Images in [0, 1], preprocessed by the likelihood, (N, H, W, C), float32.
        condition: Encoded conditions, (N, size), or None.
        noise: Standard normal noise for K draws of z per image, (N, K, latent_dim).
        features: Result of `encode_features` for the images; None to run the encoder.
        codes: Codes (N, K, latent_dim) at which to evaluate the loss terms, instead of samples from the posterior; None
            to sample. Only models with a latent vector use them.
        mask: True for observed values of the images, (N, H, W, 1 or C), or None if all are observed.
    """

    images: Tensor
    condition: Tensor
    noise: Tensor
    features: Any = None
    codes: Tensor = None
    mask: Tensor = None

"""The variational autoencoder."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

import keras
import numpy as np
from keras import ops

from keras_vae.distributions import ImageDistribution, Normal
from keras_vae.errors import InputError
from keras_vae.likelihoods import Bernoulli, Likelihood
from keras_vae.models.base import BaseVAE, Output, fitting_batch_size, in_batches
from keras_vae.networks.conv import Conv
from keras_vae.objectives import ELBO, Objective, Terms
from keras_vae.parts import PACKAGE
from keras_vae.pixels import to_unit
from keras_vae.posteriors import Sampler
from keras_vae.priors import Prior, StandardNormal
from keras_vae.types import Array, Tensor

Result = TypeVar("Result")


class Moments(NamedTuple):
    """The posterior of a batch: `z_mean` and `z_log_var`, each (N, latent_dim)."""

    z_mean: Array
    z_log_var: Array


@keras.saving.register_keras_serializable(PACKAGE)
class VAE(BaseVAE):
    r"""A variational autoencoder (Kingma and Welling, arXiv 1312.6114).

    Minimises `objective`, by default the negative evidence lower bound
    \(-\log p(x|z) + KL(q(z|x) \| p(z))\), \(z \sim q(z|x)\), in nats, summed over each image and averaged over images.
    Everything a Keras user knows works on it unchanged. `VAE()` is the classic convolutional model for MNIST.

    Args:
        encoder: Any Keras model, images in [0, 1] (N, H, W, C) → `[z_mean, z_log_var]`, each (N, latent_dim).
        decoder: Any Keras model, z (N, latent_dim) → the parameters of the likelihood, (N, H, W, C).
        prior: p(z).
        likelihood: p(x|z); `Bernoulli(from_logits=False)` for a decoder that ends in a sigmoid.
        objective: What is minimised; `ELBO(beta=…)` weights the KL.
        seed: Where the sampling noise starts; None takes a random start.
        **kwargs: As for every Keras model.

    Raises:
        InputError: The parts do not fit together.

    Example:
        >>> vae = VAE(seed=0)
        >>> vae.compile(optimizer="adam")
        >>> history = vae.fit(np.zeros((8, 28, 28, 1), "uint8"), verbose=0)
        >>> vae.sample(4, seed=1).shape
        (4, 28, 28, 1)
    """

    def __init__(
        self,
        encoder: keras.Model | None = None,
        decoder: keras.Model | None = None,
        *,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        seed: int | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        if (encoder is None) != (decoder is None):
            given, missing = ("decoder", "encoder") if encoder is None else ("encoder", "decoder")
            raise InputError(f"{missing} = None: a {given} was given, so pass its {missing} too, or neither of them")
        super().__init__(objective or ELBO(), **kwargs)
        self.encoder = encoder or Conv().encoder((28, 28, 1), latent_dim=2)
        self.decoder = decoder or Conv().decoder(2, (28, 28, 1))
        self.prior = prior or StandardNormal()
        self.likelihood = likelihood or Bernoulli()
        self.seed = seed
        self.sampler = Sampler(seed, dtype="float32", name="sampler")
        self.likelihood.check_decoder(self.decoder)
        if not self.supports_jit:
            self.encoder.supports_jit = self.decoder.supports_jit = False
        # Keras knows the shapes of functional and sequential models; a subclassed one is built by its first images.
        if hasattr(self.encoder, "input_shape"):
            self.build(self.encoder.input_shape)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Trace the model once: networks get their weights, and parts that do not fit are refused.

        Args:
            input_shape: (None, H, W, C).
        """
        try:
            output = self.compute_output_spec(keras.KerasTensor(input_shape, dtype="uint8"))
        except InputError as error:
            # Keras wraps what was raised while it traces into lines of its own.
            raise (error.__context__ or error) from None
        self.image_shape = tuple(input_shape[1:])
        self.latent_dim = int(output.z_mean.shape[-1])
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Output:
        """Encode, draw, decode, and weigh the terms.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            training: As for every Keras model.

        Returns:
            The `Output` of the batch.
        """
        images = to_unit(x)
        posterior = self._posterior(self.encoder(images, training=training))
        z = self.sampler([posterior.mean, posterior.log_var])
        outputs = self.decoder(z, training=training)
        terms = self._terms(images, posterior, z, outputs)
        reconstruction = self._pixels(outputs).mean()
        return Output(reconstruction, posterior.mean, posterior.log_var, z, terms)

    def encode(self, x: Array, batch_size: int | None = None) -> Moments:
        """Return the posterior's moments.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            batch_size: Images at a time; None takes as many as fit in little memory.

        Returns:
            `z_mean` and `z_log_var`, each (N, latent_dim), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        x = self._check(np.asarray(x))
        return Moments(*self._in_batches(self._encode, x, batch_size=batch_size))

    def decode(self, z: Array, batch_size: int | None = None) -> Array:
        """Return the mean images of codes.

        Args:
            z: Codes (N, latent_dim).
            batch_size: Codes at a time; None takes as many as fit in little memory.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: `z` has another shape.
        """
        self._check_built()
        z = np.asarray(z, "float32")
        if z.ndim != 2 or z.shape[1] != self.latent_dim or len(z) == 0:
            raise InputError(f"z of shape {z.shape}: this model decodes (n, {self.latent_dim}), n ≥ 1")
        return self._in_batches(
            lambda codes: self._pixels(self.decoder.predict_on_batch(codes)).mean(), z, batch_size=batch_size
        )

    def sample(self, n: int, seed: int | None = None) -> Array:
        """Return mean images of codes drawn from the prior.

        Args:
            n: How many.
            seed: Makes the draw repeatable; None goes on with the model's own generator.

        Returns:
            Images in [0, 1], (n, H, W, C), float32.

        Raises:
            InputError: `n` is below one.
        """
        if n < 1:
            raise InputError(f"n = {n}: ask for at least one sample")
        self._check_built()
        source = self.sampler.seed_generator if seed is None else seed
        return self.decode(ops.convert_to_numpy(self.prior.sample(n, self.latent_dim, source)))

    def reconstruct(self, x: Array, batch_size: int | None = None) -> Array:
        """Return the mean images of the posterior means: encode, then decode, without noise.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            batch_size: Images at a time; None takes as many as fit in little memory.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        return self.decode(self.encode(x, batch_size).z_mean, batch_size)

    def terms(self, x: Array, seed: int = 0, batch_size: int | None = None) -> Terms:
        """Return the terms of the loss for every image, with one draw of z each.

        The noise comes from NumPy, so that one model and one seed give the same numbers on every backend.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws.
            batch_size: Images at a time; None takes as many as fit in little memory.

        Returns:
            `Terms` of float32 arrays (N,), in nats per image.

        Raises:
            InputError: The images do not fit the model.
        """
        x = self._check(np.asarray(x))
        noise = np.random.default_rng(seed).standard_normal((len(x), self.latent_dim), dtype="float32")

        def batch_terms(batch: Array, batch_noise: Array) -> Terms:
            posterior = self._posterior(self._encode(batch))
            z = posterior.sample(batch_noise)
            return self._terms(to_unit(batch), posterior, z, self.decoder.predict_on_batch(z))

        return self._in_batches(batch_terms, x, noise, batch_size=batch_size)

    def elbo(self, x: Array, seed: int = 0, batch_size: int | None = None) -> Array:
        r"""Return the evidence lower bound \(\log p(x|z) - KL(q(z|x) \| p(z)) \le \log p(x)\) of every image.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws of z, one an image; the same on every backend.
            batch_size: Images at a time; None takes as many as fit in little memory.

        Returns:
            Nats per image, (N,), float32; β plays no part in it.

        Raises:
            InputError: The images do not fit the model.
        """
        return -self.terms(x, seed, batch_size).negative_elbo

    def get_config(self) -> dict[str, Any]:
        """Return the parts, serialised."""
        parts = {name: getattr(self, name) for name in ("encoder", "decoder", "prior", "likelihood", "objective")}
        serialised = {name: keras.saving.serialize_keras_object(value) for name, value in parts.items()}
        return {**super().get_config(), **serialised, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Build the model from what `get_config` returned."""
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value, custom_objects)
                if isinstance(value, dict) and name != "dtype"
                else value
                for name, value in config.items()
            }
        )

    def _in_batches(self, function: Callable[..., Result], *arrays: Array, batch_size: int | None) -> Result:
        fitting = fitting_batch_size(self.image_shape) if batch_size is None else batch_size
        return in_batches(function, *arrays, batch_size=fitting)

    def _encode(self, batch: Array) -> list[Tensor]:
        outputs: list[Tensor] = self.encoder.predict_on_batch(to_unit(batch))
        return outputs

    def _posterior(self, outputs: list[Tensor]) -> Normal:
        if not (isinstance(outputs, list | tuple) and len(outputs) == 2 and outputs[0].shape == outputs[1].shape):
            shapes = [tuple(output.shape) for output in keras.tree.flatten(outputs)]
            raise InputError(
                f"encoder returns {shapes}: it must return [z_mean, z_log_var], each (n, latent_dim); "
                "the VAE draws z by itself"
            )
        return Normal(*(ops.cast(output, "float32") for output in outputs))

    def _pixels(self, outputs: Tensor) -> ImageDistribution:
        return self.likelihood(ops.cast(outputs, "float32"))

    def _terms(self, images: Tensor, posterior: Normal, z: Tensor, outputs: Tensor) -> Terms:
        expected = (*images.shape[1:-1], self.likelihood.decoder_channels(images.shape[-1]))
        if not all(size in (None, got) for size, got in zip(expected, outputs.shape[1:], strict=True)):
            raise InputError(
                f"decoder puts out {tuple(outputs.shape[1:])}: for images of {tuple(images.shape[1:])} under "
                f"{self.likelihood} it must put out {expected}"
            )
        return Terms(-self._pixels(outputs).log_prob(images), self.prior.kl(posterior, z))

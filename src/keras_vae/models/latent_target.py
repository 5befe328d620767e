"""Functions of the codes of a block of images, for algorithms in NumPy that search or sample the latent space."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Floats, Shape
from keras_vae.distributions.latent import (
    LatentDistribution,
    Mixture,
    PushforwardDistribution,
    ReparameterizedDistribution,
)


class LatentVectorModel(Protocol):
    """Protocol of models whose code is a single vector: the members of `VAE` that `LatentTarget` uses."""

    image_shape: Shape
    latent_dim: int

    @property
    def output_size(self) -> int:
        """Memory of the decoder's outputs per pixel, in units of eight channels."""

    @property
    def log_joint_and_gradient(self) -> Callable[[Floats, Mapping[str, Floats]], tuple[Any, Any]]:
        """A function of codes (N, K, latent_dim) and inputs: log p(x, z), (N, K), and its gradient in the codes."""

    def encode_features(self, inputs: dict[str, Floats]) -> Any:
        """Return the encoder's outputs for a batch, or None."""

    def latent_distributions(
        self, inputs: Mapping[str, Floats]
    ) -> tuple[ReparameterizedDistribution, LatentDistribution]:
        """Return q(z|x) and p(z) of a batch, for codes (N, K, latent_dim)."""

    def loss_terms(self, inputs: dict[str, Any]) -> Any:
        """Return the loss terms of a batch with `codes`, (N, K), on the device."""


class LatentTarget:
    """The joint density p(x, z) of a block of images, the posterior and the prior, as functions of codes in NumPy.

    Every call of the model has the same number of images, and as many codes per image as fit in memory, so that a
    backend compiles few programs.

    Args:
        model: A built model.
        inputs: Inputs of `call` for the block, with `features`: arrays of N rows.
        num_images: Number of images per call, at least N; the last image is repeated.
        codes_at_once: Maximum number of codes per image and call.
    """

    def __init__(
        self, model: LatentVectorModel, inputs: Mapping[str, Any], num_images: int, codes_at_once: int
    ) -> None:
        self.model, self.latent_dim, self.codes_at_once = model, model.latent_dim, codes_at_once
        self.num_images = len(inputs["images"])
        self.rows = np.minimum(np.arange(num_images), self.num_images - 1)
        self.features = [feature[self.rows] for feature in inputs["features"]]
        self.inputs = {key: value[self.rows] for key, value in inputs.items() if key != "features"}

    def terms(self, codes: Floats) -> tuple[Floats, Floats, Floats]:
        """Return log p(x|z), log p(z) and log q(z|x) of codes (N, K, D), each (N, K), float64."""
        parts = []
        for chunk in self._chunks(codes, self.codes_at_once):
            terms = self.model.loss_terms({**self.inputs, "features": self.features, "codes": chunk})
            parts.append([ops.convert_to_numpy(term) for term in (terms[0], terms[1], terms[2])])
        first, second, third = (self._joined(part, codes) for part in zip(*parts, strict=True))
        return first, second, third

    def log_joint(self, codes: Floats) -> Floats:
        """Return log p(x, z) of codes (N, K, D), (N, K), float64."""
        log_likelihood, log_prior, _ = self.terms(codes)
        return log_likelihood + log_prior

    def log_joint_and_gradient(self, codes: Floats) -> tuple[Floats, Floats]:
        """Return log p(x, z) of codes (N, K, D), (N, K), and its gradient in the codes, (N, K, D), float64.

        Values that are not finite become −∞, with a gradient of zero.
        """
        # A gradient needs the decoder's activations, so fewer codes fit in memory.
        parts = []
        for chunk in self._chunks(codes, max(1, self.codes_at_once // 4)):
            parts.append([ops.convert_to_numpy(part) for part in self.model.log_joint_and_gradient(chunk, self.inputs)])
        values, gradients = (self._joined(part, codes) for part in zip(*parts, strict=True))
        return np.where(np.isfinite(values), values, -np.inf), np.where(np.isfinite(gradients), gradients, 0.0)

    def posterior_moments(self) -> tuple[Floats, Floats]:
        """Return the means and standard deviations of the posterior, each (N, 1, D), float64."""
        posterior, _ = self._distributions()
        return self._to_array(posterior.mean), np.exp(0.5 * self._to_array(posterior.log_var))

    def sample_posterior(self, noise: Floats) -> Floats:
        """Return samples from the posterior, (N, K, D), computed from standard normal noise (N, K, D)."""
        posterior, _ = self._distributions()
        return self._to_array(posterior.rsample(ops.convert_to_tensor(self._padded(noise))).z)

    def sample_prior(self, noise: Floats, generators: list[np.random.Generator]) -> Floats:
        """Return samples from the prior, (N, K, D).

        Args:
            noise: Standard normal noise, (N, K, D).
            generators: One per image. They choose the components of a mixture, and the seed of priors whose samples
                are not a function of noise, so that those depend on the backend.

        Raises:
            InputError: The prior depends on a condition, and its samples are not a function of noise.
        """
        (_, prior), count = self._distributions(), noise.shape[1]
        if isinstance(prior, Mixture):
            probs = np.cumsum(ops.convert_to_numpy(ops.softmax(prior.logits)), dtype="float64")
            uniform = self._padded(np.stack([generator.random(count) for generator in generators]))
            indices = np.minimum(np.searchsorted(probs, uniform, side="right"), len(probs) - 1)
            prior = prior.select(ops.convert_to_tensor(indices.astype("int32")))
        if isinstance(prior, PushforwardDistribution):
            tensor = prior.transform(ops.convert_to_tensor(self._padded(noise)))
            return self._to_array(ops.broadcast_to(tensor, (len(self.rows), *noise.shape[1:])))
        seeds = [int(generator.integers(2**31)) for generator in generators]
        samples = [ops.convert_to_numpy(prior.sample(count, seed)) for seed in seeds]
        if samples[0].shape != noise.shape[1:]:
            raise InputError(
                f"prior = {type(prior).__name__}: its samples given a condition are not a function of normal noise; "
                "set proposal = 'posterior'"
            )
        return np.stack(samples).astype("float64")

    def _distributions(self) -> tuple[Any, Any]:
        """Return q(z|x) and p(z) of the images.

        They are not kept: on JAX, each prediction of Keras deletes the values of the variables and assigns new ones.
        """
        inputs: dict[str, Any] = {**self.inputs, "features": self.features}
        return self.model.latent_distributions(inputs)

    def _padded(self, values: Floats) -> Floats:
        return np.asarray(values[self.rows], "float32")

    def _to_array(self, tensor: Any) -> Floats:
        array: Floats = np.asarray(ops.convert_to_numpy(tensor), "float64")[: self.num_images]
        return array

    def _chunks(self, codes: Floats, at_most: int) -> Iterator[Floats]:
        """Yield codes in chunks of equal size, float32; the last code is repeated."""
        count = codes.shape[1]
        size = -(-count // -(-count // at_most))
        for start in range(0, count, size):
            columns = np.minimum(np.arange(start, start + size), count - 1)
            yield self._padded(codes[:, columns])

    def _joined(self, parts: Any, codes: Floats) -> Floats:
        joined: Floats = np.concatenate(parts, axis=1)[: self.num_images, : codes.shape[1]].astype("float64")
        return joined

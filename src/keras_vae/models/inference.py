"""Inference with a trained model: encode, decode, sample, reconstruct, and its bounds on log p(x)."""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import ELBOTerms
from keras_vae.core.errors import InputError
from keras_vae.core.images import to_unit
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.models.batching import Result, fitting_batch_size, in_batches
from keras_vae.models.image_models import ImageDecoder, ImageEncoder
from keras_vae.models.importance_sampling import ImportanceSampling
from keras_vae.models.inputs import ModelInputs


class Encoding(NamedTuple):
    """Codes of images, as every model returns them; a field that a model does not have is None.

    Args:
        z_mean: Means of q(z|x), (N, latent_dim), float32.
        z_log_var: Logarithms of its variances, (N, latent_dim), float32.
        indices: Positions in the codebook, (N, rows, columns), int32.
    """

    z_mean: Any = None
    z_log_var: Any = None
    indices: Any = None

    @property
    def codes(self) -> Any:
        """What `decode` takes: `indices` if the model has a codebook, else `z_mean`."""
        return self.z_mean if self.indices is None else self.indices

    def as_dict(self) -> dict[str, Array]:
        """Return the fields that the model has, by name."""
        return {name: values for name, values in self._asdict().items() if values is not None}


class Inference(abc.ABC):
    """The inference methods of `BaseVAE`; everything they need of the model is declared here.

    Images are an array or, for a conditional model, also `{"images": x, "condition": c}`.
    """

    likelihood: Likelihood
    condition: Condition | None
    built: bool
    build: Callable[[Any], None]
    predict_on_batch: Callable[[Any], Any]

    image_shape: Shape
    """(H, W, C) of the images, None for a size that is not fixed; set when the model is built."""

    latent_dim: int
    """The number of latent dimensions; set when the model is built."""

    @abc.abstractmethod
    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the fields of the `Encoding` of images, by name; what `decode_tensors` takes comes first.

        This method and the two after it draw nothing and accept symbolic tensors: exported graphs consist of them.

        Args:
            inputs: As for `call`, with `pixel_noise` if the likelihood draws pixels.
        """

    @abc.abstractmethod
    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images (N, H, W, C) of codes, in [0, 1].

        Args:
            codes: The first field that `encode_tensors` returns.
            condition: Vectors of the conditions, (N, width), or None.
        """

    @abc.abstractmethod
    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images (N, H, W, C) of draws from the prior, as a function of noise.

        Args:
            noise: Standard normal noise, (N, latent_dim).
            condition: Vectors of the conditions, (N, width), or None.

        Raises:
            InputError: Draws from this prior are not a function of such noise.
        """

    @abc.abstractmethod
    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return codes drawn from the prior, as `decode` takes them; arguments and errors as for `sample`."""

    @property
    @abc.abstractmethod
    def _encoding_parts(self) -> tuple[Any, ...]:
        """The parts of the model that `encode_tensors` uses."""

    @property
    @abc.abstractmethod
    def _decoding_parts(self) -> tuple[Any, ...]:
        """The parts of the model that `decode_tensors` uses."""

    @abc.abstractmethod
    def encode_features(self, inputs: dict[str, Array]) -> Any:
        """Return the encoder's outputs for a batch, computed once for any number of draws; None to run it each time."""

    @functools.cached_property
    def image_encoder(self) -> ImageEncoder:
        """A Keras model of images, with the weights of this one, that returns what `encode` returns, as a dict.

        Use it as a layer of other models or save it by itself. `encoder`, if the model has one, is the network as you
        passed it: it takes floats in [0, 1], next to them the channels of a condition, and returns its raw outputs.
        Under a likelihood that binarizes at random, gray pixels are rounded.

        Raises:
            InputError: The model is not built.
        """
        self._check_built()
        return ImageEncoder(self)  # type: ignore[arg-type]

    @functools.cached_property
    def image_decoder(self) -> ImageDecoder:
        """A Keras model of codes, with the weights of this one, that returns mean images in [0, 1] as `decode` does.

        `decoder`, if the model has one, is the network as you passed it, which returns the likelihood's parameters.

        Raises:
            InputError: The model is not built.
        """
        self._check_built()
        return ImageDecoder(self)  # type: ignore[arg-type]

    def encode(self, x: Any, *, batch_size: int | None = None, condition: Any = None, seed: int = 0) -> Encoding:
        """Return the codes of images.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            batch_size: Images per batch; None for as many as fit in little memory.
            condition: Their condition, one for all or one for each.
            seed: Fixes the binarization under a likelihood that draws pixels.

        Returns:
            An `Encoding`, whose `codes` are what `decode` takes.

        Raises:
            InputError: The images do not fit the model.
        """
        inputs = self._prepare_inputs(x, condition, seed)

        def encoding(batch: dict[str, Array]) -> dict[str, Array]:
            # Inside its graphs TensorFlow divides by 255 with a different rounding.
            images = to_unit(ops.convert_to_tensor(batch["images"]))
            tensors: dict[str, Array] = self.image_encoder.predict_on_batch({**batch, "images": images})
            return tensors

        return Encoding(**self._in_batches(encoding, inputs, batch_size))

    def decode(self, z: Any, *, batch_size: int | None = None, condition: Any = None) -> Array:
        """Return the mean images of codes.

        Args:
            z: Codes, as `encode(x).codes` are: (N, latent_dim), or indices (N, rows, columns).
            batch_size: Codes per batch; None for as many as fit in little memory.
            condition: Their condition, one for all or one for each.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: The codes do not fit the model.
        """
        self._check_built()
        codes = self._check_codes(np.asarray(z))
        conditions = self._input_checks.conditions(condition, len(codes))
        inputs = {"codes": codes} if conditions is None else {"codes": codes, "condition": conditions}
        return self._in_batches(self.image_decoder.predict_on_batch, inputs, batch_size)

    def reconstruct(self, x: Any, *, batch_size: int | None = None, condition: Any = None) -> Array:
        """Return the mean images of the codes of images: encode, then decode, without noise.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            batch_size: Images per batch; None for as many as fit in little memory.
            condition: Their condition, one for all or one for each.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        inputs = self._input_checks.arrays(x, condition)
        codes = self.encode(inputs, batch_size=batch_size).codes
        return self.decode(codes, batch_size=batch_size, condition=inputs.get("condition"))

    def sample(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return the mean images of codes drawn from the prior.

        Args:
            n: The number of images.
            seed: Makes the draw repeatable; None continues the model's own random stream.
            condition: The condition to draw under, one for all or one for each.

        Returns:
            Images in [0, 1], (n, H, W, C), float32.

        Raises:
            InputError: `n` is below one, or the condition does not fit the model.
        """
        return self.decode(self.sample_prior(n, seed=seed, condition=condition), condition=condition)

    def elbo_terms(
        self,
        x: Any,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        condition: Any = None,
        draws: int = 1,
    ) -> ELBOTerms:
        """Return the terms of the loss for each image.

        The noise comes from NumPy, so one model and one seed give the same numbers on every backend.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws.
            batch_size: Images per batch; None for as many as fit in little memory.
            condition: Their condition, one for all or one for each.
            draws: K, draws of z per image.

        Returns:
            `ELBOTerms` of float32 NumPy arrays, in nats per image; its properties are tensors of the backend.

        Raises:
            InputError: The images do not fit the model, or `draws` is below one.
        """
        if draws < 1:
            raise InputError(f"draws = {draws}: must be ≥ 1")
        inputs = self._prepare_inputs(x, condition, seed)
        generator = np.random.default_rng(seed)
        inputs["noise"] = generator.standard_normal((len(inputs["images"]), draws, self.latent_dim), dtype="float32")
        return self._in_batches(lambda batch: self.predict_on_batch(batch).terms, inputs, batch_size, draws)

    def elbo(self, x: Any, *, seed: int = 0, batch_size: int | None = None, condition: Any = None) -> Array:
        r"""Return the evidence lower bound \(\log p(x|z) - KL(q(z|x) \| p(z)) \le \log p(x)\) of each image.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws of z, one per image; the same on every backend.
            batch_size: Images per batch; None for as many as fit in little memory.
            condition: Their condition, one for all or one for each.

        Returns:
            Nats per image, (N,), float32, at β = 1 whatever the objective.

        Raises:
            InputError: The images do not fit the model.
        """
        terms = self.elbo_terms(x, seed=seed, batch_size=batch_size, condition=condition)
        return -ops.convert_to_numpy(terms.negative_elbo)

    def log_likelihood(self, x: Any, *, samples: int = 100, seed: int = 0, condition: Any = None) -> Array:
        r"""Return the importance-weighted estimate \(\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\) of log p(x).

        Burda et al. (arXiv 1509.00519). It is a lower bound in expectation and rises with K toward log p(x).

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            samples: K, draws of z per image.
            seed: Fixes the draws; the same on every backend.
            condition: Their condition, one for all or one for each.

        Returns:
            Nats per image, (N,), float32.

        Raises:
            InputError: The images do not fit the model, or `samples` is below one.
        """
        sampling = self.importance_sampling(x, samples=samples, seed=seed, condition=condition)
        estimates = [estimate.log_likelihood for estimate in sampling.over(sampling.blocks)]
        return np.concatenate(estimates).astype("float32")

    def importance_sampling(self, x: Any, *, samples: int, seed: int = 0, condition: Any = None) -> ImportanceSampling:
        """Return the estimator of log p(x), which works block by block; arguments and errors as `log_likelihood`."""
        if samples < 1:
            raise InputError(f"samples = {samples}: must be ≥ 1")
        return ImportanceSampling(self, self._prepare_inputs(x, condition, seed), samples, seed)

    @property
    def output_size(self) -> int:
        """The size of the decoder's outputs relative to up to eight channels: 32 for 256 logits per pixel."""
        return max(1, self.likelihood.decoder_channels(self.image_shape[-1]) // 8)

    def fitting_batch_size(self, draws: int = 1) -> int:
        """Return the batch size with which memory grows neither with the images' size nor with the likelihood.

        Args:
            draws: The number of codes that are decoded per image.
        """
        return max(1, fitting_batch_size(self.image_shape, draws) // self.output_size)

    @property
    def _input_checks(self) -> ModelInputs:
        return ModelInputs(self.image_shape if self.built else (None, None, None), self.condition)

    def _prepare_inputs(self, x: Any, condition: Any, seed: int) -> dict[str, Array]:
        """Return the checked inputs of `call`, with noise if the likelihood draws pixels, and build the model."""
        inputs = self._input_checks.arrays(x, condition)
        images = inputs["images"]
        if not self.built:
            self.build((None, *images.shape[1:]))
        if self.likelihood.requires_noise:
            inputs["pixel_noise"] = np.random.default_rng([seed, 1]).random(images.shape, dtype="float32")
        return inputs

    def _check_built(self) -> None:
        if not self.built:
            raise InputError("the model's sizes are not known yet: fit it first, or call build((None, H, W, C))")

    def _check_codes(self, z: Array) -> Array:
        """Return codes as `decode_tensors` takes them; refuse others."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim or len(z) == 0:
            raise InputError(f"z of shape {z.shape}: this model decodes (n, {self.latent_dim}), n ≥ 1")
        return z.astype("float32")

    def _check_sample(self, n: int, condition: Any) -> Array | None:
        """Return the vectors (n, width) of the conditions of n samples, if any, once `n` and the model are checked."""
        if n < 1:
            raise InputError(f"n = {n}: ask for at least one sample")
        self._check_built()
        conditions = self._input_checks.conditions(condition, n)
        return None if self.condition is None else ops.convert_to_numpy(self.condition.encode(conditions))

    def _in_batches(
        self, function: Callable[..., Result], inputs: Any, batch_size: int | None, draws: int = 1
    ) -> Result:
        return in_batches(
            function, inputs, batch_size=self.fitting_batch_size(draws) if batch_size is None else batch_size
        )

"""Inference methods of all models: encode, decode, sample, reconstruct, and bounds on log p(x)."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import ELBOTerms
from keras_vae.core.errors import InputError, check_count
from keras_vae.core.images import image_generators, normal_noise, to_unit
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.models.arguments import check_memory, check_seed
from keras_vae.models.batching import Result, fitting_batch_size, in_batches
from keras_vae.models.encoding import Encoding, LatentStatistics
from keras_vae.models.image_models import ImageModels
from keras_vae.models.importance_sampling import ImportanceSampling, Proposal
from keras_vae.models.inputs import ModelInputs, check_numbers
from keras_vae.models.proposals import choose_proposal


class Inference(ImageModels, abc.ABC):
    """Inference methods of `BaseVAE`, with declarations of the members of the model that they use.

    Images are an array or `{"images": x}`, with entries `condition` and `mask` if any.
    """

    likelihood: Likelihood
    condition: Condition | None
    built: bool
    build: Callable[[Any], None]
    predict_on_batch: Callable[[Any], Any]
    loss_terms: Callable[[Mapping[str, Any]], ELBOTerms]
    weighted_codes: Callable[[dict[str, Any]], tuple[Tensor, Tensor]]

    image_shape: Shape
    """(H, W, C) of the images, None for a size that is not fixed; set when the model is built."""

    latent_dim: int
    """Number of latent dimensions; set when the model is built."""

    latent_statistics: LatentStatistics | None = None
    """Statistics that normalize codes; None if they were not measured, or if codes of this kind have none."""

    @abc.abstractmethod
    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the fields of the `Encoding` of images, by name. The first is the input of `decode_tensors`.

        This method, `decode_tensors` and `generate_from_noise` are deterministic and accept symbolic tensors, so that
        they can be exported as graphs.

        Args:
            inputs: Inputs of `call`, with `pixel_noise` if the likelihood requires noise.
        """

    @abc.abstractmethod
    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images (N, H, W, C) of codes, clipped to [0, 1].

        Args:
            codes: The first field of the result of `encode_tensors`.
            condition: Encoded conditions, (N, size), or None.
        """

    @abc.abstractmethod
    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images (N, H, W, C) of samples from the prior, as a function of noise.

        Args:
            noise: Standard normal noise, (N, latent_dim) or (N, *latent_shape).
            condition: Encoded conditions, (N, size), or None.

        Raises:
            InputError: Samples from this prior are not a function of normal noise.
        """

    @abc.abstractmethod
    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return codes sampled from the prior, as inputs of `decode`; arguments and errors as for `sample`."""

    @property
    @abc.abstractmethod
    def _encoding_parts(self) -> tuple[Any, ...]:
        """Components of the model that `encode_tensors` uses."""

    @property
    @abc.abstractmethod
    def _decoding_parts(self) -> tuple[Any, ...]:
        """Components of the model that `decode_tensors` uses."""

    @abc.abstractmethod
    def encode_features(self, inputs: dict[str, Array]) -> Any:
        """Return the encoder's outputs for a batch, to reuse for any number of draws; None if not reusable."""

    def encode(
        self, x: Any, *, batch_size: int | None = None, condition: Any = None, seed: int = 0, normalized: bool = False
    ) -> Encoding:
        """Return the codes of images.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            batch_size: Images per batch; None for a default that bounds memory.
            condition: Condition of the images, one for all or one per image.
            seed: Seed of a dynamic binarization, whose noise also depends on the pixels of the image, but not on its
                row.
            normalized: Whether to subtract the mean of `latent_statistics` and divide by the standard deviation.

        Returns:
            An `Encoding`, whose `codes` are the input of `decode`.

        Raises:
            InputError: The images do not fit the model, or its statistics were not measured.
        """
        statistics = self._statistics() if normalized else None
        inputs = self._prepare_inputs(x, condition, seed, by_content=True, checks=self._network_checks)

        def encode_batch(batch: dict[str, Array]) -> Any:
            # TensorFlow rounds the division by 255 differently inside a graph. The inputs are checked already.
            images = to_unit(ops.convert_to_tensor(batch["images"]))
            return self.image_encoder.predict_checked_batch({**batch, "images": images})

        encoding = Encoding(**self._in_batches(encode_batch, inputs, batch_size))
        return encoding if statistics is None else statistics.normalize(encoding)

    def decode(
        self, z: Any, *, batch_size: int | None = None, condition: Any = None, normalized: bool = False
    ) -> Array:
        """Return the mean images of codes.

        Args:
            z: Codes such as `encode(x).codes`: (N, latent_dim), maps (N, rows, columns, c), or indices.
            batch_size: Codes per batch; None for a default that bounds memory.
            condition: Condition of the codes, one for all or one per code.
            normalized: Whether the codes are normalized, as those of `encode(…, normalized=True)`.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: The codes or conditions do not fit the model, or its statistics were not measured.
        """
        self._check_built()
        codes = self._check_codes(z)
        if normalized:
            codes = self._statistics().denormalize(codes)
        conditions = self._input_checks.conditions(condition, len(codes))
        inputs = {"codes": codes} if conditions is None else {"codes": codes, "condition": conditions}
        return self._in_batches(self.image_decoder.predict_on_batch, inputs, batch_size)

    def reconstruct(self, x: Any, *, batch_size: int | None = None, condition: Any = None) -> Array:
        """Encode images and decode their codes, without noise.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            batch_size: Images per batch; None for a default that bounds memory.
            condition: Condition of the images, one for all or one per image.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        inputs = self._network_checks.arrays(x, condition)
        codes = self.encode(inputs, batch_size=batch_size).codes
        return self.decode(codes, batch_size=batch_size, condition=inputs.get("condition"))

    def sample(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return the mean images of samples from the prior.

        Args:
            n: Number of images.
            seed: Seed of the samples; None continues the model's random stream.
            condition: Condition of the samples, one for all or one per sample.

        Returns:
            Images in [0, 1], (n, H, W, C), float32.

        Raises:
            InputError: `n` is not an integer ≥ 1, or the condition does not fit the model.
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
        by_content: bool = False,
    ) -> ELBOTerms:
        """Return the loss terms of each image.

        The noise comes from NumPy, so a seed gives the same results on every backend. By default, each row has its own
        draws, so that the standard error of a mean over rows is correct even if images repeat.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            seed: Seed of the draws.
            batch_size: Images per batch; None for a default that bounds memory.
            condition: Condition of the images, one for all or one per image.
            draws: Number of draws of z per image, K.
            by_content: Whether the draws of an image follow from its pixels and the seed, so that they depend neither
                on its row nor on the other images.

        Returns:
            `ELBOTerms` of float32 NumPy arrays, in nats per image. Its properties are tensors of the backend.

        Raises:
            InputError: The images do not fit the model, or `draws` is not an integer ≥ 1.
        """
        check_count("draws", draws)
        inputs = self._prepare_inputs(x, condition, seed, by_content=by_content)
        shape = (draws, math.prod(self._latent_shape_for(inputs["images"].shape[1:])))
        check_memory("draws", draws, len(inputs["images"]) * math.prod(shape))
        if not by_content:
            full_shape = (len(inputs["images"]), *shape)
            inputs["noise"] = np.random.default_rng(seed).standard_normal(full_shape, dtype="float32")

        def terms_of_batch(batch: dict[str, Array]) -> Any:
            if by_content:
                batch = {**batch, "noise": normal_noise(image_generators(batch["images"], seed), shape)}
            return self.loss_terms(batch)

        return self._in_batches(terms_of_batch, inputs, batch_size, draws)

    def elbo(self, x: Any, *, seed: int = 0, batch_size: int | None = None, condition: Any = None) -> Array:
        r"""Return an estimate of the evidence lower bound of each image, \(\log p(x|z) - \mathrm{KL}(q(z|x) \| p(z))\).

        Its expectation over z is at most log p(x). Each value depends on one draw of z, and can exceed log p(x).

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            seed: Seed of the draws of z, one per row, which are the same on every backend.
            batch_size: Images per batch; None for a default that bounds memory.
            condition: Condition of the images, one for all or one per image.

        Returns:
            Nats per image, (N,), float32, with β = 1 for every objective.

        Raises:
            InputError: The images do not fit the model.
        """
        terms = self.elbo_terms(x, seed=seed, batch_size=batch_size, condition=condition)
        return -ops.convert_to_numpy(terms.negative_elbo)

    def log_likelihood(
        self,
        x: Any,
        *,
        samples: int = 100,
        seed: int = 0,
        condition: Any = None,
        proposal: str | Proposal | None = None,
    ) -> Array:
        r"""Return the importance-weighted estimate \(\log \tfrac1K \sum_k w_k\) of log p(x).

        The weights \(w_k = p(x, z_k) / q(z_k)\) of draws from a proposal q average to p(x). In expectation, the
        estimate is a lower bound that rises with K toward log p(x).

        * `"mixture"` searches the modes of p(z|x) and combines them with the posterior and the prior; see
          `MixtureProposal`. The search costs as much as about 1,300 to 2,100 draws. It is the default of models with a
          random latent vector.
        * `"posterior"`, \(q(z|x)\), is the estimator of most published numbers (Burda et al., arXiv 1509.00519). If the
          encoder misses modes, it is many nats too low, also with large K. It is the default of all other models.
        * `"ais"` anneals Markov chains from the prior, without the encoder; see `AnnealedImportanceSampling`. A chain,
          one of the `samples`, costs as much as 1,500 draws.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            samples: Number of draws of z per image, K.
            seed: Seed of the draws, which are the same on every backend, except for rounding.
            condition: Condition of the images, one for all or one per image.
            proposal: The name of a proposal, or a `Proposal` with other settings; None for the default of the model.

        Returns:
            Nats per image, (N,), float32.

        Raises:
            InputError: The images do not fit the model, `samples` is not an integer ≥ 1, or the proposal is unknown or
                needs a random latent vector.
        """
        sampling = self.importance_sampling(x, samples=samples, seed=seed, condition=condition, proposal=proposal)
        return np.concatenate([found.log_likelihood for found in sampling.over(sampling.blocks)]).astype("float32")

    def importance_sampling(
        self,
        x: Any,
        *,
        samples: int,
        seed: int = 0,
        condition: Any = None,
        proposal: str | Proposal | None = None,
    ) -> ImportanceSampling:
        """Return the estimator of log p(x), which works in blocks; arguments and errors as for `log_likelihood`."""
        check_count("samples", samples)
        chosen, inputs = choose_proposal(self, proposal), self._prepare_inputs(x, condition, seed)
        if (shape := self._latent_shape_for(inputs["images"].shape[1:])) != self.latent_shape:
            raise InputError(
                f"images.shape = {inputs['images'].shape}: their codes are {shape}, and log p(x) is only estimated for "
                f"codes of {self.latent_shape}; pass images of {self.image_shape}, or call elbo"
            )
        return ImportanceSampling(self, inputs, chosen, samples, seed)

    @property
    def output_size(self) -> int:
        """Memory of the decoder's outputs per pixel, in units of eight channels: 32 for 256 logits."""
        return max(1, self.likelihood.decoder_channels(self.image_shape[-1]) // 8)

    def fitting_batch_size(self, draws: int = 1, image_shape: Shape | None = None) -> int:
        """Return a batch size whose memory use grows neither with the size of the images nor with the likelihood.

        Args:
            draws: Number of codes decoded per image.
            image_shape: (H, W, C) of the images; None for that of the model.
        """
        return max(1, fitting_batch_size(image_shape or self.image_shape, draws) // self.output_size)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the code of an image, (latent_dim,)."""
        return (self.latent_dim,)

    def _latent_shape_for(self, image_shape: Shape) -> Shape:
        """Return the shape of the codes of images (H, W, C). By default, it does not depend on their size."""
        return self.latent_shape

    @property
    def _input_checks(self) -> ModelInputs:
        """Checks of images from which the loss terms are computed."""
        image_shape, latent_dim = (self.image_shape, self.latent_dim) if self.built else ((None, None, None), None)
        channels = self.likelihood.has_independent_channels
        return ModelInputs(image_shape, self.condition, latent_dim, has_independent_channels=channels)

    @property
    def _network_checks(self) -> ModelInputs:
        """Checks of images that are only encoded and decoded."""
        return self._input_checks

    def _prepare_inputs(
        self, x: Any, condition: Any, seed: int, *, by_content: bool = False, checks: ModelInputs | None = None
    ) -> dict[str, Array]:
        """Check the inputs of `call`, build the model if necessary, and add the noise that the likelihood requires.

        Args:
            x: Images, or a dict of images and their conditions.
            condition: Condition of the images, unless `x` contains it.
            seed: Seed of the noise.
            by_content: Whether the noise follows from the pixels of each image and the seed, instead of its row.
            checks: Checks of the images; None for those of images from which the loss terms are computed.
        """
        check_seed(seed)
        inputs = (checks or self._input_checks).arrays(x, condition)
        images = inputs["images"]
        if not self.built:
            self.build((None, *images.shape[1:]))
        if self.likelihood.requires_noise and by_content:
            generators = image_generators(images, seed, 1)
            inputs["pixel_noise"] = np.stack([rng.random(images.shape[1:], dtype="float32") for rng in generators])
        elif self.likelihood.requires_noise:
            inputs["pixel_noise"] = np.random.default_rng([seed, 1]).random(images.shape, dtype="float32")
        return inputs

    def _statistics(self) -> LatentStatistics:
        """Return the statistics that normalize codes. By default, raise an InputError."""
        raise InputError(f"normalized = True: the codes of a {type(self).__name__} have no statistics; leave it out")

    def _check_built(self) -> None:
        if not self.built:
            raise InputError("built = False: the image size is not known yet; call fit or build((None, H, W, C))")

    def _check_codes(self, z: Any) -> Array:
        """Check codes, and return them as float32."""
        codes = check_numbers("z", z)
        if codes.ndim != 2 or codes.shape[1] != self.latent_dim or len(codes) == 0:
            raise InputError(f"z.shape = {codes.shape}: this model decodes vectors; pass (n, {self.latent_dim}), n ≥ 1")
        return codes

    def _check_sample(self, n: int, seed: int | None, condition: Any) -> Array | None:
        """Check the arguments of `sample`, and return the encoded conditions (n, size), or None."""
        check_count("n", n)
        check_seed(seed)
        self._check_built()
        check_memory("n", n, int(n) * max(math.prod(size or 1 for size in self.image_shape), self.latent_dim))
        conditions = self._input_checks.conditions(condition, n)
        return None if self.condition is None else ops.convert_to_numpy(self.condition.encode(conditions))

    def _in_batches(self, function: Callable[..., Result], inputs: Any, size: int | None, draws: int = 1) -> Result:
        if size is None:
            image_shape = inputs["images"].shape[1:] if "images" in inputs else None
            size = self.fitting_batch_size(draws, image_shape)
        return in_batches(function, inputs, batch_size=size)

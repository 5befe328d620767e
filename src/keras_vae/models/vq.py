"""The vector-quantized variational autoencoder: its codes are maps of indices into a codebook."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.components.conditions import Condition, concat_condition
from keras_vae.components.image_losses import ImageLoss
from keras_vae.components.likelihoods import Bernoulli, Likelihood
from keras_vae.components.objectives import ELBO, ELBOTerms, Objective
from keras_vae.components.vector_quantizer import VectorQuantizerEMA, codebook_usage
from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Array, ImageShape, Shape, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.models.base import BaseVAE
from keras_vae.models.batch import Batch
from keras_vae.models.inputs import check_numbers
from keras_vae.models.missing import encoder_channels, image_channels, observed_log_prob
from keras_vae.networks.base import MapNetwork, Network, check_image_shape, check_positive


class VQVAEOutput(NamedTuple):
    """Outputs of a `VQVAE` for a batch of images.

    Args:
        reconstruction: Mean images in [0, 1], (N, H, W, C).
        indices: Indices of the code vectors, (N, rows, columns), int32.
        terms: Loss terms, in nats per image.
        balanced: In training, the reconstruction again for each image loss with an adaptive weight.
    """

    reconstruction: Tensor
    indices: Tensor
    terms: ELBOTerms
    balanced: tuple[Tensor, ...] = ()


@keras.saving.register_keras_serializable(PACKAGE)
class VQVAE(BaseVAE):
    r"""A vector-quantized VAE (van den Oord et al., arXiv 1711.00937; Razavi et al., arXiv 1906.00446).

    The posterior q(k|x) is deterministic: one map k of code indices per image. The rate is \(-\log p(k)\) under an
    autoregressive prior, trained together with the networks, so distortion + rate bounds −log p(x). The loss is

    \[-\log p(x|e_k) - \beta \log p(k) + c \, \|z_e - \mathrm{sg}(e_k)\|^2.\]

    The encoder learns from the decoder's straight-through gradient and from the commitment loss of weight c, the prior
    from the rate alone, and the codebook by moving averages. In addition to the metrics of every model, training
    reports `perplexity`, the exponential of the entropy of the codes in a batch, and `used_codes`; both are means over
    batches.

    Args:
        encoder: Any Keras model, images in [0, 1] (N, H, W, C) → a map (N, rows, columns, D). A condition adds
            `condition.dim` channels to its inputs.
        decoder: Any Keras model, a map (N, rows, columns, D) → the parameters of the likelihood, (N, H, W, channels).
            A condition adds `condition.dim` channels to its inputs.
        codebook: The vector quantizer.
        prior: p(k), over maps of indices.
        likelihood: p(x|k).
        objective: Loss function of the terms, an `ELBO`. Its β is the weight of the rate.
        condition: Condition of both networks and of the prior, such as `ClassLabel(classes=10)`, or None.
        mask_channels: Whether the encoder also receives the mask of observed pixels, as C further channels.
        image_losses: Losses of the reconstruction to add to the objective, such as `Adversarial()`.
        seed: Seed of the noise; None chooses one at random.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        InputError: The components do not fit together.

    Example:
        >>> from keras_vae.networks import Conv
        >>> vae = VQVAE.from_network(Conv(), (28, 28, 1), codebook=VectorQuantizerEMA(num_codes=16), code_dim=8, seed=0)
        >>> vae.encode(np.zeros((4, 28, 28, 1), "uint8")).indices.shape
        (4, 7, 7)
    """

    code_name = "indices"

    part_names: ClassVar[tuple[str, ...]] = (
        *("encoder", "decoder", "codebook", "prior", "likelihood", "objective", "condition", "image_losses"),
    )

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        codebook: VectorQuantizerEMA | None = None,
        prior: AutoregressivePrior | None = None,
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        condition: Condition | None = None,
        mask_channels: bool = False,
        image_losses: Sequence[ImageLoss] = (),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            likelihood=likelihood or Bernoulli(),
            objective=objective or ELBO(),
            condition=condition,
            mask_channels=mask_channels,
            image_losses=image_losses,
            seed=seed,
            **kwargs,
        )
        self._check_objective(self.objective)
        if prior is not None and not isinstance(prior, AutoregressivePrior):
            raise InputError(
                f"prior = {type(prior).__name__}: a prior over vectors, but the codes of a VQ-VAE are maps of indices; "
                "use AutoregressivePrior()"
            )
        self.encoder, self.decoder = encoder, decoder
        self.codebook, self.prior = codebook or VectorQuantizerEMA(), prior or AutoregressivePrior()
        self._add_trackers("perplexity", "used_codes")
        self.likelihood.check_decoder(decoder)
        if not self.supports_jit:
            encoder.supports_jit = decoder.supports_jit = self.prior.supports_jit = False
        # Functional and sequential encoders have an input shape. A subclassed one is built with the first images.
        shape = getattr(encoder, "input_shape", None)
        if shape is not None:
            *batch_and_size, channels = shape
            self.build((*batch_and_size, image_channels(channels, self._condition_dim, mask_channels)))

    @classmethod
    def from_network(
        cls,
        network: Network,
        image_shape: ImageShape,
        *,
        code_dim: int = 64,
        likelihood: Likelihood | None = None,
        condition: Condition | None = None,
        mask_channels: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Build a model with the encoder and decoder of a network family.

        Args:
            network: A family with a feature map, such as `Conv`.
            image_shape: (H, W, C) of the images.
            code_dim: Size D of the code vectors.
            likelihood: See `VQVAE`.
            condition: See `VQVAE`.
            mask_channels: See `VQVAE`.
            **kwargs: Other arguments of `VQVAE`.

        Raises:
            InputError: The family has no feature map, or the components do not fit together.
        """
        if not isinstance(network, MapNetwork):
            raise InputError(
                f"network = {network}: a VQ-VAE needs a feature map; use 'conv', 'resnet' or 'autoencoder'"
            )
        check_image_shape(image_shape)
        check_positive(code_dim=code_dim)
        likelihood = likelihood or Bernoulli()
        likelihood.check_images(image_shape)
        condition_dim = 0 if condition is None else condition.dim
        height, width, channels = image_shape
        encoder_shape = (height, width, encoder_channels(channels, condition_dim, mask_channels))
        encoder = network.map_encoder(encoder_shape, code_dim)
        output_shape = (height, width, likelihood.decoder_channels(channels))
        decoder = network.map_decoder((*network.map_size(image_shape), code_dim + condition_dim), output_shape)
        settings = {"likelihood": likelihood, "condition": condition, "mask_channels": mask_channels, **kwargs}
        return cls(encoder, decoder, **settings)

    def _forward(self, given: Batch, training: bool | None) -> VQVAEOutput:
        """Return the output for a batch: encode, quantize, decode, and compute the loss terms."""
        images, condition, noise, *_, mask = given
        maps = self._encoder_map(self.encoder(self._encoder_inputs(images, condition, mask), training=training))
        restart_noise = self.sampler.uniform((self.codebook.num_codes,)) if training else None
        vectors, indices, commitment_loss = self.codebook(maps, restart_noise)
        paths = self._gradient_paths(self.decoder(concat_condition(vectors, condition), training=training), training)
        pixels, *copies = (self._likelihood(outputs, images) for outputs in paths)
        log_prior = self.prior.log_prob(indices, condition)
        # The posterior is deterministic, so all samples are equal.
        samples_shape = ops.shape(noise)[:2]
        log_likelihoods, log_priors = (
            ops.broadcast_to(log_prob[:, None], samples_shape)
            for log_prob in (observed_log_prob(pixels, images, mask), log_prior)
        )
        terms = ELBOTerms(log_likelihoods, log_priors, ops.zeros_like(log_priors), -log_prior[:, None], commitment_loss)
        balanced = tuple(copy.mean_image() for copy in copies)
        return VQVAEOutput(pixels.mean_image(), indices, terms, balanced)

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the `indices` of images, (N, rows, columns), int32."""
        maps = self._encoder_map(self.encoder(self._encoder_inputs(*self._preprocess(inputs))))
        return {"indices": self.codebook.nearest_indices(maps)}

    def decode_distribution(self, codes: Tensor, condition: Tensor) -> ImageDistribution:
        """Return p(x|k) of maps of indices (N, rows, columns)."""
        maps = concat_condition(ops.take(self.codebook.vectors, codes, axis=0), condition)
        return self.likelihood(ops.cast(self.decoder(maps), "float32"))

    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Raise an error, because the prior is sampled position by position.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "prior = AutoregressivePrior: its samples are not a function of normal noise, because it draws one code "
            "after another; call sample(n)"
        )

    def _extra_metrics(self, output: VQVAEOutput) -> dict[str, Tensor]:
        """Return the perplexity and the number of used codes of a batch."""
        perplexity, used_codes = codebook_usage(output.indices, self.codebook.num_codes)
        return {"perplexity": perplexity, "used_codes": used_codes}

    def describe_codes(self, x: Array, *, terms: ELBOTerms, condition: Any = None) -> dict[str, Any]:
        """Return the perplexity of the codes of images, and the number of codes used."""
        # Not by `codebook_usage`: its one-hot vectors would not fit in memory for a whole data set.
        counts = np.bincount(self.encode(x, condition=condition).indices.ravel(), minlength=self.codebook.num_codes)
        frequencies = counts[counts > 0] / counts.sum()
        perplexity = float(np.exp(-(frequencies * np.log(frequencies)).sum()))
        return {"perplexity": perplexity, "used_codes": len(frequencies)}

    @property
    def is_stochastic(self) -> bool:
        """Whether the posterior is random: False, since each image has one map of indices."""
        return False

    def _check_objective(self, objective: Objective) -> None:
        if not isinstance(objective, ELBO):
            reason = "compares the latent vectors of images" if objective.requires_batch else "weights several samples"
            raise InputError(
                f"objective = {objective}: {reason}, but a VQ-VAE has one map of indices per image; use ELBO()"
            )
        if objective.free_bits or objective.capacity is not None:
            raise InputError(
                f"objective = {objective}: the rate of a VQ-VAE trains only its prior, and a target would harm it; use "
                "ELBO() without free_bits and capacity"
            )

    def _measure_sizes(self, image_shape: Shape) -> int:
        """Build the components for images (H, W, C), and return the number of codes per image."""
        channels = None if image_shape[-1] is None else self._encoder_channels(image_shape[-1])
        inputs = keras.KerasTensor((None, *image_shape[:-1], channels))
        _, rows, columns, code_dim = self._encoder_map(self.encoder.compute_output_spec(inputs)).shape
        expected = (None, rows, columns, code_dim + self._condition_dim)
        decoder_shape = getattr(self.decoder, "input_shape", expected)
        if any(None not in pair and pair[0] != pair[1] for pair in zip(decoder_shape, expected, strict=False)):
            raise InputError(
                f"decoder.input_shape = {decoder_shape}: does not fit the encoder's map and the condition; build a "
                f"decoder for {expected}"
            )
        if not self.codebook.built:
            self.codebook.build((None, rows, columns, code_dim))
        if not self.prior.built:
            self.prior.build((None, rows, columns, self.codebook.num_codes), (None, self._condition_dim))
        self._build_parts([self.likelihood], (None, rows * columns), inputs.shape)
        self.map_shape = (rows, columns)
        return int(rows * columns)

    @property
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is a single vector: False, since it is a map of indices."""
        return False

    @property
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers: False."""
        return False

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the code of an image: (rows, columns)."""
        return self.map_shape

    @property
    def num_codes(self) -> int:
        """Number of code vectors in the codebook."""
        return self.codebook.num_codes

    @property
    def _encoding_parts(self) -> tuple[Any, ...]:
        return self.encoder, self.codebook

    @property
    def _decoding_parts(self) -> tuple[Any, ...]:
        return self.decoder, self.codebook, self.likelihood

    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return maps of indices from the prior, (n, rows, columns); arguments and errors as for `sample`."""
        conditions = self._check_sample(n, seed, condition)
        if seed is None:
            state = ops.convert_to_numpy(self.sampler.seed_generator.next())
        generator = np.random.default_rng(state.astype("uint32") if seed is None else seed)
        return self.prior.sample(n, generator, conditions)

    def _check_codes(self, z: Any) -> Array:
        """Check maps of indices, and return them as int32."""
        check_numbers("z", z)
        z = ops.convert_to_numpy(z)
        if z.shape[1:] != self.map_shape or len(z) == 0:
            raise InputError(
                f"z.shape = {z.shape}: this model decodes maps of indices; pass {('n', *self.map_shape)}, n ≥ 1"
            )
        if z.dtype.kind not in "iu":
            raise InputError(f"z.dtype = {z.dtype}: codes are indices; pass integers")
        if z.min() < 0 or z.max() >= self.codebook.num_codes:
            raise InputError(
                f"z = {z.min()} to {z.max()}: indices out of range; pass 0 to {self.codebook.num_codes - 1}"
            )
        return z.astype("int32")

    def _encoder_map(self, outputs: Any) -> Tensor:
        """Return the encoder's output in float32, after a check that it is a single map."""
        maps = keras.tree.flatten(outputs)
        if len(maps) != 1 or len(maps[0].shape) != 4 or None in tuple(maps[0].shape[1:]):
            raise InputError(
                f"encoder outputs {[tuple(output.shape) for output in maps]}: a VQ-VAE needs a single map; return "
                "(n, rows, columns, features) of a fixed size"
            )
        return ops.cast(maps[0], "float32")

"""The vector-quantized variational autoencoder: its codes are maps of indices of code vectors."""

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
from keras_vae.components.quantizers import Quantizer, VectorQuantizerEMA, codebook_usage
from keras_vae.components.quantizers.gradients import Gradient
from keras_vae.components.quantizers.usage import perplexity
from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE, check_component
from keras_vae.core.typing import Array, ImageShape, Shape, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.models.base import BaseVAE
from keras_vae.models.batch import Batch
from keras_vae.models.inputs import check_numbers
from keras_vae.models.latent_maps import check_map_decoder
from keras_vae.models.missing import encoder_channels, image_channels, observed_log_prob
from keras_vae.networks.base import MapNetwork, Network, check_image_shape, check_positive


class VQVAEOutput(NamedTuple):
    """Outputs of a `VQVAE` for a batch of images.

    Args:
        reconstruction: Mean images in [0, 1], (N, H, W, C).
        indices: Indices of the code vectors, (N, rows, columns), int32; (N, rows, columns, depth) for residual
            quantizers.
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

    \[-\log p(x|e_k) - \beta \log p(k) + \ell(z_e, e_k),\]

    with the loss ℓ of the quantizer, such as \(c \, \|z_e - \mathrm{sg}(e_k)\|^2\) for `VectorQuantizerEMA`. The
    encoder learns from the decoder's gradient, which an estimator passes through the quantizer, and from ℓ, and the
    prior from the rate alone. A residual quantizer has several indices per position, which follow one another in the
    prior's sequence, coarse to fine. In addition to the metrics of every model, training reports `perplexity`, the
    exponential of the entropy of the codes in a batch, and `used_codes`; both are means over batches.

    Args:
        encoder: Any Keras model, images in [0, 1] (N, H, W, C) → a map (N, rows, columns, D). A condition adds
            `condition.dim` channels to its inputs.
        decoder: Any Keras model, a map (N, rows, columns, D) → the parameters of the likelihood, (N, H, W, channels).
            A condition adds `condition.dim` channels to its inputs.
        quantizer: Quantizer of the encoder's map; None for `VectorQuantizerEMA()`.
        gradient: Gradient estimator of the quantizer, `"straight-through"` or `"rotation"`; see
            `quantizers.pass_gradient`.
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
        >>> quantizer = VectorQuantizerEMA(num_codes=16)
        >>> vae = VQVAE.from_network(Conv(), (28, 28, 1), quantizer=quantizer, code_dim=8, seed=0)
        >>> vae.encode(np.zeros((4, 28, 28, 1), "uint8")).indices.shape
        (4, 7, 7)
    """

    code_name = "indices"

    part_names: ClassVar[tuple[str, ...]] = (
        *("encoder", "decoder", "quantizer", "prior", "likelihood", "objective", "condition", "image_losses"),
    )

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        quantizer: Quantizer | None = None,
        gradient: Gradient = "straight-through",
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
        check_component("quantizer", quantizer, Quantizer)
        self.encoder, self.decoder = encoder, decoder
        self.quantizer, self.prior = quantizer or VectorQuantizerEMA(), prior or AutoregressivePrior()
        self.quantizer.check_gradient(gradient)
        self.gradient = gradient
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
        code_dim: int | None = None,
        quantizer: Quantizer | None = None,
        likelihood: Likelihood | None = None,
        condition: Condition | None = None,
        mask_channels: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Build a model with the encoder and decoder of a network family.

        Args:
            network: A family with a feature map, such as `Conv`.
            image_shape: (H, W, C) of the images.
            code_dim: Size D of the code vectors; None for 64, or for the size that the quantizer requires.
            quantizer: See `VQVAE`.
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
        if code_dim is not None:
            check_positive(code_dim=code_dim)
        check_component("quantizer", quantizer, Quantizer)
        quantizer = quantizer or VectorQuantizerEMA()
        code_dim = quantizer.check_code_dim(code_dim, default=64)
        likelihood = likelihood or Bernoulli()
        likelihood.check_images(image_shape)
        condition_dim = 0 if condition is None else condition.dim
        height, width, channels = image_shape
        encoder_shape = (height, width, encoder_channels(channels, condition_dim, mask_channels))
        encoder = network.map_encoder(encoder_shape, code_dim, deviation=quantizer.map_deviation)
        output_shape = (height, width, likelihood.decoder_channels(channels))
        decoder = network.map_decoder((*network.map_size(image_shape), code_dim + condition_dim), output_shape)
        settings = {"likelihood": likelihood, "condition": condition, "mask_channels": mask_channels, **kwargs}
        return cls(encoder, decoder, quantizer=quantizer, **settings)

    def _forward(self, batch: Batch, training: bool | None) -> VQVAEOutput:
        """Return the output for a batch: encode, quantize, decode, and compute the loss terms."""
        images, condition, noise, *_, mask = batch
        maps = self._encoder_map(self.encoder(self._encoder_inputs(images, condition, mask), training=training))
        shape = self.quantizer.noise_shape if training else None
        learning_noise = None if shape is None else self.sampler.uniform(shape)
        vectors, indices, loss = self.quantizer(maps, learning_noise, gradient=self.gradient)
        paths = self._gradient_paths(self.decoder(concat_condition(vectors, condition), training=training), training)
        pixels, *copies = (self._likelihood(outputs, images) for outputs in paths)
        log_prior = self.prior.log_prob(ops.reshape(indices, (-1, *self._sequence_shape)), condition)
        # The posterior is deterministic, so all samples are equal.
        samples_shape = ops.shape(noise)[:2]
        log_likelihoods, log_priors = (
            ops.broadcast_to(log_prob[:, None], samples_shape)
            for log_prob in (observed_log_prob(pixels, images, mask), log_prior)
        )
        terms = ELBOTerms(log_likelihoods, log_priors, ops.zeros_like(log_priors), -log_prior[:, None], loss)
        balanced = tuple(copy.mean_image() for copy in copies)
        return VQVAEOutput(pixels.mean_image(), indices, terms, balanced)

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the `indices` of images, (N, *map_shape), int32."""
        maps = self._encoder_map(self.encoder(self._encoder_inputs(*self._preprocess(inputs))))
        return {"indices": self.quantizer.nearest_indices(maps)}

    def decode_distribution(self, codes: Tensor, condition: Tensor) -> ImageDistribution:
        """Return p(x|k) of maps of indices (N, *map_shape)."""
        maps = concat_condition(self.quantizer.lookup(codes), condition)
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
        evenness, used_codes = codebook_usage(self.quantizer.number_codes(output.indices), self.num_codes)
        return {"perplexity": evenness, "used_codes": used_codes}

    def describe_codes(self, x: Array, *, terms: ELBOTerms, condition: Any = None) -> dict[str, Any]:
        """Return the perplexity of the codes of images, and the number of codes used."""
        counts = self.count_codes(x, condition=condition)
        return {"perplexity": perplexity(counts), "used_codes": int(np.count_nonzero(counts))}

    def count_codes(self, x: Array, *, condition: Any = None) -> Array:
        """Return how often images use each code, (num_codes,).

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            condition: Condition of the images, one for all or one per image.

        Example:
            >>> from keras_vae.networks import Conv
            >>> vae = VQVAE.from_network(Conv(), (28, 28, 1), quantizer=VectorQuantizerEMA(num_codes=16), seed=0)
            >>> int(vae.count_codes(np.zeros((4, 28, 28, 1), "uint8")).sum())
            196
        """
        return np.bincount(self.number_codes(x, condition=condition).ravel(), minlength=self.num_codes)

    def number_codes(self, x: Array, *, condition: Any = None) -> Array:
        """Return the codes of images as numbers 0 to num_codes − 1, (N, *map_shape), int32; arguments as above.

        The numbers of a residual quantizer tell the codes of its codebooks apart; its indices do not.
        """
        indices = ops.convert_to_tensor(self.encode(x, condition=condition).indices)
        return ops.convert_to_numpy(self.quantizer.number_codes(indices))

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
        check_map_decoder(self.decoder, (rows, columns, code_dim), self._condition_dim)
        depth = self.quantizer.depth
        self.map_shape = (rows, columns) if depth == 1 else (rows, columns, depth)
        # Several indices of a position follow one another, like columns.
        self._sequence_shape = (rows, columns * depth)
        if not self.quantizer.built:
            self.quantizer.build((None, rows, columns, code_dim))
        if not self.prior.built:
            shape = (None, *self._sequence_shape, self.quantizer.num_codes)
            self.prior.build(shape, (None, self._condition_dim))
        self._build_parts([self.likelihood], (None, rows * columns * depth), inputs.shape)
        return int(rows * columns * depth)

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
        """Shape of the code of an image: (rows, columns), or (rows, columns, depth) for residual quantizers."""
        return self.map_shape

    @property
    def num_codes(self) -> int:
        """Number of code vectors, over all codebooks."""
        return self.quantizer.num_codes * self.quantizer.depth

    @property
    def _encoding_parts(self) -> tuple[Any, ...]:
        return self.encoder, self.quantizer

    @property
    def _decoding_parts(self) -> tuple[Any, ...]:
        return self.decoder, self.quantizer, self.likelihood

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {**super().get_config(), "gradient": self.gradient}

    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return maps of indices from the prior, (n, *map_shape); arguments and errors as for `sample`."""
        conditions = self._check_sample(n, seed, condition)
        if seed is None:
            state = ops.convert_to_numpy(self.sampler.seed_generator.next())
        generator = np.random.default_rng(state.astype("uint32") if seed is None else seed)
        return self.prior.sample(n, generator, conditions).reshape((n, *self.map_shape))

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
        if z.min() < 0 or z.max() >= self.quantizer.num_codes:
            raise InputError(
                f"z = {z.min()} to {z.max()}: indices out of range; pass 0 to {self.quantizer.num_codes - 1}"
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

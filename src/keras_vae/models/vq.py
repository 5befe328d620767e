"""The vector-quantized variational autoencoder: codes by number, on a map."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition, concat_condition
from keras_vae.components.likelihoods import Bernoulli, Likelihood
from keras_vae.components.objectives import ELBO, ELBOTerms, Objective
from keras_vae.components.vector_quantizer import AutoregressivePrior, VectorQuantizerEMA, codebook_usage
from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Array, ImageShape, Shape, Tensor
from keras_vae.models.base import BaseVAE, Batch
from keras_vae.networks.base import Network, SpatialNetwork


class VQVAEOutput(NamedTuple):
    """What a `VQVAE` returns for a batch of images: tensors only, so that every backend can carry it.

    Args:
        reconstruction: Mean images in [0, 1], (N, H, W, C).
        indices: The codes, (N, rows, columns), int32.
        terms: The terms of the loss, in nats per image.
    """

    reconstruction: Tensor
    indices: Tensor
    terms: ELBOTerms


@keras.saving.register_keras_serializable(PACKAGE)
class VQVAE(BaseVAE):
    r"""A vector-quantized variational autoencoder (van den Oord et al., arXiv 1711.00937; Razavi et al., 1906.00446).

    q(k|x) is sure of one map k of indices, so the rate is \(-\log p(k)\) under an autoregressive prior that is trained
    along with the rest, and distortion + rate bounds −log p(x). What is minimized,

    \[-\log p(x|e_k) - \beta \log p(k) + c \, \|z_e - \mathrm{sg}(e_k)\|^2,\]

    reaches the encoder through the decoder and the commitment c, and the prior through the rate alone; the codebook
    follows the encoder by averages. Besides the trackers of every model there are `perplexity`, the exponential of the
    entropy of the codes in a batch, and `used_codes`, each the mean over batches.

    Args:
        encoder: Any Keras model, images in [0, 1] (N, H, W, C) → a map (N, rows, columns, D). Under a condition it sees
            `condition.width` more channels.
        decoder: Any Keras model, a map (N, rows, columns, D) → the parameters of the likelihood, (N, H, W, channels).
            Under a condition it sees `condition.width` more channels.
        codebook: The vectors that the map is made of.
        prior: p(k), over maps of indices.
        likelihood: p(x|k).
        objective: What is minimized; `ELBO(beta=…)` weights what the prior learns from.
        condition: What both networks and the prior are told besides, such as `ClassLabel(classes=10)`.
        seed: Where the noise starts; None takes a random start.
        **kwargs: As for every Keras model.

    Raises:
        InputError: The parts do not fit together.

    Example:
        >>> from keras_vae.networks import Conv
        >>> vae = VQVAE.from_network(Conv(), (28, 28, 1), codebook=VectorQuantizerEMA(num_codes=16), code_dim=8, seed=0)
        >>> vae.encode(np.zeros((4, 28, 28, 1), "uint8")).indices.shape
        (4, 7, 7)
    """

    code_name = "indices"

    part_names: ClassVar[tuple[str, ...]] = (
        *("encoder", "decoder", "codebook", "prior", "likelihood", "objective", "condition"),
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
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            likelihood=likelihood or Bernoulli(),
            objective=objective or ELBO(),
            condition=condition,
            seed=seed,
            **kwargs,
        )
        _check_parts(self.objective, prior)
        self.encoder, self.decoder = encoder, decoder
        self.codebook, self.prior = codebook or VectorQuantizerEMA(), prior or AutoregressivePrior()
        self._add_trackers("perplexity", "used_codes")
        self.likelihood.check_decoder(decoder)
        if not self.supports_jit:
            encoder.supports_jit = decoder.supports_jit = self.prior.supports_jit = False
        # Keras knows the shapes of functional and sequential models; a subclassed one is built by its first images.
        shape = getattr(encoder, "input_shape", None)
        if shape is not None:
            *batch_and_size, channels = shape
            self.build((*batch_and_size, channels and channels - self._condition_dim))

    @classmethod
    def from_network(
        cls,
        network: Network,
        image_shape: ImageShape,
        *,
        code_dim: int = 64,
        likelihood: Likelihood | None = None,
        condition: Condition | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return the model whose encoder and decoder are of a family, for images of a shape.

        Args:
            network: A family with a feature map.
            image_shape: (H, W, C).
            code_dim: D, the length of a code.
            likelihood: As for the model.
            condition: As for the model.
            **kwargs: The other parts, as for the model.

        Raises:
            InputError: The family has no map, or the parts do not fit together.
        """
        if not isinstance(network, SpatialNetwork):
            raise InputError(f"network = {network}: a VQ model has codes on a map, and it has no map; take 'conv'")
        likelihood = likelihood or Bernoulli()
        likelihood.check_images(image_shape)
        extra = 0 if condition is None else condition.width
        height, width, channels = image_shape
        encoder = network.map_encoder((height, width, channels + extra), code_dim)
        outputs = (height, width, likelihood.decoder_channels(channels))
        decoder = network.map_decoder((*network.map_size(image_shape), code_dim + extra), outputs)
        return cls(encoder, decoder, likelihood=likelihood, condition=condition, **kwargs)

    def _forward(self, given: Batch, training: bool | None) -> VQVAEOutput:
        """Return the output of a batch: encode, quantize, decode, weigh."""
        images, condition, noise, _ = given
        maps = self._map(self.encoder(concat_condition(images, condition), training=training))
        uniform = self.sampler.uniform((self.codebook.num_codes,)) if training else None
        vectors, indices, distance = self.codebook(maps, uniform)
        outputs = self.decoder(concat_condition(vectors, condition), training=training)
        pixels, log_prior = self._likelihood(outputs, images), self.prior.log_prob(indices, condition)
        # q is sure of its codes: further draws repeat the first.
        draws = ops.shape(noise)[:2]
        log_likelihood, log_priors = (
            ops.broadcast_to(nats[:, None], draws) for nats in (pixels.log_prob(images), log_prior)
        )
        penalty = self.codebook.commitment * distance
        terms = ELBOTerms(log_likelihood, log_priors, ops.zeros_like(log_priors), -log_prior[:, None], penalty)
        return VQVAEOutput(pixels.mean(), indices, terms)

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the map of `indices` of each image, (N, rows, columns), int32."""
        return {"indices": self.codebook.nearest(self._map(self.encoder(concat_condition(*self._preprocess(inputs)))))}

    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of maps of indices (N, rows, columns)."""
        maps = concat_condition(ops.take(self.codebook.vectors, codes, axis=0), condition)
        return self.likelihood(ops.cast(self.decoder(maps), "float32")).mean()

    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Refuse: draws are made position by position.

        Raises:
            InputError: Always.
        """
        raise InputError("the prior of a VQ model draws one code after another, each in a pass of its own")

    def _extra_metrics(self, output: VQVAEOutput) -> dict[str, Tensor]:
        """Return how the codes of a batch are used."""
        perplexity, used_codes = codebook_usage(output.indices, self.codebook.num_codes)
        return {"perplexity": perplexity, "used_codes": used_codes}

    def describe_codes(self, x: Array, *, terms: ELBOTerms, condition: Any = None) -> dict[str, Any]:
        """Return how the codes of images are used: their perplexity and how many of the codebook's occur."""
        # The one-hot vectors of `codebook_usage` are no room to take for a whole data set.
        counts = np.bincount(self.encode(x, condition=condition).indices.ravel(), minlength=self.codebook.num_codes)
        used = counts[counts > 0] / counts.sum()
        return {"perplexity": float(np.exp(-(used * np.log(used)).sum())), "used_codes": len(used)}

    @property
    def is_stochastic(self) -> bool:
        """Whether codes are drawn: here, each image has one map of them."""
        return False

    def _measure_sizes(self, image_shape: Shape) -> int:
        """Build what is not built yet for images (H, W, C), and return the number of codes of an image."""
        channels = None if image_shape[-1] is None else image_shape[-1] + self._condition_dim
        inputs = keras.KerasTensor((None, *image_shape[:-1], channels))
        _, rows, columns, size = self._map(self.encoder.compute_output_spec(inputs)).shape
        wanted = (None, rows, columns, size + self._condition_dim)
        got = getattr(self.decoder, "input_shape", wanted)
        if any(None not in pair and pair[0] != pair[1] for pair in zip(got, wanted, strict=False)):
            raise InputError(f"decoder takes {got}: for this encoder's map and condition it must take {wanted}")
        if not self.codebook.built:
            self.codebook.build((None, rows, columns, size))
        if not self.prior.built:
            self.prior.build((None, rows, columns, self.codebook.num_codes), (None, self._condition_dim))
        self._build_parts([self.likelihood], (None, rows * columns), inputs.shape)
        self.map_shape = (rows, columns)
        return int(rows * columns)

    @property
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is one vector under one prior: never, it is a map of indices."""
        return False

    @property
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers: never."""
        return False

    @property
    def num_codes(self) -> int:
        """The number of vectors in the codebook."""
        return self.codebook.num_codes

    @property
    def _encoding_parts(self) -> tuple[Any, ...]:
        return self.encoder, self.codebook

    @property
    def _decoding_parts(self) -> tuple[Any, ...]:
        return self.decoder, self.codebook, self.likelihood

    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return maps of indices drawn from the prior, (n, rows, columns); arguments and errors as for `sample`."""
        conditions = self._check_sample(n, condition)
        if seed is None:
            state = ops.convert_to_numpy(self.sampler.seed_generator.next())
        generator = np.random.default_rng(state.astype("uint32") if seed is None else seed)
        return self.prior.sample(n, generator, conditions)

    def _check_codes(self, z: Array) -> Array:
        """Return maps of indices as `decode_tensors` takes them; refuse others."""
        if z.shape[1:] != self.map_shape or len(z) == 0 or z.dtype.kind not in "iu":
            raise InputError(
                f"z, {z.dtype} of shape {z.shape}: this model decodes whole numbers, n ≥ 1 maps of indices "
                f"{('n', *self.map_shape)}"
            )
        if z.min() < 0 or z.max() >= self.codebook.num_codes:
            raise InputError(
                f"z: indices from {z.min()} to {z.max()}: they run from 0 to {self.codebook.num_codes - 1}"
            )
        return z.astype("int32")

    def _map(self, outputs: Any) -> Tensor:
        maps = keras.tree.flatten(outputs)
        if len(maps) != 1 or len(maps[0].shape) != 4 or None in tuple(maps[0].shape[1:]):
            raise InputError(
                f"encoder returns {[tuple(part.shape) for part in maps]}: a VQ model needs one map (n, rows, columns, "
                "features) of a fixed size"
            )
        return ops.cast(maps[0], "float32")


def _check_parts(objective: Objective, prior: Any) -> None:
    if not isinstance(objective, ELBO):
        reason = "compares codes of one vector each" if objective.requires_batch else "weighs several draws of codes"
        raise InputError(
            f"objective = {objective}: it {reason}, and a VQ model is sure of one map of indices an image; take ELBO()"
        )
    if objective.free_bits or objective.capacity is not None:
        raise InputError(
            f"objective = {objective}: the rate of a VQ model trains its prior alone, and a target would make "
            "that worse; take ELBO() without free_bits and capacity"
        )
    if prior is not None and not isinstance(prior, AutoregressivePrior):
        raise InputError(
            f"prior = {type(prior).__name__}: it describes vectors, and a VQ model has maps of indices; take "
            "CodePrior()"
        )

"""The variational autoencoder."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition, concat_condition
from keras_vae.components.likelihoods import Bernoulli, DiscretizedLogistic, Likelihood
from keras_vae.components.objectives import ELBO, ELBOTerms, Latents, Objective
from keras_vae.components.posteriors import Deterministic, DiagonalNormal, Posterior
from keras_vae.components.priors import ConditionalNormal, Prior, PriorInputs, StandardNormal, VampPrior
from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Array, ImageShape, Shape, Tensor
from keras_vae.distributions.kl import kl_divergence
from keras_vae.distributions.latent import ReparameterizedDistribution, SampleWithLogProb
from keras_vae.models.base import BaseVAE, Batch
from keras_vae.networks.conv import Conv


class VAEOutput(NamedTuple):
    """The output of a `VAE` for a batch of images: only tensors, which every backend can carry.

    Args:
        reconstruction: Mean images of the first draws, in [0, 1], (N, H, W, C).
        z_mean: Means of q(z|x), (N, latent_dim).
        z_log_var: Logarithms of its variances, (N, latent_dim).
        z: The first draws, (N, latent_dim).
        terms: The terms of the loss, in nats per image.
    """

    reconstruction: Tensor
    z_mean: Tensor
    z_log_var: Tensor
    z: Tensor
    terms: ELBOTerms


@keras.saving.register_keras_serializable(PACKAGE)
class VAE(BaseVAE):
    r"""A variational autoencoder (Kingma and Welling, arXiv 1312.6114).

    Minimizes `objective`, by default the negative evidence lower bound
    \(-\log p(x|z) + KL(q(z|x) \| p(z))\), \(z \sim q(z|x)\), in nats, summed over each image and averaged over images.
    `VAE()` is the classic convolutional model for MNIST; `VAE(latent_dim=8, image_shape=(64, 64, 3), beta=4)` builds
    the same kind of networks for other images.

    Args:
        encoder: Any Keras model, images in [0, 1] (N, H, W, C) → the outputs that `posterior.param_sizes` lists, by
            default `[z_mean, z_log_var]`, each (N, latent_dim). Its input has `condition.dim` further channels.
        decoder: Any Keras model, z (N, latent_dim) → the parameters of the likelihood, (N, H, W, channels). Its input
            has `condition.dim` further numbers.
        latent_dim: Number of latent dimensions, if the model builds its own networks; 2 by default.
        image_shape: (H, W, C) of the images, if the model builds its own networks; (28, 28, 1) by default.
        beta: Weight of the KL, short for `objective=ELBO(beta=…)`.
        prior: p(z).
        likelihood: p(x|z), by default `Bernoulli()`, or `DiscretizedLogistic()` if `image_shape` has several channels;
            `Bernoulli(from_logits=False)` for a decoder that ends in a sigmoid.
        posterior: q(z|x).
        objective: The loss as a function of the terms of a batch.
        condition: What both networks and the prior are conditioned on, such as `ClassLabel(classes=10)`.
        seed: Seeds the sampling noise; None takes a random seed.
        **kwargs: As for every Keras model.

    Raises:
        InputError: The parts do not fit together, or two arguments contradict each other.

    Example:
        >>> vae = VAE(seed=0)
        >>> vae.compile(optimizer="adam")
        >>> history = vae.fit(np.zeros((8, 28, 28, 1), "uint8"), verbose=0)
        >>> vae.sample(4, seed=1).shape
        (4, 28, 28, 1)
    """

    part_names: ClassVar[tuple[str, ...]] = (
        *("encoder", "decoder", "prior", "likelihood", "posterior", "objective", "condition"),
    )

    def __init__(
        self,
        encoder: keras.Model | None = None,
        decoder: keras.Model | None = None,
        *,
        latent_dim: int | None = None,
        image_shape: ImageShape | None = None,
        beta: float | None = None,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        objective: Objective | None = None,
        condition: Condition | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        _check_arguments(encoder, decoder, latent_dim, image_shape, objective, beta)
        height, width, channels = (28, 28, 1) if image_shape is None else image_shape
        super().__init__(
            likelihood=likelihood or (Bernoulli() if channels == 1 else DiscretizedLogistic()),
            objective=objective or (ELBO() if beta is None else ELBO(beta=beta)),
            condition=condition,
            seed=seed,
            **kwargs,
        )
        self.prior, self.posterior = prior or StandardNormal(), posterior or DiagonalNormal()
        extra = self._condition_dim
        if encoder is None or decoder is None:
            size = 2 if latent_dim is None else latent_dim
            self.likelihood.check_images((height, width, channels))
            encoder = Conv().encoder((height, width, channels + extra), size, self.posterior.param_sizes(size))
            decoder = Conv().decoder(size + extra, (height, width, self.likelihood.decoder_channels(channels)))
        self.encoder, self.decoder = encoder, decoder
        self.likelihood.check_decoder(self.decoder)
        self.objective.check_posterior(self.posterior)
        if isinstance(self.prior, VampPrior) and isinstance(self.posterior, Deterministic):
            raise InputError(
                "prior = vamp, posterior = deterministic: a mixture of points has no density; take posterior = "
                "'normal', or prior = 'standard-normal'"
            )
        if self.objective.requires_prior_samples and isinstance(self.prior, ConditionalNormal):
            raise InputError(
                f"prior = conditional-normal: {self.objective} compares codes with draws from one prior for all; "
                "take prior = 'standard-normal'"
            )
        if not self.supports_jit:
            self.encoder.supports_jit = self.decoder.supports_jit = False
        # A subclassed encoder has no shape of its own; its first images build the model.
        shape = getattr(self.encoder, "input_shape", None)
        if shape is not None:
            *batch_and_size, channels = shape
            self.build((*batch_and_size, channels and channels - extra))

    def _forward(self, batch: Batch, training: bool | None) -> VAEOutput:
        """Return the output of a batch: encode, draw, decode, and compute the terms."""
        images, condition, noise, features = batch
        if features is None:
            features = self._features(self.encoder(concat_condition(images, condition), training=training))
        # The axis of draws comes second everywhere.
        posterior = self.posterior([feature[:, None] for feature in features])
        context = self._context(None if condition is None else condition[:, None])
        prior = self.prior(context)

        def decoded(draw: SampleWithLogProb) -> tuple[Tensor, ELBOTerms]:
            outputs = self._decode(draw.z, context.condition, training)
            log_likelihood = self._likelihood(outputs, images).log_prob(images[:, None])
            kl_per_group = ops.mean(kl_divergence(posterior, prior, draw), axis=1)
            penalties = ops.zeros_like(kl_per_group[:, 0])
            return outputs, ELBOTerms(log_likelihood, prior.log_prob(draw.z), draw.log_prob, kl_per_group, penalties)

        draw = posterior.rsample(noise)
        if training:
            draw = self.objective.gradient_estimator(posterior, draw, lambda draw: decoded(draw)[1].log_weight)
        outputs, terms = decoded(draw)
        reconstruction = self._likelihood(outputs[:, 0], images).mean()
        return VAEOutput(reconstruction, posterior.mean[:, 0], posterior.log_var[:, 0], draw.z[:, 0], terms)

    def encode_features(self, inputs: dict[str, Array]) -> list[Tensor]:
        """Return the encoder's outputs for a batch."""
        return self._features(self.encoder.predict_on_batch(concat_condition(*self._preprocess(inputs))))

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the posterior's moments; only `z_mean` for a posterior without noise."""
        posterior = self.posterior(self._features(self.encoder(concat_condition(*self._preprocess(inputs)))))
        return {"z_mean": posterior.mean} | ({"z_log_var": posterior.log_var} if self.is_stochastic else {})

    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of codes (N, latent_dim)."""
        inputs = codes if condition is None else ops.concatenate([codes, condition], axis=-1)
        return self.likelihood(ops.cast(self.decoder(inputs), "float32")).mean()

    def prior_transform(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return draws from a normal prior or a flow as a function of noise, (N, latent_dim).

        Args:
            noise: Standard normal noise, (N, latent_dim).
            condition: Vectors of the conditions, (N, width), or None.

        Raises:
            InputError: The samples of the prior are not a function of normal noise, as those of a mixture.
        """
        density = self.prior(self._context(condition))
        if not isinstance(density, ReparameterizedDistribution):
            raise InputError(
                f"prior = {type(self.prior).__name__}: its samples are not a function of normal noise; use a normal "
                "prior or a flow"
            )
        return density.rsample(noise).z

    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of `prior_transform`, which lists the errors."""
        return self.decode_tensors(self.prior_transform(noise, condition), condition)

    def _measure_sizes(self, image_shape: Shape) -> int:
        """Build the parts that are not built yet for images (H, W, C), and return the number of latent dimensions."""
        channels = None if image_shape[-1] is None else image_shape[-1] + self._condition_dim
        inputs = (None, *image_shape[:-1], channels)
        features = self._features(self.encoder.compute_output_spec(keras.KerasTensor(inputs)))
        latent_dim = int(features[0].shape[-1])
        self._build_parts((self.prior, self.posterior, self.likelihood), (None, latent_dim), inputs)
        return latent_dim

    def _latents(self, output: VAEOutput) -> Latents:
        """Return the codes of a batch, and draws from the prior if the objective needs them."""
        prior = None
        if self.objective.requires_prior_samples:
            density = self.prior(self._context(None))
            prior = density.sample(ops.shape(output.z)[0], self.sampler.seed_generator)
        return Latents(output.z, output.z_mean, output.z_log_var, prior)

    @property
    def has_bound(self) -> bool:
        """Whether `negative_elbo` is a bound on −log p(x): not for a posterior without noise."""
        return self.is_stochastic

    @property
    def is_stochastic(self) -> bool:
        """Whether codes are drawn."""
        return not isinstance(self.posterior, Deterministic)

    @property
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is one vector under one prior: always."""
        return True

    @property
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers: always."""
        return True

    @property
    def _encoding_parts(self) -> tuple[Any, ...]:
        return self.encoder, self.posterior

    @property
    def _decoding_parts(self) -> tuple[Any, ...]:
        return self.decoder, self.likelihood

    def sample_posterior(self, x: Any, *, seed: int = 0, condition: Any = None) -> Array:
        """Return one draw of z per image from its posterior.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws.
            condition: Their condition, one for all or one for each.

        Returns:
            Codes (N, latent_dim), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        inputs = self._prepare_inputs(x, condition, seed)
        shape = (len(inputs["images"]), 1, self.latent_dim)
        inputs["noise"] = np.random.default_rng(seed).standard_normal(shape, dtype="float32")
        return self._in_batches(lambda batch: self.predict_on_batch(batch).z, inputs, None)

    def with_prior(self, prior: Prior) -> Self:
        """Return a model with the same networks and parts and another prior.

        Args:
            prior: p(z), built for codes of the same size.
        """
        shared = {name: getattr(self, name) for name in self.part_names}
        return type(self)(**{**shared, "prior": prior}, seed=self.seed)

    def initialize_prior(self, x: Any, *, condition: Any = None, seed: int = 0) -> None:
        """Initialize a VampPrior with images chosen at random; do nothing for any other prior.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            condition: Their condition, one for all or one for each.
            seed: Fixes the choice.

        Raises:
            InputError: The images do not fit the model.
        """
        if isinstance(self.prior, VampPrior):
            inputs = self._prepare_inputs(x, condition, seed)
            count = len(inputs["images"])
            chosen = np.random.default_rng(seed).permutation(count)[: self.prior.num_components]
            images, conditions = self._preprocess({name: values[chosen] for name, values in inputs.items()})
            self.prior.initialize(ops.convert_to_numpy(concat_condition(images, conditions)))

    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return codes drawn from the prior, (n, latent_dim), float32; arguments and errors as for `sample`."""
        prior = self.prior(self._context(self._check_sample(n, condition)))
        return ops.convert_to_numpy(prior.sample(n, self.sampler.seed_generator if seed is None else seed))

    def _features(self, outputs: Any) -> list[Tensor]:
        if isinstance(outputs, dict):
            raise InputError(
                f"encoder returns a dict of {', '.join(map(str, outputs))}, which has no order: return a list of "
                f"{', '.join(self.posterior.param_sizes(1))}"
            )
        features = keras.tree.flatten(outputs)
        sizes = self.posterior.param_sizes(int(features[0].shape[-1]) if len(features[0].shape) == 2 else 1)
        if [tuple(feature.shape[1:]) for feature in features] != [(size,) for size in sizes.values()]:
            wanted = ", ".join(f"{name} (n, {size})" for name, size in sizes.items())
            raise InputError(
                f"encoder returns {[tuple(feature.shape) for feature in features]}: it must return [{wanted}] for "
                "a latent space of its first output's size; the VAE draws z itself"
            )
        return [ops.cast(feature, "float32") for feature in features]

    def _context(self, condition: Tensor) -> PriorInputs:
        return PriorInputs(
            self.latent_dim, lambda inputs: self.posterior(self._features(self.encoder(inputs))), condition
        )

    def _decode(self, z: Tensor, condition: Tensor, training: bool | None) -> Tensor:
        """Return the decoder's outputs (N, K, …) of codes (N, K, D), all draws in one batch."""
        if condition is not None:
            z = ops.concatenate([z, ops.broadcast_to(condition, (*ops.shape(z)[:-1], condition.shape[-1]))], axis=-1)
        outputs = self.decoder(ops.reshape(z, (-1, z.shape[-1])), training=training)
        return ops.reshape(outputs, (-1, ops.shape(z)[1], *outputs.shape[1:]))


def _check_arguments(
    encoder: Any, decoder: Any, latent_dim: int | None, image_shape: Any, objective: Any, beta: float | None
) -> None:
    if (encoder is None) != (decoder is None):
        given, missing = ("decoder", "encoder") if encoder is None else ("encoder", "decoder")
        raise InputError(f"{missing} = None: a {given} was given, so pass its {missing} too, or neither of them")
    for name, value in {"latent_dim": latent_dim, "image_shape": image_shape}.items():
        if encoder is not None and value is not None:
            raise InputError(
                f"{name} = {value}: the encoder and the decoder given fix it already; leave one of them out"
            )
    if objective is not None and beta is not None:
        raise InputError(f"beta = {beta}: objective = {objective} has weights of its own; pass one of the two")
    if latent_dim is not None and (not isinstance(latent_dim, int) or latent_dim < 1):
        raise InputError(f"latent_dim = {latent_dim}: must be a whole number ≥ 1")
    if image_shape is not None and (len(image_shape) != 3 or not all(isinstance(size, int) for size in image_shape)):
        raise InputError(f"image_shape = {image_shape}: give (height, width, channels)")

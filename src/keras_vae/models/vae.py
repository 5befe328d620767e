"""The variational autoencoder."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.image_losses import ImageLoss
from keras_vae.components.likelihoods import Bernoulli, DiscretizedLogistic, Likelihood
from keras_vae.components.objectives import ELBO, ELBOTerms, Latents, Objective
from keras_vae.components.posteriors import Deterministic, DiagonalNormal, Posterior
from keras_vae.components.priors import ConditionalNormal, Density, Prior, PriorInputs, StandardNormal, VampPrior
from keras_vae.core import backend, tracing
from keras_vae.core.errors import InputError
from keras_vae.core.images import uniform_noise
from keras_vae.core.registry import PACKAGE, check_component
from keras_vae.core.typing import Array, ImageShape, Shape, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.distributions.kl import kl_divergence
from keras_vae.distributions.latent import (
    LatentDistribution,
    PushforwardDistribution,
    ReparameterizedDistribution,
    SampleWithLogProb,
)
from keras_vae.models.arguments import check_networks
from keras_vae.models.batch import Batch
from keras_vae.models.continuous_codes import ContinuousCodes
from keras_vae.models.latent_maps import (
    LatentGeometry,
    check_features,
    flatten,
    has_fixed_outputs,
    with_condition,
)
from keras_vae.models.missing import image_channels
from keras_vae.networks.conv import Conv


class VAEOutput(NamedTuple):
    """Outputs of a `VAE` for a batch of images.

    Args:
        reconstruction: Mean images for the first sample of z, in [0, 1], (N, H, W, C).
        z_mean: Means of q(z|x), (N, latent_dim).
        z_log_var: Logarithms of the variances of q(z|x), (N, latent_dim).
        z: The first sample of z, (N, latent_dim).
        terms: Loss terms, in nats per image.
        balanced: In training, the reconstruction again for each image loss with an adaptive weight.
    """

    reconstruction: Tensor
    z_mean: Tensor
    z_log_var: Tensor
    z: Tensor
    terms: ELBOTerms
    balanced: tuple[Tensor, ...] = ()


@keras.saving.register_keras_serializable(PACKAGE)
class VAE(ContinuousCodes):
    r"""A variational autoencoder (Kingma and Welling, arXiv 1312.6114).

    By default, it minimizes the negative evidence lower bound \(-\log p(x|z) + \mathrm{KL}(q(z|x) \| p(z))\),
    \(z \sim q(z|x)\), in nats, summed over each image and averaged over images.
    `VAE()` is the classic convolutional model for MNIST. `VAE(latent_dim=8, image_shape=(64, 64, 3), beta=4)` builds
    networks of the same family for other images.

    Args:
        encoder: Any Keras model, images in [0, 1] (N, H, W, C) → the outputs that `posterior.param_sizes` lists, by
            default `[z_mean, z_log_var]`, each a vector (N, latent_dim) or a map (N, rows, columns, c). A condition
            adds `condition.dim` channels to its inputs.
        decoder: Any Keras model, z (N, latent_dim) or (N, rows, columns, c) → the parameters of the likelihood, (N, H,
            W, channels). A condition adds `condition.dim` entries or channels to its inputs.
        latent_dim: Number of latent dimensions of the default networks; 2 by default.
        image_shape: (H, W, C) of the images of the default networks; (28, 28, 1) by default.
        beta: Weight of the KL, short for `objective=ELBO(beta=…)`.
        prior: p(z).
        likelihood: p(x|z), by default `Bernoulli()`, or `DiscretizedLogistic()` if `image_shape` has several channels.
            Use `Bernoulli(from_logits=False)` with a decoder that ends in a sigmoid.
        posterior: q(z|x).
        objective: Loss function of the terms.
        condition: Condition of both networks and of the prior, such as `ClassLabel(classes=10)`, or None.
        mask_channels: Whether the encoder also receives the mask of observed pixels, as C further channels.
        image_losses: Losses of the reconstruction to add to the objective, such as `Adversarial()`.
        seed: Seed of the sampling noise; None chooses one at random.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        InputError: The components do not fit together, or two arguments contradict each other.

    Example:
        >>> vae = VAE(seed=0)
        >>> vae.compile(optimizer="adam")
        >>> history = vae.fit(np.zeros((8, 28, 28, 1), "uint8"), verbose=0)
        >>> vae.sample(4, seed=1).shape
        (4, 28, 28, 1)
    """

    part_names = ("encoder", "decoder", "prior", "likelihood", "posterior", "objective", "condition", "image_losses")

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
        mask_channels: bool = False,
        image_losses: Sequence[ImageLoss] = (),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_component("prior", prior, Prior)
        check_component("posterior", posterior, Posterior)
        check_networks(encoder, decoder, latent_dim, image_shape, objective, beta)
        height, width, channels = map(int, (28, 28, 1) if image_shape is None else image_shape)
        super().__init__(
            likelihood=likelihood or (Bernoulli() if channels == 1 else DiscretizedLogistic()),
            objective=objective or (ELBO() if beta is None else ELBO(beta=beta)),
            condition=condition,
            mask_channels=mask_channels,
            image_losses=image_losses,
            seed=seed,
            **kwargs,
        )
        self.prior, self.posterior = prior or StandardNormal(), posterior or DiagonalNormal()
        if encoder is None or decoder is None:
            size = 2 if latent_dim is None else int(latent_dim)
            self.likelihood.check_images((height, width, channels))
            inputs = (height, width, self._encoder_channels(channels))
            encoder = Conv().encoder(inputs, size, self.posterior.param_sizes(size))
            decoder = Conv().decoder(
                size + self._condition_dim, (height, width, self.likelihood.decoder_channels(channels))
            )
        self.encoder, self.decoder = encoder, decoder
        self.likelihood.check_decoder(self.decoder)
        self._check_objective(self.objective)
        if isinstance(self.prior, VampPrior) and isinstance(self.posterior, Deterministic):
            raise InputError(
                "prior = vamp, posterior = deterministic: a mixture of points has no density; set posterior = "
                "'normal', or prior = 'standard-normal'"
            )
        if not self.supports_jit:
            self.encoder.supports_jit = self.decoder.supports_jit = False
        # Functional and sequential encoders have an input shape. A subclassed one, and one whose map grows with the
        # images, is built with the first images.
        shape = getattr(self.encoder, "input_shape", None)
        if shape is not None and has_fixed_outputs(self.encoder):
            *batch_and_size, depth = shape
            self.build((*batch_and_size, image_channels(depth, self._condition_dim, mask_channels)))

    def _check_objective(self, objective: Objective) -> None:
        objective.check_posterior(self.posterior)
        if objective.requires_prior_samples and isinstance(self.prior, ConditionalNormal):
            raise InputError(
                f"prior = conditional-normal: {objective} needs one prior for all conditions; set prior = "
                "'standard-normal'"
            )

    def _forward(self, batch: Batch, training: bool | None) -> VAEOutput:
        """Return the output for a batch: encode, sample, decode, and compute the loss terms."""
        images, condition, noise, features, codes, mask = batch
        if features is None:
            features = self._features(self.encoder(self._encoder_inputs(images, condition, mask), training=training))
        posterior, prior = self._distributions(features, condition)

        def decode_and_score(draw: SampleWithLogProb) -> tuple[list[Tensor], ELBOTerms]:
            outputs = self._decode(draw.z, condition, training, ops.shape(images)[1:])
            outputs, *copies = self._gradient_paths(outputs, training)
            log_likelihood = self._log_likelihood(outputs, images, mask)
            # Without a density, NaN: `check_density` rejects all calls that would return it.
            has_density = self.density != "none"
            log_prior = prior.log_prob(draw.z) if has_density else ops.full_like(draw.log_prob, float("nan"))
            kl_per_group = ops.mean(kl_divergence(posterior, prior, draw, log_prior), axis=1)
            rates = (log_prior, draw.log_prob, kl_per_group)
            return [outputs, *copies], ELBOTerms(log_likelihood, *rates, ops.zeros_like(kl_per_group[:, 0]))

        draw = posterior.rsample(noise) if codes is None else SampleWithLogProb(codes, posterior.log_prob(codes))
        if training:
            draw = self.objective.gradient_estimator(posterior, draw, lambda draw: decode_and_score(draw)[1].log_weight)
        paths, terms = decode_and_score(draw)
        reconstruction, *balanced = (self._likelihood(outputs[:, 0], images).mean_image() for outputs in paths)
        means, log_vars = posterior.mean[:, 0], posterior.log_var[:, 0]
        return VAEOutput(reconstruction, means, log_vars, draw.z[:, 0], terms, tuple(balanced))

    def log_joint(self, codes: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return log p(x, z) in nats, (N, K), of images and codes (N, K, latent_dim).

        Args:
            codes: K codes per image.
            inputs: Inputs of `call`, with `pixel_noise` if the likelihood requires noise.
        """
        images, condition, mask = self._preprocess(inputs)
        outputs = self._decode(codes, condition, False, ops.shape(images)[1:])
        log_likelihood = self._log_likelihood(outputs, images, mask)
        return log_likelihood + self.prior(self._prior_inputs(condition, 1, ops.shape(codes)[-1])).log_prob(codes)

    @functools.cached_property
    def log_joint_and_gradient(self) -> Callable[[Array, Mapping[str, Array]], tuple[Tensor, Tensor]]:
        """A compiled function with the arguments of `log_joint`, which also returns the gradient in the codes."""
        return backend.value_and_gradient(self.log_joint, self.variables)

    def latent_distributions(
        self, inputs: Mapping[str, Array]
    ) -> tuple[ReparameterizedDistribution, LatentDistribution]:
        """Return q(z|x) and p(z) of a batch, for codes (N, K, latent_dim).

        Args:
            inputs: Inputs of `call`, with `features`.
        """
        condition = None if self.condition is None else self.condition.encode(inputs["condition"])
        return self._distributions([ops.convert_to_tensor(feature) for feature in inputs["features"]], condition)

    def encode_features(self, inputs: dict[str, Array]) -> list[Tensor]:
        """Return the encoder's outputs for a batch."""
        return self._features(tracing.predict_on_batch(self.encoder, self._encoder_inputs(*self._preprocess(inputs))))

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the moments of the posterior, vectors or maps; only `z_mean` if it is deterministic."""
        outputs = self.encoder(self._encoder_inputs(*self._preprocess(inputs)))
        posterior = self.posterior(check_features(outputs, self.posterior))
        return {"z_mean": posterior.mean} | ({"z_log_var": posterior.log_var} if self.is_stochastic else {})

    def decode_distribution(self, codes: Tensor, condition: Tensor) -> ImageDistribution:
        """Return p(x|z) of codes, (N, latent_dim) or maps (N, rows, columns, c)."""
        if len(codes.shape) <= len(self.latent_shape):
            codes = ops.reshape(codes, (-1, *self.latent_shape))
        return self.likelihood(ops.cast(self.decoder(with_condition(codes, condition)), "float32"))

    def prior_transform(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return samples from the prior as a function of noise, in the shape of the noise.

        Args:
            noise: Standard normal noise, (N, latent_dim) or (N, *latent_shape).
            condition: Encoded conditions, (N, size), or None.

        Raises:
            InputError: The samples of the prior are not a function of normal noise, such as those of a mixture.
        """
        distribution = self.prior(self._prior_inputs(condition))
        if not isinstance(distribution, PushforwardDistribution):
            raise InputError(
                f"prior = {type(self.prior).__name__}: its samples are not a function of normal noise, because each "
                "chooses a component at random; use a normal prior or a flow"
            )
        z = distribution.transform(flatten(noise))
        return z if len(noise.shape) == 2 else ops.reshape(z, (-1, *self.latent_shape))

    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of samples from the prior; see `prior_transform`."""
        return self.decode_tensors(self.prior_transform(noise, condition), condition)

    def _measure_sizes(self, image_shape: Shape) -> int:
        """Build the components for images (H, W, C), and return the number of latent dimensions."""
        channels = None if image_shape[-1] is None else self._encoder_channels(image_shape[-1])
        inputs = (None, *image_shape[:-1], channels)
        features = check_features(self.encoder.compute_output_spec(keras.KerasTensor(inputs)), self.posterior)
        self._geometry = LatentGeometry.measure(self, image_shape, features[0])
        latent_dim = math.prod(self._geometry.shape)
        self._build_parts((self.prior, self.posterior, self.likelihood), (None, latent_dim), inputs)
        return latent_dim

    def _latents(self, output: VAEOutput) -> Latents:
        """Return the codes of a batch, with samples from the prior if the objective requires them."""
        prior_samples = None
        if self.objective.requires_prior_samples:
            prior = self.prior(self._prior_inputs(None))
            prior_samples = prior.sample(ops.shape(output.z)[0], self.sampler.seed_generator)
        return Latents(output.z, output.z_mean, output.z_log_var, prior_samples)

    @property
    def has_bound(self) -> bool:
        """Whether `negative_elbo` is a bound in expectation: if the posterior is random and the prior has a density."""
        return self.is_stochastic and self.density != "none"

    @property
    def density(self) -> Density:
        """How log p(z) is computed; see `Prior.density`."""
        return self.prior.density

    @property
    def is_stochastic(self) -> bool:
        """Whether the posterior is random."""
        return not isinstance(self.posterior, Deterministic)

    @property
    def _encoding_parts(self) -> tuple[Any, ...]:
        return self.encoder, self.posterior

    @property
    def _decoding_parts(self) -> tuple[Any, ...]:
        return self.decoder, self.likelihood

    def with_prior(self, prior: Prior) -> Self:
        """Return a model with another prior that shares all other components with this one.

        Args:
            prior: p(z), for codes of the same size.
        """
        shared = {name: getattr(self, name) for name in self.part_names}
        model = type(self)(**{**shared, "prior": prior}, mask_channels=self.mask_channels, seed=self.seed)
        if self.built and not model.built:
            model.build((None, *self.image_shape))
        model.latent_statistics = self.latent_statistics
        return model

    def initialize_prior(self, x: Any, *, condition: Any = None, seed: int = 0) -> None:
        """Initialize a `VampPrior` with images chosen at random. Do nothing for other priors.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            condition: Condition of the images, one for all or one per image.
            seed: Seed of the choice.

        Raises:
            InputError: The images do not fit the model.
        """
        inputs = self._input_checks.arrays(x, condition)
        if isinstance(self.prior, VampPrior):
            shape = inputs["images"].shape
            chosen = np.random.default_rng(seed).permutation(shape[0])[: self.prior.num_components]
            inputs = self._prepare_inputs({name: values[chosen] for name, values in inputs.items()}, None, seed)
            if self.likelihood.requires_noise:
                inputs["pixel_noise"] = uniform_noise([seed, 1], shape, chosen)
            self.prior.initialize(ops.convert_to_numpy(self._encoder_inputs(*self._preprocess(inputs))))

    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return samples from the prior, (n, *latent_shape), float32; arguments and errors as for `sample`."""
        prior = self.prior(self._prior_inputs(self._check_sample(n, seed, condition)))
        codes = prior.sample(n, self.sampler.seed_generator if seed is None else seed)
        return ops.convert_to_numpy(codes).reshape(n, *self.latent_shape)

    def _features(self, outputs: Any) -> list[Tensor]:
        """Return the encoder's outputs as float32 vectors (N, size), after a check."""
        return [flatten(feature) for feature in check_features(outputs, self.posterior)]

    def _distributions(
        self, features: Sequence[Tensor], condition: Tensor
    ) -> tuple[ReparameterizedDistribution, LatentDistribution]:
        """Return q(z|x) and p(z), whose tensors have the samples on their second axis."""
        posterior = self.posterior([feature[:, None] for feature in features])
        return posterior, self.prior(self._prior_inputs(condition, 1, ops.shape(features[0])[-1]))

    def _prior_inputs(self, condition: Tensor, axis: int | None = None, size: Any = None) -> PriorInputs:
        """Return the inputs of the prior.

        Args:
            condition: Encoded conditions (N, size).
            axis: Where to insert an axis for samples into the conditions; None for nowhere.
            size: Number of latent dimensions; None for `latent_dim`.
        """
        if condition is not None and axis is not None:
            condition = ops.expand_dims(condition, axis)
        return PriorInputs(
            self.latent_dim if size is None else size,
            lambda inputs: self.posterior(self._features(self.encoder(inputs))),
            condition,
        )

    def _decode(self, z: Tensor, condition: Tensor, training: bool | None, image_shape: Shape) -> Tensor:
        """Decode the codes (N, K, D) of images (H, W, C) in one batch, and return the outputs, (N, K, …)."""
        draws = ops.shape(z)[1]
        codes = ops.reshape(z, (-1, *self._latent_shape_for(image_shape)))
        condition = condition if condition is None else ops.repeat(condition, draws, axis=0)
        outputs = self.decoder(with_condition(codes, condition), training=training)
        return ops.reshape(outputs, (-1, draws, *ops.shape(outputs)[1:]))

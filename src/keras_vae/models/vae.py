"""The variational autoencoder."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition, concat_condition
from keras_vae.components.likelihoods import Bernoulli, Likelihood
from keras_vae.components.objectives import ELBO, ELBOTerms, Latents, Objective
from keras_vae.components.posteriors import Deterministic, DiagonalNormal, Posterior
from keras_vae.components.priors import ConditionalNormal, Prior, PriorInputs, StandardNormal, VampPrior
from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.distributions.kl import kl_divergence
from keras_vae.distributions.latent import SampleWithLogProb
from keras_vae.models.base import BaseVAE, Batch
from keras_vae.networks.conv import Conv


class PosteriorMoments(NamedTuple):
    """The posterior of a batch: `z_mean` and `z_log_var`, each (N, latent_dim)."""

    z_mean: Array
    z_log_var: Array


class VAEOutput(NamedTuple):
    """What a `VAE` returns for a batch of images: tensors only, so that every backend can carry it.

    Args:
        reconstruction: Mean images of the first draws in [0, 1], (N, H, W, C).
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
    Everything a Keras user knows works on it unchanged. `VAE()` is the classic convolutional model for MNIST.

    Args:
        encoder: Any Keras model, images in [0, 1] (N, H, W, C) → what `posterior.param_sizes` names, by default
            `[z_mean, z_log_var]`, each (N, latent_dim). Under a condition it sees `condition.dim` more channels.
        decoder: Any Keras model, z (N, latent_dim) → the parameters of the likelihood, (N, H, W, channels). Under a
            condition it sees `condition.dim` more numbers.
        prior: p(z).
        likelihood: p(x|z); `Bernoulli(from_logits=False)` for a decoder that ends in a sigmoid.
        posterior: q(z|x).
        objective: What is minimized; `ELBO(beta=…)` weights the KL.
        condition: What both networks and the prior are told besides, such as `ClassLabel(classes=10)`.
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

    part_names: ClassVar[tuple[str, ...]] = (
        *("encoder", "decoder", "prior", "likelihood", "posterior", "objective", "condition"),
    )

    def __init__(
        self,
        encoder: keras.Model | None = None,
        decoder: keras.Model | None = None,
        *,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        objective: Objective | None = None,
        condition: Condition | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if (encoder is None) != (decoder is None):
            given, missing = ("decoder", "encoder") if encoder is None else ("encoder", "decoder")
            raise InputError(f"{missing} = None: a {given} was given, so pass its {missing} too, or neither of them")
        super().__init__(
            likelihood=likelihood or Bernoulli(),
            objective=objective or ELBO(),
            condition=condition,
            seed=seed,
            **kwargs,
        )
        self.prior, self.posterior = prior or StandardNormal(), posterior or DiagonalNormal()
        extra = self._condition_dim
        self.encoder = encoder or Conv().encoder((28, 28, 1 + extra), 2, self.posterior.param_sizes(2))
        self.decoder = decoder or Conv().decoder(2 + extra, (28, 28, self.likelihood.decoder_channels(1)))
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
        # Keras knows the shapes of functional and sequential models; a subclassed one is built by its first images.
        if hasattr(self.encoder, "input_shape"):
            *batch_and_size, channels = self.encoder.input_shape
            self.build((*batch_and_size, channels and channels - extra))

    def forward(self, given: Batch, training: bool | None) -> VAEOutput:
        """Return the output of a batch: encode, draw, decode, weigh."""
        images, condition, noise, features = given
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
        """Return the encoder's features of a batch."""
        return self._features(self.encoder.predict_on_batch(concat_condition(*self.preprocess(inputs))))

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the posterior's moments; of a posterior without noise, `z_mean` alone."""
        posterior = self.posterior(self._features(self.encoder(concat_condition(*self.preprocess(inputs)))))
        return {"z_mean": posterior.mean} | ({"z_log_var": posterior.log_var} if self.is_stochastic else {})

    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of codes (N, latent_dim)."""
        told = codes if condition is None else ops.concatenate([codes, condition], axis=-1)
        return self.likelihood(ops.cast(self.decoder(told), "float32")).mean()

    def prior_transform(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the draws (N, latent_dim) that standard normal noise becomes under a normal prior or a flow.

        Args:
            noise: (N, latent_dim).
            condition: The vectors of their conditions, (N, width), or None.

        Raises:
            InputError: The prior is of another kind.
        """
        density: Any = self.prior(self._context(condition))
        if not hasattr(density, "draw"):
            name = type(density).__name__.lower()
            raise InputError(f"a draw from the prior, a {name}, takes more than normal noise, as to choose a component")
        return density.rsample(noise).z

    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of `prior_transform`; errors as there."""
        return self.decode_tensors(self.prior_transform(noise, condition), condition)

    def measure_sizes(self, image_shape: Shape) -> int:
        """Build what is not built yet for images (H, W, C), and return the number of latent dimensions."""
        channels = None if image_shape[-1] is None else image_shape[-1] + self._condition_dim
        inputs = (None, *image_shape[:-1], channels)
        features = self._features(self.encoder.compute_output_spec(keras.KerasTensor(inputs)))
        latent_dim = int(features[0].shape[-1])
        self._build_parts((self.prior, self.posterior, self.likelihood), (None, latent_dim), inputs)
        return latent_dim

    def latents(self, output: VAEOutput) -> Latents:
        """Return the codes of a batch, and draws from the prior for an objective that needs them."""
        prior = None
        if self.objective.requires_prior_samples:
            density = self.prior(self._context(None))
            prior = density.sample(ops.shape(output.z)[0], self.sampler.seed_generator)
        return Latents(output.z, output.z_mean, output.z_log_var, prior)

    @property
    def has_bound(self) -> bool:
        """Whether `negative_elbo` is a bound on −log p(x): not without noise."""
        return self.is_stochastic

    @property
    def is_stochastic(self) -> bool:
        """Whether codes are drawn."""
        return not isinstance(self.posterior, Deterministic)

    def encode(
        self, x: Array, batch_size: int | None = None, *, condition: Any = None, seed: int = 0
    ) -> PosteriorMoments:
        """Return the posterior's moments.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            batch_size: Images at a time; None takes as many as fit in little memory.
            condition: Their condition, one for all or one each, where the model has one.
            seed: Fixes the binarization under a likelihood that draws pixels.

        Returns:
            `z_mean` and `z_log_var`, each (N, latent_dim), float32.

        Raises:
            InputError: The images do not fit the model.
        """

        def moments(batch: dict[str, Array]) -> list[Tensor]:
            posterior = self.posterior(self.encode_features(batch))
            return [posterior.mean, posterior.log_var]

        return PosteriorMoments(*self._in_batches(moments, self._inputs(x, condition, seed), batch_size))

    def decode(self, z: Array, batch_size: int | None = None, *, condition: Any = None) -> Array:
        """Return the mean images of codes.

        Args:
            z: Codes (N, latent_dim).
            batch_size: Codes at a time; None takes as many as fit in little memory.
            condition: Their condition, one for all or one each, where the model has one.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: `z` has another shape.
        """
        self._check_built()
        z = np.asarray(z, "float32")
        if z.ndim != 2 or z.shape[1] != self.latent_dim or len(z) == 0:
            raise InputError(f"z of shape {z.shape}: this model decodes (n, {self.latent_dim}), n ≥ 1")
        told = self._encode_condition(self._conditions(condition, len(z)))
        if told is not None:
            z = np.concatenate([z, told], axis=1)
        return self._in_batches(
            lambda codes: self.likelihood(ops.cast(self.decoder.predict_on_batch(codes), "float32")).mean(),
            z,
            batch_size,
        )

    def sample_posterior(self, x: Array, seed: int = 0, *, condition: Any = None) -> Array:
        """Return one draw of z from the posterior of every image.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws.
            condition: Their condition, one for all or one each, where the model has one.

        Returns:
            Codes (N, latent_dim), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        inputs = self._inputs(x, condition, seed)
        inputs["noise"] = np.random.default_rng(seed).standard_normal((len(x), 1, self.latent_dim), dtype="float32")
        return self._in_batches(lambda batch: self.predict_on_batch(batch).z, inputs, None)

    def with_prior(self, prior: Prior) -> Self:
        """Return a model of the same networks and parts under another prior.

        Args:
            prior: p(z), built for codes of the same size.
        """
        shared = {name: getattr(self, name) for name in self.part_names}
        return type(self)(**{**shared, "prior": prior}, seed=self.seed)

    def initialize_prior(self, x: Array, *, condition: Any = None, seed: int = 0) -> None:
        """Start a prior that begins from data, such as the VampPrior, with images drawn at random; others stay.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            condition: Their condition, one for all or one each, where the model has one.
            seed: Fixes which.

        Raises:
            InputError: The images do not fit the model.
        """
        if isinstance(self.prior, VampPrior):
            inputs = self._inputs(x, condition, seed)
            chosen = np.random.default_rng(seed).permutation(len(x))[: self.prior.num_components]
            images, conditions = self.preprocess({name: values[chosen] for name, values in inputs.items()})
            self.prior.initialize(ops.convert_to_numpy(concat_condition(images, conditions)))

    def sample_prior(self, n: int, seed: int | None = None, *, condition: Any = None) -> Array:
        """Return codes drawn from the prior, (n, latent_dim), float32; arguments and errors as for `sample`."""
        prior = self.prior(self._context(self._encode_condition(self._conditions(condition, n))))
        return ops.convert_to_numpy(prior.sample(n, self.sampler.seed_generator if seed is None else seed))

    def _sample(self, n: int, seed: int | None, conditions: Array | None) -> Array:
        return self.decode(self.sample_prior(n, seed, condition=conditions), condition=conditions)

    def _features(self, outputs: Any) -> list[Tensor]:
        if isinstance(outputs, dict):
            raise InputError(
                f"encoder returns a dict of {', '.join(map(str, outputs))}, which has no order: return them in a list, "
                f"as {', '.join(self.posterior.param_sizes(1))}"
            )
        features = keras.tree.flatten(outputs)
        sizes = self.posterior.param_sizes(int(features[0].shape[-1]) if len(features[0].shape) == 2 else 1)
        if [tuple(feature.shape[1:]) for feature in features] != [(size,) for size in sizes.values()]:
            wanted = ", ".join(f"{name} (n, {size})" for name, size in sizes.items())
            raise InputError(
                f"encoder returns {[tuple(feature.shape) for feature in features]}: it must return [{wanted}] for "
                f"a latent space of its first output's size; the VAE draws z by itself"
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

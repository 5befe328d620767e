"""The hierarchical variational autoencoder: a ladder of latent maps, sampled top-down."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.image_losses import ImageLoss
from keras_vae.components.likelihoods import Bernoulli, Likelihood
from keras_vae.components.objectives import ELBO, ELBOTerms, Objective
from keras_vae.components.posteriors import LOG_VAR_RANGE
from keras_vae.core import backend, tracing
from keras_vae.core.errors import InputError, require_list
from keras_vae.core.math import clip_keeping_gradients
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Array, ImageShape, Shape, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.distributions.kl import kl_divergence
from keras_vae.distributions.latent import DiagonalNormal
from keras_vae.models.base import BaseVAE
from keras_vae.models.batch import Batch
from keras_vae.networks.base import check_image_shape, validate_widths
from keras_vae.networks.ladder import LadderNetworks


class HierarchicalVAEOutput(NamedTuple):
    """Outputs of a `HierarchicalVAE` for a batch of images.

    Args:
        reconstruction: Mean images for the first sample of z, in [0, 1], (N, H, W, C).
        z: The first sample of z, all groups concatenated, (N, latent_dim).
        terms: Loss terms, in nats per image.
        balanced: In training, the reconstruction again for each image loss with an adaptive weight.
    """

    reconstruction: Tensor
    z: Tensor
    terms: ELBOTerms
    balanced: tuple[Tensor, ...] = ()


class GroupTerms(NamedTuple):
    """Sample and loss terms of one group, for K samples per image.

    Args:
        z: The samples z_l, (N, K, D).
        log_prior: log p(z_l | z_<l), (N, K).
        log_posterior: log q(z_l | z_<l, x), (N, K).
        kl: KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l)), (N, K).
    """

    z: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    kl: Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class HierarchicalVAE(BaseVAE):
    r"""A hierarchical VAE with L groups of latent maps, sampled from the coarsest to the finest.

    \(p(z) = \prod_l p(z_l | z_{<l})\) and \(q(z|x) = \prod_l q(z_l | z_{<l}, x)\); all factors are diagonal normals.
    The posterior is sampled top-down (Sønderby et al., arXiv 1602.02282) and is residual: its network computes the
    difference to the prior, \(N(\mu_p + \Delta\mu, \sigma_p^2 e^{\Delta\lambda})\), so that the KL of an unused group
    is zero (Vahdat and Kautz, arXiv 2007.03898).

    A bottom-up network computes features of the image at every level. The top-down path starts from learned constant
    features (Child, arXiv 2011.10650). The prior of each group depends on the top-down features, and its posterior also
    depends on the bottom-up features; then z_l is merged into the top-down features. The last features become an image.

    In addition to the metrics of every model, training reports `kl_group_1` … `kl_group_L`, the KL of each group,
    coarsest first.

    Args:
        image_shape: (H, W, C) of the images, of any size.
        widths: Channels after each halving of the image, first to last.
        groups: Number of groups at each of these sizes; at least 1 at the last size, at least 0 at the others.
        latent_channels: Channels of each group's latent map.
        blocks: Residual blocks per size of the bottom-up network, and per group of the top-down one.
        likelihood: p(x|z).
        objective: Loss function of the terms.
        condition: Condition of the bottom-up network and of the first top-down features, or None.
        mask_channels: Whether the encoder also receives the mask of observed pixels, as C further channels.
        image_losses: Losses of the reconstruction to add to the objective, such as `Adversarial()`.
        seed: Seed of the sampling noise; None chooses one at random.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        InputError: A setting is out of its range, or the objective needs a posterior over a single vector.

    Example:
        >>> model = HierarchicalVAE((9, 11, 1), widths=(4, 8), groups=(1, 2), latent_channels=2)
        >>> model.latent_shapes
        ((3, 3, 2), (3, 3, 2), (5, 6, 2))
        >>> model.sample(2, seed=0).shape
        (2, 9, 11, 1)
    """

    part_names: ClassVar[tuple[str, ...]] = ("likelihood", "objective", "condition", "image_losses")

    def __init__(
        self,
        image_shape: ImageShape = (28, 28, 1),
        *,
        widths: Sequence[int] = (32, 64, 96),
        groups: Sequence[int] = (1, 1, 1),
        latent_channels: int = 8,
        blocks: int = 1,
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        condition: Condition | None = None,
        mask_channels: bool = False,
        image_losses: Sequence[ImageLoss] = (),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_image_shape(image_shape)
        require_list("groups", groups)
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
        self.ladder = ladder = LadderNetworks(
            image_shape, validate_widths(widths), tuple(groups), latent_channels, blocks
        )
        self.latent_shapes = tuple((*ladder.size(level), latent_channels) for level in ladder.levels)
        self.bottom_up = ladder.bottom_up(self._encoder_channels(image_shape[-1]))
        self.initial_features = ladder.initial_features(self._condition_dim)
        if not self.supports_jit:
            self.bottom_up.supports_jit = False
        self.priors = [ladder.prior(level) for level in ladder.levels]
        self.posteriors = [ladder.posterior(level) for level in ladder.levels]
        self.merges = [ladder.merge(*pair) for pair in zip(ladder.levels, (*ladder.levels[1:], 0), strict=True)]
        self.head = ladder.head(self.likelihood.decoder_channels(image_shape[-1]))
        self._add_trackers(*(f"kl_group_{group + 1}" for group in range(len(ladder.levels))))
        self.build((None, *image_shape))

    def _check_objective(self, objective: Objective) -> None:
        if objective.requires_batch or objective.requires_prior_samples:
            raise self._no_latent_vector(objective)
        # These estimators treat the posterior's parameters as constants. In a hierarchy, the parameters depend on the
        # samples of the groups above, and that part of the gradient would be lost.
        if getattr(objective, "gradient", "plain") != "plain":
            raise InputError(
                f"objective = {objective}: its gradient estimator needs a posterior over a single vector, and would be "
                "wrong for a hierarchy; set gradient = 'plain'"
            )

    def _measure_sizes(self, image_shape: Shape) -> int:
        """Return the total number of latent dimensions of all groups.

        Raises:
            InputError: The model was built for images of another shape.
        """
        if image_shape != self.ladder.image_shape:
            raise InputError(
                f"image_shape = {image_shape}: this model was built for {self.ladder.image_shape}; pass such images"
            )
        latent_dim = sum(math.prod(shape) for shape in self.latent_shapes)
        self._build_parts([self.likelihood], (None, latent_dim), (None, *image_shape))
        return latent_dim

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the model's output for images; or, for inputs without images, decode samples from the prior.

        Args:
            inputs: See `BaseVAE.call`. Without `images`: standard normal noise under `noise`, (N, latent_dim), and for
                a conditional model the `condition`.
            training: Whether the call is part of a training step.

        Returns:
            A `HierarchicalVAEOutput`; for inputs without images, the mean images (N, H, W, C).
        """
        if not isinstance(inputs, dict) or "images" in inputs:
            return super().call(inputs, training)
        condition = None if self.condition is None else self.condition.encode(inputs["condition"])
        return self.generate_from_noise(inputs["noise"], condition)

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the posterior means `z_mean`, (N, latent_dim), each group given the means of the groups above it."""
        images, condition, mask = self._preprocess(inputs)
        encoder_features = keras.tree.flatten(self.bottom_up(self._encoder_inputs(images, condition, mask)))
        means: list[Tensor] = []

        def sample_group(group: int, features: Tensor) -> Tensor:
            _, posterior = self._prior_and_posterior(group, features, encoder_features)
            means.append(posterior.mean)
            return posterior.mean

        self._top_down(self._start(images[:, 0, 0], condition), sample_group)
        return {"z_mean": ops.concatenate(means, axis=-1)}

    def decode_distribution(self, codes: Tensor, condition: Tensor) -> ImageDistribution:
        """Return p(x|z) of codes (N, latent_dim)."""
        z_per_group = self._split_groups(codes)
        return self.likelihood(self._top_down(self._start(codes, condition), lambda group, _: z_per_group[group]))

    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of samples from the prior, computed from standard normal noise (N, latent_dim)."""
        noise_per_group = self._split_groups(noise)

        def sample_group(group: int, features: Tensor) -> Tensor:
            return _diagonal_normal(self.priors[group](features)).rsample(noise_per_group[group]).z

        return self.likelihood(self._top_down(self._start(noise, condition), sample_group)).mean_image()

    def _forward(self, batch: Batch, training: bool | None) -> HierarchicalVAEOutput:
        """Return the output for a batch: one bottom-up pass, then sample the groups top-down."""
        images, condition, noise, bottom_up_features, _, mask = batch
        num_samples, noise_per_group = ops.shape(noise)[1], self._split_groups(noise)
        if bottom_up_features is None:
            bottom_up_features = self.bottom_up(self._encoder_inputs(images, condition, mask), training=training)
        encoder_features = [_repeat(features, num_samples) for features in keras.tree.flatten(bottom_up_features)]
        groups: list[GroupTerms] = []

        def sample_group(group: int, features: Tensor) -> Tensor:
            prior, posterior = self._prior_and_posterior(group, features, encoder_features, training)
            sample = posterior.rsample(ops.reshape(noise_per_group[group], ops.shape(prior.mean)))
            kl = ops.sum(kl_divergence(posterior, prior), axis=-1)
            terms = (sample.z, prior.log_prob(sample.z), sample.log_prob, kl)
            groups.append(GroupTerms(*(ops.reshape(term, (-1, num_samples, *term.shape[1:])) for term in terms)))
            return sample.z

        features = _repeat(self._start(noise[:, 0], condition), num_samples)
        outputs = self._top_down(features, sample_group, training)
        paths = self._gradient_paths(ops.reshape(outputs, (-1, num_samples, *outputs.shape[1:])), training)
        kl_per_group = ops.stack([ops.mean(group.kl, axis=1) for group in groups], axis=1)
        terms = ELBOTerms(
            self._log_likelihood(paths[0], images, mask),
            sum(group.log_prior for group in groups),
            sum(group.log_posterior for group in groups),
            kl_per_group,
            ops.zeros_like(kl_per_group[:, 0]),
        )
        z = ops.concatenate([group.z[:, 0] for group in groups], axis=-1)
        reconstruction, *balanced = (self._likelihood(outputs[:, 0], images).mean_image() for outputs in paths)
        return HierarchicalVAEOutput(reconstruction, z, terms, tuple(balanced))

    def describe_codes(self, x: Array, *, terms: ELBOTerms, condition: Any = None) -> dict[str, Any]:
        """Return the mean KL of each group, in nats per image."""
        return {"kl_per_group": ops.convert_to_numpy(terms.kl_per_group).astype("float64").mean(axis=0).tolist()}

    def encode_features(self, inputs: dict[str, Array]) -> list[Tensor]:
        """Return the bottom-up features of a batch."""
        features: list[Tensor] = keras.tree.flatten(
            tracing.predict_on_batch(self.bottom_up, self._encoder_inputs(*self._preprocess(inputs)))
        )
        return features

    def _extra_metrics(self, output: HierarchicalVAEOutput) -> dict[str, Tensor]:
        """Return the KL of each group."""
        kl_per_group = output.terms.kl_per_group
        return {f"kl_group_{group + 1}": kl_per_group[:, group] for group in range(kl_per_group.shape[1])}

    @property
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is a single vector: False, since it is a ladder of maps."""
        return False

    @property
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers: True."""
        return True

    @property
    def _encoding_parts(self) -> tuple[Any, ...]:
        return self.bottom_up, self.initial_features, *self.priors, *self.posteriors, *self.merges, self.head

    @property
    def _decoding_parts(self) -> tuple[Any, ...]:
        return self.initial_features, *self.merges, self.head, self.likelihood

    def get_config(self) -> dict[str, Any]:
        """Return the settings, and the serialized components."""
        ladder = self.ladder
        return {
            **super().get_config(),
            "image_shape": list(ladder.image_shape),
            "widths": list(ladder.widths),
            "groups": list(ladder.groups),
            "latent_channels": ladder.latent_channels,
            "blocks": ladder.blocks,
        }

    def _top_down(
        self, features: Tensor, sample_group: Callable[[int, Tensor], Tensor], training: bool | None = False
    ) -> Tensor:
        """Run the top-down path from its first features, and return the parameters of the likelihood.

        Args:
            features: The first top-down features, (M, rows, columns, F).
            sample_group: Maps a group and its top-down features to z_l, (M, D).
            training: Whether the call is part of a training step.
        """
        for group, merge in enumerate(self.merges):
            features = merge([features, sample_group(group, features)], training=training)
        return ops.cast(self.head(features, training=training), "float32")

    def _prior_and_posterior(
        self, group: int, features: Tensor, encoder_features: Sequence[Tensor], training: bool | None = False
    ) -> tuple[DiagonalNormal, DiagonalNormal]:
        """Return a group's prior and posterior, given its top-down features and the bottom-up features per level."""
        prior_moments = self.priors[group](features, training=training)
        level_features = encoder_features[self.ladder.levels[group] - 1]
        residual = self.posteriors[group]([features, level_features], training=training)
        return _diagonal_normal(prior_moments), _diagonal_normal(prior_moments + residual)

    def _start(self, like: Tensor, condition: Tensor) -> Tensor:
        """Return the first top-down features for each row of `like` (N, any)."""
        one = ops.ones_like(like[:, :1])
        return self.initial_features(one if condition is None else ops.concatenate([one, condition], axis=-1))

    def _split_groups(self, codes: Tensor) -> list[Tensor]:
        """Split codes or noise (…, latent_dim) into groups."""
        ends = np.cumsum([math.prod(shape) for shape in self.latent_shapes])
        return [codes[..., start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]

    def sample(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return the mean images of samples from the prior, computed in one pass; see `BaseVAE.sample`."""
        noise, conditions = self._noise(n, seed, condition), self._input_checks.conditions(condition, n)
        inputs = {"noise": noise} if conditions is None else {"noise": noise, "condition": conditions}
        return self._in_batches(self.predict_on_batch, inputs, None)

    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return samples from the prior, (n, latent_dim), float32; arguments and errors as for `sample`."""
        vectors = self._check_sample(n, seed, condition)
        inputs = {"noise": self._noise(n, seed, condition)} | ({} if vectors is None else {"condition": vectors})

        def sample_batch(batch: dict[str, Array]) -> Tensor:
            noise = ops.convert_to_tensor(batch["noise"])
            noise_per_group = self._split_groups(noise)
            samples: list[Tensor] = []

            def sample_group(group: int, features: Tensor) -> Tensor:
                samples.append(_diagonal_normal(self.priors[group](features)).rsample(noise_per_group[group]).z)
                return samples[-1]

            self._top_down(self._start(noise, batch.get("condition")), sample_group)
            return ops.concatenate(samples, axis=-1)

        return self._in_batches(lambda batch: backend.map_rows(sample_batch, batch), inputs, None)

    def _noise(self, n: int, seed: int | None, condition: Any) -> Array:
        """Check the arguments of `sample`, and return standard normal noise (n, latent_dim)."""
        self._check_sample(n, seed, condition)
        if seed is None:
            return ops.convert_to_numpy(self.sampler.noise((n, self.latent_dim)))
        return np.random.default_rng(seed).standard_normal((n, self.latent_dim), dtype="float32")


def _diagonal_normal(moments: Tensor) -> DiagonalNormal:
    """Return the normal over all positions of a map of means and log-variances, (M, rows, columns, 2·channels)."""
    mean, log_var = (ops.reshape(part, (-1, math.prod(part.shape[1:]))) for part in ops.split(moments, 2, axis=-1))
    return DiagonalNormal(mean, clip_keeping_gradients(log_var, *LOG_VAR_RANGE))


def _repeat(features: Tensor, num_samples: Tensor) -> Tensor:
    """Repeat each image's features (N, …) for its samples, (N·num_samples, …)."""
    shape = ops.shape(features)
    copies = ops.broadcast_to(features[:, None], (shape[0], num_samples, *shape[1:]))
    return ops.reshape(copies, (-1, *features.shape[1:]))

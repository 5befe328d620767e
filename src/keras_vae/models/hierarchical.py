"""The hierarchical variational autoencoder: a top-down ladder of latent maps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_vae.components.conditions import Condition, concat_condition
from keras_vae.components.likelihoods import Bernoulli, Likelihood
from keras_vae.components.objectives import ELBO, ELBOTerms, Objective
from keras_vae.components.posteriors import LOG_VAR_RANGE
from keras_vae.core.errors import InputError
from keras_vae.core.math import clip_keeping_gradients
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Array, ImageShape, Shape, Tensor
from keras_vae.distributions.latent import DiagonalNormal
from keras_vae.models.base import BaseVAE, Batch
from keras_vae.networks.base import check_counts, validate_widths
from keras_vae.networks.convolutions import Conv2D
from keras_vae.networks.resnet import normalize, residual_block


class HierarchicalVAEOutput(NamedTuple):
    """What a `HierarchicalVAE` returns for a batch of images.

    Args:
        reconstruction: Mean images of the first draws in [0, 1], (N, H, W, C).
        z: The first draws, all groups one after the other, (N, latent_dim).
        terms: The terms of the loss, in nats per image.
    """

    reconstruction: Tensor
    z: Tensor
    terms: ELBOTerms


class GroupTerms(NamedTuple):
    """What one group adds to the terms of K draws an image.

    Args:
        z: The draws, (N, K, D).
        log_prior: Their log p(z_l | z_<l), (N, K).
        log_posterior: Their log q(z_l | z_<l, x), (N, K).
        rate: KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l)) given the groups above, (N, K).
    """

    z: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    rate: Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class HierarchicalVAE(BaseVAE):
    r"""A ladder of L groups of latent maps, drawn from the coarsest to the finest.

    \(p(z) = \prod_l p(z_l | z_{<l})\) and \(q(z|x) = \prod_l q(z_l | z_{<l}, x)\), all diagonal normals. The posterior
    is told as a change of the prior, \(N(\mu_p + \Delta\mu, \sigma_p^2 e^{\Delta\lambda})\), so that a group that
    learns nothing costs nothing. Sønderby et al. (arXiv 1602.02282) draw the posterior top-down; the residual posterior
    is that of Vahdat and Kautz (arXiv 2007.03898), the learned start that of Child (arXiv 2011.10650).

    A bottom-up network shows every group a feature map of the image at its size. Top-down, a map h that starts as a
    learned constant is what prior and posterior see; every draw is merged into it, and the last one becomes the image.

    Trackers besides those of every model: `kl_group_1` … `rate_L`, the rate of each group, coarsest first.

    Args:
        image_shape: (H, W, C) of the images, of any size.
        widths: Channels after each halving of the image, first to last.
        groups: How many groups there are at each of these sizes; 0 leaves a size out, but not the last one.
        latent_channels: Channels of a group's map.
        blocks: Residual blocks at each size of the bottom-up network, and after each group.
        likelihood: p(x|z).
        objective: What is minimized.
        condition: What is told to the bottom-up network and to the start of the top-down one.
        seed: Where the sampling noise starts; None takes a random start.
        **kwargs: As for every Keras model.

    Raises:
        InputError: A setting is out of its range, or the objective needs a posterior over one vector.

    Example:
        >>> model = HierarchicalVAE((9, 11, 1), widths=(4, 8), groups=(1, 2), latent_channels=2)
        >>> model.map_shapes
        ((3, 3, 2), (3, 3, 2), (5, 6, 2))
        >>> model.sample(2, seed=0).shape
        (2, 9, 11, 1)
    """

    part_names: ClassVar[tuple[str, ...]] = ("likelihood", "objective", "condition")

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
        _check_objective(self)
        self.ladder = ladder = LadderNetworks(
            image_shape, validate_widths(widths), tuple(groups), latent_channels, blocks
        )
        self.map_shapes = tuple((*ladder.size(level), latent_channels) for level in ladder.levels)
        self.bottom_up, self.start = ladder.bottom_up(self._condition_dim), ladder.start(self._condition_dim)
        if not self.supports_jit:
            self.bottom_up.supports_jit = False
        self.priors = [ladder.prior(level) for level in ladder.levels]
        self.posteriors = [ladder.posterior(level) for level in ladder.levels]
        self.merges = [ladder.merge(*pair) for pair in zip(ladder.levels, (*ladder.levels[1:], 0), strict=True)]
        self.head = ladder.head(self.likelihood.decoder_channels(image_shape[-1]))
        self._add_trackers(*(f"kl_group_{number + 1}" for number in range(len(ladder.levels))))
        self.build((None, *image_shape))

    def _measure_sizes(self, image_shape: Shape) -> int:
        """Return the number of latent dimensions, that of all groups.

        Raises:
            InputError: The images have another shape than the model was made for.
        """
        if image_shape != self.ladder.image_shape:
            raise InputError(f"images of shape {image_shape}: this model was made for {self.ladder.image_shape}")
        latent_dim = sum(math.prod(shape) for shape in self.map_shapes)
        self._build_parts([self.likelihood], (None, latent_dim), (None, *image_shape))
        return latent_dim

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Encode, draw and decode a batch, and compute its terms; without images, decode draws from the prior.

        Args:
            inputs: As for every model. Without `images`, noise for a draw from the prior under `noise`,
                (N, latent_dim), and, for a conditional model, the `condition`.
            training: As for every Keras model.

        Returns:
            A `HierarchicalVAEOutput`; without images, the mean images (N, H, W, C).
        """
        if not isinstance(inputs, dict) or "images" in inputs:
            return super().call(inputs, training)
        condition = None if self.condition is None else self.condition.encode(inputs["condition"])
        return self.generate_from_noise(inputs["noise"], condition)

    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the posterior means `z_mean` of all groups, (N, latent_dim), each given the means above it."""
        images, condition = self._preprocess(inputs)
        encoder_features, means = (
            keras.tree.flatten(self.bottom_up(concat_condition(images, condition))),
            list[Tensor](),
        )

        def sample_group(group: int, features: Tensor) -> Tensor:
            means.append(self._densities(group, features, encoder_features)[1].mean)
            return means[-1]

        self._top_down(self._start(images[:, 0, 0], condition), sample_group)
        return {"z_mean": ops.concatenate(means, axis=-1)}

    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of codes (N, latent_dim)."""
        pieces = self._split_groups(codes)
        return self.likelihood(self._top_down(self._start(codes, condition), lambda group, _: pieces[group])).mean()

    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of the draws that noise becomes, group by group."""
        pieces = self._split_groups(noise)

        def sample_group(group: int, features: Tensor) -> Tensor:
            return _normal(self.priors[group](features)).rsample(pieces[group]).z

        return self.likelihood(self._top_down(self._start(noise, condition), sample_group)).mean()

    def _forward(self, given: Batch, training: bool | None) -> HierarchicalVAEOutput:
        """Return the output of a batch: climb, then descend, drawing group by group."""
        images, condition, noise, bottom_up_features = given
        draws, pieces, steps = ops.shape(noise)[1], self._split_groups(noise), list[GroupTerms]()
        if bottom_up_features is None:
            bottom_up_features = self.bottom_up(concat_condition(images, condition), training=training)
        encoder_features = [_copied(features, draws) for features in keras.tree.flatten(bottom_up_features)]

        def sample_group(group: int, features: Tensor) -> Tensor:
            prior, posterior = self._densities(group, features, encoder_features, training)
            draw = posterior.rsample(ops.reshape(pieces[group], ops.shape(prior.mean)))
            rate = ops.sum(posterior.kl_divergence(prior), axis=-1)
            step = GroupTerms(draw.z, prior.log_prob(draw.z), draw.log_prob, rate)
            steps.append(GroupTerms(*(ops.reshape(part, (-1, draws, *part.shape[1:])) for part in step)))
            return draw.z

        start = _copied(self._start(noise[:, 0], condition), draws)
        outputs = self._top_down(start, sample_group, training)
        outputs = ops.reshape(outputs, (-1, draws, *outputs.shape[1:]))
        log_likelihood = self._likelihood(outputs, images).log_prob(images[:, None])
        log_prior, log_posterior = (sum(getattr(step, name) for step in steps) for name in GroupTerms._fields[1:3])
        kl_per_group = ops.stack([ops.mean(step.rate, axis=1) for step in steps], axis=1)
        terms = ELBOTerms(log_likelihood, log_prior, log_posterior, kl_per_group, ops.zeros_like(kl_per_group[:, 0]))
        z = ops.concatenate([step.z[:, 0] for step in steps], axis=-1)
        return HierarchicalVAEOutput(self._likelihood(outputs[:, 0], images).mean(), z, terms)

    def describe_codes(self, x: Array, *, terms: ELBOTerms, condition: Any = None) -> dict[str, Any]:
        """Return the mean rate of each group, in nats."""
        return {"group_rates": ops.convert_to_numpy(terms.kl_per_group).astype("float64").mean(axis=0).tolist()}

    def encode_features(self, inputs: dict[str, Array]) -> list[Tensor]:
        """Return the features of the way up for a batch."""
        bottom_up_features: list[Tensor] = keras.tree.flatten(
            self.bottom_up.predict_on_batch(concat_condition(*self._preprocess(inputs)))
        )
        return bottom_up_features

    def _extra_metrics(self, output: HierarchicalVAEOutput) -> dict[str, Tensor]:
        """Return the rate of each group."""
        kl_per_group = output.terms.kl_per_group
        return {f"kl_group_{group + 1}": kl_per_group[:, group] for group in range(kl_per_group.shape[1])}

    @property
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is one vector under one prior: never, it is a ladder of maps."""
        return False

    @property
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers: always."""
        return True

    @property
    def _encoding_parts(self) -> tuple[Any, ...]:
        return self.bottom_up, self.start, *self.priors, *self.posteriors, *self.merges, self.head

    @property
    def _decoding_parts(self) -> tuple[Any, ...]:
        return self.start, *self.merges, self.head, self.likelihood

    def get_config(self) -> dict[str, Any]:
        """Return the settings, and the parts serialized."""
        names = ("image_shape", "widths", "groups", "latent_channels", "blocks")
        values = {name: getattr(self.ladder, name) for name in names}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**super().get_config(), **plain}

    def _top_down(
        self, features: Tensor, sample_group: Callable[[int, Tensor], Tensor], training: bool | None = False
    ) -> Tensor:
        """Return the likelihood's parameters, `sample_group` taking the codes (M, D) of a group at its features."""
        for group, merge in enumerate(self.merges):
            features = merge([features, sample_group(group, features)], training=training)
        return ops.cast(self.head(features, training=training), "float32")

    def _densities(
        self, group: int, features: Tensor, encoder_features: Sequence[Tensor], training: bool | None = False
    ) -> tuple[DiagonalNormal, DiagonalNormal]:
        """Return prior and posterior of a group at its features, given those of the image at every level."""
        parameters = self.priors[group](features, training=training)
        change = self.posteriors[group]([features, encoder_features[self.ladder.levels[group] - 1]], training=training)
        return _normal(parameters), _normal(parameters + change)

    def _start(self, like: Tensor, condition: Tensor) -> Tensor:
        """Return the first features of as many images as `like` (N, any) has rows."""
        constant = ops.ones_like(like[:, :1])
        return self.start(constant if condition is None else ops.concatenate([constant, condition], axis=-1))

    def _split_groups(self, codes: Tensor) -> list[Tensor]:
        """Return each group's part of codes or noise (…, latent_dim)."""
        ends = np.cumsum([math.prod(shape) for shape in self.map_shapes])
        return [codes[..., start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]

    def sample(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return the mean images of draws from the prior, made in one pass; arguments and errors as for every model."""
        noise, conditions = self._noise(n, seed, condition), self._input_checks.conditions(condition, n)
        inputs = {"noise": noise} if conditions is None else {"noise": noise, "condition": conditions}
        return self._in_batches(self.predict_on_batch, inputs, None)

    def sample_prior(self, n: int, *, seed: int | None = None, condition: Any = None) -> Array:
        """Return codes drawn from the prior, (n, latent_dim), float32; arguments and errors as for `sample`."""
        vectors = self._check_sample(n, condition)
        noise = ops.convert_to_tensor(self._noise(n, seed, condition))
        pieces, codes = self._split_groups(noise), list[Tensor]()

        def sample_group(group: int, features: Tensor) -> Tensor:
            codes.append(_normal(self.priors[group](features)).rsample(pieces[group]).z)
            return codes[-1]

        self._top_down(self._start(noise, vectors), sample_group)
        return ops.convert_to_numpy(ops.concatenate(codes, axis=-1))

    def _noise(self, n: int, seed: int | None, condition: Any) -> Array:
        """Return the standard normal noise (n, latent_dim) of n samples, whose arguments are checked."""
        self._check_sample(n, condition)
        if seed is None:
            return ops.convert_to_numpy(self.sampler.noise((n, self.latent_dim)))
        return np.random.default_rng(seed).standard_normal((n, self.latent_dim), dtype="float32")


@dataclass(frozen=True)
class LadderNetworks:
    """The networks of a hierarchy, each a functional model. Level l is the size of the image after l halvings.

    Args:
        image_shape: (H, W, C).
        widths: Channels at levels 1, 2, …
        groups: Groups at levels 1, 2, …
        latent_channels: Channels of a group's map.
        blocks: Residual blocks a level, and a group.

    Raises:
        InputError: A setting is out of its range.
    """

    image_shape: ImageShape
    widths: tuple[int, ...]
    groups: tuple[int, ...]
    latent_channels: int
    blocks: int

    def __post_init__(self) -> None:
        """Refuse settings that make no ladder."""
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        check_counts(latent_channels=self.latent_channels, blocks=self.blocks)
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise InputError(f"image_shape = {self.image_shape}: give height, width and channels, each ≥ 1")
        if len(self.groups) != len(self.widths) or min(self.groups) < 0:
            raise InputError(
                f"groups = {list(self.groups)}: give how many groups of codes there are after each of the "
                f"{len(self.widths)} halvings that widths = {list(self.widths)} names"
            )
        if self.groups[-1] == 0:
            raise InputError(
                f"groups = {list(self.groups)}: the smallest size must have a group, since the ladder starts there; "
                "leave its width out otherwise"
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """The level of each group, coarsest first."""
        return tuple(level for level in range(len(self.widths), 0, -1) for _ in range(self.groups[level - 1]))

    def size(self, level: int) -> tuple[int, int]:
        """Return the rows and columns at a level, halves rounded up."""
        height, width, _ = self.image_shape
        return -(-height // 2**level), -(-width // 2**level)

    def bottom_up(self, extra: int) -> keras.Model:
        """Return the model of images, with `extra` channels of a condition, → feature maps, one a level."""
        *size, channels = self.image_shape
        images = features = keras.Input((*size, channels + extra), name="images")
        maps = []
        for width in self.widths:
            features = Conv2D(width, 3, strides=2, padding="same")(features)
            features = self._blocks(features, width)
            maps.append(features)
        return keras.Model(images, maps, name="bottom_up")

    def start(self, extra: int) -> keras.Model:
        """Return the model of 1 and a condition → the features that the ladder starts with: one constant without."""
        told = keras.Input((1 + extra,), name="one_and_condition")
        shape = (*self.size(len(self.widths)), self.widths[-1])
        # The one stands for a bias, which alone would not be a function of the inputs.
        features = layers.Dense(math.prod(shape), use_bias=False)(told)
        return keras.Model(told, layers.Reshape(shape)(features), name="start")

    def prior(self, level: int) -> keras.Model:
        """Return the model of features → a map of means and, in as many channels behind them, log-variances."""
        features = self._features(level)
        return keras.Model(features, self._moments(features))

    def posterior(self, level: int) -> keras.Model:
        """Return the model of features, and those of the image → what is added to the prior's map."""
        inputs = [self._features(level), self._features(level)]
        features = residual_block(layers.Concatenate()(inputs), self.widths[level - 1])
        return keras.Model(inputs, self._moments(features))

    def merge(self, level: int, following: int) -> keras.Model:
        """Return the model of features and codes → the features that the group at `following` sees."""
        rows, columns = self.size(level)
        features = self._features(level)
        codes = keras.Input((rows * columns * self.latent_channels,))
        update = layers.Reshape((rows, columns, self.latent_channels))(codes)
        update = Conv2D(self.widths[level - 1], 1)(update)
        merged = self._blocks(layers.Add()([features, update]), self.widths[level - 1])
        for finer in range(level - 1, following - 1, -1):
            merged = layers.UpSampling2D()(merged)
            spare = [got - wanted for got, wanted in zip(merged.shape[1:3], self.size(finer), strict=True)]
            merged = layers.Cropping2D(tuple((0, extra) for extra in spare))(merged)
            merged = Conv2D(self.widths[max(finer - 1, 0)], 3, padding="same")(merged)
        return keras.Model([features, codes], merged)

    def head(self, channels: int) -> keras.Model:
        """Return the model of features of the image's size → the parameters of the likelihood."""
        features = self._features(0)
        outputs = Conv2D(channels, 3, padding="same", dtype="float32")(normalize(features))
        return keras.Model(features, outputs, name="head")

    def _features(self, level: int) -> Tensor:
        return keras.Input((*self.size(level), self.widths[max(level - 1, 0)]))

    def _blocks(self, features: Tensor, width: int) -> Tensor:
        for _ in range(self.blocks):
            features = residual_block(features, width)
        return features

    def _moments(self, features: Tensor) -> Tensor:
        # Near zero at first: a standard normal prior, and a posterior equal to it.
        small = keras.initializers.RandomNormal(stddev=1e-3)
        moments = Conv2D(2 * self.latent_channels, 3, padding="same", kernel_initializer=small, dtype="float32")
        return moments(normalize(features))


def _normal(moments: Tensor) -> DiagonalNormal:
    """Return the normal over all positions of a map of moments (M, rows, columns, 2·channels)."""
    mean, log_var = (ops.reshape(part, (-1, math.prod(part.shape[1:]))) for part in ops.split(moments, 2, axis=-1))
    return DiagonalNormal(mean, clip_keeping_gradients(log_var, *LOG_VAR_RANGE))


def _copied(features: Tensor, draws: Tensor) -> Tensor:
    """Return each image's features (N, …) `draws` times in a row, (N·draws, …)."""
    shape = ops.shape(features)
    copies = ops.broadcast_to(features[:, None], (shape[0], draws, *shape[1:]))
    return ops.reshape(copies, (-1, *features.shape[1:]))


def _check_objective(model: HierarchicalVAE) -> None:
    objective = model.objective
    if objective.requires_batch or objective.needs_prior_draws:
        model._latents(None)
    # Leaving out the score of q by holding each group's own parameters would leave out, with it, how they depend on
    # the groups above.
    if getattr(objective, "gradient", "plain") != "plain":
        raise InputError(
            f"objective = {objective}: its gradient is written for a posterior over one vector, and would be wrong "
            "for a hierarchy; set gradient = 'plain'"
        )

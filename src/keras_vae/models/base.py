"""`BaseVAE`: the loss of every model, its metrics, and the methods that Keras calls."""

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import keras
from keras import ops

from keras_vae.components.conditions import Condition, concat_condition
from keras_vae.components.image_losses import ImageLoss
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import ELBOTerms, Latents, Objective
from keras_vae.components.optimizers import exempt_image_losses
from keras_vae.components.posteriors import Sampler
from keras_vae.components.schedules import without_annealing
from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.images import to_unit
from keras_vae.core.math import balanced_copies
from keras_vae.core.registry import ComponentLayer, check_component
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.models.arguments import check_density, check_flag, check_input_shape, check_optimizer, check_seed
from keras_vae.models.batch import Batch
from keras_vae.models.feeding import CheckedModel
from keras_vae.models.image_models import symbolic_inputs
from keras_vae.models.image_terms import Mean, build_image_losses, check_image_losses, image_loss_terms
from keras_vae.models.missing import encoder_channels, fill_missing, observed_log_prob


class BaseVAE(CheckedModel, abc.ABC):
    """Base class of models: a `keras.Model` that computes the `ELBOTerms` of a batch and minimizes an objective.

    `fit`, `evaluate` and callbacks report these means over the images of an epoch, in nats per image: `total_loss` (the
    objective plus penalties of regularized layers and image losses; without annealing in `evaluate` and validation),
    `reconstruction_loss`, `kl_loss` and `negative_elbo`. There is no metric `loss`: use
    `EarlyStopping(monitor="val_total_loss", mode="min")` or `"val_negative_elbo"`, because Keras cannot infer the mode
    from these names.

    Images are an array or, for a conditional model, `{"images": x, "condition": c}`. `fit` and `evaluate` also accept
    `fit(x, c)`, and methods such as `encode` also accept `encode(x, condition=c)`.

    Args:
        likelihood: p(x|z).
        objective: Loss function of the terms.
        condition: Condition of the model, or None.
        mask_channels: Whether the encoder also receives the mask of the observed pixels; see `VAE`.
        image_losses: Losses of the reconstruction to add to the objective.
        seed: Seed of the sampling noise; None chooses one at random.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        image_shape: (H, W, C) of the images, None for a size that is not fixed; set when the model is built.
        latent_dim: Number of latent dimensions; set when the model is built.
    """

    part_names: ClassVar[tuple[str, ...]]
    """Names of the constructor's arguments that are serialized as objects."""

    code_name: ClassVar[str] = "z"
    """Name of the codes in exported graphs."""

    def __init__(
        self,
        *,
        likelihood: Likelihood,
        objective: Objective,
        condition: Condition | None,
        mask_channels: bool,
        image_losses: Sequence[ImageLoss],
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        check_component("likelihood", likelihood, Likelihood)
        check_component("objective", objective, Objective)
        check_component("condition", condition, Condition)
        check_seed(seed)
        super().__init__(**kwargs)
        self.likelihood, self.objective, self.condition, self.seed = likelihood, objective, condition, seed
        self.mask_channels = check_flag("mask_channels", mask_channels)
        self.image_losses = check_image_losses(image_losses)
        self.sampler = Sampler(seed, dtype="float32", name="sampler")
        # Schedules need the number of steps. On JAX, a step cannot read the optimizer's count.
        self.step = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="step")
        self.loss_trackers: dict[str, Mean] = {}
        self._add_trackers("total_loss", "reconstruction_loss", "kl_loss", "negative_elbo")
        self._add_trackers(*(name for loss in self.image_losses for name in loss.metric_names))
        if backend.runs_faster_without_xla():
            self.supports_jit = False

    @abc.abstractmethod
    def _forward(self, batch: Batch, training: bool | None) -> Any:
        """Return the output for a batch: a named tuple of tensors that includes `terms` and `reconstruction`."""

    @abc.abstractmethod
    def _measure_sizes(self, image_shape: Shape) -> int:
        """Build the components for images (H, W, C), and return the number of latent dimensions."""

    @abc.abstractmethod
    def _check_objective(self, objective: Objective) -> None:
        """Raise an InputError if the model cannot minimize an objective."""

    def _add_trackers(self, *names: str) -> None:
        """Track the epoch means of values with these names. `_extra_metrics` returns those that are not losses."""
        self.loss_trackers.update({name: Mean(name=name) for name in names})

    def _extra_metrics(self, output: Any) -> dict[str, Tensor]:
        """Return the values to track in addition to the losses, by name: scalars, or one value per image."""
        return {}

    def encode_features(self, inputs: dict[str, Array]) -> Any:
        """Return None: by default, the encoder's outputs are not reusable."""
        return None

    def describe_codes(self, x: Array, *, terms: ELBOTerms, condition: Any = None) -> dict[str, Any]:
        """Return evaluation results that are specific to this kind of model. By default, return none.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            terms: Loss terms of the images.
            condition: Condition of the images, one for all or one per image.
        """
        return {}

    @property
    def has_bound(self) -> bool:
        """Whether `negative_elbo` is, in expectation over z, a bound on −log p(x)."""
        return True

    @property
    def is_stochastic(self) -> bool:
        """Whether the posterior is random, so that more draws give a tighter estimate of log p(x)."""
        return True

    @property
    @abc.abstractmethod
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is a single vector, as the analyses of a latent space assume."""

    @property
    @abc.abstractmethod
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers, so that one can interpolate between them."""

    @property
    def num_codes(self) -> int | None:
        """Number of code vectors, over all codebooks; None for a model without them."""
        return None

    def initialize_prior(self, x: Any, *, condition: Any = None, seed: int = 0) -> None:
        """Initialize the prior with images. By default, do nothing."""

    def _latents(self, output: Any) -> Latents:
        """Return the codes of a batch, for objectives that compare images. By default, raise an InputError."""
        raise self._no_latent_vector(self.objective)

    def _no_latent_vector(self, objective: Objective) -> InputError:
        return InputError(
            f"objective = {objective}: it compares latent vectors, which a {type(self).__name__} does not have; "
            "use a VAE, or objective = 'elbo'"
        )

    def build(self, input_shape: Any) -> None:
        """Create the weights by tracing the model once.

        Args:
            input_shape: (None, H, W, C), or a dict with this shape under `images`.

        Raises:
            InputError: The components do not fit together.
        """
        image_shape = check_input_shape(input_shape, self.image_shape if self.built else None)
        if image_shape[-1] is not None:
            self.likelihood.check_images(image_shape)
        try:
            self.latent_dim = self._measure_sizes(image_shape)
            build_image_losses(self, image_shape)
            self.compute_output_spec(symbolic_inputs(self, image_shape))
        except InputError as error:
            # While tracing, Keras wraps an error in another one with a longer message.
            raise (error.__context__ or error) from None
        backend.warn_of_wrong_gradients(self._flatten_layers())
        self.image_shape = image_shape
        self.built = True
        self._build_metrics()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Encode, sample and decode a batch, and return a named tuple of tensors that includes its loss terms.

        Args:
            inputs: Images (N, H, W, C), uint8 or floats in [0, 1]; or a dict with `images` and, for a conditional
                model, `condition`. An entry `mask`, (N, H, W) or (N, H, W, C), is True for observed pixels: the encoder
                receives zeros in place of the others, and the likelihood leaves them out. Optional entries `noise` and
                `pixel_noise` replace the model's random numbers, `features` replaces the encoder's outputs, and `codes`
                replaces the samples from the posterior.
            training: Whether the call is part of a training step.

        Raises:
            InputError: The condition is missing, or the model has no latent vector for `codes` to replace.
        """
        inputs = inputs if isinstance(inputs, dict) else {"images": inputs}
        images, condition, mask = self._preprocess(inputs)
        given = (inputs.get("noise"), inputs.get("codes"))
        noise, codes = (None if value is None else ops.cast(value, "float32") for value in given)
        if codes is not None and not self.has_latent_vector:
            raise InputError(f"codes: the code of a {type(self).__name__} is not a single vector; pass noise instead")
        if noise is None and codes is None:
            num_images, *image_shape = ops.shape(images)
            dim = math.prod(self._latent_shape_for(image_shape))
            noise = self.sampler.noise((num_images, self.objective.num_samples, dim))
        return self._forward(Batch(images, condition, noise, inputs.get("features"), codes, mask), training)

    def _preprocess(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return images in [0, 1], preprocessed by the likelihood, and the encoded conditions and the mask, or None.

        Raises:
            InputError: The condition is missing.
        """
        images, mask, pixel_noise = to_unit(inputs["images"]), inputs.get("mask"), None
        if mask is not None:
            images, mask = fill_missing(images, mask)
        if "pixel_noise" in inputs:
            pixel_noise = ops.convert_to_tensor(inputs["pixel_noise"])
        elif self.likelihood.requires_noise:
            pixel_noise = self.sampler.uniform(ops.shape(images))
        condition = None
        if self.condition is not None:
            if inputs.get("condition") is None:
                raise self._input_checks.missing_condition()
            condition = self.condition.encode(inputs["condition"])
        return self.likelihood.preprocess(images, pixel_noise), condition, mask

    def _encoder_inputs(self, images: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """Return the inputs of the encoder: images, their mask if it is encoded, and the condition, as channels."""
        if self.mask_channels:
            ones = ops.ones_like(images)
            images = ops.concatenate([images, ones if mask is None else ops.where(mask, ones, 0.0)], axis=-1)
        return concat_condition(images, condition)

    def _encoder_channels(self, image_channels: int) -> int:
        """Return the number of channels of the encoder's inputs."""
        return encoder_channels(image_channels, self._condition_dim, self.mask_channels)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Return the mean of the objective over the batch, and update the trackers. Keras calls this in every step.

        Raises:
            InputError: An unconditional model has targets, or the objective compares images and the batch has one.
        """
        x = self._input_checks.join(x, y, sample_weight)
        check_density(self)
        output = self(x, training=training) if y_pred is None else y_pred
        terms: ELBOTerms = output.terms
        latents: Any = self._latents(output) if self.objective.requires_batch else None
        if latents is not None and latents.z.shape[0] == 1:
            raise InputError(
                f"batch_size = 1: {self.objective} compares the images of a batch; use batches of at least two"
            )
        objective = self.objective if training else without_annealing(self.objective)
        total_loss = objective(terms, latents, self.step) + terms.penalty + sum(self.losses, ops.zeros((), "float32"))
        extra_metrics = self._extra_metrics(output)
        if self.image_losses:
            added = image_loss_terms(self, x, output, training)
            total_loss, extra_metrics = total_loss + added.loss, extra_metrics | added.metrics
        weight = num_images = ops.cast(ops.shape(terms.kl_per_group)[0], "float32")
        if training and self.compiled and isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # The optimizer skips a step whose loss is not finite, so the means of the epoch leave it out too.
            weight = ops.where(ops.isfinite(ops.mean(total_loss)), num_images, 0.0)
        losses = {name: getattr(terms, name) for name in ("reconstruction_loss", "kl_loss", "negative_elbo")}
        for name, value in {"total_loss": total_loss, **losses, **extra_metrics}.items():
            mean = ops.mean(value)
            self.loss_trackers[name].update_state(ops.where(weight > 0, mean, 0.0), sample_weight=weight)
        if training:
            self.step.assign_add(1)
        return ops.mean(total_loss)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the model, without Keras's `loss`, which would repeat `total_loss`."""
        return [metric for metric in super().metrics if metric is not self._loss_tracker]

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Any, sample_weight: Tensor = None) -> dict[str, Tensor]:
        """Update the metrics given to `compile` with images in [0, 1] and their reconstructions; return all metrics."""
        if self._compile_metrics is not None and isinstance(x, Mapping) and x.get("mask") is not None:
            raise InputError(
                "metrics: metrics of Keras cannot leave out missing pixels; compile the model without them"
            )
        images = to_unit(x["images"] if isinstance(x, Mapping) else x)
        metrics: dict[str, Tensor] = super().compute_metrics(x, images, y_pred.reconstruction)
        return metrics

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Compile the model as `keras.Model.compile` does, but without a loss: the model minimizes its `objective`.

        Args:
            optimizer: See `keras.Model.compile`.
            loss: Must be None. The loss is an argument of the model: `VAE(…, objective=…, likelihood=…)`.
            loss_weights: Must be None. Set the weight of the KL with `objective=ELBO(beta=…)`.
            metrics: Metrics of images in [0, 1] and their reconstructions, such as `["mse"]`.
            weighted_metrics: Must be None. All images have the same weight.
            **kwargs: Other arguments of `keras.Model.compile`.

        Raises:
            InputError: An argument that must be None has a value.
        """
        for name, value in {"loss": loss, "loss_weights": loss_weights, "weighted_metrics": weighted_metrics}.items():
            if value is not None:
                raise InputError(
                    f"{name} = {value!r}: not supported, a model minimizes its objective; pass objective=… and "
                    "likelihood=… to the model, and metrics=… to compile"
                )
        check_optimizer(optimizer)
        super().compile(optimizer, metrics=[metrics] if isinstance(metrics, str) else metrics, **kwargs)
        if self.image_losses:
            exempt_image_losses(self.optimizer)
        self._build_metrics()

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        parts = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.part_names}
        return {**super().get_config(), **parts, "mask_channels": self.mask_channels, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Build the model from the result of `get_config`."""
        components = {
            name for name, value in config.items() if isinstance(value, dict | list) and name in cls.part_names
        }
        parts = {name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in components}
        return cls(**{**config, **parts})

    def _build_metrics(self) -> None:
        """Create the variables of the metrics given to `compile`, which Keras would create with the first batch."""
        metrics = self._compile_metrics if self.built and self.compiled else None
        if metrics is not None and not metrics.built:
            images = keras.KerasTensor((None, *self.image_shape), dtype="float32")
            metrics.build(images, images)

    @property
    def _condition_dim(self) -> int:
        """Size of the encoded condition; 0 for an unconditional model."""
        return 0 if self.condition is None else self.condition.dim

    def _build_parts(self, parts: Iterable[Any], latent_shape: Shape, input_shape: Shape) -> None:
        """Build the components that have weights, for codes and encoder inputs of these shapes."""
        for part in parts:
            if isinstance(part, ComponentLayer) and not part.built:
                part.build(latent_shape, input_shape, (None, self._condition_dim))

    def _gradient_paths(self, outputs: Tensor, training: bool | None) -> list[Tensor]:
        """Return the outputs of the decoder; in training, also a copy per image loss with an adaptive weight."""
        weights = [loss.weight for loss in self.image_losses if loss.is_adaptive] if training else []
        return balanced_copies(ops.cast(outputs, "float32"), weights) if weights else [outputs]

    def _likelihood(self, outputs: Tensor, images: Tensor) -> ImageDistribution:
        """Return p(x|z), given the decoder's outputs (…, H, W, channels)."""
        expected = (*images.shape[1:-1], self.likelihood.decoder_channels(images.shape[-1]))
        if not all(size in (None, got) for size, got in zip(expected, outputs.shape[-3:], strict=True)):
            raise InputError(
                f"decoder outputs {tuple(outputs.shape[-3:])}: does not fit images of {tuple(images.shape[1:])} and "
                f"likelihood = {self.likelihood}; return {expected}"
            )
        return self.likelihood(ops.cast(outputs, "float32"))

    def _log_likelihood(self, outputs: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Return log p(x|z) of the observed pixels, (N, K), given the decoder's outputs (N, K, H, W, channels)."""
        expanded = None if mask is None else mask[:, None]
        return observed_log_prob(self._likelihood(outputs, images), images[:, None], expanded)

"""`BaseVAE`: the loss of every model, its trackers, and the hooks that Keras calls."""

import abc
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import keras
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import ELBOTerms, Latents, Objective
from keras_vae.components.posteriors import Sampler
from keras_vae.core import backend
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.images import to_unit
from keras_vae.core.registry import ComponentLayer
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.models.feeding import CheckedModel
from keras_vae.models.image_models import reconstruction_graph


class Batch(NamedTuple):
    """A batch as a model's forward pass takes it.

    Args:
        images: In [0, 1], preprocessed by the likelihood, (N, H, W, C), float32.
        condition: Vectors of their conditions, (N, width), or None.
        noise: Standard normal noise for K draws of z per image, (N, K, latent_dim).
        features: The result of `encode_features` for the images; None to run the encoder.
    """

    images: Tensor
    condition: Tensor
    noise: Tensor
    features: Any = None


class Mean(keras.metrics.Mean):
    """A mean that is NaN before the first value; Keras's own is 0, the best possible loss."""

    def result(self) -> Tensor:
        """Return the mean."""
        return ops.where(ops.greater(self.count, 0), super().result(), float("nan"))


class BaseVAE(CheckedModel, abc.ABC):
    """A `keras.Model` that turns a batch into `ELBOTerms` and minimizes `objective` of them.

    `fit`, `evaluate` and every callback see these trackers, each a mean over the images of an epoch, in nats per image:
    `total_loss` (the minimized objective, with the penalties of regularized layers), `reconstruction_loss`, `kl_loss`
    and `negative_elbo`. There is no `loss` next to `total_loss`: let callbacks monitor `"val_total_loss"` or
    `"val_negative_elbo"`.

    Images are an array or, for a conditional model, `{"images": x, "condition": c}` or a pair `(x, c)`, as in
    `fit(x, c)`.

    Args:
        likelihood: p(x|z).
        objective: Terms → loss.
        condition: What the model is conditioned on, or None.
        seed: Seeds the sampling noise; None takes a random seed.
        **kwargs: As for every Keras model.

    Attributes:
        image_shape: (H, W, C) of the images, None for a size that is not fixed; set when the model is built.
        latent_dim: The number of latent dimensions; set when the model is built.
    """

    part_names: ClassVar[tuple[str, ...]]
    """The constructor's arguments that are serialized as objects."""

    code_name: ClassVar[str] = "z"
    """The name of the codes in exported graphs."""

    def __init__(
        self,
        *,
        likelihood: Likelihood,
        objective: Objective,
        condition: Condition | None,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.likelihood, self.objective, self.condition, self.seed = likelihood, objective, condition, seed
        self.sampler = Sampler(seed, dtype="float32", name="sampler")
        # Schedules need the number of steps; on JAX the optimizer's own count is out of reach inside a step.
        self.step = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="step")
        self.loss_trackers: dict[str, Mean] = {}
        self._add_trackers("total_loss", "reconstruction_loss", "kl_loss", "negative_elbo")
        if backend.runs_faster_without_xla():
            self.supports_jit = False

    def __dir__(self) -> list[str]:
        """Return the attributes by name, without the two that Keras would save as further copies of the weights."""
        return [name for name in super().__dir__() if name not in ("image_encoder", "image_decoder")]

    @abc.abstractmethod
    def _forward(self, batch: Batch, training: bool | None) -> Any:
        """Return a named tuple of tensors with a batch axis, `terms` and `reconstruction` among them."""

    @abc.abstractmethod
    def _measure_sizes(self, image_shape: Shape) -> int:
        """Build the parts that are not built yet for images (H, W, C), and return the number of latent dimensions."""

    def _add_trackers(self, *names: str) -> None:
        """Track the epoch means of values by these names; `_extra_metrics` returns those that are not losses."""
        self.loss_trackers.update({name: Mean(name=name) for name in names})

    def _extra_metrics(self, output: Any) -> dict[str, Tensor]:
        """Return what the model tracks as well as its loss terms, by name: scalars, or one value per image."""
        return {}

    def encode_features(self, inputs: dict[str, Array]) -> Any:
        """Return the encoder's outputs for a batch, computed once for any number of draws; None to run it each time."""
        return None

    def describe_codes(self, x: Array, *, terms: ELBOTerms, condition: Any = None) -> dict[str, Any]:
        """Return the results of an evaluation that only models of this kind have; none by default.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            terms: Their terms.
            condition: Their condition, one for all or one for each.
        """
        return {}

    @property
    def has_bound(self) -> bool:
        """Whether `negative_elbo` is a bound on −log p(x)."""
        return True

    @property
    def is_stochastic(self) -> bool:
        """Whether codes are drawn, so that more draws give a tighter estimate of log p(x)."""
        return True

    @property
    @abc.abstractmethod
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is one vector under one prior, as the analyses of a latent space assume."""

    @property
    @abc.abstractmethod
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers, between any two of which there are others."""

    @property
    def num_codes(self) -> int | None:
        """The number of vectors in the codebook; None for a model without one."""
        return None

    def initialize_prior(self, x: Any, *, condition: Any = None, seed: int = 0) -> None:
        """Initialize a prior that starts from images; do nothing for any other prior."""

    def _latents(self, output: Any) -> Latents:
        """Return the codes of a batch, for objectives that compare images.

        Raises:
            InputError: The model has no vector of codes.
        """
        raise InputError(
            f"objective = {self.objective}: it compares codes of one vector each, which a {type(self).__name__} does "
            "not have; take a VAE, or objective = 'elbo'"
        )

    def build(self, input_shape: Any) -> None:
        """Create the weights by tracing the model once, and refuse parts that do not fit together.

        Args:
            input_shape: (None, H, W, C), or a dict with it under `images`.
        """
        shape = input_shape["images"] if isinstance(input_shape, dict) else input_shape
        image_shape = tuple(shape[1:])
        if image_shape[-1] is not None:
            self.likelihood.check_images(image_shape)
        try:
            self.latent_dim = self._measure_sizes(image_shape)
            self.compute_output_spec(self._symbolic_inputs(image_shape))
        except InputError as error:
            # While Keras traces, it wraps errors into messages of its own.
            raise (error.__context__ or error) from None
        for layer in filter(backend.may_have_wrong_gradient, self._flatten_layers()):
            warnings.warn(
                f"{layer.name}: a 1×1 kernel with strides {layer.strides} over {layer.kernel.shape[-2]} channels; "
                "TensorFlow's oneDNN may compute a wrong gradient of it: set TF_ENABLE_ONEDNN_OPTS=0, or take a kernel "
                "of 2 or more",
                stacklevel=2,
            )
        self.image_shape = image_shape
        self.built = True
        self._build_metrics()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Encode, draw and decode a batch, and compute its terms.

        Args:
            inputs: Images (N, H, W, C), uint8 or floats in [0, 1]; or a dict of them under `images` and, for a
                conditional model, their `condition`. `noise` and `pixel_noise` replace the model's own draws,
                `features` the encoder's outputs.
            training: As for every Keras model.

        Returns:
            The output of the batch, a named tuple of tensors.
        """
        inputs = inputs if isinstance(inputs, dict) else {"images": inputs}
        images, condition = self._preprocess(inputs)
        noise = inputs.get("noise")
        if noise is None:
            noise = self.sampler.noise((ops.shape(images)[0], self.objective.num_samples, self.latent_dim))
        return self._forward(Batch(images, condition, noise, inputs.get("features")), training)

    def _preprocess(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return images in [0, 1], preprocessed by the likelihood, and the vectors of their conditions, or None.

        Raises:
            InputError: The condition is missing.
        """
        images = to_unit(inputs["images"])
        pixel_noise = None
        if "pixel_noise" in inputs:
            pixel_noise = ops.convert_to_tensor(inputs["pixel_noise"])
        elif self.likelihood.requires_noise:
            pixel_noise = self.sampler.uniform(ops.shape(images))
        condition = None
        if self.condition is not None:
            if inputs.get("condition") is None:
                raise self._input_checks.missing_condition()
            condition = self.condition.encode(inputs["condition"])
        return self.likelihood.preprocess(images, pixel_noise), condition

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Return the objective's mean over the batch, and update the trackers: Keras's training hook.

        Raises:
            InputError: The model is unconditional and targets are given, or the objective compares images and the
                batch has only one.
        """
        x = self._input_checks.join(x, y, sample_weight)
        output = self(x, training=training) if y_pred is None else y_pred
        terms: ELBOTerms = output.terms
        latents: Any = None
        if self.objective.requires_batch:
            latents = self._latents(output)
            if latents.z.shape[0] == 1:
                raise InputError(
                    f"batch of one image: {self.objective} compares the images of a batch; use batches of at least two"
                )
        penalty = terms.penalty + sum(self.losses, ops.zeros(()))
        total_loss = self.objective(terms, latents, self.step) + penalty
        images = ops.cast(ops.shape(terms.kl_per_group)[0], "float32")
        counted = images
        if training and self.compiled and isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # The optimizer leaves out such a step; it must not spoil the means of the epoch.
            counted = ops.where(ops.isfinite(ops.mean(total_loss)), images, 0.0)
        losses = {name: getattr(terms, name) for name in ("reconstruction_loss", "kl_loss", "negative_elbo")}
        for name, value in {"total_loss": total_loss, **losses, **self._extra_metrics(output)}.items():
            mean = ops.mean(value)
            self.loss_trackers[name].update_state(ops.where(counted > 0, mean, 0.0), sample_weight=counted)
        if training:
            self.step.assign_add(1)
        return ops.mean(total_loss)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The trackers and metrics of the model, without Keras's own `loss`, which is `total_loss` again."""
        return [metric for metric in super().metrics if metric is not self._loss_tracker]

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Any, sample_weight: Tensor = None) -> dict[str, Tensor]:
        """Update the metrics given to `compile` with images in [0, 1] and their reconstructions, and return all."""
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
        """Compile as `keras.Model.compile` does, without a loss: a model minimizes its `objective`.

        Args:
            optimizer: As for every Keras model.
            loss: None. The loss is an argument of the model: `VAE(…, objective=…, likelihood=…)`.
            loss_weights: None. Weight the KL by `objective=ELBO(beta=…)`.
            metrics: Metrics of images in [0, 1] and their reconstructions, such as `["mse"]`.
            weighted_metrics: None. Images are not weighted.
            **kwargs: As for every Keras model.

        Raises:
            InputError: One of those that must be None is not.
        """
        refused = {"loss": loss, "loss_weights": loss_weights, "weighted_metrics": weighted_metrics}
        for name, value in refused.items():
            if value is not None:
                raise InputError(
                    f"{name} = {value!r}: a VAE minimizes its objective; leave {name} out, and pass objective=… and "
                    "likelihood=… to the model; metrics=… may compare images with reconstructions"
                )
        super().compile(optimizer, metrics=[metrics] if isinstance(metrics, str) else metrics, **kwargs)
        self._build_metrics()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model with what `get_compile_config` returned."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Export the deterministic graph of `reconstruct`, uint8 images → mean images, as `keras.Model.export` does.

        For an encoder, a decoder and a sampler as well, verified against the model, use `vae export`.

        Args:
            filepath: As for every Keras model, like all further arguments.
            format: See `filepath`.
            **kwargs: See `filepath`.

        Raises:
            RunError: This backend cannot write the format.
        """
        if backend.name() == "jax":
            # With Keras 3.15, reconstructions of the SavedModel differ from those of the model by about 1e-3.
            raise RunError(
                f"format = {format!r}: Keras's export from JAX changes the reconstructions; use `vae export`, or "
                "KERAS_BACKEND=tensorflow"
            )
        try:
            reconstruction_graph(self).export(filepath, format=format, **kwargs)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                f"format = {format!r}: Keras on {backend.name()} cannot export it ({reason}); use `vae export`, or "
                "KERAS_BACKEND=tensorflow"
            ) from error

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        parts = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.part_names}
        return {**super().get_config(), **parts, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Build the model from what `get_config` returned."""
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value, custom_objects)
                if isinstance(value, dict) and name != "dtype"
                else value
                for name, value in config.items()
            }
        )

    def _build_metrics(self) -> None:
        """Create the variables of the metrics given to `compile`: Keras would take a batch for that."""
        metrics = self._compile_metrics if self.built and self.compiled else None
        if metrics is not None and not metrics.built:
            images = keras.KerasTensor((None, *self.image_shape), dtype="float32")
            metrics.build(images, images)

    @property
    def _condition_dim(self) -> int:
        """The size of the condition's vector; 0 for an unconditional model."""
        return 0 if self.condition is None else self.condition.dim

    def _build_parts(self, parts: Iterable[Any], latent_shape: Shape, input_shape: Shape) -> None:
        """Create the weights of the parts that have any, for codes and encoder inputs of these shapes."""
        for part in parts:
            if isinstance(part, ComponentLayer) and not part.built:
                part.build(latent_shape, input_shape, (None, self._condition_dim))

    def _symbolic_inputs(self, image_shape: Shape) -> dict[str, keras.KerasTensor]:
        inputs = {"images": keras.KerasTensor((None, *image_shape), dtype="uint8")}
        if self.condition is not None:
            inputs["condition"] = keras.KerasTensor((None, *self.condition.value_shape), dtype=self.condition.dtype)
        return inputs

    def _likelihood(self, outputs: Tensor, images: Tensor) -> ImageDistribution:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, channels)."""
        expected = (*images.shape[1:-1], self.likelihood.decoder_channels(images.shape[-1]))
        if not all(size in (None, got) for size, got in zip(expected, outputs.shape[-3:], strict=True)):
            raise InputError(
                f"decoder returns {tuple(outputs.shape[-3:])}: for images of {tuple(images.shape[1:])} under "
                f"{self.likelihood} it must return {expected}"
            )
        return self.likelihood(ops.cast(outputs, "float32"))

"""What every model shares: the loss, its trackers, its verbs, and a watch over what comes in."""

import abc
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import ELBOTerms, Latents, Objective
from keras_vae.components.posteriors import Sampler
from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.images import check_images, to_unit
from keras_vae.core.registry import ComponentLayer
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.models.batching import Result, fitting_batch_size, in_batches, split_off
from keras_vae.models.importance_sampling import ImportanceSampling


class Batch(NamedTuple):
    """A batch as a model takes it.

    Args:
        images: In [0, 1], as the likelihood observes them, (N, H, W, C), float32.
        condition: Their condition, (N, width), or None.
        noise: Standard normal noise for K draws of z an image, (N, K, latent_dim).
        features: What `encode_features` returned for the images, or None: then the encoder runs.
    """

    images: Tensor
    condition: Tensor
    noise: Tensor
    features: Any = None


class Mean(keras.metrics.Mean):
    """The mean of what was counted: NaN where nothing was, where Keras's own says 0, the best that a loss can be."""

    def result(self) -> Tensor:
        """Return it."""
        return ops.where(ops.greater(self.count, 0), super().result(), float("nan"))


class BaseVAE(keras.Model, abc.ABC):
    """A `keras.Model` that turns a batch into `ELBOTerms` and whose loss is `objective` of them.

    Trackers, each the mean over the images of an epoch, in nats per image: `total_loss` (what is minimized, with
    the penalties of regularized layers, if there are any), `reconstruction_loss`, `kl_loss` and `negative_elbo`.
    Keras's own `loss` is `total_loss` by another name; callbacks look for it.

    Images are passed as an array or, where the model has a condition, as `{"images": x, "condition": c}`.

    Args:
        likelihood: p(x|z).
        objective: Terms → loss.
        condition: What the model is told besides the pixels, or None.
        seed: Where the noise starts; None takes a random start.
        **kwargs: As for every Keras model.

    Attributes:
        image_shape: (H, W, C) of the images, None where any size is taken; known once the model is built.
        latent_dim: The number of latent dimensions, likewise.
    """

    part_names: ClassVar[tuple[str, ...]]
    """The constructor's arguments that are objects to be serialized."""

    code_name: ClassVar[str] = "z"
    """What `decode_tensors` takes, by the name that exported graphs give it."""

    image_shape: Shape
    latent_dim: int

    def __init__(
        self,
        *,
        likelihood: Likelihood,
        objective: Objective,
        condition: Condition | None,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        # Autocasting would round the targets to the compute dtype of a mixed policy; the networks cast for themselves.
        super().__init__(autocast=False, **kwargs)
        self.likelihood, self.objective, self.condition, self.seed = likelihood, objective, condition, seed
        self.sampler = Sampler(seed, dtype="float32", name="sampler")
        # Schedules count steps; the optimizer's own count is out of reach inside a step on JAX.
        self.step = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="step")
        self.loss_trackers: dict[str, Mean] = {}
        self._add_trackers("total_loss", "reconstruction_loss", "kl_loss", "negative_elbo")
        if backend.runs_faster_without_xla():
            self.supports_jit = False

    @abc.abstractmethod
    def forward(self, given: Batch, training: bool | None) -> Any:
        """Return a named tuple of tensors with a batch axis; `terms` and `reconstruction` are among them."""

    def encode_features(self, inputs: dict[str, Array]) -> Any:
        """Return what `forward` needs of the encoder for a batch, once for any number of draws; here, nothing.

        Args:
            inputs: As for `call`.
        """
        return None

    @abc.abstractmethod
    def measure_sizes(self, image_shape: Shape) -> int:
        """Build what is not built yet for images (H, W, C), and return the number of latent dimensions."""

    @abc.abstractmethod
    def encode_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what stands for images in latent space, by name; what `decode_tensors` takes comes first.

        This and the two below it draw nothing, and take symbolic tensors as well: exported graphs are made of them.

        Args:
            inputs: As for `call`, with `pixel_noise` where the likelihood draws pixels.
        """

    @abc.abstractmethod
    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images (N, H, W, C) in [0, 1] of codes.

        Args:
            codes: As `encode_tensors` returns them.
            condition: The vectors of their conditions, (N, width), or None.
        """

    @abc.abstractmethod
    def generate_from_noise(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images of the codes that standard normal noise (N, latent_dim) becomes under the prior.

        Raises:
            InputError: Its draws are no function of such noise.
        """

    @abc.abstractmethod
    def encode(self, x: Array, batch_size: int | None = None, *, condition: Any = None, seed: int = 0) -> Any:
        """Return the codes of images."""

    @abc.abstractmethod
    def decode(self, z: Any, batch_size: int | None = None, *, condition: Any = None) -> Array:
        """Return the mean images of codes, in [0, 1], (N, H, W, C), float32."""

    @abc.abstractmethod
    def _sample(self, n: int, seed: int | None, conditions: Array | None) -> Array:
        """Return `sample`'s images; what was asked for is checked."""

    def _add_trackers(self, *names: str) -> None:
        """Report the means over an epoch of what goes by these names; `extra_metrics` gives those of a model's own."""
        self.loss_trackers.update({name: Mean(name=name) for name in names})

    def extra_metrics(self, output: Any) -> dict[str, Tensor]:
        """Return what a model tracks besides its terms, by name: scalars, or one value an image."""
        return {}

    def describe_codes(self, x: Array, terms: ELBOTerms, *, condition: Any = None) -> dict[str, Any]:
        """Return what an evaluation says of the codes of images in a model with codes of its own kind; here, nothing.

        Args:
            x: The images.
            terms: Their terms.
            condition: Their condition, where the model has one.
        """
        return {}

    @property
    def has_bound(self) -> bool:
        """Whether `negative_elbo` is a bound on −log p(x)."""
        return True

    @property
    def is_stochastic(self) -> bool:
        """Whether codes are drawn, so that more draws of them tell more about p(x)."""
        return True

    def initialize_prior(self, x: Array, *, condition: Any = None, seed: int = 0) -> None:
        """Start a prior that begins from data with images; here, there is none."""

    def latents(self, output: Any) -> Latents:
        """Return the codes of a batch for the objectives that compare them; models without a vector have none.

        Raises:
            InputError: This model has none.
        """
        raise InputError(
            f"objective = {self.objective}: it compares codes of one vector each, which a {type(self).__name__} does "
            "not have; take a VAE, or objective = 'elbo'"
        )

    def build(self, input_shape: Any) -> None:
        """Trace the model once: networks get their weights, and parts that do not fit are refused.

        Args:
            input_shape: (None, H, W, C), or a dict with it under `images`.
        """
        shape = input_shape["images"] if isinstance(input_shape, dict) else input_shape
        image_shape = tuple(shape[1:])
        if image_shape[-1] is not None:
            self.likelihood.check_images(image_shape)
        try:
            self.latent_dim = self.measure_sizes(image_shape)
            self.compute_output_spec(self._symbolic_inputs(image_shape))
        except InputError as error:
            # Keras wraps what was raised while it traces into lines of its own.
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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Encode, draw, decode, and weigh the terms.

        Args:
            inputs: Images (N, H, W, C), uint8 or floats in [0, 1]; or a dict of them under `images` and, if need be,
                their `condition`. `noise` and `pixel_noise` replace what the model would draw by itself, `features`
                what the encoder would find.
            training: As for every Keras model.

        Returns:
            The output of the batch, a named tuple of tensors.
        """
        inputs = inputs if isinstance(inputs, dict) else {"images": inputs}
        images, condition = self.preprocess(inputs)
        noise = inputs.get("noise")
        if noise is None:
            noise = self.sampler.noise((ops.shape(images)[0], self.objective.num_samples, self.latent_dim))
        return self.forward(Batch(images, condition, noise, inputs.get("features")), training)

    def preprocess(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return images in [0, 1] as the likelihood takes them, and their conditions as vectors, or None.

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
            if "condition" not in inputs:
                raise InputError(f"condition missing: this model is told {self.condition}; {_PASS_CONDITION}")
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
        """Return the objective's mean over the batch, and record the terms: Keras's training hook.

        Raises:
            InputError: Targets came with the images, or a batch of one image cannot be compared with others.
        """
        if y is not None:
            raise InputError(
                "targets y given: a VAE learns from the images alone; pass fit(x), or map the data set to its images. "
                f"For labels to condition on, {_PASS_CONDITION}"
            )
        output = self(x, training=training) if y_pred is None else y_pred
        terms: ELBOTerms = output.terms
        latents: Any = None
        if self.objective.requires_batch:
            latents = self.latents(output)
            if latents.z.shape[0] == 1:
                raise InputError(f"a batch of one image: {self.objective} compares images; use batches of at least two")
        penalty = terms.penalty + sum(self.losses, ops.zeros(()))
        total_loss = self.objective(terms, latents, self.step) + penalty
        # One step that is not finite, which an optimizer may skip, does not spoil the epoch's means.
        images = ops.cast(ops.shape(terms.kl_per_group)[0], "float32")
        counted = ops.where(ops.isfinite(ops.mean(total_loss)), images, 0.0)
        losses = {name: getattr(terms, name) for name in ("reconstruction_loss", "kl_loss", "negative_elbo")}
        for name, value in {"total_loss": total_loss, **losses, **self.extra_metrics(output)}.items():
            mean = ops.mean(value)
            self.loss_trackers[name].update_state(ops.where(counted > 0, mean, 0.0), sample_weight=counted)
        if training:
            self.step.assign_add(1)
        return ops.mean(total_loss)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, after a look at the arrays.

        Raises:
            InputError: Images have another shape than the model's, or floats outside [0, 1].
        """
        x = self._check(x, **kwargs)
        held_out, *others = keras.utils.unpack_x_y_sample_weight(validation_data)
        if all(other is None for other in others):
            validation_data = self._check(held_out)
        if validation_data is None and y is None:
            x, validation_data = split_off(x, validation_split)
        if y is None and not kwargs.get("steps_per_epoch"):
            x, shuffle = backend.array_pipeline(x, batch_size, shuffle)
        if not kwargs.get("validation_steps"):
            size = kwargs.get("validation_batch_size") or batch_size
            validation_data, _ = backend.array_pipeline(validation_data, size)
        # Built within the first step, its variables would have TensorFlow trace that step twice.
        if self.built and self.compiled and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            callbacks,
            0.0 if validation_data is not None else validation_split,
            validation_data,
            shuffle,
            **kwargs,
        )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """Evaluate as `keras.Model.evaluate` does, after a look at the arrays; raises as `fit` does."""
        x = self._check(x, **kwargs)
        if y is None and not kwargs.get("steps"):
            x, _ = backend.array_pipeline(x, batch_size)
        return super().evaluate(x, y, batch_size, verbose, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any) -> Any:
        """Predict as `keras.Model.predict` does, after a look at the arrays; raises as `fit` does."""
        x = self._check(x)
        if not kwargs.get("steps"):
            x, _ = backend.array_pipeline(x, batch_size)
        return super().predict(x, batch_size, verbose, **kwargs)

    def sample(self, n: int, seed: int | None = None, *, condition: Any = None) -> Array:
        """Return mean images of codes drawn from the prior.

        Args:
            n: How many.
            seed: Makes the draw repeatable; None goes on with the model's own generator.
            condition: What they are drawn under, one for all or one each, where the model has a condition.

        Returns:
            Images in [0, 1], (n, H, W, C), float32.

        Raises:
            InputError: `n` is below one, or the condition is missing or unknown.
        """
        if n < 1:
            raise InputError(f"n = {n}: ask for at least one sample")
        self._check_built()
        return self._sample(n, seed, self._conditions(condition, n))

    def reconstruct(self, x: Array, batch_size: int | None = None, *, condition: Any = None) -> Array:
        """Return the mean images of the codes that stand for images: encode, then decode, without noise.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            batch_size: Images at a time; None takes as many as fit in little memory.
            condition: Their condition, one for all or one each, where the model has one.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        codes = self.encode(x, batch_size, condition=condition)
        return self.decode(codes[0] if isinstance(codes, tuple) else codes, batch_size, condition=condition)

    def elbo_terms(
        self,
        x: Array,
        seed: int = 0,
        batch_size: int | None = None,
        *,
        condition: Any = None,
        draws: int = 1,
    ) -> ELBOTerms:
        """Return the terms of the loss for every image.

        The noise comes from NumPy, so that one model and one seed give the same numbers on every backend.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws.
            batch_size: Images at a time; None takes as many as fit in little memory.
            condition: Their condition, one for all or one each, where the model has one.
            draws: Draws of z an image, K.

        Returns:
            `ELBOTerms` of float32 NumPy arrays, in nats per image; what it derives from them are the backend's tensors.

        Raises:
            InputError: The images do not fit the model, or `draws` is below one.
        """
        if draws < 1:
            raise InputError(f"draws = {draws}: must be ≥ 1")
        inputs = self._inputs(x, condition, seed)
        generator = np.random.default_rng(seed)
        inputs["noise"] = generator.standard_normal((len(inputs["images"]), draws, self.latent_dim), dtype="float32")
        return self._in_batches(lambda batch: self.predict_on_batch(batch).terms, inputs, batch_size, copies=draws)

    def elbo(
        self,
        x: Array,
        seed: int = 0,
        batch_size: int | None = None,
        *,
        condition: Any = None,
    ) -> Array:
        r"""Return the evidence lower bound \(\log p(x|z) - KL(q(z|x) \| p(z)) \le \log p(x)\) of every image.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            seed: Fixes the draws of z, one an image; the same on every backend.
            batch_size: Images at a time; None takes as many as fit in little memory.
            condition: Their condition, one for all or one each, where the model has one.

        Returns:
            Nats per image, (N,), float32; β plays no part in it.

        Raises:
            InputError: The images do not fit the model.
        """
        return -ops.convert_to_numpy(self.elbo_terms(x, seed, batch_size, condition=condition).negative_elbo)

    def log_likelihood(
        self,
        x: Array,
        samples: int = 100,
        seed: int = 0,
        *,
        condition: Any = None,
    ) -> Array:
        r"""Return the importance-weighted estimate \(\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\) of log p(x).

        Burda et al. (arXiv 1509.00519). It is a lower bound in expectation and rises with K toward log p(x).

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            samples: K, draws of z an image.
            seed: Fixes the draws; the same on every backend.
            condition: Their condition, one for all or one each, where the model has one.

        Returns:
            Nats per image, (N,), float32.

        Raises:
            InputError: The images do not fit the model, or `samples` is below one.
        """
        sampling = self.importance_sampling(x, samples, seed, condition=condition)
        estimates = [estimate.log_likelihood for estimate in sampling.over(sampling.blocks)]
        return np.concatenate(estimates).astype("float32")

    def importance_sampling(
        self,
        x: Array,
        samples: int,
        seed: int = 0,
        *,
        condition: Any = None,
    ) -> ImportanceSampling:
        """Return what estimates log p(x) block by block; arguments and errors as for `log_likelihood`."""
        if samples < 1:
            raise InputError(f"samples = {samples}: must be ≥ 1")
        return ImportanceSampling(self, self._inputs(x, condition, seed), samples, seed)

    def get_config(self) -> dict[str, Any]:
        """Return the parts, serialized."""
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

    def _check(self, x: Any, **kwargs: Any) -> Any:
        for name in ("sample_weight", "class_weight"):
            if kwargs.get(name) is not None:
                raise InputError(f"{name} given: every image weighs the same in the mean over images")
        images = x.get("images") if isinstance(x, dict) else x
        if ops.is_tensor(images):
            images = ops.convert_to_numpy(images)
        if isinstance(images, np.ndarray):
            check_images(images, self.image_shape if self.built else (None, None, None))
            if not self.built:
                self.build((None, *images.shape[1:]))
            if not isinstance(x, dict):
                if self.condition is not None:
                    raise InputError(f"condition missing: this model is told {self.condition}; {_PASS_CONDITION}")
                return images
            conditions = self._conditions(x.get("condition"), len(images))
            return {**x, "images": images} | ({} if conditions is None else {"condition": conditions})
        return x

    def _check_built(self) -> None:
        if not self.built:
            raise InputError("the model's sizes are not known yet: fit it first, or call build((None, H, W, C))")

    def _inputs(self, x: Array, condition: Any, seed: int) -> dict[str, Array]:
        """Return what `call` takes, checked, with the noise that a likelihood that draws pixels needs."""
        x = ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)
        check_images(x, self.image_shape if self.built else (None, None, None))
        if not self.built:
            self.build((None, *x.shape[1:]))
        inputs = {"images": x}
        conditions = self._conditions(condition, len(x))
        if conditions is not None:
            inputs["condition"] = conditions
        if self.likelihood.requires_noise:
            inputs["pixel_noise"] = np.random.default_rng([seed, 1]).random(x.shape, dtype="float32")
        return inputs

    def _conditions(self, condition: Any, n: int) -> Array | None:
        """Return the conditions of n images, one given for all of them repeated."""
        if self.condition is None:
            if condition is not None:
                raise InputError(f"condition = {condition!r}: this model was built without one")
            return None
        if condition is None:
            raise InputError(f"condition = None: this model is told {self.condition}; pass condition=…, one or {n}")
        values = np.asarray(condition)
        if values.ndim == len(self.condition.value_shape):
            values = np.broadcast_to(values, (n, *values.shape))
        values = self.condition.check(values)
        if len(values) != n:
            raise InputError(f"condition: {len(values)} given for {n} images")
        return values

    @property
    def _condition_dim(self) -> int:
        """The size of the condition's vector; 0 without one."""
        return 0 if self.condition is None else self.condition.dim

    def _encode_condition(self, conditions: Array | None) -> Array | None:
        """Return the vectors of conditions, (n, width)."""
        return None if self.condition is None else ops.convert_to_numpy(self.condition.encode(conditions))

    def _build_parts(self, parts: Iterable[Any], latent_shape: Shape, input_shape: Shape) -> None:
        """Make the weights of those parts that have any, for codes and inputs of the encoder of these shapes."""
        for part in parts:
            if isinstance(part, ComponentLayer) and not part.built:
                part.build(latent_shape, input_shape, (None, self._condition_dim))

    def _symbolic_inputs(self, image_shape: Shape) -> dict[str, keras.KerasTensor]:
        inputs = {"images": keras.KerasTensor((None, *image_shape), dtype="uint8")}
        if self.condition is not None:
            inputs["condition"] = keras.KerasTensor((None, *self.condition.value_shape), dtype=self.condition.dtype)
        return inputs

    def _in_batches(
        self,
        function: Callable[..., Result],
        inputs: Any,
        batch_size: int | None,
        copies: int = 1,
    ) -> Result:
        fitting = self.fitting_batch_size(copies) if batch_size is None else batch_size
        return in_batches(function, inputs, batch_size=fitting)

    @property
    def output_size(self) -> int:
        """How many times as large as up to eight channels the decoder's outputs are: 32 for 256 logits a pixel."""
        return max(1, self.likelihood.decoder_channels(self.image_shape[-1]) // 8)

    def fitting_batch_size(self, draws: int = 1) -> int:
        """Return how many images to take at once so that memory grows neither with their size nor with the likelihood.

        Args:
            draws: How many codes of each are decoded.
        """
        return max(1, fitting_batch_size(self.image_shape, draws) // self.output_size)

    def _likelihood(self, outputs: Tensor, images: Tensor) -> ImageDistribution:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, channels), refused where they do not fit."""
        expected = (*images.shape[1:-1], self.likelihood.decoder_channels(images.shape[-1]))
        if not all(size in (None, got) for size, got in zip(expected, outputs.shape[-3:], strict=True)):
            raise InputError(
                f"decoder puts out {tuple(outputs.shape[-3:])}: for images of {tuple(images.shape[1:])} under "
                f"{self.likelihood} it must put out {expected}"
            )
        return self.likelihood(ops.cast(outputs, "float32"))


_PASS_CONDITION = 'pass {"images": x, "condition": c}'

"""Keras's methods that feed a model (`fit`, `evaluate`, `predict`, …), with a check of their inputs."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_vae.components.image_losses import ImageLoss
from keras_vae.components.objectives import ELBOTerms
from keras_vae.components.priors import Density
from keras_vae.core import backend, tracing
from keras_vae.core.errors import InputError, shown
from keras_vae.models.arguments import check_assignment, check_density, check_options
from keras_vae.models.batching import check_divisible, split_off
from keras_vae.models.imputation import Imputation
from keras_vae.models.inputs import check_source, is_array
from keras_vae.models.missing import check_observed, has_masked_array


class CheckedModel(Imputation, keras.Model):
    """A `keras.Model` whose `fit`, `evaluate`, `predict`, batch methods and `__call__` check their inputs.

    Arrays are checked completely. For a data source (a `tf.data.Dataset`, a `DataLoader`, a `PyDataset` or a
    generator), the first batch is checked before the first step.

    Args:
        **kwargs: Arguments of `keras.Model`.
    """

    image_losses: list[ImageLoss]

    def __init__(self, **kwargs: Any) -> None:
        # Autocasting would round the targets to the compute dtype of a mixed policy. The networks cast their inputs.
        backend.check_replicas()
        super().__init__(autocast=False, **kwargs)
        self._unchecked_sources: set[str] = set()
        self._is_inside_step = False

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. A new objective takes effect with the next step; other settings of a built model are fixed.

        Raises:
            InputError: The setting is fixed, or the objective does not fit the model.
        """
        if not getattr(self, "built", False):
            super().__setattr__(name, value)
            return
        check_assignment(self, name, value)
        super().__setattr__(name, value)
        if name == "objective":
            # Compiled steps contain the old objective.
            self._remake_step_functions()

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model as Keras does, after a check of the inputs that are not symbolic."""
        if not self._is_inside_step:
            checked = self._input_checks.check(inputs)
            # A tensor would lose the mask of a masked array.
            inputs = checked if has_masked_array(inputs) else inputs
        return super().__call__(inputs, *args, **kwargs)

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
        """Train the model as `keras.Model.fit` does, after a check of arrays, or of the first batch of a data source.

        Args:
            x: Images, `{"images": x, "condition": c}`, or a data source of such batches or of pairs `(x, c)`. Images
                with missing pixels have the mask of the observed ones under `mask`, or are a masked array of NumPy.
            y: Conditions for a conditional model, unless `x` contains them; None for an unconditional model.
            batch_size: See `keras.Model.fit`.
            epochs: See `keras.Model.fit`.
            verbose: See `keras.Model.fit`.
            callbacks: See `keras.Model.fit`. They can monitor `total_loss`, `val_negative_elbo`, ….
            validation_split: See `keras.Model.fit`.
            validation_data: In any form of `x`, or a pair `(x, c)`.
            shuffle: See `keras.Model.fit`.
            **kwargs: Other arguments of `keras.Model.fit`, except weights of images.

        Raises:
            InputError: The images do not fit the model or have floats outside [0, 1]; or this model does not support
                the targets, weights or callbacks. Of a data source, only the first batch is checked.
        """
        check_options(
            **{"batch_size": batch_size, "epochs": epochs, "verbose": verbose, "shuffle": shuffle},
            **{"validation_split": validation_split, **kwargs},
        )
        _check_callbacks(callbacks)
        x, y = self._checked_data("train", x, y, **kwargs)
        if validation_data is None:
            x, validation_data = split_off(x, validation_split)
            if validation_split and validation_data is None:
                raise InputError(
                    f"validation_split = {validation_split}: leaves no images for training, or cannot split a data "
                    "source; pass a smaller fraction, or validation_data"
                )
        else:
            # Only a tuple is a pair `(x, c)`; `join` handles a list.
            held_out = validation_data if isinstance(validation_data, tuple) else (validation_data,)
            weights = (*held_out, None, None)[2]
            validation_data, targets = self._checked_data("test", *held_out[:2], sample_weight=weights)
            if targets is not None:
                validation_data = (validation_data, targets)
        check_divisible("x", x, batch_size)
        check_divisible("validation_data", validation_data, kwargs.get("validation_batch_size") or batch_size)
        if y is None and not kwargs.get("steps_per_epoch"):
            x, shuffle = backend.array_pipeline(x, batch_size, shuffle)
        if not kwargs.get("validation_steps"):
            size = kwargs.get("validation_batch_size") or batch_size
            validation_data, _ = backend.array_pipeline(validation_data, size)
        # If the optimizer were built inside the first step, TensorFlow would trace that step twice.
        if self.built and self.compiled and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        with backend.rejected_indivisible_batches():
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, 0.0, validation_data, shuffle, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model from the result of `get_compile_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            # Keras restores whether a layer is frozen, but not that of the layers inside, which it creates later.
            for layer in self._flatten_layers():
                for inner in () if layer.trainable else layer._flatten_layers(include_self=False):
                    inner.trainable = False
            self.optimizer.build(self.trainable_variables)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """Evaluate the model as `keras.Model.evaluate` does, after a check; arguments and errors as for `fit`."""
        check_options(batch_size=batch_size, verbose=verbose, **kwargs)
        # `fit` calls this method with validation data that it has already checked.
        if not kwargs.get("_use_cached_eval_dataset"):
            x, y = self._checked_data("test", x, y, **kwargs)
            check_divisible("x", x, batch_size)
            if y is None and not kwargs.get("steps"):
                x, _ = backend.array_pipeline(x, batch_size)
        with backend.rejected_indivisible_batches():
            return super().evaluate(x, y, batch_size, verbose, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any) -> Any:
        """Return the outputs for images as `keras.Model.predict` does, after a check; errors as for `fit`."""
        check_options(batch_size=batch_size, verbose=verbose, **kwargs)
        x, _ = self._checked_data("predict", x)
        check_divisible("x", x, batch_size)
        if not kwargs.get("steps"):
            x, _ = backend.array_pipeline(x, batch_size)
        with backend.rejected_indivisible_batches():
            return super().predict(x, batch_size, verbose, **kwargs)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Run one training step as `keras.Model.train_on_batch` does, after a check; arguments as for `fit`."""
        x, _ = self._checked_data("train", x, y, sample_weight=sample_weight, class_weight=class_weight, source=False)
        check_divisible("x", x, None)
        return super().train_on_batch(x, return_dict=return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Evaluate one batch as `keras.Model.test_on_batch` does, after a check; arguments as for `fit`."""
        x, _ = self._checked_data("test", x, y, sample_weight=sample_weight, source=False)
        check_divisible("x", x, None)
        return super().test_on_batch(x, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Return the output for a batch as `keras.Model.predict_on_batch` does, after a check."""
        self._unchecked_sources.discard("predict")
        return backend.map_rows(super().predict_on_batch, self._input_checks.check(self._input_checks.join(x)))

    @property
    def density(self) -> Density:
        """How log p(z) is computed: `"direct"` by default; see `Prior.density`."""
        return "direct"

    def loss_terms(self, inputs: Mapping[str, Any]) -> ELBOTerms:
        """Return the loss terms of a batch as tensors. Unlike `predict_on_batch`, it copies nothing to the host.

        Args:
            inputs: Inputs of `call` without random numbers of its own: with `noise` or `codes`, and with `pixel_noise`
                if the likelihood requires noise. They are not checked.
        """
        check_density(self)
        with tracing.expected_tracing():
            terms: ELBOTerms = backend.map_rows(self._compiled_loss_terms, dict(inputs))
        return terms

    @functools.cached_property
    def _compiled_loss_terms(self) -> Callable[[dict[str, Any]], Any]:
        return backend.compiled(lambda inputs: self.call(inputs, training=False).terms, self.variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Make the function that runs training steps and checks the first batch of a data source."""
        return self._make_checked("train", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Any:
        """Make the function that runs evaluation steps and checks the first batch of a data source."""
        return self._make_checked("test", super().make_test_function, force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Make the function that runs prediction steps and checks the first batch of a data source."""
        return self._make_checked("predict", super().make_predict_function, force)

    def train_step(self, *args: Any) -> Any:
        """Run a training step on a batch in any form that `fit` accepts."""
        return self._step(super().train_step, args)

    def test_step(self, *args: Any) -> Any:
        """Evaluate a batch in any form that `evaluate` accepts."""
        return self._step(super().test_step, args)

    def predict_step(self, *args: Any) -> Any:
        """Return the output for a batch in any form that `predict` accepts."""
        return self._step(super().predict_step, args, ignore_targets=True)

    def _checked_data(
        self, function: str, x: Any, y: Any = None, *, source: bool = True, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Return the `x` and `y` to pass to Keras: checked arrays and None, or a source to be checked by `function`.

        Args:
            function: Name of the Keras function, `"train"`, `"test"` or `"predict"`.
            x: Inputs of `fit`, `evaluate` or `predict`.
            y: Targets.
            source: Whether `x` may be a data source.
            **kwargs: Their other arguments. Weights of images or classes raise an error.
        """
        backend.check_replicas()
        if kwargs.get("class_weight") is not None:
            raise InputError("class_weight: not supported, all images have the same weight; leave it out")
        checks = self._input_checks
        joined = checks.join(x, y, kwargs.get("sample_weight"))
        images = joined.get("images") if isinstance(joined, Mapping) else joined
        self._unchecked_sources.discard(function)
        if is_array(images) or isinstance(joined, Mapping) or not source:
            joined = checks.check(joined)
            if function == "train":
                check_observed(joined)
            if not self.built:
                self.build((None, *images.shape[1:]))  # type: ignore[union-attr]
            return joined, None
        check_source(joined)
        self._unchecked_sources.add(function)
        return (_as_tuples(x) if inspect.isgenerator(x) else x), y

    def _make_checked(self, function: str, make: Callable[[bool], Any], force: bool) -> Any:
        """Make one of Keras's three step functions, wrapped in a check of the first batch of a data source."""
        attribute = f"{function}_function"
        if getattr(self, attribute) is not None and not force:
            return getattr(self, attribute)
        if function != "predict":
            for loss in self.image_losses:
                loss.prepare()
        make(force)
        step_function = getattr(self, attribute)
        prefetch = backend.Prefetch()

        def checked(*args: Any) -> Any:
            *state, batches = args
            batches = prefetch(batches)
            try:
                if function in self._unchecked_sources:
                    first, batches = backend.peek(batches, self.steps_per_execution)
                    self._unchecked_sources.discard(function)
                    self._input_checks.check(self._input_checks.unpack(first, ignore_targets=function == "predict"))
                with tracing.expected_tracing():
                    return step_function(*state, batches)
            except InputError:
                self._restore_jax_state(function, *state)
                raise

        setattr(self, attribute, checked)
        return checked

    def _remake_step_functions(self) -> None:
        """Make those step functions again that exist."""
        for function in ("train", "test", "predict"):
            if getattr(self, f"{function}_function", None) is not None:
                getattr(self, f"make_{function}_function")(force=True)

    def _restore_jax_state(self, function: str, *state: Any) -> None:
        """Restore the values of the variables, which Keras on JAX passes to a step as its state."""
        groups = ["trainable", "non_trainable", *(["optimizer"] if function == "train" else []), "metrics"]
        for values in state:
            self._jax_state = {f"{group}_variables": part for group, part in zip(groups, values, strict=False)}
            self._jax_state_synced = False
            self.jax_state_sync()

    def _step(self, step: Callable[..., Any], args: tuple[Any, ...], *, ignore_targets: bool = False) -> Any:
        *state, data = args
        self._is_inside_step = True
        try:
            return step(*state, (self._input_checks.unpack(data, ignore_targets=ignore_targets),))
        finally:
            self._is_inside_step = False


def _as_tuples(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of a generator as tuples, as Keras requires."""
    for batch in batches:
        yield batch if isinstance(batch, tuple) else (batch,)


def _check_callbacks(callbacks: Any) -> None:
    """Reject objects that are not callbacks, and callbacks that monitor `loss`, which this model does not report."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    for callback in [] if callbacks is None else keras.tree.flatten(callbacks):
        if not isinstance(callback, keras.callbacks.Callback):
            raise InputError(
                f"callbacks = {shown(callback)}: not a callback; pass instances of keras.callbacks.Callback"
            )
        if isinstance(callback, keras.callbacks.TerminateOnNaN):
            raise InputError(
                "callbacks = TerminateOnNaN: it monitors `loss`, but this model reports total_loss; write a callback "
                "that stops training if logs['total_loss'] is NaN"
            )
        stops = isinstance(callback, keras.callbacks.EarlyStopping | keras.callbacks.ReduceLROnPlateau)
        keeps_best = isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_best_only
        if (stops or keeps_best) and callback.monitor in ("loss", "val_loss"):
            prefix = callback.monitor.removesuffix("loss")
            raise InputError(
                f"monitor = {callback.monitor!r}: this model reports its loss under another name; set "
                f'monitor="{prefix}total_loss" or "{prefix}negative_elbo", and mode="min"'
            )

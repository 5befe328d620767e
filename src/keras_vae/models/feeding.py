"""Keras's ways of feeding a model, with a check of everything that comes in."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
from keras import ops

from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.images import check_images
from keras_vae.models.batching import split_off
from keras_vae.models.inference import Inference
from keras_vae.models.inputs import is_array


class CheckedModel(Inference, keras.Model):
    """A `keras.Model` whose `fit`, `evaluate`, `predict`, batch methods and calls check their inputs.

    Arrays are checked as a whole. Of a data source (a `tf.data.Dataset`, a `DataLoader`, a `PyDataset`, a generator)
    the first batch is checked, on its way to the first step.

    Args:
        **kwargs: As for every Keras model.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Autocasting would round the targets to the compute dtype of a mixed policy; the networks cast for themselves.
        super().__init__(autocast=False, **kwargs)
        self._unchecked_sources: set[str] = set()
        self._is_inside_step = False

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model as Keras does, after a check of images that have values."""
        if not self._is_inside_step:
            images = inputs.get("images") if isinstance(inputs, Mapping) else inputs
            if is_array(images):
                check_images(ops.convert_to_numpy(images), self._input_checks.image_shape)
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
        """Train as `keras.Model.fit` does, after a check of the images.

        Args:
            x: Images, `{"images": x, "condition": c}`, or a data source of such batches or of pairs `(x, c)`.
            y: The conditions of a conditional model, unless `x` holds them; None for an unconditional one.
            batch_size: As for every Keras model, like all further arguments. `validation_data` has the forms of `x`,
                and that of a pair `(x, c)`.
            epochs: As for every Keras model.
            verbose: As for every Keras model.
            callbacks: As for every Keras model; they monitor `total_loss`, `val_negative_elbo`, ….
            validation_split: As for every Keras model.
            validation_data: See `batch_size`.
            shuffle: As for every Keras model.
            **kwargs: As for every Keras model, without weights for images.

        Raises:
            InputError: Images have another shape than the model's, or floats outside [0, 1]; or targets, weights or
                a callback have no meaning for this model.
        """
        _check_monitors(callbacks)
        x, y = self._fed("train", x, y, **kwargs)
        # A pair of lists is a pair too; a list alone is for `join`.
        held_out = validation_data if isinstance(validation_data, tuple) else (validation_data,)
        validation_data, targets = self._fed("test", *held_out[:2], sample_weight=(*held_out, None, None)[2])
        if validation_data is None:
            x, validation_data = split_off(x, validation_split)
        elif targets is not None:
            validation_data = (validation_data, targets)
        if y is None and not kwargs.get("steps_per_epoch"):
            x, shuffle = backend.array_pipeline(x, batch_size, shuffle)
        if not kwargs.get("validation_steps"):
            size = kwargs.get("validation_batch_size") or batch_size
            validation_data, _ = backend.array_pipeline(validation_data, size)
        # Built within the first step, its variables would have TensorFlow trace that step twice.
        if self.built and self.compiled and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        split = 0.0 if validation_data is not None else validation_split
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, split, validation_data, shuffle, **kwargs)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """Evaluate as `keras.Model.evaluate` does, after a check of the images; arguments and errors as for `fit`."""
        # `fit` calls this with validation data that it has looked at.
        if not kwargs.get("_use_cached_eval_dataset"):
            x, y = self._fed("test", x, y, **kwargs)
            if y is None and not kwargs.get("steps"):
                x, _ = backend.array_pipeline(x, batch_size)
        return super().evaluate(x, y, batch_size, verbose, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any) -> Any:
        """Predict as `keras.Model.predict` does, after a check of the images; errors as for `fit`."""
        x, _ = self._fed("predict", x)
        if not kwargs.get("steps"):
            x, _ = backend.array_pipeline(x, batch_size)
        return super().predict(x, batch_size, verbose, **kwargs)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Take one step as `keras.Model.train_on_batch` does, after a check; arguments and errors as for `fit`."""
        x, _ = self._fed("train", x, y, sample_weight=sample_weight, class_weight=class_weight)
        return super().train_on_batch(x, return_dict=return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Evaluate one batch as `keras.Model.test_on_batch` does, after a check; arguments and errors as for `fit`."""
        x, _ = self._fed("test", x, y, sample_weight=sample_weight)
        return super().test_on_batch(x, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Return the output of a batch as `keras.Model.predict_on_batch` does, after a check; errors as for `fit`."""
        self._unchecked_sources.discard("predict")
        return super().predict_on_batch(self._input_checks.check(self._input_checks.join(x)))

    def make_train_function(self, force: bool = False) -> Any:
        """Make the function of a training step, which checks the first batch of a source."""
        return self._make_checked("train", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Any:
        """Make the function of an evaluation step, which checks the first batch of a source."""
        return self._make_checked("test", super().make_test_function, force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Make the function of a prediction step, which checks the first batch of a source."""
        return self._make_checked("predict", super().make_predict_function, force)

    def train_step(self, *args: Any) -> Any:
        """Take a training step on a batch in any form that `fit` accepts."""
        return self._step(super().train_step, args)

    def test_step(self, *args: Any) -> Any:
        """Evaluate a batch in any form that `evaluate` accepts."""
        return self._step(super().test_step, args)

    def predict_step(self, *args: Any) -> Any:
        """Return the output of a batch in any form that `predict` accepts."""
        return self._step(super().predict_step, args, ignore_targets=True)

    def _fed(self, function: str, x: Any, y: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """Return what Keras is fed with: checked inputs without targets, or a source, whose first batch is to check."""
        if kwargs.get("class_weight") is not None:
            raise InputError("class_weight given: every image has the same weight in the mean; leave it out")
        checks = self._input_checks
        joined = checks.join(x, y, kwargs.get("sample_weight"))
        images = joined.get("images") if isinstance(joined, Mapping) else joined
        self._unchecked_sources.discard(function)
        if is_array(images):
            joined = checks.check(joined)
            if not self.built:
                self.build((None, *images.shape[1:]))  # type: ignore[union-attr]
            return joined, None
        if x is not None:
            self._unchecked_sources.add(function)
        return x, y

    def _make_checked(self, function: str, make: Callable[[bool], Any], force: bool) -> Any:
        """Make one of Keras's three functions, and have it check the first batch that comes from a source."""
        attribute = f"{function}_function"
        if getattr(self, attribute) is not None and not force:
            return getattr(self, attribute)
        make(force)
        step_function = getattr(self, attribute)

        def checked(*args: Any) -> Any:
            if function in self._unchecked_sources:
                *state, batches = args
                first, batches = backend.peek(batches, self.steps_per_execution)
                self._unchecked_sources.discard(function)
                self._input_checks.check(self._input_checks.unpack(first, ignore_targets=function == "predict"))
                args = (*state, batches)
            return step_function(*args)

        setattr(self, attribute, checked)
        return checked

    def _step(self, step: Callable[..., Any], args: tuple[Any, ...], *, ignore_targets: bool = False) -> Any:
        *state, data = args
        self._is_inside_step = True
        try:
            return step(*state, (self._input_checks.unpack(data, ignore_targets=ignore_targets),))
        finally:
            self._is_inside_step = False


def _check_monitors(callbacks: Any) -> None:
    """Refuse callbacks that would wait in vain for Keras's `loss`."""
    for callback in callbacks if isinstance(callbacks, Iterable) else [callbacks]:
        if isinstance(callback, keras.callbacks.TerminateOnNaN):
            raise InputError(
                "callbacks = TerminateOnNaN: it looks at `loss`, and this model reports total_loss; raise from a "
                "callback of your own if logs['total_loss'] is NaN"
            )
        stops = isinstance(callback, keras.callbacks.EarlyStopping | keras.callbacks.ReduceLROnPlateau)
        keeps_best = isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_best_only
        if (stops or keeps_best) and callback.monitor in ("loss", "val_loss"):
            prefix = callback.monitor.removesuffix("loss")
            raise InputError(
                f"monitor = {callback.monitor!r}: this model reports its loss under another name; set "
                f'monitor="{prefix}total_loss" or "{prefix}negative_elbo", and mode="min"'
            )

"""What every model shares: the loss, its trackers, and a watch over what comes in."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
from keras import ops

from keras_vae import _backend
from keras_vae.errors import InputError
from keras_vae.objectives import Objective, Terms
from keras_vae.pixels import check_images
from keras_vae.types import Array, Tensor

Result = TypeVar("Result")

_PIXELS_AT_ONCE = 1024 * 28 * 28


class Output(NamedTuple):
    """What a model returns for a batch of images: tensors only, so that every backend can carry it.

    Args:
        reconstruction: Mean images in [0, 1], (N, H, W, C).
        z_mean: Means of q(z|x), (N, latent_dim).
        z_log_var: Logarithms of its variances, (N, latent_dim).
        z: The draw that was decoded, (N, latent_dim).
        terms: The terms of the loss, each (N,), in nats per image.
    """

    reconstruction: Tensor
    z_mean: Tensor
    z_log_var: Tensor
    z: Tensor
    terms: Terms


class BaseVAE(keras.Model):
    """A `keras.Model` whose `call` returns an `Output` and whose loss is `objective` of its terms.

    Trackers, each the mean over the images of an epoch, in nats per image: `total_loss` (what is minimised, with
    the penalties of regularised layers, if there are any), `reconstruction_loss`, `kl_loss` and `negative_elbo`.
    Keras's own `loss` is `total_loss` by another name; callbacks look for it.

    Args:
        objective: Terms → loss.
        **kwargs: As for every Keras model.

    Attributes:
        image_shape: (H, W, C) of the images, None where any size is taken; known once the model is built.
        latent_dim: The number of latent dimensions, likewise.
    """

    image_shape: tuple[int | None, ...]
    latent_dim: int

    def __init__(self, objective: Objective, **kwargs: Any) -> None:  # noqa: ANN401
        # Autocasting would round the targets to the compute dtype of a mixed policy; the networks cast for themselves.
        super().__init__(autocast=False, **kwargs)
        self.objective = objective
        self.trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("total_loss", "reconstruction_loss", "kl_loss", "negative_elbo")
        }
        if _backend.xla_slows_convolutions():
            self.supports_jit = False

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Output | None = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Return the objective's mean over the batch, and record the terms: Keras's training hook.

        Raises:
            InputError: Targets came with the images.
        """
        if y is not None:
            raise InputError(
                "targets y given: a VAE learns from the images alone; pass fit(x), or map the data set to its images"
            )
        terms = (self(x, training=training) if y_pred is None else y_pred).terms
        penalty = sum(self.losses, ops.zeros(()))
        total_loss = self.objective(terms) + penalty
        tracked = {**terms._asdict(), "negative_elbo": terms.negative_elbo, "total_loss": total_loss}
        for name, tracker in self.trackers.items():
            tracker.update_state(tracked[name])
        return ops.mean(total_loss)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:  # noqa: ANN401
        """Train as `keras.Model.fit` does, after a look at the arrays.

        Raises:
            InputError: Images have another shape than the model's, or floats outside [0, 1].
        """
        self._check(x, **kwargs)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Evaluate as `keras.Model.evaluate` does, after a look at the arrays; raises as `fit` does."""
        self._check(x, **kwargs)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Output:  # noqa: ANN401
        """Predict as `keras.Model.predict` does, after a look at the arrays; raises as `fit` does."""
        self._check(x)
        return super().predict(x, *args, **kwargs)

    def _check(self, x: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        for name in ("sample_weight", "class_weight"):
            if kwargs.get(name) is not None:
                raise InputError(f"{name} given: every image weighs the same in the mean over images")
        if ops.is_tensor(x):
            x = ops.convert_to_numpy(x)
        if isinstance(x, np.ndarray):
            check_images(x, self.image_shape if self.built else (None, None, None))
            if not self.built:
                self.build((None, *x.shape[1:]))
        return x

    def _check_built(self) -> None:
        if not self.built:
            raise InputError("the model's sizes are not known yet: fit it first, or call build((None, H, W, C))")


def fitting_batch_size(image_shape: tuple[int | None, ...]) -> int:
    """Return how many images to take at once so that memory does not grow with their size.

    Args:
        image_shape: (H, W, C), None where it is not known.

    Returns:
        1024 for images of 28×28, fewer for larger ones.

    Example:
        >>> fitting_batch_size((28, 28, 1)), fitting_batch_size((256, 256, 3))
        (1024, 12)
    """
    height, width = (size or 28 for size in image_shape[:2])
    return max(1, min(1024, _PIXELS_AT_ONCE // (height * width)))


def in_batches(function: Callable[..., Result], *arrays: Array, batch_size: int) -> Result:
    """Apply a function to aligned batches and join what it returns, so that memory does not grow with the data.

    Args:
        function: Arrays of at most `batch_size` rows → a nest of tensors with as many rows.
        *arrays: The arrays, all of the same length.
        batch_size: Rows at a time.

    Returns:
        The nest, of float32 NumPy arrays.

    Raises:
        InputError: `batch_size` is below one.
    """
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: must be ≥ 1")
    parts = [
        keras.tree.map_structure(
            lambda tensor: ops.convert_to_numpy(ops.cast(tensor, "float32")),
            function(*(array[start : start + batch_size] for array in arrays)),
        )
        for start in range(0, len(arrays[0]), batch_size)
    ]
    joined: Result = keras.tree.map_structure(lambda *rows: np.concatenate(rows), *parts)
    return joined

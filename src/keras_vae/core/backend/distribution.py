"""Training and evaluation on several devices, with `keras.distribution` on JAX."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import numpy as np

from keras_vae.core.backend.cluster import num_processes
from keras_vae.core.backend.hardware import name
from keras_vae.core.errors import InputError, check_count


def distribute(devices: int | Literal["all"]) -> None:
    """Divide every batch among devices from now on. Models must be built afterwards.

    The random numbers of a batch and the mean over its images do not depend on the number of devices, so that results
    differ by rounding only.

    Args:
        devices: Number of devices, or `"all"`. One device removes the current distribution.

    Raises:
        InputError: There are fewer devices, or the backend is not JAX.
    """
    if devices != "all":
        check_count("devices", devices)
    if devices == 1:
        keras.distribution.set_distribution(None)
        return
    if name() != "jax":
        library = {"tensorflow": "TensorFlow", "torch": "PyTorch"}[name()]
        raise InputError(
            f"devices = {devices}: {library} computes on one device; use --backend jax, or KERAS_BACKEND=jax"
        )
    available = keras.distribution.list_devices()
    if devices != "all" and devices > len(available):
        remedy = f"choose at most {len(available)}"
        if available[0].startswith("cpu"):
            remedy += f", or divide the CPU with XLA_FLAGS=--xla_force_host_platform_device_count={devices}"
        raise InputError(
            f"devices = {devices}: JAX finds {len(available)} ({', '.join(available[:8])}"
            f"{', …' if len(available) > 8 else ''}); {remedy}"
        )
    used = available if devices == "all" else available[:devices]
    # A mesh of one device would only move the same computation.
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=used) if len(used) > 1 else None)


@contextlib.contextmanager
def distributed(devices: int | Literal["all"] | None) -> Iterator[None]:
    """Divide the batches of a block of code among devices; None keeps the current distribution; see `distribute`."""
    before = keras.distribution.distribution()
    try:
        if devices is not None:
            distribute(devices)
        yield
    finally:
        keras.distribution.set_distribution(before)


def num_replicas() -> int:
    """Return the number of parts that the current distribution divides a batch into; 1 without a distribution."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[list(mesh.axis_names).index(distribution.batch_dim_name)])


def map_rows(function: Callable[[Any], Any], batch: Any) -> Any:
    """Apply a function to a batch whose rows are divided among the devices of the current distribution.

    Without this, every device computes the whole batch. If their number is not a multiple of that of the devices, the
    last row is repeated, and the results of its copies are removed.

    Args:
        function: Maps a nested structure of arrays or tensors with N rows to a nested structure with N rows, each of
            which depends on the same row of the batch only.
        batch: The nested structure of arrays or tensors.

    Returns:
        The results of the function.
    """
    replicas, distribution = num_replicas(), keras.distribution.distribution()
    if replicas == 1:
        return function(batch)
    if num_processes() > 1:
        # A process cannot read the rows that another one computes, so that each computes all.
        def replicate(part: Any) -> Any:
            layout = keras.distribution.TensorLayout([None] * len(part.shape), distribution.device_mesh)
            return keras.distribution.distribute_tensor(part, layout)

        return function(keras.tree.map_structure(replicate, batch))
    count = len(keras.tree.flatten(batch)[0])
    padded = count + -count % replicas
    rows = np.minimum(np.arange(padded), count - 1)

    def place(part: Any) -> Any:
        part = part if padded == count else part[rows]
        return keras.distribution.distribute_tensor(part, distribution.get_data_layout(part.shape))

    results = function(keras.tree.map_structure(place, batch))
    return results if padded == count else keras.tree.map_structure(lambda part: part[:count], results)


class Prefetch:
    """Starts the transfer of every batch to the devices one step ahead, as Keras does on a single accelerator.

    Under a distribution, Keras transfers a batch only when a step asks for it.
    """

    def __init__(self) -> None:
        self._source: Any = None
        self._ahead: Any = None

    def __call__(self, batches: Any) -> Any:
        """Return an iterator over the same batches, one per epoch; without a distribution, the batches themselves.

        Args:
            batches: The iterator that Keras passes to the function of each step of an epoch.
        """
        if num_replicas() == 1:
            return batches
        if batches is not self._source:
            self._source, self._ahead = batches, _one_batch_ahead(batches)
        return self._ahead


def _one_batch_ahead(batches: Iterator[Any]) -> Iterator[Any]:
    with rejected_indivisible_batches():
        batch = next(batches, None)
    while batch is not None:
        with rejected_indivisible_batches():
            following = next(batches, None)
        yield batch
        batch = following


@contextlib.contextmanager
def rejected_indivisible_batches() -> Iterator[None]:
    """Replace JAX's error for a batch that cannot be divided evenly among the devices by an `InputError`."""
    try:
        yield
    except ValueError as error:
        # JAX does not export this class.
        if type(error).__name__ != "IndivisibleError":
            raise
        count = num_replicas()
        raise InputError(
            f"x: the images of a batch cannot be divided evenly among {count} devices; make the size of every batch, "
            f"also of the last one, a multiple of {count}"
        ) from None


def check_replicas() -> None:
    """Reject strategies that this package or the backend does not support: only JAX trains on several devices.

    Raises:
        InputError: The current `tf.distribute` strategy has several replicas, whose gradients would be added instead of
            averaged; or `keras.distribution` is set, which the backend ignores.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        if strategy.num_replicas_in_sync > 1:
            raise InputError(
                f"strategy = {type(strategy).__name__}: a VAE trains on one replica, not on "
                f"{strategy.num_replicas_in_sync}; leave the scope of the strategy, or use keras.distribution with "
                "KERAS_BACKEND=jax"
            )
    distribution = keras.distribution.distribution()
    if distribution is not None and name() != "jax":
        raise InputError(
            f"distribution = {type(distribution).__name__}: ignored by Keras on {name()}; use KERAS_BACKEND=jax, or "
            "call keras.distribution.set_distribution(None)"
        )

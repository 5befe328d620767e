"""Training on accelerators: the images stay on the device, and one call runs several steps.

An accelerator may finish a step of a small model before the host has prepared the next one. The images are therefore
copied to the device once, as uint8, and gathered there; with JAX and TensorFlow, a compiled loop runs the steps.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_vae.core.backend import hardware
from keras_vae.core.backend.pipelines import batch_pipeline

STEPS_PER_CALL = 16
"""Number of training steps per call if no callback needs single steps. A signal stops training after a call."""

MEMORY_SHARE = 0.25
"""Images stay on the device if they take at most this share of its memory."""


@contextlib.contextmanager
def training_input(model: Any, batches: Any, *, every_step: bool) -> Iterator[Any]:
    """Prepare a model for training on the hardware, and yield the input of `fit`. The model is restored at the end.

    On a CPU, and with `keras.distribution`, this is `batch_pipeline(batches)`. On an accelerator, the images are kept
    on the device with JAX and PyTorch if they fit (`MEMORY_SHARE`), and a call runs `STEPS_PER_CALL` steps with JAX, if
    the images are on the device, and with TensorFlow. The same steps run in the same order. With JAX, they differ from
    Keras's by rounding, because XLA compiles a step in a loop differently, but not with the number of steps per call.

    Args:
        model: The compiled model.
        batches: `ShuffledBatches`.
        every_step: Whether a callback must be called after every step, so that a call runs one step.
    """
    steps = 1 if every_step else STEPS_PER_CALL
    if not hardware.is_accelerator() or keras.distribution.distribution() is not None:
        yield batch_pipeline(batches)
    elif hardware.name() == "tensorflow":
        with _steps_per_call(model, steps):
            yield batch_pipeline(batches)
    elif not _fits_on_device(batches):
        yield batch_pipeline(batches)
    elif hardware.name() == "jax":
        with _steps_per_call(model, steps):
            model.train_function = _JAXSteps(model, batches, steps)
            yield batches
    else:
        yield _TorchBatches(batches)


@contextlib.contextmanager
def _steps_per_call(model: Any, steps: int) -> Iterator[None]:
    """Set `steps_per_execution` of a compiled model until the context ends."""
    before, model.steps_per_execution = model.steps_per_execution, steps
    model.train_function = model.test_function = None
    try:
        yield
    finally:
        model.steps_per_execution = before
        model.train_function = model.test_function = None


def _fits_on_device(batches: Any) -> bool:
    """Return whether the images are in memory, and take at most `MEMORY_SHARE` of the memory of the device.

    The rule does not depend on the free memory, so that a resumed training runs the same program.
    """
    arrays = keras.tree.flatten(getattr(batches, "images", None))
    in_memory = all(type(array) is np.ndarray for array in arrays)
    return in_memory and sum(array.nbytes for array in arrays) <= MEMORY_SHARE * _device_bytes()


def _device_bytes() -> int:
    """Return the memory of the device that the backend may use; 0 if it is unknown."""
    if hardware.name() == "jax":
        import jax

        return int((jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0))
    import torch

    return int(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else 0


class _JAXSteps:
    """Replaces the `train_function` of Keras on JAX: runs several training steps in one compiled loop.

    Keras's `steps_per_execution` on JAX is a loop of Python. The number of steps of the compiled loop is an argument.
    One program therefore serves the whole epoch, except for a smaller last batch, and callbacks that need every step do
    not change the result.

    Args:
        model: The compiled model.
        batches: `ShuffledBatches`, whose images and order are copied to the device.
        steps: Steps per call.
    """

    def __init__(self, model: Any, batches: Any, steps: int) -> None:
        import jax

        self.count, self.size, self.steps = batches.count, batches.batch_size, steps
        self.images = jax.tree.map(jax.device_put, batches.images)
        self._run = jax.jit(self._loop, donate_argnums=0, static_argnames="size")
        self._train_step = model.train_step
        batches.follow = self._start_epoch
        self._start_epoch(batches.order)

    def __call__(self, state: Any, iterator: Any) -> tuple[Any, Any]:
        """Run the next steps of the epoch, and return the logs of the last one and the state of the model."""
        full, logs = self.count // self.size, None
        steps = min(self.steps, full - self.step)
        if steps:
            logs, state = self._run(state, self.images, self.order, self.step * self.size, steps, size=self.size)
        rest = self.count - full * self.size
        if rest and self.step + self.steps > full:
            logs, state = self._run(state, self.images, self.order, full * self.size, 1, size=rest)
        self.step += self.steps
        return logs, state

    def _start_epoch(self, order: Any) -> None:
        import jax

        self.order, self.step = jax.device_put(order.astype("int32")), 0

    def _loop(self, state: Any, images: Any, order: Any, start: Any, steps: Any, *, size: int) -> tuple[Any, Any]:
        """Run a number of steps on batches of `size` images, from a position in the order."""
        import jax

        def batch(index: Any) -> tuple[Any]:
            rows = jax.lax.dynamic_slice_in_dim(order, start + index * size, size)
            return (jax.tree.map(lambda array: array[rows], images),)

        def step(index: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            return self._train_step(carry[1], batch(index))

        shapes, _ = jax.eval_shape(self._train_step, state, jax.eval_shape(batch, 0))
        logs = jax.tree.map(lambda value: jax.numpy.zeros(value.shape, value.dtype), shapes)
        return jax.lax.fori_loop(0, steps, step, (logs, state))


class _TorchBatches(keras.utils.PyDataset):
    """Batches of PyTorch that are gathered on the device.

    Args:
        batches: `ShuffledBatches`, whose images and order are copied to the device.
    """

    def __init__(self, batches: Any) -> None:
        super().__init__()
        self.size, self.num_steps = batches.batch_size, len(batches)
        self.images = keras.tree.map_structure(keras.ops.convert_to_tensor, batches.images)
        batches.follow = self._start_epoch
        self._start_epoch(batches.order)

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.num_steps

    def __getitem__(self, index: int) -> tuple[Any]:
        """Return the batch at `index`."""
        rows = self.order[index * self.size : (index + 1) * self.size]
        return (keras.tree.map_structure(lambda tensor: tensor[rows], self.images),)

    def _start_epoch(self, order: Any) -> None:
        self.order = keras.ops.convert_to_tensor(order)

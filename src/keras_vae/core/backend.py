"""The one place that knows which backend runs."""

import contextlib
import importlib.metadata
import itertools
import os
import platform
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

_NATIVE_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})


def name() -> str:
    """Return `tensorflow`, `jax` or `torch`."""
    return str(keras.backend.backend())


def devices() -> list[str]:
    """Return the devices that the backend computes on, as it names them."""
    if name() == "tensorflow":
        import tensorflow as tf

        return [device.name for device in tf.config.get_visible_devices()]
    if name() == "jax":
        import jax

        return [str(device) for device in jax.devices()]
    import torch

    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return accelerators or [f"cpu ({platform.machine()})"]


def describe_software() -> dict[str, Any]:
    """Return what computes: the versions that matter, the backend, its devices and the platform."""
    versions = {"python": platform.python_version()}
    for package in ("keras-vae", "keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    machine = f"{platform.system()} {platform.machine()}"
    return {"versions": versions, "backend": name(), "devices": devices(), "platform": machine}


def xla_slows_convolutions() -> bool:
    """Return whether the model runs faster without XLA: on a CPU under TensorFlow, by a factor of about two."""
    return _is_tensorflow_on_a_cpu()


def _is_tensorflow_on_a_cpu() -> bool:
    if name() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.get_visible_devices("GPU")


def xla_runs_convolutions_slowly() -> bool:
    """Return whether a convolution costs more than the same arithmetic as a matrix product: under JAX on a CPU."""
    if name() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"


def runs_thin_convolutions_slowly() -> bool:
    """Return whether a convolution into few channels costs more than the same as a matrix product: on a CPU.

    PyTorch's is not: its product form has not been measured.
    """
    return xla_slows_convolutions() or xla_runs_convolutions_slowly()


def may_have_wrong_gradient(layer: Any) -> bool:
    """Return whether a layer's kernel may get a wrong gradient: oneDNN's in TensorFlow 2.21, of 1×1 strided kernels.

    Of all sizes tried up to 4×4 kernels, strides of 3 and 32 channels, it is those over four channels or fewer.
    """
    if not isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
        return False
    skips = layer.kernel_size == (1, 1) and max(layer.strides) > 1 and layer.kernel.shape[-2] <= 4
    return skips and xla_slows_convolutions() and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def preferred_precision() -> Literal["float32", "mixed_bfloat16"]:
    """Return what `precision = "auto"` stands for here: bfloat16 where the hardware multiplies it natively.

    Elsewhere it is emulated, at a loss. Under JAX that hardware is an accelerator: XLA's own products on a CPU with
    bfloat16 have not been measured.
    """
    return "mixed_bfloat16" if _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    if name() == "jax":
        import jax

        return jax.default_backend() in ("gpu", "tpu")
    if name() == "torch":
        import torch

        if torch.cuda.is_available():
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not _NATIVE_BFLOAT16.isdisjoint(_processor_flags())


def _processor_flags() -> set[str]:
    """Return what Linux says that the processor can do; elsewhere nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def trains_on_single_images() -> bool:
    """Return whether a batch may be one image: PyTorch's convolutions on a CPU fail in its gradient."""
    if name() != "torch":
        return True
    import torch

    return torch.cuda.is_available()


def calls_at_once() -> int:
    """Return in how many threads to run a model at a time, for one to compute while another draws or waits.

    Under TensorFlow on a CPU it gains a twentieth. Under JAX a model that runs keeps its state in itself, so that it
    is one. PyTorch and accelerators have not been measured.
    """
    return 3 if _is_tensorflow_on_a_cpu() else 1


def feed(batches: Any) -> Any:
    """Return what `fit` is fed with: the batches themselves, or on TensorFlow a `tf.data` pipeline of the same.

    A pipeline that calls back into Python, as Keras makes one of a `PyDataset`, has dense models take twice the time
    a step on a CPU, and not through its own work: it was measured with one batch repeated as well.

    Args:
        batches: `ShuffledBatches`; told through its `follow` where to put the order of an epoch.
    """
    if name() != "tensorflow":
        return batches
    import tensorflow as tf

    size = batches.batch_size
    with tf.device("CPU"):
        order = tf.Variable(batches.order, trainable=False)
    batches.follow = order.assign
    indices = tf.data.Dataset.range(len(batches)).map(lambda index: order[index * size : (index + 1) * size])
    return _gathered(batches.images, indices)


def feed_arrays(arrays: Any, batch_size: int | None, shuffle: bool = False) -> tuple[Any, bool]:
    """Return what Keras is fed with instead of aligned arrays, and whether it has to shuffle that itself.

    On TensorFlow a `tf.data` pipeline of batches, in a new order each time where they are shuffled: the one that Keras
    would make is tuned, see `_gathered`.

    Args:
        arrays: A NumPy array or a dict of them; what is neither stays what it is.
        batch_size: Rows a batch, the last one may hold fewer; None for 32, as Keras has it.
        shuffle: Whether they are shuffled.
    """
    flat = list(arrays.values()) if isinstance(arrays, dict) else [arrays]
    are_arrays = all(isinstance(array, np.ndarray) for array in flat)
    # Arrays that are not aligned are for Keras to refuse.
    if name() != "tensorflow" or not are_arrays or len({len(array) for array in flat}) != 1:
        return arrays, shuffle
    import tensorflow as tf

    indices = tf.data.Dataset.range(len(flat[0]))
    if shuffle:
        indices = indices.shuffle(len(flat[0]))
    return _gathered(arrays, indices.batch(batch_size or 32)), False


def _gathered(arrays: Any, indices: Any) -> Any:
    """Return a pipeline of the rows of arrays that each element of another one names.

    Nothing tunes it: a pipeline that is tuned may not end before its tuner wakes, after 10·2ᵏ milliseconds, so that an
    epoch takes up to twice its time.
    """
    import tensorflow as tf

    with tf.device("CPU"):
        tensors = tf.nest.map_structure(tf.constant, arrays)
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    batches = indices.map(lambda chosen: (tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), tensors),))
    return batches.prefetch(2).with_options(untuned)


def make_deterministic() -> None:
    """Make equal programs compute equal bits on this machine.

    On a CPU, JAX and PyTorch do by themselves, and PyTorch's switch would choose convolutions that fail on some shapes.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def is_concrete(tensor: Any) -> bool:
    """Return whether a tensor of this backend holds values, rather than standing for them while a graph is traced."""
    if name() == "tensorflow":
        import tensorflow as tf

        return isinstance(tensor, tf.Tensor) and tf.executing_eagerly() and not tf.is_symbolic_tensor(tensor)
    if name() == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    return bool(tensor.device.type != "meta")


def peek(batches: Any, count: int = 1) -> tuple[Any, Any]:
    """Return the first batch that a Keras step function is about to take, and what to pass to it for its next call.

    A `tf.data` iterator is replaced by one of the same element type, so that TensorFlow does not trace the step again.

    Args:
        batches: What Keras passes to `train_function`, `test_function` or `predict_function`.
        count: Batches per call, `steps_per_execution`.

    Raises:
        StopIteration: There are no batches.
    """
    if isinstance(batches, list | tuple):
        return batches[0], batches
    first = next(batches)
    joined = itertools.chain([first], batches)
    if name() != "tensorflow":
        return first, joined
    import tensorflow as tf

    values = keras.tree.map_structure(
        lambda value: None if isinstance(value, tf.experimental.Optional) else value, first
    )
    if not isinstance(batches, tf.data.Iterator):
        return values, joined
    some = tf.data.Dataset.from_generator(
        lambda: itertools.islice(joined, count), output_signature=batches.element_spec
    )
    return values, iter(some)

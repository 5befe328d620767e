"""Functions that depend on the backend of Keras."""

import contextlib
import contextvars
import importlib.metadata
import itertools
import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_vae.core.errors import InputError

_NATIVE_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})

_EXPECTS_TRACING: contextvars.ContextVar[bool] = contextvars.ContextVar("expects_tracing", default=False)


def name() -> str:
    """Return the name of the backend: `tensorflow`, `jax` or `torch`."""
    return str(keras.backend.backend())


def devices() -> list[str]:
    """Return the names of the devices that the backend computes on."""
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
    """Return the versions of the relevant packages, the backend, its devices and the platform."""
    versions = {"python": platform.python_version()}
    for package in ("keras-vae", "keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    machine = f"{platform.system()} {platform.machine()}"
    return {"versions": versions, "backend": name(), "devices": devices(), "platform": machine}


def runs_faster_without_xla() -> bool:
    """Return whether models run faster without XLA: with TensorFlow on a CPU, by a factor of about two."""
    if name() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.get_visible_devices("GPU")


def prefers_matmul_to_convolution() -> bool:
    """Return whether a convolution is slower than the equivalent matrix product: with JAX on a CPU."""
    if name() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"


def prefers_matmul_for_few_filters() -> bool:
    """Return whether a convolution with few filters is slower than the equivalent matrix product: on a CPU.

    This is False for PyTorch, for which the matrix product has not been measured.
    """
    return runs_faster_without_xla() or prefers_matmul_to_convolution()


def warn_of_wrong_gradients(layers: Iterable[Any]) -> None:
    """Warn of the layers of a model whose gradients TensorFlow may compute incorrectly.

    Args:
        layers: Built layers of any kind.
    """
    for layer in filter(_may_have_wrong_gradient, layers):
        warnings.warn(
            f"{layer.name}: TensorFlow's oneDNN may compute a wrong gradient for its 1×1 kernel with strides "
            f"{layer.strides} and {layer.kernel.shape[-2]} channels; set TF_ENABLE_ONEDNN_OPTS=0, or use a larger "
            "kernel",
            stacklevel=3,
        )


def _may_have_wrong_gradient(layer: Any) -> bool:
    """Return whether the gradient of a layer's kernel may be wrong: a defect of oneDNN in TensorFlow 2.21.

    Among kernels up to 4×4, strides up to 3 and up to 32 channels, it affects strided 1×1 kernels over at most four
    channels.

    Args:
        layer: Any layer.
    """
    if not isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
        return False
    skips_pixels = layer.kernel_size == (1, 1) and max(layer.strides) > 1 and layer.kernel.shape[-2] <= 4
    return skips_pixels and runs_faster_without_xla() and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def preferred_precision() -> Literal["float32", "mixed_bfloat16"]:
    """Return the precision that `"auto"` selects: bfloat16 if the hardware multiplies it natively, else float32.

    Emulated bfloat16 is slower than float32. With JAX, only accelerators count as native, because XLA has not been
    measured on CPUs with bfloat16.
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
    """Return the feature flags of the processor as reported by Linux; an empty set on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def supports_batches_of_one() -> bool:
    """Return whether training works with one image per batch: with PyTorch on a CPU, gradients of convolutions fail."""
    if name() != "torch":
        return True
    import torch

    return torch.cuda.is_available()


def num_inference_threads() -> int:
    """Return the number of threads that should call a model concurrently, so that one computes while another waits.

    Three threads gain 5% with TensorFlow on a CPU. JAX needs one thread, because a running model holds its state.
    PyTorch and accelerators have not been measured.
    """
    return 3 if runs_faster_without_xla() else 1


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


@contextlib.contextmanager
def expected_tracing() -> Iterator[None]:
    """Silence TensorFlow's warning of frequent tracing, within a block that traces a bounded number of graphs.

    Keras's steps are traced at most twice per model and form of inputs, the second time for any number of images. But
    TensorFlow counts the traces of all models together.
    """
    logging.getLogger("tensorflow").addFilter(_is_unexpected)
    token = _EXPECTS_TRACING.set(True)
    try:
        yield
    finally:
        _EXPECTS_TRACING.reset(token)


def predict_on_batch(network: keras.Model, inputs: Any) -> Any:
    """Return the outputs of a network for a batch, without TensorFlow's warning of frequent tracing."""
    with expected_tracing():
        return network.predict_on_batch(inputs)


def _is_unexpected(record: logging.LogRecord) -> bool:
    return not (_EXPECTS_TRACING.get() and "triggered tf.function retracing" in record.getMessage())


def batch_pipeline(batches: Any) -> Any:
    """Return the input of `fit`: the batches themselves, or, with TensorFlow, an equivalent `tf.data` pipeline.

    Keras turns a `PyDataset` into a pipeline that calls Python, which doubles the time per step of dense models on a
    CPU, even if one batch is repeated.

    Args:
        batches: `ShuffledBatches`. Its attribute `follow` is set to a function that is called with the order of each
            epoch.
    """
    if name() != "tensorflow":
        return batches
    import tensorflow as tf

    size = batches.batch_size
    with tf.device("CPU"):
        order = tf.Variable(batches.order, trainable=False)
    batches.follow = order.assign
    indices = tf.data.Dataset.range(len(batches)).map(lambda index: order[index * size : (index + 1) * size])
    return _gather_rows(batches.images, indices)


def array_pipeline(arrays: Any, batch_size: int | None, shuffle: bool = False) -> tuple[Any, bool]:
    """Return an input pipeline for arrays of equal length, and whether Keras must still shuffle it.

    With TensorFlow, this is a `tf.data` pipeline of batches, which are reshuffled in every epoch if requested. It
    replaces the pipeline of Keras, which is autotuned; see `_gather_rows`.

    Args:
        arrays: A NumPy array or a dict of arrays; anything else is returned unchanged.
        batch_size: Rows per batch; the last batch may be smaller. None means 32, as in Keras.
        shuffle: Whether to shuffle the rows.
    """
    flat = list(arrays.values()) if isinstance(arrays, dict) else [arrays]
    are_arrays = all(isinstance(array, np.ndarray) for array in flat)
    # Keras raises an error for arrays of different lengths.
    if name() != "tensorflow" or not are_arrays or len({len(array) for array in flat}) != 1:
        return arrays, shuffle
    import tensorflow as tf

    indices = tf.data.Dataset.range(len(flat[0]))
    if shuffle:
        indices = indices.shuffle(len(flat[0]))
    return _gather_rows(arrays, indices.batch(batch_size or 32)), False


def _gather_rows(arrays: Any, indices: Any) -> Any:
    """Return a pipeline of the rows of arrays at the positions in a pipeline of indices.

    Autotuning is off: at its end, a tuned pipeline waits for its tuner, which wakes up after 10·2ᵏ milliseconds. This
    can double the duration of an epoch.
    """
    import tensorflow as tf

    with tf.device("CPU"):
        tensors = tf.nest.map_structure(tf.constant, arrays)
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = indices.map(lambda rows: (tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors),))
    return batches.prefetch(2).with_options(options)


def enable_determinism() -> None:
    """Make repeated runs of a program on this machine compute bitwise equal results.

    On a CPU, JAX and PyTorch are deterministic by default. PyTorch's own switch is not used, because it selects
    convolutions that fail for some shapes.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def value_and_gradient(
    function: Callable[[Any, Mapping[str, Any]], Any], variables: Sequence[Any]
) -> Callable[[Any, Mapping[str, Any]], tuple[Any, Any]]:
    """Return a compiled function that computes the values of a function, and the gradient of their sum.

    It is compiled once per shape of the arguments, and on TensorFlow once for all shapes. Later changes of the
    variables take effect.

    Args:
        function: Maps a tensor x and a dict of further tensors to a tensor of values.
        variables: The Keras variables that the function reads.

    Returns:
        A function of NumPy arrays (x, dict) that returns two tensors: the values, and the gradient with respect to x.

    Example:
        >>> square = value_and_gradient(lambda x, inputs: inputs["factor"] * x**2, [])
        >>> values, gradient = square(np.float32([3.0]), {"factor": np.float32(2.0)})
        >>> float(values[0]), float(gradient[0])
        (18.0, 12.0)
    """
    backends = {
        "tensorflow": _value_and_gradient_tensorflow,
        "jax": _value_and_gradient_jax,
        "torch": _value_and_gradient_torch,
    }
    return backends[name()](function, variables)


def _value_and_gradient_tensorflow(function: Any, variables: Sequence[Any]) -> Any:
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def compute(x: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            values = function(x, inputs)
        return values, tape.gradient(values, x)

    # A NumPy array would be a constant of the graph in some versions, so that each array would trace it again.
    return lambda x, inputs: compute(*tf.nest.map_structure(tf.convert_to_tensor, (x, dict(inputs))))


def _value_and_gradient_jax(function: Any, variables: Sequence[Any]) -> Any:
    import jax

    def total(x: Any, inputs: Mapping[str, Any], state: Sequence[Any]) -> tuple[Any, Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, state, strict=True))):
            values = function(x, inputs)
        return values.sum(), values

    compiled = jax.jit(jax.value_and_grad(total, has_aux=True))

    def compute(x: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        (_, values), gradient = compiled(x, dict(inputs), [variable.value for variable in variables])
        return values, gradient

    return compute


def _value_and_gradient_torch(function: Any, variables: Sequence[Any]) -> Any:
    import torch

    def compute(x: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        tensors = {key: keras.ops.convert_to_tensor(value) for key, value in inputs.items()}
        with torch.enable_grad():
            x = keras.ops.convert_to_tensor(x).detach().requires_grad_()
            values = function(x, tensors)
            (gradient,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), gradient

    return compute


def is_concrete(tensor: Any) -> bool:
    """Return whether a tensor of this backend holds values, instead of being a placeholder in a traced graph."""
    if name() == "tensorflow":
        import tensorflow as tf

        return isinstance(tensor, tf.Tensor) and tf.executing_eagerly() and not tf.is_symbolic_tensor(tensor)
    if name() == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    return bool(tensor.device.type != "meta")


def peek(batches: Any, count: int = 1) -> tuple[Any, Any]:
    """Return the first of the batches of a Keras step function, and an equivalent argument for its next call.

    A `tf.data` iterator is replaced by one of the same element type, so that TensorFlow does not trace the step again.

    Args:
        batches: The argument that Keras passes to `train_function`, `test_function` or `predict_function`.
        count: Number of batches per call, `steps_per_execution`.

    Raises:
        StopIteration: There are no batches.
    """
    if isinstance(batches, list | tuple):
        return batches[0], batches
    first = next(batches)
    all_batches = itertools.chain([first], batches)
    if name() != "tensorflow":
        return first, all_batches
    import tensorflow as tf

    values = keras.tree.map_structure(
        lambda value: None if isinstance(value, tf.experimental.Optional) else value, first
    )
    if not isinstance(batches, tf.data.Iterator):
        return values, all_batches
    next_call = tf.data.Dataset.from_generator(
        lambda: itertools.islice(all_batches, count), output_signature=batches.element_spec
    )
    return values, iter(next_call)

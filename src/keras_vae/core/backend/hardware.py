"""The backend, its devices, and what runs fast on them."""

import contextlib
import importlib.metadata
import os
import platform
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import keras

_NATIVE_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})


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


def is_accelerator() -> bool:
    """Return whether the backend computes on a GPU or a TPU."""
    if name() == "tensorflow":
        import tensorflow as tf

        return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())
    if name() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import torch

    return torch.cuda.is_available()


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


def enable_determinism() -> None:
    """Make repeated runs of a program on this machine compute bitwise equal results.

    On a CPU, JAX and PyTorch are deterministic by default. PyTorch's own switch is not used there, because it selects
    convolutions that fail for some shapes. On a GPU, it is used unless the user has used it; a warning names each
    operation that remains nondeterministic. `core/startup.py` sets XLA's flag for JAX, which reads it once.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if name() == "torch" and is_accelerator():
        import torch

        # cuBLAS reads the size of its workspace when it starts; only fixed sizes make its products deterministic.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        if not torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(True, warn_only=True)

"""The one place that knows which backend runs."""

import platform

import keras


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


def xla_slows_convolutions() -> bool:
    """Return whether the model runs faster without XLA: on a CPU under TensorFlow, by a factor of about two."""
    if name() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.get_visible_devices("GPU")


def trains_on_single_images() -> bool:
    """Return whether a batch may be one image: PyTorch's convolutions on a CPU fail in its gradient."""
    if name() != "torch":
        return True
    import torch

    return torch.cuda.is_available()


def make_deterministic() -> None:
    """Make equal programs compute equal bits on this machine.

    On a CPU, JAX and PyTorch do by themselves, and PyTorch's switch would choose convolutions that fail on some shapes.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()

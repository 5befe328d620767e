"""Experiment tracking with TensorBoard, Weights & Biases and MLflow."""

import lazy_loader

from keras_vae.core.errors import require_packages

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

TRACKERS = {"tensorboard": "TensorBoard", "wandb": "WandB", "mlflow": "MLflow"}
"""The classes of this package by the names of the packages that they need, which are also names of extras."""


def check_installed(name: str) -> None:
    """Check that the package of a tracker is installed, without importing it.

    Args:
        name: A key of `TRACKERS`.

    Raises:
        InputError: The package is missing.
    """
    require_packages(f"tracker = {name}", [name], name)

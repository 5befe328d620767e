"""Variational autoencoders for Keras 3: train, evaluate, explore and export them on TensorFlow, JAX and PyTorch.

`__init__.pyi` lists the public names. They are imported on first use, because Keras and its backend take seconds to
load and `vae --help` should be instant.
"""

import importlib
import sys

import lazy_loader

from keras_vae._version import __version__
from keras_vae.core import startup

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

startup.prepare()

# Register the classes of this package with Keras, so that `keras.saving.load_model` finds them.
if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.models.registration")

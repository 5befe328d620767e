"""Variational autoencoders for Keras 3: train, measure, explore and ship them, on TensorFlow, JAX and PyTorch.

`__init__.pyi` lists the public names. They are imported when they are first used, because Keras and its backend take
seconds to load and `vae --help` must not.
"""

import importlib
import sys

import lazy_loader

from keras_vae._version import __version__
from keras_vae.core import startup

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

startup.prepare()

# `keras.saving.load_model` finds the classes of this package among those registered, which importing them does.
if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.models.registration")

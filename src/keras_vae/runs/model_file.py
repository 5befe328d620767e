"""Models from `.keras` files, without executing code of the file."""

import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.core.errors import InputError, first_line

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def read_model(file: Path) -> "BaseVAE":
    """Load a model from a `.keras` file.

    Args:
        file: The file.

    Raises:
        InputError: The file is damaged, contains code, or does not contain a VAE.
    """
    import keras

    from keras_vae.models.registration import BaseVAE

    if not zipfile.is_zipfile(file):
        raise InputError(f"{file}: cannot be read: not a .keras archive")
    try:
        with warnings.catch_warnings():
            # A file written under JAX asks for XLA, which TensorFlow does not use on a CPU.
            warnings.filterwarnings("ignore", "Model doesn't support `jit_compile=True`")
            model = keras.saving.load_model(file, safe_mode=True)
    except (ValueError, TypeError) as error:
        text = str(error)
        if "unsafe" in text or "safe_mode" in text or "lambda" in text.lower():
            raise InputError(
                f"{file}: asks to run code when it is loaded; if you trust it, use keras.saving.load_model"
            ) from None
        raise InputError(f"{file}: cannot be loaded: {first_line(error)}") from None
    except Exception as error:
        # A damaged archive can raise anything.
        raise InputError(f"{file}: cannot be read: {first_line(error)}") from None
    if not isinstance(model, BaseVAE):
        raise InputError(f"{file}: holds a {type(model).__name__}, not a VAE")
    return model

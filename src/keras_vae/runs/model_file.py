"""Loading of models from `.keras` files without executing code from them."""

import hashlib
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_vae.core.errors import InputError, first_line

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def read_model(file: Path) -> "BaseVAE":
    """Load a model from a `.keras` file.

    Args:
        file: The file.

    Returns:
        The model.

    Raises:
        InputError: The file is damaged, contains code, or does not contain a VAE.
    """
    import keras

    from keras_vae.models.registration import BaseVAE

    if not zipfile.is_zipfile(file):
        raise InputError(f"{file}: not a .keras archive; pass a file that this package or `keras.Model.save` wrote")
    try:
        with warnings.catch_warnings():
            # A file written under JAX enables XLA, which this package does not use with TensorFlow on a CPU.
            warnings.filterwarnings("ignore", "Model doesn't support `jit_compile=True`")
            model = keras.saving.load_model(file, safe_mode=True)
    except (ValueError, TypeError) as error:
        text = str(error)
        if "unsafe" in text or "safe_mode" in text or "lambda" in text.lower():
            raise InputError(
                f"{file}: contains code; if you trust it, use keras.saving.load_model(file, safe_mode=False)"
            ) from None
        raise InputError(f"{file}: cannot be read: {first_line(error)}") from None
    except Exception as error:
        # A damaged archive can raise any exception.
        raise InputError(f"{file}: cannot be read: {first_line(error)}") from None
    if not isinstance(model, BaseVAE):
        raise InputError(f"{file}: contains a {type(model).__name__}, not a VAE; pass a model of this package")
    damaged = [weight.path for weight in model.weights if not np.isfinite(keras.ops.convert_to_numpy(weight)).all()]
    if damaged:
        others = f" and {len(damaged) - 1} others" if len(damaged) > 1 else ""
        raise InputError(
            f"{file}: NaN or infinite weights ({damaged[0]}{others}); train the model again, or restore the file"
        )
    return model


def weights_checksum(file: Path) -> str:
    """Return the SHA-256 checksum of the weights in a `.keras` file."""
    # The rest of the archive differs each time: Keras writes the time of saving and addresses in memory.
    with zipfile.ZipFile(file) as archive:
        return hashlib.sha256(archive.read("model.weights.h5")).hexdigest()

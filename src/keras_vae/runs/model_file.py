"""Loading of models from `.keras` files without executing code from them."""

import hashlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_vae.core.archives import check_size, check_zip
from keras_vae.core.errors import InputError, first_line
from keras_vae.core.files import reading

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


_WEIGHTS = "model.weights.h5"
"""The member of a `.keras` archive that contains the weights."""


def read_model(file: Path) -> "BaseVAE":
    """Load a model from a `.keras` file.

    Args:
        file: The file.

    Returns:
        The model.

    Raises:
        InputError: The file is damaged, contains code, NaN or infinite weights, or does not contain a VAE.
    """
    import keras

    from keras_vae.models.registration import BaseVAE

    _check(file)
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
    require_finite(model, file)
    return model


def require_finite(model: "BaseVAE", file: Path) -> None:
    """Reject a model with weights that are NaN or infinite.

    Args:
        model: The model.
        file: The file that it was loaded from, for messages.

    Raises:
        InputError: A weight is NaN or infinite.
    """
    from keras import ops

    for weight in model.weights:
        if not np.isfinite(ops.convert_to_numpy(weight)).all():
            raise InputError(f"{file}: the weight {weight.path} contains NaN or infinity; restore the file")


def weights_checksum(file: Path) -> str:
    """Return the SHA-256 checksum of the weights in a `.keras` file.

    Raises:
        InputError: The file is damaged.
    """
    check_zip(file)
    # The rest of the archive differs each time: Keras writes the time of saving and addresses in memory.
    with reading(file), zipfile.ZipFile(file) as archive, archive.open(_WEIGHTS) as weights:
        return hashlib.sha256(weights.read()).hexdigest()


def _check(file: Path) -> None:
    """Reject a file that is not a `.keras` archive, or whose weights would need far more memory than the file."""
    import h5py

    with reading(file):
        if not zipfile.is_zipfile(file):
            raise InputError("not a .keras archive; pass a file that this package or `keras.Model.save` wrote")
    check_zip(file)
    with reading(file), zipfile.ZipFile(file) as archive:
        if _WEIGHTS not in archive.namelist():
            raise InputError(f"{_WEIGHTS} is missing; restore the file")
        size = archive.getinfo(_WEIGHTS).file_size
        with archive.open(_WEIGHTS) as member, h5py.File(io.BytesIO(member.read()), "r") as weights:
            datasets: list[h5py.Dataset] = []
            weights.visititems(lambda _, node: datasets.append(node) if isinstance(node, h5py.Dataset) else None)
            if any(dataset.external for dataset in datasets):
                raise InputError("its weights are in other files; restore the file")
            check_size(sum(dataset.nbytes for dataset in datasets), size)

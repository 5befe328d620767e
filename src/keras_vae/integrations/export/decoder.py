"""The decoder of a model as one verified ONNX graph, for pages that decode codes themselves."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_vae.core.errors import RunError, first_line
from keras_vae.core.typing import Array
from keras_vae.integrations.export.formats.onnx import ONNX
from keras_vae.integrations.export.graphs import trace
from keras_vae.integrations.export.parity import FLOAT_TOLERANCE

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def onnx_decoder(model: "BaseVAE", codes: Array, images: Array, label: int | None = None) -> bytes:
    """Return the ONNX graph `decoder` of a model, verified on given codes.

    Args:
        model: A model in float32 that has been built.
        codes: Codes as vectors, (N, latent_dim).
        images: Their mean images, decoded by the model, (N, H, W, C).
        label: The class on which these images are conditioned; None for a model without a condition.

    Returns:
        The content of the file.

    Raises:
        RunError: The graph cannot be written, or its images differ from the given ones.
    """
    network = trace(model).networks["decoder"]
    inputs = {model.code_name: codes.reshape(-1, *model.latent_shape)}
    if label is not None:
        inputs["condition"] = np.full(len(codes), label, "int32")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "decoder.onnx"
        try:
            ONNX.write(network, file)
            decoded = ONNX.load(str(file))(**inputs)["mean_images"]
        # Converters and runtimes raise many kinds of errors.
        except Exception as error:
            raise RunError(f"decoder: cannot be written as ONNX: {first_line(error)}") from error
        difference = float(np.abs(decoded - images).max())
        if not difference <= FLOAT_TOLERANCE:
            raise RunError(
                f"decoder: mean_images differ from the model by {difference:.1e}, more than the tolerance "
                f"{FLOAT_TOLERANCE:g}; nothing was exported"
            )
        return file.read_bytes()

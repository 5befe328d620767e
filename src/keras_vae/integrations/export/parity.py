"""Verification that exported graphs compute the same results as the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array
from keras_vae.integrations.export.formats.base import Graph, InputDtype
from keras_vae.integrations.export.graphs import THRESHOLD, Graphs

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

FLOAT_TOLERANCE = 1e-4
"""Largest allowed difference of floats from those of the model."""

INTEGER_TOLERANCE = 1e-3
"""Largest allowed fraction of integers that differ, because two codes may be equally close to a vector."""

RECONSTRUCTION_TOLERANCE = 0.05
"""Largest allowed fraction of reconstructed images that differ, because they come from different integers."""

Differences = dict[str, dict[str, float]]
"""Largest difference of floats, or fraction of integers that differ, by graph and output."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images on which graphs are compared with the model.

    Args:
        images: (N, H, W, C), uint8.
        condition: One per image, for conditional models.
        source: Description of the images.
    """

    images: NDArray[np.uint8]
    condition: Array | None
    source: str


def compare(
    model: "BaseVAE",
    graphs: Graphs,
    loaded: Mapping[str, Graph],
    examples: Examples,
    input_dtype: InputDtype = "uint8",
) -> Differences:
    """Compare graphs, loaded in their own runtime, with the methods of the model.

    Args:
        model: The model, in float32.
        graphs: The traced graphs.
        loaded: The loaded graphs by name.
        examples: Images; each graph is called with all of them, and with the first one alone.
        input_dtype: The dtype of input images.

    Returns:
        The difference of each output of each graph.

    Raises:
        RunError: A difference exceeds the tolerance.
    """
    images, condition = examples.images, examples.condition
    conditions = {} if condition is None else {"condition": condition}
    encoder_images = images if input_dtype == "uint8" else (images / 255).astype("float32")
    # Random binarization leaves black and white pixels unchanged.
    binary = np.where(images > 255 * THRESHOLD, 255, 0).astype("uint8")
    observed = binary if model.likelihood.stochastic_binarization else images
    codes = loaded["encoder"](images=encoder_images, **conditions)[graphs.code_output]
    noise = np.random.default_rng(0).standard_normal((len(images), model.latent_dim), dtype="float32")

    # Decode the codes of the graph: those of the model may differ by rounding, and integers then select other vectors.
    references: dict[str, tuple[dict[str, Array], Callable[[], dict[str, Array]]]] = {
        "encoder": ({"images": encoder_images}, lambda: model.encode(observed, condition=condition).as_dict()),
        "decoder": ({model.code_name: codes}, lambda: {"mean_images": model.decode(codes, condition=condition)}),
        "reconstruct": (
            {"images": encoder_images},
            lambda: {"mean_images": model.decode(codes, condition=condition)},
        ),
        "sampler": ({"noise": noise}, lambda: {"mean_images": _sample(model, noise, condition)}),
    }
    differences: Differences = {}
    for name, graph in loaded.items():
        inputs, method = references[name]
        expected = method()
        differences[name] = {}
        for rows in (slice(None), slice(1)):
            outputs = graph(**{key: values[rows] for key, values in {**inputs, **conditions}.items()})
            for output, values in outputs.items():
                ignored = RECONSTRUCTION_TOLERANCE if name == "reconstruct" and codes.dtype.kind != "f" else 0.0
                difference = _difference(np.asarray(values), expected[output][rows], ignored)
                differences[name][output] = float(np.maximum(difference, differences[name].get(output, 0.0)))
        for output, difference in differences[name].items():
            limit = FLOAT_TOLERANCE if expected[output].dtype.kind == "f" else INTEGER_TOLERANCE
            if not difference <= limit:
                raise RunError(
                    f"{name}: {output} differs from the model by {difference:.1e} on {examples.source}, more than "
                    f"the tolerance {limit:g}; nothing was exported"
                )
    return differences


def _sample(model: "BaseVAE", noise: Array, condition: Array | None) -> Array:
    encoded = None if model.condition is None else model.condition.encode(ops.convert_to_tensor(condition))
    images: Array = ops.convert_to_numpy(model.generate_from_noise(ops.convert_to_tensor(noise), encoded))
    return images


def _difference(actual: Array, expected: Array, ignored_fraction: float) -> float:
    """Return the largest difference of floats, except for some images, or the fraction of integers that differ."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        return float(np.mean(actual != expected))
    per_image = np.sort(np.abs(np.subtract(actual, expected)).reshape(len(actual), -1).max(axis=1))
    return float(per_image[: len(per_image) - int(ignored_fraction * len(per_image))].max())

"""Whether exported graphs say what the model says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array
from keras_vae.integrations.export.graphs import THRESHOLD, Graphs, Pixels

if TYPE_CHECKING:
    from keras_vae.integrations.export.format import Graph
    from keras_vae.models.base import BaseVAE

TOLERANCE = 1e-4
"""The most by which a number may differ from the model's."""

SHARE = 1e-3
"""The largest share of whole numbers that may differ: a vector may lie as near to one code as to another."""

SPARED = 0.05
"""The share of images that `reconstruct` may have made from other whole numbers, for the same reason."""

Differences = dict[str, dict[str, float]]
"""Graph → output → the greatest difference, of whole numbers the share that differ."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What graphs and model are compared on.

    Args:
        images: (N, H, W, C), uint8.
        condition: One an image, where the model has one.
        source: What they are, in words.
    """

    images: NDArray[np.uint8]
    condition: Array | None
    source: str


def compare(
    model: "BaseVAE",
    graphs: Graphs,
    loaded: Mapping[str, "Graph"],
    examples: Examples,
    pixels: Pixels = "uint8",
) -> Differences:
    """Return how far graphs, each in its own runtime, are from the model's own verbs.

    Args:
        model: The model, in float32.
        graphs: What was traced of it.
        loaded: The same by name, as read back.
        examples: Images, which each graph gets at once, and the first of them alone.
        pixels: The dtype in which the graphs take images.

    Raises:
        RunError: Further than rounding explains.
    """
    images, condition = examples.images, examples.condition
    told = {} if condition is None else {"condition": condition}
    shown = images if pixels == "uint8" else (images / 255).astype("float32")
    # What is black or white already passes the likelihood's own draw as it is.
    white = np.where(images > 255 * THRESHOLD, 255, 0).astype("uint8")
    observed = white if model.likelihood.binarizes_at_random else images
    codes = loaded["encoder"](images=shown, **told)[graphs.code]
    noise = np.random.default_rng(0).standard_normal((len(images), model.latent_dim), dtype="float32")

    # Codes differ by rounding, and whole ones by whole vectors: what comes after them starts from the graph's.
    expected: dict[str, tuple[dict[str, Array], Callable[[], dict[str, Array]]]] = {
        "encoder": ({"images": shown}, lambda: model.encode(observed, condition=condition).as_dict()),
        "decoder": ({model.code_name: codes}, lambda: {"mean_images": model.decode(codes, condition=condition)}),
        "reconstruct": ({"images": shown}, lambda: {"mean_images": model.decode(codes, condition=condition)}),
        "sampler": ({"noise": noise}, lambda: {"mean_images": _sampled(model, noise, condition)}),
    }
    differences: Differences = {}
    for name, graph in loaded.items():
        inputs, verb = expected[name]
        wanted = verb()
        differences[name] = {}
        for rows in (slice(None), slice(1)):
            outputs = graph(**{key: values[rows] for key, values in {**inputs, **told}.items()})
            for output, values in outputs.items():
                spared = SPARED if name == "reconstruct" and codes.dtype.kind != "f" else 0.0
                difference = _difference(np.asarray(values), wanted[output][rows], spared)
                differences[name][output] = float(np.maximum(difference, differences[name].get(output, 0.0)))
        for output, difference in differences[name].items():
            limit = TOLERANCE if wanted[output].dtype.kind == "f" else SHARE
            if not difference <= limit:
                raise RunError(
                    f"{name}: {output} differs from the model's by {difference:.1e} on {examples.source}, more than "
                    f"{limit:g}: nothing was exported"
                )
    return differences


def _sampled(model: "BaseVAE", noise: Array, condition: Array | None) -> Array:
    told = None if model.condition is None else model.condition.encode(ops.convert_to_tensor(condition))
    images: Array = ops.convert_to_numpy(model.generate_from_noise(ops.convert_to_tensor(noise), told))
    return images


def _difference(got: Array, wanted: Array, spared: float) -> float:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return float("inf")
    if wanted.dtype.kind != "f":
        return float(np.mean(got != wanted))
    by_image = np.sort(np.abs(np.subtract(got, wanted)).reshape(len(got), -1).max(axis=1))
    return float(by_image[: len(by_image) - int(spared * len(by_image))].max())

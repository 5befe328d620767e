"""Verification that exported graphs compute the same results as the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset
from keras_vae.integrations.export.formats.base import Graph, InputDtype
from keras_vae.integrations.export.graphs import THRESHOLD, Graphs
from keras_vae.models.batching import in_batches
from keras_vae.models.inputs import dataset_condition

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

FLOAT_TOLERANCE = 1e-4
"""Largest allowed difference of floats from those of the model."""

INTEGER_TOLERANCE = 1e-3
"""Largest allowed fraction of integers that differ, because two codes may be equally close to a vector."""

SCORE_TOLERANCE = 1e-4
"""Largest allowed difference of scores as a fraction of the score, or in nats for scores below 1."""

RECONSTRUCTION_TOLERANCE = 0.05
"""Largest allowed fraction of reconstructed images or scores that differ, because they come from different integers."""

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

    @classmethod
    def from_dataset(cls, model: "BaseVAE", dataset: Dataset) -> Self:
        """Return the images of a data set, with their labels for a conditional model."""
        condition = dataset_condition(model, dataset)
        source = f"{dataset.name}, {dataset.split} split"
        return cls(dataset.images, None if condition is None else condition.astype("int32"), source)

    def inputs(self, input_dtype: InputDtype) -> dict[str, Array]:
        """Return the inputs of graphs of images, by name."""
        images = self.images if input_dtype == "uint8" else (self.images / 255).astype("float32")
        return {"images": images} | self.conditions

    @property
    def conditions(self) -> dict[str, Array]:
        """The input `condition`, if any, by name."""
        return {} if self.condition is None else {"condition": self.condition}


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
    images, condition, conditions = examples.images, examples.condition, examples.conditions
    inputs = examples.inputs(input_dtype)
    # Random binarization leaves black and white pixels unchanged.
    binary = np.where(images > 255 * THRESHOLD, 255, 0).astype("uint8")
    observed = binary if model.likelihood.stochastic_binarization else images
    codes = loaded["encoder"](**inputs)[graphs.code_output]
    noise = np.random.default_rng(0).standard_normal((len(images), *model.latent_shape), dtype="float32")

    def decode() -> dict[str, Array]:
        return {"mean_images": model.decode(codes, condition=condition)}

    # Decode the codes of the graph: those of the model may differ by rounding, and integers then select other vectors.
    references: dict[str, tuple[dict[str, Array], Callable[[], dict[str, Array]]]] = {
        "encoder": (inputs, lambda: model.encode(observed, condition=condition).as_dict()),
        "decoder": (
            {model.code_name: codes, **conditions},
            lambda: {"mean_images": model.decode(codes, condition=condition)},
        ),
        "reconstruct": (
            inputs,
            lambda: {"mean_images": model.decode(codes, condition=condition)},
        ),
        "sampler": ({"noise": noise, **conditions}, lambda: {"mean_images": _sample(model, noise, condition)}),
        "score": (inputs, lambda: _score(model, observed, condition)),
    }
    differences: Differences = {}
    for name, graph in loaded.items():
        graph_inputs, method = references[name]
        expected = method()
        differences[name] = {}
        for rows in (slice(None), slice(1)):
            outputs = graph(**{key: values[rows] for key, values in graph_inputs.items()})
            for output, values in outputs.items():
                depends_on_ties = name in ("reconstruct", "score") and codes.dtype.kind != "f"
                ignored = RECONSTRUCTION_TOLERANCE if depends_on_ties else 0.0
                scale = np.maximum(1, np.abs(expected[output][rows])) if name == "score" else 1
                difference = _difference(np.asarray(values), expected[output][rows], ignored, scale)
                differences[name][output] = float(np.maximum(difference, differences[name].get(output, 0.0)))
        for output, difference in differences[name].items():
            limit = _limit(name, expected[output])
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


def _score(model: "BaseVAE", images: Array, condition: Array | None) -> dict[str, Array]:
    """Return the loss terms of images at the code of zero noise."""
    inputs = {"images": images, "noise": np.zeros((len(images), 1, model.latent_dim), "float32")}
    inputs |= {} if condition is None else {"condition": condition}
    terms = in_batches(lambda batch: model.predict_on_batch(batch).terms, inputs, batch_size=model.fitting_batch_size())
    distortion, rate = -terms.log_likelihood[:, 0], terms.kl_per_group.sum(axis=-1)
    return {"score": distortion + rate, "reconstruction_loss": distortion, "kl_loss": rate}


def _limit(graph: str, expected: Array) -> float:
    if expected.dtype.kind != "f":
        return INTEGER_TOLERANCE
    return SCORE_TOLERANCE if graph == "score" else FLOAT_TOLERANCE


def _difference(actual: Array, expected: Array, ignored_fraction: float, scale: Array | float = 1) -> float:
    """Return the largest difference of floats, except for some images, or the fraction of integers that differ.

    Args:
        actual: Outputs of a graph.
        expected: Outputs of the model.
        ignored_fraction: Fraction of the images that may differ by any amount.
        scale: Divisor of each difference of floats.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        return float(np.mean(actual != expected))
    per_image = np.sort((np.abs(np.subtract(actual, expected)) / scale).reshape(len(actual), -1).max(axis=1))
    return float(per_image[: len(per_image) - int(ignored_fraction * len(per_image))].max())

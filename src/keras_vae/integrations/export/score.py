"""The `score` graph: a deterministic anomaly score of images, with its percentiles among training images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_vae.core.typing import Array, Tensor
from keras_vae.distributions.kl import has_closed_form
from keras_vae.integrations.export.formats.base import Graph, InputDtype
from keras_vae.integrations.export.graphs import THRESHOLD, symbolic_inputs
from keras_vae.integrations.export.parity import Examples
from keras_vae.models.batching import in_batches

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

LEVELS = (*map(float, range(100)), 99.5, 99.9, 100.0)
"""Percentages of the table of percentiles: every hundredth, and a finer end."""


class Reference(NamedTuple):
    """Training images whose scores define percentiles and the threshold.

    Args:
        images: The images.
        false_positive_rate: Fraction of the images whose score exceeds the threshold.
    """

    images: Examples
    false_positive_rate: float


class _Score(keras.layers.Layer):
    """Loss terms of images at the code of zero noise, in nats per image.

    Args:
        model: A built model, in float32.
    """

    def __init__(self, model: "BaseVAE") -> None:
        super().__init__(autocast=False, dtype="float32")
        # A closure, because Keras would export the signature of a model that it tracks.
        self._call = lambda inputs: model.call(inputs, training=False)
        self._latent_dim = model.latent_dim
        parts = model._flatten_layers(include_self=False, recursive=False)
        self.parts = [part for part in parts if part is not model.sampler]
        self.built = True

    def call(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        noise = ops.zeros((ops.shape(inputs["images"])[0], 1, self._latent_dim))
        terms = self._call({**inputs, "noise": noise, "pixel_noise": THRESHOLD}).terms
        reconstruction_loss, kl_loss = terms.reconstruction_loss, terms.kl_loss
        return {
            "score": reconstruction_loss + kl_loss,
            "reconstruction_loss": reconstruction_loss,
            "kl_loss": kl_loss,
        }


def score_graph(model: "BaseVAE", input_dtype: InputDtype = "uint8") -> keras.Model:
    r"""Return the graph from images to `score` = `reconstruction_loss` + `kl_loss`, in nats per image, each (N,).

    `reconstruction_loss` is \(-\log p(x|\mu)\), at the mean \(\mu\) of q(z|x). `kl_loss` is \(KL(q(z|x) \| p(z))\) in
    closed form or, for pairs without one, \(\log q(\mu|x) - \log p(\mu)\). The score equals `negative_elbo` except that
    the distortion is that of the mean code, not an average over codes, so it is not a bound on \(-\log p(x)\).

    Unlike the other graphs, it contains a layer of this package, so only formats that store operations can hold it.

    Args:
        model: A built model, in float32.
        input_dtype: The dtype of input images: `"uint8"`, levels 0…255, or `"float32"`, in [0, 1].
    """
    inputs = symbolic_inputs(model, input_dtype)
    return keras.Model(inputs, _Score(model)(inputs), name="score")


def describe_score(
    model: "BaseVAE", graph: Graph, examples: Examples, reference: Reference | str, input_dtype: InputDtype
) -> dict[str, Any]:
    """Return the definition of the score and, given reference images, its percentiles, means and threshold.

    Args:
        model: The model.
        graph: The loaded graph, whose scores are those of every later call.
        examples: Any images, from which the form of the KL divergence is determined.
        reference: Training images, or the reason why there are none.
        input_dtype: The dtype of input images.
    """
    definition = {
        "graph": "score",
        "output": "score",
        "unit": "nats per image",
        "definition": _definition(model, examples),
    }
    if isinstance(reference, str):
        return {**definition, "reference": None, "percentiles": None, "means": None, "threshold": None}
    inputs = reference.images.inputs(input_dtype)
    scores: dict[str, Array] = in_batches(
        lambda batch: {name: np.asarray(values) for name, values in graph(**batch).items()},
        inputs,
        batch_size=model.fitting_batch_size(),
    )
    values = {name: np.asarray(column, "float64") for name, column in scores.items()}
    rate = reference.false_positive_rate
    return {
        **definition,
        "reference": {"source": reference.images.source, "num_images": len(reference.images.images)},
        "percentiles": {
            "levels": list(LEVELS),
            **{name: np.percentile(column, LEVELS).tolist() for name, column in values.items()},
        },
        "means": {name: float(column.mean()) for name, column in values.items()},
        "threshold": {"false_positive_rate": rate, "value": float(np.quantile(values["score"], 1 - rate))},
    }


def _definition(model: "BaseVAE", examples: Examples) -> str:
    terms = "reconstruction_loss + kl_loss"
    if model.num_codes is not None:
        return f"{terms}: −log p(x|k) − log p(k) of the code indices k"
    if not model.is_stochastic:
        return f"{terms}: −log p(x|z) − log p(z) of the code z"
    if not model.has_latent_vector:
        return f"{terms}: −log p(x|z) + KL(q(z|x) ‖ p(z)), with each group of z at its mean given the groups above"
    if _has_closed_form(model, examples):
        return f"{terms}: −log p(x|z) at the mean z of q(z|x), plus KL(q(z|x) ‖ p(z)) in closed form"
    return f"{terms}: −log p(x|z) + log q(z|x) − log p(z) at the mean z of q(z|x); the KL has no closed form"


def _has_closed_form(model: Any, examples: Examples) -> bool:
    inputs: dict[str, Any] = {"images": examples.images[:1], "pixel_noise": np.float32(THRESHOLD)}
    if examples.condition is not None:
        inputs["condition"] = examples.condition[:1]
    return has_closed_form(*model.latent_distributions({**inputs, "features": model.encode_features(inputs)}))

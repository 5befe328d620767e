"""The manifest of an export: inputs, outputs, origin and verification of its graphs."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_vae.core import backend, registry
from keras_vae.core.typing import Tensor
from keras_vae.integrations.export.formats.base import Format
from keras_vae.integrations.export.graphs import THRESHOLD, Graphs
from keras_vae.integrations.export.parity import (
    FLOAT_TOLERANCE,
    INTEGER_TOLERANCE,
    RECONSTRUCTION_TOLERANCE,
    SCORE_TOLERANCE,
    Differences,
    Examples,
)

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

SCHEMA = 1
"""Version of the keys of the manifest."""

_MEANINGS = {
    "images": "pixels, rows × columns × channels",
    "z_mean": "means of q(z|x)",
    "z_log_var": "logarithms of the variances of q(z|x)",
    "z": "codes",
    "indices": "indices of code vectors, rows × columns, × quantizers if residual",
    "noise": "samples from N(0, I), drawn by the caller",
    "mean_images": "mean images of p(x|z), rows × columns × channels",
    "condition": "the condition, such as a label",
    "score": "anomaly score in nats, reconstruction_loss + kl_loss",
    "reconstruction_loss": "distortion −log p(x|z) in nats, at the mean of q(z|x)",
    "kl_loss": "divergence of q(z|x) from the prior in nats",
}


def manifest(
    model: "BaseVAE",
    graphs: Graphs,
    fmt: Format,
    files: Mapping[str, Path],
    differences: Differences,
    examples: Examples,
    origin: Mapping[str, Any],
    score: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the content of `manifest.json`.

    Args:
        model: The model.
        graphs: Its graphs.
        fmt: The format.
        files: File or folder of each graph.
        differences: Largest difference of each output from the model.
        examples: Images on which the differences were measured.
        origin: `name`, and for a run `model` and `data`.
        score: Definition of the score, with its percentiles and threshold; None without a score graph.
    """
    kinds = [kind for kind in model.part_names if kind not in ("encoder", "decoder", "objective", "image_losses")]
    ranges = _ranges(model)
    statistics = model.latent_statistics
    return {
        "schema": SCHEMA,
        "name": origin["name"],
        "format": fmt.name,
        "runtime": fmt.runtime,
        "graphs": {
            name: {
                "file": files[name].name,
                "sha256": _checksum(files[name]),
                "inputs": {key: _port(key, tensor, ranges) for key, tensor in network.input.items()},
                "outputs": {
                    key: {**_port(key, tensor, ranges), "max_difference": differences[name][key]}
                    for key, tensor in network.output.items()
                },
            }
            for name, network in graphs.networks.items()
        },
        "code_output": graphs.code_output,
        "omitted": graphs.omitted,
        "parity": _parity(examples),
        "model": {
            "class": type(model).__name__,
            "image_shape": list(model.image_shape),
            "latent_dim": model.latent_dim,
            "latent_shape": list(model.latent_shape),
            "latent_statistics": statistics and statistics._asdict(),
            **{kind: registry.describe(part) for kind in kinds if (part := getattr(model, kind)) is not None},
            **origin.get("model", {}),
        },
        "data": origin.get("data"),
        "score": score,
        "binarization_threshold": THRESHOLD if model.likelihood.stochastic_binarization else None,
        "versions": _versions(fmt),
    }


def _parity(examples: Examples) -> dict[str, Any]:
    return {
        "source": examples.source,
        "num_images": len(examples.images),
        "tolerances": {
            "float_difference": FLOAT_TOLERANCE,
            "fraction_of_integers": INTEGER_TOLERANCE,
            "fraction_of_reconstructions": RECONSTRUCTION_TOLERANCE,
            "relative_difference_of_scores": SCORE_TOLERANCE,
        },
    }


def _port(name: str, tensor: Tensor, ranges: Mapping[str, list[float]]) -> dict[str, Any]:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    bounds = [0, 255] if dtype == "uint8" else ranges.get(name)
    return {"shape": list(tensor.shape), "dtype": dtype, "range": bounds, "meaning": _MEANINGS[name]}


def _ranges(model: "BaseVAE") -> dict[str, list[float]]:
    """Return the smallest and largest value of bounded inputs and outputs, by name."""
    ranges: dict[str, list[float]] = {"images": [0.0, 1.0], "mean_images": [0.0, 1.0]}
    if model.condition is not None and model.condition.num_classes is not None:
        ranges["condition"] = [0, model.condition.num_classes - 1]
    if model.num_codes is not None:
        ranges["indices"] = [0, model.quantizer.num_codes - 1]
    return ranges


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(b"" if file == path else file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _versions(fmt: Format) -> dict[str, str]:
    versions: dict[str, str] = backend.describe_software()["versions"]
    return versions | {package: importlib.metadata.version(package) for package in fmt.packages}

"""What a program needs to know to run exported graphs, and a reader to trust them."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_vae.core import backend, registry
from keras_vae.core.typing import Tensor
from keras_vae.integrations.export.format import Format
from keras_vae.integrations.export.graphs import THRESHOLD, Graphs
from keras_vae.integrations.export.parity import SHARE, SPARED, TOLERANCE, Differences, Examples

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

SCHEMA = 1
"""The version of the manifest's keys."""

_MEANINGS = {
    "images": "pixels, rows × columns × channels",
    "z_mean": "means of q(z|x)",
    "z_log_var": "logarithms of the variances of q(z|x)",
    "z": "codes",
    "indices": "numbers of codes, rows × columns",
    "noise": "draws from N(0, I), made by the caller",
    "mean_images": "mean images of p(x|z), rows × columns × channels",
    "condition": "what the model is told besides",
}


def manifest(
    model: "BaseVAE",
    graphs: Graphs,
    form: Format,
    files: Mapping[str, Path],
    differences: Differences,
    examples: Examples,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of `manifest.json`.

    Args:
        model: The model.
        graphs: What is exported of it.
        form: The format.
        files: Where each graph lies.
        differences: How far each is from the model.
        examples: On which images.
        origin: `name`, `model` and `data`, as far as they are known: where the model comes from.
    """
    kinds = [kind for kind in model.part_names if kind not in ("encoder", "decoder", "objective")]
    ranges = _ranges(model)
    return {
        "schema": SCHEMA,
        "name": origin["name"],
        "format": form.name,
        "needs": form.needs,
        "graphs": {
            name: {
                "file": files[name].name,
                "sha256": _checksum(files[name]),
                "inputs": {key: _port(key, tensor, ranges) for key, tensor in network.input.items()},
                "outputs": {
                    key: {**_port(key, tensor, ranges), "greatest_difference": differences[name][key]}
                    for key, tensor in network.output.items()
                },
            }
            for name, network in graphs.networks.items()
        },
        "code": graphs.code,
        "left_out": graphs.left_out,
        "compared_with_the_model": {
            "on": examples.source,
            "images": len(examples.images),
            "allowed": {"numbers": TOLERANCE, "share_of_whole_numbers": SHARE, "images_spared_for_them": SPARED},
        },
        "model": {
            "class": type(model).__name__,
            "image_shape": list(model.image_shape),
            "latent_dim": model.latent_dim,
            **{kind: registry.describe(part) for kind in kinds if (part := getattr(model, kind)) is not None},
            **origin.get("model", {}),
        },
        "data": origin.get("data"),
        "threshold": THRESHOLD if model.likelihood.binarizes_at_random else None,
        "versions": _versions(form),
    }


def _port(name: str, tensor: Tensor, ranges: Mapping[str, list[float]]) -> dict[str, Any]:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    bounds = [0, 255] if dtype == "uint8" else ranges.get(name)
    return {"shape": list(tensor.shape), "dtype": dtype, "range": bounds, "meaning": _MEANINGS[name]}


def _ranges(model: "BaseVAE") -> dict[str, list[float]]:
    """Return the least and greatest value of what is bounded, by name."""
    ranges: dict[str, list[float]] = {"images": [0.0, 1.0], "mean_images": [0.0, 1.0]}
    if model.condition is not None and model.condition.num_classes is not None:
        ranges["condition"] = [0, model.condition.num_classes - 1]
    if model.num_codes is not None:
        ranges["indices"] = [0, model.num_codes - 1]
    return ranges


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, of its files' names and bytes in order."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(b"" if file == path else file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _versions(form: Format) -> dict[str, str]:
    versions: dict[str, str] = backend.describe_software()["versions"]
    return versions | {package: importlib.metadata.version(package) for package in form.packages}

"""Per-image values of an evaluation, from which paired differences between runs are computed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.runs.run import Run

CHECKSUM = "per_image_checksum"
"""Key of a section of `evaluation.json`: the checksum of its per-image values in `evaluation.npz`."""

_IDENTITY = ("data", "split", "images", "checksum", "seed")


@dataclass(frozen=True)
class StageResult:
    """The result of one stage of an evaluation.

    Args:
        section: The section of `evaluation.json`.
        per_image: Arrays (N,) by name, one value per measured image, in the order of the images.
    """

    section: dict[str, Any]
    per_image: Mapping[str, Array] = field(default_factory=dict)


def mean_and_error(values: Array) -> dict[str, float | None]:
    """Return the mean of one value per image, and its standard error; None for a single image."""
    doubles = values.astype("float64")
    error = float(doubles.std(ddof=1) / np.sqrt(len(doubles))) if len(doubles) > 1 else None
    return {"mean": float(doubles.mean()), "standard_error": error}


def stored(values: Mapping[str, Array]) -> dict[str, Array]:
    """Return per-image values as they are stored: float32, which halves the file and keeps seven digits."""
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def values_checksum(model: Mapping[str, Any], section: Mapping[str, Any], values: Mapping[str, Array]) -> str:
    """Return the checksum of per-image values, of the model, and of the images that they were measured on.

    Args:
        model: `Run.model_fingerprint`.
        section: The section of `evaluation.json` to which the values belong.
        values: The stored values by name.

    Returns:
        Hexadecimal SHA-256.
    """
    identity = [dict(model), [section.get(key) for key in _IDENTITY]]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name in sorted(values):
        digest.update(f"{name} {len(values[name])}".encode())
        digest.update(np.ascontiguousarray(values[name], "<f4").data)
    return digest.hexdigest()


def load_per_image(run: Run, evaluation: Mapping[str, Any], on: str | None = None) -> dict[str, Mapping[str, Array]]:
    """Return the stored per-image values that belong to an evaluation.

    Args:
        run: The run.
        evaluation: The content of its `evaluation.json`.
        on: Name of the evaluated images, if they are not the run's own.

    Returns:
        Arrays (N,) by section and name. Sections whose checksum does not match, and those of a missing or damaged file,
        are left out.
    """
    try:
        sections = run.read_per_image(on)
    except InputError:
        return {}
    return {
        name: values
        for name, values in sections.items()
        if values
        and (section := evaluation.get(name) or {}).get(CHECKSUM)
        == values_checksum(evaluation.get("model", {}), section, values)
    }

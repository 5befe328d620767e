"""What the tabs do, offered to programs."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from keras_vae.core.errors import InputError
from keras_vae.explorer import pictures, uploads
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import failures_said


def offer(explorer: Explorer) -> None:
    """Offer what the tabs do to programs, as functions of numbers and texts; pictures are data URIs of PNG files."""

    def decode(code: list[float], label: str | None = None) -> str:
        """Return the mean image of one code, as a data URI of a PNG file."""
        return pictures.uri(explorer.decode(code, explorer.label(label)))

    def place(picture: str, label: str | None = None) -> dict[str, Any]:
        """Return code, reconstruction, score in nats and percentile of a picture given as a data URI."""
        image = uploads.prepare(uploads.read_uri(picture), explorer.image_shape).image
        placed = explorer.place(image, explorer.label(label))
        return {
            "code": None if placed.code is None else placed.code.tolist(),
            "reconstruction": pictures.uri(placed.reconstruction),
            "score": placed.score,
            "nats": placed.nats,
            "percentile": placed.percentile,
        }

    def interpolate(first: str, second: str, spherical: bool = False, label: str | None = None) -> list[str]:
        """Return the images on the way between two pictures, as data URIs."""
        ends = [uploads.prepare(uploads.read_uri(end), explorer.image_shape).image for end in (first, second)]
        return [
            pictures.uri(image)
            for image in explorer.between(ends[0], ends[1], spherical=spherical, label=explorer.label(label))
        ]

    def sample(count: int = 1, seed: int = 0, prior: str | None = None, label: str | None = None) -> list[str]:
        """Return mean images of draws from the prior, as data URIs; at most 100."""
        if not 1 <= count <= 100:
            raise InputError(f"count = {count}: from 1 to 100")
        told = None if label is None else explorer.label(label)
        return [pictures.uri(image) for image in explorer.sample(count, seed, prior=prior, label=told)]

    def describe() -> dict[str, Any]:
        """Return what is explored: sizes, labels, priors, rates, and what is missing."""
        model = explorer.engine.model
        return {
            "run": explorer.run.name,
            "model": type(model).__name__,
            "image_shape": list(explorer.image_shape),
            "latent_dim": model.latent_dim,
            "labels": list(explorer.classes),
            "priors": list(explorer.priors),
            "rates": None if not explorer.has_vector or explorer.rates is None else explorer.rates.tolist(),
            "note": explorer.material.note,
        }

    offered: list[Callable[..., Any]] = [place, sample, describe]
    offered += [decode] if explorer.has_vector else []
    offered += [interpolate] if explorer.has_lines else []
    for function in offered:
        gr.api(failures_said(function), api_name=function.__name__)

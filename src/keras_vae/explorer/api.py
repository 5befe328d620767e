"""The API of the page for programs. Images are data URIs of PNG files."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
import pydantic
from numpy.typing import NDArray

from keras_vae.core.config import problem
from keras_vae.core.errors import InputError
from keras_vae.explorer import uploads
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import show_errors
from keras_vae.report.pages import png_uri

MAX_SAMPLES = 100


class _Endpoints:
    """The functions of the API. Gradio shows their signatures and docstrings on the page."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    def decode(self, code: list[float], label: str | None = None) -> str:
        """Return the mean image of one code, as a data URI of a PNG file."""
        return png_uri(self._explorer.decode(code, self._explorer.label_index(label)))

    def analyze(self, image: str, label: str | None = None) -> dict[str, Any]:
        """Return the code, reconstruction, score in nats and percentile of an image given as a data URI."""
        analysis = self._explorer.analyzer.analyze(self._read(image), self._explorer.label_index(label))
        return {
            "code": None if analysis.code is None else analysis.code.tolist(),
            "reconstruction": png_uri(analysis.reconstruction),
            "score": analysis.score,
            "nats": analysis.nats,
            "percentile": analysis.percentile,
        }

    def interpolate(self, first: str, second: str, spherical: bool = False, label: str | None = None) -> list[str]:
        """Return an interpolation between two images, as data URIs."""
        start, end = self._read(first), self._read(second)
        images = self._explorer.interpolate(start, end, spherical=spherical, label=self._explorer.label_index(label))
        return [png_uri(image) for image in images]

    def arithmetic(self, a: str, b: str, c: str, label: str | None = None) -> str:
        """Return the image decoded from a + b − c of the codes of three images, as a data URI."""
        images = [self._read(uri) for uri in (a, b, c)]
        return png_uri(self._explorer.arithmetic(*images, label=self._explorer.label_index(label))[-1])

    def sample(self, count: int = 1, seed: int = 0, prior: str | None = None, label: str | None = None) -> list[str]:
        """Return mean images of at most 100 codes drawn from the prior, as data URIs."""
        if not 1 <= count <= MAX_SAMPLES:
            raise InputError(f"count = {count}: out of range; pass a number from 1 to {MAX_SAMPLES}")
        index = None if label is None else self._explorer.label_index(label)
        return [png_uri(image) for image in self._explorer.sampler.sample(count, seed, prior=prior, label=index)]

    def describe(self) -> dict[str, Any]:
        """Return the name of the run, sizes, labels, priors and KL per dimension, and a note on missing images."""
        explorer, model = self._explorer, self._explorer.engine.model
        kl = explorer.latent_space.kl_per_dimension if explorer.has_vector else None
        return {
            "run": explorer.run.name,
            "model": type(model).__name__,
            "image_shape": list(explorer.image_shape),
            "latent_dim": model.latent_dim,
            "latent_shape": list(model.latent_shape),
            "labels": list(explorer.classes),
            "priors": list(explorer.sampler.priors),
            "kl_per_dimension": None if kl is None else kl.tolist(),
            "note": explorer.sources.note,
        }

    def _read(self, uri: str) -> NDArray[np.uint8]:
        return uploads.convert(uploads.read_uri(uri), self._explorer.image_shape).image


def register_endpoints(explorer: Explorer) -> None:
    """Register the API endpoints that apply to the model in the current page."""
    endpoints = _Endpoints(explorer)
    functions: list[Callable[..., Any]] = [endpoints.analyze, endpoints.sample, endpoints.describe]
    if explorer.has_vector:
        functions.append(endpoints.decode)
    if explorer.has_lines:
        functions += [endpoints.interpolate, endpoints.arithmetic]
    for function in functions:
        gr.api(show_errors(_check_types(function)), api_name=function.__name__)


def _check_types(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks the types of its arguments, which are the values of a JSON document."""
    checked = pydantic.validate_call(config={"strict": True})(function)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        try:
            return checked(*arguments, **keywords)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            shown = repr(first["input"])
            raise InputError(f"{_name(function, first['loc'][0])} = {shown[:40]}: {problem(first)}") from None

    return wrapped


def _name(function: Callable[..., Any], argument: int | str) -> str:
    """Return the name of an argument, which may be given by its position."""
    return [*inspect.signature(function).parameters][argument] if isinstance(argument, int) else argument

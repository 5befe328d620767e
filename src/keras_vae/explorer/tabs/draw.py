"""The tab that analyzes a drawing or an uploaded image."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from keras_vae.core.typing import Array
from keras_vae.explorer import pictures, uploads
from keras_vae.explorer.analyzer import ImageAnalysis
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import (
    Levels,
    caption,
    control,
    fact_list,
    html,
    label_dropdown,
    number_text,
    on_events,
    vector_text,
)

_PAD_PIXELS = 336
_HINT = caption(
    "Draw something, or upload an image, to see its reconstruction, its score and its place in the latent space."
)


class DrawTab:
    """Shows the reconstruction, the score and the place on the map of a drawing, an upload or an example."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._map_grid = functools.cache(self._decode_map_grid)

    def build(self) -> None:
        """Lay out the tab and connect its events."""
        examples = self._explorer.sources.examples
        kind = "" if examples is None else examples.split
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                pad = control(self._pad(), "drawing_pad.js", elem_id="drawing-pad")
                with gr.Row():
                    upload = gr.UploadButton("Upload an image", file_types=["image"], size="sm", min_width=120)
                    example = gr.Button(
                        f"Random {kind} image",
                        size="sm",
                        min_width=120,
                        visible=examples is not None,
                        elem_id="random-image",
                    )
                invert = gr.Checkbox(False, label="Invert uploaded images")
                label = label_dropdown(self._explorer)
            with gr.Column(scale=3, min_width=320):
                analysis = html(_HINT, elem_id="analysis")
        image = gr.State(None)
        on_events(
            [label.input],
            self.update,
            [pad, upload, invert, label, image],
            [analysis, image, label],
            actions={"sketch": pad.input, "upload": upload.upload, "example": example.click},
        )

    def update(
        self,
        action: str | None,
        sketch: str | None,
        file: str | None,
        invert: bool,
        label: str | None,
        image: Levels | None,
    ) -> tuple[str, Any, Any]:
        """Analyze the sketch, the upload or an example, or the same image conditioned on another label."""
        if action == "sketch":
            return (*(self.analyze_sketch(sketch, label) if sketch else self.clear()), gr.skip())
        if action == "upload" and file is not None:
            return (*self.analyze_upload(file, invert, label), gr.skip())
        if action == "example":
            return self.analyze_example(label)
        return self.analyze_again(image, label), gr.skip(), gr.skip()

    def analyze_sketch(self, sketch: str, label: str | None) -> tuple[str, Levels]:
        """Analyze the content of the drawing pad, a data URI."""
        converted = uploads.convert(uploads.read_uri(sketch), self._explorer.image_shape)
        return self._analysis(converted.image, label), converted.image

    def analyze_upload(self, file: str, invert: bool, label: str | None) -> tuple[str, Levels]:
        """Analyze an uploaded file."""
        converted = uploads.convert(uploads.read_file(file), self._explorer.image_shape, invert=invert)
        return self._analysis(converted.image, label, converted.notes), converted.image

    def analyze_example(self, label: str | None) -> tuple[str, Levels | None, str | None]:
        """Analyze a random image of the run, conditioned on its own label if it has one, and return that label."""
        examples, classes = self._explorer.sources.examples, self._explorer.classes
        if examples is None:
            return _HINT, None, label
        index = int(np.random.default_rng().integers(len(examples)))
        if classes and examples.labels is not None:
            label = classes[int(examples.labels[index])]
        return self._analysis(examples.images[index], label), examples.images[index], label

    def analyze_again(self, image: Levels | None, label: str | None) -> str:
        """Analyze the same image conditioned on another label."""
        return _HINT if image is None else self._analysis(image, label)

    def clear(self) -> tuple[str, None]:
        """Return to the empty tab."""
        return _HINT, None

    def _analysis(self, image: Levels, label: str | None, notes: Sequence[str] = ()) -> str:
        """Return the HTML of the analysis of an image."""
        analysis = self._explorer.analyzer.analyze(image, self._explorer.label_index(label))
        tiles = [image, analysis.reconstruction, pictures.heatmap(analysis.error_map)]
        parts = [
            pictures.row(tiles, ["input", "reconstruction", "error"]),
            fact_list(self._facts(analysis, image)),
            *map(caption, notes),
        ]
        if self._explorer.has_plane and analysis.code is not None:
            parts.append(self._map(analysis.code, label))
        return "".join(parts)

    def _map(self, code: Array, label: str | None) -> str:
        """Return the latent map with a mark at a code."""
        space = self._explorer.latent_space
        plane = space.plane()
        u, v = plane.points(code[None])[0].tolist()
        return pictures.latent_map(
            self._map_grid(label),
            plane,
            space.default_view(plane),
            points=plane.points(space.codes) if len(space.codes) else None,
            labels=None if space.dataset is None else space.dataset.labels,
            mark=(u, v),
            description="map of the latent space; a ring marks the code of this image",
        )

    def _decode_map_grid(self, label: str | None) -> Array:
        space = self._explorer.latent_space
        plane = space.plane()
        return space.decode_grid(plane, space.default_view(plane), self._explorer.label_index(label))

    def _pad(self) -> str:
        height, width, _ = self._explorer.image_shape
        scale = max(1, _PAD_PIXELS // max(height, width))
        canvas = (
            f'<canvas width="{width * scale}" height="{height * scale}" role="img" aria-label="drawing pad"></canvas>'
        )
        return f'<div class="pad">{canvas}<button type="button">Clear</button></div>'

    def _facts(self, analysis: ImageAnalysis, image: Array) -> dict[str, str]:
        """Return the score, its percentile and the code of an image, as text."""
        engine, sources = self._explorer.engine, self._explorer.sources
        nats = f"{number_text(-analysis.nats, 1)} nats"
        names_and_values = {
            "nll": ("log p(x)", f"{nats} ({engine.num_samples} importance samples)"),
            "negative_elbo": ("log p(x)", f"≥ {nats} (ELBO)"),
            "reconstruction_loss": ("log p(x|z)", nats),
        }
        name, value = names_and_values[analysis.score]
        facts = {name: value}
        if self._explorer.scores_original_prior:
            facts["prior of log p(x)"] = "the original one"
        likelihood = engine.model.likelihood
        if not likelihood.is_normalized_on(image[None]):
            facts["likelihood"] = "not normalized for this image"
        elif likelihood.is_density:
            facts["likelihood"] = "density of pixel values"
        if sources.reference is not None:
            kind = "training" if sources.splits is not None else sources.reference.split
            facts["anomaly score"] = (
                f"{kind} images are still being scored"
                if analysis.percentile is None
                else f"higher than {math.floor(analysis.percentile)}% of {kind} images"
            )
        if analysis.code is not None and self._explorer.has_vector:
            facts["z"] = vector_text(analysis.code)
        return facts

"""The tab that analyzes a drawing or an uploaded image."""

import functools
import math
from collections.abc import Sequence

import gradio as gr
import numpy as np

from keras_vae.core.typing import Array
from keras_vae.explorer import pictures, uploads
from keras_vae.explorer.analyzer import ImageAnalysis
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import (
    Levels,
    caption,
    fact_list,
    html,
    label_dropdown,
    number_text,
    on_event,
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

    def build(self, drawing: gr.State) -> None:
        """Lay out the tab and connect its events.

        Args:
            drawing: Receives the analyzed image, for the tab Interpolate.
        """
        examples = self._explorer.sources.examples
        kind = "" if examples is None else examples.split
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                pad = html(self._pad(), script="drawing_pad.js", elem_id="drawing-pad")
                with gr.Row():
                    upload = gr.UploadButton("Upload an image", file_types=["image"], size="sm", min_width=120)
                    example = gr.Button(f"Random {kind} image", size="sm", min_width=120, visible=examples is not None)
                invert = gr.Checkbox(False, label="Invert uploaded images")
                label = label_dropdown(self._explorer)
            with gr.Column(scale=3, min_width=320):
                analysis = html(_HINT, elem_id="analysis")
        shown = [analysis, drawing]
        on_event(pad.sketch, self.analyze_sketch, [label], shown, may_fail=True)
        on_event(pad.clear, self.clear, [], shown)
        on_event(upload.upload, self.analyze_upload, [upload, invert, label], shown, may_fail=True)
        on_event(example.click, self.analyze_example, [label], shown)
        on_event(label.input, self.analyze_again, [drawing, label], analysis)

    def analyze_sketch(self, event: gr.EventData, label: str | None) -> tuple[str, Levels]:
        """Analyze the content of the drawing pad."""
        converted = uploads.convert(uploads.read_uri(event.image), self._explorer.image_shape)
        return self._analysis(converted.image, label), converted.image

    def analyze_upload(self, file: str, invert: bool, label: str | None) -> tuple[str, Levels]:
        """Analyze an uploaded file."""
        converted = uploads.convert(uploads.read_file(file), self._explorer.image_shape, invert=invert)
        return self._analysis(converted.image, label, converted.notes), converted.image

    def analyze_example(self, label: str | None) -> tuple[str, Levels | None]:
        """Analyze a random image of the run, conditioned on its own label if it has one."""
        examples, classes = self._explorer.sources.examples, self._explorer.classes
        if examples is None:
            return _HINT, None
        index = int(np.random.default_rng().integers(len(examples)))
        if classes and examples.labels is not None:
            label = classes[int(examples.labels[index])]
        return self._analysis(examples.images[index], label), examples.images[index]

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
        )

    def _decode_map_grid(self, label: str | None) -> Array:
        space = self._explorer.latent_space
        plane = space.plane()
        return space.decode_grid(plane, space.default_view(plane), self._explorer.label_index(label))

    def _pad(self) -> str:
        height, width, _ = self._explorer.image_shape
        scale = max(1, _PAD_PIXELS // max(height, width))
        canvas = f'<canvas width="{width * scale}" height="{height * scale}" aria-label="drawing pad"></canvas>'
        return f'<div class="pad">{canvas}<button>Clear</button></div>'

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

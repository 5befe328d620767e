"""The tab with samples from the prior and their nearest training images."""

import gradio as gr
import numpy as np

from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.sampler import PAGE_SIZE
from keras_vae.explorer.widgets import caption, html, on_events

ALL_LABELS = "all labels"


class SamplesTab:
    """Shows samples, each above its nearest training image."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    def build(self) -> None:
        """Lay out the tab and connect its events."""
        priors, classes = self._explorer.sampler.priors, self._explorer.classes
        with gr.Row(equal_height=True):
            button = gr.Button("New samples", variant="primary", elem_id="new-samples", scale=0, min_width=180)
            prior = gr.Radio(priors, value=priors[0], label="Prior", visible=len(priors) > 1, min_width=240)
            label = gr.Dropdown([ALL_LABELS, *classes], value=ALL_LABELS, label="Label", visible=bool(classes))
        samples = html(self.sample(priors[0], ALL_LABELS), elem_id="sample-grid")
        html(caption(self._explanation()))
        on_events([button.click, prior.input, label.input], self.sample, [prior, label], [samples])

    def sample(self, prior: str, label: str) -> str:
        """Return a page of new samples."""
        index = None if label == ALL_LABELS else self._explorer.label_index(label)
        seed = int(np.random.default_rng().integers(2**31))
        images = self._explorer.sampler.sample(PAGE_SIZE, seed, prior=prior, label=index)
        neighbors = self._explorer.neighbors
        if neighbors is None:
            return pictures.sample_grid(images, None, [])
        nearest, found = neighbors.nearest(images)
        return pictures.sample_grid(images, nearest, [f"{distance:.1f}" for distance in found.distances])

    def _explanation(self) -> str:
        neighbors = self._explorer.neighbors
        if neighbors is None:
            return "Nearest training images are not shown because the training data is not available."
        text = (
            "Each sample is shown above its nearest training image. The number is the Euclidean distance between the"
            " two, with pixels in [0, 1]."
        )
        if neighbors.num_searched < neighbors.num_images:
            text += f" The search covers {neighbors.num_searched:,} of {neighbors.num_images:,} training images."
        return text

"""The analysis of one image: its code, its reconstruction, and how its score compares with other images."""

import threading
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset
from keras_vae.evaluation.anomaly import Scorer, error_map
from keras_vae.explorer.engine import Engine
from keras_vae.models.inputs import dataset_condition

YIELD_SECONDS = 0.01
"""Pause of background work between two batches. Without it, events of the page could not acquire the lock."""

_MAX_REFERENCE_IMAGES = 500
_REFERENCE_BATCH = 4


class ImageAnalysis(NamedTuple):
    """The analysis of one image.

    Args:
        code: Its code; None if the model's code is discrete.
        reconstruction: (H, W, C), in [0, 1].
        error_map: |x − x̂|, averaged over channels, (H, W, 1).
        score: The name of the score: `"nll"`, `"negative_elbo"`, or `"reconstruction_loss"` if the model has no bound.
        nats: The value of the score, in nats.
        percentile: The percentage of reference images whose score is lower; None if they are not scored.
    """

    code: Array | None
    reconstruction: Array
    error_map: Array
    score: str
    nats: float
    percentile: float | None


class ImageAnalyzer:
    """Encodes, reconstructs and scores images.

    Args:
        engine: The model.
        reference: The images whose scores define percentiles; None if no images are available.
        has_code: Whether the model's code is continuous.
    """

    def __init__(self, engine: Engine, reference: Dataset | None, *, has_code: bool) -> None:
        self._engine, self._reference, self._has_code = engine, reference, has_code
        self._scorer: Scorer | None = None
        self._scoring = threading.Lock()

    def analyze(self, image: NDArray[np.uint8], label: int | None = None) -> ImageAnalysis:
        """Return the analysis of an image.

        Args:
            image: (H, W, C).
            label: The label to condition on, if the model is conditional.
        """
        engine, images = self._engine, image[None]
        code = engine.encode(images, label)[0] if self._has_code else None
        reconstruction = engine.reconstruct(images, label) if code is None else engine.decode(code[None], label)
        scores = engine.score(images, label)
        has_bound = engine.model.has_bound
        name = "nll" if "nll" in scores else "negative_elbo" if has_bound else "reconstruction_loss"
        scorer = self._scorer
        return ImageAnalysis(
            code,
            reconstruction[0],
            error_map(images, reconstruction)[0],
            name,
            float(scores[name][0]),
            None if scorer is None else float(scorer.percentile(name, scores[name])[0]),
        )

    def score_reference(self) -> None:
        """Score the reference images, so that `analyze` returns percentiles. Takes seconds the first time."""
        with self._scoring:
            if self._reference is None or self._scorer is not None:
                return
            engine, images = self._engine, self._reference.subsample_evenly(_MAX_REFERENCE_IMAGES)
            labels = dataset_condition(engine.model, images)
            batches = np.array_split(np.arange(len(images)), -(-len(images) // _REFERENCE_BATCH))
            scores = []
            for batch in batches:
                scores.append(engine.score(images.images[batch], None if labels is None else labels[batch]))
                time.sleep(YIELD_SECONDS)
            joined = {name: np.concatenate([part[name] for part in scores]) for name in scores[0]}
            self._scorer = Scorer(engine.model, engine.num_samples, 0, joined)

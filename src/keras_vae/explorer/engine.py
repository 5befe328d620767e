"""A model compiled for a few batch sizes, so that the page responds at once."""

import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.evaluation.anomaly import Scorer, Scores

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

MAX_IMPORTANCE_SAMPLES = 64
"""Maximum number of importance samples per image; for large images, as many as fit in a batch."""


class Engine:
    """A model's methods, compiled once per batch size and called by one thread at a time.

    Args:
        model: A trained model.
        batch_sizes: The batch sizes to compile, in ascending order. Other numbers of codes are padded to the next one.
    """

    lock = threading.Lock()
    """Every event runs in its own thread, and some backends cannot trace functions in two threads at once."""

    def __init__(self, model: "BaseVAE", batch_sizes: Sequence[int]) -> None:
        self.model, self.batch_sizes = model, batch_sizes
        self.num_samples = min(MAX_IMPORTANCE_SAMPLES, model.fitting_batch_size())

    def decode(self, codes: Array, label: int | None = None) -> Array:
        """Return the mean images of codes, in [0, 1], (N, H, W, C).

        Args:
            codes: (N, …), N ≥ 1.
            label: The label to condition on, if the model is conditional.
        """
        size = next((size for size in self.batch_sizes if size >= len(codes)), self.batch_sizes[-1])
        batches = [codes[start : start + size] for start in range(0, len(codes), size)]
        with self.lock:
            images = [
                self.model.decode(
                    np.pad(batch, ((0, size - len(batch)), (0, 0)), mode="edge"), condition=self._name(label)
                )
                for batch in batches
            ]
        return np.concatenate(images)[: len(codes)]

    def encode(self, images: Array, label: Any = None) -> Any:
        """Return the codes of images: posterior means, if the posterior has one, and maps as vectors.

        Args:
            images: (N, H, W, C), uint8.
            label: The label to condition on: one for all images, or one per image.
        """
        with self.lock:
            encoding = self.model.encode(images, condition=self._name(label))
        return (encoding.flattened() if self.model.has_continuous_codes else encoding).codes

    def reconstruct(self, image: Array, label: int | None = None) -> Array:
        """Return the reconstruction of one image, both (1, H, W, C)."""
        with self.lock:
            return self.model.reconstruct(image, condition=self._name(label))

    def sample(self, count: int, seed: int, labels: Any = None) -> Array:
        """Return mean images of codes drawn from the prior, (count, H, W, C)."""
        with self.lock:
            return self.model.sample(count, seed=seed, condition=self._name(labels))

    def sample_code(self, seed: int, temperature: float, label: int | None = None) -> Array:
        """Return one code drawn from the prior, (latent_dim,).

        Args:
            seed: Fixes the draw.
            temperature: Scales the noise; ignored unless `has_temperature`.
            label: The label to condition on, if the model is conditional.
        """
        model: Any = self.model
        with self.lock:
            if not self.has_temperature:
                return model.sample_prior(1, seed=seed, condition=self._name(label))[0].ravel()
            noise = np.random.default_rng(seed).standard_normal((1, model.latent_dim), dtype="float32")
            return keras.ops.convert_to_numpy(
                model.prior_transform(temperature * noise, self._encode_condition(label))
            )[0]

    @functools.cached_property
    def has_temperature(self) -> bool:
        """Whether the prior transforms normal noise, which a temperature can scale."""
        try:
            model: Any = self.model
            model.prior_transform(np.zeros((1, model.latent_dim), "float32"), self._encode_condition(0))
        except InputError:
            return False
        return True

    def _encode_condition(self, label: int | None) -> Any:
        return None if self.model.condition is None else self.model.condition.encode(np.array([label]))

    def _name(self, label: Any) -> Any:
        """Return the name of a single class number, which models reject if numbers name classes; else the argument."""
        condition = self.model.condition
        return label if condition is None or not isinstance(label, int | np.integer) else condition.class_names[label]

    def score(self, images: Array, label: Any = None) -> Scores:
        """Return the anomaly scores of images, in nats."""
        scorer = Scorer(self.model, self.num_samples if self.model.is_stochastic else 1, 0, {})
        with self.lock:
            return scorer(images, condition=self._name(label))

"""A model that answers at once: compiled for a few batch sizes, and one call at a time."""

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

DRAWS = 64
"""Draws of z for the log-likelihood of an image, where its size allows so many at once."""


class Engine:
    """The verbs of a model at batch sizes that are compiled once; other numbers of codes are padded to the next.

    Args:
        model: A trained model.
        sizes: The batch sizes, ascending.
    """

    lock = threading.Lock()
    """Events come on threads of their own, and not every backend's functions may be traced by two at once."""

    def __init__(self, model: "BaseVAE", sizes: Sequence[int]) -> None:
        self.model, self.sizes = model, sizes
        self.draws = min(DRAWS, model.fitting_batch_size())

    def decode(self, codes: Array, label: int | None = None) -> Array:
        """Return the mean images of codes, in [0, 1], (N, H, W, C).

        Args:
            codes: (N, …), N ≥ 1.
            label: What they are decoded under, where the model has labels.
        """
        size = next((size for size in self.sizes if size >= len(codes)), self.sizes[-1])
        blocks = [codes[start : start + size] for start in range(0, len(codes), size)]
        with self.lock:
            images = [
                self.model.decode(np.pad(block, ((0, size - len(block)), (0, 0)), mode="edge"), condition=label)
                for block in blocks
            ]
        return np.concatenate(images)[: len(codes)]

    def encode(self, images: Array, label: Any = None) -> Any:
        """Return the codes that stand for images.

        Args:
            images: (N, H, W, C), uint8.
            label: What they are encoded under, one for all or one each.
        """
        with self.lock:
            return self.model.encode(images, condition=label).codes

    def reconstruct(self, image: Array, label: int | None = None) -> Array:
        """Return the mean image of the code of one image, both (1, H, W, C)."""
        with self.lock:
            return self.model.reconstruct(image, condition=label)

    def sample(self, count: int, seed: int, labels: Any = None) -> Array:
        """Return the mean images of draws from the prior, (count, H, W, C)."""
        with self.lock:
            return self.model.sample(count, seed=seed, condition=labels)

    def draw(self, seed: int, temperature: float, label: int | None = None) -> Array:
        """Return one code drawn from a VAE's prior, (latent_dim,), its noise scaled where it comes from such."""
        model: Any = self.model
        with self.lock:
            if not self.has_temperature:
                return model.sample_prior(1, seed=seed, condition=label)[0]
            noise = np.random.default_rng(seed).standard_normal((1, model.latent_dim), dtype="float32")
            return keras.ops.convert_to_numpy(
                model.prior_transform(temperature * noise, self._encode_condition(label))
            )[0]

    def draws_of_prior(self, count: int, label: int | None = None) -> Array:
        """Return codes drawn from a VAE's prior, (count, latent_dim)."""
        model: Any = self.model
        with self.lock:
            codes: Array = model.sample_prior(count, seed=0, condition=label)
        return codes

    @functools.cached_property
    def has_temperature(self) -> bool:
        """Whether draws from a VAE's prior come from normal noise, which can be scaled."""
        try:
            model: Any = self.model
            model.prior_transform(np.zeros((1, model.latent_dim), "float32"), self._encode_condition(0))
        except InputError:
            return False
        return True

    def _encode_condition(self, label: int | None) -> Any:
        return None if self.model.condition is None else self.model.condition.encode(np.array([label]))

    def score(self, images: Array, label: Any = None, *, scorer: Scorer | None = None) -> Scores:
        """Return the scores of images, with those that known images are needed for if the scorer has seen some."""
        scorer = scorer or Scorer(self.model, self.draws if self.model.is_stochastic else 1, 0, {})
        with self.lock:
            return scorer(images, condition=label)

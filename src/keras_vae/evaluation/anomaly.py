"""How unlike what a model has learned an image is, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.typing import Array

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Scores = dict[str, NDArray[np.float64]]
"""Name of the score → one value an image, in nats; the greater, the stranger."""

SCORES = ("nll", "negative_elbo", "reconstruction_loss", "kl_loss", "typicality")
"""The scores by name; models without noise, or with discrete codes, have no `nll`."""


@dataclass(frozen=True)
class Scorer:
    r"""Scores images, and says what share of the images that a model knows score less.

    `nll` is \(-\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\), `negative_elbo` the mean of the same K terms in place
    of their sum inside the logarithm, and `reconstruction_loss` and `kl_loss` its two parts. `typicality` is
    \(|\mathrm{nll}(x) - E\,\mathrm{nll}|\), the mean taken over known images: an image may be strange because it is
    *too* likely (Nalisnick et al., arXiv 1810.09136 and 1906.02994).

    Args:
        model: A trained model.
        samples: K.
        seed: Fixes the draws.
        known: The scores of known images, typicality included.
    """

    model: "BaseVAE"
    samples: int
    seed: int
    known: Scores

    @classmethod
    def fitted(
        cls,
        model: "BaseVAE",
        x: Array,
        *,
        condition: Any = None,
        samples: int = 64,
        seed: int = 0,
    ) -> Self:
        """Return a scorer that has seen what a model knows.

        Args:
            model: A trained model.
            x: Images that are normal, such as those that the model was trained on: uint8, or floats in [0, 1].
            condition: Their condition, where the model has one.
            samples: K, the draws of z an image.
            seed: Fixes the draws.

        Raises:
            InputError: The images do not fit the model, or `samples` is less than 1.

        Example:
            >>> from keras_vae import VAE
            >>> blank = np.zeros((4, 28, 28, 1), "uint8")
            >>> Scorer.fitted(VAE(seed=0), blank, samples=2)(blank)["nll"].shape
            (4,)
        """
        if samples < 1:
            raise InputError(f"samples = {samples}: must be ≥ 1")
        blind = cls(model, samples if model.is_stochastic else 1, seed, {})
        scores = blind(x, condition=condition)
        return cls(model, blind.samples, seed, scores | _typicality(scores, scores))

    def __call__(self, x: Array, *, condition: Any = None) -> Scores:
        """Return every score of every image.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            condition: Their condition, where the model has one.

        Raises:
            InputError: The images do not fit the model.
        """
        from keras import ops

        terms = self.model.elbo_terms(x, seed=self.seed, condition=condition, draws=self.samples)
        scores: Scores = {}
        if self.model.is_stochastic:
            weights = ops.convert_to_numpy(terms.log_weight).astype("float64")
            scores["nll"] = np.log(self.samples) - np.logaddexp.reduce(weights, axis=1)
        for name in ("negative_elbo", "reconstruction_loss", "kl_loss"):
            scores[name] = ops.convert_to_numpy(getattr(terms, name)).astype("float64")
        return scores | (_typicality(scores, self.known) if self.known else {})

    def percentile(self, name: str, values: Array) -> NDArray[np.float64]:
        """Return the share of known images that score at most as much, in percent.

        Args:
            name: The score.
            values: Scores of images, (N,).
        """
        known = np.sort(self._of_known(name))
        return 100 * np.searchsorted(known, values, side="right") / len(known)

    def threshold(self, name: str, false_positive_rate: float) -> float:
        """Return the score that only this share of known images exceeds.

        Args:
            name: The score.
            false_positive_rate: From 0 to 1.

        Raises:
            InputError: There is no such score, or the rate lies outside.
        """
        if not 0 <= false_positive_rate <= 1:
            raise InputError(f"threshold = {false_positive_rate}: give the share of known images to exceed it, 0 to 1")
        return float(np.quantile(self._of_known(name), 1 - false_positive_rate))

    def _of_known(self, name: str) -> NDArray[np.float64]:
        if name not in self.known:
            raise unknown("score", name, self.known)
        return self.known[name]


def differences(x: Array, reconstruction: Array) -> NDArray[np.float32]:
    """Return where images are unlike their reconstructions: the mean over channels of |x − x̂|, (N, H, W, 1).

    Args:
        x: Images (N, H, W, C): uint8, or floats in [0, 1].
        reconstruction: Their reconstructions in [0, 1].
    """
    unit = np.asarray(x, "float32") / (255 if x.dtype == np.uint8 else 1)
    return np.abs(unit - np.asarray(reconstruction, "float32")).mean(axis=-1, keepdims=True)


def _typicality(scores: Mapping[str, NDArray[np.float64]], known: Mapping[str, NDArray[np.float64]]) -> Scores:
    name = "nll" if "nll" in scores else "negative_elbo"
    return {"typicality": np.abs(scores[name] - known[name].mean())}

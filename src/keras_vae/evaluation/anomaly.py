"""Anomaly scores of images, and maps of their reconstruction errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.typing import Array

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Scores = dict[str, NDArray[np.float64]]
"""Score name → one value per image, in nats; higher is more anomalous."""

SCORES = ("nll", "negative_elbo", "reconstruction_loss", "kl_loss", "typicality")
"""The names of the scores. Models with deterministic or discrete codes have no `nll`."""

REFERENCE_IMAGES = 2000
"""Number of training images whose scores define percentiles and thresholds."""


@dataclass(frozen=True)
class Scorer:
    r"""Computes anomaly scores of images, and compares them with the scores of reference images.

    All scores are functions of the same K weights \(w_k = p(x|z_k) p(z_k) / q(z_k|x)\), \(z_k \sim q(z|x)\). `nll` is
    \(-\log \tfrac1K \sum_k w_k\). `negative_elbo` is \(-\tfrac1K \sum_k \log w_k\), which is never below `nll`. Its two
    parts are `reconstruction_loss`, \(-\tfrac1K \sum_k \log p(x|z_k)\), and `kl_loss`,
    \(\tfrac1K \sum_k \log q(z_k|x) - \log p(z_k)\), an estimate of the divergence that may lie slightly below 0.
    `typicality` is \(|\mathrm{nll}(x) - E\,\mathrm{nll}|\), with the mean over the reference images: an image may be
    anomalous because it is *too* likely (Nalisnick et al., arXiv 1810.09136 and 1906.02994).

    The draws follow from the pixels of the image and the seed. The scores of an image therefore depend neither on its
    row nor on the other images, up to the rounding of the backend, and copies of an image have equal scores.

    Args:
        model: A trained model.
        samples: K, the number of draws of z per image.
        seed: Fixes the draws.
        reference: The scores of reference images, including typicality.
    """

    model: "BaseVAE"
    samples: int
    seed: int
    reference: Scores = field(repr=False)

    @classmethod
    def fit(
        cls,
        model: "BaseVAE",
        x: Array,
        *,
        condition: Any = None,
        samples: int = 64,
        seed: int = 0,
    ) -> Self:
        """Return a scorer fitted to reference images.

        Args:
            model: A trained model.
            x: Normal images (N, H, W, C), such as training images: uint8, or floats in [0, 1].
            condition: Their condition, if the model has one.
            samples: K, the number of draws of z per image.
            seed: Fixes the draws.

        Raises:
            InputError: The images do not fit the model, or `samples` is less than 1.

        Example:
            >>> from keras_vae import VAE
            >>> blank = np.zeros((4, 28, 28, 1), "uint8")
            >>> Scorer.fit(VAE(seed=0), blank, samples=2)(blank)["nll"].shape
            (4,)
        """
        if samples < 1:
            raise InputError(f"samples = {samples}: too few; use at least 1")
        unfitted = cls(model, samples if model.is_stochastic else 1, seed, {})
        scores = unfitted(x, condition=condition)
        return cls(model, unfitted.samples, seed, scores | _typicality(scores, scores))

    def __call__(self, x: Array, *, condition: Any = None) -> Scores:
        """Return all scores of images.

        Args:
            x: Images (N, H, W, C): uint8, or floats in [0, 1].
            condition: Their condition, if the model has one.

        Raises:
            InputError: The images do not fit the model.
        """
        terms = self.model.elbo_terms(x, seed=self.seed, condition=condition, draws=self.samples, by_content=True)
        log_likelihood, log_prior, log_posterior = (
            np.asarray(values, "float64") for values in (terms.log_likelihood, terms.log_prior, terms.log_posterior)
        )
        log_weight = log_likelihood + log_prior - log_posterior
        scores: Scores = {}
        if self.model.is_stochastic:
            scores["nll"] = np.log(self.samples) - np.logaddexp.reduce(log_weight, axis=1)
        scores["negative_elbo"] = -log_weight.mean(axis=1)
        scores["reconstruction_loss"] = -log_likelihood.mean(axis=1)
        scores["kl_loss"] = (log_posterior - log_prior).mean(axis=1)
        return scores | (_typicality(scores, self.reference) if self.reference else {})

    def percentile(self, name: str, values: Array) -> NDArray[np.float64]:
        """Return the percentage of reference images whose score is lower; equal scores do not count.

        Args:
            name: The name of the score.
            values: Scores of images, (N,).
        """
        reference = np.sort(self._reference_scores(name))
        return 100 * np.searchsorted(reference, values, side="left") / len(reference)

    def threshold(self, name: str, false_positive_rate: float) -> float:
        """Return the score that a given share of the reference images exceeds.

        Args:
            name: The name of the score.
            false_positive_rate: The share, from 0 to 1.

        Raises:
            InputError: The score is unknown, or the rate is out of range.
        """
        check_rate(false_positive_rate)
        return float(np.quantile(self._reference_scores(name), 1 - false_positive_rate))

    def _reference_scores(self, name: str) -> NDArray[np.float64]:
        if name not in self.reference:
            raise unknown("score", name, self.reference)
        return self.reference[name]


def check_rate(false_positive_rate: float) -> None:
    """Reject a share of reference images that is not between 0 and 1.

    Raises:
        InputError: The rate is out of range.
    """
    if not 0 <= false_positive_rate <= 1:
        raise InputError(f"false_positive_rate = {false_positive_rate}: out of range; use a share from 0 to 1")


def error_map(x: Array, reconstruction: Array) -> NDArray[np.float32]:
    """Return the absolute reconstruction error per pixel, averaged over channels, (N, H, W, 1).

    Args:
        x: Images (N, H, W, C): uint8, or floats in [0, 1].
        reconstruction: Their reconstructions in [0, 1].
    """
    unit = np.asarray(x, "float32") / (255 if x.dtype == np.uint8 else 1)
    return np.abs(unit - np.asarray(reconstruction, "float32")).mean(axis=-1, keepdims=True)


def _typicality(scores: Mapping[str, NDArray[np.float64]], reference: Mapping[str, NDArray[np.float64]]) -> Scores:
    name = "nll" if "nll" in scores else "negative_elbo"
    return {"typicality": np.abs(scores[name] - reference[name].mean())}

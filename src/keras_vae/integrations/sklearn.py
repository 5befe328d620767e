"""Models in scikit-learn's conventions: a transformer for pipelines, and a detector of anomalies."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.info import DatasetInfo
from keras_vae.evaluation.anomaly import Scorer
from keras_vae.runs.build import build_model
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.loading import load

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


class VAETransformer(TransformerMixin, BaseEstimator):
    """Learns a VAE of rows of numbers, or of images, and transforms them into posterior means.

    Columns are brought to [0, 1] by their least and greatest value in training; what lies beyond later is cut to them.

    Args:
        latent_dim: The number of latent dimensions.
        network: A network's short name, or a table with its arguments; see `Experiment`.
        likelihood: Likewise. `normal` learns one standard deviation for all columns.
        prior: Likewise.
        objective: Likewise.
        image_shape: (H, W, C), where a row is an image with its pixels in that order; None for rows of any numbers.
        epochs: Passes over the rows.
        batch_size: Rows a step, at most as many as there are.
        learning_rate: Adam's step size.
        seed: Fixes the initial weights, the order and the noise.

    Attributes:
        model_: The trained `VAE`.
        minimum_: The least value of each column.
        range_: Its greatest value less that, 1 for a constant.

    Raises:
        InputError: By `fit`: the rows do not have the size of `image_shape`, or a part is unknown.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(20, 5))
        >>> VAETransformer(latent_dim=2, epochs=1).fit_transform(rows).shape
        (20, 2)
    """

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        network: str | dict[str, Any] = "mlp",
        likelihood: str | dict[str, Any] = "normal",
        prior: str | dict[str, Any] = "standard-normal",
        objective: str | dict[str, Any] = "elbo",
        image_shape: tuple[int, int, int] | None = None,
        epochs: int = 30,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.latent_dim, self.network, self.likelihood, self.prior = latent_dim, network, likelihood, prior
        self.objective, self.image_shape, self.epochs, self.batch_size = objective, image_shape, epochs, batch_size
        self.learning_rate, self.seed = learning_rate, seed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the model on rows.

        Args:
            X: Numbers, (N, F).
            y: Ignored.
        """
        import keras

        X = validate_data(self, X, dtype="float64", ensure_min_samples=2)
        if self.image_shape is not None and math.prod(self.image_shape) != X.shape[1]:
            raise InputError(f"image_shape = {self.image_shape}: the rows have {X.shape[1]} columns")
        self.minimum_ = X.min(axis=0)
        span = X.max(axis=0) - self.minimum_
        self.range_ = np.where(span > 0, span, 1.0)
        batch_size = min(self.batch_size, len(X))
        names = ("latent_dim", "network", "likelihood", "prior", "objective")
        tables = {
            "seed": self.seed,
            "model": {name: getattr(self, name) for name in names},
            "training": {"epochs": self.epochs, "batch_size": batch_size},
        }
        experiment = Experiment.model_validate(tables)
        images = self._images(X)
        keras.utils.set_random_seed(self.seed)
        self.model_ = build_model(experiment, DatasetInfo(images.shape[1:], len(images)))
        self.model_.compile(optimizer=keras.optimizers.Adam(self.learning_rate))
        self.model_.initialize_prior(images, seed=self.seed)
        self.model_.fit(images, batch_size=batch_size, epochs=self.epochs, verbose=0)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Return the posterior means of rows, (N, latent_dim).

        Args:
            X: Numbers, (N, F).
        """
        check_is_fitted(self)
        return np.asarray(self.model_.encode(self._images(self._rows(X))).z_mean, "float64")

    def inverse_transform(self, X: Any) -> NDArray[np.float64]:
        """Return the mean rows of codes, (N, F).

        Args:
            X: Codes, (N, latent_dim).
        """
        check_is_fitted(self)
        images = self.model_.decode(np.asarray(X, "float32"))
        return np.asarray(images.reshape(len(images), -1) * self.range_ + self.minimum_, "float64")

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean ELBO of rows in nats, so that a search over arguments has something to raise.

        Args:
            X: Numbers, (N, F).
            y: Ignored.
        """
        check_is_fitted(self)
        return float(self.model_.elbo(self._images(self._rows(X))).mean())

    @property
    def _n_features_out(self) -> int:
        return self.latent_dim

    def _rows(self, X: Any) -> Array:
        return validate_data(self, X, dtype="float64", reset=False)

    def _images(self, rows: Array) -> NDArray[np.float32]:
        unit = np.clip((rows - self.minimum_) / self.range_, 0, 1).astype("float32")
        return unit.reshape(len(rows), *(self.image_shape or (1, rows.shape[1], 1)))


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """Calls images anomalies that score higher than all but a share of normal ones do; see `anomaly.Scorer`.

    Args:
        run: A run folder or a `.keras` file, or a model.
        score: One of `anomaly.SCORES`.
        samples: K, the draws of z an image.
        false_positive_rate: The share of normal images that may be called anomalies.
        seed: Fixes the draws.

    Attributes:
        scorer_: What scores, with the scores of the normal images.
        offset_: Minus the threshold: what `score_samples` must exceed.

    Example:
        >>> from keras_vae import VAE
        >>> images = np.zeros((8, 28, 28, 1), "uint8")
        >>> detector = AnomalyDetector(VAE(seed=0), samples=4).fit(images)
        >>> bool((detector.predict(np.full((2, 28, 28, 1), 255, "uint8")) == -1).all())
        True
    """

    def __init__(
        self,
        run: "str | Path | BaseVAE",
        *,
        score: str = "nll",
        samples: int = 64,
        false_positive_rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.run, self.score, self.samples = run, score, samples
        self.false_positive_rate, self.seed = false_positive_rate, seed

    def fit(self, X: Array, y: Any = None, *, condition: Any = None) -> Self:
        """Learn how normal images score.

        Args:
            X: Normal images, (N, H, W, C): uint8, or floats in [0, 1].
            y: Ignored.
            condition: Their condition, where the model has one: one of each, or one of all.

        Raises:
            InputError: The images do not fit the model, or a setting is refused.
        """
        model = load(self.run) if isinstance(self.run, str | Path) else self.run
        self.scorer_ = Scorer.fit(model, X, condition=condition, samples=self.samples, seed=self.seed)
        self.offset_ = -self.scorer_.threshold(self.score, self.false_positive_rate)
        return self

    def score_samples(self, X: Array, *, condition: Any = None) -> NDArray[np.float64]:
        """Return minus the score of images, (N,): the lower, the stranger."""
        check_is_fitted(self)
        return -self.scorer_(X, condition=condition)[self.score]

    def decision_function(self, X: Array, *, condition: Any = None) -> NDArray[np.float64]:
        """Return how far images are from being anomalies, (N,), in nats: below zero they are."""
        return self.score_samples(X, condition=condition) - self.offset_

    def predict(self, X: Array, *, condition: Any = None) -> NDArray[np.int64]:
        """Return −1 for anomalies and 1 for the others, (N,)."""
        return np.where(self.decision_function(X, condition=condition) < 0, -1, 1)

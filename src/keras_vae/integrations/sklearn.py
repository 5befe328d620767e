"""Estimators for scikit-learn: a transformer and an anomaly detector."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
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


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Train a VAE on numeric rows or images, and transform them into posterior means.

    `get_feature_names_out` names the columns `vaetransformer0`, …, so that `set_output(transform="pandas")` works.

    Columns are scaled to [0, 1] by their minimum and maximum in the training rows. Other values are clipped to [0, 1].

    NaN marks missing values. The model learns from the observed ones, and `impute` fills the others.

    Args:
        latent_dim: Number of latent dimensions.
        network: Short name of a network, or a dict with its name and arguments; see `Experiment`.
        likelihood: Likelihood, given like `network`. `normal` learns one standard deviation for all columns.
        prior: Prior, given like `network`.
        objective: Objective, given like `network`.
        image_shape: (H, W, C), if rows are flattened images; None for other rows.
        epochs: Number of passes over the rows.
        batch_size: Rows per step, limited to the number of rows.
        learning_rate: Learning rate of Adam.
        seed: Seed of the initial weights, the order of the rows and the noise.

    Attributes:
        model_: The trained `VAE`.
        minimum_: Minimum of each column.
        range_: Maximum minus minimum of each column; 1 for a constant column.

    Raises:
        InputError: In `fit`: the rows do not match `image_shape`, a row or a column has no observed value, or a
            component is unknown.

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

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of the estimator: its inputs may contain NaN."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the model.

        Args:
            X: Rows, (N, F).
            y: Unused.
        """
        import keras

        X = validate_data(self, X, dtype="float64", ensure_min_samples=2, ensure_all_finite="allow-nan")
        if self.image_shape is not None and math.prod(self.image_shape) != X.shape[1]:
            raise InputError(
                f"image_shape = {self.image_shape}: does not match the {X.shape[1]} columns of X; pass H × W × C"
            )
        empty = np.flatnonzero(np.isnan(X).all(axis=0))
        if len(empty):
            raise InputError(f"X: column {empty[0]} has no observed value; leave it out")
        self.minimum_ = np.nanmin(X, axis=0)
        span = np.nanmax(X, axis=0) - self.minimum_
        self.range_ = np.where(span > 0, span, 1.0)
        batch_size = min(self.batch_size, len(X))
        components = ("latent_dim", "network", "likelihood", "prior", "objective")
        settings = {
            "seed": self.seed,
            "model": {name: getattr(self, name) for name in components},
            "training": {"epochs": self.epochs, "batch_size": batch_size},
        }
        experiment = Experiment.model_validate(settings)
        images = self._to_images(X)
        keras.utils.set_random_seed(self.seed)
        self.model_ = build_model(experiment, DatasetInfo(images.shape[1:], len(images)))
        self.model_.compile(optimizer=keras.optimizers.Adam(self.learning_rate))
        self.model_.initialize_prior(images, seed=self.seed)
        self.model_.fit(images, batch_size=batch_size, epochs=self.epochs, verbose=0)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Encode rows as posterior means, (N, latent_dim).

        Args:
            X: Rows, (N, F).
        """
        check_is_fitted(self)
        encoding = self.model_.encode(self._to_images(self._validate_rows(X)))
        return np.asarray(encoding.flattened().z_mean, "float64")

    def inverse_transform(self, X: Any) -> NDArray[np.float64]:
        """Decode latent vectors into mean rows, (N, F).

        Args:
            X: Latent vectors, (N, latent_dim).
        """
        check_is_fitted(self)
        images = self.model_.decode(np.asarray(X, "float32"))
        return np.asarray(images.reshape(len(images), -1) * self.range_ + self.minimum_, "float64")

    def impute(self, X: Any, *, samples: int = 500) -> NDArray[np.float64]:
        """Fill missing values with their posterior means, (N, F); observed values are returned unchanged.

        Args:
            X: Rows with NaN at missing values, (N, F).
            samples: Number of importance samples per row; see `BaseVAE.impute`.

        Example:
            >>> rows = np.random.default_rng(0).normal(size=(20, 5))
            >>> rows[0, 0] = np.nan
            >>> filled = VAETransformer(latent_dim=2, epochs=1).fit(rows).impute(rows, samples=50)
            >>> bool(np.isfinite(filled).all())
            True
        """
        check_is_fitted(self)
        X = self._validate_rows(X)
        missing = np.isnan(X)
        if not missing.any():
            return np.array(X)
        images = self.model_.impute(self._to_images(X), samples=samples, seed=self.seed).images
        return np.where(missing, images.reshape(X.shape) * self.range_ + self.minimum_, X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean ELBO of rows in nats per row, for model selection. Only observed values count.

        Args:
            X: Rows, (N, F).
            y: Unused.
        """
        check_is_fitted(self)
        return float(self.model_.elbo(self._to_images(self._validate_rows(X))).mean())

    @property
    def _n_features_out(self) -> int:
        return self.model_.latent_dim

    def _validate_rows(self, X: Any) -> Array:
        return validate_data(self, X, dtype="float64", reset=False, ensure_all_finite="allow-nan")

    def _to_images(self, rows: Array) -> NDArray[np.float32]:
        """Return rows as images, a masked array if values are missing."""
        unit = np.clip((rows - self.minimum_) / self.range_, 0, 1).astype("float32")
        if np.isnan(unit).any():
            unit = np.ma.masked_invalid(unit)
        return unit.reshape(len(rows), *(self.image_shape or (1, rows.shape[1], 1)))


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """Detect anomalous images by a score of a trained VAE; see `anomaly.Scorer`.

    The threshold is the quantile of the scores of normal images at 1 − `false_positive_rate`.

    Args:
        run: A run folder, a `.keras` file, or a model.
        score: One of `anomaly.SCORES`.
        samples: K, the number of latent samples per image.
        false_positive_rate: Fraction of normal images that may be classified as anomalies.
        seed: Seed of the latent samples.

    Attributes:
        scorer_: The fitted `Scorer`, which contains the scores of the normal images.
        offset_: The negative threshold; images are normal if `score_samples` is at least this value.

    Example:
        >>> images = np.zeros((8, 28, 28, 1), "uint8")
        >>> detector = AnomalyDetector("mnist-2d", samples=4).fit(images)
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

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of the estimator: its inputs are images, not rows."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def fit(self, X: Array, y: Any = None, *, condition: Any = None) -> Self:
        """Compute the scores of normal images, and the threshold from these scores.

        Args:
            X: Normal images, (N, H, W, C): uint8, or floats in [0, 1].
            y: Unused.
            condition: For conditional models: one condition per image, or one for all images.

        Raises:
            InputError: The images do not fit the model, or an argument is invalid.
        """
        model = load(self.run) if isinstance(self.run, str | Path) else self.run
        self.scorer_ = Scorer.fit(model, X, condition=condition, samples=self.samples, seed=self.seed)
        self.offset_ = -self.scorer_.threshold(self.score, self.false_positive_rate)
        return self

    def score_samples(self, X: Array, *, condition: Any = None) -> NDArray[np.float64]:
        """Return the negative scores of images, (N,); lower values are more anomalous."""
        check_is_fitted(self)
        return -self.scorer_(X, condition=condition)[self.score]

    def decision_function(self, X: Array, *, condition: Any = None) -> NDArray[np.float64]:
        """Return the signed distances of images to the threshold, (N,), which are negative for anomalies."""
        return self.score_samples(X, condition=condition) - self.offset_

    def predict(self, X: Array, *, condition: Any = None) -> NDArray[np.int64]:
        """Return −1 for anomalies and 1 for normal images, (N,)."""
        return np.where(self.decision_function(X, condition=condition) < 0, -1, 1)

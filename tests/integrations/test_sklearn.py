"""Estimators for scikit-learn: its contract, pipelines, cloning and conditions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from helpers import on_tensorflow
from keras_vae import VAE, AnomalyDetector, VAETransformer
from keras_vae.core.errors import InputError
from keras_vae.data.info import DatasetInfo
from keras_vae.evaluation.anomaly import Scorer
from keras_vae.runs.build import build_model
from keras_vae.runs.experiment import Experiment

ROUNDING = "the rounding of float32 sums depends on the number of rows in a batch"


@pytest.mark.slow
@on_tensorflow("the contract does not depend on the backend")
@parametrize_with_checks(
    [VAETransformer(latent_dim=1, network={"name": "mlp", "widths": [4]}, epochs=1)],
    expected_failed_checks=lambda estimator: {
        "check_methods_subset_invariance": ROUNDING,
        "check_methods_sample_order_invariance": ROUNDING,
    },
)
def test_transformer_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_transformer_works_in_a_classification_pipeline() -> None:
    x, y = load_digits(return_X_y=True)
    vae = VAETransformer(8, image_shape=(8, 8, 1), epochs=8, learning_rate=3e-3, batch_size=64)
    pipeline = make_pipeline(vae, LogisticRegression(max_iter=500)).fit(x[:1500], y[:1500])
    # Random guesses have an accuracy of 0.1.
    assert pipeline.score(x[1500:], y[1500:]) > 0.5
    codes = vae.transform(x[1500:])
    error = np.abs(vae.inverse_transform(codes) - x[1500:]).mean()
    assert error < np.abs(x[:1500].mean(axis=0) - x[1500:]).mean()


def test_equal_seeds_give_equal_models() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4))
    first, second = (VAETransformer(epochs=2, seed=4).fit_transform(rows) for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_rows_that_do_not_match_the_image_shape_are_rejected() -> None:
    with pytest.raises(InputError, match=r"image_shape = \(2, 3, 1\): does not match the 4 columns"):
        VAETransformer(image_shape=(2, 3, 1)).fit(np.zeros((5, 4)))


@on_tensorflow("detection does not depend on the backend")
def test_detector_finds_anomalies_at_the_given_false_positive_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 30, (100, 28, 28, 1), dtype="uint8")
    vae = VAE(seed=0)
    vae.compile("adam")
    vae.fit(images, epochs=3, verbose=0)
    vae.save(tmp_path / "vae.keras")
    detector = AnomalyDetector(tmp_path / "vae.keras", samples=4, false_positive_rate=0.1).fit(images)
    predicted = detector.predict(images)
    assert set(predicted.tolist()) == {-1, 1}
    assert (predicted == -1).mean() == pytest.approx(0.1, abs=0.02)
    np.testing.assert_array_equal(predicted == -1, detector.decision_function(images) < 0)
    strange = rng.integers(200, 256, (5, 28, 28, 1), dtype="uint8")
    assert (detector.predict(strange) == -1).all()
    assert detector.score_samples(strange).max() < detector.score_samples(images).min()


def test_detector_can_be_cloned_and_used_in_a_pipeline() -> None:
    rng = np.random.default_rng(0)
    normal, strange = (rng.integers(low, low + 60, (40, 784), dtype="uint8") for low in (0, 120))
    as_images = FunctionTransformer(np.reshape, kw_args={"shape": (-1, 28, 28, 1)})
    detector = clone(AnomalyDetector("mnist-2d", samples=4)).set_params(score="typicality", false_positive_rate=0.25)
    assert detector.get_params()["run"] == "mnist-2d"
    pipeline = make_pipeline(as_images, detector)
    assert (pipeline.fit_predict(normal) == -1).mean() == pytest.approx(0.25, abs=0.05)
    both = np.concatenate([normal, strange])
    scores = pipeline.decision_function(both)
    assert roc_auc_score(np.repeat([1, 0], 40), scores) == 1
    np.testing.assert_allclose(pipeline.score_samples(both), scores + pipeline[-1].offset_)
    # The typicality is a small difference of thousands of nats.
    again = pipeline.score_samples(both[::-3])
    np.testing.assert_allclose(again, (scores + pipeline[-1].offset_)[::-3], rtol=1e-5, atol=1e-3)


def test_cloned_detector_keeps_the_weights_of_its_model() -> None:
    images = np.random.default_rng(0).integers(0, 60, (8, 28, 28, 1), dtype="uint8")
    detector = AnomalyDetector(VAE(seed=0), samples=4)
    np.testing.assert_allclose(
        clone(detector).fit(images).score_samples(images), detector.fit(images).score_samples(images), rtol=1e-5
    )


def test_detector_passes_conditions_to_the_model() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 60, (12, 8, 8, 1), dtype="uint8"), np.arange(12) % 3
    settings = ["model.condition=label", "model.network={ name = 'conv', widths = [4], dense_units = 4 }"]
    vae = build_model(Experiment.preset("classic").with_overrides(settings), DatasetInfo((8, 8, 1), 12, classes=3))
    detector = AnomalyDetector(vae, samples=4).fit(images, condition=labels)
    for condition in (labels, 1):
        expected = Scorer.fit(vae, images, condition=condition, samples=4)(images, condition=condition)["nll"]
        np.testing.assert_allclose(detector.score_samples(images, condition=condition), -expected, rtol=1e-6)
    assert set(detector.predict(images, condition=labels).tolist()) == {-1, 1}
    with pytest.raises(InputError, match=r"^condition = None: "):
        detector.predict(images)


def test_transformer_names_its_columns_and_returns_data_frames() -> None:
    pd = pytest.importorskip("pandas")
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 3)), columns=["a", "b", "c"], index=range(5, 25))
    vae = VAETransformer(2, network={"name": "mlp", "widths": [4]}, epochs=1).set_output(transform="pandas").fit(rows)
    assert vae.get_feature_names_out().tolist() == ["vaetransformer0", "vaetransformer1"]
    codes = vae.transform(rows)
    assert codes.columns.tolist() == ["vaetransformer0", "vaetransformer1"]
    assert codes.index.equals(rows.index)
    np.testing.assert_array_equal(codes.to_numpy(), vae.set_output(transform="default").transform(rows))


@on_tensorflow("the contract does not depend on the backend")
# The tags say that the inputs are images. scikit-learn's other checks, which pass rows, do not apply.
@pytest.mark.filterwarnings("ignore:Can't test estimator")
@parametrize_with_checks([AnomalyDetector("mnist-2d", samples=2)])
def test_detector_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)

"""Anomaly scores, against their definitions."""

from collections.abc import Callable

import numpy as np
import pytest

from keras_vae import VAE
from keras_vae.components.posteriors import Deterministic
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.evaluation.anomaly import SCORES, Scorer, error_map
from keras_vae.networks import Conv


@pytest.fixture
def scorer(make_vae: Callable[..., VAE], images: Array) -> Scorer:
    return Scorer.fit(make_vae(), images, samples=5, seed=3)


def test_scores_match_their_definitions(scorer: Scorer, images: Array) -> None:
    scores = scorer(images)
    assert tuple(scores) == SCORES
    terms = scorer.model.elbo_terms(images, seed=3, draws=5)
    weights = np.asarray(terms.log_weight, "float64")
    np.testing.assert_allclose(scores["nll"], -np.log(np.exp(weights - weights.max()).mean(axis=1)) - weights.max())
    np.testing.assert_allclose(scores["negative_elbo"], scores["reconstruction_loss"] + scores["kl_loss"], rtol=1e-6)
    np.testing.assert_allclose(scores["reconstruction_loss"], -np.mean(terms.log_likelihood, axis=1), rtol=1e-6)
    np.testing.assert_allclose(scores["typicality"], np.abs(scores["nll"] - scorer.reference["nll"].mean()))


def test_an_image_that_is_too_likely_is_atypical(scorer: Scorer) -> None:
    blank = np.zeros((1, 9, 11, 1), "uint8")
    # An untrained model scores all gray images alike, so raise the scores of the reference images.
    reference = {name: values + 100 for name, values in scorer.reference.items()}
    scores = Scorer(scorer.model, 5, 3, reference)(blank)
    assert scorer.percentile("nll", scores["nll"] - 100)[0] == 0
    assert scores["typicality"][0] > 50


def test_percentiles_and_thresholds_are_those_of_the_reference_images(scorer: Scorer) -> None:
    reference = scorer.reference["nll"]
    assert scorer.percentile(
        "nll", np.array([reference.min() - 1, reference.max(), np.median(reference)])
    ) == pytest.approx([0, 100, 50], abs=5)
    limit = scorer.threshold("nll", 0.25)
    assert (reference > limit).mean() == pytest.approx(0.25, abs=0.05)


def test_a_deterministic_model_has_no_nll(images: Array) -> None:
    network, posterior = Conv(widths=(4, 6), dense_units=8), Deterministic()
    encoder = network.encoder((9, 11, 1), 3, posterior.param_sizes(3))
    vae = VAE(encoder, network.decoder(3, (9, 11, 1)), posterior=posterior, seed=0)
    scorer = Scorer.fit(vae, images, samples=50)
    assert scorer.samples == 1
    assert "nll" not in scorer(images)
    with pytest.raises(InputError, match="score = 'nll': unknown"):
        scorer.threshold("nll", 0.1)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_false_positive_rate_out_of_range_is_an_error(scorer: Scorer, rate: float) -> None:
    with pytest.raises(InputError, match="false_positive_rate = "):
        scorer.threshold("nll", rate)


def test_error_maps_of_uint8_and_float_images_are_equal() -> None:
    images = np.array([0, 255, 51], "uint8").reshape(1, 1, 1, 3)
    reconstruction = np.array([0.5, 0.5, 0.2], "float32").reshape(1, 1, 1, 3)
    assert error_map(images, reconstruction).shape == (1, 1, 1, 1)
    assert error_map(images, reconstruction).item() == pytest.approx(1 / 3)
    assert error_map(images.astype("float32") / 255, reconstruction).item() == pytest.approx(1 / 3)

"""Anomaly scores: against their definitions, and against images that are strange."""

from collections.abc import Callable

import numpy as np
import pytest

from keras_vae import VAE
from keras_vae.components.posteriors import Deterministic
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.evaluation.anomaly import SCORES, Scorer, differences
from keras_vae.networks import Conv


@pytest.fixture
def scorer(make_vae: Callable[..., VAE], images: Array) -> Scorer:
    return Scorer.fitted(make_vae(), images, samples=5, seed=3)


def test_scores_are_what_their_names_say(scorer: Scorer, images: Array) -> None:
    scores = scorer(images)
    assert tuple(scores) == SCORES
    terms = scorer.model.elbo_terms(images, 3, draws=5)
    weights = np.asarray(terms.log_weight, "float64")
    np.testing.assert_allclose(scores["nll"], -np.log(np.exp(weights - weights.max()).mean(axis=1)) - weights.max())
    np.testing.assert_allclose(scores["negative_elbo"], scores["reconstruction_loss"] + scores["kl_loss"], rtol=1e-6)
    np.testing.assert_allclose(scores["reconstruction_loss"], -np.mean(terms.log_likelihood, axis=1), rtol=1e-6)
    np.testing.assert_allclose(scores["typicality"], np.abs(scores["nll"] - scorer.known["nll"].mean()))


def test_too_likely_is_atypical_though_not_unlikely(scorer: Scorer) -> None:
    blank = np.zeros((1, 9, 11, 1), "uint8")
    # An untrained model puts every pixel near one half, so that all gray images cost alike; make the known ones dear.
    known = {name: values + 100 for name, values in scorer.known.items()}
    scores = Scorer(scorer.model, 5, 3, known)(blank)
    assert scorer.percentile("nll", scores["nll"] - 100)[0] == 0
    assert scores["typicality"][0] > 50


def test_percentiles_and_thresholds_count_the_known(scorer: Scorer) -> None:
    known = scorer.known["nll"]
    assert scorer.percentile("nll", np.array([known.min() - 1, known.max(), np.median(known)])) == pytest.approx(
        [0, 100, 50], abs=5
    )
    limit = scorer.threshold("nll", 0.25)
    assert (known > limit).mean() == pytest.approx(0.25, abs=0.05)


def test_a_model_without_noise_has_no_nll(images: Array) -> None:
    network, posterior = Conv(widths=(4, 6), dense_units=8), Deterministic()
    encoder = network.encoder((9, 11, 1), 3, posterior.param_sizes(3))
    vae = VAE(encoder, network.decoder(3, (9, 11, 1)), posterior=posterior, seed=0)
    scorer = Scorer.fitted(vae, images, samples=50)
    assert scorer.samples == 1
    assert "nll" not in scorer(images)
    with pytest.raises(InputError, match="score = 'nll': unknown"):
        scorer.threshold("nll", 0.1)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_rates_outside_are_refused(scorer: Scorer, rate: float) -> None:
    with pytest.raises(InputError, match="threshold = "):
        scorer.threshold("nll", rate)


def test_differences_are_those_of_levels_and_of_floats_alike() -> None:
    images = np.array([0, 255, 51], "uint8").reshape(1, 1, 1, 3)
    reconstruction = np.array([0.5, 0.5, 0.2], "float32").reshape(1, 1, 1, 3)
    assert differences(images, reconstruction).shape == (1, 1, 1, 1)
    assert differences(images, reconstruction).item() == pytest.approx(1 / 3)
    assert differences(images.astype("float32") / 255, reconstruction).item() == pytest.approx(1 / 3)

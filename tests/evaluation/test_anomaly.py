"""Anomaly scores, against their definitions."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from helpers import randomize
from keras_vae import VAE, HierarchicalVAE
from keras_vae.components.likelihoods import Bernoulli
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
    terms = scorer.model.elbo_terms(images, seed=3, draws=5, by_content=True)
    weights = np.asarray(terms.log_weight, "float64")
    nll = -np.log(np.exp(weights - weights.max()).mean(axis=1)) - weights.max()
    np.testing.assert_allclose(scores["nll"], nll, rtol=1e-6)
    np.testing.assert_allclose(scores["negative_elbo"], -weights.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(scores["negative_elbo"], scores["reconstruction_loss"] + scores["kl_loss"], rtol=1e-12)
    np.testing.assert_allclose(scores["reconstruction_loss"], -np.mean(terms.log_likelihood, axis=1), rtol=1e-6)
    np.testing.assert_allclose(scores["typicality"], np.abs(scores["nll"] - scorer.reference["nll"].mean()))


def wide_posterior(vae: VAE) -> VAE:
    """Return the model with random weights and posteriors of deviation 3, so that its draws matter."""
    randomize(vae.decoder, 0.3)
    layer = vae.encoder.get_layer("z_log_var")
    layer.set_weights([0 * layer.get_weights()[0], np.full(3, np.log(9.0))])
    return vae


@pytest.mark.parametrize("kind", ["normal", "dynamic", "hierarchical"])
def test_scores_of_an_image_do_not_depend_on_its_row_its_neighbors_or_its_format(
    kind: str, make_vae: Callable[..., VAE], images: Array
) -> None:
    if kind == "hierarchical":
        model = HierarchicalVAE((9, 11, 1), widths=(4, 8), groups=(1, 1), latent_channels=2)
    else:
        model = wide_posterior(make_vae(likelihood=Bernoulli(binarize="dynamic" if kind == "dynamic" else "none")))
    scorer = Scorer.fit(model, images[5:], samples=4)
    scores = scorer(images)
    assert np.ptp(scores["nll"] - scores["negative_elbo"]) > 0.01
    order = np.random.default_rng(0).permutation(24)
    for name, values in scorer(images[order]).items():
        np.testing.assert_allclose(values, scores[name][order], rtol=1e-5, atol=1e-4)
    rows = [20, 3, 3]
    for name, values in scorer(images[rows].astype("float32") / 255).items():
        np.testing.assert_allclose(values, scores[name][rows], rtol=1e-5, atol=1e-4)
    other_seed = Scorer(model, 4, 1, {})(images)["nll"]
    assert (np.abs(other_seed - scores["nll"]) > 1e-3).all()


@pytest.mark.parametrize("samples", [1, 2, 16])
def test_nll_is_at_most_the_negative_elbo_and_equal_for_a_single_draw(
    samples: int, make_vae: Callable[..., VAE]
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (200, 9, 11, 1), dtype="uint8")
    scores = Scorer(wide_posterior(make_vae()), samples, 0, {})(images)
    gap = scores["negative_elbo"] - scores["nll"]
    assert (gap >= -1e-9).all()
    assert gap.max() < 1e-9 if samples == 1 else np.median(gap) > 1e-2


def test_rate_of_many_draws_is_the_kl_divergence_in_closed_form(make_vae: Callable[..., VAE], images: Array) -> None:
    vae = wide_posterior(make_vae())
    mean = vae.encode(images[:3]).z_mean.astype("float64")
    exact = 0.5 * (9 - 1 - np.log(9) + mean**2).sum(axis=1)
    rate = Scorer(vae, 4000, 0, {})(images[:3])["kl_loss"]
    # log q(z) − log p(z) is ½Σ(8ε² + 6με + μ² − log 9), whose variance is Σ(32 + 9μ²).
    error = np.sqrt((32 + 9 * mean**2).sum(axis=1) / 4000)
    assert (np.abs(rate - exact) < 4 * error).all()


def test_percentiles_count_lower_scores_only(scorer: Scorer) -> None:
    ranked = replace(scorer, reference={"nll": np.array([7.0, 1.0, 5.0, 5.0, 5.0])})
    found = ranked.percentile("nll", np.array([0.0, 1.0, 5.0, 5.1, 7.0, 7.1]))
    np.testing.assert_allclose(found, [0, 0, 20, 80, 80, 100])


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

"""Latents: against closed forms and numerical integration, and whole sections of small untrained models."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.neighbors import NearestNeighbors

from keras_vae import VAE
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli
from keras_vae.components.posteriors import (
    Deterministic,
    DiagonalNormal,
    FullCovarianceNormal,
    InverseAutoregressiveFlow,
    Posterior,
)
from keras_vae.components.priors import ConditionalNormal, MixtureOfNormals, Prior
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation import latents
from keras_vae.evaluation.latents import active_units, aggregate, aggregate_moments, measure_latents, probe
from keras_vae.networks import Conv

KEYS = {
    *("data", "split", "held_out", "images", "checksum", "seed", "latent_dim", "kl_loss", "rates", "active_units"),
    *("kl_monte_carlo", "mutual_information", "mutual_information_cap", "marginal_kl", "aggregate_posterior"),
    *("knn_accuracy", "linear_probe_accuracy", "chance_accuracy", "neighbors", "probe_images", "notes"),
}
PROBES = ("knn_accuracy", "linear_probe_accuracy", "chance_accuracy", "neighbors", "probe_images")


def normal(z: Array, mean: Array | float = 0.0, log_var: Array | float = 0.0) -> Array:
    """Return log-densities of each dimension."""
    return -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))


# aggregate


def test_posteriors_far_apart_tell_which_image_it_was() -> None:
    rng = np.random.default_rng(0)
    mean = 1e3 * np.stack([np.arange(50), rng.permutation(50)], 1)
    own, mixed = aggregate(mean, np.zeros((50, 2)), mean + rng.normal(size=(50, 2)))
    np.testing.assert_allclose(own - mixed, math.log(50), atol=1e-6)


def test_posteriors_all_alike_tell_nothing() -> None:
    z = np.random.default_rng(0).normal(size=(40, 3))
    own, mixed = aggregate(np.zeros((40, 3)), np.zeros((40, 3)), z)
    np.testing.assert_allclose(own, mixed, atol=1e-12)
    np.testing.assert_allclose(mixed, normal(z).sum(1), atol=1e-12)


@pytest.mark.parametrize("pairs_at_once", [1, 100, 2**22])
def test_densities_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch, pairs_at_once: int) -> None:
    monkeypatch.setattr(latents, "_PAIRS_AT_ONCE", pairs_at_once)
    rng = np.random.default_rng(1)
    mean, log_var = 2.0 + rng.normal(size=(30, 4)), rng.uniform(-9, 1, size=(30, 4))
    z = mean + np.exp(log_var / 2) * rng.normal(size=(30, 4))
    pairs = np.array([[normal(code, *moments).sum() for moments in zip(mean, log_var, strict=True)] for code in z])
    own, mixed = aggregate(mean, log_var, z)
    np.testing.assert_allclose(own, np.diag(pairs), atol=1e-9)
    np.testing.assert_allclose(mixed, np.logaddexp.reduce(pairs, axis=1) - np.log(30), atol=1e-9)


def test_the_sharpest_posteriors_stay_exact_in_float32() -> None:
    rng = np.random.default_rng(2)
    mean = rng.normal(5.0, 1.0, size=(20, 8)).astype("float32")
    log_var = np.full_like(mean, -20.0)
    z = mean + np.exp(log_var / 2) * rng.normal(size=mean.shape).astype("float32")
    own, mixed = aggregate(mean, log_var, z)
    doubles = (values.astype("float64") for values in (z, mean, log_var))
    np.testing.assert_allclose(own, normal(*doubles).sum(1), atol=1e-5)
    np.testing.assert_allclose(own - mixed, math.log(20), atol=1e-5)


def test_information_and_divergence_are_those_of_an_integral() -> None:
    means, deviation, copies = np.array([-1.2, 0.1, 0.9]), 0.6, 4000
    line = np.linspace(-9, 9, 20_001)
    components = np.exp(normal(line, means[:, None], 2 * math.log(deviation)))
    mixture = components.mean(0)
    step = line[1] - line[0]
    information = (components * np.log(components / mixture)).sum() * step / 3
    divergence = (mixture * (np.log(mixture) - normal(line))).sum() * step

    mean = np.repeat(means, copies // 3)[:, None]
    log_var = np.full_like(mean, 2 * math.log(deviation))
    z = mean + deviation * np.random.default_rng(3).normal(size=mean.shape)
    own, mixed = aggregate(mean, log_var, z)
    for values, exact in ((own - mixed, information), (mixed - normal(z)[:, 0], divergence)):
        assert abs(values.mean() - exact) < 3 * values.std() / math.sqrt(len(z))


def test_information_of_a_linear_gaussian_code() -> None:
    # z = x + noise, both normal: I = ½ log(1 + signal/noise) in each dimension.
    rng = np.random.default_rng(4)
    mean, log_var = rng.normal(size=(4000, 2)), np.full((4000, 2), math.log(0.25))
    z = mean + 0.5 * rng.normal(size=mean.shape)
    own, mixed = aggregate(mean, log_var, z)
    assert abs((own - mixed).mean() - math.log(1 + 4.0)) < 0.06


# active units and moments


def test_active_units_are_those_whose_means_move() -> None:
    wave = np.tile([1.0, -1.0], 50)
    deviations = [0.0, 0.0999, 0.1001, 2.0]
    z_mean = np.stack([3.0 + deviation * wave for deviation in deviations], 1).astype("float32")
    assert active_units(z_mean) == {"count": 2, "dimensions": [2, 3], "threshold": 0.01}


def test_moments_are_numpys() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=(500, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, -0.3], [0.0, 0.0, 2.0]]) + [0.0, 1.0, -2.0]
    found = aggregate_moments(z.astype("float32"))
    covariance = np.cov(z.T, ddof=0)
    np.testing.assert_allclose(found["mean"], z.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["variance"], np.diag(covariance), rtol=1e-5)
    assert found["largest_correlation"] == pytest.approx(np.abs(np.corrcoef(z.T) - np.eye(3)).max(), rel=1e-5)
    expected = np.linalg.norm(z.mean(0)) ** 2 + np.linalg.norm(covariance - np.eye(3)) ** 2
    assert found["squared_deviation"] == pytest.approx(expected, rel=1e-4)


def test_moments_of_one_code_one_dimension_and_no_movement_are_finite() -> None:
    assert aggregate_moments(np.array([[2.0]])) == {
        **{"mean": [2.0], "variance": [0.0], "largest_correlation": None, "squared_deviation": 5.0},
    }
    still = np.array([[0.0, 1.0], [0.0, -1.0]])
    assert aggregate_moments(still)["largest_correlation"] == 0.0


# probes


def test_separable_codes_tell_every_label() -> None:
    labels = np.arange(120) % 3
    corners = 10.0 * np.array([[0, 0], [0, 1], [1, 0]])
    rng = np.random.default_rng(6)
    codes, others = (corners[labels] + rng.normal(size=(120, 2)) for _ in range(2))
    found = probe(codes, labels, others, labels)
    assert found["knn_accuracy"] == found["linear_probe_accuracy"] == {"mean": 1.0, "standard_error": 0.0}
    assert found["chance_accuracy"]["mean"] == pytest.approx(1 / 3)


def test_labels_that_have_nothing_to_do_with_codes_are_told_by_chance() -> None:
    rng = np.random.default_rng(7)
    codes, others = rng.normal(size=(2, 600, 3))
    labels, other_labels = (rng.random((2, 600)) < 0.3).astype("int64")
    found = probe(codes, labels, others, other_labels)
    chance = found["chance_accuracy"]
    share = (other_labels == 0).mean()
    assert chance["mean"] == pytest.approx(share)
    assert chance["standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / 600), rel=1e-2)
    assert found["linear_probe_accuracy"]["mean"] == pytest.approx(chance["mean"], abs=3 * chance["standard_error"])
    assert found["knn_accuracy"]["mean"] < chance["mean"] + 3 * chance["standard_error"]


def test_neighbors_vote() -> None:
    rng = np.random.default_rng(8)
    codes, others = rng.normal(size=(2, 90, 2))
    labels, other_labels = rng.integers(0, 2, (2, 90))
    found = probe(codes, labels, others, other_labels)
    votes = labels[NearestNeighbors(n_neighbors=10).fit(codes).kneighbors(others, return_distance=False)].mean(1)
    assert found["knn_accuracy"]["mean"] == pytest.approx(accuracy_score(other_labels, votes > 0.5))


def test_a_shift_or_another_unit_does_not_change_the_linear_probe() -> None:
    rng = np.random.default_rng(9)
    codes, others = rng.normal(size=(2, 80, 2))
    labels, other_labels = ((values @ [1.0, 0.2] + 0.3 * rng.normal(size=80) > 0) for values in (codes, others))
    scores = [
        probe(scale * codes + shift, labels, scale * others + shift, other_labels)["linear_probe_accuracy"]
        for scale, shift in ((1.0, 0.0), (np.array([1e-3, 1e3]), 50.0))
    ]
    assert scores[0] == scores[1]


# the section


@pytest.fixture
def dataset(images: Array) -> Dataset:
    return Dataset.from_arrays(np.concatenate([images, images[::-1] // 2]), np.arange(48) % 3, name="frames")


@pytest.fixture
def splits(dataset: Dataset) -> Splits:
    return split(dataset, None, validation=0, test_size=16, holdout=True, seed=0)


def vae(latent_dim: int = 3, posterior: Posterior | None = None, **kwargs: object) -> VAE:
    """Return a small model whose codes move: an untrained encoder hardly looks at its images."""
    width = 3 if "condition" in kwargs else 0
    network = Conv(widths=(4, 6), dense_units=8)
    param_sizes = posterior and posterior.param_sizes(latent_dim)
    model = VAE(
        network.encoder((9, 11, 1 + width), latent_dim, param_sizes),
        network.decoder(latent_dim + width, (9, 11, 1)),
        posterior=posterior,
        seed=5,
        **kwargs,
    )
    rng = np.random.default_rng(0)
    for weight in model.encoder.trainable_weights:
        weight.assign(rng.normal(scale=0.6, size=weight.shape))
    return model


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers_in(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers_in(inner)]
    return [value] if isinstance(value, float) else []


def checked(section: dict[str, Any]) -> dict[str, Any]:
    """Return the section, once it is JSON with all its keys and nothing in it that is not finite."""
    assert set(section) == KEYS
    assert json.loads(json.dumps(section, allow_nan=False)) == section
    assert all(map(math.isfinite, numbers_in(section)))
    return section


def test_the_section_holds_every_number(splits: Splits) -> None:
    model, test = vae(), splits.test
    found = checked(measure_latents(model, splits, seed=3))
    assert (found["split"], found["held_out"], found["images"], found["seed"]) == ("test", True, 16, 3)
    assert found["checksum"] == test.checksum
    assert found["notes"] == []

    z_mean, z_log_var = (values.astype("float64") for values in model.encode(test.images)[:2])
    rates = 0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var)
    order = np.argsort(-rates.mean(0))
    assert [rate["dimension"] for rate in found["rates"]] == order.tolist()
    for column, key in ((rates.mean(0), "mean"), (rates.std(0, ddof=1) / 4, "standard_error")):
        np.testing.assert_allclose([rate[key] for rate in found["rates"]], column[order], rtol=1e-4)
    assert found["kl_loss"]["mean"] == pytest.approx(rates.sum(1).mean(), rel=1e-5)
    assert found["active_units"]["dimensions"] == np.flatnonzero(z_mean.var(0) > 0.01).tolist() != []

    z = model.sample_posterior(test.images, seed=3).astype("float64")
    sampled = (normal(z, z_mean, z_log_var) - normal(z)).sum(1)
    assert found["kl_monte_carlo"]["mean"] == pytest.approx(sampled.mean(), abs=1e-4)
    assert 0 < found["mutual_information"]["mean"] < found["mutual_information_cap"] == math.log(16)
    np.testing.assert_allclose(found["aggregate_posterior"]["mean"], z.mean(0), rtol=1e-5, atol=1e-6)
    assert (found["neighbors"], found["probe_images"]) == (10, 32)
    assert all(0 <= found[name]["mean"] <= 1 for name in PROBES[:3])


def test_the_kl_monte_carlo_is_the_sum_of_its_parts(splits: Splits) -> None:
    found = measure_latents(vae(), splits)
    parts = found["mutual_information"]["mean"] + found["marginal_kl"]["mean"]
    assert found["kl_monte_carlo"]["mean"] == pytest.approx(parts, abs=1e-12)


def test_a_seed_gives_the_same_numbers_and_another_gives_others(splits: Splits) -> None:
    model = vae()
    first, again, other = (measure_latents(model, splits, seed=seed, images=9) for seed in (1, 1, 2))
    assert first == again
    assert first["images"] == 9
    assert first["probe_images"] == 9
    assert first["kl_monte_carlo"] != other["kl_monte_carlo"]
    assert first["checksum"] != other["checksum"]


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize(
    ("make_posterior", "prior"),
    [
        (FullCovarianceNormal, None),
        (lambda: InverseAutoregressiveFlow(steps=1, hidden=(4,), context_dim=2), None),
        (Deterministic, None),
        (DiagonalNormal, lambda: MixtureOfNormals(num_components=2)),
    ],
    ids=["full-normal", "iaf", "deterministic", "mixture"],
)
def test_what_a_posterior_or_prior_cannot_say_is_null_with_a_reason(
    splits: Splits, latent_dim: int, make_posterior: Callable[[], Posterior], prior: Callable[[], Prior] | None
) -> None:
    posterior = make_posterior()
    found = checked(measure_latents(vae(latent_dim, posterior, prior=prior and prior()), splits))
    by_dimension = latent_dim == 1
    assert (found["rates"] is None) == (not by_dimension)
    assert any(note.startswith("rates:") for note in found["notes"]) == (not by_dimension)
    surgery = [found[name] is None for name in ("mutual_information", "marginal_kl", "kl_monte_carlo")]
    assert surgery == 3 * [prior is None]
    assert any(note.startswith("mutual_information") for note in found["notes"]) == (prior is None)
    assert (found["aggregate_posterior"]["squared_deviation"] is None) == (prior is not None)
    assert found["knn_accuracy"] is not None


def test_a_conditional_prior_has_no_marginal(splits: Splits) -> None:
    found = checked(measure_latents(vae(condition=ClassLabel(classes=3), prior=ConditionalNormal()), splits))
    assert found["marginal_kl"] is found["kl_monte_carlo"] is None
    assert found["mutual_information"]["mean"] > 0
    assert {note.split(":")[0] for note in found["notes"]} == {
        "marginal_kl",
        "aggregate_posterior",
        "knn_accuracy, linear_probe_accuracy",
    }


def test_without_labels_there_are_no_probes(splits: Splits) -> None:
    bare = Splits(*(part and replace(part, labels=None) for part in splits))
    found = checked(measure_latents(vae(), bare))
    assert [found[name] for name in PROBES] == 5 * [None]


def test_one_label_cannot_be_probed(splits: Splits) -> None:
    alike = Splits(*(part and replace(part, labels=0 * part.labels) for part in splits))
    found = checked(measure_latents(vae(), alike))
    assert [found[name] for name in PROBES] == 5 * [None]
    assert "two labels" in found["notes"][0]


def test_where_nothing_was_held_out_it_says_so_and_probes_half(dataset: Dataset) -> None:
    found = checked(measure_latents(vae(), split(dataset, None, validation=0, test_size=0, holdout=False, seed=0)))
    assert (found["split"], found["held_out"], found["images"], found["probe_images"]) == ("all", False, 48, 24)
    assert "one half" in found["notes"][0]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("held_out", [True, False])
def test_few_images_are_enough(dataset: Dataset, count: int, held_out: bool) -> None:
    few = dataset.take(np.arange(count), "test" if held_out else "train")
    found = checked(measure_latents(vae(), Splits(dataset, None, few) if held_out else Splits(few, None, None)))
    assert found["images"] == count
    assert found["mutual_information_cap"] == math.log(count)
    assert (found["knn_accuracy"] is None) == (not held_out and count == 1)


def test_binarized_images_are_those_of_the_likelihood_stage(splits: Splits) -> None:
    from keras_vae.evaluation.likelihood import measure_likelihood

    model = vae(likelihood=Bernoulli(binarize="dynamic"))
    found, likelihood = measure_latents(model, splits, seed=4), measure_likelihood(model, splits, seed=4)
    assert found["kl_loss"]["mean"] == pytest.approx(likelihood["kl_loss"]["mean"], rel=1e-6)
    assert found["checksum"] == likelihood["checksum"] != splits.test.checksum


def test_progress_is_passed_what_there_is_to_do(splits: Splits) -> None:
    seen = []

    def progress(items: Any, label: str, /) -> Any:
        seen.append((label, len(items)))
        return items

    measure_latents(vae(), splits, progress=progress)
    assert seen == [("encoding images", 3), ("comparing posteriors", 1)]


def test_what_cannot_be_measured_is_refused(make_vae: Callable[..., VAE], splits: Splits) -> None:
    with pytest.raises(InputError, match="object has no vector of codes"):
        measure_latents(object(), splits)
    with pytest.raises(InputError, match="images = 0"):
        measure_latents(make_vae(), splits, images=0)
    broken = make_vae()
    broken.encoder.trainable_weights[-1].assign(np.full(3, np.nan))
    broken.encoder.trainable_weights[-3].assign(np.full(3, np.nan))
    with pytest.raises(RunError, match="not finite: the training diverged"):
        measure_latents(broken, splits)

"""The latents section of an evaluation, for small untrained models."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

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
from keras_vae.evaluation.kl_decomposition import KL_PARTS
from keras_vae.evaluation.latents import (
    dimensions_by_kl,
    evaluated_kl_per_dimension,
    kl_per_dimension,
    measure_latents,
)
from keras_vae.evaluation.per_image import StageResult
from keras_vae.networks.mlp import MLP

KEYS = {
    *(
        "data",
        "split",
        "held_out",
        "images",
        "checksum",
        "seed",
        "latent_dim",
        "kl_loss",
        "kl_per_dimension",
        "active_units",
    ),
    *KL_PARTS,
    "aggregate_posterior",
    *("knn_accuracy", "linear_probe_accuracy", "chance_accuracy", "neighbors", "probe_images", "notes"),
}
PROBES = ("knn_accuracy", "linear_probe_accuracy", "chance_accuracy", "neighbors", "probe_images")


@pytest.fixture(scope="module")
def dataset(shared_images: Array) -> Dataset:
    both = np.concatenate([shared_images, shared_images[::-1] // 2])
    return Dataset.from_arrays(both, np.arange(48) % 3, name="frames")


@pytest.fixture(scope="module")
def splits(dataset: Dataset) -> Splits:
    return split(dataset, None, validation=0, test_size=16, holdout=True, seed=0)


def vae(latent_dim: int = 3, posterior: Posterior | None = None, **kwargs: object) -> VAE:
    """Return a small model whose codes depend on the images, unlike those of a freshly initialized encoder."""
    width = 3 if "condition" in kwargs else 0
    network = MLP(widths=(8,))
    param_sizes = posterior and posterior.param_sizes(latent_dim)
    model = VAE(
        network.encoder((9, 11, 1 + width), latent_dim, param_sizes),
        network.decoder(latent_dim + width, (9, 11, 1)),
        posterior=posterior,
        seed=5,
        **kwargs,
    )
    # With this seed, all dimensions are active, but not so much that 16 images limit the mutual information.
    rng = np.random.default_rng(5)
    for weight in model.encoder.trainable_weights:
        weight.assign(rng.normal(scale=0.6, size=weight.shape))
    return model


@pytest.fixture(scope="module")
def model() -> VAE:
    return vae()


@pytest.fixture(scope="module")
def result(model: VAE, splits: Splits) -> StageResult:
    """The measurement of the model with the default settings."""
    return measure_latents(model, splits)


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers_in(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers_in(inner)]
    return [value] if isinstance(value, float) else []


def validated(section: dict[str, Any]) -> dict[str, Any]:
    """Return a section after checking that it is JSON with all keys and finite numbers."""
    assert set(section) == KEYS
    assert json.loads(json.dumps(section, allow_nan=False)) == section
    assert all(map(math.isfinite, numbers_in(section)))
    return section


def test_the_section_holds_every_number(model: VAE, splits: Splits) -> None:
    test = splits.test
    found = validated(measure_latents(model, splits, seed=3).section)
    assert (found["split"], found["held_out"], found["images"], found["seed"]) == ("test", True, 16, 3)
    assert found["checksum"] == test.checksum
    assert found["notes"] == []

    z_mean, z_log_var = (values.astype("float64") for values in model.encode(test.images)[:2])
    kl = 0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var)
    order = np.argsort(-kl.mean(0))
    assert [one["dimension"] for one in found["kl_per_dimension"]] == order.tolist()
    for column, key in ((kl.mean(0), "mean"), (kl.std(0, ddof=1) / 4, "standard_error")):
        np.testing.assert_allclose([one[key] for one in found["kl_per_dimension"]], column[order], rtol=1e-4)
    assert found["kl_loss"]["mean"] == pytest.approx(kl.sum(1).mean(), rel=1e-5)
    assert found["active_units"]["dimensions"] == np.flatnonzero(z_mean.var(0) > 0.01).tolist() != []

    z = model.sample_posterior(test.images, seed=3).astype("float64")
    sampled = (stats.norm.logpdf(z, z_mean, np.exp(z_log_var / 2)) - stats.norm.logpdf(z)).sum(1)
    assert found["kl_monte_carlo"]["mean"] == pytest.approx(sampled.mean(), abs=1e-4)
    assert 0 < found["mutual_information_bounds"]["lower"]["mean"] < math.log(16)
    np.testing.assert_allclose(found["aggregate_posterior"]["mean"], z.mean(0), rtol=1e-5, atol=1e-6)
    assert (found["neighbors"], found["probe_images"]) == (10, 32)
    assert all(0 <= found[name]["mean"] <= 1 for name in PROBES[:3])


def test_the_hits_of_the_probes_have_the_accuracy_as_mean(result: StageResult) -> None:
    assert set(result.per_image) == {"knn_accuracy", "linear_probe_accuracy"}
    for name, hits in result.per_image.items():
        assert hits.shape == (16,)
        assert hits.mean() == pytest.approx(result.section[name]["mean"])


def test_kl_per_dimension_orders_the_dimensions(model: VAE, splits: Splits, result: StageResult) -> None:
    test = splits.test
    z_mean, z_log_var = (values.astype("float64") for values in model.encode(test.images)[:2])
    kl = (0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var)).mean(0)
    found = kl_per_dimension(model, test)
    np.testing.assert_allclose(found, kl, rtol=1e-4)
    np.testing.assert_allclose(evaluated_kl_per_dimension({"latents": result.section}), kl, rtol=1e-4)
    assert dimensions_by_kl(found, lambda: z_mean).tolist() == np.argsort(-kl).tolist()


def test_the_variance_of_the_means_orders_dimensions_without_kl(splits: Splits) -> None:
    model = vae(posterior=Deterministic())
    assert kl_per_dimension(model, splits.test) is None
    assert evaluated_kl_per_dimension({"latents": measure_latents(model, splits).section}) is None
    assert evaluated_kl_per_dimension(None) is None
    wave = np.tile([1.0, -1.0], 5)
    assert dimensions_by_kl(None, lambda: np.stack([wave, 3 * wave, 2 * wave], 1)).tolist() == [1, 2, 0]


def test_the_monte_carlo_kl_is_the_sum_of_its_parts(result: StageResult) -> None:
    found = result.section
    for first, second in (("lower", "upper"), ("upper", "lower")):
        parts = found["mutual_information_bounds"][first]["mean"] + found["marginal_kl_bounds"][second]["mean"]
        assert found["kl_monte_carlo"]["mean"] == pytest.approx(parts, abs=1e-12)


def test_the_seed_fixes_the_numbers(model: VAE, splits: Splits) -> None:
    first, again, other = (measure_latents(model, splits, seed=seed, images=9).section for seed in (1, 1, 2))
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
def test_numbers_that_a_posterior_or_prior_lacks_are_null_with_a_note(
    splits: Splits, latent_dim: int, make_posterior: Callable[[], Posterior], prior: Callable[[], Prior] | None
) -> None:
    posterior = make_posterior()
    found = validated(measure_latents(vae(latent_dim, posterior, prior=prior and prior()), splits).section)
    by_dimension = latent_dim == 1
    assert (found["kl_per_dimension"] is None) == (not by_dimension)
    assert any(note.startswith("kl_per_dimension:") for note in found["notes"]) == (not by_dimension)
    decomposition = [
        found[name] is None for name in ("mutual_information_bounds", "marginal_kl_bounds", "kl_monte_carlo")
    ]
    assert decomposition == 3 * [prior is None]
    assert any(note.startswith("mutual_information") for note in found["notes"]) == (prior is None)
    assert (found["aggregate_posterior"]["squared_deviation"] is None) == (prior is not None)
    assert found["knn_accuracy"] is not None


def test_a_conditional_prior_has_no_marginal_kl(splits: Splits) -> None:
    found = validated(measure_latents(vae(condition=ClassLabel(classes=3), prior=ConditionalNormal()), splits).section)
    assert found["marginal_kl"] is found["marginal_kl_bounds"] is found["kl_monte_carlo"] is None
    assert found["mutual_information_bounds"]["lower"]["mean"] > 0
    assert {note.split(":")[0] for note in found["notes"]} == {
        "marginal_kl",
        "aggregate_posterior",
        "knn_accuracy, linear_probe_accuracy",
    }


def test_without_labels_there_are_no_probes(model: VAE, splits: Splits) -> None:
    bare = Splits(*(part and replace(part, labels=None) for part in splits))
    found = validated(measure_latents(model, bare).section)
    assert [found[name] for name in PROBES] == 5 * [None]


def test_a_single_label_has_no_probes(model: VAE, splits: Splits) -> None:
    alike = Splits(*(part and replace(part, labels=0 * part.labels) for part in splits))
    found = validated(measure_latents(model, alike).section)
    assert [found[name] for name in PROBES] == 5 * [None]
    assert "fewer than two classes" in found["notes"][0]


def test_without_held_out_images_probes_use_one_half(model: VAE, dataset: Dataset) -> None:
    found = validated(
        measure_latents(model, split(dataset, None, validation=0, test_size=0, holdout=False, seed=0)).section
    )
    assert (found["split"], found["held_out"], found["images"], found["probe_images"]) == ("all", False, 48, 24)
    assert "one half" in found["notes"][0]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("held_out", [True, False])
def test_very_few_images_suffice(model: VAE, dataset: Dataset, count: int, held_out: bool) -> None:
    few = dataset.subset(np.arange(count), "test" if held_out else "train")
    found = validated(
        measure_latents(model, Splits(dataset, None, few) if held_out else Splits(few, None, None)).section
    )
    assert found["images"] == count
    assert (found["mutual_information_bounds"] is None) == (count == 1)
    assert (found["knn_accuracy"] is None) == (not held_out and count == 1)


def test_images_are_binarized_as_in_the_likelihood_stage(splits: Splits) -> None:
    from keras_vae.evaluation.likelihood import measure_likelihood

    model = vae(likelihood=Bernoulli(binarize="dynamic"))
    found, likelihood = (
        measure_latents(model, splits, seed=4).section,
        measure_likelihood(model, splits, seed=4).section,
    )
    assert found["kl_loss"]["mean"] == pytest.approx(likelihood["kl_loss"]["mean"], rel=1e-6)
    assert found["checksum"] == likelihood["checksum"] != splits.test.checksum


def test_progress_covers_encoding_and_comparing(model: VAE, splits: Splits) -> None:
    seen = []

    def progress(items: Any, label: str, /) -> Any:
        seen.append((label, len(items)))
        return items

    measure_latents(model, splits, progress=progress)
    assert seen == [("encoding images", 3), ("comparing posteriors", 1)]


def test_models_and_counts_that_cannot_be_measured_are_errors(make_vae: Callable[..., VAE], splits: Splits) -> None:
    with pytest.raises(InputError, match="model = SimpleNamespace: its codes are not vectors"):
        measure_latents(SimpleNamespace(has_latent_vector=False), splits)
    broken = make_vae()
    with pytest.raises(InputError, match="images = 0"):
        measure_latents(broken, splits, images=0)
    broken.encoder.trainable_weights[-1].assign(np.full(3, np.nan))
    broken.encoder.trainable_weights[-3].assign(np.full(3, np.nan))
    with pytest.raises(RunError, match="NaN or infinite: the training diverged"):
        measure_latents(broken, splits)

"""Fitting of the flow-matching prior: it learns distributions, and commands use it or refuse in one line."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from helpers import on_tensorflow, randomize
from keras_vae import VAE, InputError, Run, evaluate, fit_prior, load
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.priors import FlowMatching
from keras_vae.core.progress import reporting
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.anomaly import Scorer
from keras_vae.integrations.export.exporter import export
from keras_vae.integrations.export.graphs import trace
from keras_vae.runs.loading import load_scoring_model
from keras_vae.training.flow_fitting import CodeBatches, fit_flow, stratified_times

SPEC = {"name": "flow-matching", "width": 8, "num_blocks": 1, "steps": 3}


class TwoClusters:
    """A model whose codes are normal around −1.5 for class 0 and around 1.5 for class 1."""

    condition, posterior = ClassLabel(classes=2), None

    def sample_posterior(self, x: object, *, seed: int, condition: object) -> object:
        centers = np.where(np.asarray(condition) == 1, 1.5, -1.5)
        return (centers[:, None] + np.random.default_rng(seed).normal(size=(len(centers), 1))).astype("float32")


def fit_clusters(seed: int, epochs: int) -> FlowMatching:
    """Fit a prior to two clusters in one dimension."""
    keras.utils.set_random_seed(seed)
    prior = FlowMatching(width=32, num_blocks=1, steps=10)
    prior.build((None, 1), (None, 2, 2, 1), (None, 2))
    images = Dataset.from_arrays(np.full((2048, 2, 2, 1), 200, "uint8"), np.arange(2048) % 2, name="blank")
    fit_flow(prior, TwoClusters(), images, epochs, seed, lambda items, label: items)
    return prior


def test_fit_learns_the_distribution_given_each_condition_and_depends_on_the_seed_only() -> None:
    prior = fit_clusters(1, epochs=150)
    inputs = {"noise": np.random.default_rng(0).normal(size=(2000, 1)).astype("float32")}
    scale, mean = (ops.convert_to_numpy(weight) for weight in (prior.scale, prior.mean))
    for label, center in enumerate((-1.5, 1.5)):
        condition = np.tile(np.eye(2, dtype="float32")[label], (2000, 1))
        drawn = ops.convert_to_numpy(prior.compiled_transform({**inputs, "condition": condition})) * scale + mean
        assert drawn.mean() == pytest.approx(center, abs=0.25)
        assert drawn.std() == pytest.approx(1.0, abs=0.25)
    again = [fit_clusters(1, epochs=2).get_weights() for _ in range(2)]
    for first, second in zip(*again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_times_of_a_batch_are_evenly_spaced_and_each_is_uniform() -> None:
    generator = keras.random.SeedGenerator(3)
    times = np.stack([ops.convert_to_numpy(stratified_times(8, generator))[:, 0] for _ in range(200)])
    np.testing.assert_array_equal(np.sort(times * 8, axis=1).astype(int), np.tile(np.arange(8), (200, 1)))
    for column in times.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3


def test_fitted_run_samples_evaluates_and_refuses_what_needs_many_densities(trained_run: Run, splits: Splits) -> None:
    before = trained_run.load_model().get_weights()
    result = fit_prior(trained_run, SPEC, splits, epochs=1)
    assert set(result) == {"original", "fitted"}
    assert np.isfinite(result["fitted"]["negative_elbo"]["mean"])
    model, original = load(trained_run), trained_run.load_model("original")
    for first, second in zip(before, original.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(model.sample(3, seed=2), model.sample(3, seed=2))
    assert np.abs(model.sample(3, seed=2) - original.sample(3, seed=2)).max() > 1e-3
    found = evaluate(trained_run, splits, stages=["likelihood"])["likelihood"]
    assert "nll" not in found
    assert found["notes"] == [
        "nll: left out: this prior solves an ODE for each draw; measure it under the original prior"
    ]
    scored, note = load_scoring_model(trained_run)
    assert scored.density == "direct"
    assert note == "scores use the original prior, because the fitted one has no direct log-density"


def test_graph_of_the_sampler_equals_the_model(make_vae: Callable[..., VAE]) -> None:
    for latent_dim, shape in ((3, ()), (72, (6, 6, 2))):
        prior = FlowMatching(width=8, num_blocks=1, steps=2, map_shape=shape)
        vae = make_vae(latent_dim=latent_dim, prior=prior)
        noise = np.random.default_rng(0).normal(size=(5, latent_dim)).astype("float32")
        sampler = trace(vae).networks["sampler"]
        found = sampler.predict({"noise": noise}, verbose=0)["mean_images"]
        expected = ops.convert_to_numpy(vae.generate_from_noise(ops.convert_to_tensor(noise), None))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_model_without_a_density_samples_and_refuses_bounds_in_one_line(
    make_vae: Callable[..., VAE], images: Array
) -> None:
    vae = make_vae(latent_dim=65, prior=FlowMatching(width=8, num_blocks=1, steps=2))
    assert vae.sample(2, seed=0).shape == (2, 9, 11, 1)
    assert vae.reconstruct(images[:2]).shape == (2, 9, 11, 1)
    assert not vae.has_bound
    vae.compile("adam")
    calls: list[Callable[[], object]] = [
        lambda: vae.elbo(images),
        lambda: vae.log_likelihood(images, samples=2),
        lambda: vae.fit(images, verbose=0),
        lambda: vae.evaluate(images, verbose=0),
        lambda: Scorer.fit(vae, images),
    ]
    for call in calls:
        with pytest.raises(
            InputError, match="prior = FlowMatching: no log-density in 65 dimensions, only samples; use"
        ):
            call()


def test_fit_that_is_interrupted_leaves_the_run_as_it_was(trained_run: Run, splits: Splits) -> None:
    def interrupt(items: Iterable[object], label: str) -> Iterator[object]:
        for index, item in enumerate(items):
            if index > 0:
                raise KeyboardInterrupt
            yield item

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in trained_run.path.glob("*.*") if path.name != ".lock"}

    fit_prior(trained_run, SPEC, splits, epochs=1)
    before = files()
    assert "fitted.keras" in before
    with pytest.raises(KeyboardInterrupt):
        fit_prior(trained_run, SPEC, splits, epochs=2, progress=interrupt)
    assert files() == before
    assert load(trained_run).sample(2, seed=0).shape == (2, 9, 11, 1)


def test_codes_report_their_progress_within_the_context_only(make_vae: Callable[..., VAE]) -> None:
    vae = make_vae(latent_dim=64, prior=FlowMatching(width=8, num_blocks=1, steps=2))
    counts: dict[str, int] = {}

    def count(items: Iterable[object], label: str) -> Iterator[object]:
        for item in items:
            counts[label] = counts.get(label, 0) + 1
            yield item

    with reporting(count):
        images = vae.sample(1100, seed=0)
    # 2¹⁵ values at once are 512 codes of 64 dimensions.
    assert counts["drawing codes"] == 3
    again = dict(counts)
    np.testing.assert_array_equal(vae.sample(1100, seed=0), images)
    assert counts == again


def test_invalid_fits_are_rejected(trained_run: Run, splits: Splits) -> None:
    with pytest.raises(InputError, match=r"guidance = 2\.0: the model has no condition to guide to"):
        fit_prior(trained_run, {**SPEC, "guidance": 2.0}, splits)
    with pytest.raises(InputError, match="epochs = 0: not a positive integer"):
        fit_prior(trained_run, SPEC, splits, epochs=0)
    assert not trained_run.has_fitted_prior


def test_export_leaves_out_the_score(make_vae: Callable[..., VAE], tmp_path: Path) -> None:
    folder = export(make_vae(prior=FlowMatching(width=8, num_blocks=1, steps=2)), "keras", tmp_path / "out")
    assert "its prior has no log-density" in (folder / "manifest.json").read_text()


@on_tensorflow("TensorFlow's graphs are those that are converted")
def test_sampler_of_maps_is_written_to_onnx(make_vae: Callable[..., VAE], tmp_path: Path) -> None:
    for module in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(module)
    vae = make_vae(latent_dim=72, prior=FlowMatching(width=16, steps=2, map_shape=(6, 6, 2)))
    randomize(vae.prior, 0.2)
    # The export compares the images with those of the model.
    assert (export(vae, "onnx", tmp_path / "out") / "sampler.onnx").is_file()


def test_codes_of_each_pass_are_new_draws_from_the_posterior(make_vae: Callable[..., VAE], images: Array) -> None:
    vae = make_vae()
    batches = CodeBatches(vae, Dataset.from_arrays(images, name="frames"), 0)
    encoding = vae.encode(images)
    mean, deviation = encoding.z_mean, np.exp(0.5 * encoding.z_log_var)
    draws = []
    for _ in range(400):
        draws.append((batches.codes - mean) / deviation)
        batches.on_epoch_end()
    assert np.abs(np.mean(draws, axis=0)).max() < 5 / np.sqrt(400)
    np.testing.assert_allclose(np.std(draws, axis=0), 1.0, atol=0.2)
    # Each batch of the pass is full, and together they contain every code.
    rows = np.concatenate([batches[index][0]["codes"] for index in range(len(batches))])
    assert len(rows) == 512 * len(batches)
    assert {row.tobytes() for row in rows} == {code.tobytes() for code in batches.codes}

"""The doctor on small models whose weights are set by hand, so that each has one known defect."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.evaluation.diagnostics import Finding, collect_diagnostics, current_evaluation, diagnose, run_checks
from keras_vae.evaluation.latents import active_units
from keras_vae.models.vae import VAE
from keras_vae.runs.build import build, resolve
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.training.trainer import describe_environment

LATENT_DIM, OFFSET = 3, 5.0
CONVERGED = {name: [7.01, 7.0, 7.0] for name in ("total_loss", "val_total_loss")} | {"epoch": [1.0, 2.0, 3.0]}


@pytest.fixture
def splits() -> Splits:
    """Black and white images of 4×4 pixels, with three labels."""
    generator = np.random.default_rng(1)
    pixels = np.where(generator.random((200, 4, 4, 1)) < 0.5, 255, 0).astype("uint8")
    train, test = (Dataset.from_arrays(part, np.arange(100) % 3, name="dots") for part in (pixels[:100], pixels[100:]))
    return Splits(train, None, test)


def weights(model: VAE, network: str) -> list[Any]:
    return sorted(getattr(model, network).weights, key=lambda weight: weight.path)


def make_healthy(model: VAE) -> None:
    """Let every code and every image depend on its input: large random weights."""
    generator = np.random.default_rng(2)
    for weight in (*weights(model, "encoder"), *weights(model, "decoder")):
        scale = 0.0 if "bias" in weight.path or "z_log_var" in weight.path else 1.0
        weight.assign(scale * generator.standard_normal(weight.shape))


def find(model: VAE, network: str, path: str) -> Any:
    return next(weight for weight in weights(model, network) if path in weight.path)


def move_codes_to_one_spot(model: VAE, dimensions: slice = slice(None)) -> None:
    """Give all images the same code, at a distance of `OFFSET` from the prior's center."""
    kernel = find(model, "encoder", "z_mean/kernel")
    value, bias = np.array(kernel), np.zeros(LATENT_DIM)
    value[:, dimensions], bias[dimensions] = 0, OFFSET
    kernel.assign(value)
    find(model, "encoder", "z_mean/bias").assign(bias)


def ignore_codes(model: VAE) -> None:
    for weight in weights(model, "decoder"):
        weight.assign(np.zeros(weight.shape))


def ignore_labels(model: VAE) -> None:
    first = next(weight for weight in model.decoder.weights if weight.shape[0] == LATENT_DIM + 3)
    value = np.array(first)
    value[LATENT_DIM:] = 0
    first.assign(value)


def become_nan(model: VAE) -> None:
    kernel = model.decoder.weights[-1]
    kernel.assign(np.full(kernel.shape, np.nan))


def run_of(folder: Path, splits: Splits, *settings: str, metrics: Mapping[str, list[float]] = CONVERGED) -> Run:
    overrides = ['model.network={ name = "mlp", widths = [8] }', f"model.latent_dim={LATENT_DIM}", "training.epochs=3"]
    info = DatasetInfo.from_splits(splits)
    resolved = resolve(Experiment.preset("classic").with_overrides([*overrides, *settings]), info)
    run = Run.create(folder / "run", resolved.experiment, describe_environment(splits, info))
    run.write_metrics({name: list(values) for name, values in metrics.items()})
    return run


def model_of(run: Run, splits: Splits, *defects: Callable[[VAE], None]) -> VAE:
    model: Any = build(resolve(run.experiment, DatasetInfo.from_splits(splits)))
    for defect in (make_healthy, *defects):
        defect(model)
    return model


def names(findings: Sequence[Finding]) -> list[str]:
    return [finding.name for finding in findings]


def findings_of(
    folder: Path, splits: Splits, *defects: Callable[[VAE], None], setting: str = "seed=0"
) -> list[Finding]:
    """Return the findings about the model; the distance from the prior is tested elsewhere."""
    run = run_of(folder, splits, setting)
    found = run_checks(collect_diagnostics(run, splits, model_of(run, splits, *defects)))
    return [finding for finding in found if finding.name != "codes far from the prior"]


LABELS = "model.condition=label"


@pytest.mark.parametrize("setting", ["seed=0", LABELS])
def test_a_model_that_uses_its_codes_and_labels_has_no_findings(tmp_path: Path, splits: Splits, setting: str) -> None:
    assert findings_of(tmp_path, splits, setting=setting) == []


def test_codes_in_one_spot_away_from_the_prior_are_unused(tmp_path: Path, splits: Splits) -> None:
    (finding,) = findings_of(tmp_path, splits, move_codes_to_one_spot)
    assert finding.name == "posterior collapse"
    assert "All 3 latent dimensions are unused" in finding.observation
    # Each of the three costs 5²/2 nats.
    cost = re.search(r"cost (\S+) nats per image", finding.observation)
    assert cost is not None
    assert float(cost[1]) == pytest.approx(LATENT_DIM * OFFSET**2 / 2, rel=0.01)


def test_a_dimension_with_a_constant_offset_is_unused(tmp_path: Path, splits: Splits) -> None:
    def move_the_second(model: VAE) -> None:
        move_codes_to_one_spot(model, slice(1, 2))

    (finding,) = findings_of(tmp_path, splits, move_the_second)
    assert finding.name == "unused latent dimensions"
    assert "dimension 1 (counted from 0) is unused; 2 of 3 are used" in finding.observation


def test_a_decoder_that_ignores_codes_is_found(tmp_path: Path, splits: Splits) -> None:
    (finding,) = findings_of(tmp_path, splits, ignore_codes)
    assert finding.name == "identical reconstructions"
    assert "their variance is 0.0% of the variance of the images" in finding.observation


def test_a_decoder_that_ignores_labels_is_found(tmp_path: Path, splits: Splits) -> None:
    (finding,) = findings_of(tmp_path, splits, ignore_labels, setting=LABELS)
    assert finding.name == "ignored condition"
    assert "by only 0.00% of the variance" in finding.observation


def test_nan_outputs_are_found(tmp_path: Path, splits: Splits) -> None:
    assert names(findings_of(tmp_path, splits, become_nan)) == ["non-finite gradients"]


def test_shares_are_ratios_of_variances(tmp_path: Path, splits: Splits) -> None:
    run = run_of(tmp_path, splits, LABELS)
    model = model_of(run, splits)
    diagnostics = collect_diagnostics(run, splits, model)
    assert splits.test is not None
    assert splits.test.labels is not None
    images, labels = splits.test.images, splits.test.labels
    codes = model.encode(images, condition=labels).z_mean
    decoded: Array = model.decode(codes, condition=labels[0])
    expected = decoded.var(axis=0).sum() / (images / 255).var(axis=0).sum()
    assert diagnostics.reconstruction_share == pytest.approx(expected, rel=1e-4)
    assert diagnostics.z_mean is not None
    assert np.flatnonzero(~diagnostics.unused).tolist() == active_units(diagnostics.z_mean)["dimensions"]  # type: ignore[operator]


def test_images_of_one_label_say_nothing_about_labels(tmp_path: Path, splits: Splits) -> None:
    run = run_of(tmp_path, splits, LABELS)
    assert splits.test is not None
    assert splits.test.labels is not None
    alike = splits._replace(test=splits.test.subset(np.flatnonzero(splits.test.labels == 1), "test"))
    assert collect_diagnostics(run, alike, model_of(run, splits)).condition_share is None


def test_the_evaluation_is_read_if_it_belongs_to_the_weights(tmp_path: Path, splits: Splits) -> None:
    run = run_of(tmp_path, splits)
    run.complete(model_of(run, splits))
    assert current_evaluation(run) == {}
    assert "posterior collapse" not in names(diagnose(run, splits))
    latents = {"latent_dim": LATENT_DIM, "active_units": {"count": 0, "dimensions": [], "threshold": 0.01}}
    fingerprint = run.model_fingerprint()
    run.write_evaluation({"model": {**fingerprint, "checksum": "of other weights"}, "latents": latents})
    assert current_evaluation(run) == {}
    run.write_evaluation({"model": fingerprint, "latents": latents})
    assert current_evaluation(run)["latents"] == latents
    # The evaluation measured more images than the doctor does, and its verdict counts.
    assert "unused" in str(run_checks(collect_diagnostics(run, splits, None)))

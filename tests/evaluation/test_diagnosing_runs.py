"""Diagnostics of trained runs, and the doctor callback during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.components.likelihoods import Normal
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation.diagnostics import Finding, collect_diagnostics, diagnose, run_checks
from keras_vae.evaluation.diagnostics.run_diagnostics import _pixel_scale
from keras_vae.networks import Conv
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.training import trainer
from keras_vae.training.callbacks import ShowFindings

EPOCHS = 12
DIGITS = [
    "data.source=digits",
    'model.network={ name = "mlp", widths = [64] }',
    "training.batch_size=50",
    "training.learning_rate=5e-3",
    f"training.epochs={EPOCHS}",
]

needs_fast_training = on_tensorflow("problems do not depend on the backend, and TensorFlow trains fast")


def experiment(*settings: str, preset: str = "classic") -> Experiment:
    return Experiment.preset(preset).with_overrides([f"training.epochs={EPOCHS}", *settings])


def names(findings: Sequence[Finding]) -> list[str]:
    return [finding.name for finding in findings]


@pytest.fixture(scope="module")
def digits() -> Splits:
    return sources.load_splits(experiment(*DIGITS).data)[0]


class Reported(list[str]):
    """The names of the findings during a training, and its model, which is compiled already."""

    model: Any = None

    def __call__(self, finding: Finding) -> None:
        self.append(finding.name)


def train(splits: Splits, out: Path, *settings: str, preset: str = "classic") -> tuple[Run, Reported]:
    reported, run = Reported(), Run(out / "run")

    def check(model: Any) -> Sequence[Finding]:
        reported.model = model or reported.model
        return run_checks(collect_diagnostics(run, splits, model, images=128))

    live = ShowFindings(check, reported)
    trainer.train(experiment(*settings, preset=preset), splits, run.path, callbacks=[live])
    return run, reported


@needs_fast_training
def test_a_healthy_run_has_no_findings(digits: Splits, tmp_path: Path) -> None:
    run, reported = train(digits, tmp_path, *DIGITS)
    # Twelve epochs keep the test fast, but may be too few for the digits.
    assert {*names(diagnose(run, digits))} <= {"under-training"}
    assert reported == []


@needs_fast_training
def test_a_large_beta_is_reported_during_and_after_training(digits: Splits, tmp_path: Path) -> None:
    run, reported = train(digits, tmp_path, *DIGITS, "model.objective.beta=200.0", "model.latent_dim=4")
    assert {"posterior collapse", "β too large", "loss plateau"} >= {*reported} >= {"posterior collapse"}
    assert len(reported) == len({*reported})
    findings = {finding.name: finding for finding in diagnose(run, digits)}
    assert findings.keys() >= {"posterior collapse", "β too large"}
    assert "All 4" in findings["posterior collapse"].observation


@needs_fast_training
def test_a_small_beta_leaves_codes_far_from_the_prior(digits: Splits, tmp_path: Path) -> None:
    run, _ = train(digits, tmp_path, *DIGITS, "model.objective.beta=0.01")
    labels: list[str] = []

    def progress(items: Sequence[Array], label: str) -> Sequence[Array]:
        labels.append(label)
        return items

    assert {*names(diagnose(run, digits, progress=progress))} - {"under-training"} == {"codes far from the prior"}
    assert labels == ["encoding images"]


@needs_fast_training
def test_a_tiny_learning_rate_is_reported_as_a_plateau(digits: Splits, tmp_path: Path) -> None:
    run, reported = train(digits, tmp_path, *DIGITS, "training.learning_rate=1e-9", "training.epochs=8")
    assert names(diagnose(run, digits)) == reported == ["loss plateau"]


@needs_fast_training
def test_memorized_noise_is_reported_as_overfitting(tmp_path: Path) -> None:
    noise = Dataset.from_arrays(np.random.default_rng(0).random((48, 6, 6)) < 0.3, name="noise")
    splits = split(noise, None, validation=16, test_size=16, holdout=True, seed=0)
    settings = ["training.batch_size=16", "training.learning_rate=1e-2", "training.epochs=40", "model.latent_dim=8"]
    run, reported = train(splits, tmp_path, 'model.network={ name = "mlp", widths = [64] }', *settings)
    # On noise the model may also be no better than the mean image, which is reported as well.
    assert "overfitting" in names(diagnose(run, splits))
    assert "overfitting" in reported


SMALL = ["model.network.widths=[2, 3]", "training.epochs=1", "training.batch_size=8"]


@pytest.fixture
def frames(images: Array) -> Splits:
    dataset = Dataset.from_arrays(images, np.arange(24) % 3, name="frames")
    return split(dataset, None, validation=4, test_size=4, holdout=True, seed=0)


@on_tensorflow("the collected facts are tested on every backend; here they are only checked")
@pytest.mark.parametrize(
    "settings",
    [
        ["model.posterior=deterministic"],
        ["model.prior=realnvp", "model.likelihood=normal"],
        ["model.condition=label", 'model.objective.schedule={ name = "warm-up", steps = 0.5 }'],
    ],
)
def test_every_kind_of_vae_provides_its_facts(frames: Splits, tmp_path: Path, settings: list[str]) -> None:
    run, reported = train(frames, tmp_path, *SMALL, *settings)
    diagnostics = collect_diagnostics(run, frames, reported.model)
    assert diagnostics.z is not None
    assert diagnostics.unused is not None
    assert diagnostics.z.shape == (4, 2)
    assert diagnostics.unused.shape == (2,)
    assert (diagnostics.kl_per_group is None) == (diagnostics.z_log_var is None) == ("deterministic" in settings[0])
    assert (diagnostics.pixel_scale is None) == ("realnvp" not in settings[0])
    assert diagnostics.beta_factor == 1
    run_checks(diagnostics)


@pytest.mark.slow
@needs_fast_training
def test_hierarchical_and_vq_models_provide_their_facts(frames: Splits, tmp_path: Path) -> None:
    ladder = ["model.architecture.widths=[2, 3]", "model.architecture.groups=[1, 1]", "training.epochs=1"]
    run, reported = train(frames, tmp_path / "ladder", *ladder, "training.batch_size=8", preset="ladder")
    diagnostics = collect_diagnostics(run, frames, reported.model)
    assert diagnostics.kl_per_group is not None
    assert diagnostics.kl_per_group.shape == (4, 2)
    run_checks(diagnostics)
    tiny = ("model.architecture.prior_width=4", "model.architecture.prior_blocks=1")
    run, reported = train(frames, tmp_path / "vq", *SMALL, *tiny, preset="vq")
    diagnostics = collect_diagnostics(run, frames, reported.model)
    assert diagnostics.kl_per_group is diagnostics.z is None
    assert diagnostics.history("used_codes")
    assert diagnostics.code_counts is not None
    assert diagnostics.code_counts.shape[1] == 64
    run_checks(diagnostics)


@on_tensorflow("images are checked without a backend")
def test_images_are_checked_before_the_first_epoch(tmp_path: Path) -> None:
    gray = Dataset.from_arrays(np.random.default_rng(3).integers(0, 256, (200, 4, 4, 1)).astype("uint8"), name="gray")
    splits = split(gray, None, validation=8, test_size=8, holdout=True, seed=0)
    run, reported = train(splits, tmp_path, *SMALL)
    assert reported == ["unsuitable likelihood"]
    # Without a model, only images and metrics are checked.
    (run.path / "model.keras").unlink()
    assert names(diagnose(run, splits)) == reported


def test_the_doctor_callback_does_not_change_the_training(frames: Splits, tmp_path: Path) -> None:
    settings = [*SMALL, "training.epochs=3", 'model.likelihood={ name = "bernoulli", binarize = "dynamic" }']
    watched, _ = train(frames, tmp_path, *settings)
    alone = trainer.train(experiment(*settings), frames, tmp_path / "alone")
    weights = zip(watched.load_model().get_weights(), alone.load_model().get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in weights)


def test_the_pixel_scale_is_the_one_that_the_likelihood_uses() -> None:
    network = Conv(widths=(2,), dense_units=2)
    vae = VAE(network.encoder((4, 4, 1), 2), network.decoder(2, (4, 4, 1)), likelihood=Normal(scale="learned"), seed=0)
    vae.likelihood.log_scale.assign(-8.0)
    view = vae.likelihood(ops.zeros((1, 4, 4, 1)))
    # The density of a pixel at its mean is 1/(σ√2π).
    density = float(view.log_prob(ops.zeros((1, 4, 4, 1)))[0]) / 16
    assert _pixel_scale(vae) == pytest.approx(np.exp(-density) / np.sqrt(2 * np.pi), rel=1e-4)


def test_runs_are_diagnosed_by_run_path_or_name(
    frames: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "frames.npz"
    np.savez(source, x_train=frames.train.images)
    settings = experiment(*SMALL, f"data.source={source}", "data.validation=4", "data.test=4")
    run = trainer.train(settings, out=tmp_path / "run")
    model = run.load_model()
    # Every load would compile the model again.
    monkeypatch.setattr(Run, "load_model", lambda self, prior=None: model)
    findings = diagnose(run)
    assert diagnose(run.path) == diagnose(str(run.path)) == findings
    with pytest.raises(InputError, match="does not exist; train a run"):
        diagnose("nowhere")

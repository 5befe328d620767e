"""Validation during training: its values are those of the kept model, and select the best epoch."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from helpers import small
from keras_vae.components.objectives import ELBOTerms, Objective
from keras_vae.core.errors import RunError
from keras_vae.core.registry import register
from keras_vae.core.typing import Tensor
from keras_vae.data.dataset import Splits
from keras_vae.models.inputs import dataset_inputs
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import MONITORED
from keras_vae.runs.run import Run
from keras_vae.training.batches import validation_batch_size
from keras_vae.training.trainer import train
from keras_vae.training.validation import set_validation_noise


def validate_again(run: Run, splits: Splits) -> dict[str, float]:
    """Return the validation losses of the model in a run, with the noise of its training."""
    model = run.load_model()
    set_validation_noise(model, run.experiment.seed)
    size = validation_batch_size(model, len(splits.validation))
    inputs = dataset_inputs(model, splits.validation)
    return model.evaluate(inputs, batch_size=size, verbose=0, return_dict=True)


FOLLOWERS = ("training.early_stopping=2", "training.plateau.patience=1")
AVERAGED, SKIPPING, BEST = "training.ema_window=0.5", "training.skip_non_finite=true", "training.keep=best"
SETTINGS = [
    (AVERAGED, SKIPPING, BEST, *FOLLOWERS),
    (AVERAGED, "model.objective={name='iwae', samples=3}", BEST),
]
MORE_SETTINGS = [
    (),
    (BEST,),
    (SKIPPING, BEST),
    (AVERAGED,),
    (AVERAGED, BEST, *FOLLOWERS),
    (AVERAGED, SKIPPING),
    (AVERAGED, SKIPPING, "training.precision=mixed_bfloat16"),
]


@pytest.mark.parametrize(
    "settings",
    [*SETTINGS, *(pytest.param(settings, marks=pytest.mark.slow) for settings in MORE_SETTINGS)],
    ids=lambda settings: " ".join(settings) or "default",
)
def test_metrics_are_those_of_the_kept_model(settings: tuple[str, ...], splits: Splits, tmp_path: Path) -> None:
    run = train(small("training.learning_rate=0.05", *settings), splits, tmp_path / "run")
    losses, metrics = validate_again(run, splits), run.metrics
    epoch = int(np.argmin(metrics[MONITORED])) if BEST in settings else -1
    assert metrics[MONITORED].count(metrics[MONITORED][epoch]) == 1
    for name, value in losses.items():
        assert metrics[f"val_{name}"][epoch] == pytest.approx(value, rel=1e-5)


def test_ladder_preset_validates_the_averaged_weights(splits: Splits, tmp_path: Path) -> None:
    tiny = "{name = 'ladder', widths = [2, 3], groups = [0, 1], latent_channels = 1}"
    settings = [f"model.architecture={tiny}", "training.epochs=2", "training.batch_size=8", "training.ema_window=0.9"]
    experiment = Experiment.preset("ladder").with_overrides([*settings, "training.learning_rate=0.05"])
    assert experiment.training.skip_non_finite
    run = train(experiment, splits, tmp_path / "run")
    assert run.metrics[MONITORED][-1] == pytest.approx(validate_again(run, splits)["total_loss"], rel=1e-5)


def test_all_epochs_are_validated_with_the_same_noise(splits: Splits, tmp_path: Path) -> None:
    frozen = small("training.learning_rate=1e-30", "model.likelihood.binarize=dynamic", "training.epochs=3")
    metrics = train(frozen, splits, tmp_path / "run").metrics
    assert len(set(metrics["val_reconstruction_loss"])) == 1
    assert len(set(metrics["reconstruction_loss"])) == 3


def test_validation_loss_is_the_objective_without_annealing(splits: Splits, tmp_path: Path) -> None:
    annealed = "model.objective={name='elbo', beta=3.0, schedule={name='warm-up', steps=1000}}"
    metrics = {
        name: np.array(values) for name, values in train(small(annealed), splits, tmp_path / "run").metrics.items()
    }
    expected = metrics["val_reconstruction_loss"] + 3 * metrics["val_kl_loss"]
    np.testing.assert_allclose(metrics["val_total_loss"], expected, rtol=1e-5)
    assert (metrics["total_loss"] < metrics["reconstruction_loss"] + 0.1 * metrics["kl_loss"]).all()


@register("reversed-elbo")
@dataclass(frozen=True)
class ReversedELBO(Objective):
    """The ELBO as a value, with the gradient of the negative ELBO: training raises this loss."""

    def __call__(self, terms: ELBOTerms, latents: object, step: Tensor) -> Tensor:
        return terms.negative_elbo - 2.0 * ops.stop_gradient(terms.negative_elbo)


def test_best_epoch_is_that_of_the_objective(splits: Splits, tmp_path: Path) -> None:
    settings = ("model.objective=reversed-elbo", "training.keep=best", "training.learning_rate=0.02")
    run = train(small(*settings), splits, tmp_path / "run")
    assert int(np.argmin(run.metrics["val_negative_elbo"])) == 3
    assert validate_again(run, splits)["negative_elbo"] == pytest.approx(run.metrics["val_negative_elbo"][0], rel=1e-5)


@register("not-a-number-from")
@dataclass(frozen=True)
class NotANumberFrom(Objective):
    """The ELBO, with a NaN loss and gradients from some step on."""

    start: int = 3

    def __call__(self, terms: ELBOTerms, latents: object, step: Tensor) -> Tensor:
        return terms.negative_elbo * ops.where(ops.greater_equal(step, self.start), float("nan"), 1.0)


def test_training_stops_if_all_updates_are_skipped(splits: Splits, tmp_path: Path) -> None:
    class StayFinite(keras.callbacks.Callback):
        """Validates at step 0, at which this objective is finite."""

        def on_test_begin(self, logs: object = None) -> None:
            self.step = int(self.model.step)
            self.model.step.assign(0)

        def on_test_end(self, logs: object = None) -> None:
            self.model.step.assign(self.step)

    settings = ("model.objective=not-a-number-from", "training.skip_non_finite=true", "training.ema_window=0.5")
    message = r"^the updates of the last 3 steps were skipped: NaN or infinite gradients in epoch 3 at step 2; "
    with pytest.raises(RunError, match=message + "the weights of epoch 2 are kept; to train again, lower"):
        train(small(*settings), splits, tmp_path / "run", callbacks=[StayFinite()])
    run = Run.open(tmp_path / "run")
    assert run.metrics["skipped"] == [0, 1]
    assert all(np.isfinite(weight).all() for weight in run.load_model().get_weights())

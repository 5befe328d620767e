"""Callbacks of a training: non-finite losses, plateaus, and early stopping."""

import math
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import Interrupt, small
from keras_vae.components.objectives import ELBOTerms, Objective
from keras_vae.core.errors import RunError
from keras_vae.core.registry import register
from keras_vae.data.dataset import Splits
from keras_vae.runs.run import Run
from keras_vae.training import callbacks as training_callbacks
from keras_vae.training.batches import validation_batch_size
from keras_vae.training.callback_list import StepCallback
from keras_vae.training.callbacks import TerminateOnNonFinite
from keras_vae.training.trainer import resume, train
from keras_vae.training.validation import has_stalled, plateau_drops


def test_nan_stops_training_and_keeps_the_last_good_epoch(splits: Splits, tmp_path: Path) -> None:
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                self.model.decoder.layers[-2].bias.assign(self.model.decoder.layers[-2].bias + np.nan)

    with pytest.raises(RunError) as error:
        train(small(), splits, tmp_path / "run", callbacks=[Poison()])
    assert "nan in epoch 3 at step 1; the weights of epoch 2 are kept" in str(error.value)
    assert "precision" not in str(error.value)
    assert "training.learning_rate (now 0.001)" in str(error.value)
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1, 2]
    good = train(small("training.epochs=2"), splits, tmp_path / "good").load_model()
    for left, right in zip(run.load_model().get_weights(), good.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_nan_in_the_last_step_of_an_epoch_is_not_saved_in_the_checkpoint(splits: Splits, tmp_path: Path) -> None:
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if batch == 1 and int(self.model.optimizer.iterations) == 4:
                self.model.decoder.layers[-2].bias.assign(self.model.decoder.layers[-2].bias + np.nan)

    with pytest.raises(RunError, match=r"in epoch 2 at step 2; the weights of epoch 1 are kept"):
        train(small(), splits, tmp_path / "run", callbacks=[Poison()])
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1]
    assert all(np.isfinite(weight).all() for weight in run.load_model().get_weights())


@register("not-a-number-once")
@dataclass(frozen=True)
class NotANumberOnce(Objective):
    """The ELBO, except for one step with NaN loss and gradients."""

    at: int = 3

    def __call__(self, terms: ELBOTerms, latents: object, step: object) -> object:
        return terms.negative_elbo * keras.ops.where(keras.ops.equal(step, self.at), float("nan"), 1.0)


def test_non_finite_step_is_skipped_on_request_and_stops_training_otherwise(splits: Splits, tmp_path: Path) -> None:
    poisoned = ("model.objective=not-a-number-once", "training.skip_non_finite=true")
    run = train(small(*poisoned), splits, tmp_path / "run")
    assert len(run.metrics["epoch"]) == 4
    assert all(np.isfinite(values).all() for values in run.metrics.values())
    assert run.metrics["skipped"] == [0, 1, 1, 1]
    with pytest.raises(RunError, match="in epoch 2 at step 2"):
        train(small(*poisoned[:1]), splits, tmp_path / "stopped")


@pytest.mark.parametrize(("looks_every", "steps"), [(2, 6), (4, 8), (64, 8)])
def test_the_first_non_finite_step_is_reported_whenever_it_is_noticed(
    looks_every: int, steps: int, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Count(StepCallback):
        steps = 0

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.steps += 1

    monkeypatch.setattr(training_callbacks, "STEPS_PER_LOOK", looks_every)
    settings = ("model.objective={name='not-a-number-once', at=4}", "training.batch_size=2")
    count = Count()
    with pytest.raises(RunError, match="the loss became nan in epoch 1 at step 5; no epoch was completed"):
        train(small(*settings), splits, tmp_path / "run", callbacks=[count])
    # The step in which the loss is noticed calls no further callback.
    assert count.steps == (8 if looks_every == 64 else steps - 1)
    assert "epoch" not in Run.open(tmp_path / "run").metrics


def test_a_range_of_steps_is_reported_if_they_ran_in_one_call() -> None:
    callback = TerminateOnNonFinite(small().training)
    callback.set_params({"steps": 12})
    callback.on_epoch_begin(0)
    for last, loss in [(3, 7.0), (7, math.nan), (11, math.nan)]:
        callback.on_train_batch_end(last, {"total_loss": keras.ops.convert_to_tensor(loss)})
    with pytest.raises(RunError, match="the loss became nan in epoch 1 at step 5–8; no epoch"):
        callback.on_epoch_end(0)


@pytest.mark.parametrize(
    ("history", "since_best", "drops"),
    [
        ([], 0, 0),
        ([3.0], 0, 0),
        ([3.0, 2.0, 1.0], 0, 0),
        ([1.0, 2.0, 2.0], 2, 1),
        ([1.0, 2.0, 2.0, 2.0, 2.0], 4, 2),
        ([3.0, 4.0, 2.0, 4.0, 3.0], 2, 1),
    ],
)
def test_plateaus_are_computed_from_the_metrics(history: list[float], since_best: int, drops: int) -> None:
    metrics = {"val_total_loss": history}
    assert [has_stalled(metrics, patience) for patience in (0, 2)] == [False, since_best >= 2]
    assert plateau_drops(metrics, 2) == drops
    assert plateau_drops(metrics, 0) == 0


class WorsenValidation(keras.callbacks.Callback):
    """Records the learning rate of every epoch, and makes validation worse from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))
        bias = self.model.decoder.layers[-2].bias
        bias.assign(bias + 3.0 * epoch)


def test_early_stopping_waits_for_its_patience_and_survives_a_resume(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("training.epochs=9", "training.early_stopping=2", "training.keep=best")

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_model", kill)
        with pytest.raises(KeyboardInterrupt):
            train(small(*settings), splits, tmp_path / "run", callbacks=[WorsenValidation()])
    run = resume(Run.open(tmp_path / "run"), splits)
    assert run.is_complete
    assert run.metrics["epoch"] == [1, 2, 3]


def test_learning_rate_is_reduced_on_a_plateau_and_stays_reduced_after_a_resume(splits: Splits, tmp_path: Path) -> None:
    settings = ("training.plateau.patience=1", "training.plateau.factor=0.5")
    callback = WorsenValidation()
    with pytest.raises(KeyboardInterrupt):
        train(small(*settings), splits, tmp_path / "run", callbacks=[callback, Interrupt(3, 0)])
    np.testing.assert_allclose(callback.rates, [1e-3, 1e-3, 5e-4, 2.5e-4], rtol=1e-6)
    resumed = WorsenValidation()
    resume(Run.open(tmp_path / "run"), splits, callbacks=[resumed])
    np.testing.assert_allclose(resumed.rates, [2.5e-4], rtol=1e-6)


@pytest.mark.parametrize(
    ("fitting", "num_images", "expected"),
    [(1024, 4, 4), (1024, 1, 1), (4, 10, 4), (4, 9, 3), (3, 7, 4), (1, 5, 3), (1, 6, 2), (2, 3, 3)],
)
def test_validation_batches_fit_into_memory_and_contain_at_least_two_images(
    fitting: int, num_images: int, expected: int
) -> None:
    class Model:
        class objective:
            num_samples = 1

        def fitting_batch_size(self, num_samples: int) -> int:
            return fitting

    size = validation_batch_size(Model(), num_images)
    assert size == expected
    assert num_images == 1 or num_images % size != 1

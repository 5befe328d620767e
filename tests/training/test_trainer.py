"""Training: what a run holds, how it resumes, and how it fails."""

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vae
from keras_vae.components.objectives import ELBOTerms, Objective
from keras_vae.core import files
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.registry import register
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.report.plots import PLOTS
from keras_vae.runs.experiment import FORMAT, DatasetInfo, Experiment
from keras_vae.runs.run import Run
from keras_vae.training import callbacks, trainer

SMALL = [
    "model.network.widths=[2, 3]",
    "model.network.dense_units=4",
    "training.epochs=4",
    "training.batch_size=8",
]


@pytest.fixture
def splits(images: Array) -> Splits:
    dataset = Dataset.from_arrays(images, np.arange(24) % 3, name="frames")
    return split(dataset, None, validation=4, test_size=4, holdout=True, seed=0)


def small(*settings: str) -> Experiment:
    return Experiment.preset("classic").with_overrides([*SMALL, *settings])


class Interrupt(keras.callbacks.Callback):
    """Stops a training in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.moment, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if (self.epoch, batch) == self.moment:
            raise KeyboardInterrupt


def test_run_holds_what_it_should_and_says_how_it_was_made(splits: Splits, tmp_path: Path) -> None:
    run = trainer.train(small(), splits, tmp_path / "run")
    assert run.is_complete
    assert {path.name for path in run.path.iterdir()} == {
        "experiment.toml",
        "environment.json",
        "metrics.csv",
        "model.keras",
        "evaluation.json",
        "figures",
        "report.html",
    }
    pictures = {path.name for path in (run.path / "figures").iterdir()}
    assert pictures == {f"{name}.png" for name in PLOTS}
    assert run.experiment == small().resolve(DatasetInfo.from_splits(splits))
    assert list(run.metrics) == [
        "epoch",
        *(f"{prefix}{name}" for prefix in ("", "val_") for name in run.load_model().loss_trackers),
        "seconds",
    ]
    assert run.metrics["epoch"] == [1, 2, 3, 4]
    environment = run.environment
    assert environment["backend"] == keras.backend.backend()
    assert environment["versions"]["keras"] == keras.__version__
    assert environment["data"]["images"] == {"train": 16, "validation": 4, "test": 4}
    html = (run.path / "report.html").read_text()
    assert html.count("data:image/png;base64,") == len(PLOTS)


def test_evaluation_is_the_loaded_models_on_the_test_images(splits: Splits, tmp_path: Path) -> None:
    run = trainer.train(small(), splits, tmp_path / "run")
    evaluation, bound = run.evaluation["likelihood"], -keras_vae.load(run.path).elbo(splits.test.images, seed=0)
    assert evaluation["split"] == "test"
    assert evaluation["held_out"]
    assert not evaluation["normalized"]
    assert evaluation["negative_elbo"]["mean"] == pytest.approx(bound.mean(), rel=1e-6)
    assert evaluation["negative_elbo"]["standard_error"] == pytest.approx(bound.std(ddof=1) / 2, rel=1e-5)


def test_nothing_held_out_is_said(images: Array, tmp_path: Path) -> None:
    dataset = Dataset.from_arrays(images, name="frames")
    everything = split(dataset, None, validation=0, test_size=0, holdout=False, seed=0)
    run = trainer.train(small("training.epochs=1", "data.holdout=false"), everything, tmp_path / "run")
    assert not run.evaluation["likelihood"]["held_out"]
    assert "no held-out data" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    "settings", [(), ("training.keep=best", "training.precision=mixed_bfloat16", "training.ema_window=0.9")]
)
def test_interrupted_and_resumed_equals_never_interrupted_bit_for_bit(
    settings: tuple[str, ...], splits: Splits, tmp_path: Path
) -> None:
    whole = trainer.train(small(*settings), splits, tmp_path / "whole")
    for epoch, batch in ((2, 1), (3, 0)):
        begin = functools.partial(trainer.train, small(*settings), splits, tmp_path / "cut")
        go_on = functools.partial(trainer.resume, Run(tmp_path / "cut"), splits)
        with pytest.raises(KeyboardInterrupt):
            (begin if epoch == 2 else go_on)(callbacks=[Interrupt(epoch, batch)])
        assert not Run(tmp_path / "cut").is_complete
    cut = trainer.resume(Run.open(tmp_path / "cut"), splits)
    assert_equal_runs(cut, whole)


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def assert_equal_runs(one: Run, other: Run) -> None:
    first, second = one.load_model(), other.load_model()
    for left, right in zip(
        [*first.variables, *first.optimizer.variables], [*second.variables, *second.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(left), keras.ops.convert_to_numpy(right))
    metrics, others = one.metrics, other.metrics
    assert {**metrics, "seconds": 0} == {**others, "seconds": 0}


def test_stopped_after_the_last_epoch_the_rest_is_made_up_for(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "measure_likelihood", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(small(), splits, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not run.is_complete
    weights = run.load_model().get_weights()
    resumed = trainer.resume(run, splits)
    assert resumed.is_complete
    assert resumed.evaluation is not None
    for left, right in zip(weights, resumed.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_best_keeps_the_epoch_with_the_least_validation_bound(splits: Splits, tmp_path: Path) -> None:
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                bias = self.model.decoder.get_layer(index=5).bias
                bias.assign(bias + 5.0)

    run = trainer.train(small("training.keep=best"), splits, tmp_path / "run", callbacks=[Spoil()])
    assert int(np.argmin(run.metrics["val_negative_elbo"])) == 1, "the training must get worse after the second epoch"
    shorter = trainer.train(small("training.epochs=2"), splits, tmp_path / "shorter")
    for left, right in zip(run.load_model().get_weights(), shorter.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_moving_average_of_the_weights_is_what_is_measured_and_kept(splits: Splits, tmp_path: Path) -> None:
    class Average(keras.callbacks.Callback):
        values: list[Array] | None = None

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.last = self.model.get_weights()
            before = self.last if self.values is None else self.values
            self.values = [0.8 * old + 0.2 * new for old, new in zip(before, self.last, strict=True)]

    average = Average()
    run = trainer.train(
        small("training.ema_window=0.625", "training.learning_rate=0.05"), splits, tmp_path / "run", callbacks=[average]
    )
    model = run.load_model()
    for kept, expected in zip(model.get_weights(), average.values, strict=True):
        if kept.dtype.kind == "f":  # the count of steps is no weight
            np.testing.assert_allclose(kept, expected, rtol=1e-4, atol=1e-6)

    def expected_loss() -> float:
        terms = model.elbo_terms(splits.validation.images, draws=16)
        return float(-np.mean(terms.log_likelihood))

    averaged = expected_loss()
    model.set_weights(average.last)
    validated = run.metrics["val_reconstruction_loss"][-1]
    assert abs(validated - averaged) < 0.6 * abs(validated - expected_loss())


def test_nan_stops_with_epoch_and_step_and_keeps_the_weights_before(splits: Splits, tmp_path: Path) -> None:
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                self.model.decoder.layers[-2].bias.assign(self.model.decoder.layers[-2].bias + np.nan)

    with pytest.raises(RunError) as error:
        trainer.train(small(), splits, tmp_path / "run", callbacks=[Poison()])
    assert "nan in epoch 3 at step 1; the weights of epoch 2 are kept" in str(error.value)
    assert "precision" not in str(error.value)
    assert "training.learning_rate (now 0.001)" in str(error.value)
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1, 2]
    good = trainer.train(small("training.epochs=2"), splits, tmp_path / "good").load_model()
    for left, right in zip(run.load_model().get_weights(), good.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_nan_of_the_last_step_of_an_epoch_does_not_reach_the_checkpoint(splits: Splits, tmp_path: Path) -> None:
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if batch == 1 and int(self.model.optimizer.iterations) == 4:
                self.model.decoder.layers[-2].bias.assign(self.model.decoder.layers[-2].bias + np.nan)

    with pytest.raises(RunError, match=r"in epoch 2 at step 2; the weights of epoch 1 are kept"):
        trainer.train(small(), splits, tmp_path / "run", callbacks=[Poison()])
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1]
    assert all(np.isfinite(weight).all() for weight in run.load_model().get_weights())


def test_killed_between_checkpoint_and_metrics_no_row_is_lost(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Run.write_metrics, []

    def killed_at_the_last(run: Run, metrics: dict[str, list[float]]) -> None:
        calls.append(metrics)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(run, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_metrics", killed_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(small(), splits, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1, 2, 3]
    assert trainer.resume(run, splits).metrics["epoch"] == [1, 2, 3, 4]


def test_full_disk_leaves_a_run_that_resumes(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trainer.train(small(), splits, tmp_path / "whole")
    writes, save = [], np.savez

    def full_after_two(file: object, **arrays: object) -> None:
        writes.append(file)
        if len(writes) == 3:
            Path(str(file)).write_bytes(b"half a checkpo")
            raise OSError(28, "No space left on device")
        save(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full_after_two)
        with pytest.raises(OSError, match="No space left"):
            trainer.train(small(), splits, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1, 2]
    assert_equal_runs(trainer.resume(run, splits), whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.batch_size=17"], "training.batch_size = 17: there are 16 training images"),
        (["training.optimizer=adm"], "did you mean 'adam'"),
        (["model.objective.beta=-2.0"], "beta = -2.0"),
        (["model.prior=gauss"], "prior = 'gauss': unknown"),
    ],
)
def test_wrong_experiment_writes_nothing(settings: list[str], message: str, splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        trainer.train(small(*settings), splits, tmp_path / "run")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_keep_best_without_validation_images_is_refused(images: Array, tmp_path: Path) -> None:
    dataset = Dataset.from_arrays(images, name="frames")
    with pytest.raises(InputError, match="no validation images"):
        trainer.train(
            small("training.keep=best"),
            split(dataset, None, validation=0, test_size=4, holdout=True, seed=0),
            tmp_path / "r",
        )


def test_resume_refuses_other_images_and_another_backend(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.train(small(), splits, tmp_path / "run", callbacks=[Interrupt(1, 0)])
    run = Run.open(tmp_path / "run")
    other = splits._replace(train=splits.train.subset(np.arange(16)[::-1], "train"))
    with pytest.raises(InputError, match="not those that"):
        trainer.resume(run, other)
    environment = run.environment | {"backend": "theano"}
    files.write_text(run.path / "environment.json", json.dumps(environment))
    with pytest.raises(InputError, match="KERAS_BACKEND=theano"):
        trainer.resume(run, splits)


@pytest.fixture
def complete(splits: Splits, tmp_path: Path) -> Run:
    return trainer.train(small("training.epochs=1"), splits, tmp_path / "complete")


def test_existing_folder_is_refused_and_left_as_it_is(complete: Run, splits: Splits) -> None:
    before = {path: path.read_bytes() for path in complete.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="exists: choose another"):
        trainer.train(small(), splits, complete.path)
    assert {path: path.read_bytes() for path in complete.path.rglob("*") if path.is_file()} == before


def test_run_that_is_none_or_newer_or_damaged(complete: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run at"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path)
    model = complete.path / "model.keras"
    content = model.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a zip at all"):
        model.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            complete.load_model()
    newer = complete.experiment.to_toml().replace(f"format = {FORMAT}", f"format = {FORMAT + 1}")
    files.write_text(complete.path / "experiment.toml", newer)
    with pytest.raises(InputError, match="newer keras-vae"):
        Run.open(complete.path)


def test_model_file_that_asks_to_run_code_is_refused(tmp_path: Path, make_vae: Callable[..., keras.Model]) -> None:
    vae = make_vae()
    outputs = keras.layers.Lambda(lambda x: x * 1.0)(vae.decoder.output)
    evil = keras_vae.VAE(vae.encoder, keras.Model(vae.decoder.input, outputs))
    evil.save(tmp_path / "evil.keras")
    with pytest.raises(InputError, match="asks to run code"):
        keras_vae.load(tmp_path / "evil.keras")


def test_model_file_that_holds_no_vae_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match="holds a Sequential, not a VAE"):
        keras_vae.load(tmp_path / "other.keras")


def test_run_may_be_moved(complete: Run, tmp_path: Path) -> None:
    shutil.move(complete.path, tmp_path / "elsewhere")
    assert Run.open(tmp_path / "elsewhere").load_model().latent_dim == 2


@register("not-a-number-once")
@dataclass(frozen=True)
class NotANumberOnce(Objective):
    """The ELBO, but for one step whose loss and gradients are NaN."""

    at: int = 3

    def __call__(self, terms: ELBOTerms, latents: object, step: object) -> object:
        return terms.negative_elbo * keras.ops.where(keras.ops.equal(step, self.at), float("nan"), 1.0)


def test_step_that_is_not_finite_is_skipped_if_asked_and_stops_otherwise(splits: Splits, tmp_path: Path) -> None:
    poisoned = ("model.objective=not-a-number-once", "training.skip_non_finite=true")
    run = trainer.train(small(*poisoned), splits, tmp_path / "run")
    assert len(run.metrics["epoch"]) == 4
    assert all(np.isfinite(values).all() for values in run.metrics.values())
    assert run.metrics["skipped"] == [0, 1, 1, 1]
    with pytest.raises(RunError, match="in epoch 2 at step 2"):
        trainer.train(small(*poisoned[:1]), splits, tmp_path / "stopped")


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
def test_plateaus_and_standstills_are_read_off_the_history(history: list[float], since_best: int, drops: int) -> None:
    metrics = {"val_negative_elbo": history}
    assert [callbacks.has_stalled(metrics, patience) for patience in (0, 2)] == [False, since_best >= 2]
    assert callbacks.plateau_drops(metrics, 2) == drops
    assert callbacks.plateau_drops(metrics, 0) == 0


class Rates(keras.callbacks.Callback):
    """Notes the learning rate of every epoch, and makes validation worse from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))
        bias = self.model.decoder.layers[-2].bias
        bias.assign(bias + 3.0 * epoch)


def test_training_ends_early_and_stays_ended(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("training.epochs=9", "training.early_stopping=2", "training.keep=best")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "measure_likelihood", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(small(*settings), splits, tmp_path / "run", callbacks=[Rates()])
    run = trainer.resume(Run.open(tmp_path / "run"), splits)
    assert run.is_complete
    assert run.metrics["epoch"] == [1, 2, 3]


def test_learning_rate_falls_on_a_plateau_and_goes_on_from_there(splits: Splits, tmp_path: Path) -> None:
    settings = ("training.plateau.patience=1", "training.plateau.factor=0.5")
    rates = Rates()
    with pytest.raises(KeyboardInterrupt):
        trainer.train(small(*settings), splits, tmp_path / "run", callbacks=[rates, Interrupt(3, 0)])
    np.testing.assert_allclose(rates.rates, [1e-3, 1e-3, 5e-4, 2.5e-4], rtol=1e-6)
    resumed = Rates()
    trainer.resume(Run.open(tmp_path / "run"), splits, callbacks=[resumed])
    np.testing.assert_allclose(resumed.rates, [2.5e-4], rtol=1e-6)


def test_schedules_count_the_steps_of_the_whole_training(splits: Splits) -> None:
    facts = DatasetInfo.from_splits(splits)
    experiment = small("training.schedule=cosine", "model.objective.schedule=warm-up")
    assert experiment.steps(facts) == 8
    assert experiment.build_schedule(facts).steps == 8
    assert experiment.build_model(facts).objective.schedule.steps == 1
    later = experiment.with_overrides(["training.epochs=40"])
    assert later.build_model(facts).objective.schedule.steps == 8
    with pytest.raises(InputError, match="both set the learning rate"):
        trainer.train(small("training.schedule=cosine", "training.plateau.patience=1"), splits, Path("nowhere"))


def test_labels_condition_a_run_from_training_to_figures(splits: Splits, tmp_path: Path) -> None:
    run = trainer.train(small("model.condition=label", "training.epochs=1"), splits, tmp_path / "run")
    assert run.experiment.model.condition == {"name": "label", "classes": 3}
    model = run.load_model()
    assert not np.array_equal(model.sample(2, seed=0, condition=0), model.sample(2, seed=0, condition=1))
    terms = model.elbo_terms(splits.test.images, seed=0, condition=splits.test.labels)
    expected = float(np.mean(keras.ops.convert_to_numpy(terms.negative_elbo)))
    assert run.evaluation["likelihood"]["negative_elbo"]["mean"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="condition = None"):
        model.sample(2)
    with pytest.raises(InputError, match="labels run from 0 to 2"):
        model.sample(2, condition=3)


def test_number_that_is_no_bound_or_a_density_says_so(splits: Splits, tmp_path: Path) -> None:
    settings = ("model.posterior=deterministic", "model.likelihood=normal", "training.epochs=1")
    run = trainer.train(small(*settings), splits, tmp_path / "run")
    assert run.evaluation["likelihood"]["density"]
    assert not run.evaluation["likelihood"]["bound"]
    page = (run.path / "report.html").read_text()
    assert "no bound" in page
    assert "a density" in page
    usual = trainer.train(small("training.epochs=1"), splits, tmp_path / "usual")
    assert usual.evaluation["likelihood"]["bound"]
    assert not usual.evaluation["likelihood"]["density"]
    assert "no bound" not in (usual.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "validation", "message"),
    [
        (["model.objective=info-vae"], 1, "data.validation: 1 images are validated one by one, and info-vae compares"),
        (["model.condition={ name = 'vector', size = 2 }"], 4, "model.condition = vector: no source of images has"),
        (["model.objective={ name = 'info-vae', alpha = 1.0 }", "model.prior=realnvp"], 4, "leaves the prior as it is"),
        (["model.objective=info-vae", "training.batch_size=1"], 4, "leave a batch of one, and info-vae compares"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    settings: list[str], validation: int, message: str, images: Array, tmp_path: Path
) -> None:
    dataset = Dataset.from_arrays(images, np.arange(24) % 3, name="frames")
    splits = split(dataset, None, validation=validation, test_size=4, holdout=True, seed=0)
    with pytest.raises(InputError, match=message):
        trainer.train(small(*settings), splits, tmp_path / "run")
    assert not (tmp_path / "run").exists()

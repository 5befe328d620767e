"""Training from the weights of another model: what is copied, what remains frozen, and errors."""

from pathlib import Path

import pytest

from helpers import Interrupt, assert_equal_runs, equal_arrays, small, weight_values
from keras_vae.core.errors import InputError
from keras_vae.data.dataset import Splits
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.loading import load
from keras_vae.runs.run import Run
from keras_vae.training.trainer import resume, train


def from_run(run: Run, *settings: str) -> Experiment:
    return small(f"training.init={run.path}", "training.epochs=2", *settings)


def test_frozen_encoder_stays_bit_identical_and_the_rest_is_trained(
    trained_run: Run, splits: Splits, tmp_path: Path
) -> None:
    settings = (
        *("training.freeze=encoder", "training.ema_window=0.9", "training.keep=best", "training.weight_decay=0.1"),
        *("training.clip_norm=1.0", "training.skip_non_finite=true"),
    )
    run = train(from_run(trained_run, *settings), splits, tmp_path / "run")
    before, after = trained_run.load_model(), run.load_model()
    assert all(equal_arrays(weight_values(before.encoder), weight_values(after.encoder)))
    assert not any(equal_arrays(weight_values(before.decoder), weight_values(after.decoder)))
    assert (run.experiment.training.freeze, run.experiment.training.init) == (["encoder"], str(trained_run.path))
    assert not (run.path / "checkpoint").exists()


def test_training_starts_from_the_weights_of_the_model(trained_run: Run, splits: Splits, tmp_path: Path) -> None:
    settings = ("training.learning_rate=1e-30", "training.epochs=1")
    given = train(small(*settings), splits, tmp_path / "given", initial=load(trained_run))
    assert all(equal_arrays(weight_values(trained_run.load_model().decoder), weight_values(given.load_model().decoder)))
    assert given.experiment.training.init == "<VAE>"


def test_interrupted_training_resumes_without_the_model_that_it_started_from(
    trained_run: Run, splits: Splits, tmp_path: Path
) -> None:
    file = tmp_path / "model.keras"
    trained_run.load_model().save(file)
    experiment = from_run(Run(file), "training.freeze=encoder", "training.ema_window=0.9")
    runs = {moment: tmp_path / f"interrupted-{moment[0]}" for moment in ((0, 0), (1, 1))}
    for moment, path in runs.items():
        with pytest.raises(KeyboardInterrupt):
            train(experiment, splits, path, callbacks=[Interrupt(*moment)])
    before = weight_values(trained_run.load_model().encoder)
    assert all(equal_arrays(before, weight_values(Run(runs[1, 1]).load_model().encoder)))
    whole = train(experiment, splits, tmp_path / "whole")
    file.unlink()
    for path in runs.values():
        assert_equal_runs(whole, resume(path, splits))


def test_another_prior_starts_from_its_own_weights(trained_run: Run, splits: Splits, tmp_path: Path) -> None:
    settings = ("model.prior=realnvp", 'training.freeze=["encoder", "decoder"]')
    run = train(from_run(trained_run, *settings), splits, tmp_path / "run")
    before, after = trained_run.load_model(), run.load_model()
    assert all(equal_arrays(weight_values(before.encoder), weight_values(after.encoder)))
    assert all(equal_arrays(weight_values(before.decoder), weight_values(after.decoder)))
    assert after.prior.trainable_variables


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["model.network.widths=[2, 4]"],
            r"weight encoder/.* is \(3, 3, 2, 3\) there and \(3, 3, 2, 4\) in this .*\[2, 3\] there and \[2, 4\] here",
        ),
        (["model.latent_dim=3"], "z_mean.* is .*2.* there and .*3.*model.latent_dim = 2 there and 3 here"),
        (["model.network.widths=[2]"], "model.network.widths"),
        (["model.architecture=vq", "model.network=conv"], "a VAE, but model.architecture = vq builds a VQVAE"),
        (['training.freeze=["encoder", "decoder"]'], "no weights are left to train"),
    ],
)
def test_models_that_do_not_fit_are_refused_before_anything_is_written(
    trained_run: Run, splits: Splits, tmp_path: Path, settings: list[str], message: str
) -> None:
    base = small(f"training.init={trained_run.path}")
    if "vq" in settings[0]:
        base = Experiment().with_overrides([f"training.init={trained_run.path}", "training.batch_size=8"])
    with pytest.raises(InputError, match=message) as error:
        train(base.with_overrides(settings), splits, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_missing_model_and_frozen_random_weights_are_refused(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^training.init = nowhere: does not exist"):
        train(small("training.init=nowhere"), splits, tmp_path / "run")
    with pytest.raises(InputError, match=r"training.freeze = \['encoder'\]: their weights would remain random"):
        train(small("training.freeze=encoder"), splits, tmp_path / "run")
    with pytest.raises(InputError, match=r"training\.freeze"):
        small('training.freeze=["prior"]')


def test_ladder_shares_layers_and_cannot_be_frozen(splits: Splits, tmp_path: Path) -> None:
    settings = ["model.architecture=ladder", "model.architecture.widths=[4]", "model.architecture.groups=[1]"]
    start = ["training.init=mnist-2d", "training.freeze=encoder", "training.batch_size=8"]
    with pytest.raises(InputError, match="HierarchicalVAE share layers"):
        train(Experiment().with_overrides([*settings, *start]), splits, tmp_path / "run")

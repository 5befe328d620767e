"""Every preset trains, and so does an unusual combination of components."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops
from PIL import Image

import keras_vae
from helpers import train_and_report
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.report.figures.style import STYLE
from keras_vae.runs.experiment import Experiment, preset_names
from keras_vae.training.prior_fitting import fit_prior
from keras_vae.training.trainer import train

SIZES = {"photo": (16, 24, 3), "kl-f4": (12, 16, 3), "kl-f8": (16, 24, 3)}
WIDTHS = {"photo": [4, 4, 8, 8], "kl-f4": [4, 8, 8], "kl-f8": [4, 8, 8, 8]}
"""Narrow networks of the same depth for color images, which would take most of the time of this module."""

REPORTED = ("classic", "conditional", "rae", "flow-prior", "ladder", "vq", "kl-f8")
"""Presets of every kind of model, whose reports have different figures. A report takes half of the time of a test."""


def splits_for(name: str) -> Splits:
    shape = SIZES.get(name, (28, 28, 1))
    images = np.random.default_rng(1).integers(0, 256, (24, *shape), dtype="uint8")
    images[:, 4:-4, 8:-8] //= 3
    dataset = Dataset.from_arrays(images, np.arange(24) % 3, name="noise")
    # Parts of equal size, so that JAX compiles each function once.
    return split(dataset, None, validation=8, test_size=8, holdout=True, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_preset_trains_two_steps_and_generates_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing the figures of a report takes as long as the rest of a test; `test_plots.py` draws them in full size.
    monkeypatch.setitem(STYLE, "figure.dpi", 30)
    narrow = [f"model.network.widths={WIDTHS[name]}"] if name in WIDTHS else []
    experiment = Experiment.preset(name).with_overrides(["training.epochs=2", "training.batch_size=8", *narrow])
    assert name not in WIDTHS or len(WIDTHS[name]) == len(Experiment.preset(name).model.network["widths"])
    run = train_and_report(experiment, tmp_path / "run", splits_for(name), report=name in REPORTED)
    assert run.is_complete
    assert run.has_report == (name in REPORTED)
    assert np.isfinite(run.evaluation["likelihood"]["negative_elbo"]["mean"])
    model = keras_vae.load(run.path)
    images = model.sample(2, seed=0, condition=2 if name == "conditional" else None)
    assert images.shape == (2, *SIZES.get(name, (28, 28, 1)))
    assert images.min() >= 0
    assert images.max() <= 1


COMBINATION = """
[model]
latent_dim = 4
network = { name = "resnet", widths = [4, 8], dense_units = 8 }
prior = { name = "vamp", num_components = 6 }
posterior = { name = "iaf", hidden = [8], context_dim = 4 }
likelihood = { name = "discretized-logistic", num_components = 2 }
objective = { name = "iwae", samples = 5 }
condition = "label"

[training]
epochs = 2
batch_size = 6
schedule = { name = "cosine", warm_up = 0.5 }
ema_window = 0.5
clip_norm = 10.0
skip_non_finite = true
keep = "best"
"""


@pytest.mark.slow
@pytest.mark.usefixtures("quick_search")
def test_unusual_combination_trains_saves_loads_and_samples(tmp_path: Path) -> None:
    """Combine VampPrior, IAF, IWAE-5, a residual network and labels, on a folder of color images of 31×45 pixels."""
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 256, (31, 45, 3), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{index}.png")
    (tmp_path / "experiment.toml").write_text(COMBINATION)
    experiment = Experiment.from_file(tmp_path / "experiment.toml")
    experiment = experiment.with_overrides([f"data.source='{tmp_path / 'photos'}'"])
    run = train(experiment, out=tmp_path / "run")
    model = run.load_model()
    assert model.sample(3, seed=1, condition=1).shape == (3, 31, 45, 3)
    np.testing.assert_array_equal(model.sample(3, seed=1, condition=1), run.load_model().sample(3, seed=1, condition=1))
    splits = run.load_splits()
    labels = splits.test.labels
    bound = model.log_likelihood(splits.test.images, samples=20, condition=labels)
    assert np.isfinite(bound).all()
    assert bound.mean() > model.elbo(splits.test.images, condition=labels).mean()


@pytest.mark.parametrize("spec", [{"name": "realnvp", "num_couplings": 4, "hidden": [16]}, {"name": "mixture"}])
def test_fitted_prior_explains_the_codes_better_and_generates_images(
    spec: dict[str, object], splits: Splits, tmp_path: Path
) -> None:
    experiment = Experiment.preset("classic").with_overrides(
        [
            "model.network.widths=[4, 6]",
            "model.network.dense_units=8",
            "training.epochs=1",
            "training.batch_size=8",
            "model.objective.beta=0.0",
            "training.learning_rate=0.01",
        ]
    )
    run = train(experiment, splits, tmp_path / "run")
    original = run.load_model()
    # Move the codes far away from the prior of the training.
    original.encoder.get_layer("z_mean").bias.assign([1.5, -1.0])
    run.save_model(original)
    measured = fit_prior(run, spec, splits, epochs=10)
    assert measured["fitted"]["kl_loss"]["mean"] < measured["original"]["kl_loss"]["mean"]
    fitted = keras_vae.load(run.path)
    assert keras_vae.core.registry.spec("prior", fitted.prior)["name"] == spec["name"]
    assert run.load_model(prior="original").prior == original.prior
    codes = original.sample_posterior(np.concatenate([splits.train.images] * 20), seed=1)
    samples = ops.convert_to_numpy(fitted.prior(fitted._prior_inputs(None)).sample(4000, 1))
    np.testing.assert_allclose(samples.mean(0), codes.mean(0), atol=0.3 * codes.std(0).max())
    np.testing.assert_allclose(samples.std(0), codes.std(0), rtol=0.4)
    assert fitted.sample(2, seed=0).shape == (2, 9, 11, 1)

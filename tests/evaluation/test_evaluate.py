"""The evaluation of a run: its stages, its files, and invalid calls."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import on_tensorflow
from keras_vae.core.errors import InputError
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.data.info import DatasetInfo
from keras_vae.evaluation.evaluate import EvaluationConfig, available_stages, evaluate
from keras_vae.evaluation.per_image import load_per_image
from keras_vae.runs.build import build_model
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.training import trainer

pytestmark = [
    on_tensorflow("the measurements of each stage are tested on every backend"),
    pytest.mark.usefixtures("quick_search"),
]

SETTINGS = ("model.network={name='mlp',widths=[8]}", "training.epochs=1", "training.batch_size=8")
QUICK = EvaluationConfig(samples=20, num_generated=30, features="random")


def experiment(*settings: str) -> Experiment:
    return Experiment.preset("classic").with_overrides([*SETTINGS, *settings])


@pytest.fixture(scope="module")
def splits() -> Splits:
    images = np.random.default_rng(3).integers(0, 256, (60, 6, 7, 1), dtype="uint8")
    whole = Dataset.from_arrays(images, np.arange(60) % 3, name="frames")
    return split(whole, None, validation=10, test_size=20, holdout=True, seed=0)


@pytest.fixture(scope="module")
def trained(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer.train(experiment(), splits, tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy of a trained run."""
    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


def test_every_available_stage_is_in_the_file(run: Run, splits: Splits) -> None:
    result = evaluate(run, splits, config=QUICK)
    sections = ["likelihood", "latents", "samples", "image_quality"]
    assert list(result) == ["schema", "model", "measured_with", *sections]
    assert json.loads((run.path / "evaluation.json").read_text()) == result == run.evaluation
    for section in sections:
        assert result[section]["split"] == "test"
        assert result[section]["held_out"]
        assert result[section]["seed"] == 0
    assert result["likelihood"]["samples"] == 20
    assert result["measured_with"]["versions"]["keras"]
    assert not list(run.path.glob(".*"))


def test_only_named_stages_change(run: Run, splits: Splits) -> None:
    first = evaluate(run, splits, stages=["likelihood"], config=QUICK)
    assert "latents" not in first
    second = evaluate(run, splits, stages=["latents"], config=QUICK)
    assert second["likelihood"] == first["likelihood"]
    assert evaluate(run, splits, stages=["likelihood"], config=QUICK) == second


def test_per_image_values_follow_the_stages_and_the_weights(run: Run, splits: Splits) -> None:
    evaluate(run, splits, stages=["likelihood"], config=QUICK)
    values = load_per_image(run, run.evaluation)["likelihood"]
    assert set(values) >= {"negative_elbo", "reconstruction_loss", "kl_loss", "nll", "effective_sample_size"}
    for name in ("negative_elbo", "nll"):
        assert values[name].shape == (20,)
        assert values[name].mean() == pytest.approx(run.evaluation["likelihood"][name]["mean"], rel=1e-5)
    assert (run.path / "evaluation.npz").stat().st_size < 5000
    evaluate(run, splits, stages=["samples"], config=QUICK)
    np.testing.assert_array_equal(load_per_image(run, run.evaluation)["likelihood"]["nll"], values["nll"])
    model = run.load_model()
    model.decoder.set_weights([1.5 * weight for weight in model.decoder.get_weights()])
    run.save_model(model)
    evaluate(run, splits, stages=["samples"], config=QUICK)
    assert load_per_image(run, run.evaluation) == {}
    assert not (run.path / "evaluation.npz").exists()


def test_numbers_of_other_weights_are_removed(run: Run, splits: Splits) -> None:
    evaluate(run, splits, stages=["latents"], config=QUICK)
    model = run.load_model()
    model.decoder.set_weights([1.5 * weight for weight in model.decoder.get_weights()])
    run.save_model(model)
    assert "latents" not in evaluate(run, splits, stages=["likelihood"], config=QUICK)


def test_other_images_have_a_file_of_their_own(run: Run, splits: Splits) -> None:
    before = run.evaluation
    other = splits._replace(test=splits.train.subset(np.arange(3), "all"))
    result = evaluate(run, other, stages=["likelihood"], config=QUICK, on="three")
    assert result["likelihood"]["images"] == 3
    assert run.evaluation == before
    assert run.read_evaluation("three") == result
    assert len(load_per_image(run, result, "three")["likelihood"]["nll"]) == 3


VQ = Experiment.model_validate(
    {
        "model": {
            "architecture": {
                "name": "vq",
                "quantizer": {"name": "ema", "num_codes": 5},
                "code_dim": 4,
                "prior_width": 4,
                "prior_blocks": 1,
            },
            "network": {"name": "conv", "widths": [4]},
        },
        "training": {"epochs": 1, "batch_size": 8},
    }
)


def test_discrete_codes_have_fewer_stages(splits: Splits, run: Run) -> None:
    assert available_stages(run.load_model(), splits) == ("likelihood", "latents", "samples", "image-quality")
    model = build_model(VQ, DatasetInfo.from_splits(splits))
    assert available_stages(model, splits) == ("likelihood", "samples", "image-quality")


def test_discrete_codes_have_perplexity_but_no_nll(splits: Splits, tmp_path: Path) -> None:
    run = trainer.train(VQ, splits, tmp_path / "vq")
    result = evaluate(run, splits, stages=["likelihood", "image-quality"], config=QUICK)
    section, quality = result["likelihood"], result["image_quality"]
    assert 1 <= section["perplexity"] <= section["used_codes"] <= 5
    assert "nll" not in section
    assert quality["code_usage"]["mean"] == section["used_codes"] / 5
    assert load_per_image(run, run.evaluation)["image_quality"]["psnr"].shape == (20,)


def test_unfinished_run_unknown_stage_and_invalid_numbers_are_rejected(run: Run, splits: Splits) -> None:
    with pytest.raises(InputError, match=r"stage = 'likelyhood'.*likelihood"):
        evaluate(run, splits, stages=["likelyhood"])
    with pytest.raises(InputError, match=r"stages = 'likelihood': a string; pass a list, such as \['likelihood'\]"):
        evaluate(run, splits, stages="likelihood")
    with pytest.raises(InputError, match="samples = -1"):
        EvaluationConfig(samples=-1)
    with pytest.raises(InputError, match="num_generated = 1: too few"):
        EvaluationConfig(num_generated=1)
    (run.path / "checkpoint").mkdir()
    (run.path / "checkpoint" / "state.npz").write_bytes(b"")
    with pytest.raises(InputError, match="unfinished; complete it with `vae train --resume"):
        evaluate(run, splits)


def test_labels_of_other_images_are_matched_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (30, 6, 7, 1), dtype="uint8"), np.arange(30) % 3 + 1
    own = split(Dataset.from_arrays(images, labels, name="own"), None, validation=0, test_size=6, holdout=True, seed=0)
    run = trainer.train(experiment("model.condition=label"), own, tmp_path / "run")
    assert run.class_names == ("1", "2", "3")
    # Without images of class 1, these labels alone are numbered from 0.
    others = Dataset.from_arrays(images[labels > 1], labels[labels > 1], name="others", split="test")
    assert others.labels.max() == 1
    found = evaluate(run, own._replace(test=others), QUICK, stages=["likelihood"], on="others")["likelihood"]
    expected = -run.load_model().elbo(others.images, condition=(labels[labels > 1] - 1), seed=0).mean()
    assert found["negative_elbo"]["mean"] == pytest.approx(expected, rel=1e-5)
    unknown = Dataset.from_arrays(images, labels + 1, name="unknown", split="test")
    with pytest.raises(InputError, match=r"data = unknown: .*4.*1, 2, 3"):
        evaluate(run, own._replace(test=unknown), QUICK, stages=["likelihood"], on="unknown")

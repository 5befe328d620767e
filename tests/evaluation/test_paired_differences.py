"""Paired differences between runs: the per-image values, their errors, and what is reported without them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops
from scipy import stats

from helpers import on_tensorflow
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import split
from keras_vae.evaluation.comparison import Comparison, compare
from keras_vae.evaluation.evaluate import EvaluationConfig, evaluate
from keras_vae.evaluation.per_image import CHECKSUM, load_per_image, stored, values_checksum
from keras_vae.runs.evaluation_file import SCHEMA
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.training import trainer

MODEL = {"prior": "original", "checksum": "weights"}
PROVENANCE = {"data": "frames", "split": "test", "held_out": True, "checksum": "abc", "seed": 0}


def mean_and_error(values: Array) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)), "standard_error": float(stats.sem(values)) if len(values) > 1 else None}


def run_of(folder: Path, section: str = "likelihood", **numbers: Any) -> Run:
    """Return a run whose evaluation contains these numbers: per-image values, or anything else without them."""
    folder.mkdir(parents=True)
    values = stored({name: value for name, value in numbers.items() if isinstance(value, np.ndarray)})
    means = {name: mean_and_error(numbers[name]) for name in values}
    content = {**PROVENANCE, "images": len(next(iter(values.values()), ())), **numbers, **means}
    if values:
        content[CHECKSUM] = values_checksum(MODEL, content, values)
    run = Run(folder)
    run.write_evaluation({"schema": SCHEMA, "model": MODEL, section: content}, per_image={section: values})
    return run


def correlated(count: int = 200, runs: int = 3, step: float = 0.5) -> list[Array]:
    """Return values per image that differ far more between images than between runs."""
    rng = np.random.default_rng(0)
    images = 160 + 20 * rng.standard_normal(count)
    return [images + step * number + rng.standard_normal(count) for number in range(runs)]


def z_of(comparison: Comparison, number: str, run: int) -> float:
    difference = comparison.columns[number][run].difference
    return difference.mean / difference.standard_error


@on_tensorflow("the values of each stage are tested on every backend")
@pytest.mark.usefixtures("quick_search")
def test_a_small_difference_on_the_same_images_is_decisive(tmp_path: Path) -> None:
    digits = split(sources.load("digits").train, None, validation=0.1, test_size=0.2, holdout=True, seed=0)
    settings = ("model.network={name='mlp',widths=[32]}", "training.epochs=3", "model.latent_dim=2")
    first = trainer.train(Experiment.preset("classic").with_overrides(settings), digits, tmp_path / "first")
    second = Run(Path(shutil.copytree(first.path, tmp_path / "second")))
    model = second.load_model()
    model.decoder.set_weights([1.004 * weight for weight in model.decoder.get_weights()])
    second.save_model(model)
    config = EvaluationConfig(samples=50, seed=5)
    for run in (first, second):
        evaluate(run, digits, config, stages=["likelihood"])
    comparison = compare([first, second])
    worse = 0 if comparison.columns["negative_elbo"][1].best else 1
    for number in ("negative_elbo", "nll"):
        cells = comparison.columns[number]
        unpaired = (cells[worse].mean - cells[1 - worse].mean) / np.hypot(*(cell.standard_error for cell in cells))
        assert 0 < unpaired < 2
        assert z_of(comparison, number, worse) > 4
        assert [cell.best for cell in cells] == [worse == 1, worse == 0]
        assert cells[1 - worse].difference is None
    # The same differences from values that are computed directly, without the files of the runs.
    images = digits.test.images
    models = [run.load_model() for run in (first, second)]
    bounds = [ops.convert_to_numpy(model.elbo_terms(images, seed=5).negative_elbo) for model in models]
    expected = stats.ttest_rel(bounds[worse], bounds[1 - worse]).statistic
    assert z_of(comparison, "negative_elbo", worse) == pytest.approx(expected, rel=1e-3)
    stored_values = load_per_image(first, first.evaluation)["likelihood"]
    np.testing.assert_allclose(stored_values["negative_elbo"], bounds[0], rtol=1e-5)
    assert stored_values["nll"].mean() == pytest.approx(first.evaluation["likelihood"]["nll"]["mean"], rel=1e-5)
    assert len(stored_values["effective_sample_size"]) == len(images)


def test_differences_are_to_the_best_of_three_runs(tmp_path: Path) -> None:
    values = correlated(step=0.2)
    values[2] = values[0] + 0.01 * np.random.default_rng(1).standard_normal(200)
    bits = [{"mean": float(value.mean()) / 100, "standard_error": 0.01} for value in values]
    runs = [
        run_of(tmp_path / name, nll=value, bits_per_dim=bit)
        for name, value, bit in zip("abc", values, bits, strict=True)
    ]
    comparison = compare(runs)
    best = int(np.argmin([value.mean() for value in values]))
    assert not comparison.notes
    for number in ("nll", "bits_per_dim"):
        assert comparison.columns[number][best].difference is None
        assert [cell.best for cell in comparison.columns[number]] == [True, False, True]
        for run in {0, 1, 2} - {best}:
            assert comparison.columns[number][run].difference.paired
            expected = stats.ttest_rel(values[run], values[best]).statistic
            assert z_of(comparison, number, run) == pytest.approx(expected, rel=1e-3)
    lines = str(comparison).splitlines()
    assert lines[2].split()[0] == "difference"
    assert lines[2].split()[1 + best if best == 0 else -1] == "–"
    assert lines[2].count("±") == 2
    assert "†" not in str(comparison)
    assert any("|   difference |" in line for line in comparison.to_markdown().splitlines())


def test_accuracies_are_paired_by_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    right = rng.random(400) < 0.7
    better = right | (rng.random(400) < 0.08)
    runs = [
        run_of(tmp_path / name, "latents", knn_accuracy=value.astype("float64"))
        for name, value in {"a": right, "b": better}.items()
    ]
    comparison = compare(runs)
    assert [cell.best for cell in comparison.columns["knn_accuracy"]] == [False, True]
    expected = stats.ttest_rel(right.astype(float), better.astype(float)).statistic
    assert z_of(comparison, "knn_accuracy", 0) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("damage", ["missing", "of other images", "of other weights", "cut", "edited"])
def test_without_matching_values_errors_are_unpaired_and_noted(damage: str, tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, nll=value) for name, value in zip("abc", correlated(step=1), strict=True)]
    file = tmp_path / "b" / "evaluation.npz"
    evaluation = runs[1].evaluation
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:300])
    elif damage == "edited":
        np.savez(file, **{"likelihood/nll": np.zeros(200, "float32")})
    elif damage == "of other images":
        evaluation["likelihood"]["checksum"] = "xyz"
    else:
        evaluation["model"] = {"prior": "fitted", "checksum": "others"}
    assert load_per_image(runs[1], evaluation) == {}
    (tmp_path / "b" / "evaluation.json").write_text(json.dumps(evaluation))
    comparison = compare(runs)
    a, b, c = comparison.columns["nll"]
    ranked = damage != "of other images"
    assert (a.best, b.best, c.best) == (ranked, ranked, False)
    assert not b.difference.paired
    assert b.difference.standard_error == pytest.approx(np.hypot(a.standard_error, b.standard_error))
    if not ranked:
        assert comparison.notes[0].startswith("nll is not ranked: measured on different images")
        return
    assert c.difference.paired
    (note,) = comparison.notes
    assert note.startswith("b: no per-image values of nll; unpaired errors are used, which hide small differences")
    assert "†: unpaired error" in str(comparison)
    assert "†" in next(line for line in str(comparison).splitlines() if line.startswith("  difference"))


def test_a_single_image_decides_nothing(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, nll=value) for name, value in zip("ab", correlated(1, 2), strict=True)]
    comparison = compare(runs)
    assert not any(cell.best for cell in comparison.columns["nll"])
    assert comparison.notes == ("nll is not marked for b: the difference has no standard error",)


def test_numbers_without_an_error_are_not_marked(tmp_path: Path) -> None:
    error = {"mean": 3.0, "standard_error": 0.1}
    runs = [
        run_of(tmp_path / "a", "samples", precision=0.9, kid=error, frechet_distance=error),
        run_of(tmp_path / "b", "samples", precision=0.5, kid=error, frechet_distance={**error, "mean": 3.5}),
        run_of(tmp_path / "c", "samples", precision=0.5, kid=4.0, frechet_distance={**error, "mean": 3.2}),
    ]
    comparison = compare(runs)
    marks = {name: [cell.best for cell in cells] for name, cells in comparison.columns.items()}
    assert marks["precision"] == [False, False, False]
    assert marks["kid"] == [True, True, False]
    assert marks["frechet_distance"] == [True, False, True]
    assert comparison.notes == (
        "kid is not marked for c: the difference has no standard error",
        "precision is not marked for b, c: the difference has no standard error",
    )


def test_unreliable_and_infinite_numbers_are_not_ranked(tmp_path: Path) -> None:
    values = correlated()
    runs = [
        run_of(tmp_path / "a", nll=values[0], trusted=False),
        run_of(tmp_path / "b", nll=values[1], trusted=True),
        run_of(tmp_path / "c", nll=values[2], trusted=True),
        run_of(tmp_path / "d", nll={"mean": float("nan"), "standard_error": None}, images=200),
    ]
    comparison = compare(runs)
    assert [cell.best for cell in comparison.columns["nll"]] == [False, True, False, False]
    assert comparison.columns["nll"][0].difference is None
    assert comparison.notes == (
        "nll of a is not ranked: the estimate is unreliable",
        "nll of d is not ranked: it is not finite",
    )

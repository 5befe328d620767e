"""The steps of `python -m benchmarks.reproduce`, which runs this module once per backend; each prints a JSON object.

    python -m benchmarks.reproduce_steps ROW SEED FOLDER STEP… [--quick]

The folder of the seed contains the run and `steps.json`, the results of earlier steps. Every step can be repeated after
a kill; trainings and estimates of −log p(x) resume.
"""

import argparse
import hashlib
import json
import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import keras_vae
from benchmarks.reproduce_rows import Row, find
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.data.sources import load_splits
from keras_vae.evaluation.anomaly import Scorer
from keras_vae.evaluation.samples import measure_samples

Results = dict[str, Any]

NUM_REFERENCE, NUM_SAMPLES = 2000, 16
"""Number of reference images of anomaly scores, and of their draws per image."""

QUICK = ("training.epochs=1", "training.batch_size=64", "data.validation=0.1")
QUICK_IMAGES, QUICK_DRAWS = 120, 4
"""Number of images per split, and largest number of draws, of `--quick`."""


@dataclass(frozen=True)
class Task:
    """A step of one seed.

    Args:
        row: The row.
        seed: The seed.
        folder: Folder of the seed.
        quick: Whether to use few images, epochs and draws.
        done: Results of the earlier steps, by name.
    """

    row: Row
    seed: int
    folder: Path
    quick: bool
    done: Results

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    @property
    def experiment(self) -> keras_vae.Experiment:
        """The experiment of the seed."""
        experiment = self.row.experiment(self.seed)
        if not self.quick:
            return experiment
        source = "digits" if experiment.data.source == "mnist" else experiment.data.source
        return experiment.with_overrides([*QUICK, *self.row.quick, f"data.source={source}"])

    def splits(self) -> Splits | None:
        """Return few images of each split; None for all images, which the run loads."""
        if not self.quick:
            return None
        splits, _ = load_splits(self.experiment.data, self.seed)
        return Splits(*(None if part is None else part.subsample_evenly(QUICK_IMAGES) for part in splits))

    def all_splits(self) -> Splits:
        """Return the images of the experiment."""
        return self.splits() or load_splits(self.experiment.data, self.seed)[0]


def train(task: Task) -> Results:
    """Train the experiment, or resume its run; return the minutes of its epochs and the checksum of its weights."""
    if task.run.exists():
        run = keras_vae.resume(task.run, task.splits())
    else:
        run = keras_vae.train(task.experiment, task.splits(), task.run)
    return {
        "minutes": sum(run.metrics["seconds"]) / 60,
        "epochs": len(run.metrics["epoch"]),
        "parameters": run.environment["parameters"],
        "checksum": run.model_fingerprint("original")["checksum"],
        "devices": run.environment["devices"],
        "revision": run.environment.get("git_revision"),
    }


def likelihood(task: Task, proposal: Any, samples: int) -> Results:
    """Measure −log p(x) of the test images."""
    config = keras_vae.EvaluationConfig(samples=min(samples, QUICK_DRAWS) if task.quick else samples, proposal=proposal)
    section = keras_vae.evaluate(task.run, task.splits(), config, stages=["likelihood"])["likelihood"]
    keys = ("nll", "negative_elbo", "effective_sample_size", "trusted", "proposal", "samples", "split", "images")
    return {key: section[key] for key in keys}


def disentanglement(task: Task) -> Results:
    """Measure the disentanglement scores of the test images."""
    section = keras_vae.evaluate(task.run, task.splits(), stages=["disentanglement"])["disentanglement"]
    return {key: value for key, value in section.items() if key != "mutual_information"}


def fitted_prior(task: Task, prior: str) -> Results:
    """Fit a prior to the codes of the run."""
    keras_vae.fit_prior(task.run, prior, task.splits(), epochs=1 if task.quick else None)
    return {"prior": prior, "checksum": keras_vae.Run.open(task.run).model_fingerprint("fitted")["checksum"]}


def samples(task: Task) -> Results:
    """Compare samples from the fitted prior with the test images."""
    config = keras_vae.EvaluationConfig(num_generated=QUICK_IMAGES if task.quick else 10_000)
    section = keras_vae.evaluate(task.run, task.splits(), config, stages=["samples"])["samples"]
    return _distances(section)


def pythae_samples(task: Task, model: str, epochs: int, latent_dim: int) -> Results:
    """Train a model of pythae with pythae, and compare the samples of its samplers with the test images."""
    from benchmarks.pythae_samplers import train_samplers

    splits = task.all_splits()
    images = splits.train.images
    with tempfile.TemporaryDirectory() as folder:
        samplers = train_samplers(model, images, 1 if task.quick else epochs, latent_dim, task.seed, Path(folder))
        count = QUICK_IMAGES if task.quick else 10_000
        return {
            name: _distances(measure_samples(sampler, splits, n=count, seed=task.seed))
            for name, sampler in samplers.items()
        }


def compare_samples(task: Task) -> Results:
    """Compare the distances of our samples with the smallest distances of pythae's."""
    theirs = [
        (f"{step.removeprefix('pythae_')}, {sampler}", distances)
        for step, samplers in task.done.items()
        if step.startswith("pythae_")
        for sampler, distances in samplers.items()
    ]
    best = {name: min(theirs, key=lambda entry: entry[1][name]["mean"]) for name in ("frechet_distance", "kid")}
    ratios = [_ratio(task.done["samples"][name], distances[name]) for name, (_, distances) in best.items()]
    return {
        "ratio": max(ratios, key=lambda ratio: ratio["mean"]),
        **{f"best_{name}": distances[name] for name, (_, distances) in best.items()},
        **{f"best_by_{name}": which for name, (which, _) in best.items()},
    }


def _ratio(first: Results, second: Results) -> Results:
    """Return a ratio, whose error ignores that both were measured on the same images; a KID may be 0 or negative."""
    ratio = first["mean"] / max(second["mean"], 1e-12)
    errors = [(value["standard_error"] or 0.0) / max(abs(value["mean"]), 1e-12) for value in (first, second)]
    return {"mean": ratio, "standard_error": abs(ratio) * math.hypot(*errors)}


def _distances(section: Results) -> Results:
    return {name: section[name] for name in ("frechet_distance", "kid", "images", "features")}


def held_out_digit(task: Task, digit: int) -> Results:
    """Train a model on all digits but one, and measure how well its scores detect this digit among the test images.

    The other scores are sums over pixels, to which an image with more ink contributes more, whether or not it is
    normal. `relative_error` is divided by the amount of ink: a reason to prefer it without looking at anomalies.
    """
    splits = task.all_splits()
    assert splits.test is not None
    normal = Splits(splits.train.subset(np.flatnonzero(splits.train.labels != digit), "train"), None, splits.test)
    folder = task.folder / f"without-{digit}"
    resumes = folder.exists()
    run = keras_vae.resume(folder, normal) if resumes else keras_vae.train(task.experiment, normal, folder)
    model, images, is_anomaly = run.load_model(), splits.test.images, splits.test.labels == digit
    reference = normal.train.subsample_evenly(NUM_REFERENCE).images
    scores = Scorer.fit(model, reference, samples=NUM_SAMPLES, seed=task.seed)(images)
    scores["relative_error"] = relative_error(images, model.reconstruct(images))
    return {
        "checksum": run.model_fingerprint("original")["checksum"],
        **{name: area_with_error(is_anomaly, values) for name, values in scores.items()},
    }


def relative_error(images: Array, reconstructions: Array) -> NDArray[np.float64]:
    r"""Return \(\|x - \hat x\|^2 / \|x\|^2\) of each image.

    Args:
        images: uint8 images (N, H, W, C).
        reconstructions: Their reconstructions in [0, 1].
    """
    x = images.reshape(len(images), -1) / 255
    errors = np.square(x - reconstructions.reshape(len(images), -1)).sum(axis=1)
    result: NDArray[np.float64] = errors / np.maximum(np.square(x).sum(axis=1), 1e-9)
    return result


def area_with_error(is_anomaly: Array, scores: Array) -> Results:
    """Return the ROC-AUC of scores and its standard error (Hanley and McNeil, Radiology 1982).

    Args:
        is_anomaly: Whether each image is an anomaly, (N,).
        scores: The scores, (N,).
    """
    area, positive, negative = float(roc_auc_score(is_anomaly, scores)), is_anomaly.sum(), (~is_anomaly).sum()
    two_anomalies, two_normal = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positive - 1) * (two_anomalies - area**2) + (negative - 1) * (two_normal - area**2)
    return {"mean": area, "standard_error": math.sqrt(max(variance, 0.0) / (positive * negative))}


def mean_area(task: Task) -> Results:
    """Return the mean ROC-AUC of each score over digits, its standard error, and the checksum of the checksums."""
    digits = [result for name, result in task.done.items() if name.startswith("without_")]
    checksums = "".join(digit["checksum"] for digit in digits)
    means = {
        score: {
            "mean": statistics.mean(digit[score]["mean"] for digit in digits),
            "standard_error": math.hypot(*(digit[score]["standard_error"] for digit in digits)) / len(digits),
        }
        for score in digits[0]
        if score != "checksum"
    }
    return {**means, "checksum": hashlib.sha256(checksums.encode()).hexdigest()}


FUNCTIONS: dict[str, Callable[..., Results]] = {
    function.__name__: function
    for function in (
        train,
        likelihood,
        disentanglement,
        fitted_prior,
        samples,
        pythae_samples,
        compare_samples,
        held_out_digit,
        mean_area,
    )
}


def main() -> None:
    """Take steps, and print the results of each in a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row")
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", nargs="+")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    row = find(options.row)
    assert row is not None
    steps = {step.name: step for step in row.steps}
    done = json.loads((options.folder / "steps.json").read_text("utf-8"))["results"]
    task = Task(row, options.seed, options.folder, options.quick, done)
    for name in options.steps:
        done[name] = FUNCTIONS[steps[name].function](task, **steps[name].arguments)
        print(json.dumps(done[name]), flush=True)


if __name__ == "__main__":
    main()

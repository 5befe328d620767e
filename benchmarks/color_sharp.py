"""Comparison of reconstructions with and without image losses, at equal numbers of steps, on color images.

    python -m benchmarks.color_sharp --seeds 3
    python -m benchmarks.color_sharp --seeds 3 --image-losses '[{name="perceptual", features="imagenet"}]'

Both models have the same networks, likelihood, steps and seeds; the second one adds the image losses. Both are measured
on held-out images, in features that are fixed and that no loss uses: the Fréchet distance of the reconstructions in a
network with random weights, whose layers and weights differ from those of the loss `perceptual`, and the PSNR. With
`--labeled`, the Fréchet distance is also measured in a classifier of other images, trained on their labels. The goal is
a distance that is 30 % lower, and a PSNR that is at most 1.5 dB lower. Each training runs in its own process, and its
run remains in `--out`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.workload import emoji_file

NETWORK = (
    'model.network={name="conv", widths=[32, 64, 96, 128], dense_units=256}',
    *("model.latent_dim=128", "model.likelihood=normal", "training.batch_size=32", "training.learning_rate=1e-3"),
)
"""Settings of both models."""

LOSSES = (
    '[{name="perceptual", features="random", weight=4, seed=7}, {name="adversarial", start=0.3, widths=[16, 32, 64]}]'
)
"""Image losses of the second model."""

GOAL = {"distance": 0.7, "psnr": -1.5}
"""Largest ratio of the Fréchet distances, and smallest difference of the PSNR in decibels."""

TRAIN = """
import json, sys
from keras_vae import Experiment, train
from keras_vae.data.config import DataConfig
from keras_vae.data.sources import load_splits
from keras_vae.evaluation.features import classifier_features, random_features
from keras_vae.evaluation.image_quality import measure_image_quality

settings, seed, out, labeled = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
experiment = Experiment().with_overrides([*settings, f"seed={seed}"])
splits, _ = load_splits(experiment.data, experiment.seed)
shape = splits.train.image_shape
features = {"distance": random_features(shape, seed=1)}
if labeled:
    others, _ = load_splits(DataConfig(source=labeled, image_size=list(shape[:2]), color="rgb"))
    features["classifier_distance"] = classifier_features(others)
run = train(experiment, splits, out=out)
model, measures = run.load_model(), {}
for name, network in features.items():
    section = measure_image_quality(model, splits, features=network).section
    measures[name] = section["reconstruction_frechet_distance"]["mean"]
last = {name: values[-1] for name, values in run.metrics.items()}
names = ("val_negative_elbo", "discriminator_accuracy", "discriminator_loss")
print(json.dumps({
    **measures, "psnr": section["psnr"]["mean"], "ssim": section["ssim"]["mean"],
    **{name: last[name] for name in names if name in last}, "seconds": sum(run.metrics["seconds"]),
}))
"""


def measure(settings: Sequence[str], seed: int, out: str, labeled: str) -> dict[str, float]:
    """Train, and return the measures of the reconstructions of held-out images."""
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    command = [sys.executable, "-c", TRAIN, json.dumps(list(settings)), str(seed), out, labeled]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measures


def main() -> None:
    """Train, print one line per training, then the comparison over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(emoji_file()), help="a source of keras_vae.data")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--image-losses", default=LOSSES, help="model.image_losses of the second model, in TOML")
    parser.add_argument("--set", nargs="*", default=[], help="further settings KEY=VALUE of both models")
    parser.add_argument("--labeled", default="", help="a source of other, labeled images, for a second distance")
    parser.add_argument("--out", default="runs/color-sharp", help="first part of the paths of the runs")
    arguments = parser.parse_args()
    common = [*NETWORK, f"data.source={arguments.data}", f"training.epochs={arguments.epochs}", *arguments.set]
    contenders = {"likelihood": common, "image losses": [*common, f"model.image_losses={arguments.image_losses}"]}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for seed in range(arguments.seeds):
        for name, settings in contenders.items():
            out = f"{arguments.out}-{name.replace(' ', '-')}-{seed}"
            results[name].append(measure(settings, seed, out, arguments.labeled))
            print(json.dumps({"contender": name, "seed": seed, **results[name][-1]}), flush=True)
    pairs = list(zip(*results.values(), strict=True))
    ratios = [sharp["distance"] / plain["distance"] for plain, sharp in pairs]
    gains = [sharp["psnr"] - plain["psnr"] for plain, sharp in pairs]
    reached = statistics.mean(ratios) <= GOAL["distance"] and statistics.mean(gains) >= GOAL["psnr"]
    print(
        f"Fréchet distance {statistics.mean(ratios) - 1:+.0%} ({', '.join(f'{ratio - 1:+.0%}' for ratio in ratios)}); "
        f"PSNR {statistics.mean(gains):+.2f} dB ({', '.join(f'{gain:+.2f}' for gain in gains)}); "
        f"goal {'reached' if reached else 'missed'}: {GOAL['distance'] - 1:+.0%}, {GOAL['psnr']} dB"
    )


if __name__ == "__main__":
    main()

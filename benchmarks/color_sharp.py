"""Comparison of reconstructions with and without image losses, at equal numbers of steps, on color images.

    python -m benchmarks.color_sharp --epochs 120 --seeds 3

Both models have the same networks, likelihood, steps and seeds; the second one adds the image losses. Both are measured
on held-out images: the Fréchet distance of the reconstructions in fixed features, which no loss uses, and the PSNR. The
goal is a distance that is 30 % lower, and a PSNR that is at most 1.5 dB lower. Each training runs in its own process,
and its run remains in `--out`.
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
    'model.network={name="resnet", widths=[32, 64, 96, 128], blocks=1}',
    *("model.latent_dim=128", "model.likelihood=normal", "model.objective.beta=1", "training.batch_size=32"),
    *("training.learning_rate=5e-4", "training.ema_window=0.05"),
)
"""Settings of both models."""

LOSSES = '[{name="perceptual", features="random", weight=1.0}, {name="adversarial", weight=0.5, start=0.3}]'
"""Image losses of the second model."""

GOAL = {"distance": 0.7, "psnr": -1.5}
"""Largest ratio of the Fréchet distances, and smallest difference of the PSNR in decibels."""

TRAIN = """
import json, sys
from keras_vae import Experiment, train
from keras_vae.data.sources import load_splits
from keras_vae.evaluation.image_quality import measure_image_quality

settings, seed, out = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
experiment = Experiment().with_overrides([*settings, f"seed={seed}"])
splits, _ = load_splits(experiment.data, experiment.seed)
run = train(experiment, splits, out=out)
section = measure_image_quality(run.load_model(), splits).section
last = {name: values[-1] for name, values in run.metrics.items()}
print(json.dumps({
    "distance": section["reconstruction_frechet_distance"]["mean"], "psnr": section["psnr"]["mean"],
    "ssim": section["ssim"]["mean"], "negative_elbo": last["val_negative_elbo"],
    "seconds": sum(run.metrics["seconds"]), "features": section["features"]["name"],
    "discriminator_accuracy": last.get("discriminator_accuracy"), "discriminator_loss": last.get("discriminator_loss"),
}))
"""


def measure(settings: Sequence[str], seed: int, out: str) -> dict[str, float]:
    """Train, and return the measures of the reconstructions of held-out images."""
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    command = [sys.executable, "-c", TRAIN, json.dumps(list(settings)), str(seed), out]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measures


def main() -> None:
    """Train, print one line per training, then the comparison over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(emoji_file()), help="a source of keras_vae.data")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--image-losses", default=LOSSES, help="model.image_losses of the second model, in TOML")
    parser.add_argument("--set", nargs="*", default=[], help="further settings KEY=VALUE of both models")
    parser.add_argument("--out", default="runs/color-sharp", help="first part of the paths of the runs")
    arguments = parser.parse_args()
    common = [*NETWORK, f"data.source={arguments.data}", f"training.epochs={arguments.epochs}", *arguments.set]
    contenders = {"likelihood": common, "image losses": [*common, f"model.image_losses={arguments.image_losses}"]}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for seed in range(arguments.seeds):
        for name, settings in contenders.items():
            results[name].append(measure(settings, seed, f"{arguments.out}-{name.replace(' ', '-')}-{seed}"))
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

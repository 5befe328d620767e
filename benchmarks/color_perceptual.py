"""Image quality with and without the perceptual loss, at equal numbers of steps, on held-out color images.

    python -m benchmarks.color_perceptual --seeds 3
    python -m benchmarks.color_perceptual --features random,imagenet,classifier.keras --data photos

The model is a convolutional VAE with 64 latent dimensions and a discretized-logistic likelihood. `none` is the model
without the loss. The last line of each kind of features contains the means over the seeds.
"""

import argparse
import statistics
import time

import keras

import keras_vae
from benchmarks.workload import emoji_file
from keras_vae.components.image_losses import Perceptual
from keras_vae.components.likelihoods import DiscretizedLogistic
from keras_vae.data.config import DataConfig
from keras_vae.data.dataset import Splits
from keras_vae.data.sources import load_splits
from keras_vae.evaluation.features import Features, random_features
from keras_vae.evaluation.image_quality import measure_image_quality

NUMBERS = ("psnr", "ssim", "reconstruction_frechet_distance")


def measure(
    splits: Splits, kind: str, features: Features, *, weight: float, steps: int, batch_size: int, seed: int
) -> list[float]:
    """Train a model, and return its `NUMBERS` on the held-out images, and the seconds of its training."""
    keras.utils.set_random_seed(seed)
    losses = [] if kind == "none" else [Perceptual(weight=weight, features=kind)]
    likelihood = DiscretizedLogistic()
    model = keras_vae.VAE(
        latent_dim=64, image_shape=splits.train.image_shape, likelihood=likelihood, image_losses=losses, seed=seed
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    start, per_epoch = time.perf_counter(), len(splits.train) // batch_size
    images = splits.train.images[: per_epoch * batch_size]
    model.fit(images, batch_size=batch_size, epochs=max(1, round(steps / per_epoch)), verbose=0)
    seconds = time.perf_counter() - start
    section = measure_image_quality(model, splits, features=features).section
    return [*(section[name]["mean"] for name in NUMBERS), seconds]


def main() -> None:
    """Train, and print one line per training and one per kind of features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(emoji_file()), help="a source of keras_vae.data")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--features", default="random", help="features of the loss, separated by commas")
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    size = [options.image_size, options.image_size]
    splits, _ = load_splits(DataConfig(source=options.data, image_size=size, color="rgb"))
    # Neither trained on these images nor used by the loss.
    features = random_features(splits.train.image_shape, seed=1)
    print(f"{'features':<20} {'seed':>5} {'PSNR':>8} {'SSIM':>8} {'Fréchet':>9} {'seconds':>8}", flush=True)
    for kind in ("none", *options.features.split(",")):
        rows = []
        for seed in range(options.seeds):
            row = measure(
                splits,
                kind,
                features,
                weight=options.weight,
                steps=options.steps,
                batch_size=options.batch_size,
                seed=seed,
            )
            rows.append(row)
            print(_line(kind, str(seed), row), flush=True)
        print(_line(kind, "mean", [statistics.mean(column) for column in zip(*rows, strict=True)]), flush=True)


def _line(kind: str, seed: str, row: list[float]) -> str:
    ratio, similarity, distance, seconds = row
    return f"{kind:<20} {seed:>5} {ratio:>8.2f} {similarity:>8.4f} {distance:>9.4f} {seconds:>8.0f}"


if __name__ == "__main__":
    main()

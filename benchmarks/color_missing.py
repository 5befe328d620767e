"""Imputation of missing pixels, compared with scikit-learn's IterativeImputer on the same incomplete images.

    python -m benchmarks.color_missing --seeds 3 --figure docs/missing-pixels.png

Of scikit-learn's 1,797 digits, 8×8 pixels, 360 are held out. A random half of the pixels is removed from all of them,
also from the training images, so that no method ever reads a complete image. Each seed has its own split, missing
pixels and training. The error is the root mean squared error of the missing pixels of the held-out images, in units in
which white is 1; `coverage` is the fraction of them that lies inside the interval of 90 %. The goal is an error below
that of IterativeImputer with every seed.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

from keras_vae import VAE
from keras_vae.cli.imputing import imputation_figure
from keras_vae.components.likelihoods import Normal
from keras_vae.components.objectives import IWAE
from keras_vae.models.imputation import ImputedImages
from keras_vae.networks import MLP
from keras_vae.report import figures

TRAINING_IMAGES, LATENT_DIM, EPOCHS = 1437, 16, 100

TITLES = {
    "pixel_mean": "mean of each pixel",
    "iterative_imputer": "IterativeImputer",
    "vae": "VAE",
    "coverage": "coverage of the VAE",
    "effective_sample_size": "median effective sample size",
    "iterative_imputer_seconds": "seconds of IterativeImputer",
    "vae_seconds": "seconds of the VAE",
}
"""Rows of the table, by the name of the number."""

Images = NDArray[Any]


def incomplete_digits(seed: int) -> tuple[Images, Images]:
    """Return digits in random order, (N, 8, 8, 1), in [0, 1], and masks of a random half of their pixels."""
    rng = np.random.default_rng(seed)
    images = (load_digits().images / 16).astype("float32")[..., np.newaxis]
    return images[rng.permutation(len(images))], rng.random(images.shape) < 0.5


def train(images: Images, mask: Images, seed: int) -> VAE:
    """Train a VAE on the observed pixels of images."""
    keras.utils.set_random_seed(seed)
    network = MLP(widths=(128, 128), activation="relu")
    encoder = network.encoder((8, 8, 2), LATENT_DIM, {"z_mean": LATENT_DIM, "z_log_var": LATENT_DIM})
    model = VAE(
        encoder,
        network.decoder(LATENT_DIM, (8, 8, 1)),
        likelihood=Normal(scale="learned"),
        objective=IWAE(20),
        mask_channels=True,
        seed=seed,
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    model.fit({"images": np.where(mask, images, np.nan), "mask": mask}, batch_size=64, epochs=EPOCHS, verbose=0)
    return model


def measure(seed: int, samples: int) -> tuple[dict[str, float], Images, ImputedImages]:
    """Return the errors of all methods, the held-out images, and those imputed by the VAE."""
    images, mask = incomplete_digits(seed)
    incomplete = np.where(mask, images, np.nan)
    held_out, hidden = images[TRAINING_IMAGES:], ~mask[TRAINING_IMAGES:]
    rows = incomplete.reshape(len(images), -1)

    def error(imputed: Images) -> float:
        return float(np.sqrt(np.mean(np.square(imputed.reshape(held_out.shape) - held_out)[hidden])))

    results: dict[str, float] = {}
    mean = np.nanmean(rows[:TRAINING_IMAGES], axis=0)
    results["pixel_mean"] = error(np.where(np.isnan(rows), mean, rows)[TRAINING_IMAGES:])
    start = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):
        imputer = IterativeImputer(random_state=seed).fit(rows[:TRAINING_IMAGES])
        results["iterative_imputer"] = error(np.clip(imputer.transform(rows[TRAINING_IMAGES:]), 0, 1))
    results["iterative_imputer_seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    model = train(images[:TRAINING_IMAGES], mask[:TRAINING_IMAGES], seed)
    imputed = model.impute(incomplete[TRAINING_IMAGES:], samples=samples, seed=seed)
    results["vae"] = error(imputed.images)
    inside = (held_out >= imputed.lower) & (held_out <= imputed.upper)
    results["coverage"] = float(inside[hidden].mean())
    results["effective_sample_size"] = float(np.median(imputed.effective_sample_size))
    results["vae_seconds"] = time.perf_counter() - start
    return results, held_out, imputed


def main() -> None:
    """Measure all seeds, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--samples", type=int, default=500, help="importance samples per image")
    parser.add_argument("--figure", type=Path, help="a PNG file for images of the first seed")
    arguments = parser.parse_args()
    measured = []
    for seed in range(arguments.seeds):
        results, images, imputed = measure(seed, arguments.samples)
        measured.append(results)
        print(json.dumps({"seed": seed, **{name: round(value, 4) for name, value in results.items()}}), flush=True)
        if seed == 0 and arguments.figure is not None:
            first = ImputedImages(*(values[:10] for values in imputed))
            levels = np.rint(255 * images[:10]).astype("uint8")
            figures.save(imputation_figure(levels, first, 0.9, "digits"), arguments.figure)
    print("| | mean | lowest | highest |\n|---|---:|---:|---:|")
    for name, title in TITLES.items():
        values = [results[name] for results in measured]
        print(f"| {title} | {np.mean(values):.3g} | {min(values):.3g} | {max(values):.3g} |")
    reached = all(results["vae"] < results["iterative_imputer"] for results in measured)
    print(f"goal {'reached' if reached else 'missed'}: error below that of IterativeImputer, every seed")


if __name__ == "__main__":
    main()

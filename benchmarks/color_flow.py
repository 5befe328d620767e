"""Fréchet distances of samples from a fitted flow-matching prior, the model's own prior, and reconstructions.

    python -m benchmarks.color_flow --seeds 3                            # mnist-16d: up to ten minutes per seed
    python -m benchmarks.color_flow --runs runs/flow-prior runs/emoji    # runs of your own
    python -m benchmarks.color_flow --steps 1500 --seeds 1               # a short trial

All sets are compared with the held-out images, in the features of `vae evaluate`. `covered` is the part of the distance
between the model's own prior and its reconstructions that the flow-matching prior covers. The goal is one half.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_vae.components.priors import FlowMatching
from keras_vae.core.progress import silent
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.features import Features, load_features
from keras_vae.evaluation.samples import FEATURE_SEED
from keras_vae.evaluation.set_distances import frechet_distance
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.vae import VAE
from keras_vae.runs.run import Run
from keras_vae.training.flow_fitting import STEPS, fit_flow
from keras_vae.training.prior_fitting import build_prior, enough_images

SAMPLES = 10_000


def main() -> None:
    """Fit and measure each seed, and print one line per fit and the means per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=["mnist-16d"], help="complete runs of a VAE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="images per set; fewer if fewer are held out")
    arguments = parser.parse_args()
    for name in arguments.runs:
        run = Run.open(name)
        splits, model = run.load_splits(), run.load_model("original")
        covered = [measure(run, model, splits, seed, arguments) for seed in range(arguments.seeds)]
        spread = statistics.stdev(covered) if len(covered) > 1 else float("nan")
        print(f"{run.name}: covered {statistics.mean(covered):.2f}, {spread:.2f} standard deviation over seeds")


def measure(run: Run, model: VAE, splits: Splits, seed: int, arguments: argparse.Namespace) -> float:
    """Fit a prior with a seed, print the distances, and return the covered part."""
    features = load_features(None, splits.sample(), seed=FEATURE_SEED)
    held_out = (splits.held_out or splits.train).subsample_evenly(arguments.samples)
    condition, count = dataset_condition(model, held_out), len(held_out)
    real = features(held_out.images)
    keras.utils.set_random_seed(seed)
    prior = build_prior(model, {"name": "flow-matching"})
    assert isinstance(prior, FlowMatching)
    dataset = enough_images(splits.train.sample())
    epochs = max(1, round(arguments.steps / -(-len(dataset) // 512)))
    started, processor = time.perf_counter(), time.process_time()
    fit_flow(prior, model, dataset, epochs, seed, silent)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    sets = {
        "own_prior": model.sample(count, seed=seed, condition=condition),
        "flow_matching": model.with_prior(prior).sample(count, seed=seed, condition=condition),
        "reconstructions": model.reconstruct(held_out.images, condition=condition),
    }
    distances = {name: distance(features, images, real) for name, images in sets.items()}
    own, flow, floor = distances.values()
    covered = (own - flow) / (own - floor)
    result = {"run": run.name, "seed": seed, "steps": epochs * -(-len(dataset) // 512), "seconds": round(seconds)}
    result |= {"processor_seconds": round(processor), "images": count}
    result |= {name: round(value, 2) for name, value in distances.items()} | {"covered": round(covered, 2)}
    print(json.dumps(result), flush=True)
    return covered


def distance(features: Features, images: Array, real: Array) -> float:
    """Return the Fréchet distance of images in [0, 1] from the features of real images."""
    return frechet_distance(features(np.rint(np.multiply(images, 255)).astype("uint8")), real)


if __name__ == "__main__":
    main()

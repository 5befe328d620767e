"""Fréchet distances of samples from a fitted flow-matching prior, the model's own prior, and reconstructions.

    python -m benchmarks.color_flow --seeds 3                         # all models; up to ten minutes per seed and model
    python -m benchmarks.color_flow --models emoji-map --set training.epochs=20 --steps 500 --seeds 1    # a short trial

| model | latent code | own prior |
|---|---|---|
| `mnist-16d` | 16 dimensions, pretrained | RealNVP, fitted afterward |
| `flow-prior` | 40 dimensions, the preset | RealNVP, trained jointly |
| `emoji` | 64 dimensions, color images of 64×64 pixels, pretrained | standard normal |
| `emoji-map` | a map of 8×8×4 of the same images | standard normal |

Models that are not pretrained are trained once, into the folder `--folder`, which all seeds share. Any other name is
that of a run of your own. The images of emoji are `emoji.npz` in the folder $KERAS_VAE_DATA.

All sets are compared with as many held-out images, in the features of `vae evaluate`. `covered` is the part of the
distance between the model's own prior and its reconstructions that the flow-matching prior covers. The goal is one half
for each seed, in ten minutes of wall or processor time, whichever is shorter. `training_codes` are decoded samples from
q(z|x) of training images, the distance of a perfect prior. If few images are held out, the distances of samples are
means over several draws.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.workload import emoji_file
from keras_vae import Experiment, resume, train
from keras_vae.components.priors import FlowMatching
from keras_vae.core.progress import silent
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.data.sources import load_splits
from keras_vae.evaluation.features import Features, load_features
from keras_vae.evaluation.samples import FEATURE_SEED
from keras_vae.evaluation.set_distances import frechet_distance
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.vae import VAE
from keras_vae.runs.run import Run
from keras_vae.training.flow_fitting import STEPS, fit_flow, steps_per_epoch
from keras_vae.training.prior_fitting import build_prior, enough_images

MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "flow-prior": ("flow-prior", ()),
    "emoji-map": (
        "kl-f8",
        (
            'model.network={name="autoencoder", widths=[8, 16, 32, 32]}',
            *("training.batch_size=32", "training.learning_rate=1e-3", "training.epochs=100"),
            *('training.schedule={name="cosine", warm_up=0.05}', "training.ema_window=0.05"),
        ),
    ),
}
"""The preset of each model that is not pretrained, and the settings that differ from it."""

IMAGES = 10_000
"""Largest number of images per set, and smallest number of samples over all draws."""

GOAL = {"covered": 0.5, "minutes": 10.0}


def main() -> None:
    """Fit and measure each seed, and print one line per fit and the verdict per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["mnist-16d", "flow-prior", "emoji"], help="names above, or runs of a VAE"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of the prior")
    parser.add_argument("--folder", type=Path, default=Path("runs/color-flow"), help="where to keep trained models")
    parser.add_argument("--set", nargs="*", default=[], help="further settings KEY=VALUE of the trained models")
    arguments = parser.parse_args()
    for name in arguments.models:
        run = base_run(name, arguments.folder, arguments.set)
        splits, model = load_images(run), run.load_model("original")
        assert isinstance(model, VAE)
        results = [measure(run, model, splits, seed, arguments.steps) for seed in range(arguments.seeds)]
        covered, minutes = ([result[key] for result in results] for key in GOAL)
        reached = min(covered) >= GOAL["covered"] and max(minutes) <= GOAL["minutes"]
        print(
            f"{run.name}: covered {statistics.mean(covered):.0%} ({', '.join(f'{part:.0%}' for part in covered)}) in "
            f"{statistics.mean(minutes):.1f} minutes per fit; goal {'reached' if reached else 'missed'}: at least "
            f"{GOAL['covered']:.0%} in {GOAL['minutes']:.0f} minutes, every seed",
            flush=True,
        )


def base_run(name: str, folder: Path, settings: list[str]) -> Run:
    """Return the run whose prior is replaced, after training it if it is in `MODELS` and not trained yet."""
    if name not in MODELS:
        return Run.open(name)
    path = folder / name
    if not path.exists():
        preset, own = MODELS[name]
        source = [] if preset == name else [f"data.source={emoji_file()}"]
        train(Experiment.preset(preset).with_overrides([f"name={name}", *source, *own, *settings]), out=path)
    elif not Run.open(path).is_complete:
        resume(path)
    return Run.open(path)


def load_images(run: Run) -> Splits:
    """Return the images of a run. The pretrained run `emoji` records the name of their file, but not its folder."""
    source = str(emoji_file()) if run.name == "emoji" else run.data.source
    splits, _ = load_splits(run.data.model_copy(update={"source": source}), run.experiment.seed)
    run.require_same_images(splits)
    return splits


def measure(run: Run, model: VAE, splits: Splits, seed: int, steps: int) -> dict[str, float]:
    """Fit a prior with a seed, print the distances, and return the goal's numbers."""
    features = load_features(None, splits.sample(), seed=FEATURE_SEED)
    held_out = (splits.held_out or splits.train).subsample_evenly(IMAGES)
    condition, count = dataset_condition(model, held_out), len(held_out)
    real = features(held_out.images)
    keras.utils.set_random_seed(seed)
    prior = build_prior(model, {"name": "flow-matching"})
    assert isinstance(prior, FlowMatching)
    dataset = enough_images(splits.train.sample())
    epochs = max(1, round(steps / steps_per_epoch(prior, len(dataset))))
    started, processor = time.perf_counter(), time.process_time()
    fit_flow(prior, model, dataset, epochs, seed, silent)
    minutes, processor = (time.perf_counter() - started) / 60, time.process_time() - processor

    def of_samples(source: VAE) -> float:
        draws = [
            source.sample(count, seed=seed + 1000 * draw, condition=condition) for draw in range(-(-IMAGES // count))
        ]
        return statistics.mean(distance(features, images, real) for images in draws)

    own, flow = of_samples(model), of_samples(model.with_prior(prior))
    floor = distance(features, model.reconstruct(held_out.images, condition=condition), real)
    covered = (own - flow) / (own - floor)
    distances = {"own_prior": own, "flow_matching": flow, "reconstructions": floor}
    distances |= {"training_codes": distance(features, decoded_codes(model, splits, count, seed), real)}
    distances |= {"covered": covered}
    result = {"model": run.name, "seed": seed, "steps": epochs * steps_per_epoch(prior, len(dataset))}
    result |= {"minutes": round(minutes, 1), "processor_minutes": round(processor / 60, 1), "images": count}
    print(json.dumps(result | {name: round(value, 4) for name, value in distances.items()}), flush=True)
    return {"covered": covered, "minutes": min(minutes, processor / 60)}


def decoded_codes(model: VAE, splits: Splits, count: int, seed: int) -> Array:
    """Return the mean images of codes z ~ q(z|x) of training images."""
    train = splits.train.sample().subsample_evenly(count)
    condition = dataset_condition(model, train)
    return model.decode(model.sample_posterior(train.images, seed=seed, condition=condition), condition=condition)


def distance(features: Features, images: Array, real: Array) -> float:
    """Return the Fréchet distance of images in [0, 1] from the features of real images."""
    return frechet_distance(features(np.rint(np.multiply(images, 255)).astype("uint8")), real)


if __name__ == "__main__":
    main()

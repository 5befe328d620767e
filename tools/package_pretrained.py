"""Put a trained run into the package, as what `keras_vae.load(NAME)` and `vae sample NAME` open.

    vae train classic --out runs/classic
    python tools/package_pretrained.py runs/classic mnist-2d

Writes `src/keras_vae/runs/pretrained/NAME`: the run's experiment, environment and metrics as they are; its model
without the optimizer, whose state is two thirds of the file; an evaluation of that model; and a few test images with
their labels, so that there is something to show where there is no data. An interrupted call starts anew.
"""

import argparse
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console

from keras_vae.core import backend
from keras_vae.core.files import replacing_folder
from keras_vae.core.progress import track
from keras_vae.evaluation.evaluate import EvaluationConfig, evaluate
from keras_vae.models.base import BaseVAE
from keras_vae.runs.run import Run

TRAINED = Path(__file__).parents[1] / "src" / "keras_vae" / "runs" / "pretrained"
IMAGES = 500
"""How many test images go along, evenly spaced."""


def main() -> None:
    """Ship the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a complete run folder")
    parser.add_argument("name", help="what the package calls it")
    parser.add_argument("--samples", type=int, default=1000, help="K, the draws an image for −log p(x)")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    run.require_complete()
    splits = run.load_splits()
    model = without_optimizer(run.load_model("original"))
    with tempfile.TemporaryDirectory() as temporary:
        pretrained_names = Run(Path(temporary))
        for name in ("experiment.toml", "metrics.csv"):
            shutil.copyfile(run.path / name, pretrained_names.path / name)
        # Runs of earlier versions name the kernel that they were made under.
        environment = run.environment | {"platform": backend.describe_software()["platform"]}
        (pretrained_names.path / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
        pretrained_names.save_model(model)
        test = splits.test.subsample_evenly(IMAGES)
        np.savez_compressed(
            pretrained_names.path / "images.npz", images=test.images, labels=test.labels.astype("uint8")
        )
        evaluate(
            pretrained_names,
            splits,
            stages=("likelihood", "latents"),
            config=EvaluationConfig(samples=arguments.samples, seed=run.experiment.seed),
            progress=functools.partial(track, Console(stderr=True)),
        )
        with replacing_folder(TRAINED / arguments.name) as folder:
            for file in pretrained_names.path.iterdir():
                shutil.copyfile(file, folder / file.name)
    print(f"{sum(file.stat().st_size for file in (TRAINED / arguments.name).iterdir()):,} bytes")


def without_optimizer(model: BaseVAE) -> BaseVAE:
    """Return the same model, not compiled: what is compiled is saved with its optimizer."""
    copy = type(model).from_config(model.get_config())
    copy.build((None, *model.image_shape))
    copy.set_weights(model.get_weights())
    return copy


if __name__ == "__main__":
    main()

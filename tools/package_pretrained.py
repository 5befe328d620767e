"""Copy a trained run into the package, from which `keras_vae.load(NAME)` and `vae sample NAME` load it.

    vae train classic --out runs/classic
    python tools/package_pretrained.py runs/classic mnist-2d

This writes the folder `src/keras_vae/runs/pretrained/NAME`: the experiment, environment and metrics of the run; its
model without the state of the optimizer, which takes two thirds of the file; an evaluation of the model; and some test
images with their labels, for use without the data set. If the program is interrupted, run it again.
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
from keras import ops
from rich.console import Console

from keras_vae.core import backend
from keras_vae.core.files import replacing_folder
from keras_vae.core.progress import track
from keras_vae.evaluation.evaluate import EvaluationConfig, evaluate
from keras_vae.models.base import BaseVAE
from keras_vae.runs.run import Run

PRETRAINED = Path(__file__).parents[1] / "src" / "keras_vae" / "runs" / "pretrained"
IMAGES = 500
"""Number of test images, evenly spaced."""


def main() -> None:
    """Package the run given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a complete run folder")
    parser.add_argument("name", help="the name of the pretrained run")
    parser.add_argument("--samples", type=int, default=1000, help="K, the number of samples per image for −log p(x)")
    parser.add_argument("--images", type=int, help="number of test images to measure, evenly spaced; by default all")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    run.require_complete()
    splits = run.load_splits()
    model = without_optimizer(run.load_model("original"))
    with tempfile.TemporaryDirectory() as temporary:
        packaged = Run(Path(temporary))
        for name in ("experiment.toml", "metrics.csv"):
            shutil.copyfile(run.path / name, packaged.path / name)
        # Environments of earlier versions contain the version of the machine's kernel.
        environment = run.environment | {"platform": backend.describe_software()["platform"]}
        (packaged.path / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
        packaged.save_model(model)
        test = splits.test.subsample_evenly(IMAGES)
        np.savez_compressed(packaged.path / "images.npz", images=test.images, labels=test.labels.astype("uint8"))
        measured = splits.test if arguments.images is None else splits.test.subsample_evenly(arguments.images)
        evaluate(
            packaged,
            splits._replace(test=measured),
            stages=("likelihood", "latents"),
            config=EvaluationConfig(samples=arguments.samples, seed=run.experiment.seed),
            progress=functools.partial(track, Console(stderr=True)),
        )
        with replacing_folder(PRETRAINED / arguments.name) as folder:
            for file in packaged.path.iterdir():
                shutil.copyfile(file, folder / file.name)
    print(f"{sum(file.stat().st_size for file in (PRETRAINED / arguments.name).iterdir()):,} bytes")


def without_optimizer(model: BaseVAE) -> BaseVAE:
    """Return an uncompiled copy of a model, which is saved without an optimizer, and without its image losses."""
    copy = type(model).from_config(model.get_config() | {"image_losses": []})
    copy.build((None, *model.image_shape))
    left_out = {id(weight) for loss in model.image_losses for weight in loss.weights}
    copy.set_weights([ops.convert_to_numpy(weight) for weight in model.weights if id(weight) not in left_out])
    return copy


if __name__ == "__main__":
    main()

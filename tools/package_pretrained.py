"""Copy a trained run into the package, from which `keras_vae.load(NAME)` and `vae sample NAME` load it.

    vae train classic --out runs/classic
    python tools/package_pretrained.py runs/classic mnist-2d

This writes the folder `src/keras_vae/runs/pretrained/NAME`: the experiment, environment and metrics of the run; its
models, with the original and with a fitted prior, if any, without the state of the optimizer, which takes two thirds of
the file; an evaluation; and some test images with their labels, for use without the data set. If the
program is interrupted, run it again. A model of color images, from 1,476 pictures of Noto Emoji:

    vae train tools/emoji.toml --data emoji.npz --out runs/emoji
    vae fit-prior runs/emoji --prior flow-matching --set width=128 --set num_blocks=2 --epochs 450
    python tools/package_pretrained.py runs/emoji emoji --bits 9 --included 60 --stages likelihood latents image-quality
"""

import argparse
import functools
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from keras import ops
from rich.console import Console

from keras_vae.core import backend
from keras_vae.core.files import replacing_folder
from keras_vae.core.progress import track
from keras_vae.core.typing import Array
from keras_vae.data.sources import SOURCES
from keras_vae.evaluation.evaluate import EvaluationConfig, evaluate
from keras_vae.models.base import BaseVAE
from keras_vae.runs.run import Run

PRETRAINED = Path(__file__).parents[1] / "src" / "keras_vae" / "runs" / "pretrained"
STAGES = ("likelihood", "latents")
MANTISSA_BITS = 23
"""Bits of a float32 number after the leading one."""


def main() -> None:
    """Package the run given on the command line."""
    arguments = parse()
    run = Run.open(arguments.run)
    run.require_complete()
    splits = run.load_splits()
    # The latter is the name of the file: the package must not contain a path of this machine.
    source = run.experiment.data.source
    data = run.experiment.data.model_copy(update={"source": source if source in SOURCES else Path(source).name})
    with tempfile.TemporaryDirectory() as temporary:
        packaged = Run(Path(temporary))
        (packaged.path / "experiment.toml").write_text(run.experiment.model_copy(update={"data": data}).to_toml())
        shutil.copyfile(run.path / "metrics.csv", packaged.path / "metrics.csv")
        # Environments of earlier versions contain the version of the machine's kernel.
        environment = run.environment | {"platform": backend.describe_software()["platform"]}
        (packaged.path / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
        for prior in ("original", "fitted") if run.has_fitted_prior else ("original",):
            packaged.save_model(without_optimizer(run.load_model(prior), arguments.bits), fitted=prior == "fitted")
        if arguments.bits:
            for file in packaged.path.glob("*.keras"):
                compress(file)
        test = splits.test.subsample_evenly(arguments.included)
        labels = {} if test.labels is None else {"labels": test.labels.astype("uint8")}
        np.savez_compressed(packaged.path / "images.npz", images=test.images, **labels)
        measured = splits.test if arguments.images is None else splits.test.subsample_evenly(arguments.images)
        evaluate(
            packaged,
            splits._replace(test=measured),
            stages=arguments.stages,
            config=EvaluationConfig(samples=arguments.samples, seed=run.experiment.seed),
            progress=functools.partial(track, Console(stderr=True)),
        )
        with replacing_folder(PRETRAINED / arguments.name) as folder:
            for file in packaged.path.iterdir():
                shutil.copyfile(file, folder / file.name)
    print(f"{sum(file.stat().st_size for file in (PRETRAINED / arguments.name).iterdir()):,} bytes")


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a complete run folder")
    parser.add_argument("name", help="the name of the pretrained run")
    parser.add_argument("--samples", type=int, default=1000, help="K, the number of samples per image for −log p(x)")
    parser.add_argument("--images", type=int, help="number of test images to measure, evenly spaced; by default all")
    parser.add_argument("--included", type=int, default=500, help="number of test images to copy, evenly spaced")
    parser.add_argument("--stages", nargs="+", default=STAGES, help="stages of the evaluation")
    parser.add_argument("--bits", type=int, help="round weights to this many bits after the leading one, and compress")
    return parser.parse_args()


def without_optimizer(model: BaseVAE, bits: int | None = None) -> BaseVAE:
    """Return an uncompiled copy of a model, which is saved without an optimizer, and without its image losses."""
    copy = type(model).from_config(model.get_config() | {"image_losses": []})
    copy.build((None, *model.image_shape))
    left_out = {id(weight) for loss in model.image_losses for weight in loss.weights}
    weights = [ops.convert_to_numpy(weight) for weight in model.weights if id(weight) not in left_out]
    copy.set_weights([rounded(weight, bits) if bits else weight for weight in weights])
    return copy


def rounded(weight: Array, bits: int) -> Array:
    """Return an array whose float32 numbers have zeros after the given number of bits, so that they compress well."""
    if weight.dtype != np.float32:
        return weight
    dropped = MANTISSA_BITS - bits
    # Half of the last remaining bit is added to the pattern before the others are dropped.
    pattern = weight.view(np.uint32) + np.uint32(1 << (dropped - 1))
    return (pattern & ~np.uint32((1 << dropped) - 1)).view(np.float32)


def compress(file: Path) -> None:
    """Compress the members of a `.keras` archive, which Keras only stores."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


if __name__ == "__main__":
    main()

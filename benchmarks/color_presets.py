"""Cost of the presets for color photographs, and their time and quality on 3,000 photographs.

    python -m benchmarks.color_presets                                      # multiply-adds, in a minute
    python -m benchmarks.color_presets --data clothing/train --train        # an hour on two cores
    python -m benchmarks.color_presets --data clothing/train --train kl-f8

The cost is the number of multiply-adds of all convolutions and dense layers for one image; a training step takes about
three times as many. Training includes the ELBO and the report, as `vae train` does. The goals are twenty minutes for
`kl-f8` and thirty for `photo`.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_vae import Experiment, evaluate, train
from keras_vae.data.info import DatasetInfo
from keras_vae.data.sources import load_splits
from keras_vae.evaluation.evaluate import EvaluationConfig
from keras_vae.evaluation.image_quality import measure_image_quality
from keras_vae.report.report import write_report
from keras_vae.runs.build import build_model

PRESETS = ("kl-f8", "kl-f4", "photo")
IMAGE_SHAPE = (64, 64, 3)

LARGER = {
    "kl-f8": ["model.network.widths=[64, 128, 256, 256]", "model.network.blocks=2", "training.epochs=100"],
    "kl-f4": ["model.network.widths=[64, 128, 256]", "model.network.blocks=2", "training.epochs=100"],
    "photo": ["model.network.widths=[32, 64, 128]", "model.likelihood.num_components=5", "training.epochs=100"],
}
"""Settings of a larger run of each preset."""


def main() -> None:
    """Print one line of JSON per preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a source of keras_vae.data")
    parser.add_argument("--train", nargs="*", metavar="PRESET", help="train these presets; without names, all")
    parser.add_argument("--images", type=int, default=3000, help="number of training images")
    parser.add_argument("--out", default="runs/color-presets", help="first part of the paths of the runs")
    arguments = parser.parse_args()
    if arguments.train is None:
        for numbers in costs(arguments.images):
            print(json.dumps(numbers), flush=True)
        return
    for name in arguments.train or PRESETS:
        print(json.dumps(measure(name, arguments.data, arguments.images, f"{arguments.out}-{name}")), flush=True)


def costs(images: int) -> Iterator[dict[str, Any]]:
    """Yield the multiply-adds of each preset and of its larger variant."""
    for name in PRESETS:
        for settings in ([], LARGER[name]):
            experiment = Experiment.preset(name).with_overrides(settings)
            millions = multiply_adds(experiment) / 1e6
            total = 3 * millions * images * experiment.training.epochs / 1e6
            yield {
                "preset": name,
                "settings": settings,
                "million_multiply_adds_per_image": round(millions),
                "epochs": experiment.training.epochs,
                "trillion_multiply_adds_of_training": round(total),
            }


def multiply_adds(experiment: Experiment) -> int:
    """Return the multiply-adds of the convolutions and dense layers of a model for one image."""
    model = build_model(experiment, DatasetInfo(IMAGE_SHAPE, 3000))
    counts: list[int] = []
    for network in (model.encoder, model.decoder):
        for layer in network._flatten_layers():
            if hasattr(layer, "kernel"):
                layer.call = _counting(layer, counts)
    moments = model.encoder(np.zeros((1, *IMAGE_SHAPE), "float32"))
    model.decoder(moments[0])
    return sum(counts)


def _counting(layer: keras.layers.Layer, counts: list[int]) -> Any:
    """Return the `call` of a layer, extended by a count of its multiply-adds."""
    call = layer.call

    def counted(inputs: Any) -> Any:
        outputs = call(inputs)
        # Every position of the output is a product of the whole kernel with a part of the input.
        counts.append(math.prod(outputs.shape[1:-1]) * math.prod(layer.kernel.shape))
        return outputs

    return counted


def measure(name: str, data: str, images: int, out: str) -> dict[str, Any]:
    """Train a preset as `vae train` does, and return the time and the measures of its reconstructions."""
    experiment = Experiment.preset(name).with_overrides([f"data.source={data}"])
    splits, _ = load_splits(experiment.data, experiment.seed)
    splits = splits._replace(train=splits.train.subsample_evenly(images))
    start, processor = time.perf_counter(), time.process_time()
    run = train(experiment, splits, out=out)
    evaluate(run, splits, EvaluationConfig(samples=0), stages=("likelihood",))
    write_report(run, splits)
    minutes, processor = (time.perf_counter() - start) / 60, (time.process_time() - processor) / 60
    quality = measure_image_quality(run.load_model(), splits).section
    times = {"minutes": round(minutes, 1), "processor_minutes": round(processor, 1)}
    return {"preset": name, **times, "psnr": quality["psnr"]["mean"], "run": str(run.path)}


if __name__ == "__main__":
    main()

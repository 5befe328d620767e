"""Measure the speed and memory of training on images that are read from disk, relative to images in memory.

Usage:
    python -m benchmarks.scale_stream [--images 20000] [--side 64] [--only rates|peaks]

Prints one line per measurement: images/s of reading alone and of training, and the ratios within this run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_NETWORK = "model.network={name='mlp', widths=[512, 256]}"

_PEAK = """
import sys
import keras_vae
from keras_vae import Experiment
source, out, load, network = sys.argv[1:]
settings = [network, f"data.source={source}", f"data.load={load}", "training.epochs=1", "training.batch_size=128"]
keras_vae.train(Experiment.preset("classic").with_overrides(settings), out=out)
# Unlike `ru_maxrss`, this peak does not include the memory of the parent process.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def write_array(path: Path, count: int, side: int) -> None:
    """Write smooth images with noise, block by block, to a `.npy` file."""
    rng, grid = np.random.default_rng(0), np.linspace(0, 6, side)
    images = np.lib.format.open_memmap(path, "w+", "uint8", (count, side, side, 1))
    for start in range(0, count, 1000):
        block = images[start : start + 1000]
        phases = rng.uniform(0, 6, (len(block), 2, 1, 1))
        waves = np.sin(grid[:, None] + phases[:, 0]) * np.cos(grid[None] + phases[:, 1])
        block[..., 0] = 120 + 100 * waves + rng.uniform(0, 20, waves.shape)
    images.flush()


def write_folder(folder: Path, array: Path, count: int) -> None:
    """Write the first images of an array as PNG files."""
    from PIL import Image

    folder.mkdir()
    for index, image in enumerate(np.load(array, mmap_mode="r")[:count]):
        Image.fromarray(image[..., 0]).save(folder / f"{index:06}.png")


def read_rate(source: Path, load: str) -> float:
    """Return the images/s of one epoch of batches without a model."""
    from keras_vae.data import sources
    from keras_vae.training.batches import make_batches

    batches = make_batches(sources.load(source, load=load).train.images, 128, 0)  # type: ignore[arg-type]
    return rate(batches.count, lambda: [batches[index] for index in range(len(batches))])


def train_rates(source: Path, loads: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Return the best images/s of training over several epochs per way of loading, in alternation."""
    from keras_vae import Experiment
    from keras_vae.core import backend
    from keras_vae.data import sources
    from keras_vae.data.dataset import Splits
    from keras_vae.data.info import DatasetInfo
    from keras_vae.runs.build import build, resolve
    from keras_vae.training.batches import make_batches

    fits: dict[str, Callable[[], Any]] = {}
    for load in loads:
        train = sources.load(source, load=load).train  # type: ignore[arg-type]
        info = DatasetInfo.from_splits(Splits(train, None, None))
        model = build(resolve(Experiment.preset("classic").with_overrides([_NETWORK]), info))
        batches = make_batches(train.images, 128, 0)
        pipeline = backend.batch_pipeline(batches)

        def fit(model: Any = model, batches: Any = batches, pipeline: Any = pipeline) -> None:
            batches.shuffle(0)
            model.fit(pipeline, shuffle=False, verbose=0)

        fit()
        fits[load] = fit
    rounds = [{load: rate(len(train), fit) for load, fit in fits.items()} for _ in range(repeats)]
    return {load: max(found[load] for found in rounds) for load in loads}


def rate(count: int, run: Callable[[], Any]) -> float:
    """Return `count` per second of one call."""
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def peak(source: Path, load: str, folder: Path) -> float:
    """Return the peak memory of training for one epoch in a process of its own, in MB."""
    out = folder / f"{load}-{source.stem}"
    command = [sys.executable, "-c", _PEAK, str(source), str(out), load, _NETWORK]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("rates", "peaks"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        array, photos, small = folder / "images.npy", folder / "photos", folder / "small.npy"
        write_array(array, options.images, options.side)
        write_array(small, 500, options.side)
        size = array.stat().st_size / 1e6
        print(f"{options.images:,} images of {options.side}x{options.side}, {size:,.0f} MB, {os.cpu_count()} cores")
        if options.only != "peaks":
            write_folder(photos, array, min(options.images, 10_000))
            rates = train_rates(array, ("memory", "stream"), options.repeats)
            print(f"training from memory   {rates['memory']:8,.0f} images/s")
            print(f"training from .npy     {rates['stream']:8,.0f} images/s, {rates['stream'] / rates['memory']:.0%}")
            print(f"reading from .npy      {read_rate(array, 'stream'):8,.0f} images/s")
            found = read_rate(photos, "stream")
            print(f"reading from PNG files {found:8,.0f} images/s, {found / (os.cpu_count() or 1):,.0f} per core")
        if options.only == "rates":
            return
        for source, load in ((small, "stream"), (array, "stream"), (array, "memory")):
            print(f"peak of training, {source.name}, {load}: {peak(source, load, folder):,.0f} MB")


if __name__ == "__main__":
    main()

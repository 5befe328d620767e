"""Peak memory and error of tiled encoding and decoding.

    python -m benchmarks.color_tiling                            # the goal, 2048×2048
    python -m benchmarks.color_tiling --widths 16 32 64 64       # the network of `kl-f8`

The network is that of `kl-f8` with other widths, untrained, and without attention, which alone would need 16 GiB for
the 65,536 positions of the whole map. The goal is a quarter of the memory of the whole image, and images that differ by
at most two levels of 255.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TILE = 512

WIDTHS = (32, 64, 128, 128)
"""A quarter of the widths of Stable Diffusion."""


def peak_memory() -> float:
    """Return the largest resident memory of this process so far in GiB.

    `getrusage` would also count the memory of the parent process before it started this program.
    """
    status = Path("/proc/self/status").read_text("utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def process(direction: str, options: argparse.Namespace) -> None:
    """Encode a random image or decode a random code, write the result, and print the memory.

    Args:
        direction: `"encode"` or `"decode"`.
        options: Arguments of the command line.
    """
    import keras

    from keras_vae import VAE
    from keras_vae.components.likelihoods import Laplace
    from keras_vae.networks import Autoencoder

    keras.utils.set_random_seed(0)
    network, shape = Autoencoder(widths=tuple(options.widths), attention=False), (64, 64, 3)
    model = VAE(network.encoder(shape), network.decoder(None, shape), likelihood=Laplace(), seed=0)
    model.build((None, *shape))
    libraries = peak_memory()
    rng, settings = np.random.default_rng(0), {"tile": TILE, "overlap": options.overlap} if options.tiled else {}
    size = (1, options.side // network.factor, options.side // network.factor)
    if direction == "encode":
        blocks = rng.integers(0, 256, (*size, 3), dtype="uint8")
        image = blocks.repeat(network.factor, axis=1).repeat(network.factor, axis=2)
        result = model.encode(image, **settings).codes
    else:
        result = model.decode(rng.standard_normal((*size, network.latent_channels), dtype="float32"), **settings)
    np.save(options.out, result)
    print(json.dumps([libraries, peak_memory()]))


def measure(direction: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the peak memory and the results of whole images and of tiles, in processes of their own.

    Args:
        direction: `"encode"` or `"decode"`.
        options: Arguments of the command line.

    Returns:
        `whole` and `tiled` in GiB, their `ratio`, and `ratio_without_libraries`, that of the memory in excess of what
        Python, the backend and the model need before the call; the largest `difference`, in levels of 1/255 of an
        image, or in standard deviations of a code; `seconds` of both.
    """
    results, memory, added, seconds = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "result.npy")
        command = [sys.executable, "-m", "benchmarks.color_tiling", "--direction", direction, "--out", out]
        command += ["--side", str(options.side), "--widths", *map(str, options.widths)]
        command += [] if options.overlap is None else ["--overlap", str(options.overlap)]
        for tiled in ([], ["--tiled"]):
            start = time.perf_counter()
            done = subprocess.run([*command, *tiled], stdout=subprocess.PIPE, text=True, check=True)
            seconds.append(round(time.perf_counter() - start))
            libraries, peak = json.loads(done.stdout.splitlines()[-1])
            memory.append(peak)
            added.append(peak - libraries)
            results.append(np.load(out))
    unit = 1 / 255 if direction == "decode" else float(results[0].std())
    difference = float(np.abs(results[0] - results[1]).max()) / unit
    numbers = {"whole": memory[0], "tiled": memory[1], "libraries": memory[0] - added[0]}
    numbers |= {"ratio": memory[1] / memory[0], "ratio_without_libraries": added[1] / added[0]}
    numbers["difference"] = difference
    rounded = {name: round(value, 3) for name, value in numbers.items()}
    return {"direction": direction, "side": options.side, "widths": options.widths, **rounded, "seconds": seconds}


def main() -> None:
    """Print one line per direction, or run one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048, help="height and width of the image")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="channels of the network at each size")
    parser.add_argument("--overlap", type=int, help="pixels that neighboring tiles share; the default of the library")
    parser.add_argument("--direction", choices=["encode", "decode"], help="one direction instead of both")
    parser.add_argument("--tiled", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out is not None:
        process(options.direction, options)
        return
    for direction in [options.direction] if options.direction else ["encode", "decode"]:
        print(json.dumps(measure(direction, options)), flush=True)


if __name__ == "__main__":
    main()

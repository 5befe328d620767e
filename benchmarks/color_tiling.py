"""Peak memory and error of tiled encoding and decoding: `python -m benchmarks.color_tiling --side 2048`."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TILE = 512


def peak_memory() -> float:
    """Return the largest resident memory of this process so far in GiB.

    `getrusage` would also count the memory of the parent process before it started this program.
    """
    status = Path("/proc/self/status").read_text("utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def process(direction: str, side: int, tile: int | None, overlap: int, out: Path) -> None:
    """Encode or decode, write the result, and print the memory.

    The network is untrained, and that of `kl-f8` with one block per size and without attention.

    Args:
        direction: `"encode"` a random image, or `"decode"` a random code.
        side: Height and width of the image.
        tile: Height and width of the tiles; None for the whole image.
        overlap: Pixels that neighboring tiles share.
        out: Where to write the mean of the code, or the image.
    """
    import keras

    from keras_vae import VAE
    from keras_vae.components.likelihoods import Laplace
    from keras_vae.networks import Autoencoder

    keras.utils.set_random_seed(0)
    network, shape = Autoencoder(widths=(16, 32, 64, 64), blocks=1, attention=False), (64, 64, 3)
    model = VAE(network.encoder(shape), network.decoder(None, shape), likelihood=Laplace(), seed=0)
    model.build((None, *shape))
    libraries = peak_memory()
    rng, settings = np.random.default_rng(0), {"tile": tile, "overlap": tile and overlap}
    if direction == "encode":
        blocks = rng.integers(0, 256, (1, side // 8, side // 8, 3), dtype="uint8")
        result = model.encode(blocks.repeat(8, axis=1).repeat(8, axis=2), **settings).codes
    else:
        codes = rng.standard_normal((1, side // 8, side // 8, 4), dtype="float32")
        result = model.decode(codes, **settings)
    np.save(out, result)
    print(json.dumps([libraries, peak_memory()]))


def measure(direction: str, side: int, overlap: int) -> dict[str, float]:
    """Compare the peak memory and the results of whole images and of tiles, in processes of their own.

    Args:
        direction: `"encode"` or `"decode"`.
        side: Height and width of the image.
        overlap: Pixels that neighboring tiles share.

    Returns:
        `whole` and `tiled` in GiB, their `ratio`, and the same `without_libraries`, that is, without the memory that
        Python, the backend and the model use before the call; the largest `difference`, in levels of 1/255 of an
        image, or in standard deviations of a code.
    """
    results, memory, added = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for tile in (0, TILE):
            out = Path(folder) / f"{tile}.npy"
            command = [sys.executable, "-m", "benchmarks.color_tiling", "--direction", direction, "--side", str(side)]
            command += ["--tile", str(tile), "--overlap", str(overlap), "--out", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            libraries, peak = json.loads(done.stdout.splitlines()[-1])
            memory.append(peak)
            added.append(peak - libraries)
            results.append(np.load(out))
    unit = 1 / 255 if direction == "decode" else float(results[0].std())
    difference = float(np.abs(results[0] - results[1]).max()) / unit
    return {
        "whole": memory[0],
        "tiled": memory[1],
        "ratio": memory[1] / memory[0],
        "without_libraries": added[1] / added[0],
        "difference": difference,
    }


def main() -> None:
    """Measure, or run one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--overlap", type=int, default=256)
    parser.add_argument("--direction", choices=["encode", "decode"])
    parser.add_argument("--tile", type=int)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is None:
        directions = [arguments.direction] if arguments.direction else ["encode", "decode"]
        results = {direction: measure(direction, arguments.side, arguments.overlap) for direction in directions}
        print(json.dumps(results, indent=2))
    else:
        process(arguments.direction, arguments.side, arguments.tile or None, arguments.overlap, arguments.out)


if __name__ == "__main__":
    main()

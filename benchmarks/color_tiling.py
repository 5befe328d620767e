"""Peak memory and error of tiled decoding: `python -m benchmarks.color_tiling --side 2048`."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TILE, OVERLAP = 256, 128


def decode(side: int, tile: int | None, out: Path) -> None:
    """Decode a random code of an untrained `kl-f8` network without attention; write the image and print the memory."""
    import keras

    from keras_vae import VAE
    from keras_vae.components.likelihoods import Laplace
    from keras_vae.networks import Autoencoder

    keras.utils.set_random_seed(0)
    network, shape = Autoencoder(widths=(16, 32, 64, 64), attention=False), (64, 64, 3)
    model = VAE(network.encoder(shape), network.decoder(None, shape), likelihood=Laplace(), seed=0)
    model.build((None, *shape))
    codes = np.random.default_rng(0).standard_normal((1, side // 8, side // 8, 4), dtype="float32")
    np.save(out, model.decode(codes, tile=tile, overlap=tile and OVERLAP))
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def measure(side: int) -> dict[str, float]:
    """Return the peak memory of both ways in GiB, measured in processes of their own, and the largest difference.

    Args:
        side: Height and width of the image.
    """
    images, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        for tile in (0, TILE):
            out = Path(folder) / f"{tile}.npy"
            command = [sys.executable, "-m", "benchmarks.color_tiling", "--side", str(side), "--tile", str(tile)]
            done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=True)
            memory.append(float(done.stdout.split()[-1]))
            images.append(np.load(out))
    levels = 255 * float(np.abs(images[0] - images[1]).max())
    return {"whole": memory[0], "tiled": memory[1], "ratio": memory[1] / memory[0], "levels": levels}


def main() -> None:
    """Measure, or run one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is None:
        print(json.dumps(measure(arguments.side), indent=2))
    else:
        decode(arguments.side, arguments.tile or None, arguments.out)


if __name__ == "__main__":
    main()

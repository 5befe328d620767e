"""Time to sample maps of codes from the autoregressive prior of a VQ-VAE.

    KERAS_BACKEND=jax python -m benchmarks.color_prior_sampling

The compiled loop of `AutoregressivePrior.sample` computes each position once. The alternative is to call the whole
model once per position. All its calls take the same time, so that only some of them are measured.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Import this package before Keras; see keras_vae/core/startup.py.
from keras_vae.components.autoregressive_prior import AutoregressivePrior  # isort: skip
import keras
import numpy as np

CALLS = 3
"""Number of measured calls of the whole model."""


def build_prior(map_shape: tuple[int, int], num_codes: int) -> AutoregressivePrior:
    """Return a prior with random weights."""
    prior = AutoregressivePrior()
    prior.build((None, *map_shape, num_codes), (None, 0))
    generator = np.random.default_rng(0)
    prior.set_weights([generator.normal(0, 0.3, weight.shape) for weight in prior.get_weights()])
    return prior


def seconds(function: Callable[[], object]) -> float:
    """Return the duration of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(prior: AutoregressivePrior, n: int, repeats: int) -> tuple[float, float, float]:
    """Return the seconds of the first call with compilation, of a later one, and of calling the whole model."""
    rows, columns, _ = prior.map_shape
    indices = np.zeros((n, rows, columns), "int32")
    first = seconds(lambda: prior.sample(n, np.random.default_rng(0)))
    prior.predict_on_batch({"indices": indices})
    loop, whole = [], []
    for _ in range(repeats):
        loop.append(seconds(lambda: prior.sample(n, np.random.default_rng(0))))
        whole += [seconds(lambda: prior.predict_on_batch({"indices": indices})) for _ in range(CALLS)]
    return first, min(loop), min(whole) * rows * columns


def main() -> None:
    """Print a row per number of maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16, help="rows and columns of the maps")
    parser.add_argument("--codes", type=int, default=4096, help="size of the codebook")
    parser.add_argument("--maps", type=int, nargs="+", default=[1, 16, 64], help="numbers of maps")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of this many measurements counts")
    parser.add_argument("--json", action="store_true", help="also print one JSON object per number of maps")
    options = parser.parse_args()
    print(
        f"{keras.backend.backend()}: maps of {options.size}×{options.size} codes out of {options.codes:,}, in seconds"
    )
    print(f"{'maps':>6}{'first call':>12}{'compiled loop':>15}{'whole model per position':>26}{'ratio':>8}")
    for n in options.maps:
        first, loop, whole = measure(build_prior((options.size,) * 2, options.codes), n, options.repeats)
        if options.json:
            print(json.dumps({"maps": n, "first": first, "loop": loop, "whole": whole}), flush=True)
        print(f"{n:>6}{first:>12.2f}{loop:>15.2f}{whole:>26.1f}{whole / loop:>8.0f}", flush=True)


if __name__ == "__main__":
    main()

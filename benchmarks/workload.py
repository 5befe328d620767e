"""The workload of all contenders, training steps of the classic model measured in chunks, and shared images."""

import functools
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

BATCH_SIZE = 128
CLASSIC_LAYERS = {
    # Multiplications per image in the forward pass: number of outputs times number of terms per output.
    "encoder 28×28×1 → 14×14×32": 14 * 14 * 32 * 9,
    "encoder 14×14×32 → 7×7×64": 7 * 7 * 64 * 9 * 32,
    "dense layers": 3136 * 16 + 16 * 4 + 2 * 3136,
    "decoder 7×7×64 → 14×14×64": 7 * 7 * 64 * 9 * 64,
    "decoder 14×14×64 → 28×28×32": 14 * 14 * 64 * 9 * 32,
    "decoder 28×28×32 → 28×28×1": 28 * 28 * 9 * 32,
}
FLOP_PER_STEP = 2 * 3 * BATCH_SIZE * sum(CLASSIC_LAYERS.values())
"""The gradients with respect to inputs and to weights each cost as much as the forward pass."""

Chunks = Iterator[int]


def emoji_file() -> Path:
    """Return the path of the color images of the benchmarks, `emoji.npz` in the folder $KERAS_VAE_DATA."""
    return Path(os.environ.get("KERAS_VAE_DATA", ".")) / "emoji.npz"


@functools.cache
def example() -> ModuleType:
    """Return `examples/from_scratch.py`."""
    path = Path(__file__).parents[1] / "examples" / "from_scratch.py"
    spec = importlib.util.spec_from_file_location("from_scratch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits(steps: int) -> Any:
    """Return scikit-learn's digits in MNIST's format, uint8, repeated for a number of steps."""
    from sklearn.datasets import load_digits

    small = (load_digits().images * 15.9375).astype("uint8")
    large = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))[..., None]
    return np.resize(large, (steps * BATCH_SIZE, 28, 28, 1))


def chunks_of(fit: Callable[[int], object]) -> Chunks:
    """Train one step, then chunks of about a second each, which include the overhead of `fit`."""
    fit(1)
    yield 1
    fit(3)
    yield 3
    start = time.perf_counter()
    fit(3)
    steps = min(50, max(3, round(3 / (time.perf_counter() - start))))
    yield 3
    while True:
        fit(steps)
        yield steps

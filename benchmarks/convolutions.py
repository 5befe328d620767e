"""Comparison of the convolutions of the classic model: our layers and those of Keras.

    KERAS_BACKEND=jax python -m benchmarks.convolutions

This measures, in turns, the compiled forward pass and the gradients with respect to inputs and weights, for a batch of
128 in float32. The two differ if `keras_vae.networks.convolutions` computes a layer as matrix products: under JAX on a
CPU, and for layers with a single filter under TensorFlow. The last row is the whole training step of the classic model.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Import this package before Keras; see keras_vae/core/startup.py.
from keras_vae import VAE  # isort: skip
import keras
import numpy as np
from keras import layers, ops

from keras_vae.networks import base, conv, convolutions

BATCH_SIZE = 128

LAYERS: dict[str, tuple[tuple[int, int, int], str, tuple[Any, ...], dict[str, Any]]] = {
    "encoder 28×28×1 → 14×14×32": ((28, 28, 1), "Conv2D", (32, 3), {"strides": 2}),
    "encoder 14×14×32 → 7×7×64": ((14, 14, 32), "Conv2D", (64, 3), {"strides": 2}),
    "decoder 7×7×64 → 14×14×64": ((7, 7, 64), "Conv2DTranspose", (64, 3), {"strides": 2}),
    "decoder 14×14×64 → 28×28×32": ((14, 14, 64), "Conv2DTranspose", (32, 3), {"strides": 2}),
    "decoder 28×28×32 → 28×28×1": ((28, 28, 32), "Conv2D", (1, 3), {}),
}


class Shifted(keras.Model):
    """A layer whose inputs are shifted by a trainable tensor, so that a step also computes their gradient."""

    def __init__(self, layer: keras.layers.Layer, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layer = layer
        self.shift = self.add_weight(shape=shape, initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return the layer's outputs."""
        return self.layer(inputs + self.shift)

    def compute_loss(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return a scalar that depends on every output."""
        return ops.mean(ops.square(self(x)))


def step_of(model: keras.Model, images: Any) -> Callable[[], object]:
    """Return a function that trains one step on a batch."""
    model.compile(optimizer=keras.optimizers.Adam(1e-4), jit_compile=keras.backend.backend() == "jax")
    return lambda: model.train_on_batch(images)


def layer_step(module: Any, name: str) -> Callable[[], object]:
    """Return a training step of one layer, from Keras or from keras-vae."""
    shape, kind, sizes, settings = LAYERS[name]
    layer = getattr(module, kind)(*sizes, padding="same", **settings)
    images = np.random.default_rng(0).normal(size=(BATCH_SIZE, *shape)).astype("float32")
    return step_of(Shifted(layer, shape), images)


def model_step(module: Any) -> Callable[[], object]:
    """Return a training step of the classic model with layers from Keras or from keras-vae."""
    for namespace in (base, conv):
        for kind in ("Conv2D", "Conv2DTranspose"):
            if hasattr(namespace, kind):
                setattr(namespace, kind, getattr(module, kind))
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, 28, 28, 1)).astype("uint8")
    return step_of(VAE(seed=0), images)


def measure(ours: Callable[[], object], plain: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the median milliseconds of both functions, called in turns, after two calls for compilation."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for step, milliseconds in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            step()
            if repeat >= 2:
                milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def layer_times(repeats: int) -> dict[str, tuple[float, float]]:
    """Return the median milliseconds of our layers and those of Keras, and of the whole training step."""
    rows = {name: (layer_step(convolutions, name), layer_step(layers, name)) for name in LAYERS}
    rows["classic training step"] = model_step(convolutions), model_step(layers)
    return {name: measure(ours, plain, repeats) for name, (ours, plain) in rows.items()}


def main() -> None:
    """Measure and print medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="number of measured steps")
    repeats = max(1, parser.parse_args().repeats)
    print(f"{keras.backend.backend()}, batch {BATCH_SIZE}, milliseconds: ours, Keras's own, ratio")
    for name, (ours, plain) in layer_times(repeats).items():
        print(f"{name:28} {ours:8.1f} {plain:8.1f} {plain / ours:6.1f} ×")


if __name__ == "__main__":
    main()

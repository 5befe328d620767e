"""Contenders: implementations of the training of the classic model, each measured in its own process.

    python -m benchmarks.contenders NAME --seconds 5

This prints one line of JSON. A contender is a generator, which trains with batches of `BATCH_SIZE` and yields after
each chunk of steps. The first chunks include compilation and warm-up and are not counted.
"""

import argparse
import functools
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.other_libraries import plain_vae, pythae, torch_by_hand
from benchmarks.workload import BATCH_SIZE, Chunks, chunks_of, digits, example


class Contender(NamedTuple):
    """An implementation of the training of the classic model.

    Args:
        title: Title of its row in the table.
        backend: The Keras backend; None if it does not use Keras.
        run: Trains, and yields the number of steps of each chunk.
        needs: Packages that must be installed.
    """

    title: str
    backend: str | None
    run: Callable[[], Chunks]
    needs: tuple[str, ...] = ()


def keras_fit(model: Any, images: Any) -> Chunks:
    """Train a compiled Keras model with `fit` on arrays."""
    return chunks_of(lambda steps: model.fit(images[: steps * BATCH_SIZE], batch_size=BATCH_SIZE, verbose=0))


def plain_fit(model: Any, images: Any) -> Chunks:
    """Train a compiled Keras model with `fit` on an untuned tf.data pipeline, the fastest input for TensorFlow.

    Keras's own pipeline for arrays can double the time of a short `fit`; `benchmarks.measures.fits` measures that.
    """
    import tensorflow as tf

    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    images = tf.constant(images)

    def batches(steps: int) -> Any:
        count = steps * BATCH_SIZE
        indices = tf.data.Dataset.range(count).shuffle(count).batch(BATCH_SIZE)
        return indices.map(lambda chosen: tf.gather(images, chosen)).prefetch(2).with_options(untuned)

    return chunks_of(lambda steps: model.fit(batches(steps), shuffle=False, verbose=0))


def tutorial() -> Chunks:
    """Train with the book's `train_step`, compiled with `run_eagerly=True`, as in its notebook."""
    import keras

    vae = example().VAE(example().build_encoder(), example().build_decoder(), beta=0.5, seed=0)
    vae.compile(optimizer=keras.optimizers.Adam(), run_eagerly=True)
    return plain_fit(vae, digits(50).astype("float32") / 255)


def plain_tensorflow() -> Chunks:
    """Train the same model as a TensorFlow graph without XLA, because XLA is slower on a CPU."""
    return plain_fit(compiled_example(), digits(50).astype("float32") / 255)


def compiled_example() -> Any:
    """Return the example's model, compiled."""
    import keras

    vae = example().VAE(example().build_encoder(), example().build_decoder(), seed=0)
    vae.compile(optimizer=keras.optimizers.Adam(), jit_compile=False)
    return vae


def plain_jax() -> Chunks:
    """Train it on JAX, compiled with the defaults of Keras."""
    vae = plain_vae()
    vae.compile(optimizer="adam")
    return keras_fit(vae, digits(50).astype("float32") / 255)


def ours(precision: str = "float32", **settings: Any) -> Chunks:
    """Train `VAE()`, with the given arguments of `compile`."""
    # Import this package before Keras; see keras_vae/core/startup.py.
    from keras_vae import VAE  # isort: skip
    import keras

    keras.config.set_dtype_policy(precision)
    vae = VAE(seed=0)
    vae.compile(optimizer="adam", **settings)
    return keras_fit(vae, digits(50))


def without_onednn() -> Chunks:
    """Train it with the kernels that TensorFlow uses by default on processors without AVX-512 VNNI."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    return ours()


def with_convolutions(products: bool) -> Chunks:
    """Train it with all convolutions as matrix products, or with none."""
    from keras_vae.core import backend

    backend.prefers_matmul_to_convolution = backend.prefers_matmul_for_few_filters = lambda: products
    return ours()


def with_xla() -> Chunks:
    """Train it compiled by XLA."""
    from keras_vae.core import backend

    backend.runs_faster_without_xla = lambda: False
    return ours(jit_compile=True)


def with_element_wise_xla() -> Chunks:
    """Train it with XLA for fusible element-wise operations only, without convolutions and matrix products."""
    os.environ["TF_XLA_FLAGS"] = "--tf_xla_auto_jit=fusible --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=2"
    return ours()


def with_memory_returned() -> Chunks:
    """Train it on JAX with the default settings of glibc's allocator."""
    # glibc reads this variable only at the start of a process, but the package does not configure the allocator if it
    # is set.
    os.environ["MALLOC_PERTURB_"] = "0"
    return ours()


def epoch_in_one() -> Chunks:
    """Train it on JAX with the steps of each chunk compiled as one scan over images on the device."""
    from keras_vae import VAE  # isort: skip
    import jax

    vae = VAE(seed=0)
    vae.compile(optimizer="adam")
    images = digits(50)
    vae.fit(images[:BATCH_SIZE], batch_size=BATCH_SIZE, verbose=0)
    variables = (vae.trainable_variables, vae.non_trainable_variables, vae.optimizer.variables, vae.metrics_variables)
    state, structure = jax.tree.flatten([[jax.numpy.array(variable.value) for variable in kind] for kind in variables])

    @functools.partial(jax.jit, donate_argnums=0)
    def scan(state: Any, images: Any, order: Any) -> Any:
        def step(state: Any, chosen: Any) -> tuple[Any, None]:
            _, after = vae.train_step(jax.tree.unflatten(structure, state), (images[chosen],))
            return jax.tree.leaves(after), None

        return jax.lax.scan(step, state, order)[0]

    steps, on_device = 20, jax.device_put(images)
    while True:
        state = scan(state, on_device, np.random.permutation(steps * BATCH_SIZE).reshape(steps, BATCH_SIZE))
        jax.block_until_ready(state)
        yield steps


def _ours(backend: str, title: str, dtype: str) -> Contender:
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[dtype]
    return Contender(f"**keras-vae, {title}, {dtype}**", backend, functools.partial(ours, policy), (backend,))


CONTENDERS = {
    "tutorial": Contender("the tutorial as written (eager `train_step`)", "tensorflow", tutorial),
    "plain-tensorflow": Contender("plain Keras, TensorFlow graph", "tensorflow", plain_tensorflow),
    "ours-tensorflow-float32": _ours("tensorflow", "TensorFlow", "float32"),
    "ours-tensorflow-bfloat16": _ours("tensorflow", "TensorFlow", "bfloat16"),
    "plain-jax": Contender("plain Keras, JAX", "jax", plain_jax, ("jax",)),
    "ours-jax-float32": _ours("jax", "JAX", "float32"),
    "ours-jax-bfloat16": _ours("jax", "JAX", "bfloat16"),
    "torch-float32": Contender(
        "PyTorch by hand, eager, channels last", None, functools.partial(torch_by_hand, "float32"), ("torch",)
    ),
    "torch-bfloat16": Contender(
        "the same in bfloat16 (autocast)", None, functools.partial(torch_by_hand, "bfloat16"), ("torch",)
    ),
    "pythae": Contender("pythae, its own trainer", None, pythae, ("pythae",)),
    "ours-torch-float32": _ours("torch", "PyTorch", "float32"),
    "ours-torch-bfloat16": _ours("torch", "PyTorch", "bfloat16"),
}
"""The contenders in the order of measurement, in which those that are compared most often are neighbors."""

ALTERNATIVES = {
    "without-onednn": Contender("without oneDNN", "tensorflow", without_onednn),
    "keras-convolutions": Contender(
        "Keras's convolutions throughout", "tensorflow", functools.partial(with_convolutions, False)
    ),
    "product-convolutions": Contender("products throughout", "tensorflow", functools.partial(with_convolutions, True)),
    "xla": Contender("XLA", "tensorflow", with_xla),
    "steps-per-execution": Contender(
        "`steps_per_execution=16`", "tensorflow", functools.partial(ours, steps_per_execution=16)
    ),
    "element-wise-xla": Contender("XLA for element-wise operations only", "tensorflow", with_element_wise_xla),
    "memory-returned": Contender("freed memory returned to the system", "jax", with_memory_returned, ("jax",)),
    "epoch-in-one": Contender("an epoch compiled as one scan", "jax", epoch_in_one, ("jax",)),
}
"""Variants of ours in float32 that differ in one setting."""

ALL = CONTENDERS | ALTERNATIVES


def missing(contender: Contender) -> list[str]:
    """Return the required packages that are not installed."""
    return [package for package in contender.needs if importlib.util.find_spec(package) is None]


def measure(contender: Contender, seconds: float, started: float) -> dict[str, Any]:
    """Return the seconds to the first step, the milliseconds per step of every chunk, and the peak memory."""
    run = contender.run()
    next(run)
    first_step_seconds = time.time() - started
    next(run)
    next(run)
    end, milliseconds = time.perf_counter() + seconds, []
    before = time.perf_counter()
    while not milliseconds or before < end:
        steps = next(run)
        now = time.perf_counter()
        milliseconds.append(1000 * (now - before) / steps)
        before = now
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"first_step_seconds": first_step_seconds, "step_milliseconds": milliseconds, "memory_mib": memory}


def main() -> None:
    """Measure one contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=ALL)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured seconds")
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    contender = ALL[arguments.contender]
    if contender.backend is not None:
        os.environ["KERAS_BACKEND"] = contender.backend
    print(json.dumps(measure(contender, arguments.seconds, arguments.started or time.time())))


if __name__ == "__main__":
    main()

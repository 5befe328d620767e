"""Ways of training the classic model, each measured in a process of its own: ours and what people use instead.

    python -m benchmarks.contenders NAME --seconds 5

prints one line of JSON. A way is a generator: it trains steps of a batch of `BATCH_SIZE` for as long as it is asked to,
and yields when each chunk of them is done. What is compiled or warmed up lies in the first two chunks, left out.
"""

import argparse
import functools
import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

BATCH_SIZE = 128
CLASSIC_LAYERS = {
    # Outputs of a layer times the numbers that each is a sum of: multiplications an image, forwards.
    "encoder 28×28×1 → 14×14×32": 14 * 14 * 32 * 9,
    "encoder 14×14×32 → 7×7×64": 7 * 7 * 64 * 9 * 32,
    "dense layers": 3136 * 16 + 16 * 4 + 2 * 3136,
    "decoder 7×7×64 → 14×14×64": 7 * 7 * 64 * 9 * 64,
    "decoder 14×14×64 → 28×28×32": 14 * 14 * 64 * 9 * 32,
    "decoder 28×28×32 → 28×28×1": 28 * 28 * 9 * 32,
}
FLOP_PER_STEP = 2 * 3 * BATCH_SIZE * sum(CLASSIC_LAYERS.values())
"""Forwards, and as much again for the gradients in inputs and in weights."""

Chunks = Iterator[int]


class Way(NamedTuple):
    """A way of training.

    Args:
        title: Its row in the table.
        backend: What Keras computes with, or None where there is no Keras.
        run: Yields the steps of each chunk.
        needs: The packages without which it is left out.
    """

    title: str
    backend: str | None
    run: Callable[[], Chunks]
    needs: tuple[str, ...] = ()


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
    """Return scikit-learn's digits as MNIST has its own, uint8, repeated for so many steps; speed sees no pixels."""
    from sklearn.datasets import load_digits

    small = (load_digits().images * 15.9375).astype("uint8")
    large = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))[..., None]
    return np.resize(large, (steps * BATCH_SIZE, 28, 28, 1))


def chunks_of(fit: Callable[[int], object]) -> Chunks:
    """Train a step; then, chunk by chunk, about a second of them: what `fit` costs around its steps counts."""
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


def keras_fit(model: Any, images: Any) -> Chunks:
    """Train a compiled Keras model with `fit` on arrays."""
    return chunks_of(lambda steps: model.fit(images[: steps * BATCH_SIZE], batch_size=BATCH_SIZE, verbose=0))


def plain_fit(model: Any, images: Any) -> Chunks:
    """Train one with `fit` on TensorFlow's own batches, as fast as those can be.

    Keras makes a pipeline of arrays that may double the time of a `fit` as short as a chunk: that is measured apart,
    in `benchmarks.measures.fits`.
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
    """Train as the book's notebook does: its own `train_step`, compiled with `run_eagerly=True`."""
    import keras

    vae = example().VAE(example().build_encoder(), example().build_decoder(), beta=0.5, seed=0)
    vae.compile(optimizer=keras.optimizers.Adam(), run_eagerly=True)
    return plain_fit(vae, digits(50).astype("float32") / 255)


def plain_tensorflow() -> Chunks:
    """Train the same as a TensorFlow graph, without XLA, which is slower on a CPU."""
    return plain_fit(compiled_example(), digits(50).astype("float32") / 255)


def compiled_example() -> Any:
    """Return the example's model, compiled."""
    import keras

    vae = example().VAE(example().build_encoder(), example().build_decoder(), seed=0)
    vae.compile(optimizer=keras.optimizers.Adam(), jit_compile=False)
    return vae


def plain_vae() -> Any:
    """Return the same model of Keras's layers, its loss in `compute_loss`: what runs on every backend."""
    import keras
    from keras import layers, ops

    conv = functools.partial(layers.Conv2D, kernel_size=3, padding="same")
    transposed = functools.partial(layers.Conv2DTranspose, kernel_size=3, padding="same", strides=2, activation="relu")

    class PlainVAE(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = keras.Sequential(
                [
                    keras.Input((28, 28, 1)),
                    conv(32, strides=2, activation="relu"),
                    conv(64, strides=2, activation="relu"),
                    layers.Flatten(),
                    layers.Dense(16, activation="relu"),
                    layers.Dense(4),
                ]
            )
            self.decoder = keras.Sequential(
                [
                    keras.Input((2,)),
                    layers.Dense(7 * 7 * 64, activation="relu"),
                    layers.Reshape((7, 7, 64)),
                    transposed(64),
                    transposed(32),
                    conv(1, activation="sigmoid"),
                ]
            )
            self.seeds = keras.random.SeedGenerator(0)
            self.built = True

        def call(self, images: Any) -> Any:
            return images

        def compute_loss(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
            z_mean, z_log_var = ops.split(self.encoder(x), 2, axis=1)
            noise = keras.random.normal(ops.shape(z_mean), seed=self.seeds)
            means = self.decoder(z_mean + ops.exp(0.5 * z_log_var) * noise)
            reconstruction = ops.sum(ops.binary_crossentropy(x, means), axis=(1, 2, 3))
            kl = -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=1)
            return ops.mean(reconstruction + kl)

    return PlainVAE()


def plain_jax() -> Chunks:
    """Train it on JAX, compiled, as Keras does by itself."""
    vae = plain_vae()
    vae.compile(optimizer="adam")
    return keras_fit(vae, digits(50).astype("float32") / 255)


def ours(precision: str = "float32", **settings: Any) -> Chunks:
    """Train `VAE()`, compiled as Keras does by itself or with settings of `compile`."""
    # Before Keras: see keras_vae/_startup.py.
    from keras_vae import VAE  # isort: skip
    import keras

    keras.config.set_dtype_policy(precision)
    vae = VAE(seed=0)
    vae.compile(optimizer="adam", **settings)
    return keras_fit(vae, digits(50))


def without_onednn() -> Chunks:
    """Train it with the kernels that TensorFlow takes by itself on processors without AVX-512's neural network ones."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    return ours()


def with_convolutions(products: bool) -> Chunks:
    """Train it with every convolution as a matrix product, or with none."""
    from keras_vae.core import backend

    backend.prefers_matmul_to_convolution = backend.prefers_matmul_for_few_filters = lambda: products
    return ours()


def with_xla() -> Chunks:
    """Train it compiled by XLA."""
    from keras_vae.core import backend

    backend.runs_faster_without_xla = lambda: False
    return ours(jit_compile=True)


def with_element_wise_xla() -> Chunks:
    """Train it with what XLA fuses into passes over memory, convolutions and products left to TensorFlow."""
    os.environ["TF_XLA_FLAGS"] = "--tf_xla_auto_jit=fusible --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=2"
    return ours()


def with_memory_returned() -> Chunks:
    """Train it on JAX with glibc's allocator as it is by itself."""
    # Too late for glibc, which reads it when a process starts; but the package lets an allocator be that is set.
    os.environ["MALLOC_PERTURB_"] = "0"
    return ours()


def epoch_in_one() -> Chunks:
    """Train it on JAX, the steps of each chunk compiled as one scan over images that lie on the device."""
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


def torch_by_hand(dtype: str) -> Chunks:
    """Train the model written in PyTorch: eager, channels last, autocast where `dtype` is bfloat16."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(3136, 16), nn.ReLU(), nn.Linear(16, 4)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(2, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
        *(nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU()),
        nn.Conv2d(32, 1, 3, 1, 1),
    )
    model = nn.ModuleList([encoder, decoder]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    images = torch.from_numpy(digits(50)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def fit(steps: int) -> None:
        order = torch.randperm(steps * BATCH_SIZE)
        for chosen in order.split(BATCH_SIZE):
            x = images[chosen].float() / 255
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                z_mean, z_log_var = encoder(x).float().chunk(2, dim=1)
                logits = decoder(z_mean + (0.5 * z_log_var).exp() * torch.randn_like(z_mean)).float()
            distortion = functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))
            kl = -0.5 * (1 + z_log_var - z_mean.square() - z_log_var.exp()).sum(1)
            loss = (distortion + kl).mean()
            loss.backward()
            optimizer.step()
        loss.item()

    return chunks_of(fit)


def pythae_model() -> Any:
    """Return pythae's VAE of the same architecture."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from torch import nn

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()),
                *(nn.Linear(3136, 16), nn.ReLU()),
            )
            self.z_mean, self.z_log_var = nn.Linear(16, 2), nn.Linear(16, 2)

        def forward(self, x: Any) -> Any:
            features = self.body(x)
            return ModelOutput(embedding=self.z_mean(features), log_covariance=self.z_log_var(features))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *(nn.Linear(2, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
                *(nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU()),
                *(nn.Conv2d(32, 1, 3, 1, 1), nn.Sigmoid()),
            )

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=self.body(z))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=2, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(), decoder=Decoder())


def pythae() -> Chunks:
    """Train pythae's VAE with pythae's own trainer: the loop of `BaseTrainer.train_step`, an epoch a chunk."""
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    images = torch.from_numpy(digits(50).transpose(0, 3, 1, 2).astype("float32") / 255)
    model = pythae_model()

    def trainer_of(steps: int) -> Any:
        chosen = images[: steps * BATCH_SIZE]
        config = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH_SIZE, learning_rate=1e-3, no_cuda=True
        )
        trainer = BaseTrainer(model, BaseDataset(chosen, torch.ones(len(chosen))), training_config=config)
        trainer.prepare_training()
        return trainer

    trainers = functools.cache(trainer_of)
    return chunks_of(lambda steps: trainers(steps).train_step(1))


def _ours(backend: str, title: str, dtype: str) -> Way:
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[dtype]
    return Way(f"**keras-vae, {title}, {dtype}**", backend, functools.partial(ours, policy), (backend,))


WAYS = {
    "tutorial": Way("the tutorial as written (eager `train_step`)", "tensorflow", tutorial),
    "plain-tensorflow": Way("plain Keras, TensorFlow graph", "tensorflow", plain_tensorflow),
    "ours-tensorflow-float32": _ours("tensorflow", "TensorFlow", "float32"),
    "ours-tensorflow-bfloat16": _ours("tensorflow", "TensorFlow", "bfloat16"),
    "plain-jax": Way("plain Keras, JAX", "jax", plain_jax, ("jax",)),
    "ours-jax-float32": _ours("jax", "JAX", "float32"),
    "ours-jax-bfloat16": _ours("jax", "JAX", "bfloat16"),
    "torch-float32": Way(
        "PyTorch by hand, eager, channels last", None, functools.partial(torch_by_hand, "float32"), ("torch",)
    ),
    "torch-bfloat16": Way(
        "the same in bfloat16 (autocast)", None, functools.partial(torch_by_hand, "bfloat16"), ("torch",)
    ),
    "pythae": Way("pythae, its own trainer", None, pythae, ("pythae",)),
    "ours-torch-float32": _ours("torch", "PyTorch", "float32"),
    "ours-torch-bfloat16": _ours("torch", "PyTorch", "bfloat16"),
}
"""In the order in which they take turns: what is compared most runs one after the other."""

ALTERNATIVES = {
    "without-onednn": Way("without oneDNN", "tensorflow", without_onednn),
    "keras-convolutions": Way(
        "Keras's convolutions throughout", "tensorflow", functools.partial(with_convolutions, False)
    ),
    "product-convolutions": Way("products throughout", "tensorflow", functools.partial(with_convolutions, True)),
    "xla": Way("XLA", "tensorflow", with_xla),
    "steps-per-execution": Way(
        "`steps_per_execution=16`", "tensorflow", functools.partial(ours, steps_per_execution=16)
    ),
    "element-wise-xla": Way("XLA for what is not a product", "tensorflow", with_element_wise_xla),
    "memory-returned": Way("freed memory returned to the system", "jax", with_memory_returned, ("jax",)),
    "epoch-in-one": Way("an epoch compiled as one scan", "jax", epoch_in_one, ("jax",)),
}
"""Ours in float32, but for one thing: what was tried, kept or not."""

ALL = WAYS | ALTERNATIVES


def missing(way: Way) -> list[str]:
    """Return the packages that a way lacks."""
    return [package for package in way.needs if importlib.util.find_spec(package) is None]


def measure(way: Way, seconds: float, started: float) -> dict[str, Any]:
    """Return the seconds to the first step, milliseconds a step of every chunk, and the most memory held."""
    run = way.run()
    next(run)
    first = time.time() - started
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
    return {"first_step_seconds": first, "step_milliseconds": milliseconds, "memory_mib": memory}


def main() -> None:
    """Measure one way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=ALL)
    parser.add_argument("--seconds", type=float, default=5.0, help="of steady state")
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    way = ALL[arguments.way]
    if way.backend is not None:
        os.environ["KERAS_BACKEND"] = way.backend
    print(json.dumps(measure(way, arguments.seconds, arguments.started or time.time())))


if __name__ == "__main__":
    main()

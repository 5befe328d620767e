"""Write small files of this version; tests check that every later version opens them.

    python tools/write_released.py tests/data/released/0.1.0

Each release writes one folder, once: images, an experiment file, complete runs of each kind of model, an interrupted
run, a model that was saved without a run, and `expected.npz` with the numbers that the models compute.
"""

import argparse
import contextlib
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from package_pretrained import compress

from keras_vae import VAE, EvaluationConfig, Experiment, Run, evaluate, fit_prior, load, networks, train
from keras_vae.core.typing import Array

SIZE = (8, 8)
EXPERIMENT = """\
name = "mine"

[data]
source = "images.npz"
validation = 4

[model]
latent_dim = 2
network = { name = "mlp", widths = [6] }
prior = { name = "vamp", num_components = 3 }
posterior = { name = "iaf", steps = 1, hidden = [4], context_dim = 2 }
likelihood = "continuous-bernoulli"
objective = { name = "elbo", beta = 2.0, schedule = { name = "warm-up", steps = 0.5 } }
condition = "label"

[training]
epochs = 2
batch_size = 8
schedule = { name = "cosine", warm_up = 0.25 }
ema_window = 0.5
keep = "best"
"""
COMMON = ["data.source=images.npz", "data.validation=4", "training.epochs=3", "training.batch_size=8"]
SMALL = ["model.network.widths=[2, 3]"]
VQ = "name='vq', quantizer={name='ema', num_codes=4}, code_dim=2, prior_width=8, prior_blocks=1"
RUNS = {
    "classic": [*SMALL, "model.network.dense_units=4"],
    "ladder": ["model.architecture={name='ladder', widths=[2, 3], groups=[1, 1], latent_channels=1}"],
    "vq": [*SMALL, f"model.architecture={{{VQ}}}"],
}
"""Presets, and the settings that make them small."""


MEASURED = EvaluationConfig(samples=4, num_generated=16, features="random")


class Interrupt(keras.callbacks.Callback):
    """Stops a training in the second epoch, as Ctrl-C does."""

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Stop at the start of the second epoch."""
        if epoch == 1:
            raise KeyboardInterrupt


def main() -> None:
    """Write the files into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True)
    # Experiments refer to the images by a relative path.
    with contextlib.chdir(folder):
        images = write_images(Path("images.npz"))
        Path("experiment.toml").write_text(EXPERIMENT)
        experiments = {"mine": Experiment.from_file(Path("experiment.toml"))}
        for name, settings in RUNS.items():
            experiments[name] = Experiment.preset(name).with_overrides([*COMMON, *settings])
        for name, experiment in experiments.items():
            train(experiment, out=Path("runs", name))
        fit_prior("runs/classic", {"name": "mixture", "num_components": 2}, epochs=2)
        with contextlib.suppress(KeyboardInterrupt):
            train(experiments["classic"], out=Path("runs", "interrupted"), callbacks=[Interrupt()])
        model = VAE(networks.MLP(widths=(6,)).encoder((*SIZE, 1), 2), networks.MLP(widths=(6,)).decoder(2, (*SIZE, 1)))
        model.compile(optimizer=keras.optimizers.Adam(1e-3))
        model.fit(images, batch_size=8, epochs=1, verbose=0)
        model.save("model.keras")
        # Keras itself stores weights uncompressed.
        for file in Path().rglob("*.keras"):
            compress(file)
        for name in experiments:
            stages = ["likelihood", "latents", "samples"] if name == "classic" else ["likelihood"]
            evaluate(Run.open(Path("runs", name)), config=MEASURED, stages=stages)
        np.savez_compressed("expected.npz", **expected(images))


def write_images(file: Path) -> Array:
    """Write disks of three sizes, which are the classes, as a `.npz` file, and return those for training."""
    rng, classes = np.random.default_rng(0), np.arange(32) % 3
    rows, columns = np.mgrid[:8, :8]
    centers = rng.uniform(2, 5, (2, 32, 1, 1))
    distances = np.hypot(rows - centers[0], columns - centers[1])
    images = (255 * np.clip(classes[:, None, None] + 2 - distances, 0, 1)).astype("uint8")
    np.savez_compressed(file, x_train=images[:24], y_train=classes[:24], x_test=images[24:], y_test=classes[24:])
    return images[:24, ..., None]


def expected(images: Array) -> dict[str, Array]:
    """Return what each model computes, by the name of its file and of the method."""
    found = {}
    for file in sorted(Path().rglob("*.keras")):
        found |= {f"{file}:{method}": values for method, values in computed(file, images).items()}
    return found


def computed(file: Path, images: Array) -> dict[str, Array]:
    """Return the ELBO, reconstructions and samples of the model in a file, for images of the classes 0, 1, 2 and 0."""
    model = load(file)
    labels = {} if model.condition is None else {"condition": np.arange(4) % 3}
    return {
        "elbo": model.elbo(images[:4], seed=0, **labels),
        "reconstruct": model.reconstruct(images[:4], **labels),
        "sample": model.sample(4, seed=0, **labels),
    }


if __name__ == "__main__":
    main()

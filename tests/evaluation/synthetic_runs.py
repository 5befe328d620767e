"""Synthetic facts about runs, from which the tests of the doctor's checks start."""

from typing import Any

import numpy as np

from keras_vae.core.typing import Array
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import Metrics

RNG = np.random.default_rng(3)
EPOCHS = 12


def experiment(*settings: str, preset: str = "classic") -> Experiment:
    return Experiment.preset(preset).with_overrides([f"training.epochs={EPOCHS}", *settings])


def history(start: float = 12.0, end: float = 5.0, epochs: int = EPOCHS, **columns: list[float]) -> Metrics:
    """Return metrics whose losses converge: the distance to the end halves in every epoch."""
    losses = (end + (start - end) * 0.5 ** np.arange(epochs)).tolist()
    names = ("total_loss", "negative_elbo", "val_total_loss", "val_negative_elbo")
    return {"epoch": list(range(1, epochs + 1)), **dict.fromkeys(names, losses), **columns}


def black_and_white(count: int = 200, channels: int = 1, white: float = 0.2) -> Array:
    return np.where(RNG.random((count, 4, 4, channels)) < white, 255, 0).astype("uint8")


def codes(count: int = 200, dimensions: int = 4, informed: int = 4, shift: float = 0.0) -> dict[str, Array]:
    """Return latents that match the prior; only the first `informed` dimensions depend on the image."""
    spread = np.where(np.arange(dimensions) < informed, 0.1, 1.0)
    z_mean = np.sqrt(1 - spread**2) * RNG.standard_normal((count, dimensions)) + shift
    z_log_var = np.broadcast_to(2 * np.log(spread), z_mean.shape)
    kl = 0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var)
    z = z_mean + spread * RNG.standard_normal(z_mean.shape)
    return {"kl_per_group": kl, "z": z, "z_mean": z_mean, "z_log_var": z_log_var}


def offset(facts: dict[str, Array], shift: float) -> dict[str, Array]:
    """Return latents whose unused dimensions lie away from the prior, which costs shift²/2 nats each."""
    unused = np.var(facts["z_mean"], axis=0) < 1e-9
    moved = {name: facts[name] + shift * unused for name in ("z", "z_mean")}
    return facts | moved | {"kl_per_group": facts["kl_per_group"] + shift**2 / 2 * unused}


def varying(kl: list[float]) -> Array:
    """Return KL divergences of groups that vary over images around the given means, as those of used groups do."""
    return np.asarray(kl) * np.random.default_rng(5).uniform(0.8, 1.2, (50, len(kl)))


def falling(start: float, end: float, epochs: int = EPOCHS) -> list[float]:
    """Return losses in a straight line, which would fall further."""
    return np.linspace(start, end, epochs).tolist()


def curve(losses: list[float]) -> Metrics:
    """Return metrics whose losses, on training and on validation images, are these."""
    return {name: list(losses) for name in history()} | {"epoch": list(range(1, len(losses) + 1))}


def rising(start: float, best: float, end: float) -> list[float]:
    return [*np.linspace(start, best, 5), *np.linspace(best, end, EPOCHS - 4)[1:]]


def code_counts(used: int) -> Any:
    """Return counts of 64 codes in two blocks, with 2,000 indices in all."""
    counts = np.zeros((2, 64), int)
    counts[0, : used - 1], counts[1, used - 1] = 20, 2000 - 20 * (used - 1)
    return counts


HEALTHY: dict[str, Any] = {
    "experiment": experiment(),
    "metrics": history(kl_loss=[9.0] * EPOCHS, reconstruction_loss=[90.0] * EPOCHS, skipped=[0.0] * EPOCHS),
    "train_images": black_and_white(),
    "held_out_images": black_and_white(),
    **codes(),
}
"""The facts of a run without problems; each case below changes some of them."""

LADDER = {"z": None, "z_mean": None, "z_log_var": None, "experiment": experiment(preset="ladder")}
VQ = LADDER | {"kl_per_group": None, "experiment": experiment(preset="vq")}
FSQ = 'model.architecture={ name = "vq", quantizer = { name = "fsq", levels = [4, 4, 4] } }'
GRAY = RNG.integers(0, 256, (200, 4, 4, 1)).astype("uint8")

ADVERSARIAL = experiment('model.image_losses=["adversarial"]')


def discriminator(loss: float, accuracy: float, real: float, fake: float, epochs: int = 8) -> dict[str, Any]:
    """Return facts about a discriminator whose metrics have these values in the last three epochs."""
    values = {"loss": (2.0, loss), "accuracy": (0.5, accuracy), "real": (0.0, real), "fake": (0.0, fake)}
    columns = {f"discriminator_{name}": [first] * (EPOCHS - 3) + [last] * 3 for name, (first, last) in values.items()}
    return {"experiment": ADVERSARIAL, "metrics": history(**columns), "discriminator_epochs": epochs}

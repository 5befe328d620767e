"""The doctor: each fault is found where it is, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.components.likelihoods import Normal
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation.diagnostics import CHECKS, Evidence, Finding, diagnose, examine, gather
from keras_vae.evaluation.diagnostics.evidence import _pixel_scale
from keras_vae.networks import Conv
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import Metrics
from keras_vae.runs.run import Run
from keras_vae.training import trainer
from keras_vae.training.callbacks import ShowFindings

RNG = np.random.default_rng(3)
EPOCHS = 12
DIGITS = [
    "data.source=digits",
    'model.network={ name = "mlp", widths = [64] }',
    "training.batch_size=50",
    "training.learning_rate=5e-3",
    f"training.epochs={EPOCHS}",
]


trains_for_long = on_tensorflow("faults do not depend on the backend, and this one trains fast")


def experiment(*settings: str, preset: str = "classic") -> Experiment:
    return Experiment.preset(preset).with_overrides([f"training.epochs={EPOCHS}", *settings])


def history(start: float = 12.0, end: float = 5.0, epochs: int = EPOCHS, **columns: list[float]) -> Metrics:
    """Return metrics whose losses fall in a straight line."""
    losses = np.linspace(start, end, epochs).tolist()
    names = ("total_loss", "negative_elbo", "val_total_loss", "val_negative_elbo")
    return {"epoch": list(range(1, epochs + 1)), **dict.fromkeys(names, losses), **columns}


def black_and_white(count: int = 200, channels: int = 1, white: float = 0.2) -> Array:
    return np.where(RNG.random((count, 4, 4, channels)) < white, 255, 0).astype("uint8")


def codes(count: int = 200, dimensions: int = 4, informed: int = 4, shift: float = 0.0) -> dict[str, Array]:
    """Return evidence of codes that match the prior, the first `informed` of their dimensions sure of the image."""
    spread = np.where(np.arange(dimensions) < informed, 0.1, 1.0)
    z_mean = np.sqrt(1 - spread**2) * RNG.standard_normal((count, dimensions)) + shift
    z_log_var = np.broadcast_to(2 * np.log(spread), z_mean.shape)
    rates = 0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var)
    z = z_mean + spread * RNG.standard_normal(z_mean.shape)
    return {"rates": rates, "z": z, "z_mean": z_mean, "z_log_var": z_log_var}


def names(findings: Sequence[Finding]) -> list[str]:
    return [finding.name for finding in findings]


def rising(start: float, best: float, end: float) -> list[float]:
    return [*np.linspace(start, best, 5), *np.linspace(best, end, EPOCHS - 4)[1:]]


HEALTHY: dict[str, Any] = {
    "experiment": experiment(),
    "metrics": history(kl_loss=[9.0] * EPOCHS, reconstruction_loss=[90.0] * EPOCHS, skipped=[0.0] * EPOCHS),
    "train": black_and_white(),
    "held_out": black_and_white(),
    **codes(),
}
"""One of everything; each fault below differs from it in what makes it one."""

LADDER = {"z": None, "z_mean": None, "z_log_var": None, "experiment": experiment(preset="ladder")}
VQ = LADDER | {"rates": None, "experiment": experiment(preset="vq")}
GRAY = RNG.integers(0, 256, (200, 4, 4, 1)).astype("uint8")

FAULTS: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {
    "collapse": (
        ["posterior collapse"],
        codes(informed=0) | {"metrics": history(kl_loss=[3.0] * 5 + [0.01] * 7, val_kl_loss=[3.0] * 5 + [0.01] * 7)},
        ["all 4 latent dimensions say nothing", "since epoch 6 of 12", "warm-up"],
    ),
    "collapse of a flow": (["posterior collapse"], codes(informed=0) | {"rates": np.full((200, 1), 0.02)}, ["0.02"]),
    "collapse without noise": (
        ["posterior collapse"],
        codes(informed=0) | {"rates": None, "z_log_var": None, "z_mean": np.full((200, 4), 0.5)},
        ["variance of 0", "all 4"],
    ),
    "collapse under β": (
        ["posterior collapse", "β dominates"],
        codes(informed=0) | {"experiment": experiment("model.objective.beta=50.0")},
        ["model.objective.beta (now 50)"],
    ),
    "β": (
        ["β dominates"],
        {"rates": np.full((200, 4), 0.2), "experiment": experiment("model.objective.beta=8.0")},
        ["β = 8", "0.8 nats", "distortion of 90.0"],
    ),
    "dead units": (
        ["unused latent dimensions"],
        codes(dimensions=20, informed=4),
        ["4, 5, 6, 7, 8, 9, 10, 11 and 8 more (counted from 0)", "4 of 20", "latent_dim (now 20)"],
    ),
    "one of two": (["unused latent dimensions"], codes(dimensions=2, informed=1), ["dimension 1", "1 of 2", "map"]),
    "one of three groups": (
        ["unused groups"],
        LADDER | {"rates": np.tile([3.0, 0.0, 5.0], (50, 1))},
        ["group 2 (counted from 1) says nothing", "shallower"],
    ),
    "noise explodes": (
        ["log-variance out of range"],
        {"z_log_var": np.where(np.arange(4) == 1, 12.0, -1.0) * np.ones((200, 4))},
        ["25%", "12.0", "σ = 4e+02", "learning_rate (now 0.001)"],
    ),
    "noise vanishes": (
        ["log-variance out of range"],
        {"z_log_var": np.full((200, 4), -18.0), "experiment": experiment("model.objective.beta=1e-4")},
        ["100%", "-18.0", "model.objective.beta (now 0.0001)"],
    ),
    "levels 0 and 1": (
        ["no contrast"],
        {"train": black_and_white() // 255, "held_out": None},
        ["level 0 and 1 of 255", "data.source"],
    ),
    "inverted": (
        ["inverted images"],
        {"held_out": 255 - HEALTHY["train"]},
        ["mean pixel is 0.2", "0.79 in held-out", "invert"],
    ),
    "brighter": (["other images held out"], {"held_out": black_and_white(white=0.55)}, ["data.test"]),
    "gray": (
        ["likelihood unfit for the images"],
        {"train": GRAY, "held_out": GRAY},
        ["79% of the pixels are gray", "continuous-bernoulli"],
    ),
    "colors": (
        ["likelihood unfit for the images"],
        {
            "train": black_and_white(channels=3),
            "held_out": None,
            "experiment": experiment('model.likelihood={ name = "bernoulli", binarize = "dynamic" }'),
        },
        ["3 channels", "discretized-logistic"],
    ),
    "σ vanishes": (
        ["collapsed pixel scale"],
        {"pixel_scale": 0.001, "experiment": experiment("model.likelihood=normal")},
        ["0.0010", "model.likelihood.scale"],
    ),
    "density without bound": (
        ["collapsed pixel scale"],
        {
            "metrics": history(reconstruction_loss=[-6.0 * 16] * EPOCHS),
            "experiment": experiment('model.likelihood={ name = "laplace", scale = "pixel" }'),
        },
        ["-6.00 nats a pixel", "-5.54"],
    ),
    "over-fitting": (
        ["over-fitting"],
        {"metrics": history(val_total_loss=rising(12, 6, 8))},
        ["since epoch 6", "rose by", "training.keep", "early_stopping"],
    ),
    "learned nothing": (
        ["loss on a plateau"],
        {"metrics": history(11.1, 11.0), "train": black_and_white(white=0.5), "held_out": None},
        ["11.0 nats after 12 epochs", "mean image every time costs 11.0", "learning_rate (now 0.001)"],
    ),
    "learned nothing of a density": (
        ["loss on a plateau"],
        {"metrics": history(-500.0, -501.0), "experiment": experiment("model.likelihood=normal")},
        ["began at -500.0"],
    ),
    "skipped steps": (
        ["non-finite gradients"],
        {"metrics": history(skipped=[0.0] * 11 + [3.0])},
        ["3 steps", "learning_rate", "clip_norm"],
    ),
    "NaN": (["non-finite gradients"], {"metrics": history(val_total_loss=[np.nan] * EPOCHS)}, ["val_total_loss"]),
    "far from the prior": (
        ["codes far from the prior"],
        codes(shift=2.0) | {"experiment": experiment("model.objective.beta=0.1")},
        ["mean 1.99 and variance 1.06", "fit-prior", "model.objective.beta (now 0.1)"],
    ),
    "one code": (
        ["collapsed codebook"],
        VQ | {"metrics": history(perplexity=[1.2] * EPOCHS, used_codes=[2.0] * EPOCHS)},
        ["2 of 64", "1.2", "model.architecture.codes (now 64)"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_nothing_else(fault: str) -> None:
    expected, changes, words = FAULTS[fault]
    findings = examine(Evidence(**HEALTHY | changes))
    assert names(findings) == expected
    told = "\n".join(map(str, findings))
    assert all(word in told for word in words), told
    assert all(all(finding) for finding in findings)


def test_every_check_is_provoked() -> None:
    provoked = {check for _, changes, _ in FAULTS.values() for check in CHECKS if check(Evidence(**HEALTHY | changes))}
    assert provoked == set(CHECKS)


WELL: dict[str, dict[str, Any]] = {
    "as it is": {},
    "half of the dimensions unused": codes(dimensions=50, informed=20),
    "nothing but an experiment": dict.fromkeys(("train", "held_out", "rates", "z", "z_mean", "z_log_var")),
    "one outlier of a log-variance": {"z_log_var": np.where(np.arange(800) == 7, 19.0, -2.0).reshape(200, 4)},
    "β still rises": codes(informed=0, shift=3.0) | {"beta_factor": 0.5},
    "codes begin late": codes(informed=0) | {"experiment": experiment("training.epochs=50")},
    "other prior": codes(shift=3.0) | {"experiment": experiment('model.prior={ name = "vamp" }')},
    "prior fitted": codes(shift=3.0) | {"has_fitted_prior": True},
    "few codes": {name: values[:5] for name, values in codes(shift=3.0).items()},
    "gray made black and white": {
        "train": GRAY,
        "held_out": GRAY,
        "experiment": experiment('model.likelihood={ name = "bernoulli", binarize = "dynamic" }'),
    },
    "gray under a fitting likelihood": {
        "train": GRAY,
        "held_out": GRAY,
        "experiment": experiment("model.likelihood=continuous-bernoulli"),
    },
    "best epoch kept": {
        "metrics": history(val_total_loss=rising(12, 6, 8)),
        "experiment": experiment("training.keep=best"),
    },
    "validation noisy": {"metrics": history(val_total_loss=[12.0] + [5.0, 5.6] * 5 + [5.0])},
    "converged": {"metrics": history(5.0, 5.0)},
    "groups that work": LADDER | {"rates": np.tile([3.0, 1.0, 5.0], (50, 1))},
    "codes that work": VQ | {"metrics": history(perplexity=[15.0] * EPOCHS, used_codes=[60.0] * EPOCHS)},
}


@pytest.mark.parametrize("case", WELL)
def test_what_is_no_fault_is_not_found(case: str) -> None:
    assert names(examine(Evidence(**HEALTHY | WELL[case]))) == []


@pytest.fixture(scope="module")
def digits() -> Splits:
    return sources.load_splits(experiment(*DIGITS).data)[0]


class Heard(list[str]):
    def __call__(self, finding: Finding) -> None:
        self.append(finding.name)


def train(splits: Splits, out: Path, *settings: str, preset: str = "classic") -> tuple[Run, Heard]:
    heard, run = Heard(), Run(out / "run")
    live = ShowFindings(lambda model: examine(gather(run, splits, model, images=128)), heard)
    trainer.train(experiment(*settings, preset=preset), splits, run.path, callbacks=[live])
    return run, heard


@trains_for_long
def test_a_healthy_run_has_nothing(digits: Splits, tmp_path: Path) -> None:
    run, heard = train(digits, tmp_path, *DIGITS)
    assert names(diagnose(run, digits)) == heard == []


@trains_for_long
def test_too_much_beta_is_found_live_and_after(digits: Splits, tmp_path: Path) -> None:
    run, heard = train(digits, tmp_path, *DIGITS, "model.objective.beta=200.0", "model.latent_dim=4")
    assert {"posterior collapse", "β dominates", "loss on a plateau"} >= {*heard} >= {"posterior collapse"}
    assert len(heard) == len({*heard})
    findings = {finding.name: finding for finding in diagnose(run, digits)}
    assert findings.keys() >= {"posterior collapse", "β dominates"}
    assert "all 4" in findings["posterior collapse"].seen


@trains_for_long
def test_too_little_beta_leaves_codes_far_from_the_prior(digits: Splits, tmp_path: Path) -> None:
    run, _ = train(digits, tmp_path, *DIGITS, "model.objective.beta=0.01")
    labels: list[str] = []

    def progress(items: Sequence[Array], label: str) -> Sequence[Array]:
        labels.append(label)
        return items

    assert names(diagnose(run, digits, progress=progress)) == ["codes far from the prior"]
    assert labels == ["looking at the codes"]


@trains_for_long
def test_too_small_steps_are_a_plateau(digits: Splits, tmp_path: Path) -> None:
    run, heard = train(digits, tmp_path, *DIGITS, "training.learning_rate=1e-9", "training.epochs=8")
    assert names(diagnose(run, digits)) == heard == ["loss on a plateau"]


@trains_for_long
def test_learning_by_heart_is_over_fitting(tmp_path: Path) -> None:
    noise = Dataset.from_arrays(np.random.default_rng(0).random((48, 6, 6)) < 0.3, name="noise")
    splits = split(noise, None, validation=16, test_size=16, holdout=True, seed=0)
    settings = ["training.batch_size=16", "training.learning_rate=1e-2", "training.epochs=80", "model.latent_dim=8"]
    run, heard = train(splits, tmp_path, 'model.network={ name = "mlp", widths = [64] }', *settings)
    # On noise it may be no better than the mean image besides, and that is found as well.
    assert "over-fitting" in names(diagnose(run, splits))
    assert "over-fitting" in heard


SMALL = ["model.network.widths=[2, 3]", "training.epochs=1", "training.batch_size=8"]


@pytest.fixture
def frames(images: Array) -> Splits:
    dataset = Dataset.from_arrays(images, np.arange(24) % 3, name="frames")
    return split(dataset, None, validation=4, test_size=4, holdout=True, seed=0)


@on_tensorflow("what is gathered is tested on every backend, and here it is only judged")
@pytest.mark.parametrize(
    "settings",
    [
        ["model.posterior=deterministic"],
        ["model.prior=realnvp", "model.likelihood=normal"],
        ["model.condition=label", 'model.objective.schedule={ name = "warm-up", steps = 0.5 }'],
    ],
)
def test_every_kind_of_vae_gives_what_it_has(frames: Splits, tmp_path: Path, settings: list[str]) -> None:
    run, _ = train(frames, tmp_path, *SMALL, *settings)
    evidence = gather(run, frames, run.load_model())
    assert evidence.z is not None
    assert evidence.unused is not None
    assert evidence.z.shape == (4, 2)
    assert evidence.unused.shape == (2,)
    assert (evidence.rates is None) == (evidence.z_log_var is None) == ("deterministic" in settings[0])
    assert (evidence.pixel_scale is None) == ("realnvp" not in settings[0])
    assert evidence.beta_factor == 1
    examine(evidence)


@pytest.mark.slow
@trains_for_long
def test_other_models_give_what_they_have(frames: Splits, tmp_path: Path) -> None:
    ladder = ["model.architecture.widths=[2, 3]", "model.architecture.groups=[1, 1]", "training.epochs=1"]
    run, _ = train(frames, tmp_path / "ladder", *ladder, "training.batch_size=8", preset="ladder")
    evidence = gather(run, frames, run.load_model())
    assert evidence.rates is not None
    assert evidence.rates.shape == (4, 2)
    examine(evidence)
    run, _ = train(frames, tmp_path / "vq", *SMALL, preset="vq")
    evidence = gather(run, frames, run.load_model())
    assert evidence.rates is evidence.z is None
    assert evidence.column("used_codes")
    examine(evidence)


@on_tensorflow("images are judged without a backend")
def test_images_are_judged_before_the_first_epoch(tmp_path: Path) -> None:
    gray = Dataset.from_arrays(GRAY, name="gray")
    splits = split(gray, None, validation=8, test_size=8, holdout=True, seed=0)
    run, heard = train(splits, tmp_path, *SMALL)
    assert heard == ["likelihood unfit for the images"]
    # Without a model the images and the metrics are what is left.
    (run.path / "model.keras").unlink()
    assert names(diagnose(run, splits)) == heard


def test_being_watched_changes_no_bit(frames: Splits, tmp_path: Path) -> None:
    settings = [*SMALL, "training.epochs=3", 'model.likelihood={ name = "bernoulli", binarize = "dynamic" }']
    watched, _ = train(frames, tmp_path, *settings)
    alone = trainer.train(experiment(*settings), frames, tmp_path / "alone")
    weights = zip(watched.load_model().get_weights(), alone.load_model().get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in weights)


def test_the_weight_of_another_objective_is_not_beta() -> None:
    assert Evidence(experiment=experiment("model.objective.beta=4.0"), metrics={}).beta == 4
    assert Evidence(experiment=experiment(preset="beta-tcvae"), metrics={}).beta == 1


def test_a_learned_scale_is_the_one_that_the_likelihood_takes() -> None:
    network = Conv(widths=(2,), dense_units=2)
    vae = VAE(network.encoder((4, 4, 1), 2), network.decoder(2, (4, 4, 1)), likelihood=Normal(scale="learned"), seed=0)
    vae.likelihood.log_scale.assign(-8.0)
    view = vae.likelihood(ops.zeros((1, 4, 4, 1)))
    # The density at its own mean is 1/(σ√2π) a pixel.
    density = float(view.log_prob(ops.zeros((1, 4, 4, 1)))[0]) / 16
    assert _pixel_scale(vae) == pytest.approx(np.exp(-density) / np.sqrt(2 * np.pi), rel=1e-4)

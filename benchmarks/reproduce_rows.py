"""The rows of `python -m benchmarks.reproduce`: experiments, measurements, published numbers, and goals."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_vae.runs.experiment import Experiment


@dataclass(frozen=True)
class Step:
    """A part of the measurement of a seed. Consecutive steps of one backend share a process.

    Args:
        name: Name of its results in the record of the seed.
        function: Name of a function in `benchmarks.reproduce_steps`.
        backend: Backend of Keras.
        arguments: Arguments of the function.
    """

    name: str
    function: str
    backend: str = "tensorflow"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """A limit for the median over seeds of a measurement.

    Args:
        metric: Path of the measurement in a record, such as `"posterior.nll"`.
        limit: The limit.
        is_maximum: Whether the measurement must not exceed the limit; False if it must not fall below it.
        unit: Words that follow the limit.
    """

    metric: str
    limit: float
    is_maximum: bool = True
    unit: str = ""

    def is_reached(self, value: float) -> bool:
        """Return whether a value reaches the goal."""
        return value <= self.limit if self.is_maximum else value >= self.limit

    def __str__(self) -> str:
        """Return the goal in words."""
        return f"{'≤' if self.is_maximum else '≥'} {self.limit:g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Row:
    """A row of the results.

    Args:
        name: Name on the command line.
        title: Description of the model and the data.
        published: Published numbers, in words.
        goal: The goal.
        steps: The steps of each seed, in order.
        metrics: Measurements to show besides the goal's, as paths in a record, and their names.
        preset: Preset of the experiment.
        settings: Settings that differ from the preset.
        seeds: Number of seeds.
        requires: Package that must be installed, if any.
        quick: Further settings of `--quick`, such as a smaller network.
        tried: Attempts to reach a goal that is missed, one sentence each.
    """

    name: str
    title: str
    published: str
    goal: Goal
    steps: tuple[Step, ...]
    metrics: Mapping[str, str]
    preset: str
    settings: tuple[str, ...]
    seeds: int = 3
    requires: str | None = None
    quick: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()

    def experiment(self, seed: int) -> Experiment:
        """Return the experiment of a seed."""
        return Experiment.preset(self.preset).with_overrides([*self.settings, f"name={self.name}", f"seed={seed}"])

    @property
    def key(self) -> dict[str, Any]:
        """The settings that determine a record. Records with other settings do not belong to the row."""
        steps = [[step.name, step.function, step.backend, dict(step.arguments)] for step in self.steps]
        # Every value of the experiment counts, also those of the preset.
        experiment = hashlib.sha256(self.experiment(0).to_toml().encode()).hexdigest()
        return {"preset": self.preset, "settings": list(self.settings), "experiment": experiment, "steps": steps}

    @property
    def is_likelihood(self) -> bool:
        """Whether the row is one of likelihoods, which have a table of their own."""
        return self.goal.metric == "posterior.nll"


POSTERIOR = Step("posterior", "likelihood", arguments={"proposal": "posterior", "samples": 5000})
MIXTURE = Step("mixture", "likelihood", arguments={"proposal": "mixture", "samples": 1000})
TIGHTER = {"mixture.nll": "mixture"}


def likelihood_row(name: str, title: str, published: str, limit: float, preset: str, *settings: str) -> Row:
    """Return a row of a model with one latent vector, whose dense networks train on JAX."""
    steps = (Step("train", "train", "jax"), POSTERIOR, MIXTURE)
    return Row(name, title, published, Goal("posterior.nll", limit), steps, TIGHTER, preset, settings)


BURDA = ("training.epochs=75", "training.learning_rate=1e-3", "training.keep=best", "model.objective.gradient=dreg")
"""Settings of models of Burda's sizes, with 50 or 64 draws per image."""

RESIDUAL_NETWORK = (
    "training.epochs=150",
    "training.optimizer=adamw",
    "training.weight_decay=0.1",
    "training.keep=best",
    'model.network={ name = "mlp", widths = [300, 300], activation = "gelu", residual = true }',
)

PYTHAE_STEPS = tuple(
    Step(f"pythae_{name}", "pythae_samples", arguments={"model": name, "epochs": 20, "latent_dim": 16})
    for name in ("VAE", "RAE_L2", "VAMP")
)

ANOMALY_STEPS = tuple(Step(f"without_{digit}", "held_out_digit", arguments={"digit": digit}) for digit in range(10))

ROWS = (
    likelihood_row(
        "mnist-dense",
        "MNIST, dynamically binarized, one latent layer of 40 dimensions, dense networks",
        "82.09 (exemplar prior, arXiv 2004.04795), 82.43 (VampPrior, the same paper)",
        81.3,
        "flow-prior",
        "training.epochs=200",
        'model.objective={ name = "iwae", samples = 5, gradient = "dreg" }',
    ),
    likelihood_row(
        "mnist-iwae-50",
        "MNIST, dynamically binarized, one layer of 50 dimensions, 200 and 200 units, IWAE with 50 draws",
        "84.78 (Burda et al., arXiv 1509.00519)",
        84.5,
        "iwae",
        *BURDA,
        "model.objective.samples=50",
    ),
    likelihood_row(
        "mnist-miwae",
        "The same networks, MIWAE with 8 bounds of 8 draws",
        "85.09 (pythae's table)",
        85.09,
        "iwae",
        *BURDA,
        "model.objective.samples=8",
        "model.objective.groups=8",
    ),
    likelihood_row(
        "mnist-ciwae",
        "The same networks, CIWAE with 64 draws and 0.05 of the ELBO",
        "84.74 (pythae's table)",
        84.74,
        "iwae",
        *BURDA,
        "model.objective.samples=64",
        "model.objective.elbo_weight=0.05",
    ),
    likelihood_row(
        "mnist-vamp-static",
        "MNIST, binarized once with fixed random numbers (not those of Larochelle), VampPrior, dense networks",
        "85.79 (pythae's table)",
        85.79,
        "vamp",
        *RESIDUAL_NETWORK,
        "model.likelihood.binarize=static",
        "model.prior.num_components=500",
    ),
    Row(
        "mnist-hierarchy",
        "MNIST, dynamically binarized, convolutional hierarchy",
        "79.10 (ResNet VAE with IAF), 78.41 (BIVA), 78.01 (NVAE)",
        Goal("posterior.nll", 79.5),
        (Step("train", "train"), POSTERIOR),
        {},
        "ladder",
        (
            "data.validation=10000",
            'model.architecture={ name = "ladder", widths = [16, 32, 64], groups = [0, 2, 3], latent_channels = 4 }',
            "training.epochs=60",
            "training.optimizer=adamw",
            "training.weight_decay=0.05",
            "training.precision=auto",
            "training.keep=best",
        ),
        quick=("model.architecture.widths=[4, 8]", "model.architecture.groups=[0, 1]", "training.precision=float32"),
    ),
    Row(
        "samples",
        "Samples of MNIST: `rae` with a prior fitted by `fit-prior`, relative to pythae's VAE, RAE-L2 and VAMP with "
        "its normal and mixture samplers",
        "the best of pythae's six, trained and sampled by pythae 0.1.2, measured here",
        Goal("comparison.ratio", 1.0, unit="in Fréchet distance and KID"),
        (
            Step("train", "train"),
            Step("prior", "fitted_prior", arguments={"prior": "flow-matching"}),
            Step("samples", "samples"),
            *PYTHAE_STEPS,
            Step("comparison", "compare_samples"),
        ),
        {
            "samples.frechet_distance": "Fréchet distance",
            "samples.kid": "KID",
            "comparison.best_frechet_distance": "pythae's best Fréchet distance",
            "comparison.best_kid": "pythae's best KID",
        },
        "rae",
        (),
        requires="pythae",
    ),
    Row(
        "sprites",
        "Sprites, β-TCVAE of ten dimensions, 60,000 training images",
        "none; the model above has a MIG of 0.089",
        Goal("scores.mig", 0.30, is_maximum=False, unit="(MIG)"),
        (Step("train", "train"), Step("scores", "disentanglement")),
        {
            "scores.dci_disentanglement": "DCI disentanglement",
            "scores.dci_completeness": "completeness",
            "scores.dci_informativeness": "informativeness",
        },
        "beta-tcvae",
        (
            "data.source=sprites",
            "data.validation=0",
            'model.network={ name = "conv", widths = [32, 32, 64, 64], dense_units = 256 }',
            "model.objective.beta=8",
            "training.epochs=40",
            "training.schedule=cosine",
            "training.precision=auto",
        ),
        seeds=5,
    ),
    Row(
        "anomaly",
        "Anomalies: one digit of MNIST held out at a time, mean ROC-AUC of ten models",
        "0.855 (−ELBO, 2 dimensions), 0.718 (−ELBO, 32 dimensions; Tonnaer's thesis, table 3.3)",
        Goal("mean.relative_error", 0.86, is_maximum=False, unit="(ROC-AUC of ‖x − x̂‖² / ‖x‖²)"),
        (*ANOMALY_STEPS, Step("mean", "mean_area")),
        {"mean.nll": "`nll`", "mean.reconstruction_loss": "`reconstruction_loss`"},
        "mlp",
        (
            "data.validation=0",
            "model.latent_dim=2",
            "model.network.widths=[256, 256]",
            "model.likelihood.binarize=none",
            "training.epochs=60",
        ),
    ),
)

NOT_MEASURED = (
    "PIWAE (84.58 in pythae's table) trains the encoder and the decoder on different bounds. An objective of this "
    "package is one loss for all weights, so that it cannot express this.",
    "InfoMEC and the quantized latent model (arXiv 2305.18378) on sprites. `vae evaluate` has no InfoMEC; `VQVAE` "
    "quantizes vectors on a map, not the single dimensions of one latent vector, and the disentanglement scores need "
    "such a vector.",
    "The convolutional hierarchy at ≤ 78.5, the goal for a GPU. No GPU was available.",
)
"""Results that the package or the machine does not allow at present."""


def find(name: str) -> Row | None:
    """Return the row with a name, or None."""
    return next((row for row in ROWS if row.name == name), None)

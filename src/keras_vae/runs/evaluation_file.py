"""The types of the values in `evaluation.json`, which a program or a person may have changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from keras_vae.core.config import ConfigModel
from keras_vae.core.errors import InputError
from keras_vae.runs.files import read_json

SCHEMA = 3
"""Version of the keys of `evaluation.json`."""

_MISSING: Any = None
"""The default of keys that may be absent, but not null."""


class _Table(ConfigModel):
    """A table of which only the keys that this package reads are checked."""

    model_config = ConfigDict(extra="ignore")


class _Mean(_Table):
    mean: float
    standard_error: float | None = None


class _Bounds(_Table):
    lower: _Mean
    upper: _Mean


class _Percentiles(_Table):
    median: float
    percentile_5: float = 0.0
    percentile_95: float = 0.0


def _number_or_mean(value: Any) -> Any:
    """Check a number that may have a standard error."""
    if isinstance(value, Mapping):
        return _Mean.from_tables(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("not a number; pass a number")
    return value


_Number = Annotated[Any, BeforeValidator(_number_or_mean)]


class _Section(_Table):
    data: str = ""
    split: str = ""
    checksum: str = ""
    held_out: bool = True
    images: int = 0
    seed: int = 0
    notes: list[str] = _MISSING


class _Likelihood(_Section):
    negative_elbo: _Mean = _MISSING
    reconstruction_loss: _Mean = _MISSING
    kl_loss: _Mean = _MISSING
    nll: _Mean = _MISSING
    bits_per_dim: _Mean | None = None
    observed: float = 1.0
    normalized: bool = True
    density: bool = False
    bound: bool = True
    trusted: bool = True
    lossy: bool = False
    image_losses: list[str] = _MISSING
    samples: int = 0
    proposal: str = ""
    binarization: str = ""
    binarization_seed: int | None = None
    effective_sample_size: _Percentiles = _MISSING
    pareto_shape: _Percentiles | None = None
    perplexity: float = 0.0
    used_codes: int = 0
    kl_per_group: list[float] = _MISSING


class _ActiveUnits(_Table):
    count: int = 0
    dimensions: list[int] = _MISSING


class _Latents(_Section):
    latent_dim: int = 0
    active_units: _ActiveUnits | None = None
    mutual_information: _Mean | None = None
    mutual_information_bounds: _Bounds | None = None
    marginal_kl: _Mean | None = None
    marginal_kl_bounds: _Bounds | None = None
    knn_accuracy: _Mean | None = None
    linear_probe_accuracy: _Mean | None = None
    chance_accuracy: _Mean | None = None


class _Distances(_Table):
    frechet_distance: _Number = None
    kid: _Number = None
    precision: _Number = None
    recall: _Number = None
    density: _Number = None
    coverage: _Number = None


class _Memorization(_Table):
    copying_suspected: bool | None = None


class _Samples(_Section, _Distances):
    samples: int = 0
    images_scored: str = ""
    floor: _Distances | None = None
    memorization: _Memorization | None = None


class _ImageQuality(_Section):
    psnr: _Mean | None = None
    ssim: _Mean | None = None
    perceptual_distance: _Mean | None = None
    reconstruction_frechet_distance: _Mean | None = None
    code_usage: _Mean | None = None
    num_codes: int = 0


class _Disentanglement(_Section):
    factors: list[str] = _MISSING
    beta_vae: _Number = None
    factor_vae: _Number = None
    mig: _Number = None
    modularity: _Number = None
    sap: _Number = None
    dci_disentanglement: _Number = None
    dci_completeness: _Number = None
    dci_informativeness: _Number = None


class _Evaluation(_Table):
    likelihood: _Likelihood = _MISSING
    latents: _Latents = _MISSING
    samples: _Samples = _MISSING
    image_quality: _ImageQuality = _MISSING
    disentanglement: _Disentanglement = _MISSING


class Evaluation(dict[str, Any]):
    """The content of an `evaluation.json`, a dictionary of sections, with a representation of one line.

    Example:
        >>> Evaluation(likelihood={"nll": {"mean": 88.684, "standard_error": 0.25}}, model={"prior": "original"})
        Evaluation(nll=88.68; likelihood)
    """

    def __repr__(self) -> str:
        """Return the main numbers, and the names of the sections."""
        likelihood = self.get("likelihood", {})
        means = {name: likelihood.get(name) for name in ("nll", "negative_elbo", "reconstruction_loss", "kl_loss")}
        numbers = ", ".join(f"{name}={value['mean']:.4g}" for name, value in means.items() if value)
        sections = ", ".join(name for name in self if name in _Evaluation.model_fields)
        return f"Evaluation({numbers}{'; ' if numbers and sections else ''}{sections})"


def read_evaluation(file: Path) -> Evaluation | None:
    """Return an evaluation, or None if there is no such file.

    Args:
        file: An `evaluation.json`.

    Raises:
        InputError: The file is damaged, or a value has the wrong type.
    """
    content = read_json(file)
    if content is None:
        return None
    check_evaluation(content, str(file))
    return Evaluation(content)


def check_evaluation(content: Any, where: str) -> None:
    """Reject an evaluation with text where numbers belong, or with other values of the wrong type.

    Args:
        content: The content of an `evaluation.json`.
        where: Its origin, for the message.

    Raises:
        InputError: A value has the wrong type.

    Example:
        >>> check_evaluation({"latents": {"latent_dim": "many"}}, "evaluation.json")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: evaluation.json: latents.latent_dim = 'many': not an integer; pass an integer
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: not a table; restore the file, or remove it and run `vae evaluate` again")
    _Evaluation.from_tables(content, where)

"""Experiments: all settings of a training, validated and stored in one TOML file."""

import functools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import tomli_w
from pydantic import Field

from keras_vae.core.config import ConfigModel, unknown_setting
from keras_vae.core.errors import InputError, first_line, require_list, shown, unknown
from keras_vae.core.files import name_problem
from keras_vae.data.config import DataConfig

COMPONENTS = ("architecture", "network", "prior", "posterior", "likelihood", "objective", "condition", "schedule")
"""The keys of the file that name a component."""

FORMAT = 1
"""Version of experiment files and run folders that this package writes, and the newest version that it reads."""

MAX_LATENT_DIM = 65_536
"""Largest number of latent dimensions of an experiment; larger models do not fit into memory."""


def _spec(value: Any) -> Any:
    spec = {"name": value} if isinstance(value, str) else value
    if isinstance(spec, dict) and not isinstance(spec.get("name"), str):
        raise ValueError("has no short name; pass one, or a table with one under `name`")
    return spec


ComponentSpec = Annotated[dict[str, Any], pydantic.BeforeValidator(_spec)]
"""A component: its short name under `name`, and arguments of its constructor. A string is the name alone."""


def _folder_name(value: str) -> str:
    if problem := name_problem(value):
        raise ValueError(problem)
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ModelConfig(ConfigModel):
    """`[model]`: the components of the autoencoder, each a short name or a table with `name` and arguments.

    Args:
        architecture: `vae`, `ladder` or `vq`. It determines the defaults of the other components.
        latent_dim: Number of latent dimensions.
        network: Encoder and decoder.
        prior: p(z).
        posterior: q(z|x).
        likelihood: p(x|z).
        objective: The loss. `beta = "1/latent_dim"` averages the KL over latent dimensions, as in tutorials.
        condition: `label` conditions the model on the labels of the images.
        mask_channels: Whether the encoder also receives the mask of observed pixels, as further channels.
        image_losses: Losses of the reconstruction to add to the objective, such as `[{ name = "adversarial" }]`.
    """

    architecture: ComponentSpec = Field({"name": "vae"})
    latent_dim: Annotated[int, Field(ge=1, le=MAX_LATENT_DIM)] | None = None
    network: ComponentSpec | None = None
    prior: ComponentSpec | None = None
    posterior: ComponentSpec | None = None
    likelihood: ComponentSpec = Field({"name": "bernoulli"})
    objective: ComponentSpec = Field({"name": "elbo"})
    condition: ComponentSpec | None = None
    mask_channels: bool = False
    image_losses: list[ComponentSpec] = Field([])

    @property
    def is_conditioned_on_labels(self) -> bool:
        """Whether the model is conditioned on the labels of images."""
        return self.condition is not None and self.condition["name"] == "label"


class PlateauConfig(ConfigModel):
    """`[training.plateau]`: reduces the learning rate when the validation loss stops improving.

    Args:
        patience: Number of epochs without a new best before each reduction; 0 never reduces.
        factor: Factor of each reduction.
    """

    patience: Annotated[int, Field(ge=0)] = 0
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5


class TrainingConfig(ConfigModel):
    """`[training]`: the settings of the optimizer and of the training loop.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step.
        optimizer: Name of a Keras optimizer.
        learning_rate: Learning rate of the optimizer.
        schedule: Factor of the learning rate at each step, such as `{ name = "cosine", warm_up = 0.05 }`.
        plateau: Reduction of the learning rate on validation plateaus; see `PlateauConfig`.
        weight_decay: Decoupled weight decay; 0 for none.
        clip_norm: Upper limit of the joint norm of all gradients, those of a discriminator included; 0 for no limit.
        skip_non_finite: Skips the update of a step with NaN or infinite gradients instead of stopping. The number of
            skipped steps is in `metrics.csv`. Training stops after an epoch that ends with 100 skipped steps, or in
            which all steps were skipped.
        early_stopping: Number of epochs without a new best validation loss before training stops; 0 never stops early.
            The validation loss is `val_total_loss`: the objective with its own number of samples and without annealing,
            with the same noise in every epoch.
        shuffle: False keeps the images in the order of their source.
        precision: `"float32"`; `"mixed_bfloat16"` computes the networks in bfloat16, and z, losses and weights in
            float32; `"auto"` uses bfloat16 if the hardware supports it natively. The run records the choice.
        ema_window: Window of an exponential moving average of the weights, as a fraction of all steps. The averaged
            weights are then evaluated and kept. The average is corrected for its bias to the first steps. 0 disables
            averaging.
        keep: The weights that the run keeps: those of the `"last"` epoch, or those with the `"best"` validation loss;
            see `early_stopping`.
        init: Model from whose weights training starts: a run, its folder, the name of a pretrained run, or a `.keras`
            file, with the same networks. Components of another class, such as another prior, start from their own.
        freeze: `["encoder"]` or `["decoder"]`: networks whose weights, with those of the distributions that they
            parameterize, remain those of `init`.
    """

    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=1)] = 128
    optimizer: str = "adam"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    schedule: ComponentSpec = Field({"name": "constant"})
    plateau: PlateauConfig = PlateauConfig()
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    skip_non_finite: bool = False
    early_stopping: Annotated[int, Field(ge=0)] = 0
    shuffle: bool = True
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "float32"
    ema_window: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep: Literal["last", "best"] = "last"
    init: str | None = None
    freeze: Annotated[list[Literal["encoder", "decoder"]], pydantic.BeforeValidator(_as_list)] = Field([])


class Experiment(ConfigModel):
    """All settings of a training. Together with the data, the backend and the machine, they determine the result.

    Args:
        name: Name of the experiment, and the default name of its run folder; a name, not a path.
        description: One-sentence description.
        seed: Seed of the split, the initial weights, the order of the images and the noise.
        data: The `[data]` table.
        model: The `[model]` table.
        training: The `[training]` table.
        format: Version of the file's layout.

    Example:
        >>> Experiment.preset("classic").with_overrides(["training.epochs=5"]).training.epochs
        5
    """

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    name: Annotated[str, pydantic.AfterValidator(_folder_name)] = "experiment"
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """Load a preset by its name, or an experiment file by its path.

        Args:
            source: The name of a preset, or a path that ends in `.toml`.

        Raises:
            InputError: There is no such preset or file, the file is not TOML, or a key or value is invalid.

        Example:
            >>> Experiment.load("classic").model.latent_dim
            2
        """
        return cls.from_file(source) if str(source).endswith(".toml") else cls.preset(str(source))

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a preset of the package.

        Args:
            name: One of `preset_names()`.

        Raises:
            InputError: There is no such preset.
        """
        if name in preset_names():
            file = resources.files("keras_vae").joinpath(f"runs/presets/{name}.toml")
            return cls.from_toml(file.read_text("utf-8"), name)
        raise unknown("preset", name, preset_names())

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read an experiment file.

        Args:
            path: A TOML file.

        Raises:
            InputError: There is no such file, it is not TOML, or a key or value is invalid.
        """
        try:
            return cls.from_toml(Path(path).read_text("utf-8"), str(path))
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"{path}: no such experiment file; pass the path of an existing file") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not text in UTF-8; pass a TOML file") from None

    @classmethod
    def from_toml(cls, text: str, where: str) -> Self:
        """Parse the text of an experiment file.

        Args:
            text: The text.
            where: The origin of the text, for error messages.

        Raises:
            InputError: The text is not TOML, or a key or value is invalid.
        """
        try:
            tables = tomllib.loads(text)
        except RecursionError:
            raise InputError(f"{where}: tables or lists are nested too deeply; correct the file") from None
        except ValueError as error:
            raise InputError(f"{where}: not TOML ({first_line(error)}); correct the file") from None
        written = tables.get("format", FORMAT)
        if isinstance(written, int) and written > FORMAT:
            raise InputError(
                f"{where}: written by a newer keras-vae (format {written}, but this version reads up to {FORMAT}); "
                "upgrade keras-vae"
            )
        if "sweep" in tables and "sweep" not in cls.model_fields:
            raise InputError(f"{where}: has a table [sweep]; run it with `vae sweep {where}`, or remove the table")
        return cls.from_tables(tables, where)

    def to_toml(self) -> str:
        """Return the text of an experiment file that contains every value."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def with_overrides(self, settings: Iterable[str]) -> Self:
        """Return a copy with some values replaced.

        Args:
            settings: Strings `key=value`, with a dotted key (`model.objective.beta=4`) and a value in TOML; values
                that are not TOML are strings.

        Raises:
            InputError: A string is not of the form `key=value`, or a key or value is invalid.
        """
        require_list("settings", settings)
        parsed = list[tuple[str, Any]]()
        for setting in settings:
            key, sign, text = setting.partition("=")
            if not (sign and key.strip().rpartition(".")[2]):
                raise InputError(
                    f"setting = {setting}: not of the form key=value; write training.epochs=5, for example"
                )
            parsed.append((key.strip(), _parse_value(text.strip())))
        return self.with_values(parsed)

    def with_values(self, values: Iterable[tuple[str, Any]]) -> Self:
        """Return a copy with some values replaced.

        Args:
            values: Pairs of a dotted key, such as `"model.objective.beta"`, and a value.

        Raises:
            InputError: A key or value is invalid.

        Example:
            >>> Experiment().with_values([("training.epochs", 5)]).training.epochs
            5
        """
        tables = self.model_dump(exclude_none=True)
        for dotted_key, value in values:
            keys, table = dotted_key.split("."), tables
            for depth, name in enumerate(keys[:-1]):
                if isinstance(table.get(name), str) and name in COMPONENTS:
                    table[name] = {"name": table[name]}
                if not isinstance(table.get(name), dict):
                    raise _missing_table(tables, keys, depth + 1, value)
                table = table[name]
            table[keys[-1]] = value
        return self.from_tables(tables)


def preset_names() -> list[str]:
    """Return the names of the package's presets, sorted."""
    folder = resources.files("keras_vae").joinpath("runs/presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _missing_table(tables: Mapping[str, Any], keys: Sequence[str], depth: int, value: Any) -> InputError:
    """Return the error for the override of a setting in a table that an experiment does not have.

    Args:
        tables: All tables of the experiment.
        keys: The path of the setting.
        depth: The number of keys that lead to the missing table.
        value: The value of the override.
    """
    parent = functools.reduce(lambda table, key: table[key], keys[: depth - 1], tables)
    missing, inner = ".".join(keys[:depth]), ".".join(keys[depth:])
    setting = f"{'.'.join(keys)} = {shown(value)}"
    if keys[depth - 1] in parent:
        return InputError(
            f"{setting}: {missing} = {shown(parent[keys[depth - 1]])} is not a table; set {missing} itself"
        )
    is_component = keys[0] == "model" and (keys[1] in COMPONENTS and keys[1] in ModelConfig.model_fields)
    if not is_component and keys[:2] != ["training", "schedule"]:
        return unknown_setting(Experiment, keys, value)
    written = " ".join(tomli_w.dumps({inner: value}).split()).replace('"' + inner + '"', inner)
    return InputError(f"{setting}: {missing} is not set; choose it as well: {missing}={{name = …, {written}}}")


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text

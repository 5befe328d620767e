"""Experiments: everything that decides a training, as one validated object and one TOML file."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import pydantic
import tomli_w
from pydantic import Field

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.typing import ImageShape

if TYPE_CHECKING:
    from keras_vae.components.schedules import Schedule
    from keras_vae.core.progress import Progress
    from keras_vae.data.dataset import LoadedData, Splits
    from keras_vae.data.streams import Stream
    from keras_vae.models.base import BaseVAE

PARTS = ("architecture", "network", "prior", "posterior", "likelihood", "objective", "condition", "schedule")
"""The keys of the file that name a part."""

FORMAT = 1
"""The version of experiment files and run folders that this package writes, and the newest that it reads."""


def _spec(value: Any) -> Any:
    spec = {"name": value} if isinstance(value, str) else value
    if isinstance(spec, dict) and not isinstance(spec.get("name"), str):
        raise ValueError("give a short name, or a table with one under `name`")
    return spec


Spec = Annotated[dict[str, Any], pydantic.BeforeValidator(_spec)]
"""A part: its short name and the arguments of its constructor; the name alone stands for its defaults."""


class ConfigModel(pydantic.BaseModel):
    """A table of the file: immutable, of the stated types, without other keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(ConfigModel):
    """`[data]`: the images, and which of them are held out.

    Args:
        source: `mnist`, `fashion_mnist`, `digits`, or a path to a .npz, a .npy or a folder of images.
        image_size: [height, width] to resize to, or `"keep"`.
        color: `"gray"`, `"rgb"`, or `"keep"`.
        background: A color to lay under transparent pixels, or `"refuse"`.
        validation: Images held out of training and measured every epoch: how many, or a fraction below 1.
        test: Images held out and measured once, the same way; only where the source has no test split of its own.
        holdout: False trains on everything, test split included, so that no number is a held-out one.
    """

    source: str = "mnist"
    image_size: list[Annotated[int, Field(ge=1)]] | Literal["keep"] = "keep"
    color: Literal["gray", "rgb", "keep"] = "keep"
    background: str = "refuse"
    validation: Annotated[int | float, Field(ge=0)] = 0.1
    test: Annotated[int | float, Field(ge=0)] = 0.1
    holdout: bool = True

    @pydantic.field_validator("image_size")
    @classmethod
    def _two_sides(cls, value: list[int] | str) -> list[int] | str:
        if isinstance(value, list) and len(value) != 2:
            raise ValueError("give [height, width]")
        return value


class Model(ConfigModel):
    """`[model]`: the parts of the autoencoder, each a short name or a table with `name` and arguments.

    Args:
        architecture: `vae`, `ladder` or `vq`. What the others leave out, the architecture fills in.
        latent_dim: The number of latent dimensions.
        network: Encoder and decoder.
        prior: p(z).
        posterior: q(z|x).
        likelihood: p(x|z).
        objective: What is minimized. A `beta` of `"1/latent_dim"` is the tutorials' mean over latent dimensions.
        condition: `label` tells the model each image's label.
    """

    architecture: Spec = {"name": "vae"}
    latent_dim: Annotated[int, Field(ge=1)] | None = None
    network: Spec | None = None
    prior: Spec | None = None
    posterior: Spec | None = None
    likelihood: Spec = {"name": "bernoulli"}
    objective: Spec = {"name": "elbo"}
    condition: Spec | None = None


class Plateau(ConfigModel):
    """`[training.plateau]`: a learning rate that falls when the validation `negative_elbo` does not.

    Args:
        patience: Epochs without a new best after which it falls; 0 never.
        factor: What it is multiplied by.
    """

    patience: Annotated[int, Field(ge=0)] = 0
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Training(ConfigModel):
    """`[training]`: how the model is fitted.

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step.
        optimizer: A Keras optimizer by name.
        learning_rate: Its step size.
        schedule: A factor of the learning rate at each step, such as `{ name = "cosine", warm_up = 0.05 }`.
        plateau: A learning rate that falls when validation stands still; see `Plateau`.
        weight_decay: Decoupled weight decay; 0 for none.
        clip_norm: The most that the gradients' joint norm may be; 0 for no limit.
        skip_non_finite: Leaves out the update of a step whose gradients are not finite, instead of stopping.
        early_stopping: Epochs without a new best validation `negative_elbo` after which training ends; 0 never.
        shuffle: False shows the images in the order of their source.
        precision: `"float32"`; `"mixed_bfloat16"`: networks compute in bfloat16, z, losses and weights stay float32; or
            `"auto"`: the second where the hardware has bfloat16 natively. A run records which of the two it was.
        ema_window: The steps over which an exponential moving average of the weights reaches, as a fraction of all
            steps; the average is then what is measured and kept. 0 keeps the weights themselves.
        keep: Which weights the run keeps: of the `"last"` epoch, or of the `"best"` validation `negative_elbo`.
    """

    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=1)] = 128
    optimizer: str = "adam"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    schedule: Spec = {"name": "constant"}
    plateau: Plateau = Plateau()
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    skip_non_finite: bool = False
    early_stopping: Annotated[int, Field(ge=0)] = 0
    shuffle: bool = True
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "float32"
    ema_window: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep: Literal["last", "best"] = "last"


class DatasetInfo(NamedTuple):
    """What a model must know of the data it is trained on.

    Args:
        image_shape: (H, W, C).
        images: How many training images there are.
        classes: How many labels; 0 where the images have none.
    """

    image_shape: ImageShape
    images: int
    classes: int = 0

    @classmethod
    def from_splits(cls, splits: "Splits") -> Self:
        """Return what is known of loaded images."""
        train = splits.train
        labels = [part.labels.max() for part in splits if part is not None and part.labels is not None]
        return cls(train.image_shape, len(train), len(train.classes) or int(max(labels, default=-1)) + 1)


_FROM_DATA = {("condition", "label"): ("classes", "classes"), ("objective", "beta-tc"): ("images", "images")}
"""Arguments of parts that follow from the data: kind and name of the part → argument, fact."""


class Experiment(ConfigModel):
    """Everything that decides a training; with the data, a backend and a machine it fixes the result.

    Args:
        name: What it is called; the run folder's default name.
        description: What it is, in a sentence.
        seed: Fixes the split, the initial weights, the order of the images and the noise.
        data: The `[data]` table.
        model: The `[model]` table.
        training: The `[training]` table.
        format: The version of the file's layout.

    Example:
        >>> Experiment.preset("classic").with_overrides(["training.epochs=5"]).training.epochs
        5
    """

    format: int = FORMAT
    name: str = "experiment"
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a preset of the package.

        Raises:
            InputError: There is none of that name.
        """
        if name not in preset_names():
            raise unknown("preset", name, preset_names())
        return cls.from_toml(
            resources.files("keras_vae").joinpath(f"runs/presets/{name}.toml").read_text("utf-8"), name
        )

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read an experiment file.

        Raises:
            InputError: There is no such file, it is not TOML, or a key or value is refused.
        """
        try:
            return cls.from_toml(path.read_text("utf-8"), str(path))
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"no experiment file at {path}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path} is not an experiment file: it is not text") from None

    @classmethod
    def from_toml(cls, text: str, where: str) -> Self:
        """Read the text of an experiment file; `where` is what errors call it.

        Raises:
            InputError: The text is not TOML, or a key or value is refused.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{where} is not TOML: {error}") from None
        written = tables.get("format", FORMAT)
        if isinstance(written, int) and written > FORMAT:
            raise InputError(
                f"{where} was written by a newer keras-vae (format {written}; this one reads up to {FORMAT}): upgrade"
            )
        return cls._validate(tables, where)

    def to_toml(self) -> str:
        """Return the text of the file, every value written out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def with_overrides(self, settings: Iterable[str]) -> Self:
        """Return the experiment with some values replaced.

        Args:
            settings: Lines `key=value`, the key dotted (`model.objective.beta=4`), the value as TOML has it; a value
                that is not TOML is taken as text.

        Raises:
            InputError: A line has another form, or its key or value is refused.
        """
        tables = self.model_dump(exclude_none=True)
        for setting in settings:
            key, sign, text = setting.partition("=")
            *outer, last = key.strip().split(".")
            if not (sign and last):
                raise InputError(f"--set {setting}: write key=value, such as training.epochs=5")
            table = tables
            for step in outer:
                if isinstance(table.get(step), str) and step in PARTS:
                    table[step] = {"name": table[step]}
                if not isinstance(table.get(step), dict):
                    raise unknown(
                        "--set: table", step, [name for name, value in table.items() if isinstance(value, dict)]
                    )
                table = table[step]
            table[last] = _parse_value(text.strip())
        return self._validate(tables, "--set")

    def resolve(self, facts: DatasetInfo) -> Self:
        """Return the experiment with every default of every part written out, and with what data and hardware decide.

        Args:
            facts: What is known of the data.

        Raises:
            InputError: A part or one of its arguments is unknown, or a value is refused.
        """
        from keras_vae.core import registry

        built = self._build_parts(facts)
        described = {
            kind: registry.spec(kind, value) if kind in PARTS else value
            for kind, value in built.items()
            if value is not None
        }
        decided = {"schedule": described.pop("schedule"), "precision": self._precision}
        return self.model_copy(
            update={
                "model": self.model.model_copy(update=described),
                "training": self.training.model_copy(update=decided),
            }
        )

    def load_splits(self, track: "Progress | None" = None) -> tuple["Splits", tuple[str, ...]]:
        """Load the images and hold out what `[data]` says.

        Args:
            track: Shows progress over an iterable, given a title.

        Returns:
            The splits, and notes about what was done to the images, a line each.

        Raises:
            InputError: The source or its images are refused.
            RunError: A download failed.
        """
        from keras_vae.data import dataset

        data, loaded = self.data, self.load_source(track)
        splits = dataset.split(
            loaded.train,
            loaded.test,
            validation=data.validation,
            test_size=data.test,
            holdout=data.holdout,
            seed=self.seed,
        )
        return splits, loaded.notes

    def load_source(self, track: "Progress | None" = None) -> "LoadedData":
        """Load the images as the source has them; arguments and errors as for `load_splits`."""
        from keras_vae.data import sources

        return sources.load(self.data.source, progress=track, **self._conversion)

    def open_stream(self, track: "Progress | None" = None) -> "Stream":
        """Open the images as the source has them, to be read block by block; arguments and errors as before."""
        from keras_vae.data import sources

        return sources.stream(self.data.source, progress=track, **self._conversion)

    @property
    def _conversion(self) -> dict[str, Any]:
        """What the images are brought to, as the sources take it."""
        data = self.data
        return {
            "image_size": None if data.image_size == "keep" else (data.image_size[0], data.image_size[1]),
            "color": None if data.color == "keep" else data.color,
            "background": None if data.background == "refuse" else data.background,
        }

    def build_model(self, facts: DatasetInfo) -> "BaseVAE":
        """Build the model, untrained and not compiled.

        Args:
            facts: What is known of the data.

        Raises:
            InputError: The parts do not fit together, or a part is unknown.
        """
        import keras

        from keras_vae.components.schedules import in_steps
        from keras_vae.models.architectures import Components

        built = self._build_parts(facts)
        objective = in_steps(built["objective"], self.steps(facts))
        chosen = {kind: built[kind] for kind in built["architecture"].default_components}
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self._precision)
        try:
            return built["architecture"](
                facts.image_shape, Components(built["likelihood"], objective, built["condition"], chosen), self.seed
            )
        finally:
            keras.config.set_dtype_policy(policy)

    @property
    def _precision(self) -> Literal["float32", "mixed_bfloat16"]:
        """The precision, `"auto"` decided by the hardware and the backend."""
        if self.training.precision != "auto":
            return self.training.precision
        from keras_vae.core import backend

        return backend.preferred_precision()

    def build_schedule(self, facts: DatasetInfo) -> "Schedule":
        """Build the learning rate's schedule, in steps.

        Args:
            facts: What is known of the data.
        """
        from keras_vae.components.schedules import in_steps
        from keras_vae.core import registry

        return in_steps(registry.build("schedule", self.training.schedule), self.steps(facts))

    def steps(self, facts: DatasetInfo) -> int:
        """Return the number of steps of the whole training.

        Args:
            facts: What is known of the data.
        """
        return self.training.epochs * math.ceil(facts.images / self.training.batch_size)

    def _build_parts(self, facts: DatasetInfo) -> dict[str, Any]:
        """Return every part of the model by kind, numbers as they are, and the schedule."""
        from keras_vae.core import registry
        from keras_vae.models import registration  # noqa: F401

        architecture = registry.build("architecture", self.model.architecture)
        given = self.model.model_dump(exclude_none=True)
        for kind in ("latent_dim", "network", "prior", "posterior"):
            if kind in given and kind not in architecture.default_components:
                raise InputError(
                    f"model.{kind} = {_named(given[kind])}: architecture = {_named(self.model.architecture)} has its "
                    f"own; leave {kind} out, or take architecture = vae"
                )
        specs = {**architecture.default_components, **given, "schedule": self.training.schedule}
        # The tutorials' mean over latent dimensions, which must follow when their number is changed.
        if specs["objective"].get("beta") == "1/latent_dim":
            specs["objective"] = specs["objective"] | {"beta": 1 / specs.get("latent_dim", 1)}
        if specs.get("condition", {}).get("name") == "label" and facts.classes == 0:
            raise InputError(
                f"model.condition = label: the images of {self.data.source} have no labels; sub-folders of images give "
                "them, and `y_train` in a .npz"
            )
        for (kind, name), (argument, fact) in _FROM_DATA.items():
            if specs.get(kind, {}).get("name") == name:
                specs[kind] = {argument: getattr(facts, fact)} | specs[kind]
        built = {kind: registry.build(kind, value) if kind in PARTS else value for kind, value in specs.items()}
        learned = specs.get("prior", {}).get("name", "standard-normal") != "standard-normal"
        if learned and not built["objective"].trains_prior:
            raise InputError(
                f"model.prior = {_named(specs['prior'])}: {built['objective']} leaves the prior as it is; take prior = "
                "standard-normal and fit one afterward with `vae fit-prior`, or an alpha below 1"
            )
        return {"condition": None, **built, "architecture": architecture}

    @classmethod
    def _validate(cls, tables: Mapping[str, Any], where: str) -> Self:
        try:
            return cls.model_validate(tables)
        except pydantic.ValidationError as error:
            raise _first_error(cls, error, where) from None


def preset_names() -> list[str]:
    """Return the names of the presets in the package, sorted."""
    folder = resources.files("keras_vae").joinpath("runs/presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _named(value: Any) -> str:
    return str(value["name"] if isinstance(value, dict) else value)


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _first_error(cls: type[pydantic.BaseModel], error: pydantic.ValidationError, where: str) -> InputError:
    first = error.errors()[0]
    keys = [key for key in first["loc"] if isinstance(key, str)]
    if first["type"] != "extra_forbidden":
        fields = [key for key in keys if "[" not in key and key not in ("int", "float", "keep")]
        return InputError(f"{where}: {'.'.join(fields)} = {first['input']!r}: {first['msg'].lower()}")
    *outer, key = keys
    table: Any = cls
    for name in outer:
        table = table.model_fields[name].annotation
    place = f"key of [{'.'.join(outer)}]" if outer else "key"
    return InputError(f"{where}: {unknown(place, key, table.model_fields)}")

"""Experiments: everything that decides a training, as one validated object and one TOML file."""

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pydantic
import tomli_w
from pydantic import Field

from keras_vae.errors import InputError, unknown
from keras_vae.types import ImageShape

if TYPE_CHECKING:
    from keras_vae.data.convert import Progress
    from keras_vae.data.dataset import Splits
    from keras_vae.models.vae import VAE

PARTS = ("network", "prior", "likelihood", "objective")
"""The parts of `[model]`, by kind."""

FORMAT = 1
"""The version of experiment files and run folders that this package writes, and the newest that it reads."""


def _spec(value: Any) -> Any:  # noqa: ANN401
    spec = {"name": value} if isinstance(value, str) else value
    if isinstance(spec, dict) and not isinstance(spec.get("name"), str):
        raise ValueError("give a short name, or a table with one under `name`")
    return spec


Spec = Annotated[dict[str, Any], pydantic.BeforeValidator(_spec)]
"""A part: its short name and the arguments of its constructor; the name alone stands for its defaults."""


class Table(pydantic.BaseModel):
    """A table of the file: immutable, of the stated types, without other keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Table):
    """`[data]`: the images, and which of them are held out.

    Args:
        source: `mnist`, `fashion_mnist`, `digits`, or a path to a .npz, a .npy or a folder of images.
        image_size: [height, width] to resize to, or `"keep"`.
        color: `"grey"`, `"rgb"`, or `"keep"`.
        background: A colour to lay under transparent pixels, or `"refuse"`.
        validation: Images held out of training and measured every epoch: how many, or a fraction below 1.
        test: Images held out and measured once, the same way; only where the source has no test split of its own.
        holdout: False trains on everything, test split included, so that no number is a held-out one.
    """

    source: str = "mnist"
    image_size: list[Annotated[int, Field(ge=1)]] | Literal["keep"] = "keep"
    color: Literal["grey", "rgb", "keep"] = "keep"
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


class Model(Table):
    """`[model]`: the parts of the autoencoder, each a short name or a table with `name` and arguments."""

    latent_dim: Annotated[int, Field(ge=1)] = 2
    network: Spec = {"name": "conv"}
    prior: Spec = {"name": "standard-normal"}
    likelihood: Spec = {"name": "bernoulli"}
    objective: Spec = {"name": "elbo"}


class Training(Table):
    """`[training]`: how the model is fitted.

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step.
        optimizer: A Keras optimizer by name.
        learning_rate: Its step size.
        precision: `"float32"`, or `"mixed_bfloat16"`: networks compute in bfloat16; z, losses and weights stay float32.
        ema_window: The steps over which an exponential moving average of the weights reaches, as a fraction of all
            steps; the average is then what is measured and kept. 0 keeps the weights themselves.
        keep: Which weights the run keeps: of the `"last"` epoch, or of the `"best"` validation `negative_elbo`.
    """

    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=1)] = 128
    optimizer: str = "adam"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    ema_window: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep: Literal["last", "best"] = "last"


class Experiment(Table):
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
        >>> Experiment.preset("classic").with_settings(["training.epochs=5"]).training.epochs
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
        return cls.from_toml(resources.files("keras_vae").joinpath(f"presets/{name}.toml").read_text("utf-8"), name)

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
        return tomli_w.dumps(self.model_dump())

    def with_settings(self, settings: Iterable[str]) -> Self:
        """Return the experiment with some values replaced.

        Args:
            settings: Lines `key=value`, the key dotted (`model.objective.beta=4`), the value as TOML has it; a value
                that is not TOML is taken as text.

        Raises:
            InputError: A line has another form, or its key or value is refused.
        """
        tables = self.model_dump()
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
                        "table in --set", step, [name for name, value in table.items() if isinstance(value, dict)]
                    )
                table = table[step]
            table[last] = _parse_value(text.strip())
        return self._validate(tables, "--set")

    def resolved(self) -> Self:
        """Return the experiment with every default of every part written out.

        Raises:
            InputError: A part or one of its arguments is unknown, or a value is refused.
        """
        from keras_vae import parts

        described = {kind: parts.spec(kind, part) for kind, part in self._build_parts().items()}
        return self.model_copy(update={"model": self.model.model_copy(update=described)})

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
        from keras_vae.data import dataset, sources

        data = self.data
        loaded = sources.load(
            data.source,
            image_size=None if data.image_size == "keep" else (data.image_size[0], data.image_size[1]),
            color=None if data.color == "keep" else data.color,
            background=None if data.background == "refuse" else data.background,
            progress=track,
        )
        splits = dataset.split(
            loaded.train,
            loaded.test,
            validation=data.validation,
            test_size=data.test,
            holdout=data.holdout,
            seed=self.seed,
        )
        return splits, loaded.notes

    def build_model(self, image_shape: ImageShape) -> "VAE":
        """Build the model for images of a shape, untrained and not compiled.

        Args:
            image_shape: (H, W, C).

        Raises:
            InputError: The parts do not fit together, or a part is unknown.
        """
        import keras

        from keras_vae.models.vae import VAE

        built = self._build_parts()
        network, likelihood = built["network"], built["likelihood"]
        height, width, channels = image_shape
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.training.precision)
        try:
            return VAE(
                network.encoder(image_shape, self.model.latent_dim),
                network.decoder(self.model.latent_dim, (height, width, likelihood.decoder_channels(channels))),
                prior=built["prior"],
                likelihood=likelihood,
                objective=built["objective"],
                seed=self.seed,
            )
        finally:
            keras.config.set_dtype_policy(policy)

    def _build_parts(self) -> dict[str, Any]:
        import keras_vae.models.vae  # noqa: F401  registers every part
        from keras_vae import parts

        specs = {kind: getattr(self.model, kind) for kind in PARTS}
        # The tutorials' mean over latent dimensions, which must follow when their number is changed.
        if specs["objective"].get("beta") == "1/latent_dim":
            specs["objective"] = specs["objective"] | {"beta": 1 / self.model.latent_dim}
        return {kind: parts.build(kind, spec) for kind, spec in specs.items()}

    @classmethod
    def _validate(cls, tables: Mapping[str, Any], where: str) -> Self:
        try:
            return cls.model_validate(tables)
        except pydantic.ValidationError as error:
            raise _first_error(cls, error, where) from None


def preset_names() -> list[str]:
    """Return the names of the presets in the package, sorted."""
    folder = resources.files("keras_vae").joinpath("presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _parse_value(text: str) -> Any:  # noqa: ANN401
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
    place = f"key in [{'.'.join(outer)}]" if outer else "key"
    return InputError(f"{where}: {unknown(place, key, table.model_fields)}")

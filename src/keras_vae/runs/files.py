"""Reading and writing of the files of a run (JSON, metrics, arrays), and unused names of run folders."""

import csv
import io
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
from pydantic import Field

from keras_vae.core.archives import read_npz
from keras_vae.core.config import ConfigModel
from keras_vae.core.errors import InputError, alternatives, suggestion
from keras_vae.core.files import reading, replacing, replacing_folder, write_text, writing
from keras_vae.core.locks import locked
from keras_vae.core.typing import Array

Metrics = dict[str, list[float]]
"""Columns by name, with one value per epoch."""

MONITORED = "val_total_loss"
"""The column that determines the best epoch: the objective without annealing, on the validation images."""

Sections = Mapping[str, Mapping[str, Array]]
"""Arrays by section and name."""


PRETRAINED = Path(__file__).resolve().parent / "pretrained"
"""The folder of the pretrained runs."""

_COPY_TIMEOUT = 60
"""Seconds to wait while another process copies a folder."""


class _Saved(ConfigModel):
    """A table that a run may extend."""

    model_config = pydantic.ConfigDict(extra="ignore")


class _Images(_Saved):
    """Numbers of images."""

    train: Annotated[int, Field(ge=1)]


class _Data(_Saved):
    """The images of a run, as `environment.json` describes them."""

    name: str
    image_shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)]
    images: _Images
    classes: Annotated[int, Field(ge=0)]
    class_names: list[str]
    checksum: str


class _Environment(_Saved):
    """The content of `environment.json` on which the package depends."""

    versions: dict[str, str]
    backend: str
    num_devices: Annotated[int, Field(ge=1)] = 1
    num_processes: Annotated[int, Field(ge=1)] = 1
    data: _Data
    parameters: dict[str, int] = Field({})
    code: list[str] = Field([])


def create_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a new folder, given the content of each file by its path in the folder.

    Raises:
        InputError: The folder exists.
    """
    with replacing_folder(path, replace=False) as folder:
        for name, content in contents.items():
            file = folder / name
            with writing(path / name):
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)


def copy_once(source: Path, path: Path) -> None:
    """Copy the files of a folder to a new folder, unless it exists; wait if another process does so."""
    with locked(path, timeout=_COPY_TIMEOUT):
        if not path.exists():
            with replacing_folder(path) as folder:
                for file in source.iterdir():
                    # Do not copy permissions: a package may be installed read-only.
                    with writing(path / file.name):
                        shutil.copyfile(file, folder / file.name)


def describe_parameters(counts: Mapping[str, int]) -> str:
    """Return a line with the numbers of trainable parameters of a model and of its image losses.

    Example:
        >>> describe_parameters({"model": 69076, "adversarial": 2304})
        'model 69,076 · loss adversarial 2,304'
    """
    return " · ".join(f"{name if name == 'model' else f'loss {name}'} {count:,}" for name, count in counts.items())


def read_environment(file: Path) -> dict[str, Any]:
    """Return the content of `environment.json`.

    Raises:
        InputError: The file is missing or damaged.
    """
    content = read_json(file)
    if content is None:
        raise InputError(f"{file}: missing; restore the file")
    _Environment.from_tables(content, str(file))
    return content


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, or None if there is no such file.

    Raises:
        InputError: The file is damaged.
    """
    if not file.exists():
        return None
    with reading(file):
        content = json.loads(file.read_text("utf-8"))
        if not isinstance(content, dict):
            raise InputError(f"contains a {type(content).__name__}, not an object; restore the file")
    return content


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    write_text(file, format_json(content))


def format_json(content: Mapping[str, Any]) -> str:
    """Return the text of a JSON file."""
    return json.dumps(content, indent=2) + "\n"


def read_metrics(file: Path) -> Metrics:
    """Return the columns of a CSV file, or an empty dict if there is no such file."""
    if not file.exists():
        return {}
    with reading(file):
        rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
        return {column: [float(row[column]) for row in rows] for column in (rows[0] if rows else ())}


def write_metrics(file: Path, metrics: Mapping[str, Sequence[float]]) -> None:
    """Write columns of equal length to a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(metrics)
    writer.writerows(zip(*metrics.values(), strict=True))
    write_text(file, text.getvalue())


def read_sections(file: Path) -> Sections:
    """Return arrays by section and name, or an empty dict if there is no such file."""
    sections: dict[str, dict[str, Array]] = {}
    for path, array in (read_npz(file) if file.exists() else {}).items():
        section, _, name = path.partition("/")
        sections.setdefault(section, {})[name] = array
    return sections


def write_sections(file: Path, sections: Sections) -> None:
    """Write arrays by section and name to one compressed file; without any arrays, remove it."""
    arrays = {f"{section}/{name}": array for section, values in sections.items() for name, array in values.items()}
    if not arrays:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def evaluation_name(on: str | None, suffix: str = "json") -> str:
    """Return the name of the file of an evaluation; `on` names the images, if they are not the run's own."""
    return f"evaluation.{suffix}" if on is None else f"evaluation-{on}.{suffix}"


def free_path(name: str) -> Path:
    """Return the first of `runs/NAME`, `runs/NAME-2`, … that does not exist."""
    paths = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def find_run(name: str | Path) -> Path:
    """Return the folder of a run, given its path or the name of a pretrained run; a folder takes precedence.

    Raises:
        InputError: There is no such run.
    """
    if not isinstance(name, str | Path):
        raise InputError(f"run = {name!r}: neither a run, a folder nor a pretrained run's name; pass one of these")
    path = Path(name).expanduser()
    if not path.exists():
        if str(path) not in pretrained_names():
            hint = suggestion(str(path), [*pretrained_names(), *run_paths()])
            raise InputError(
                f"run = {path}: does not exist; {hint}train a run with `vae train`, or use a pretrained one: "
                f"{alternatives(pretrained_names())}"
            )
        path = PRETRAINED / path
    for file in ("experiment.toml", "environment.json"):
        if not (path / file).is_file():
            raise InputError(f"run = {path}: not a run folder ({file} is missing); pass another folder")
    return path


def pretrained_names() -> list[str]:
    """Return the names of the pretrained runs, sorted."""
    return sorted(file.parent.name for file in PRETRAINED.glob("*/experiment.toml"))


def run_paths() -> list[str]:
    """Return the paths of the runs in `runs/`, sorted."""
    return sorted(str(file.parent) for file in Path("runs").glob("*/experiment.toml"))

"""The run folder: what is in it, and how it is written and read.

    experiment.toml   every default written out, seed included
    environment.json  versions, backend, devices, git revision, the data's checksum and split
    metrics.csv       one row an epoch
    checkpoint/       what `--resume` needs; gone when the training is complete
    model.keras       the kept weights, once the training is complete
    fitted.keras      the same model with a prior fitted to its codes, where `vae fit-prior` made one
    evaluation.json   figures/*.png   report.html

Every file is replaced whole. A kill at any moment leaves a run that resumes, or one that is complete.

Two complete runs come with the package, under `pretrained/`, and are opened by their names. Nothing is written into
them: `Run.writable_copy` returns a copy. `images.npz` in each holds some of its test images.
"""

import csv
import hashlib
import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vae.core.errors import InputError, first_line
from keras_vae.core.files import reading, replacing, replacing_folder, write_text
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.data.sources import SOURCES
from keras_vae.runs.experiment import DatasetInfo, Experiment

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

SCHEMA = 2
"""The version of `evaluation.json`'s keys."""

Metrics = dict[str, list[float]]
"""Column → one value an epoch."""

_SHIPPED = Path(__file__).resolve().parent / "pretrained"


@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        path: Where it is.

    Example:
        >>> Run(Path("runs/nowhere")).is_complete
        False
    """

    path: Path

    @classmethod
    def create(cls, path: Path, experiment: Experiment, environment: Mapping[str, Any]) -> "Run":
        """Make a new run folder.

        Args:
            path: Where; nothing may be there yet.
            experiment: What it will hold, resolved.
            environment: What it is made with.

        Raises:
            InputError: Something is there already.
        """
        if path.exists():
            raise InputError(f"{path} exists: choose another --out, or continue it with `vae train --resume {path}`")
        with replacing_folder(path) as unfinished:
            write_text(unfinished / "experiment.toml", experiment.to_toml())
            write_text(unfinished / "environment.json", json.dumps(environment, indent=2) + "\n")
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run folder, or a run that comes with the package.

        Args:
            path: Where it is, or a name of `pretrained_names`; a folder of that name wins.

        Raises:
            InputError: There is none, or a newer version made it.

        Example:
            >>> Run.open("mnist-2d").experiment.model.latent_dim
            2
        """
        path = Path(path).expanduser()
        if not path.exists():
            if str(path) not in pretrained_names():
                raise InputError(
                    f"no run at {path}: `vae train` makes one; with the package come {' and '.join(pretrained_names())}"
                )
            path = _SHIPPED / path
        run = cls(path)
        for file in (run._experiment_file, path / "environment.json"):
            if not file.is_file():
                raise InputError(f"{path} is not a run folder: it holds no {file.name}")
        _ = run.experiment
        if not {"versions", "backend", "data"} <= run.environment.keys():
            raise InputError(f"{path / 'environment.json'} is damaged: it does not say what the run was made with")
        return run

    def writable_copy(self) -> "Run":
        """Return a run to write into: this one, or of one that comes with the package its copy in `runs/`.

        Raises:
            InputError: Another run stands where the copy would.
        """
        if not self._is_shipped:
            return self
        copy = Run(Path("runs") / self.name)
        if not copy.path.exists():
            with replacing_folder(copy.path) as folder:
                for file in self.path.iterdir():
                    # Not its permissions: a package may be installed read-only.
                    shutil.copyfile(file, folder / file.name)
        elif not (copy.is_complete and copy.model_fingerprint("original") == self.model_fingerprint("original")):
            raise InputError(
                f"{self.name} comes with the package, and {copy.path}, where its copy to write into would be, is "
                f"something else: move that away, or name it by its path if it is the one that you mean"
            )
        return copy

    def check_complete(self) -> None:
        """Refuse a run whose training is to go on.

        Raises:
            InputError: It is unfinished.
        """
        if not self.is_complete:
            raise InputError(f"{self.path} is unfinished: go on with `vae train --resume {self.path}` first")

    def check_data(self) -> None:
        """Refuse to go on where the file or folder that the run was trained on is gone.

        Raises:
            InputError: It is.
        """
        source = self.experiment.data.source
        if source not in SOURCES and not Path(source).expanduser().exists():
            raise InputError(
                f"{self.path} was trained on {source}, which is gone: put it back, or write where it is now into "
                f"{self._experiment_file} (data.source)"
            )

    def check_images(self, splits: Splits) -> None:
        """Refuse images other than those that the run was begun with.

        Args:
            splits: The images.

        Raises:
            InputError: Their checksums differ.
        """
        now, then = splits.checksum, self.environment["data"]["checksum"]
        if now != then:
            raise InputError(
                f"the images of {self.experiment.data.source} are not those that {self.path} was begun with "
                f"(checksum {now[:12]}, then {then[:12]})"
            )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def experiment(self) -> Experiment:
        """What was asked for."""
        return Experiment.from_file(self._experiment_file)

    @property
    def environment(self) -> dict[str, Any]:
        """What it was made with."""
        return self._read_json("environment.json") or {}

    @property
    def metrics(self) -> Metrics:
        """`metrics.csv` by column; empty before the first epoch ends."""
        file = self.path / "metrics.csv"
        if not file.exists():
            return {}
        with reading(file):
            rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
            return {column: [float(row[column]) for row in rows] for column in (rows[0] if rows else ())}

    def write_metrics(self, metrics: Mapping[str, Sequence[float]]) -> None:
        """Write `metrics.csv`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(metrics)
        writer.writerows(zip(*metrics.values(), strict=True))
        write_text(self._to_write("metrics.csv"), text.getvalue())

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """`evaluation.json`, or None where there is none yet."""
        return self.read_evaluation()

    def read_evaluation(self, on: str | None = None) -> dict[str, Any] | None:
        """Return an evaluation, or None where there is none yet.

        Args:
            on: The name of other images than the run's own.
        """
        return self._read_json(_evaluation_file(on))

    def write_evaluation(self, evaluation: Mapping[str, Any], on: str | None = None) -> Path:
        """Write `evaluation.json`, or of other images than the run's own `evaluation-NAME.json`, and return where."""
        file = self._to_write(_evaluation_file(on))
        write_text(file, json.dumps(evaluation, indent=2) + "\n")
        return file

    def model_fingerprint(self, prior: str | None = None) -> dict[str, str]:
        """Return which model `load_model` loads from a complete run: its prior, and the checksum of its weights."""
        fitted = prior != "original" and self.has_fitted_prior
        # What Keras puts beside the weights differs each time: the time of saving, and addresses in memory.
        with zipfile.ZipFile(self._fitted_file if fitted else self._model_file) as archive:
            digest = hashlib.sha256(archive.read("model.weights.h5"))
        return {"prior": "fitted" if fitted else "original", "checksum": digest.hexdigest()}

    def write_report(self, html: str) -> None:
        """Write `report.html`."""
        write_text(self._to_write("report.html"), html)

    def figure_path(self, name: str) -> Path:
        """Return where the figure of that name lies, in a folder that exists."""
        folder = self._to_write("figures")
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.png"

    @property
    def is_complete(self) -> bool:
        """Whether the training and everything after it is done."""
        return self._model_file.is_file() and not self._checkpoint_file.is_file()

    def load_model(self, prior: str | None = None) -> "BaseVAE":
        """Load the trained model; of an unfinished training, what the last completed epoch left.

        Args:
            prior: `"original"`, the prior that it was trained with; `"fitted"`, the one fitted to its codes later;
                None takes the fitted one where there is one.

        Returns:
            The model.

        Raises:
            InputError: No epoch is complete yet, a file is damaged or asks to run code, or no prior was fitted.
        """
        if prior == "fitted" and not self.has_fitted_prior:
            raise InputError(f"prior = 'fitted': {self.path} has none; `vae fit-prior {self.path}` makes one")
        if prior != "original" and self.has_fitted_prior:
            return load_model(self._fitted_file)
        if self._model_file.is_file():
            return load_model(self._model_file)
        checkpoint = self.read_checkpoint()
        if checkpoint is None:
            raise InputError(f"{self.path} holds no model yet: go on with `vae train --resume {self.path}`")
        data = self.environment["data"]
        height, width, channels = data["image_shape"]
        model = self.experiment.build_model(
            DatasetInfo((height, width, channels), data["images"]["train"], data["classes"])
        )
        model.set_weights(checkpoint[0]["weights"])
        return model

    def save_model(self, model: "BaseVAE", *, fitted: bool = False) -> None:
        """Write `model.keras`, or, of a model whose prior was fitted later, `fitted.keras`."""
        with replacing(self._to_write((self._fitted_file if fitted else self._model_file).name)) as temporary:
            model.save(temporary)

    @property
    def has_fitted_prior(self) -> bool:
        """Whether a prior was fitted to the codes of the trained model."""
        return self._fitted_file.is_file()

    def write_checkpoint(self, state: Mapping[str, Sequence[Array]], metrics: Mapping[str, Sequence[float]]) -> None:
        """Write everything from which the training goes on, as one file.

        Args:
            state: The arrays of the model and its optimizer, in groups.
            metrics: The columns of `metrics.csv` so far.
        """
        arrays = {f"{group}/{index}": array for group, values in state.items() for index, array in enumerate(values)}
        self._checkpoint_file.parent.mkdir(exist_ok=True)
        with replacing(self._checkpoint_file) as temporary:
            np.savez(temporary, allow_pickle=False, metrics=np.array(json.dumps(metrics)), **arrays)
        self.write_metrics(metrics)

    def read_checkpoint(self) -> tuple[dict[str, list[Array]], Metrics] | None:
        """Return the state and the metrics last written, or None before the first epoch has ended."""
        if not self._checkpoint_file.is_file():
            return None
        state: dict[str, list[Array]] = {}
        with (
            reading(self._checkpoint_file),
            self._checkpoint_file.open("rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            metrics: Metrics = json.loads(str(archive["metrics"]))
            # An archive keeps the order in which its arrays were written.
            for name in archive.files:
                if name != "metrics":
                    state.setdefault(name.partition("/")[0], []).append(archive[name])
        return state, metrics

    def remove_checkpoint(self) -> None:
        """Mark the run complete, and clear away what a kill in the middle of a write left half written."""
        for leftover in self.path.rglob(".*.part*"):
            leftover.unlink()
        shutil.rmtree(self._checkpoint_file.parent, ignore_errors=True)

    @property
    def _is_shipped(self) -> bool:
        return self.path.resolve().parent == _SHIPPED

    def _to_write(self, name: str) -> Path:
        """Return the path of a file of the run that is about to be written."""
        if self._is_shipped:
            raise InputError(f"{self.name} comes with the package and stays as it is: write into Run.writable_copy()")
        return self.path / name

    @property
    def _experiment_file(self) -> Path:
        return self.path / "experiment.toml"

    @property
    def _model_file(self) -> Path:
        return self.path / "model.keras"

    @property
    def _fitted_file(self) -> Path:
        return self.path / "fitted.keras"

    @property
    def _checkpoint_file(self) -> Path:
        return self.path / "checkpoint" / "state.npz"

    def _read_json(self, name: str) -> dict[str, Any] | None:
        file = self.path / name
        if not file.exists():
            return None
        with reading(file):
            content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return content


def pretrained_names() -> list[str]:
    """Return the names of the runs that come with the package, sorted."""
    return sorted(file.parent.name for file in _SHIPPED.glob("*/experiment.toml"))


def _evaluation_file(on: str | None) -> str:
    return "evaluation.json" if on is None else f"evaluation-{on}.json"


def load(path: str | Path) -> "BaseVAE":
    """Load a trained model.

    Args:
        path: A run folder, a `.keras` file, or the name of a run that comes with the package.

    Returns:
        The model.

    Raises:
        InputError: There is none, or the file is damaged or asks to run code.

    Example:
        >>> load("mnist-2d").sample(4, seed=0).shape
        (4, 28, 28, 1)
    """
    path = Path(path).expanduser()
    return load_model(path) if path.is_file() else Run.open(path).load_model()


def load_model(file: Path) -> "BaseVAE":
    """Load a `.keras` file, refusing one that would run code.

    Args:
        file: Where it is.

    Raises:
        InputError: The file is damaged, asks to run code, or holds no VAE.
    """
    import keras

    from keras_vae.models.registration import BaseVAE

    if not zipfile.is_zipfile(file):
        raise InputError(f"{file} is damaged: it is not the zip archive that a .keras file is")
    try:
        with warnings.catch_warnings():
            # A file that JAX wrote asks for XLA, which TensorFlow does without on a CPU.
            warnings.filterwarnings("ignore", "Model doesn't support `jit_compile=True`")
            model = keras.saving.load_model(file, safe_mode=True)
    except (ValueError, TypeError) as error:
        text = str(error)
        if "unsafe" in text or "safe_mode" in text or "lambda" in text.lower():
            raise InputError(f"{file} asks to run code of its own when it is loaded: refused") from None
        raise InputError(f"{file} cannot be loaded: {first_line(error)}") from None
    except Exception as error:
        # Whatever a damaged archive makes the libraries stumble over.
        raise InputError(f"{file} is damaged: {first_line(error)}") from None
    if not isinstance(model, BaseVAE):
        raise InputError(f"{file} holds a {type(model).__name__}, not a VAE")
    return model

"""Run folders: reading and writing of their files, which `docs/architecture.md` lists.

Every file is replaced as a whole, and one process writes at a time (`Run.lock`). If the process is killed at any
moment, the run can be resumed or is complete. The runs in the package's folder `pretrained/` are read-only.
"""

import contextlib
import functools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import check_name, remove_unfinished, replacing, require_inside, to_path, write_text, writing
from keras_vae.core.locks import locked
from keras_vae.core.progress import Progress
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.config import DataConfig
from keras_vae.data.dataset import Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.runs import files
from keras_vae.runs.checkpoint import INITIAL, State, read_checkpoint, restored_model, write_checkpoint
from keras_vae.runs.evaluation_file import Evaluation, read_evaluation
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import PRETRAINED, Metrics, Sections
from keras_vae.runs.model_file import read_model, weights_checksum

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        path: The folder.

    Example:
        >>> Run("runs/nowhere"), Run("runs/nowhere").is_complete
        (Run('runs/nowhere'), False)
    """

    path: Path

    def __post_init__(self) -> None:
        """Accept the path as a string."""
        object.__setattr__(self, "path", Path(self.path))

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(
        cls,
        path: Path,
        experiment: Experiment,
        environment: Mapping[str, Any],
        code: Mapping[str, bytes] | None = None,
        initial: bytes | None = None,
    ) -> "Run":
        """Create a run folder.

        Args:
            path: The folder; it must not exist.
            experiment: The experiment, with all defaults resolved.
            environment: Description of the software, the machine and the data.
            code: The user's own Python files by name, in the order in which they are imported.
            initial: The `.keras` file of the model from whose weights training starts, if any.

        Raises:
            InputError: The folder exists.
        """
        if path.exists():
            raise InputError(
                f"out = {path}: exists; choose another folder, or continue this run with `vae train --resume {path}`"
            )
        if code:
            environment = {**environment, "code": list(code)}
        texts = {"experiment.toml": experiment.to_toml(), "environment.json": files.format_json(environment)}
        contents = {name: text.encode() for name, text in texts.items()}
        contents |= {} if initial is None else {f"checkpoint/{INITIAL}": initial}
        files.create_folder(path, contents | {f"code/{name}": content for name, content in (code or {}).items()})
        return cls(path)

    @classmethod
    def open(cls, source: "Run | str | Path") -> "Run":
        """Open a run folder or a pretrained run.

        No code of the run is executed; see `Run.import_code`.

        Args:
            source: The folder, or the name of a pretrained run; a folder of that name takes precedence. A `Run` is
                returned unchanged.

        Raises:
            InputError: There is no such run, it is damaged, or a newer version wrote it.

        Example:
            >>> Run.open("mnist-2d").experiment.model.latent_dim
            2
        """
        if isinstance(source, Run):
            return source
        run = cls(files.find_run(source))
        _ = run.experiment, run.environment
        return run

    @contextlib.contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Lock the run while a block writes to it. Reading needs no lock. A thread may lock a run repeatedly.

        Args:
            timeout: Seconds to wait for another process.

        Raises:
            InputError: The run is pretrained.
            RunError: Another process writes to the run, or the folder is read-only.
        """
        self.path_to_write(".lock")
        with locked(self.path, argument="run", inside=True, timeout=timeout):
            remove_unfinished(self.path)
            yield

    def writable_copy(self) -> "Run":
        """Return this run, or a copy in `runs/` if it is a pretrained run; an existing copy is used again.

        Raises:
            InputError: The folder of the copy contains something else.
        """
        if not self.is_pretrained:
            return self
        copy = Run(Path("runs") / self.name)
        files.copy_once(self.path, copy.path)
        if not (copy.is_complete and copy.model_fingerprint("original") == self.model_fingerprint("original")):
            raise InputError(
                f"run = {self.name}: read-only, and the folder of its copy, {copy.path}, contains something else; "
                f"move that folder, or pass its path if you mean the run in it"
            )
        return copy

    def path_to_write(self, name: str) -> Path:
        """Return the path of a file or folder of the run that may be written.

        Raises:
            InputError: The run is pretrained, or the path leads out of it.
            RunError: The run was deleted.
        """
        if self.is_pretrained:
            raise InputError(f"run = {self.name}: pretrained runs are read-only; write to Run.writable_copy()")
        if not self.path.is_dir():
            raise RunError(f"run = {self.path}: was deleted or moved by another process; restore it, or train again")
        path = self.path / name
        require_inside(path.parent if path.is_file() else path, self.path)
        return path

    def require_complete(self) -> None:
        """Raise an `InputError` if training is unfinished."""
        if not self.is_complete:
            raise InputError(
                f"run = {self.path}: training is unfinished; complete it with `vae train --resume {self.path}`"
            )

    def require_source(self) -> None:
        """Raise an `InputError` if the training images were moved or deleted."""
        source = self.experiment.data.source
        if source not in sources.SOURCES and not to_path(source).exists():
            missing = f"do not exist any more; restore them, or set data.source in {self._experiment_file}"
            if self.is_pretrained:
                missing = "are not a part of the package; repeat this in the folder of the file"
            raise InputError(f"run = {self.path}: its training images, {source}, {missing}")

    def require_same_images(self, splits: Splits) -> None:
        """Raise an `InputError` if images differ from those on which the run was trained."""
        actual, expected = splits.checksum, self.environment["data"]["checksum"]
        if actual != expected:
            raise InputError(
                f"data = {self.experiment.data.source}: not the images on which {self.path} was trained "
                f"(checksum {actual[:12]} instead of {expected[:12]}); restore the original images"
            )

    @property
    def data(self) -> DataConfig:
        """The `[data]` table of the run; `"auto"` is `"memory"`, because training records `"stream"`."""
        data = self.experiment.data
        return data.model_copy(update={"load": "memory"}) if data.load == "auto" else data

    def load_splits(self, progress: Progress | None = None) -> Splits:
        """Load the training images and the held-out images of the run.

        Args:
            progress: Reports the progress of downloading, reading and converting.

        Raises:
            InputError: The images do not exist any more, or have changed.
            RunError: A download fails.
        """
        self.require_source()
        splits, _ = sources.load_splits(self.data, self.experiment.seed, progress)
        self.require_same_images(splits)
        return splits

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The experiment, with all defaults resolved."""
        return Experiment.from_file(self._experiment_file)

    @property
    def environment(self) -> dict[str, Any]:
        """Description of the software, the machine and the data of the training."""
        return files.read_environment(self.path / "environment.json")

    @property
    def info(self) -> DatasetInfo:
        """Properties of the training images that determine the shape of the model."""
        data = self.environment["data"]
        height, width, channels = data["image_shape"]
        return DatasetInfo(
            (height, width, channels), data["images"]["train"], data["classes"], tuple(data["class_names"])
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of the training images; empty without labels."""
        return self.info.class_names if self.info.classes else ()

    @property
    def metrics(self) -> Metrics:
        """The columns of `metrics.csv`; empty before the end of the first epoch."""
        return files.read_metrics(self.path / "metrics.csv")

    def write_metrics(self, metrics: Mapping[str, Sequence[float]]) -> None:
        """Write `metrics.csv`."""
        files.write_metrics(self.path_to_write("metrics.csv"), metrics)

    @property
    def evaluation(self) -> Evaluation | None:
        """The content of `evaluation.json`, if any."""
        return self.read_evaluation()

    def read_evaluation(self, on: str | None = None) -> Evaluation | None:
        """Return an evaluation, if any; `on` names the evaluated images, if they are not the run's own."""
        return read_evaluation(self.path / files.evaluation_name(on))

    def write_evaluation(
        self, evaluation: Mapping[str, Any], on: str | None = None, per_image: Sections | None = None
    ) -> None:
        """Write `evaluation.json` and `evaluation.npz`, or `evaluation-NAME.…` for other images (`on`)."""
        # If the process is killed in between, the checksums in the JSON file do not match.
        files.write_sections(self.path_to_write(files.evaluation_name(on, "npz")), per_image or {})
        files.write_json(self.path_to_write(files.evaluation_name(on)), evaluation)

    def read_per_image(self, on: str | None = None) -> Sections:
        """Return the per-image values of an evaluation by section and name, if any; `load_per_image` checks them."""
        return files.read_sections(self.path / files.evaluation_name(on, "npz"))

    def model_fingerprint(self, prior: str | None = None) -> dict[str, str]:
        """Return the prior and the checksum of the weights of the model that `load_model(prior)` loads."""
        fitted = prior != "original" and self.has_fitted_prior
        checksum = weights_checksum(self._fitted_file if fitted else self._model_file)
        return {"prior": "fitted" if fitted else "original", "checksum": checksum}

    @property
    def has_report(self) -> bool:
        """Whether `report.html` was written."""
        return (self.path / "report.html").is_file()

    def write_report(self, html: str) -> Path:
        """Write `report.html`, and return its path."""
        file = self.path_to_write("report.html")
        write_text(file, html)
        return file

    def figure_path(self, name: str) -> Path:
        """Return the path of a figure, and create its folder if necessary."""
        check_name("figure", name)
        folder = self.path_to_write("figures")
        with writing(folder):
            folder.mkdir(exist_ok=True)
        return folder / f"{name}.png"

    @property
    def is_pretrained(self) -> bool:
        """Whether the run belongs to the package, and is therefore read-only."""
        return self.path.resolve().parent == PRETRAINED

    @property
    def is_complete(self) -> bool:
        """Whether training is complete."""
        return self._model_file.is_file() and not self.checkpoint_file.is_file()

    def import_code(self, *, trusted: bool = False) -> None:
        """Import the Python files in the run, which register components of the user.

        They are executed only if this user has imported files with the same content before. `load_model` calls this.

        Args:
            trusted: Whether to allow the execution of the files, now and later. Read them first.

        Raises:
            InputError: A file is missing or not trusted, or raises an exception.
        """
        names = self.environment.get("code", [])
        if names:
            from keras_vae.runs import user_code

            user_code.import_kept(self.path / "code", names, trusted=trusted)

    def load_model(self, prior: str | None = None) -> "BaseVAE":
        """Load the trained model, or, while training is unfinished, the model after the last completed epoch.

        Args:
            prior: `"original"` for the prior of the training, `"fitted"` for the one fitted to its codes later; None
                uses the fitted prior if there is one.

        Returns:
            The model.

        Raises:
            InputError: No epoch is complete, a file is damaged or contains code, the run's Python files are not
                trusted, or no prior was fitted.
        """
        if prior == "fitted" and not self.has_fitted_prior:
            raise InputError(
                f"prior = 'fitted': {self.path} has no fitted prior; fit one with `vae fit-prior {self.path}`"
            )
        self.import_code()
        if prior != "original" and self.has_fitted_prior:
            return read_model(self._fitted_file)
        if self._model_file.is_file():
            return read_model(self._model_file)
        checkpoint = self.read_checkpoint()
        if checkpoint is None:
            raise InputError(f"run = {self.path}: no epoch is complete; continue with `vae train --resume {self.path}`")
        return restored_model(self.checkpoint_file, checkpoint[0], self.experiment, self.info)

    def save_model(self, model: "BaseVAE", *, fitted: bool = False) -> None:
        """Write `model.keras`, or `fitted.keras` for a model whose prior was fitted after training."""
        file = self.path_to_write((self._fitted_file if fitted else self._model_file).name)
        with replacing(file) as temporary:
            model.save(temporary)

    @property
    def has_fitted_prior(self) -> bool:
        """Whether a prior was fitted to the codes of the trained model."""
        return self._fitted_file.is_file()

    def write_checkpoint(self, state: State, metrics: Mapping[str, Sequence[float]]) -> None:
        """Write the state from which training resumes, groups of arrays, and the columns of `metrics.csv` so far."""
        self.path_to_write("checkpoint")
        write_checkpoint(self.checkpoint_file, state, metrics)
        self.write_metrics(metrics)

    def read_checkpoint(self) -> tuple[dict[str, list[Array]], Metrics] | None:
        """Return the latest state and metrics, or None if no epoch was completed.

        Raises:
            InputError: The checkpoint is damaged or missing.
        """
        checkpoint = read_checkpoint(self.checkpoint_file)
        if checkpoint is None and (epochs := len(self.metrics.get("epoch", ()))):
            raise InputError(
                f"run = {self.path}: {epochs} epochs were completed, but their weights, checkpoint/state.npz, are "
                f"missing; restore the file, or train again with `vae train {self._experiment_file}`"
            )
        return checkpoint

    def complete(self, model: "BaseVAE") -> None:
        """Write `model.keras`, then remove the checkpoint and incomplete files of processes that were killed."""
        self.save_model(model)
        remove_unfinished(self.path)
        if (folder := self.checkpoint_file.parent).exists():
            with writing(folder):
                shutil.rmtree(folder)

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
    def checkpoint_file(self) -> Path:
        """The file of the state from which training resumes."""
        return self.path / "checkpoint" / "state.npz"

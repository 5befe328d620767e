"""Kills and full disks at every write: after a retry, the run is the same as without them.

Python reports each change of a file to its audit hooks, and a hook may refuse it. A kill is a refusal of that change
and of all later ones, so that neither `finally` nor `except` can repair anything, as if the process did not exist.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from helpers import on_tensorflow, small
from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation import evaluate as evaluation
from keras_vae.evaluation.likelihood import measure_likelihood
from keras_vae.evaluation.per_image import StageResult
from keras_vae.report import plots
from keras_vae.report.figures import style as drawing
from keras_vae.report.report import write_report
from keras_vae.runs.build import build
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.model_file import weights_checksum
from keras_vae.runs.run import Run
from keras_vae.training import callbacks, trainer

WRITES = {"open": 0, "os.rename": 0, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0}
"""The audited changes of files, and the position of the path among their arguments."""

FAULTS = ("kill", "kill in the middle of a file", "disk full", "read-only")

COMMON = ["model.network.widths=[2, 3]", "training.epochs=2", "training.batch_size=8", "training.keep=best"]

EXPERIMENTS = {
    "plateau, EMA, best and VampPrior": (
        "classic",
        [
            *("training.plateau.patience=1", "training.ema_window=0.5", "model.network.dense_units=4"),
            'model.prior={name="vamp", num_components=3}',
        ],
    ),
    "VQ": (
        "vq",
        [
            *("model.architecture.quantizer.num_codes=4", "model.architecture.code_dim=2"),
            # Saving and loading the many weights of its usual prior would take most of the time.
            *("model.architecture.prior_width=4", "model.architecture.prior_blocks=1"),
        ],
    ),
}
"""Presets and settings."""

PER_IMAGE = {"nll": np.arange(4, dtype="float32")}


class Killed(BaseException):
    """The end of the process."""


class Faults:
    """Counts the changes of files in a folder, and fails at one of them.

    Args:
        folder: The folder; locks are left out.
        fault: One of `FAULTS`.
        at: Number of the change that fails; 0 never fails.
    """

    def __init__(self, folder: Path, fault: str = "", at: int = 0) -> None:
        self.folder, self.fault, self.at = str(folder), fault, at
        self.count, self.dead = 0, False
        self.opened: str | None = None
        # The changes before which a file is unfinished.
        self.partial: set[int] = set()

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        relative = event in ("os.remove", "os.rmdir") and arguments[-1] != -1
        if not (path.startswith(self.folder) or relative) or path.endswith(".lock"):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if self.dead:
            raise Killed
        self.count += 1
        if self.is_partial:
            self.partial.add(self.count)
        if self.count == self.at:
            self.fail(path)
        self.opened = path if event == "open" else self.opened

    @property
    def is_partial(self) -> bool:
        return self.opened is not None and ".part" in self.opened and os.path.exists(self.opened)

    def fail(self, path: str) -> None:
        if not self.fault.startswith("kill"):
            number = errno.ENOSPC if self.fault == "disk full" else errno.EROFS
            raise OSError(number, os.strerror(number), path)
        if self.fault != "kill" and self.opened is not None and self.is_partial:
            os.truncate(self.opened, os.path.getsize(self.opened) // 2)
        self.dead = True
        raise Killed


_active: list[Faults] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active and event in WRITES:
        _active[-1].see(event, arguments)


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    sys.addaudithook(_hook)


def survives(folder: Path, action: Callable[[], object], fault: str = "", at: int = 0) -> Faults:
    """Run an action with a fault, and return the observed changes of files."""
    faults = Faults(folder, fault, at)
    _active.append(faults)
    message = None
    try:
        action()
    except Killed:
        assert faults.dead
    except RunError as error:
        message = str(error)
    finally:
        _active.pop()
    if message is not None:
        assert "cannot be written: " in message
        assert len(message.splitlines()) == 1
    return faults


def contents(folder: Path) -> dict[str, Any]:
    """Return all files of a run, comparably."""
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return {name: weights_checksum(file) if name.endswith(".keras") else _content(file) for name, file in files.items()}


def _content(file: Path) -> Any:
    if file.suffix != ".npz":
        return file.read_bytes()
    with np.load(file) as arrays:
        return {name: array.tobytes() for name, array in arrays.items()}


@pytest.fixture
def images_in_three_parts() -> Splits:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (24, 8, 8, 1), dtype="uint8")
    return split(Dataset.from_arrays(images, name="noise"), None, validation=4, test_size=4, holdout=True, seed=0)


class OneModel:
    """Builds an experiment once, and afterwards returns the same compiled model with its initial state."""

    def __init__(self) -> None:
        self.model: Any = None
        self.initial: list[Array] = []

    def __call__(self, resolved: Any) -> Any:
        if self.model is None:
            self.model = build(resolved)
            self.initial = [ops.convert_to_numpy(variable).copy() for variable in self.variables]
        for variable, value in zip(self.variables, self.initial, strict=True):
            variable.assign(value)
        return self.model

    @property
    def variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]


@pytest.fixture
def constant_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: 0.0)


def run_all(
    case: str, whole: dict[str, Any], seen: Faults, step: int, attempt: Callable[[Path, str, int], Path]
) -> None:
    """Check every fault at every `step`th change, and print how many cases ended identically.

    Different faults start at different changes, so that four of every seven are covered if `step` is 7. Where no file
    is unfinished, a kill in the middle of a file is a kill.

    Args:
        case: Name of the case.
        whole: The files without faults.
        seen: The changes without faults.
        step: The distance of changes at which faults are tried.
        attempt: Runs the case with a fault and again without, and returns its folder.
    """
    count = seen.count
    cases = [
        (fault, at)
        for number, fault in enumerate(FAULTS)
        for at in range(1 + number % step, count + 1, step)
        if fault != "kill in the middle of a file" or at in seen.partial
    ]
    assert seen.partial
    different = []
    for fault, at in cases:
        path = attempt(Path(f"{fault} {at}".replace(" ", "-")), fault, at)
        if contents(path) != whole:
            different.append((fault, at))
    same = len(cases) - len(different)
    print(f"{case}: {len(cases)} faults, at every {step}th of {count} writes each, {same} ended identically")
    assert not different


def check_training(case: str, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    preset, settings = EXPERIMENTS[case]
    experiment = Experiment.preset(preset).with_overrides([*COMMON, *settings])
    monkeypatch.setattr(trainer, "build", OneModel())

    def train(path: Path) -> Run:
        return trainer.resume(path, splits) if path.exists() else trainer.train(experiment, splits, path)

    # The first training compiles the functions of the model, the second counts the writes.
    train(tmp_path / "first")
    seen = survives(tmp_path, lambda: train(tmp_path / "whole"))
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "first") == whole
    assert len(whole) == 4
    assert seen.count > 20

    def attempt(name: Path, fault: str, at: int) -> Path:
        path = tmp_path / name
        survives(tmp_path, lambda: train(path), fault, at)
        train(path)
        return path

    run_all(case, whole, seen, step, attempt)


@pytest.mark.parametrize("case", [next(iter(EXPERIMENTS))])
@pytest.mark.usefixtures("constant_clock")
def test_training_survives_faults_at_some_writes(
    case: str, images_in_three_parts: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_training(case, images_in_three_parts, tmp_path, monkeypatch, step=9)


@pytest.mark.slow
@pytest.mark.parametrize("case", EXPERIMENTS)
@pytest.mark.usefixtures("constant_clock")
def test_training_survives_faults_at_every_write(
    case: str, images_in_three_parts: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is written in which order does not depend on the backend; loading and saving do.
    step = 1 if keras.backend.backend() == "tensorflow" else 7
    check_training(case, images_in_three_parts, tmp_path, monkeypatch, step=step)


@pytest.mark.slow
@on_tensorflow("evaluation and report are written without the backend")
@pytest.mark.usefixtures("constant_clock")
def test_evaluation_and_report_survive_faults_at_every_write(
    images_in_three_parts: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, picture = images_in_three_parts, io.BytesIO()
    Image.new("RGB", (4, 3)).save(picture, "PNG")
    model = OneModel()
    monkeypatch.setattr(trainer, "build", model)
    monkeypatch.setattr(plots, "available_plots", lambda context: ("curves",))
    # Drawing takes most of the time, and what it draws does not matter.
    monkeypatch.setattr(drawing, "_render", lambda figure, suffix: picture.getvalue())
    trained = trainer.train(small("training.epochs=1"), splits, tmp_path / "trained").path
    result = measure_likelihood(model.model, splits, seed=0)
    monkeypatch.setitem(evaluation.STAGES, "likelihood", lambda context: StageResult(dict(result.section), PER_IMAGE))

    def measure(path: Path) -> None:
        evaluation.evaluate(path, splits, stages=["likelihood"], model=model.model)
        write_report(path, splits, model=model.model, findings=[])

    def copy(path: Path) -> Path:
        path.mkdir(parents=True)
        for file in trained.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        return path

    # The page and the figures contain the name of the run.
    path = copy(tmp_path / "whole" / "run")
    seen = survives(tmp_path, lambda: measure(path))
    whole = contents(path)

    def attempt(name: Path, fault: str, at: int) -> Path:
        path = copy(tmp_path / name / "run")
        survives(tmp_path, lambda: measure(path), fault, at)
        measure(path)
        return path

    run_all("evaluation and report", whole, seen, 1, attempt)

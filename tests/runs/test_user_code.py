"""Python files of the user: imported for training, stored in the run, and executed only if they are trusted."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import SMALL, Interrupt, assert_equal_runs, on_tensorflow, small
from keras_vae import cli, load
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.report.figures.style import STYLE
from keras_vae.runs import user_code
from keras_vae.runs.run import Run
from keras_vae.training.trainer import train

pytestmark = on_tensorflow("independent of the backend")

PARTS = '''
"""A file of the user that registers a prior."""

from __future__ import annotations

from dataclasses import dataclass

import keras_vae
from keras import ops
from keras_vae.components.priors import StandardNormal


@keras_vae.register("my-prior")
@dataclass(frozen=True)
class MyPrior(StandardNormal):
    """The standard normal under another name."""
'''


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, in which no code is trusted, and a working folder with a Python file."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("my_parts.py").write_text(PARTS)
    return tmp_path / "home"


@pytest.fixture
def frames(images: Array) -> None:
    np.savez("frames.npz", images=images)


@pytest.fixture
def vae(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `vae …`, which knows no imported file, like a new process; return its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        forget()
        # Drawing the figures of the reports would take most of the time.
        monkeypatch.setitem(STYLE, "figure.dpi", 30)
        monkeypatch.setattr(sys, "argv", ["vae", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (int(end.value.code or 0), *capsys.readouterr())

    return run


def forget() -> None:
    """Forget all files that this process has imported, and their components."""
    user_code._imported.clear()
    registry._CLASSES["prior"].pop("my-prior", None)
    keras.saving.get_custom_objects().pop("keras_vae>MyPrior", None)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_imported_components_train_resume_and_load_in_new_processes(
    home: Path, frames: None, vae: Callable[..., tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = small("model.prior=my-prior", "data.source=frames.npz")
    with pytest.raises(KeyboardInterrupt):
        train(experiment, out="run", imports=["my_parts.py"], callbacks=[Interrupt(1, 0)])
    settings = [part for setting in [*SMALL, "model.prior=my-prior"] for part in ("--set", setting)]
    code, _, err = vae("train", "--data", "frames.npz", "--import", "my_parts.py", "--out", "whole", *settings)
    assert code == 0, err
    Path("my_parts.py").unlink()
    assert Path("run/code/my_parts.py").read_text() == PARTS
    assert Run.open("run").environment["code"] == ["my_parts.py"]
    code, _, err = vae("train", "--resume", "run")
    assert code == 0, err
    assert_equal_runs(Run.open("run"), Run.open("whole"))
    code, _, err = vae("sample", "run", "-n", "2", "--out", "s.npz")
    assert code == 0, err
    loaded = python("import keras_vae; print(type(keras_vae.load('run').prior).__name__)")
    assert loaded.stdout.strip() == "MyPrior", loaded.stderr

    # The same run on another machine.
    shutil.rmtree(home)
    code, out, err = vae("sample", "run", "--out", "t.npz")
    assert (code, out) == (2, "")
    assert "run/code/my_parts.py: this run needs Python code that was never imported on this machine" in err
    assert vae("info", "run")[0] == 0
    assert vae("trust", "run")[1].strip() == "run/code/my_parts.py"
    assert vae("sample", "run", "--out", "t.npz")[0] == 0
    # Edited code must be allowed again.
    Path("run/code/my_parts.py").write_text(PARTS + "\nprint('changed')\n")
    assert "never imported on this machine" in vae("sample", "run", "--out", "u.npz")[2]
    forget()
    assert load("run", trust_code=True).latent_dim == 2
    assert capsys.readouterr().out == "changed\n"


def test_imported_file_registers_its_components_and_is_trusted() -> None:
    sources = user_code.import_files(["my_parts.py"])
    assert sources == {"my_parts.py": PARTS.encode()}
    assert registry.spec("prior", registry.build("prior", {"name": "my-prior"})) == {"name": "my-prior"}
    Path("code").mkdir()
    # The file of another version of the run may define the class again.
    Path("code/my_parts.py").write_text(PARTS + "\n")
    with pytest.raises(InputError, match="never imported on this machine"):
        user_code.import_kept(Path("code"), ["my_parts.py"])
    user_code.import_kept(Path("code"), ["my_parts.py"], trusted=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"import = bad\.py: registers no component; decorate a class with @keras_vae\.register"),
        ("raise ValueError('no\\nway')\n", r"import = bad\.py: raises ValueError: no; correct it"),
        ("def broken(:\n", r"import = bad\.py: raises SyntaxError"),
        (PARTS.replace("my-prior", "vamp"), r"import = bad\.py: name = 'vamp': the prior 'vamp' exists already"),
        (
            PARTS.replace("MyPrior", "VampPrior").replace("my-prior", "other-prior"),
            r"import = bad\.py: name = 'other-prior': a class 'keras_vae>VampPrior' exists already",
        ),
    ],
)
def test_invalid_file_is_rejected_and_registers_nothing(text: str, message: str) -> None:
    before = registry.registered("prior")
    Path("bad.py").write_text(text)
    with pytest.raises(InputError, match=message):
        user_code.import_files(["bad.py"])
    assert registry.registered("prior") == before
    Path("code").mkdir()
    shutil.copyfile("bad.py", "code/bad.py")
    with pytest.raises(InputError, match="never imported on this machine"):
        user_code.import_kept(Path("code"), ["bad.py"])


def test_missing_files_and_equal_names_are_rejected() -> None:
    with pytest.raises(InputError, match=r"import = nowhere\.py: no such Python file"):
        user_code.import_files(["nowhere.py"])
    Path("other").mkdir()
    shutil.copyfile("my_parts.py", "other/my_parts.py")
    with pytest.raises(InputError, match="another file has the same name"):
        user_code.import_files(["my_parts.py", "other/my_parts.py"])
    for name in ("nowhere.py", "../my_parts.py"):
        with pytest.raises(InputError, match="which is missing; restore it"):
            user_code.import_kept(Path("other"), [name], trusted=True)

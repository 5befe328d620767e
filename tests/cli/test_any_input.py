"""Any arguments and any experiment file end with exit code 0, 1 or 2 and one line, without a traceback."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import on_tensorflow
from keras_vae import cli
from keras_vae.core.errors import InputError
from keras_vae.runs.experiment import Experiment

pytestmark = on_tensorflow("neither arguments nor experiment files depend on the backend")

bounded = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

WORDS = st.one_of(
    st.sampled_from(["mnist-2d", "nowhere", "--out", "--json", "--force", "--seed", "-n", "--data", "--set", "--help"]),
    st.sampled_from(["", ".", "..", "/", "-1", "0", "²", "nan", "1e9", "\0", "a\nb", "--", "=", "x.png", "x.csv"]),
    st.text(max_size=8),
)
# These commands neither import Keras nor write a file that was not named.
COMMANDS = ("info", "presets", "data", "compare", "trust", "push", "export", "encode", "reconstruct", "nothing")

SCALARS = st.one_of(
    st.none().map(lambda _: False), st.integers(-(10**12), 10**12), st.floats(), st.text(max_size=9), st.booleans()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def exit_code(*arguments: str) -> tuple[int, str]:
    before, stderr = sys.argv, io.StringIO()
    sys.argv = ["vae", *arguments]
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as stop:
        return int(stop.code or 0), stderr.getvalue()
    finally:
        sys.argv = before
    return 0, stderr.getvalue()


@bounded
@given(command=st.sampled_from(COMMANDS), words=st.lists(WORDS, max_size=4))
def test_any_arguments_end_with_an_exit_code(
    command: str, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The repositories and outputs that these words name do not exist, so that nothing is sent or written.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.chdir(tmp_path_factory.getbasetemp())
        code, stderr = exit_code(command, *(word for word in words if not word.endswith((".csv", ".png"))))
    assert code in (0, 1, 2)
    assert "Traceback" not in stderr


def problem(text: str) -> str | None:
    """Return the message of an invalid experiment file."""
    try:
        Experiment.from_toml(text, "file.toml")
    except InputError as error:
        return str(error)
    return None


KEYS = st.sampled_from(
    ["name", "seed", "format", "description", "data", "model", "training", "epochs", "batch_size", "source", "prior"]
)


@bounded
@given(tables=st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3) | VALUES, max_size=4))
def test_any_tables_are_an_experiment_or_an_error_of_one_line(tables: dict[str, Any]) -> None:
    message = problem(tomli_w.dumps(tables))
    if message is None:
        experiment = Experiment.from_toml(tomli_w.dumps(tables), "file.toml")
        assert Experiment.from_toml(experiment.to_toml(), "again") == experiment
    else:
        assert message.startswith("file.toml: ")
        assert len(message.splitlines()) == 1


@bounded
@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda content: content.decode("latin-1")))
def test_any_text_is_an_experiment_or_an_error_of_one_line(text: str) -> None:
    assert len((problem(text) or "").splitlines()) <= 1


@bounded
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".npz", ".npy", ".png", ".jpg", ".gif"]))
def test_any_image_file_ends_with_an_exit_code(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    magic = {".npz": b"PK\x03\x04", ".npy": b"\x93NUMPY\x01\x00", ".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff"}
    folder: Path = tmp_path_factory.mktemp("images")
    (folder / f"a{suffix}").write_bytes(magic.get(suffix, b"GIF89a") + content)
    code, stderr = exit_code("data", str(folder if suffix in (".png", ".jpg", ".gif") else folder / f"a{suffix}"))
    assert code in (1, 2)
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("vae: ")

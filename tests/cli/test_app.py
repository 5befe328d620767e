"""The program as a whole: help and exit codes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer.main
from cli_helpers import Vae, assert_rejected

from helpers import on_tensorflow
from keras_vae import cli
from keras_vae.evaluation.anomaly import SCORES
from keras_vae.evaluation.evaluate import STAGES, EvaluationConfig
from keras_vae.report.plots import PLOTS

pytestmark = on_tensorflow("what the commands call is tested on every backend")


def test_program_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from keras_vae.cli import main; main()", "train", "--data", "nowhere"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "--backend", "tensorfow"],
            "--backend = 'tensorfow': unknown; did you mean 'tensorflow'? accepted: ",
        ),
        (["sample", "mnist-2d", "--prior", "foo"], "--prior = 'foo': unknown; accepted: fitted, original"),
        (["export", "mnist-2d", "--format", "onx"], "--format = 'onx': unknown; did you mean 'onnx'?"),
        (["sample", "mnist-2d", "--seed", "-1"], "--seed = -1: too small; choose at least 0"),
        (["sample", "mnist-2d", "-n", "few"], "--n = few: not an integer; pass an integer"),
    ],
)
def test_invalid_value_of_an_option_is_rejected_with_one_line(vae: Vae, words: list[str], message: str) -> None:
    outcome = vae(*words)
    assert_rejected(outcome, message)
    assert len(outcome.err.strip().splitlines()) == 1
    assert "Value error" not in outcome.err


def test_help_of_no_command_imports_keras_or_numpy() -> None:
    code = (
        "import sys, typer\n"
        "from keras_vae.cli import app\n"
        "for words in ([], *([name] for name in typer.main.get_command(app).commands)):\n"
        "    app([*words, '--help'], standalone_mode=False)\n"
        "print(sorted({'keras', 'tensorflow', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage:") == 1 + len(typer.main.get_command(cli.app).commands)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_exactly_the_accepted_values() -> None:
    hints = get_type_hints(EvaluationConfig)
    for command, name, accepted in (
        ("plot", "kind", PLOTS),
        ("evaluate", "stages", STAGES),
        ("evaluate", "features", get_args(get_args(hints["features"])[0])),
        ("score", "score", SCORES),
    ):
        (parameter,) = [p for p in typer.main.get_command(cli.app).commands[command].params if p.name == name]
        listed = parameter.help.partition(". Default")[0].removesuffix(".").rpartition(": ")[2]
        assert re.split(r", | or ", listed) == list(accepted), command
    (images,) = [p for p in typer.main.get_command(cli.app).commands["evaluate"].params if p.name == "images"]
    assert images.metavar.split("|") == list(get_args(hints["images"]))

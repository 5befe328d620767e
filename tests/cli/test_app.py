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
from keras_vae.training.prior_fitting import FITTED

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
        (["sample", "mnist-2d", "-n", "²"], "--n = ²: not an integer; pass an integer"),
        (["trian"], "command = 'trian': unknown; did you mean 'train'? accepted: compare, data, "),
        (["sample", "mnist-2d", "--sed", "1"], "option = '--sed': unknown; did you mean '--seed'? accepted: --force, "),
        (["--versoin"], "option = '--versoin': unknown; did you mean '--version'?"),
        (["train", "--epochs", "3"], "option = '--epochs': unknown; write --set training.epochs=VALUE"),
        (["train", "--latent-dim", "3"], "option = '--latent-dim': unknown; write --set model.latent_dim=VALUE"),
        (["plot"], "RUN: missing; see `vae plot --help`"),
        (["plot", "mnist-2d"], "KIND: missing; see `vae plot --help`"),
        (["info", "a", "b"], "(b); see `vae info --help`"),
        (["train", "--out"], "requires an argument; see `vae"),
        (["plot", "mnist-2d", "Rate_Distortion"], "kind = 'Rate_Distortion': unknown; did you mean 'rate-distortion'?"),
        (["info", "mnst-2d"], "run = mnst-2d: does not exist; did you mean 'mnist-2d'?"),
        (["train", "clasic"], "preset = 'clasic': unknown; did you mean 'classic'?"),
        (["train", "--data", "mnits"], "did you mean 'mnist'?"),
        (["data", "spirtes"], "did you mean 'sprites'?"),
        (["score", "mnist-2d", "--out", "s.csv", "--score", "nl"], "--score = 'nl': unknown; did you mean 'nll'?"),
        (["evaluate", "mnist-2d", "--proposal", "mixtur"], "--proposal = 'mixtur': unknown; did you mean 'mixture'?"),
        (["export", "mnist-2d", "--format", "onnx", "--input-dtype", "int8"], "did you mean 'uint8'?"),
        (["data", "digits", "--image-size", "²x8"], "--image-size = ²x8: not a size; write height x width"),
        (["data", "digits", "--image-size", "8x8x8"], "--image-size = 8x8x8: not a size"),
        (["data", "digits", "--image-size", "9" * 5000 + "x8"], "not a size"),
        (["sample", "mnist-2d", "-n", "100000000"], "at most 4,096, or write --out FILE.npz"),
        (
            ["sample", "mnist-2d", "-n", "100000000", "--out", "x.npz"],
            "n = 100000000: too many for one file; draw at most",
        ),
        (["plot", "mnist-2d", "grid", "-n", "100000"], "n = 100000: too many images for one figure; choose at most 64"),
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


def test_no_command_imports_keras_before_it_selects_the_backend(run: Path) -> None:
    code = (
        "import sys\n"
        "from keras_vae.cli import app, common\n"
        "def select(backend): print(sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))); sys.exit()\n"
        "common._import_keras = select\n"
        "for words in (\n"
        "    'train --data digits --out new', 'evaluate run', 'evaluate run --part 1/2', 'doctor run',\n"
        "    'fit-prior run',\n"
        "    'encode run --out z.npz', 'score run --out s.csv', 'sample run --out s.png',\n"
        "    'reconstruct run --out r.png',\n"
        "    'plot run latents', 'export run --format onnx', 'explore run'\n"
        "):\n"
        "    try: app(words.split(), standalone_mode=False)\n"
        "    except SystemExit: common.release_locks()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"] * 12, done


@pytest.mark.parametrize("columns", [60, 80])
def test_help_of_every_command_is_complete(columns: int, vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    listed = " ".join(vae("--help").out.split())
    for name, command in typer.main.get_command(cli.app).commands.items():
        text = vae(name, "--help").out
        assert max(map(len, text.splitlines())) <= columns
        for summary in (command.help, *(p.help for p in command.params)):
            assert "".join((summary or "").split()) in "".join(text.split())
        assert " ".join(command.help.split()).partition(". ")[0] in listed


def test_vae_alone_prints_the_help_and_fails(vae: Vae) -> None:
    outcome = vae()
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: vae ")


def completions(vae: Vae, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """Return what a shell offers for the last word."""
    monkeypatch.setenv("_VAE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["vae", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    return vae().out.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["comp"], ["compare"]),
        (["sample", "mnist"], ["mnist-16d", "mnist-2d"]),
        (["sample", "runs/"], ["runs/mine"]),
        (["train", "--resume", "runs"], ["runs/mine"]),
        (["compare", "runs/mine", "mnist-2"], ["mnist-2d"]),
        (["train", "cla"], ["classic"]),
        (["train", "--data", "mn"], ["mnist"]),
        (["train", "--set", "training.pl"], ["training.plateau.patience=", "training.plateau.factor="]),
        (["train", "--backend", "t"], ["tensorflow", "torch"]),
        (["plot", "mnist-2d", "re"], ["reconstructions"]),
        (["evaluate", "mnist-2d", "--stages", "latents,l"], ["latents,likelihood", "latents,latents"]),
        (["sample", "mnist-2d", "--see"], ["--seed"]),
        (["data", "spr"], ["sprites"]),
    ],
)
def test_shell_completes_names(
    words: list[str], expected: list[str], vae: Vae, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "experiment.toml").touch()
    assert completions(vae, monkeypatch, *words) == expected


def test_completion_imports_no_backend(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from keras_vae.cli import completion\n"
        "for complete in (completion.runs, completion.presets, completion.sources, completion.settings):\n"
        "    assert complete(''), complete\n"
        "print(sorted({'keras', 'tensorflow', 'jax', 'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_completed_words_are_the_accepted_ones() -> None:
    hints = get_type_hints(EvaluationConfig)
    for command, name, accepted in (
        ("plot", "kind", [*PLOTS, "all"]),
        ("evaluate", "stages", STAGES),
        ("evaluate", "features", get_args(get_args(hints["features"])[0])),
        ("evaluate", "proposal", get_args(get_args(hints["proposal"])[0])),
        ("evaluate", "images", get_args(hints["images"])),
        ("fit-prior", "prior", FITTED),
    ):
        (parameter,) = [p for p in typer.main.get_command(cli.app).commands[command].params if p.name == name]
        context = typer.Context(typer.main.get_command(cli.app).commands[command], resilient_parsing=True)
        assert [item.value for item in parameter.shell_complete(context, "")] == list(accepted), command


def test_help_lists_exactly_the_accepted_values() -> None:
    hints = get_type_hints(EvaluationConfig)
    for command, name, accepted in (
        ("plot", "kind", PLOTS),
        ("evaluate", "stages", STAGES),
        ("evaluate", "features", get_args(get_args(hints["features"])[0])),
        ("score", "score", SCORES),
    ):
        (parameter,) = [p for p in typer.main.get_command(cli.app).commands[command].params if p.name == name]
        listed = re.split(r"\. (Default|Or all)", parameter.help)[0].removesuffix(".").rpartition(": ")[2]
        assert re.split(r", | or ", listed) == list(accepted), command
    (images,) = [p for p in typer.main.get_command(cli.app).commands["evaluate"].params if p.name == "images"]
    assert images.metavar.split("|") == list(get_args(hints["images"]))

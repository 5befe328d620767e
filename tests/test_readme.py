"""The README's commands and code, run as they stand, on little data and for one epoch."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import on_tensorflow

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCK = re.compile(r"(?P<mark><!-- not tested here: [^\n]+ -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


on_the_default_backend = on_tensorflow("the README speaks of the default backend")


def commands() -> Iterator[str]:
    for block in BLOCK.finditer(README):
        if block["language"] == "bash" and not block["mark"]:
            yield from block["code"].strip().splitlines()


def table_commands() -> Iterator[str]:
    for row in re.findall(r"^\| (`vae.+?) \|", README.replace(r"\|", "│"), re.MULTILINE):
        yield from re.findall(r"`(.+?)`", row)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with little MNIST-shaped data and a few photos."""
    rng = np.random.default_rng(0)
    few = {
        f"{letter}_{split}": rng.integers(0, 10, count).astype("uint8")
        if letter == "y"
        else rng.integers(0, 256, (count, 28, 28), dtype="uint8")
        for letter in "xy"
        for split, count in (("train", 300), ("test", 40))
    }
    np.savez(tmp_path / "mnist.npz", **few)
    (tmp_path / "photos").mkdir()
    for index in range(170):
        Image.fromarray(rng.integers(0, 256, (70, 50, 3), dtype="uint8")).save(tmp_path / "photos" / f"{index}.jpg")
    return tmp_path


@pytest.mark.slow
@on_the_default_backend
def test_every_command_runs(folder: Path) -> None:
    environment = os.environ | {"KERAS_VAE_DATA": str(folder)}
    ran = []
    for command in commands():
        words = shlex.split(command, comments=True)
        assert words[0] == "vae", command
        arguments = [*words[1:], *(["--set", "training.epochs=1"] if words[1] == "train" else [])]
        done = subprocess.run(
            [sys.executable, "-c", "from keras_vae.cli import main; main()", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        ran.append(words[1])
    assert ran.count("train") == 3
    assert ran.count("plot") == 4


def test_every_command_of_the_table_is_one_with_those_options(capsys: pytest.CaptureFixture[str]) -> None:
    import typer.main

    from keras_vae.cli import app

    root = typer.main.get_command(app)
    listed = set()
    for command in table_commands():
        _, name, *rest = shlex.split(command)
        listed.add(name)
        options = {option for parameter in root.commands[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= options, command
    assert listed == set(root.commands)


@pytest.mark.slow
@on_the_default_backend
def test_python_runs_as_it_stands(tmp_path: Path) -> None:
    (code,) = [block["code"] for block in BLOCK.finditer(README) if block["language"] == "python"]
    assert len(code.strip().splitlines()) <= 13
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nats per image" in done.stdout


def test_every_link_of_the_docs_leads_somewhere() -> None:
    root = Path(__file__).parents[1]
    for page in (root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)(.+?)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

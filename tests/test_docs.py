"""The README and the docs: their commands and code run, their tables are complete, and their links work."""

import functools
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import on_tensorflow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text("utf-8")
COMPONENTS = (ROOT / "docs" / "components.md").read_text("utf-8")
PROGRAMS = [
    "README.md",
    *(f"docs/{name}.md" for name in ("index", "keras", "commands", "components", "migration", "production")),
]
"""Pages whose Python code is a complete program."""
BLOCK = re.compile(r"(?P<mark><!-- not tested here: [^\n]+ -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
SMALLER = ["training.epochs=1", "training.batch_size=16", "model.network.widths=[2, 3]", "model.network.dense_units=4"]
"""Settings of a short training of a small network."""

on_the_default_backend = on_tensorflow("the README describes the default backend")


def readme_commands() -> Iterator[str]:
    for block in BLOCK.finditer(README):
        if block["language"] == "bash" and not block["mark"]:
            yield from block["code"].strip().splitlines()


def commands_of_the_docs() -> Iterator[tuple[str, str]]:
    """Iterate over the pages of docs/ and the commands in their blocks of code."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in BLOCK.finditer(page.read_text("utf-8")):
            if block["language"] == "bash":
                lines = block["code"].replace("\\\n", " ").splitlines()
                yield from ((page.name, line.strip()) for line in lines if line.strip().startswith("vae "))


def rows_of_commands() -> list[list[str]]:
    """Return the cells of each row of the table of commands."""
    rows = re.findall(r"^\| (`vae .+) \|$", COMMANDS.replace(r"\|", "│"), re.MULTILINE)
    return [row.split(" | ") for row in rows]


def python_code(page: str) -> str:
    """Return the Python code of a page."""
    return "\n".join(block["code"] for block in BLOCK.finditer(page) if block["language"] == "python")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small `mnist.npz` of noise and a folder of photos."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("test", 20)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 28, 28), dtype="uint8")
        arrays[f"y_{split}"] = np.arange(count, dtype="uint8") % 10
    np.savez(tmp_path / "mnist.npz", **arrays)
    (tmp_path / "photos").mkdir()
    for index in range(40):
        Image.fromarray(rng.integers(0, 256, (70, 50, 3), dtype="uint8")).save(tmp_path / "photos" / f"{index}.jpg")
    return tmp_path


# `test_presets.py` writes whole reports.
@pytest.mark.slow
@on_the_default_backend
@pytest.mark.usefixtures("one_figure")
def test_every_command_of_the_readme_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from keras_vae import cli
    from keras_vae.report.figures.style import STYLE

    monkeypatch.setitem(STYLE, "figure.dpi", 30)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAS_VAE_DATA", str(folder))
    ran = []
    for command in readme_commands():
        words = shlex.split(command, comments=True)
        assert words[0] == "vae", command
        smaller = [part for setting in SMALLER for part in ("--set", setting)] if words[1] == "train" else []
        monkeypatch.setattr(sys, "argv", [*words, *smaller])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code, f"{command}\n{capsys.readouterr().err}"
        ran.append(words[1])
    assert ran.count("train") == 3
    assert {"sample", "plot", "evaluate", "doctor", "compare", "score", "encode", "export"} <= set(ran)


def test_table_of_commands_is_complete_and_its_options_exist() -> None:
    import typer.main

    from keras_vae.cli import app

    root, listed = typer.main.get_command(app), set()
    for command, description, _ in rows_of_commands():
        for code in re.findall(r"`(vae .+?)`", command):
            _, name, *rest = shlex.split(code)
            if rest and f"{name} {rest[0]}" in root.commands:
                name = f"{name} {rest.pop(0)}"
            listed.add(name)
            options = {option for parameter in root.commands[name].params for option in parameter.opts}
            words = [*rest, *re.findall(r"`(--?[\w-]+)", description)]
            assert {word for word in words if word.startswith("-")} <= options, command
    assert listed == set(root.commands)


def test_commands_of_the_docs_exist_with_their_options_presets_and_settings() -> None:
    import typer.main

    from keras_vae.cli import app
    from keras_vae.runs.experiment import Experiment, preset_names

    root = typer.main.get_command(app)
    commands = list(commands_of_the_docs())
    assert len(commands) > 50
    for page, command in commands:
        _, name, *rest = shlex.split(command, comments=True)
        if rest and f"{name} {rest[0]}" in root.commands:
            name = f"{name} {rest.pop(0)}"
        options = {option for parameter in root.commands[name].params for option in parameter.opts}
        assert {word for word in rest if re.match(r"--?[a-z]", word)} <= options, f"{page}: {command}"
        if name == "train" and rest[0] in preset_names():
            settings = [value for key, value in itertools.pairwise(rest) if key == "--set"]
            # A loop of the shell sets $beta.
            Experiment.preset(rest[0]).with_overrides([setting.replace("$beta", "4") for setting in settings])


def test_python_functions_in_the_table_of_commands_exist() -> None:
    import keras_vae.explorer
    import keras_vae.integrations.diffusers
    import keras_vae.integrations.export
    import keras_vae.integrations.hub
    import keras_vae.integrations.sweep
    from keras_vae.data import packing, sources  # noqa: F401  makes these modules available

    for *_, functions in rows_of_commands():
        calls = re.findall(r"`([\w.]+)[(`]", functions)
        assert calls, functions
        for call in calls:
            found = keras_vae
            for name in call.split("."):
                found = getattr(found, name)


@pytest.mark.slow
@on_the_default_backend
@pytest.mark.parametrize("page", PROGRAMS)
def test_python_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_vae.evaluation import evaluate
    from keras_vae.report.figures.style import STYLE

    monkeypatch.setitem(STYLE, "figure.dpi", 30)
    monkeypatch.chdir(tmp_path)
    # As written, but with a shorter training, a smaller network, and fewer samples.
    settings = ", ".join(f'"{setting}"' for setting in SMALLER)
    code = (
        python_code((ROOT / page).read_text("utf-8"))
        .replace("epochs=10", "epochs=1")
        .replace('"training.epochs=2"', settings)
    )
    monkeypatch.setattr(evaluate, "EvaluationConfig", functools.partial(evaluate.EvaluationConfig, samples=2))
    exec(code, {"__name__": "__main__"})


def test_all_components_and_presets_are_documented() -> None:
    import keras_vae.models.registration  # noqa: F401  registers the components
    from keras_vae.core import registry
    from keras_vae.runs.experiment import preset_names

    for kind, classes in registry.snapshot().items():
        for name, cls in classes.items():
            if cls.__module__.startswith("keras_vae."):
                assert f"| `{name}` " in COMPONENTS, f"{kind} {name}"
    for name in preset_names():
        assert f"`{name}`" in COMPONENTS.partition("## Presets")[2], name


def test_every_link_of_the_docs_works() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!http)(.+?)\)", page.read_text("utf-8")):
            name, _, anchor = target.partition("#")
            linked = page.parent / name if name else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, f"{page.name}: {target}"

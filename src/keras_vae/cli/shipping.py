"""Commands that hand a trained model on."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keras_vae.cli.common import (
    Backend,
    ForceOption,
    JsonOption,
    PriorOption,
    RunArgument,
    import_keras,
    open_to_write,
    print_table,
    progress,
    say,
)
from keras_vae.core.errors import InputError

RepositoryArgument = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A repository on the Hugging Face Hub.")]


class Target(StrEnum):
    """What `vae export` writes."""

    ONNX = "onnx"
    SAVEDMODEL = "savedmodel"
    LITERT = "litert"
    KERAS = "keras"
    SPACE = "space"


class PixelChoice(StrEnum):
    """How exported graphs take images."""

    UINT8 = "uint8"
    FLOAT32 = "float32"


def export(
    run: RunArgument,
    form: Annotated[Target, typer.Option("--format", help="For which programs.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder. Default: export/FORMAT in the run.")
    ] = None,
    pixels: Annotated[
        PixelChoice, typer.Option(help="Graphs take images as levels 0…255, or as floats in [0, 1].")
    ] = PixelChoice.UINT8,
    prior: PriorOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model as graphs that run without this package, and compare each with it; or a Space to explore it in."""
    from keras_vae.core.files import check_destination
    from keras_vae.integrations.export.formats import FORMATS
    from keras_vae.runs.run import Run

    if form is not Target.SPACE:
        FORMATS[form.value].check_installed()
    opened = open_to_write(run) if out is None else Run.open(run)
    folder = out or opened.path / "export" / form.value
    if form is Target.SPACE:
        from keras_vae.explorer import write_space

        given = {"prior": prior, "pixels": pixels is PixelChoice.FLOAT32, "json": as_json}
        if unused := [f"--{name}" for name, value in given.items() if value]:
            raise InputError(f"{', '.join(unused)}: graphs have such; --format space takes the run as it is")
        print(write_space(opened, folder, force=force))
        return
    check_destination(folder, force=force, marker="manifest.json", kind="export")
    import_keras(Backend.TENSORFLOW)
    from keras_vae.integrations.export import export as write

    write(
        opened,
        form.value,
        folder,
        prior=None if prior is None else prior.value,
        pixels=pixels.value,
        force=force,
        progress=progress(),
    )
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    if as_json:
        print(json.dumps(manifest))
        return
    compared = manifest["compared_with_the_model"]
    say(f"compared with the model on {compared['images']} images ({compared['on']})")
    for name, reason in manifest["left_out"].items():
        say(f"no {name}: {reason}")
    print_table(
        (str(folder / graph["file"]), output, f"differs by at most {port['greatest_difference']:.1e}")
        for graph in manifest["graphs"].values()
        for output, port in graph["outputs"].items()
    )


def push(
    run: RunArgument,
    repository: RepositoryArgument,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it, if the repository is new.")] = False,
) -> None:
    """Push a run to the Hugging Face Hub and print its address."""
    from keras_vae.integrations import hub
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    say(f"pushing {', '.join(hub.FILES)}; experiment.toml names the data's source")
    print(hub.push(opened, repository, public=public))


def pull(
    repository: RepositoryArgument,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="A new folder. Default: runs/NAME.")] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit. Default: the newest.")] = None,
    force: ForceOption = False,
) -> None:
    """Pull a run from the Hugging Face Hub and print where it is."""
    from keras_vae.integrations import hub

    print(hub.pull(repository, out, revision=revision, force=force).path)

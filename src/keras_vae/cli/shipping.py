"""Commands that export and share trained models."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_vae.cli.common import (
    Backend,
    JsonOption,
    PriorOption,
    RunArgument,
    import_keras,
    open_to_write,
    print_table,
    progress,
    say,
    working,
)
from keras_vae.core.errors import InputError, alternatives

if TYPE_CHECKING:
    from keras_vae.runs.run import Run

RepositoryArgument = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A repository on the Hugging Face Hub.")]


class Target(StrEnum):
    """Formats of `vae export`."""

    ONNX = "onnx"
    SAVEDMODEL = "savedmodel"
    LITERT = "litert"
    KERAS = "keras"
    DIFFUSERS = "diffusers"
    SPACE = "space"
    WEB = "web"


class InputDtype(StrEnum):
    """The dtype of the input images of exported graphs."""

    UINT8 = "uint8"
    FLOAT32 = "float32"


def export(
    run: RunArgument,
    form: Annotated[
        Target, typer.Option("--format", metavar="FORMAT", help=f"The format to write: {alternatives([*Target])}.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder. Default: export/FORMAT in the run.")
    ] = None,
    input_dtype: Annotated[
        InputDtype, typer.Option(help="Dtype of input images: levels 0…255 as uint8, or values in [0, 1] as float32.")
    ] = InputDtype.UINT8,
    threshold: Annotated[
        float,
        typer.Option(
            metavar="RATE", min=0, max=1, help="Fraction of the training images whose score exceeds the threshold."
        ),
    ] = 0.05,
    prior: PriorOption = None,
    runtime: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="ONNX Runtime Web's files for web. Default: the cache, or npm."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a model as graphs that run without this package, for diffusers, as a web page or a Hugging Face Space."""
    from keras_vae.core.files import check_destination
    from keras_vae.integrations.export.formats import FORMATS
    from keras_vae.runs.run import Run

    if form.value in FORMATS:
        FORMATS[form.value].check_installed()
    if runtime is not None and form is not Target.WEB:
        raise InputError(f"--runtime: not available with --format {form.value}; leave it out")
    opened = open_to_write(run) if out is None else Run.open(run)
    folder = out or opened.path_to_write("export") / form.value
    if form.value not in FORMATS:
        graph_options = {
            **{"prior": prior, "input-dtype": input_dtype is InputDtype.FLOAT32, "json": as_json},
            "threshold": threshold != 0.05,
        }
        if unused := [f"--{name}" for name, value in graph_options.items() if value]:
            raise InputError(f"{', '.join(unused)}: not available with --format {form.value}; leave it out")
        print(_write_folder(opened, form, folder, runtime=runtime, force=force))
        return
    check_destination(folder, force=force, marker="manifest.json", kind="export")
    import_keras(Backend.TENSORFLOW)
    from keras_vae.integrations.export import export as write

    write(
        opened,
        form.value,
        folder,
        prior=None if prior is None else prior.value,
        input_dtype=input_dtype.value,
        false_positive_rate=threshold,
        force=force,
        progress=progress(),
    )
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    if as_json:
        print(json.dumps(manifest))
        return
    parity = manifest["parity"]
    say(f"compared with the model on {parity['num_images']} images ({parity['source']})")
    for name, reason in manifest["omitted"].items():
        say(f"no {name}: {reason}")
    limit = (manifest["score"] or {}).get("threshold")
    if limit is not None:
        say(f"threshold: a score of {limit['value']:.2f} nats, which {threshold:.1%} of the training images exceed")
    print_table(
        (
            str(folder / graph["file"]),
            output,
            f"differs by at most {port['max_difference']:.1e}{' of its value' if name == 'score' else ''}",
        )
        for name, graph in manifest["graphs"].items()
        for output, port in graph["outputs"].items()
    )


def _write_folder(run: "Run", form: Target, folder: Path, *, runtime: Path | None, force: bool) -> Path:
    """Write a format that consists of the model instead of graphs, and return its folder or page."""
    if form is Target.SPACE:
        from keras_vae.explorer import write_space

        return write_space(run, folder, force=force)
    import_keras(Backend.TENSORFLOW)
    if form is Target.WEB:
        from keras_vae.explorer import write_web_page

        return write_web_page(run, folder, runtime=runtime, force=force, progress=progress()) / "index.html"
    from keras_vae.integrations.diffusers import to_diffusers

    return to_diffusers(run, folder, force=force)


def push(
    run: RunArgument,
    repository: RepositoryArgument,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
) -> None:
    """Push a run to the Hugging Face Hub and print its URL."""
    from keras_vae.integrations import hub
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    say(f"pushing {', '.join(hub.FILES)}; note that experiment.toml names the source of the data")
    print(hub.push(opened, repository, public=public))


def pull(
    repository: RepositoryArgument,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="A new folder. Default: runs/NAME.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, a tag or a commit. Default: the latest commit.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False,
) -> None:
    """Pull a run from the Hugging Face Hub and print its path."""
    from keras_vae.integrations import hub

    with working(f"pulling {repository}"):
        pulled = hub.pull(repository, out, revision=revision, force=force)
    print(pulled.path)

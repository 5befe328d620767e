"""The model card: an export's `README.md`, for people."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from keras_vae.integrations.export.format import Format


def card(manifest: Mapping[str, Any], form: Format) -> str:
    """Return the text of an export's `README.md`.

    Args:
        manifest: What `manifest.json` says.
        form: The format.
    """
    return "\n\n".join(_sections(manifest, form)) + "\n"


def snippet(manifest: Mapping[str, Any], form: Format) -> str:
    """Return a program that runs every graph of an export, from within its folder, with the format's own runtime.

    Args:
        manifest: What `manifest.json` says.
        form: The format.
    """
    graphs = manifest["graphs"]
    encoder, decoder = graphs["encoder"], graphs["decoder"]
    images, code = encoder["inputs"]["images"], next(iter(decoder["inputs"].keys() - {"condition"}))
    told = "condition" in decoder["inputs"]
    also = ", condition=condition" if told else ""
    lines = [
        "import numpy as np",
        "",
        "",
        _reader(form),
        "",
        "",
        f'encoder, decoder = load("{encoder["file"]}"), load("{decoder["file"]}")',
        f'images = np.zeros(({", ".join(map(str, [4, *images["shape"][1:]]))}), "{images["dtype"]}")  # yours',
    ]
    if told:
        condition = decoder["inputs"]["condition"]
        shape = ", ".join(map(str, [4, *condition["shape"][1:]])) + ("," if len(condition["shape"]) == 1 else "")
        lines.append(f'condition = np.zeros(({shape}), "{condition["dtype"]}")')
    lines += [
        f"codes = encoder(images=images{also})",
        f'pictures = decoder({code}=codes["{manifest["code"]}"]{also})["mean_images"]',
    ]
    if "sampler" in graphs:
        size = graphs["sampler"]["inputs"]["noise"]["shape"][1]
        lines += [
            f'sampler = load("{graphs["sampler"]["file"]}")',
            f'noise = np.random.default_rng().standard_normal((4, {size}), dtype="float32")',
            f'drawn = sampler(noise=noise{also})["mean_images"]',
        ]
    return "\n".join(lines)


def _reader(form: Format) -> str:
    """Return the source of the format's `load`, as programs write it that know nothing of this package."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(form.load))).body
    assert isinstance(function, ast.FunctionDef)
    function.returns = None
    return ast.unparse(function)


def _sections(manifest: Mapping[str, Any], form: Format) -> Iterator[str]:
    model, data = manifest["model"], manifest["data"]
    yield f"# {manifest['name']}, as {form.name}"
    learned = f" of {data['name']}" if data else ""
    yield (
        f"A {model['class']}{learned}: {'×'.join(map(str, model['image_shape']))} images, {model['latent_dim']} latent "
        f"dimensions, likelihood `{model['likelihood']['name']}`. Exported by keras-vae "
        f"{manifest['versions']['keras-vae']}; `manifest.json` says the same to programs."
    )
    yield _table(manifest)
    yield f"```python\n{snippet(manifest, form)}\n```"
    yield f"It needs {form.needs} and numpy, and runs in this folder. The first size of every array is open."
    yield from _remarks(manifest)
    compared = manifest["compared_with_the_model"]
    worst = max(
        port["greatest_difference"] for graph in manifest["graphs"].values() for port in graph["outputs"].values()
    )
    has_indices = any("indices" in graph["outputs"] for graph in manifest["graphs"].values())
    yield (
        f"Read back by {form.needs} after writing, and compared with the model on {compared['images']} images "
        f"({compared['on']}): no output differs by more than {worst:.1e}"
        + (", but for images whose indices differ." if has_indices else ".")
    )
    if data:
        yield f"Trained on `{data['name']}`, SHA-256 of its splits `{data['checksum']}`."


def _table(manifest: Mapping[str, Any]) -> str:
    lines = ["| graph | takes | returns |", "|---|---|---|"]
    for name, graph in manifest["graphs"].items():
        takes, returns = ("<br>".join(map(_port, graph[side].items())) for side in ("inputs", "outputs"))
        lines.append(f"| `{name}` | {takes} | {returns} |")
    return "\n".join(lines)


def _port(item: tuple[str, Mapping[str, Any]]) -> str:
    name, port = item
    shape = ", ".join("n" if size is None else str(size) for size in port["shape"])
    bounds = "" if port["range"] is None else f", {port['range'][0]:g}…{port['range'][1]:g}"
    return f"`{name}` ({shape}) {port['dtype']}{bounds}: {port['meaning']}"


def _remarks(manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest["threshold"] is not None:
        yield (
            f"The model was trained on pixels drawn black or white. A graph draws nothing: it takes pixels above "
            f"{manifest['threshold']:g} of white for white. Draw them before, and they pass as they are."
        )
    names = (manifest["data"] or {}).get("class_names")
    if names and "condition" in manifest["graphs"]["decoder"]["inputs"]:
        yield "Conditions are labels: " + ", ".join(f"{number} {name}" for number, name in enumerate(names)) + "."
    for name, reason in manifest["left_out"].items():
        yield f"There is no `{name}`: {reason}."

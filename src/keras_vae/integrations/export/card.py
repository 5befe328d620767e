"""The model card of an export, its `README.md`."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from keras_vae.core.markdown import code, escape
from keras_vae.integrations.export.formats.base import Format


def card(manifest: Mapping[str, Any], fmt: Format) -> str:
    """Return the text of the model card.

    Args:
        manifest: Content of `manifest.json`.
        fmt: The format.
    """
    return "\n\n".join(_sections(manifest, fmt)) + "\n"


def snippet(manifest: Mapping[str, Any], fmt: Format) -> str:
    """Return a program that runs all graphs of an export in the runtime of the format, inside the export's folder.

    Args:
        manifest: Content of `manifest.json`.
        fmt: The format.
    """
    graphs = manifest["graphs"]
    encoder, decoder = graphs["encoder"], graphs["decoder"]
    images, code = encoder["inputs"]["images"], next(iter(decoder["inputs"].keys() - {"condition"}))
    is_conditional = "condition" in decoder["inputs"]
    condition_argument = ", condition=condition" if is_conditional else ""
    lines = [
        "import numpy as np",
        "",
        "",
        _loader_source(fmt),
        "",
        "",
        f'encoder, decoder = load("{encoder["file"]}"), load("{decoder["file"]}")',
        f'images = np.zeros(({", ".join(map(str, [4, *images["shape"][1:]]))}), "{images["dtype"]}")  # your images',
    ]
    if is_conditional:
        condition = decoder["inputs"]["condition"]
        shape = ", ".join(map(str, [4, *condition["shape"][1:]])) + ("," if len(condition["shape"]) == 1 else "")
        lines.append(f'condition = np.zeros(({shape}), "{condition["dtype"]}")')
    lines += [
        f"codes = encoder(images=images{condition_argument})",
        f'reconstructions = decoder({code}=codes["{manifest["code_output"]}"]{condition_argument})["mean_images"]',
    ]
    if "sampler" in graphs:
        shape = ", ".join(map(str, [4, *graphs["sampler"]["inputs"]["noise"]["shape"][1:]]))
        lines += [
            f'sampler = load("{graphs["sampler"]["file"]}")',
            f'noise = np.random.default_rng().standard_normal(({shape}), dtype="float32")',
            f'samples = sampler(noise=noise{condition_argument})["mean_images"]',
        ]
    if "score" in graphs:
        lines += [
            f'score = load("{graphs["score"]["file"]}")',
            f'scores = score(images=images{condition_argument})["score"]  # in nats; higher is more anomalous',
        ]
        if manifest["score"]["percentiles"]:
            lines.insert(0, "import json\n")
            lines += [
                'table = json.load(open("manifest.json", encoding="utf-8"))["score"]',
                'percentiles = np.interp(scores, table["percentiles"]["score"], table["percentiles"]["levels"])',
                'anomalies = scores > table["threshold"]["value"]',
            ]
    return "\n".join(lines)


def _loader_source(fmt: Format) -> str:
    """Return the source of the format's `load` function without type annotations."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(fmt.load))).body
    assert isinstance(function, ast.FunctionDef)
    function.returns = None
    return ast.unparse(function)


def _sections(manifest: Mapping[str, Any], fmt: Format) -> Iterator[str]:
    model, data = manifest["model"], manifest["data"]
    yield f"# {escape(manifest['name'])} in the format {fmt.name}"
    training_data = f" trained on {escape(data['name'])}" if data else ""
    yield (
        f"A {model['class']}{training_data}: {'×'.join(map(str, model['image_shape']))} images, "
        f"{model['latent_dim']} latent dimensions, likelihood `{model['likelihood']['name']}`. Exported by keras-vae "
        f"{manifest['versions']['keras-vae']}. `manifest.json` contains the same information for programs."
    )
    yield _table(manifest)
    yield f"```python\n{snippet(manifest, fmt)}\n```"
    yield (
        f"The program needs {fmt.runtime} and numpy, and runs in this folder. The first dimension of all arrays is "
        "variable."
    )
    yield from _notes(manifest)
    parity = manifest["parity"]
    worst = {
        is_score: max(
            (
                port["max_difference"]
                for name, graph in manifest["graphs"].items()
                for port in graph["outputs"].values()
                if (name == "score") == is_score
            ),
            default=None,
        )
        for is_score in (False, True)
    }
    has_indices = any("indices" in graph["outputs"] for graph in manifest["graphs"].values())
    yield (
        f"The graphs were loaded by {fmt.runtime} and compared with the model on {parity['num_images']} images "
        f"({escape(parity['source'])}). The largest difference of an output is {worst[False]:.1e}"
        + (f", that of a score {worst[True]:.1e} of its value" if "score" in manifest["graphs"] else "")
        + (", except for images whose indices differ." if has_indices else ".")
    )
    if data:
        yield f"Trained on {code(data['name'])}, SHA-256 of its splits `{data['checksum']}`."


def _table(manifest: Mapping[str, Any]) -> str:
    lines = ["| graph | inputs | outputs |", "|---|---|---|"]
    for name, graph in manifest["graphs"].items():
        inputs, outputs = ("<br>".join(map(_port, graph[side].items())) for side in ("inputs", "outputs"))
        lines.append(f"| `{name}` | {inputs} | {outputs} |")
    return "\n".join(lines)


def _port(item: tuple[str, Mapping[str, Any]]) -> str:
    name, port = item
    shape = ", ".join("n" if size is None else str(size) for size in port["shape"])
    bounds = "" if port["range"] is None else f", {port['range'][0]:g}…{port['range'][1]:g}"
    return f"`{name}` ({shape}) {port['dtype']}{bounds}: {port['meaning']}"


def _notes(manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest["score"] is not None:
        yield from _score_notes(manifest["score"])
    if manifest["binarization_threshold"] is not None:
        yield (
            f"The model was trained on randomly binarized pixels. The graphs are deterministic and binarize at the "
            f"threshold {manifest['binarization_threshold']:g} of white. Binary images pass unchanged."
        )
    names = (manifest["data"] or {}).get("class_names")
    if names and "condition" in manifest["graphs"]["decoder"]["inputs"]:
        yield (
            "Conditions are labels: " + ", ".join(f"{number} {escape(name)}" for number, name in enumerate(names)) + "."
        )
    for name, reason in manifest["omitted"].items():
        yield f"There {'are' if name == 'percentiles' else 'is'} no `{name}`: {reason}."


def _score_notes(score: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"`score` is an anomaly score in nats per image, {score['definition']}. Unlike `nll`, it estimates no "
        "likelihood; compare it only with the scores of the same graph."
    )
    if score["percentiles"]:
        threshold = score["threshold"]
        yield (
            f"`manifest.json` contains the percentiles of the scores of {score['reference']['num_images']:,} training "
            f"images ({escape(score['reference']['source'])}), and a threshold, {threshold['value']:.2f} nats, that "
            f"{threshold['false_positive_rate']:.1%} of them exceed."
        )

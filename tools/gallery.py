"""Write the pages of docs/gallery/, one per preset, from runs.

    python tools/gallery.py classic=mnist-2d compact=mnist-16d
    python tools/gallery.py vq iaf --data digits --set data.validation=0.1 --set training.epochs=60

`PRESET=RUN` describes a complete run: its folder, or the name of a pretrained run. For `PRESET` alone, `vae train`
trains `runs/gallery/PRESET` with the options that follow. A run that exists is not trained again, and an unfinished
one is resumed, so that the same command continues after an interruption. Every page states the command of its run,
which is derived from the settings of the run. The list in docs/gallery.md is updated as well.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.core.markdown import code_block, escape
from keras_vae.evaluation.summary import summarize
from keras_vae.report.plots import plot
from keras_vae.runs.build import resolve
from keras_vae.runs.experiment import Experiment, preset_names
from keras_vae.runs.run import Run

DOCS = Path(__file__).parents[1] / "docs"
RUNS = Path("runs") / "gallery"
VAE = (sys.executable, "-c", "from keras_vae.cli import main; main()")

FIGURES = {
    "classic": ("grid", {"n": 14}),
    "tutorial": ("grid", {"n": 14}),
    **{name: ("traversals", {"n": 9, "rows": 8}) for name in ("beta-vae", "beta-tcvae", "dip-vae", "info-vae")},
    **{name: ("reconstructions", {"n": 16}) for name in ("rae", "photo", "kl-f4", "kl-f8")},
}
"""The figure of each preset, as the name of a plot and its options; by default samples from the prior."""

CAPTIONS = {
    "grid": "Images decoded from a grid of codes",
    "traversals": "Images decoded while one latent dimension changes per row",
    "reconstructions": "Held-out images above their reconstructions",
    "samples": "Mean images of codes drawn from the prior, without selection",
}
"""Description of each plot."""

SECTIONS = ("likelihood", "image_quality")
"""Sections of the evaluation that a page shows."""

MAX_BYTES = 100_000
PALETTES = (256, 128, 64, 32)
"""Numbers of colors of the palette of a figure, the first of which that is small enough is used."""

LIST = re.compile(r"(?<=<!-- list of pages, by tools/gallery.py -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main() -> None:
    """Train what is missing, and write the pages of the presets given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET[=RUN]", help="by default, update the list only")
    parser.add_argument("--data", help="see `vae train --data`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="see `vae train --set`")
    arguments = parser.parse_args()
    pairs = dict(preset.partition("=")[::2] for preset in arguments.presets)
    for name, run in pairs.items():
        experiment = Experiment.preset(name)
        opened = Run.open(run or trained(name, arguments.data, arguments.set))
        opened.require_complete()
        write_page(name, experiment.description, opened)
        update_list()
    update_list()


def trained(name: str, data: str | None, settings: list[str]) -> Path:
    """Return the folder of a run of a preset, trained or resumed if necessary."""
    path = RUNS / name
    if path.exists() and Run.open(path).is_complete:
        return path
    options = [*(["--data", data] if data else []), *(word for setting in settings for word in ("--set", setting))]
    words = ["--resume", str(path)] if path.exists() else [name, "--out", str(path), *options]
    code = subprocess.run([*VAE, "train", *words], check=False).returncode
    if code:
        raise SystemExit(code)
    return path


def write_page(name: str, description: str, run: Run) -> None:
    """Write the page and the figure of a preset."""
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    kind, options = FIGURES.get(name, ("samples", {}))
    figure = folder / f"{name}.png"
    plot(run, kind, out=figure, **options)
    shrink(figure)
    preset, info = Experiment.preset(name), run.info
    epochs, usual = len(run.metrics["epoch"]), preset.training.epochs
    cost = f"{epochs} epochs" + ("" if epochs == usual else f" instead of the {usual} of the preset")
    images = f"{info.images:,} images of {escape(run.environment['data']['name'])}"
    measured = {key: value for key, value in (run.evaluation or {}).items() if key in SECTIONS}
    page = f"""# {name}

{description}.

![{CAPTIONS[kind]}]({name}.png)

{CAPTIONS[kind]} (`vae plot RUN {kind}`).

```bash
{command(name, preset, run)}
```

This is a run of {cost} on {images} ({"×".join(map(str, info.image_shape))}), with seed {run.experiment.seed} and the
backend {run.environment["backend"]}. `vae evaluate RUN` measured:

{code_block(chr(10).join(summarize(measured)))}
"""
    (folder / f"{name}.md").write_text(page)


def command(name: str, preset: Experiment, run: Run) -> str:
    """Return the command of a run: the preset, and every setting in which the run differs from it."""
    source = Path(run.experiment.data.source).name
    words = ["vae", "train", name, *([] if source == preset.data.source else ["--data", source])]
    ours = flat(resolve(preset, run.info).experiment.model_dump(exclude_none=True))
    for key, value in flat(run.experiment.model_dump(exclude_none=True)).items():
        if key not in ("name", "description", "data.source") and ours.get(key) != value:
            words += ["--set", f"{key}={json.dumps(value)}"]
    return shlex.join(words)


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by dotted key."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values


def shrink(figure: Path) -> None:
    """Replace the colors of a PNG by a palette, and check its size."""
    with Image.open(figure) as image:
        original = image.convert("RGB")
    for colors in PALETTES:
        original.quantize(colors, dither=Image.Dither.NONE).save(figure, optimize=True)
        if figure.stat().st_size <= MAX_BYTES:
            return
    raise InputError(f"{figure}: above {MAX_BYTES:,} bytes; show fewer images")


def update_list() -> None:
    """Write the list of all presets into docs/gallery.md, with links to the pages that exist."""
    file = DOCS / "gallery.md"
    text = file.read_text("utf-8")
    file.write_text(LIST.sub(lambda _: "\n".join(["", *rows(), "", ""]), text), "utf-8")


def rows() -> Iterator[str]:
    """Yield the rows of the list."""
    yield "| preset | description |"
    yield "|---|---|"
    for name in preset_names():
        link = f"[`{name}`](gallery/{name}.md)" if (DOCS / "gallery" / f"{name}.md").exists() else f"`{name}`"
        yield f"| {link} | {Experiment.preset(name).description} |"


if __name__ == "__main__":
    main()

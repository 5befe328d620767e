"""Pages of components and presets, from the registry, the experiment files, docs/components.md and the gallery."""

import dataclasses
import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras_vae.models.registration  # noqa: F401  registers the components
from keras_vae.core import registry
from keras_vae.runs.experiment import preset_names
from tools.site.pages import ROOT, written

KINDS = {
    "architecture": "architectures",
    "network": "networks",
    "prior": "priors",
    "posterior": "posteriors",
    "likelihood": "likelihoods",
    "objective": "objectives",
    "image_loss": "image losses",
    "quantizer": "quantizers",
    "condition": "conditions",
    "schedule": "schedules",
}
"""Kinds of components in the order of the navigation, and their plurals."""

DOCUMENT = "docs/components.md"
PRESETS = ROOT / "src" / "keras_vae" / "runs" / "presets"


@dataclass(frozen=True)
class Guidance:
    """Texts about a component in docs/components.md."""

    class_name: str
    use: str
    avoid: str
    reference: str


@cache
def guidance() -> dict[tuple[str, str], Guidance]:
    """Return the texts of docs/components.md by kind and short name, with links from pages in components/."""
    facts, choices = (list(_rows(heading)) for heading in ("# Components", "## Which component to use"))
    advice = dict(choices)
    return {
        key: Guidance(cells[0].strip("`"), *map(_linked, advice[key]), reference=cells[2])
        for key, cells in facts
        if key in advice
    }


def _rows(heading: str) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Iterate over the rows of a table of components; an empty first cell repeats the one above."""
    kind = ""
    for first, name, *cells in _table_below(heading):
        kind = _kind(first) or kind
        yield (kind, name.split("`")[1]), cells


def _table_below(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of docs/components.md, without its head."""
    text = (ROOT / DOCUMENT).read_text("utf-8").replace(r"\|", "&#124;")
    section = text.partition(f"{heading}\n")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    if table is None:
        raise ValueError(f"{DOCUMENT}: no table below the heading {heading!r}")
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].strip().split("\n")[2:]]


def _kind(cell: str) -> str:
    return next((kind for kind in KINDS if cell.startswith(kind.replace("_", " "))), "")


def pages() -> dict[str, str]:
    """Return the pages in Markdown, by path."""
    classes = registry.snapshot()
    found = {f"components/{kind}.md": _kind_page(kind) for kind in KINDS}
    found |= {f"components/{_page(*key)}.md": _component_page(*key, classes[key[0]][key[1]]) for key in guidance()}
    found |= {f"presets/{name}.md": _preset_page(name) for name in preset_names()}
    return found | {"presets/index.md": _presets()}


def with_links(text: str) -> str:
    """Return docs/components.md with links from its tables to the pages of components and presets."""
    lines, kind = text.partition("## Presets")[0].split("\n"), ""
    for index, line in enumerate(lines):
        _, first, second, *_ = *line.replace(r"\|", "").split("|"), "", "", ""
        kind = _kind(first.strip()) or kind
        name = re.match(r" `([\w-]+)`", second)
        if name and (kind, name[1]) in guidance():
            code = name[0].strip()
            lines[index] = line.replace(code, f"[{code}](components/{_page(kind, name[1])}.md)", 1)
    return "\n".join(lines) + linked_presets("".join(text.partition("## Presets")[1:]), "presets/")


def linked_presets(text: str, folder: str) -> str:
    """Return a page whose tables link the presets in their first column.

    Args:
        text: The page.
        folder: Folder of the presets, relative to the page.
    """

    def linked(cell: re.Match[str]) -> str:
        return re.sub(r"(?<!\[)`([\w-]+)`", lambda name: f"[{name[0]}]({folder}{name[1]}.md)", cell[0])

    names = "|".join(preset_names())
    return re.sub(rf"^\| (?:`(?:{names})`(?:, )?)+ \|(?= \S)", linked, text, flags=re.MULTILINE)


def documents_of_kind(kind: str) -> list[str]:
    """Return the pages of the components of a kind, in the order of docs/components.md."""
    return [f"components/{_page(*key)}" for key in guidance() if key[0] == kind]


def _page(kind: str, name: str) -> str:
    return f"{kind.replace('_', '-')}-{name}"


def _kind_page(kind: str) -> str:
    chosen = {name: texts for (other, name), texts in guidance().items() if other == kind}
    rows = [f"| [`{name}`]({_page(kind, name)}.md) | {texts.use} |" for name, texts in chosen.items()]
    return "\n".join([f"# {_capital(KINDS[kind])}", "", "| name | use it |", "|---|---|", *rows, ""])


def _linked(text: str) -> str:
    return written(DOCUMENT, "components/x.md", text)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _component_page(kind: str, name: str, cls: type) -> str:
    texts, (description, meanings) = guidance()[kind, name], _parts(inspect.getdoc(cls) or "")
    python = f"{{py:class}}`{texts.class_name} <keras_vae.{texts.class_name}>`"
    lines = [f"# {name}", "", f"{_capital(kind.replace('_', ' '))}, {python} in Python.", ""]
    lines += [f"**Use it** {texts.use}.", ""]
    if texts.avoid:
        lines += [f"**Do not use it** {texts.avoid}.", ""]
    lines += ["## Formula", "", _to_markdown(description), ""]
    if texts.reference:
        lines += [f"Reference: {texts.reference}.", ""]
    lines += ["## How to select it", "", *_selection(kind, name, texts.class_name)]
    rows = [
        f"| `{parameter}` | {_default(cls, value)} | {_to_markdown(meanings.get(parameter, ''))} |"
        for parameter, value in registry.settings(cls).items()
    ]
    if rows:
        lines += ["## Parameters", "", "| parameter | default | meaning |", "|---|---|---|", *rows, ""]
    presets = [preset for preset in preset_names() if _uses(preset, kind, name)]
    if presets:
        links = [f"[`{preset}`](../presets/{preset}.md)" for preset in presets]
        lines += ["## Presets that use it", "", f"{', '.join(links)}.", ""]
    pictures = {preset: re.search(r"^!\[.+\]\(.+\)$", _run(preset), re.MULTILINE) for preset in presets}
    for preset, picture in [(preset, picture[0]) for preset, picture in pictures.items() if picture][:1]:
        lines += [picture, "", f"A run of the preset [`{preset}`](../presets/{preset}.md), with its numbers.", ""]
    return "\n".join(lines)


def _parts(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring before its sections, and its arguments by name."""
    text = re.split(r"\n(?:Args|Raises|Example|Attributes):\n", docstring)[0]
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", docstring, re.MULTILINE)
    entries = re.split(r"^ {4}(?=\S)", section[1], flags=re.MULTILINE)[1:] if section else []
    return text, {name: " ".join(meaning.split()) for name, _, meaning in (entry.partition(": ") for entry in entries)}


def _to_markdown(text: str) -> str:
    """Return text of a docstring with formulas as MyST reads them."""
    text = re.sub(r"\\\[(.+?)\\\]\.?", lambda match: f"$$\n{match[1]}\n$$", text, flags=re.DOTALL)
    return re.sub(r"\\\((.+?)\\\)", lambda match: f"${' '.join(match[1].split())}$", text, flags=re.DOTALL)


def _default(cls: type, parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    value = parameter.default if not dataclasses.is_dataclass(cls) else getattr(cls(), parameter.name)
    return f"`{list(value) if isinstance(value, tuple) else value!r}`"


def _selection(kind: str, name: str, class_name: str) -> Iterator[str]:
    """Iterate over the lines of an experiment file, or of a command, and of Python that select a component."""
    values = {"name": name, "call": class_name, "module": class_name.partition(".")[0]}
    for language, code in (OTHER_SELECTION.get((kind, name)) or SELECTION[kind]).items():
        yield from (f"```{language}", code.format(**values), "```", "")


def _vae(argument: str) -> str:
    return f"from keras_vae import VAE, {{module}}\n\nvae = VAE({argument})"


SELECTION: Mapping[str, Mapping[str, str]] = {
    "architecture": {
        "toml": '[model]\narchitecture = "{name}"',
        "python": "from keras_vae import {call}\n\nvae = {call}()",
    },
    "network": {
        "toml": '[model]\nnetwork = "{name}"',
        "python": "from keras_vae import VAE, networks\n\nnetwork = {call}()\n"
        "vae = VAE(network.encoder((28, 28, 1), 16), network.decoder(16, (28, 28, 1)))",
    },
    "prior": {"toml": '[model]\nprior = "{name}"', "python": _vae("prior={call}()")},
    "posterior": {"toml": '[model]\nposterior = "{name}"', "python": _vae("posterior={call}()")},
    "likelihood": {"toml": '[model]\nlikelihood = "{name}"', "python": _vae("likelihood={call}()")},
    "objective": {"toml": '[model]\nobjective = "{name}"', "python": _vae("objective={call}()")},
    "image_loss": {
        "toml": '[model]\nimage_losses = [{{ name = "{name}" }}]',
        "python": _vae("image_losses=[{call}()]"),
    },
    "quantizer": {
        "toml": '[model]\narchitecture = {{ name = "vq", quantizer = "{name}" }}',
        "python": "from keras_vae import VQVAE, networks, quantizers\n\n"
        "vae = VQVAE.from_network(networks.Conv(), (28, 28, 1), quantizer={call}())",
    },
    "condition": {"toml": '[model]\ncondition = "{name}"', "python": _vae("condition={call}()")},
    "schedule": {
        "toml": '[model]\nobjective = {{ name = "elbo", schedule = "{name}" }}',
        "python": "from keras_vae import VAE, objectives, schedules\n\n"
        "vae = VAE(objective=objectives.ELBO(schedule={call}()))",
    },
}
"""Lines of an experiment file and of Python that select a component, by kind."""

_ANNEALING = {
    "toml": SELECTION["schedule"]["toml"],
    "python": SELECTION["schedule"]["python"].replace("{call}()", "{call}(steps=5000)"),
}
_RATE = '[training]\nschedule = "{name}"'

OTHER_SELECTION: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("architecture", "vq"): {
        "toml": SELECTION["architecture"]["toml"],
        "python": "from keras_vae import VQVAE, networks\n\nvae = VQVAE.from_network(networks.Conv(), (28, 28, 1))",
    },
    ("network", "autoencoder"): {
        "toml": SELECTION["network"]["toml"],
        "python": "from keras_vae import VAE, likelihoods, networks\n\nnetwork = {call}()\n"
        "vae = VAE(\n    network.encoder((64, 64, 3), 4 * 16 * 16),\n    network.decoder(4 * 16 * 16, (64, 64, 3)),\n"
        "    likelihood=likelihoods.Laplace(),\n)",
    },
    ("prior", "flow-matching"): {
        "bash": "vae fit-prior RUN --prior {name}",
        "python": 'from keras_vae import fit_prior\n\nfit_prior(run, prior="{name}")  # a trained run',
    },
    ("prior", "conditional-normal"): {
        "toml": '[model]\nprior = "{name}"\ncondition = "label"',
        "python": "from keras_vae import VAE, conditions, priors\n\n"
        "vae = VAE(prior={call}(), condition=conditions.ClassLabel(classes=10))",
    },
    ("objective", "beta-tc"): {
        "toml": SELECTION["objective"]["toml"],
        "python": _vae("objective={call}(images=60_000)"),
    },
    ("image_loss", "adversarial"): {
        "toml": SELECTION["image_loss"]["toml"],
        "python": _vae("image_losses=[{call}(start=5000)]"),
    },
    ("image_loss", "perceptual"): {
        "toml": SELECTION["image_loss"]["toml"],
        "python": _vae('image_losses=[{call}(features="random")]'),
    },
    ("image_loss", "equivariance"): {
        "toml": '[model]\nnetwork = "autoencoder"\nimage_losses = [{{ name = "{name}" }}]',
        "python": "from keras_vae import VAE, image_losses, networks\n\nnetwork = networks.Autoencoder()\n"
        "vae = VAE(\n    network.encoder((64, 64, 1), 4 * 16 * 16),\n    network.decoder(4 * 16 * 16, (64, 64, 1)),\n"
        "    image_losses=[{call}()],\n)",
    },
    ("quantizer", "residual"): {
        "toml": SELECTION["quantizer"]["toml"],
        "python": "from keras_vae import VQVAE, networks, quantizers\n\n"
        "quantizer = {call}(quantizers.SimVQ(num_codes=256))\n"
        "vae = VQVAE.from_network(networks.Conv(), (28, 28, 1), quantizer=quantizer)",
    },
    ("condition", "vector"): {"python": _vae("condition={call}(size=3)")},
    ("schedule", "warm-up"): _ANNEALING,
    ("schedule", "cyclical"): _ANNEALING,
    ("schedule", "cosine"): {"toml": _RATE},
    ("schedule", "exponential"): {"toml": _RATE},
}
"""The same for components that need arguments, or that are selected elsewhere."""


def _uses(preset: str, kind: str, name: str) -> bool:
    """Return whether the experiment file of a preset names a component."""
    settings = tomllib.loads((PRESETS / f"{preset}.toml").read_text("utf-8"))
    keys = {kind, f"{kind}es"}
    return any(key in keys and name in _names(value) for key, value in _items(settings))


def _items(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        yield key, value
        if isinstance(value, dict):
            yield from _items(value)


def _names(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [entry.get("name") if isinstance(entry, dict) else entry for entry in values]


@cache
def preset_guidance() -> dict[str, str]:
    """Return when not to use each preset, from docs/components.md."""
    return {name: avoid for cell, _, avoid in _table_below("## Presets") for name in re.findall(r"`([\w-]+)`", cell)}


def _preset_page(name: str) -> str:
    file = (PRESETS / f"{name}.toml").read_text("utf-8")
    lines = [
        f"# {name}",
        "",
        f"{tomllib.loads(file)['description']}.",
        "",
        f"**Do not use it** {preset_guidance()[name]}.",
        "",
    ]
    lines += [_run(name), "", "## Experiment file", "", "```toml", file.strip(), "```", ""]
    used = [key for key in guidance() if _uses(name, *key)]
    links = ", ".join(f"[`{component}`](../components/{_page(kind, component)}.md)" for kind, component in used)
    return "\n".join([*lines, f"Its components: {links}.", ""])


def _run(name: str) -> str:
    """Return the figure, the command and the numbers of the run of a preset, from the gallery if it has any."""
    site_path = f"presets/{name}.md"
    page = ROOT / "docs" / "gallery" / f"{name}.md"
    if page.exists():
        text = page.read_text("utf-8").split("\n", 4)[-1]
        return "## A run\n\n" + written(f"docs/gallery/{name}.md", site_path, text)
    gallery = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    section = re.search(rf"^### `{name}`\n(.+?)(?=^### |\Z)", gallery, re.DOTALL | re.MULTILINE)
    if section:
        return "## A run\n\n" + written("docs/gallery.md", site_path, section[1].strip())
    return f"```bash\nvae train {name}\n```\n\nNo run of this preset has been measured for these pages yet."


def _presets() -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {tomllib.loads((PRESETS / f'{name}.toml').read_text('utf-8'))['description']} |"
        for name in preset_names()
    ]
    head = ["# Presets", "", "`vae train NAME` trains a preset: an experiment file that comes with the package.", ""]
    return "\n".join([*head, "| preset | description |", "|---|---|", *rows, ""])

"""Pages of components, from the registry and docs/components.md."""

import dataclasses
import inspect
import re

import keras_vae.models.registration  # noqa: F401  registers the components
from keras_vae.core import registry
from keras_vae.runs.experiment import preset_names
from tools.site.guidance import KINDS, guidance, kind_of, page_of
from tools.site.presets import run_of, uses
from tools.site.selection import selection


def pages() -> dict[str, str]:
    """Return the pages in Markdown, by path."""
    classes = registry.snapshot()
    found = {f"components/{kind}.md": _kind_page(kind) for kind in KINDS}
    return found | {
        f"components/{page_of(*key)}.md": _component_page(*key, classes[key[0]][key[1]]) for key in guidance()
    }


def with_links(text: str) -> str:
    """Return docs/components.md with links from its tables to the pages of components."""
    lines, kind = text.partition("## Presets")[0].split("\n"), ""
    for index, line in enumerate(lines):
        _, first, second, *_ = *line.replace(r"\|", "").split("|"), "", "", ""
        kind = kind_of(first.strip()) or kind
        name = re.match(r" `([\w-]+)`", second)
        if name and (kind, name[1]) in guidance():
            code = name[0].strip()
            lines[index] = line.replace(code, f"[{code}](components/{page_of(kind, name[1])}.md)", 1)
    return "\n".join(lines) + "".join(text.partition("## Presets")[1:])


def documents_of_kind(kind: str) -> list[str]:
    """Return the pages of the components of a kind, in the order of docs/components.md."""
    return [f"components/{page_of(*key)}" for key in guidance() if key[0] == kind]


def _kind_page(kind: str) -> str:
    chosen = {name: texts for (other, name), texts in guidance().items() if other == kind}
    rows = [f"| [`{name}`]({page_of(kind, name)}.md) | {texts.use} |" for name, texts in chosen.items()]
    return "\n".join([f"# {_capital(KINDS[kind])}", "", "| name | use it |", "|---|---|", *rows, ""])


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
    lines += ["## How to select it", "", *selection(kind, name, texts.class_name)]
    rows = [
        f"| `{parameter}` | {_default(cls, value)} | {_to_markdown(meanings.get(parameter, ''))} |"
        for parameter, value in registry.settings(cls).items()
    ]
    if rows:
        lines += ["## Parameters", "", "| parameter | default | meaning |", "|---|---|---|", *rows, ""]
    presets = [preset for preset in preset_names() if uses(preset, kind, name)]
    if presets:
        links = [f"[`{preset}`](../presets/{preset}.md)" for preset in presets]
        lines += ["## Presets that use it", "", f"{', '.join(links)}.", ""]
    pictures = {preset: re.search(r"^!\[.+\]\(.+\)$", run_of(preset), re.MULTILINE) for preset in presets}
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

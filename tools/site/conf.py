"""Configuration of Sphinx."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.inspect import stringify_signature

import keras_vae
from tools.site.api import link
from tools.site.docstrings import to_rst

project = "keras-vae"
author = "The keras-vae authors"
version = release = keras_vae.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns: list[str] = []
nitpicky = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# Tutorials are executed before the build, which also offers them as notebooks.
nb_execution_mode = "off"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call arguments", "params_style")]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "keras-vae"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False

BAR = ('<mo accent="true">_</mo>', '<mo stretchy="true">‾</mo>')
"""The accent that docutils writes for a bar, and one as wide as what is below it."""

PAPER = re.compile(r"arXiv[ \n](\d{4}\.\d{4,5})")


def convert_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring from Markdown, before Napoleon reads its sections."""
    lines[:] = to_rst("\n".join(lines), link).split("\n")


def restore_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undo how Napoleon reads "Whether …: True." in the docstring of a property, as a type and a description."""
    types = [index for index, line in enumerate(lines) if line.startswith(":type: ")]
    if what in ("attribute", "data", "property") and types:
        lines[0] = f"{lines.pop(types[0]).removeprefix(':type: ')}: {lines[0]}"


def sign(app: Sphinx, what: str, name: str, obj: Any, options: Any, *_: Any) -> tuple[str, None] | None:
    """Return the signature of a class: that of its constructor, which Keras hides behind `__new__`."""
    if what != "class" or "__init__" not in vars(obj):
        return None
    _, *parameters = inspect.signature(obj.__init__).parameters.values()
    shown = [
        parameter.replace(default=Ellipsis) if repr(parameter.default) == "<factory>" else parameter
        for parameter in parameters
    ]
    return stringify_signature(inspect.Signature(shown), show_annotation=False), None


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the functions that a class inherits from another package."""
    module = getattr(obj, "__module__", None)
    return True if isinstance(module, str) and not module.startswith("keras_vae") else None


def visit_math(self: Any, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers show without a script or a font from the network."""
    self.body.append(tex2mathml(node.astext(), as_block=False).replace(*BAR))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """Write a displayed formula as MathML."""
    self.body.append(f'<div class="math-block">{tex2mathml(node.astext(), as_block=True).replace(*BAR)}</div>')
    raise nodes.SkipNode


class LinkPapers(SphinxTransform):
    """Links from "arXiv 1312.6114" to the paper."""

    default_priority = 800

    def apply(self, **kwargs: Any) -> None:
        """Replace the numbers of papers in texts by links."""
        for text in list(self.document.findall(nodes.Text)):
            parts = PAPER.split(text.astext())
            if len(parts) == 1 or isinstance(text.parent, nodes.reference | nodes.literal | nodes.literal_block):
                continue
            linked: list[nodes.Node] = [nodes.Text(parts[0])]
            for number, following in zip(parts[1::2], parts[2::2], strict=True):
                paper = nodes.reference("", f"arXiv {number}", refuri=f"https://arxiv.org/abs/{number}")
                linked += [paper, nodes.Text(following)]
            text.parent.replace(text, linked)


def setup(app: Sphinx) -> None:
    """Register the conversion of docstrings, the links to papers and the renderer of formulas."""
    app.add_transform(LinkPapers)
    app.connect("autodoc-process-docstring", convert_docstring, priority=400)
    app.connect("autodoc-process-docstring", restore_colon, priority=600)
    app.connect("autodoc-process-signature", sign)
    app.connect("autodoc-skip-member", skip)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))

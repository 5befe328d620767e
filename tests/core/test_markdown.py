"""Names of users in Markdown files, read by parsers of Markdown and YAML."""

import pytest
from markdown_it import MarkdownIt

from keras_vae.core import markdown

TEXTS = [
    "mnist-2d",
    "my_run_2",
    "<script>alert(1)</script>",
    "![image](http://example.com/x.png)",
    "[link](javascript:x) *bold* _italic_ `code` ~~gone~~",
    "a | b",
    "x\n---\ntitle: other\n# heading",
    "# C#",
    "- item",
    "+ item",
    "1. first",
    "2) second",
    "=====",
    "&lt;b&gt; &amp;",
    "quotes \" and '",
    "back\\slash\\",
    "bell\x07",
    "undecodable\udcff",
    "``` fence",
    "key: [value, {",
    "Zoë → 🔢",
]


def shown(source: str, kind: str) -> str:
    """Return the text of the only element in a Markdown file, a block of the given kind."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source)
    assert [token.type for token in tokens] == [f"{kind}_open", "inline", f"{kind}_close"], source
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    return "".join(child.content for child in children)


@pytest.mark.parametrize("text", TEXTS)
def test_escaped_text_is_displayed_literally(text: str) -> None:
    line = markdown.one_line(text)
    assert line.isprintable()
    assert shown(markdown.escape(text), "paragraph") == line
    assert shown(f"# {markdown.escape(text)}", "heading") == line
    table = MarkdownIt("commonmark").enable("table").parse(f"| {markdown.escape(text)} | b |\n|---|---|\n")
    assert [token.type for token in table].count("th_open") == 2


@pytest.mark.parametrize("text", TEXTS)
def test_text_as_code_is_one_code_span_or_one_block(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(markdown.code(text))
    (child,) = tokens[1].children or []
    assert (child.type, child.content) == ("code_inline", markdown.one_line(text))
    (block,) = MarkdownIt("commonmark").parse(markdown.code_block(f"{text}\n```\nx"))
    assert block.type == "fence"


@pytest.mark.parametrize("text", TEXTS)
def test_yaml_parser_reads_the_text_back(text: str) -> None:
    yaml = pytest.importorskip("yaml")
    front_matter = f"title: {markdown.yaml_string(text)}\nsdk: gradio\n"
    assert yaml.safe_load(front_matter) == {"title": markdown.one_line(text), "sdk": "gradio"}

"""Build the documentation site. A warning, such as a dead link, fails the build.

python -m tools.site                 # writes build/docs/html
python -m tools.site --out FOLDER
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from sphinx.cmd.build import main as sphinx

from keras_vae.core.errors import InputError, RunError
from keras_vae.explorer import write_web_page
from tools.site import api, components, navigation, pages, presets, tutorials


def sources() -> dict[str, str]:
    """Return all pages, by their paths on the site."""
    texts = pages.pages() | tutorials.pages() | components.pages() | presets.pages() | api.pages()
    texts["components.md"] = presets.with_links(components.with_links(texts["components.md"]), "presets/")
    texts["gallery.md"] = presets.with_links(texts["gallery.md"], "presets/")
    for path, table_of_contents in navigation.appended().items():
        texts[path] += table_of_contents
    return texts


def write_latent_map(folder: Path) -> bool:
    """Write a latent map that decodes in the browser, and return whether ONNX Runtime Web is available for it."""
    try:
        write_web_page("mnist-2d", folder)
    except (InputError, RunError) as error:
        print(f"The front page shows a picture instead of the latent map: {error}", file=sys.stderr)
        return False
    return True


def build(out: Path) -> int:
    """Write the sources and the site into a folder, and return the exit status of Sphinx.

    Args:
        out: The folder. Its folders `source`, `extra` and `html` are replaced.
    """
    source, extra, html = out / "source", out / "extra", out / "html"
    for folder in (source, extra, html):
        shutil.rmtree(folder, ignore_errors=True)
    extra.mkdir(parents=True)
    texts = sources()
    if write_latent_map(extra / "latent-map"):
        texts["index.md"] = pages.with_latent_map(texts["index.md"])
    for path, text in texts.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text, "utf-8")
    for path, picture in pages.pictures().items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, source / path)
    for path, content in tutorials.pictures().items():
        (source / path).write_bytes(content)
    for path, notebook in tutorials.downloads().items():
        (extra / path).parent.mkdir(exist_ok=True)
        (extra / path).write_text(notebook, "utf-8")
    configuration = ["-c", str(Path(__file__).parent), "-d", str(out / "doctrees"), "-D", f"html_extra_path={extra}"]
    return sphinx(["--fail-on-warning", "--fresh-env", "--quiet", *configuration, str(source), str(html)])


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=pages.ROOT / "build" / "docs")
    out = parser.parse_args().out
    status = build(out)
    if status == 0:
        print(f"Open   {out / 'html' / 'index.html'}")
    sys.exit(status)


if __name__ == "__main__":
    main()

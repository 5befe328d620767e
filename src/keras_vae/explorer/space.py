"""Export of a run's explorer as a Hugging Face Space."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

from keras_vae import __version__
from keras_vae.core.errors import InputError
from keras_vae.core.files import check_destination, replacing_folder, write_text
from keras_vae.core.markdown import escape, yaml_string
from keras_vae.integrations.hub import copy_files
from keras_vae.runs.run import Run

_APP = '''"""Explore the model in run/. Written by `vae export --format space`."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from keras_vae.explorer import serve

if __name__ == "__main__":
    here = Path(__file__).parent
    serve(here / "run", host="0.0.0.0", port=int(os.environ.get("PORT", "7860")))
'''

_PACKAGES = (
    "keras",
    "tensorflow-cpu",
    "gradio",
    "jinja2",
    "matplotlib",
    "numpy",
    "pillow",
    "pydantic",
    "rich",
    "scikit-learn",
    "tomli-w",
)


def write_space(run: Run, out: Path, *, force: bool = False) -> Path:
    """Write a folder that serves the explorer of a run when it is pushed to a Hugging Face Space.

    The folder contains `app.py`, `requirements.txt`, `README.md`, `LICENSE`, the run without its training data in
    `run/`, and a copy of this package, so that the Space runs the same code.

    Args:
        run: A complete run.
        out: The folder.
        force: Replaces an existing Space.

    Returns:
        The folder.

    Raises:
        InputError: The run is not complete, one of its files is a link that leaves it, or the folder exists.
        RunError: Another process writes to the run or the folder, or the folder cannot be written.
    """
    run.require_complete()
    check_destination(out, force=force, marker="app.py", kind="Space")
    with replacing_folder(out, replace=force) as folder:
        write_text(folder / "app.py", _APP)
        write_text(folder / "requirements.txt", "".join(f"{name}=={_version(name)}\n" for name in _PACKAGES))
        write_text(folder / "README.md", _readme(run))
        write_text(folder / "LICENSE", importlib.metadata.distribution("keras-vae").read_text("licenses/LICENSE") or "")
        copy_files(run, folder / "run")
        # The pretrained weights in the package are not needed.
        unwanted = shutil.ignore_patterns("__pycache__", "*.keras", "*.npz")
        shutil.copytree(Path(__file__).parents[1], folder / "keras_vae", ignore=unwanted)
    return out


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # TensorFlow is installed under another name on this machine: use its version.
        return importlib.metadata.version("tensorflow") if name == "tensorflow-cpu" else _missing(name)


def _missing(name: str) -> str:
    raise InputError(f"format = space: {name} is not installed; pip install 'keras-vae[explore]'") from None


def _readme(run: Run) -> str:
    return f"""---
title: {yaml_string(run.name)}
emoji: 🔢
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: {_version("gradio")}
python_version: "{sys.version_info.major}.{sys.version_info.minor}"
app_file: app.py
license: apache-2.0
tags: [variational-autoencoder, keras]
---
# {escape(run.name)}

{escape(run.experiment.description)}

An explorer for the model in `run/`, which was trained with keras-vae {__version__} (included in `keras_vae/`).
The training data is not included: if it is not available, samples are shown without their nearest training images.
`python app.py` serves the page on any machine; set the port with the environment variable `PORT`.
"""

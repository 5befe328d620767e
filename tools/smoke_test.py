"""Install a wheel into an empty environment, run every command of `vae` there, and open every pretrained model.

    make dist
    python tools/smoke_test.py dist/*.whl              # borrows the dependencies of this interpreter
    python tools/smoke_test.py dist/*.whl --install    # installs the dependencies from the package index

The commands run in a temporary folder, away from the checkout. `COMMANDS` must contain a call of every command.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path

SETTINGS = ("model.network.widths=[2,3]", "model.network.dense_units=4", "training.epochs=1", "training.batch_size=8")
SMALL = " ".join(f"--set {setting}" for setting in SETTINGS)
PARTS = '''
from dataclasses import dataclass
from keras_vae import priors, register

@register("plain")
@dataclass(frozen=True)
class Plain(priors.StandardNormal):
    """A prior of the user."""
'''
SWEEP = """
[model]
network = { name = "conv", widths = [2, 3], dense_units = 4 }

[training]
epochs = 1
batch_size = 8

[sweep]
sampler = "grid"

[sweep.space]
"model.latent_dim" = [1, 2]
"""
COMMANDS = {
    "presets": ["presets"],
    "data": ["data images.npz"],
    "data pack": ["data pack images.npz packed.npy"],
    "train": [
        f"train classic --data images.npz --out run {SMALL}",
        f"train conditional --data images.npz --out custom --import parts.py --set model.prior=plain {SMALL}",
    ],
    "trust": ["trust custom"],
    "info": ["info run"],
    "evaluate": ["evaluate run --samples 4 --num-generated 16 --features random"],
    "compare": ["compare run custom --out compared"],
    "doctor": ["doctor run"],
    "plot": ["plot run grid -n 3 --out grid.png"],
    "sample": ["sample custom -n 4 --label 1 --out samples.png"],
    "fit-prior": ["fit-prior run --prior mixture --epochs 1"],
    "encode": ["encode run --out codes.csv"],
    "reconstruct": ["reconstruct run -n 2 --out reconstructed.png"],
    "impute": ["impute run -n 2 --mask mask.npy --samples 4 --out imputed.npz"],
    "score": ["score run --samples 4 -n 2 --out scores.csv"],
    "export": ["export run --format keras"],
    "sweep": ["sweep sweep.toml --data images.npz --trials 1 --out swept"],
    "push": ["push run someone/run"],
    "pull": ["pull someone/run --out pulled"],
    "explore": ["explore mnist-2d --port 0"],
}
"""Calls of each command of `vae`, in the order in which they run."""

PACKAGES = {"sweep": "optuna", "push": "huggingface_hub", "pull": "huggingface_hub", "explore": "gradio"}
"""Optional dependency of a command. Without it, the command is a wrong call, with exit code 2."""


def main() -> None:
    """Test the wheel, or, inside of its environment, the installed package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, nargs="?", help="the wheel; none tests the installed package")
    parser.add_argument("--install", action="store_true", help="install the dependencies, which takes minutes")
    arguments = parser.parse_args()
    if arguments.wheel is None:
        test_package()
        return
    with tempfile.TemporaryDirectory(prefix="smoke-test-") as folder:
        python = install(arguments.wheel.resolve(), Path(folder) / "environment", dependencies=arguments.install)
        work = Path(folder) / "work"
        work.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        call([python, "-P", Path(__file__).resolve()], cwd=work, env=environment)


def install(wheel: Path, folder: Path, *, dependencies: bool) -> Path:
    """Create an environment with the wheel, and return its interpreter."""
    call([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    if dependencies:
        call([*pip, "install", "--quiet", wheel])
    else:
        # A path in a .pth file is searched last, and the .pth files in it, such as those of editable installations,
        # are ignored.
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        call([*pip, "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", wheel])
    return python


def call(words: list[object], **options: object) -> None:
    """Run a program; exit if it fails."""
    if code := subprocess.run([str(word) for word in words], check=False, **options).returncode:
        sys.exit(code)


def test_package() -> None:
    """Run the commands of the installed package in the working folder."""
    import keras_vae

    if not Path(keras_vae.__file__).is_relative_to(sys.prefix):
        sys.exit(f"keras_vae was imported from {keras_vae.__file__}, not from the environment {sys.prefix}")
    check_complete()
    program = Path(sys.executable).with_name("vae")
    shown = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if shown != keras_vae.__version__:
        sys.exit(f"vae --version printed {shown}, but the version is {keras_vae.__version__}")
    # The Hub must not be reached, and the home folder of the user must not change.
    os.environ |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "none", "HF_HOME": ".", "KERAS_HOME": "."}
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    write_inputs()
    for name, calls in COMMANDS.items():
        for words in calls:
            print(f"vae {words}", flush=True)
            if name in PACKAGES and find_spec(PACKAGES[name]) is None:
                run(words, expected=2)
            elif name == "explore":
                explore(program, words)
            else:
                run(words, expected=1 if name in ("push", "pull") else 0)
    open_pretrained()


def check_complete() -> None:
    """Exit unless `COMMANDS` has a call of every command of the application."""
    import typer.main

    from keras_vae.cli import app

    commands = set(typer.main.get_command(app).commands)
    if difference := commands ^ COMMANDS.keys():
        sys.exit(f"COMMANDS of {Path(__file__).name} and `vae --help` differ by: {', '.join(sorted(difference))}")


def write_inputs() -> None:
    """Write images with labels, a mask, a component and a sweep into the working folder."""
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (48, 8, 8), dtype="uint8")
    np.savez("images.npz", x_train=images[:32], y_train=np.arange(32) % 2, x_test=images[32:], y_test=np.arange(16) % 2)
    np.save("mask.npy", np.arange(8) < 4 * np.ones((8, 1)))
    Path("parts.py").write_text(PARTS)
    Path("sweep.toml").write_text(SWEEP)


def run(words: str, expected: int) -> None:
    """Run `vae …` in this process, which imports Keras only once; exit on an unexpected exit code."""
    from keras_vae import cli

    sys.argv = ["vae", *shlex.split(words)]
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    if code != expected:
        sys.exit(f"vae {words}: exit code {code} instead of {expected}")


def explore(program: Path, words: str) -> None:
    """Serve the explorer, request its page, and interrupt it."""
    server = subprocess.Popen([program, *shlex.split(words)], stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        with urllib.request.urlopen(address, timeout=60) as page:
            if b"<gradio-app" not in page.read():
                sys.exit(f"{address} is not the page of the explorer")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def open_pretrained() -> None:
    """Load every pretrained model and draw an image."""
    import keras_vae
    from keras_vae.runs.files import pretrained_names

    for name in pretrained_names():
        print(f"keras_vae.load({name!r})", flush=True)
        model = keras_vae.load(name)
        if model.sample(1, seed=0).shape != (1, *model.image_shape):
            sys.exit(f"{name}: sample has another shape than {model.image_shape}")


if __name__ == "__main__":
    main()

"""Results of long measurements: their folder, the processes that measure them, the machine, and their page."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError, RunError

ROOT = Path(__file__).parents[1]
"""The root of the repository, from which processes start."""

PACKAGES = ("keras-vae", "keras", "tensorflow-cpu", "tensorflow", "jax", "torch", "pythae", "numpy")
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")

Row = dict[str, Any]


def require_folder(out: Path, file: str) -> None:
    """Create a folder of results, or accept one that contains results.

    Args:
        out: The folder.
        file: Name of the file with the results, by which their folder is recognized.

    Raises:
        InputError: The folder cannot be written, or contains other files.
    """
    if out.exists() and (not out.is_dir() or (not (out / file).exists() and any(out.iterdir()))):
        raise InputError(f"--out = {out}: exists, and is no folder of results; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"--out = {out}: cannot be written ({error.strerror}); choose another folder") from error


def measured_rows(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Run Python in a process, yield the JSON object of each line that is one, and copy all lines to stderr.

    Args:
        command: Arguments of Python.
        environment: Further environment variables.

    Raises:
        RunError: The process failed.
    """
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"  {line}", end="", file=sys.stderr, flush=True)
            if line.startswith("{"):
                yield json.loads(line)
    if process.returncode:
        raise RunError(f"python {' '.join(command)}: failed with exit code {process.returncode}; see its messages")


def exit_code(program: str, call: Callable[[], str]) -> int:
    """Call a function and print its text; turn its errors into one line on stderr. Return the exit code.

    Args:
        program: Name of the program, for messages.
        call: The function.
    """
    try:
        text = call()
    except (InputError, RunError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(text, end="")
    return 0


def replace_between(text: str, start: str, end: str, content: str) -> str:
    r"""Return a text with other content between two markers.

    Args:
        text: The text, which contains both markers once.
        start: The first marker.
        end: The second marker.
        content: The new content.

    Raises:
        InputError: A marker does not occur exactly once, or the markers are in the wrong order.

    Example:
        >>> replace_between("before <a>\n\nold\n\n<b> after", "<a>", "<b>", "new")
        'before <a>\n\nnew\n\n<b> after'
    """
    for marker in (start, end):
        if text.count(marker) != 1:
            raise InputError(f"page: contains the marker {marker} {text.count(marker)} times; it must occur once")
    before, _, rest = text.partition(start)
    if end not in rest:
        raise InputError(f"page: {end} is before {start}; restore their order")
    return f"{before}{start}\n\n{content}\n\n{end}{rest.partition(end)[2]}"


def machine() -> dict[str, Any]:
    """Return a description of the machine that does not identify it."""
    model, flags = platform.processor() or platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        fields = {key.strip().lower(): value.strip() for key, _, value in lines}
        model = fields.get("model name", model)
        flags = set(fields.get("flags", fields.get("features", "")).split())
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model,
        "cores": cores,
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "versions": versions,
    }

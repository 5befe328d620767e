"""Settings that must be made before a backend starts: its kernels, its memory allocator and its log messages.

docs/performance.md reports the gains. Settings of the user take precedence.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pkgutil
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_ALLOCATOR = {
    # By default, glibc returns large blocks to the system, so that each training step of JAX and PyTorch on a CPU waits
    # for tens of thousands of pages to be mapped and zeroed again. TensorFlow's blocks are smaller and are kept.
    -8: 1,  # M_ARENA_MAX: use one heap for all threads, because other heaps cannot hold blocks above 64 MiB.
    -4: 0,  # M_MMAP_MAX: allocate no block outside of the heap.
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: never return the end of the heap.
    -2: 2**28,  # M_TOP_PAD: grow the heap in large steps; untouched pages take no memory.
}


def prepare() -> None:
    """Enable oneDNN's kernels in TensorFlow on x86, and let JAX and PyTorch on glibc keep the memory that a step frees.

    JAX on a GPU computes bitwise equal results in every run, so that an interrupted training resumes exactly.

    TensorFlow does not log information, such as the use of oneDNN, unless the user sets `TF_CPP_MIN_LOG_LEVEL=0`.

    By default, TensorFlow uses oneDNN only on x86 processors with the neural network instructions of AVX-512, but its
    convolutions are faster on other x86 processors, too.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())
    backend = _configured_backend()
    if backend != "tensorflow":
        _keep_freed_memory()
    if backend == "jax" and _jax_selects_gpu():
        _make_xla_deterministic()


class _QuietImport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Applies `TF_CPP_MIN_LOG_LEVEL` to the messages that TensorFlow logs during its import, before it reads it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the specification of TensorFlow with this object as its loader; return None for other modules."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == "tensorflow" else None
        if spec is not None:
            self._loader: Any = spec.loader
            spec.loader = self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return the module that TensorFlow's own loader creates."""
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        """Import the module with its own loader, and remove this object from the search path."""
        sys.meta_path.remove(self)
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _filtered_log(os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0")):
            self._loader.exec_module(module)


@contextlib.contextmanager
def _filtered_log(level: str) -> Iterator[None]:
    """Hold back what is written to the standard error output, and then write it without messages below a level."""
    hidden = "IWE"[: int(level)] if level.isdecimal() else ""
    try:
        stderr = os.dup(2) if hidden else None
    except OSError:
        stderr = None  # The program has no standard error output.
    if stderr is None:
        yield
        return
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            messages.seek(0)
            pattern = rb"WARNING: All log messages before absl|[%s]\d{4} " % hidden.encode()
            for line in messages:
                if not re.match(pattern, line):
                    os.write(2, line)


def _configured_backend() -> str:
    """Return the backend that Keras will use, from the same environment variable and file."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    folder = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    try:
        return str(json.loads((folder / "keras.json").read_text("utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def _keep_freed_memory() -> None:
    """Configure the allocator if it is glibc's and the user has not configured it.

    This package must be imported first: threads that started earlier have separate heaps, which a backend may reuse.
    """
    is_set = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and not is_set:
        for parameter, value in _ALLOCATOR.items():
            mallopt(parameter, value)


def _jax_selects_gpu() -> bool:
    """Return whether JAX will compute on a GPU: `JAX_PLATFORMS` names one, or is not set and a plugin is installed."""
    platforms = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME")
    if not platforms:
        plugins = importlib.util.find_spec("jax_plugins")
        paths = plugins.submodule_search_locations if plugins else None
        platforms = ",".join(module.name for module in pkgutil.iter_modules(paths)) if paths else ""
    return any(kind in platforms.lower() for kind in ("cuda", "rocm", "gpu"))


def _make_xla_deterministic() -> None:
    """Append XLA's flag for deterministic kernels on GPUs, unless the user has set it or a weaker one.

    It also turns off autotuning, which may select other kernels in the process that resumes a training.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not re.search(r"--xla_gpu_(deterministic|exclude_nondeterministic)_ops\b", flags):
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()

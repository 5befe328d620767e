"""Settings that must be made before a backend starts: its kernels and its memory allocator.

docs/performance.md reports the gains. Settings of the user take precedence.
"""

import ctypes
import json
import os
import platform
import sys
from pathlib import Path

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

    By default, TensorFlow uses oneDNN only on x86 processors with the neural network instructions of AVX-512, but its
    convolutions are faster on other x86 processors, too.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if _configured_backend() != "tensorflow":
        _keep_freed_memory()


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

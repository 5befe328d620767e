"""What a backend must be told before it starts: which kernels to take, and to keep its memory.

docs/performance.md has what both gain. What the user has set stays.
"""

import ctypes
import json
import os
import platform
import sys
from pathlib import Path

_ALLOCATOR = {
    # By itself glibc gives large blocks back to the system, and every step of JAX and PyTorch on a CPU waits for tens
    # of thousands of pages to be handed out and zeroed again. TensorFlow's blocks are smaller and stay.
    -8: 1,  # M_ARENA_MAX: one heap for all threads, since no other holds blocks above 64 MiB,
    -4: 0,  # M_MMAP_MAX: no block outside it,
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: and its end is not cut off,
    -2: 2**28,  # M_TOP_PAD: but grows in strides; what is not touched takes no memory.
}


def prepare() -> None:
    """Have TensorFlow take oneDNN's kernels, and JAX and PyTorch keep the memory that a step frees, where they can.

    Left alone, TensorFlow takes oneDNN only on x86 processors with AVX-512's neural network instructions; its
    convolutions are the faster ones elsewhere, too.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if _backend_to_come() != "tensorflow":
        _keep_freed_memory()


def _backend_to_come() -> str:
    """Return what Keras will compute with, read from where it looks itself."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    folder = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    try:
        return str(json.loads((folder / "keras.json").read_text("utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def _keep_freed_memory() -> None:
    """Set the allocator, where it is glibc's and the user has not.

    Threads that ran before have heaps of their own, which a backend's threads may take over: import this package first.
    """
    is_set = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and not is_set:
        for parameter, value in _ALLOCATOR.items():
            mallopt(parameter, value)

"""oneDNN's kernels, which TensorFlow leaves off on x86 processors without AVX-512's neural network instructions.

Its convolutions are the faster ones there, too; docs/performance.md has the numbers.
"""

import os
import platform


def prefer() -> None:
    """Have TensorFlow take them, unless the user has said otherwise; it reads the variable when it is imported."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

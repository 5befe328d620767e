"""Use of the codes: how many a batch or a data set uses, and how evenly."""

import numpy as np
from keras import ops

from keras_vae.core.typing import Array, Tensor


def codebook_usage(indices: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    r"""Return the perplexity \(e^{H}\) of the codes in a batch, and the number of distinct codes.

    Args:
        indices: Indices of codes, of any shape.
        num_codes: Number of codes.

    Example:
        >>> perplexity, used_codes = codebook_usage(ops.convert_to_tensor([[0, 1], [0, 1]]), num_codes=4)
        >>> round(float(perplexity), 3), int(used_codes)
        (2.0, 2)
    """
    flat = ops.reshape(indices, (-1,))
    # Not by one-hot vectors, which would not fit in memory for thousands of codes.
    frequencies = ops.segment_sum(ops.ones_like(flat, dtype="float32"), flat, num_codes)
    frequencies = frequencies / ops.sum(frequencies)
    entropy = -ops.sum(frequencies * ops.log(ops.maximum(frequencies, 1e-20)))
    return ops.exp(entropy), ops.sum(ops.cast(frequencies > 0, "float32"))


def perplexity(counts: Array) -> float:
    r"""Return the perplexity \(e^{H}\) of codes that were counted, between 1 and the number of used codes.

    Args:
        counts: How often each code is used.

    Example:
        >>> perplexity(np.array([3, 3, 0]))
        2.0
    """
    frequencies = counts[np.nonzero(counts)] / counts.sum()
    return float(np.exp(-(frequencies * np.log(frequencies)).sum()))

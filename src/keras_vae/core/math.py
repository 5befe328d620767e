"""Arithmetic with gradients of its own."""

import functools
from collections.abc import Callable

from keras import ops

from keras_vae.core.typing import Tensor

_MOST_FACTORS = 126  # 2⁻¹²⁶ is the least normal float32.


def clip_keeping_gradients(x: Tensor, low: float, high: float) -> Tensor:
    """Return x within bounds, differentiated as if there were none, so that what is outside can come back.

    Args:
        x: Any shape.
        low: The least value.
        high: The greatest value.

    Returns:
        The same shape; exactly x where it lies within the bounds.

    Example:
        >>> float(clip_keeping_gradients(ops.convert_to_tensor(3.0), 0.0, 1.0))
        1.0
    """
    return x + ops.stop_gradient(ops.clip(x, low, high) - x)


def scale_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """Return x itself, its gradient multiplied by a factor.

    Args:
        x: Any shape.
        factor: Broadcastable to it; not differentiated.

    Returns:
        The same shape.

    Example:
        >>> float(scale_gradient(ops.convert_to_tensor(3.0), 0.5))
        3.0
    """
    constant = ops.stop_gradient(x)
    return constant + ops.stop_gradient(factor) * (x - constant)


def differentiated_by(gradient: Callable[..., Tensor]) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator of functions whose gradient is written out, for where a backend's own takes a longer way.

    Args:
        gradient: Takes the gradient of the output and the arguments, and returns the gradients of these.

    Returns:
        The decorator of a function of tensors.

    Example:
        >>> cube = differentiated_by(lambda upstream, x: 3 * x**2 * upstream)(lambda x: x**3)
        >>> float(cube(ops.convert_to_tensor(2.0)))
        8.0
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @ops.custom_gradient
        def both_ways(*arguments: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            def backwards(*given: Tensor, upstream: Tensor = None) -> Tensor:
                # PyTorch passes it by name, behind the arguments.
                return gradient(given[0] if upstream is None else upstream, *arguments)

            return function(*arguments), backwards

        @functools.wraps(function)
        def differentiated(*arguments: Tensor) -> Tensor:
            return both_ways(*arguments)

        return differentiated

    return decorate


@differentiated_by(lambda upstream, logits: upstream[..., None] * ops.sign(logits) * ops.sigmoid(-ops.abs(logits)))
def log_prob_of_likelier(logits: Tensor) -> Tensor:
    r"""Return \(\sum_i \log \sigma(|l_i|)\) over the last axis: of the likelier value of each of S bits.

    As \(\tfrac12 \le \sigma(|l|) \le 1\), a product of 126 of them is still a normal float: its logarithm is as
    exact as the sum of theirs, and there are fewer to take.

    Args:
        logits: (…, S), float32; where S is not known, each has its own logarithm.

    Returns:
        (…).

    Example:
        >>> round(float(log_prob_of_likelier(ops.zeros((3,)))), 4)  # 3·ln ½
        -2.0794
    """
    size = logits.shape[-1] or 1
    factors = max(count for count in range(1, _MOST_FACTORS + 1) if size % count == 0)
    likelier = ops.reshape(ops.sigmoid(ops.abs(logits)), (*ops.shape(logits)[:-1], -1, factors))
    return ops.sum(ops.log(ops.prod(likelier, axis=-1)), axis=-1)

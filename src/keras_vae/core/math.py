"""Functions with custom gradients."""

import functools
from collections.abc import Callable, Sequence

from keras import ops

from keras_vae.core.typing import Tensor

_MAX_FACTORS = 126  # 2⁻¹²⁶ is the smallest normal float32.
_MIN_NORM, _MAX_BALANCE = 1e-4, 1e4  # As Esser et al., arXiv 2012.09841.


def clip_keeping_gradients(x: Tensor, low: float, high: float) -> Tensor:
    """Clip x to [low, high], with the gradient of the identity, so that values outside can return.

    Args:
        x: Tensor of any shape.
        low: Minimum.
        high: Maximum.

    Returns:
        Tensor of the same shape; exactly x inside the bounds.

    Example:
        >>> float(clip_keeping_gradients(ops.convert_to_tensor(3.0), 0.0, 1.0))
        1.0
    """
    return x + ops.stop_gradient(ops.clip(x, low, high) - x)


def scale_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """Return x unchanged, with its gradient multiplied by a factor.

    Args:
        x: Tensor of any shape.
        factor: Broadcastable to x; not differentiated.

    Returns:
        Tensor of the same shape.

    Example:
        >>> float(scale_gradient(ops.convert_to_tensor(3.0), 0.5))
        3.0
    """
    constant = ops.stop_gradient(x)
    return constant + ops.stop_gradient(factor) * (x - constant)


def with_gradient(gradient: Callable[..., Tensor]) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator that sets the gradient of a function, for use if automatic differentiation is slower.

    Args:
        gradient: Maps the upstream gradient and the arguments to the gradients of the arguments.

    Returns:
        A decorator for functions of tensors.

    Example:
        >>> cube = with_gradient(lambda upstream, x: 3 * x**2 * upstream)(lambda x: x**3)
        >>> float(cube(ops.convert_to_tensor(2.0)))
        8.0
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @ops.custom_gradient
        def value_and_gradient(*arguments: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            def backward(*positional: Tensor, upstream: Tensor = None) -> Tensor:
                # PyTorch passes the upstream gradient by keyword, and the arguments by position.
                return gradient(positional[0] if upstream is None else upstream, *arguments)

            return function(*arguments), backward

        @functools.wraps(function)
        def wrapper(*arguments: Tensor) -> Tensor:
            return value_and_gradient(*arguments)

        return wrapper

    return decorate


def balanced_copies(x: Tensor, weights: Sequence[float]) -> list[Tensor]:
    r"""Return copies of x for several losses, with a gradient in which the losses are balanced.

    \[g = g_0 + \sum_i \lambda_i g_i, \quad \lambda_i = \min\Big(10^4, \frac{\|g_0\|}{\|g_i\| / w_i + 10^{-4}}\Big)\]

    The sum is computed within the backward pass, which remains a single one. Norms are over the whole batch.

    Args:
        x: Tensor of any shape, float32.
        weights: Weights \(w_i > 0\) of the losses of all copies but the first; their gradients contain the weights.

    Returns:
        The first copy, for the losses that define the scale; then one copy per weight.
    """

    def gradient(upstream: Tensor, _: Tensor) -> Tensor:
        total, scale = upstream[0], _norm(upstream[0])
        for index, weight in enumerate(weights, 1):
            factor = scale / (_norm(upstream[index]) / weight + _MIN_NORM)
            total = total + ops.minimum(factor, _MAX_BALANCE) * upstream[index]
        return total

    copies = with_gradient(gradient)(lambda x: ops.stack([x] * (len(weights) + 1)))(x)
    return [copies[index] for index in range(len(weights) + 1)]


def _norm(x: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(x)))


@with_gradient(lambda upstream, logits: upstream[..., None] * ops.sign(logits) * ops.sigmoid(-ops.abs(logits)))
def log_prob_of_mode(logits: Tensor) -> Tensor:
    r"""Return \(\sum_i \log \sigma(|l_i|)\), the log-probability of the more likely value of each of S bits.

    Since \(\tfrac12 \le \sigma(|l|) \le 1\), a product of up to 126 factors is a normal float. Its logarithm is as
    exact as the sum of 126 logarithms, and costs as much as one.

    Args:
        logits: (…, S), float32. If S is unknown, one logarithm is computed per factor.

    Returns:
        The sum over the last axis, (…).

    Example:
        >>> round(float(log_prob_of_mode(ops.zeros((3,)))), 4)  # 3·ln ½
        -2.0794
    """
    size = logits.shape[-1] or 1
    factors = max(count for count in range(1, _MAX_FACTORS + 1) if size % count == 0)
    probs = ops.reshape(ops.sigmoid(ops.abs(logits)), (*ops.shape(logits)[:-1], -1, factors))
    return ops.sum(ops.log(ops.prod(probs, axis=-1)), axis=-1)

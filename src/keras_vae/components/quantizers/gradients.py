"""Gradient estimators of quantization, whose own gradient is zero almost everywhere."""

from typing import Literal

from keras import ops

from keras_vae.core.typing import Tensor

Gradient = Literal["straight-through", "rotation"]

GRADIENTS: tuple[Gradient, ...] = ("straight-through", "rotation")
"""Names of the gradient estimators."""

_SMALLEST_NORM = 1e-6
"""Smallest norm of a vector by which the rotation divides."""


def pass_gradient(outputs: Tensor, vectors: Tensor, gradient: Gradient) -> Tensor:
    r"""Return code vectors whose gradient reaches the encoder outputs that they replace.

    `"straight-through"` copies the gradient of a code vector to the output (Bengio et al., arXiv 1308.3432).
    `"rotation"` treats the code vector q as the output e, rotated and scaled: \(q = \lambda R e\) with constant
    \(\lambda = \|q\| / \|e\|\) and R, the rotation from e to q in their plane (Fifty et al., arXiv 2410.06424). The
    gradient is then \(\lambda R^\top \nabla_q\), which keeps the angle between gradient and vector.

    Args:
        outputs: Encoder outputs, (…, D).
        vectors: Code vectors, (…, D). They receive no gradient.
        gradient: Name of the estimator.

    Returns:
        The values of `vectors`, (…, D).

    Example:
        >>> vectors = pass_gradient(ops.ones((1, 2)), ops.convert_to_tensor([[2.0, 0.0]]), "rotation")
        >>> [round(float(value), 6) for value in vectors[0]]
        [2.0, 0.0]
    """
    estimate = _rotate(outputs, ops.stop_gradient(vectors)) if gradient == "rotation" else outputs
    return estimate + ops.stop_gradient(vectors - estimate)


def _rotate(outputs: Tensor, vectors: Tensor) -> Tensor:
    """Return λRe as a linear function of the outputs e, with constant λ and R."""
    fixed = ops.stop_gradient(outputs)
    norm, vector_norm = (ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)) for x in (fixed, vectors))
    unit, vector_unit = fixed / ops.maximum(norm, _SMALLEST_NORM), vectors / ops.maximum(vector_norm, _SMALLEST_NORM)
    middle = unit + vector_unit
    middle_norm = ops.sqrt(ops.sum(ops.square(middle), axis=-1, keepdims=True))
    middle = middle / ops.maximum(middle_norm, _SMALLEST_NORM)
    # R = I − 2 m mᵀ + 2 q eᵀ, with unit vectors e, q and m, the bisector of e and q.
    rotated = (
        outputs
        - 2.0 * ops.sum(outputs * middle, axis=-1, keepdims=True) * middle
        + 2.0 * ops.sum(outputs * unit, axis=-1, keepdims=True) * vector_unit
    )
    return rotated * (vector_norm / ops.maximum(norm, _SMALLEST_NORM))

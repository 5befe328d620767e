"""Compiled functions, gradients and tensors of the backend."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_vae.core.backend.distribution import map_rows
from keras_vae.core.backend.hardware import name


def compiled(function: Callable[[Any], Any], variables: Sequence[Any], *, xla: bool = False) -> Callable[[Any], Any]:
    """Return a compiled function, whose results stay on the device.

    It is compiled once per shape of the inputs, and on TensorFlow without XLA once for all shapes. Later changes of the
    variables take effect.

    Args:
        function: Maps a nested structure of tensors with N rows to another one, row by row: on several devices, each
            computes some of the rows; see `map_rows`. It changes no variables.
        variables: The Keras variables that the function reads.
        xla: Whether TensorFlow compiles with XLA, which is faster for loops of many small operations.

    Returns:
        A function of a nested structure of NumPy arrays that returns tensors.

    Example:
        >>> import numpy as np
        >>> double = compiled(lambda inputs: 2 * inputs["x"], [])
        >>> float(double({"x": np.float32(1.5)}))
        3.0
    """
    backends = {"tensorflow": _compiled_tensorflow, "jax": _compiled_jax, "torch": _compiled_torch}
    return backends[name()](function, variables, xla)


def _compiled_tensorflow(function: Any, variables: Sequence[Any], xla: bool) -> Any:
    import tensorflow as tf

    # As in training steps of Keras, Python's control flow remains as it is. Converting it would take seconds.
    compute = tf.function(function, autograph=False, reduce_retracing=True, jit_compile=xla or None)
    # A NumPy array would be a constant of the graph in some versions, so that each array would trace it again.
    return lambda inputs: compute(tf.nest.map_structure(tf.convert_to_tensor, inputs))


def _compiled_jax(function: Any, variables: Sequence[Any], xla: bool) -> Any:
    import jax

    def stateless(inputs: Any, state: Sequence[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, state, strict=True))):
            return function(inputs)

    compute = jax.jit(stateless)
    return lambda inputs: map_rows(lambda rows: compute(rows, [variable.value for variable in variables]), inputs)


def _compiled_torch(function: Any, variables: Sequence[Any], xla: bool) -> Any:
    import torch

    def compute(inputs: Any) -> Any:
        with torch.no_grad():
            return function(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs))

    return compute


def write_position(sequences: Any, position: Any, values: Any) -> Any:
    """Return sequences with new values at one position. With PyTorch, this changes the sequences, without a copy.

    Args:
        sequences: A tensor (N, length, …).
        position: The position, an integer or a scalar tensor.
        values: The new values, (N, …).

    Example:
        >>> import numpy as np
        >>> keras.ops.convert_to_numpy(write_position(keras.ops.zeros((1, 3)), 1, keras.ops.ones(1))).tolist()
        [[0.0, 1.0, 0.0]]
    """
    if name() == "torch":
        sequences[:, position] = values
        return sequences
    start = [0, position, *[0] * (len(sequences.shape) - 2)]
    return keras.ops.slice_update(sequences, start, values[:, None])


def value_and_gradient(
    function: Callable[[Any, Mapping[str, Any]], Any], variables: Sequence[Any]
) -> Callable[[Any, Mapping[str, Any]], tuple[Any, Any]]:
    """Return a compiled function that computes the values of a function, and the gradient of their sum.

    It is compiled once per shape of the arguments, and on TensorFlow once for all shapes. Later changes of the
    variables take effect.

    Args:
        function: Maps a tensor x and a dict of further tensors to a tensor of values.
        variables: The Keras variables that the function reads.

    Returns:
        A function of NumPy arrays (x, dict) that returns two tensors: the values, and the gradient with respect to x.

    Example:
        >>> import numpy as np
        >>> square = value_and_gradient(lambda x, inputs: inputs["factor"] * x**2, [])
        >>> values, gradient = square(np.float32([3.0]), {"factor": np.float32(2.0)})
        >>> float(values[0]), float(gradient[0])
        (18.0, 12.0)
    """
    backends = {
        "tensorflow": _value_and_gradient_tensorflow,
        "jax": _value_and_gradient_jax,
        "torch": _value_and_gradient_torch,
    }
    return backends[name()](function, variables)


def _value_and_gradient_tensorflow(function: Any, variables: Sequence[Any]) -> Any:
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=True)
    def compute(x: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            values = function(x, inputs)
        return values, tape.gradient(values, x)

    # A NumPy array would be a constant of the graph in some versions, so that each array would trace it again.
    return lambda x, inputs: compute(*tf.nest.map_structure(tf.convert_to_tensor, (x, dict(inputs))))


def _value_and_gradient_jax(function: Any, variables: Sequence[Any]) -> Any:
    import jax

    def total(x: Any, inputs: Mapping[str, Any], state: Sequence[Any]) -> tuple[Any, Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, state, strict=True))):
            values = function(x, inputs)
        return values.sum(), values

    compiled = jax.jit(jax.value_and_grad(total, has_aux=True))

    def compute(batch: tuple[Any, Mapping[str, Any]]) -> tuple[Any, Any]:
        (_, values), gradient = compiled(*batch, [variable.value for variable in variables])
        return values, gradient

    return lambda x, inputs: map_rows(compute, (x, dict(inputs)))


def _value_and_gradient_torch(function: Any, variables: Sequence[Any]) -> Any:
    import torch

    def compute(x: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        tensors = {key: keras.ops.convert_to_tensor(value) for key, value in inputs.items()}
        with torch.enable_grad():
            x = keras.ops.convert_to_tensor(x).detach().requires_grad_()
            values = function(x, tensors)
            (gradient,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), gradient

    return compute


def is_concrete(tensor: Any) -> bool:
    """Return whether a tensor of this backend holds values, instead of being a placeholder in a traced graph."""
    if name() == "tensorflow":
        import tensorflow as tf

        return isinstance(tensor, tf.Tensor) and tf.executing_eagerly() and not tf.is_symbolic_tensor(tensor)
    if name() == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    return bool(tensor.device.type != "meta")

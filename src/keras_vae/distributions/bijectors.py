"""Bijectors with a triangular Jacobian: the building blocks of coupling flows and autoregressive flows."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vae.core.registry import ComponentLayer
from keras_vae.core.typing import Array, Tensor


class MaskedAffineBijector(ComponentLayer):
    r"""Affine bijector \(v_i = u_i e^{s_i} + t_i\) whose shift t and log-scale s depend on lower degrees of u only.

    With degrees 0, 1, …, D − 1, it is a step of an autoregressive flow (Kingma et al., arXiv 1606.04934; Papamakarios
    et al., arXiv 1705.07057). With degrees 0 and 1 only, it is an affine coupling (Dinh et al., arXiv 1605.08803). The
    masks are those of MADE (Germain et al., arXiv 1502.03509).

    Args:
        degrees: Degree of each dimension, counted from 0, (D,).
        hidden: Units of the hidden layers.
        context_dim: Size of a context vector on which all shifts and scales depend; 0 for none.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, degrees: Sequence[int], hidden: Sequence[int], context_dim: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.degrees, self.hidden, self.context_dim = tuple(degrees), tuple(hidden), context_dim
        self.num_passes = max(self.degrees) + 1
        inner = [np.arange(width) % max(self.num_passes - 1, 1) for width in self.hidden]
        layers = [np.array(self.degrees), *inner]
        # An output depends on strictly lower degrees; a hidden unit also depends on equal ones.
        self.masks: list[Array] = [
            (after >= before[:, None]).astype("float32") for before, after in itertools.pairwise(layers)
        ]
        outputs = np.array(self.degrees)
        self.masks.append(np.tile((outputs > layers[-1][:, None]).astype("float32"), 2))
        sizes = [*self.hidden, 2 * len(self.degrees)]
        self.kernels = [
            self.add_weight(shape=mask.shape, initializer="glorot_uniform", name=f"kernel_{index}")
            for index, mask in enumerate(self.masks[:-1])
        ]
        # Small, so that training starts near the identity; not zero, so that every weight has a gradient.
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.kernels.append(self.add_weight(shape=self.masks[-1].shape, initializer=small, name="kernel_out"))
        self.biases = [
            self.add_weight(shape=(size,), initializer="zeros", name=f"bias_{index}")
            for index, size in enumerate(sizes)
        ]
        self.context_kernels = [
            self.add_weight(shape=(context_dim, size), initializer=small, name=f"context_{index}")
            for index, size in enumerate(sizes if context_dim else ())
        ]
        self.built = True

    def transform(self, u: Tensor, context: Tensor = None, detach_weights: bool = False) -> tuple[Tensor, Tensor]:
        """Map u to v and the log-scales, both (…, D), in one pass.

        Args:
            u: Inputs, (…, D).
            context: Context vectors, (…, context_dim), broadcastable, or None.
            detach_weights: Whether gradients treat the weights as constants.
        """
        shift, log_scale = self._shift_and_log_scale(u, context, detach_weights)
        return u * ops.exp(log_scale) + shift, log_scale

    def inverse(self, v: Tensor, context: Tensor = None, detach_weights: bool = False) -> tuple[Tensor, Tensor]:
        """Map v to u and the negative log-scales, both (…, D), in `num_passes` passes, one per degree.

        Args:
            v: Outputs of `transform`, (…, D).
            context: Context vectors, (…, context_dim), broadcastable, or None.
            detach_weights: Whether gradients treat the weights as constants.
        """
        # After pass k, all dimensions of a degree below k are exact.
        u = ops.zeros_like(v)
        for _ in range(self.num_passes):
            shift, log_scale = self._shift_and_log_scale(u, context, detach_weights)
            u = (v - shift) * ops.exp(-log_scale)
        return u, -log_scale

    def _shift_and_log_scale(self, u: Tensor, context: Tensor, detach_weights: bool) -> tuple[Tensor, Tensor]:
        as_tensor = ops.stop_gradient if detach_weights else ops.convert_to_tensor
        features = u
        for index, (kernel, mask, bias) in enumerate(zip(self.kernels, self.masks, self.biases, strict=True)):
            # `*` would fail on PyTorch, where a NumPy array cannot multiply a tensor that requires gradients.
            masked = ops.multiply(as_tensor(kernel), mask)
            features = ops.matmul(features if index == 0 else ops.elu(features), masked) + as_tensor(bias)
            if context is not None:
                features = features + ops.matmul(context, as_tensor(self.context_kernels[index]))
        shift, unbounded = ops.split(features, 2, axis=-1)
        # Bounded, so that a single bijector can neither collapse a dimension nor let it diverge.
        return shift, 2.0 * ops.tanh(0.5 * unbounded)

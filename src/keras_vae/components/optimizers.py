"""Optimizers that wrap another one: an average of the weights, and no updates with non-finite gradients."""

import math
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_vae.components.image_losses import WEIGHT_PREFIX
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Tensor


class _Wrapper(keras.optimizers.Optimizer):
    """Base class of optimizers that wrap another one, whose variables Keras saves separately, under its own name."""

    def save_own_variables(self, store: dict[str, Any]) -> None:
        for index, variable in enumerate(self._variables):
            store[str(index)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: dict[str, Any]) -> None:
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])


def exempt_image_losses(optimizer: keras.optimizers.Optimizer) -> None:
    """Exempt the weights of image losses from weight decay, so that they do not change before their start.

    Args:
        optimizer: An optimizer, which may wrap another one. Nothing changes if it is built.
    """
    while isinstance(optimizer, AveragingOptimizer | keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if not optimizer.built:
        # Keras replaces the exemptions that exist already.
        pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        exempt: set[int] = getattr(optimizer, "_exclude_from_weight_decay", set())
        names = [WEIGHT_PREFIX] if pattern is None else [WEIGHT_PREFIX, pattern.pattern]
        optimizer.exclude_from_weight_decay(var_names=names)
        optimizer._exclude_from_weight_decay |= exempt


@keras.saving.register_keras_serializable(PACKAGE)
class AveragingOptimizer(_Wrapper):
    r"""Wraps an optimizer, and keeps an exponential moving average of the weights without a bias to the first steps.

    After step t, the average is \(\sum_{i=1}^t (1 - \tfrac1w)^{t-i} \theta_i \,/ \sum_{i=1}^t (1 - \tfrac1w)^{t-i}\).
    The denominator corrects the bias, as in Adam (Kingma and Ba, arXiv 1412.6980). Keras's `use_ema` starts from
    \(\theta_1\), whose weight is \((1 - \tfrac1w)^{t-1}\).

    As with `use_ema`, the averages replace the weights of the model at the end of `fit`. The weights of image losses
    are not averaged, because training continues with them.

    Args:
        inner_optimizer: The optimizer that trains the model.
        window: Window w of the average in steps, above 1.
        name: Name of the optimizer.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, window: float, name: str | None = None) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer, self.window = inner_optimizer, window

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the averages and the variables of the wrapped optimizer."""
        if not self.built:
            self.averages = self.add_optimizer_variables(variables, "average")
            self.inner_optimizer.build(variables)
            super().build(variables)

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Update the weights with the wrapped optimizer, then update their averages."""
        if trainable_variables is not None:
            self.build(list(trainable_variables))
        self.inner_optimizer.apply(grads, trainable_variables)
        # The geometric series of the denominator. `expm1` is accurate for large windows.
        step = ops.cast(self.iterations, "float32")
        share = (1 / self.window) / -ops.expm1(step * math.log1p(-1 / self.window))
        for variable, average in zip(self._trainable_variables, self.averages, strict=True):
            average.assign(average + ops.cast(share, average.dtype) * (variable - average))

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Replace the values of variables by their averages."""
        for variable, average in zip(var_list, self.averages, strict=True):
            if variable.name.startswith(WEIGHT_PREFIX):
                continue
            # A copy, because JAX refuses a training step with two variables that share their memory.
            variable.assign(ops.copy(average))

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of this optimizer, then those of the wrapped one."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> keras.Variable:
        """Number of updates."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the wrapped optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"inner_optimizer": inner, "window": self.window, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Create the optimizer from the result of `get_config`."""
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects)
        return cls(**{**config, "inner_optimizer": inner})


@keras.saving.register_keras_serializable(PACKAGE)
class SkippingOptimizer(_Wrapper, keras.optimizers.LossScaleOptimizer):
    """Wraps an optimizer, and skips and counts the updates with NaN or infinite gradients.

    Keras's loss scaling, which is meant for float16, also skips them, but halves the scale each time: after some 110
    skipped updates, it underflows, and so do all gradients. Here the scale is always 1.

    Args:
        inner_optimizer: The optimizer that trains the model.
        name: Name of the optimizer.

    Attributes:
        skipped: Number of skipped updates, an int32 variable.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, name: str | None = None) -> None:
        # The scale would grow after as many updates.
        super().__init__(inner_optimizer, initial_scale=1.0, dynamic_growth_steps=2**31 - 1, name=name)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the counters and the variables of the wrapped optimizer."""
        if not self.built:
            self.skipped, self.last_run = (
                self.add_variable(shape=(), dtype="int32", initializer="zeros", aggregation="none", name=name)
                for name in ("skipped", "last_run")
            )
            super().build(variables)

    @property
    def skipped_in_a_row(self) -> int:
        """Number of updates skipped since the last one that was made."""
        # `step_counter` is the number of updates since the last skipped one.
        return int(self.last_run) if int(self.step_counter) == 0 else 0

    def _stateful_handle_non_finite_grads(self) -> None:
        continues = ops.cast(ops.equal(self.step_counter, 0), "int32")
        self.last_run.assign(continues * self.last_run + 1)
        self.skipped.assign_add(1)
        self.step_counter.assign(0)

    def _stateless_handle_non_finite_grads(self, optimizer_variables: Any, trainable_variables: Any) -> Any:
        mapping = list(zip(self.variables, optimizer_variables, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._stateful_handle_non_finite_grads()
        return trainable_variables, [scope.get_current_value(variable) for variable in self.variables]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        config = super().get_config()
        return {name: config[name] for name in ("inner_optimizer", "name")}

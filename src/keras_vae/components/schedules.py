"""Schedules: factors between 0 and 1 as pure functions of the training step."""

import abc
import dataclasses
import math
import numbers
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import keras
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE, Component, ComponentLayer, register
from keras_vae.core.typing import Tensor

ComponentType = TypeVar("ComponentType", bound=Component | ComponentLayer)


class Schedule(Component, abc.ABC):
    """Base class of schedules: factors that multiply a weight of an objective or a learning rate."""

    kind: ClassVar[str] = "schedule"

    @abc.abstractmethod
    def __call__(self, step: Tensor) -> Tensor:
        """Return the factor at a step, counted from 0: a float32 scalar in [0, 1]."""


@register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The constant factor 1.

    Example:
        >>> float(Constant()(7))
        1.0
    """

    def __call__(self, step: Tensor) -> Tensor:
        """Return 1."""
        return ops.ones_like(ops.cast(step, "float32"))


@register("warm-up")
@dataclass(frozen=True)
class WarmUp(Schedule):
    """A linear rise from 0 to 1, then 1 (Bowman et al., arXiv 1511.06349; Sønderby et al., arXiv 1602.02282).

    Args:
        steps: Number of steps of the rise. In an experiment, a float ≤ 1 is a fraction of all training steps.

    Raises:
        InputError: `steps` is not positive.

    Example:
        >>> [float(WarmUp(steps=4)(step)) for step in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """

    steps: int | float = 0.1

    def __post_init__(self) -> None:
        """Check the length."""
        _check_steps(self.steps)

    def __call__(self, step: Tensor) -> Tensor:
        """Return min(1, step / steps)."""
        return ops.minimum(ops.cast(step, "float32") / _num_steps(self), 1.0)


@register("cyclical")
@dataclass(frozen=True)
class Cyclical(Schedule):
    """Repeated rises from 0 to 1 (Fu et al., arXiv 1903.10145).

    Args:
        steps: Length of a cycle in steps. In an experiment, a float ≤ 1 is a fraction of all training steps.
        rise: Fraction of a cycle in which the factor rises. For the rest of the cycle, the factor is 1.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> [float(Cyclical(steps=8)(step)) for step in (0, 2, 4, 7, 8)]
        [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    steps: int | float = 0.25
    rise: float = 0.5

    def __post_init__(self) -> None:
        """Check the length and the fraction."""
        _check_steps(self.steps)
        if not 0 < self.rise <= 1:
            raise InputError(f"rise = {self.rise}: not a fraction of a cycle; pass a number in (0, 1]")

    def __call__(self, step: Tensor) -> Tensor:
        """Return min(1, (step mod steps) / (rise · steps))."""
        steps = _num_steps(self)
        position = ops.mod(ops.cast(step, "float32"), steps)
        return ops.minimum(position / (self.rise * steps), 1.0)


@register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """A linear rise, then a fall along half a cosine (Loshchilov and Hutter, arXiv 1608.03983).

    Args:
        steps: Step at which the fall ends. In an experiment, a float ≤ 1 is a fraction of all training steps.
        warm_up: Fraction of `steps` in which the factor rises from 0 to 1.
        end: Factor after the fall.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> [round(float(Cosine(steps=100, warm_up=0.1)(step)), 2) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    steps: int | float = 1.0
    warm_up: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        _check_steps(self.steps)
        for name in ("warm_up", "end"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}: out of range; pass a number in [0, 1)")

    def __call__(self, step: Tensor) -> Tensor:
        """Return step / (warm_up · steps) during the rise, then end + (1 − end) · ½(1 + cos πt), t from 0 to 1."""
        progress = ops.cast(step, "float32") / _num_steps(self)
        fall = ops.clip((progress - self.warm_up) / (1.0 - self.warm_up), 0.0, 1.0)
        factor = self.end + (1.0 - self.end) * 0.5 * (1.0 + ops.cos(math.pi * fall))
        return factor if self.warm_up == 0 else ops.minimum(factor, progress / self.warm_up)


@register("exponential")
@dataclass(frozen=True)
class Exponential(Schedule):
    """An exponential fall: end^(step / steps).

    Args:
        steps: Step at which the factor is `end`. In an experiment, a float ≤ 1 is a fraction of all training steps.
        end: Factor at that step.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> [round(float(Exponential(steps=2, end=0.01)(step)), 4) for step in (0, 1, 2)]
        [1.0, 0.1, 0.01]
    """

    steps: int | float = 1.0
    end: float = 0.01

    def __post_init__(self) -> None:
        """Check the values."""
        _check_steps(self.steps)
        if not 0 < self.end <= 1:
            raise InputError(f"end = {self.end}: out of range; pass a number in (0, 1]")

    def __call__(self, step: Tensor) -> Tensor:
        """Return end^(step / steps)."""
        return ops.exp(math.log(self.end) * ops.cast(step, "float32") / _num_steps(self))


@keras.saving.register_keras_serializable(PACKAGE)
class ScheduledRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate multiplied by a schedule.

    Args:
        learning_rate: Learning rate at factor 1.
        schedule: Schedule with lengths in steps, not in fractions of the training.

    Example:
        >>> float(ScheduledRate(0.5, WarmUp(steps=4))(1))
        0.125
    """

    def __init__(self, learning_rate: float, schedule: Schedule) -> None:
        self.learning_rate, self.schedule = learning_rate, schedule

    def __call__(self, step: Tensor) -> Tensor:
        """Return the learning rate at a step, counted from 0."""
        return self.learning_rate * self.schedule(step)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"learning_rate": self.learning_rate, "schedule": schedule}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScheduledRate":
        """Create the learning rate from the result of `get_config`."""
        return cls(config["learning_rate"], keras.saving.deserialize_keras_object(config["schedule"]))


def without_annealing(component: ComponentType) -> ComponentType:
    """Replace the schedule of a component, if any, by the constant factor 1.

    Args:
        component: A component, such as an objective.

    Example:
        >>> from keras_vae.components.objectives import ELBO
        >>> without_annealing(ELBO(beta=4.0, schedule=WarmUp(steps=200))).schedule
        Constant()
    """
    if isinstance(getattr(component, "schedule", None), Schedule):
        return dataclasses.replace(component, schedule=Constant())
    return component


def in_steps(component: ComponentType, total: int) -> ComponentType:
    """Convert lengths given as fractions of all training steps, floats ≤ 1, to numbers of steps.

    Args:
        component: A schedule, or a component with a `schedule` or a first step, `start`. Other components are returned
            unchanged.
        total: Number of training steps.

    Example:
        >>> in_steps(WarmUp(steps=0.1), total=2000)
        WarmUp(steps=200)
        >>> in_steps(WarmUp(steps=1), total=2000)
        WarmUp(steps=1)
    """
    if isinstance(component, ComponentLayer):
        start = getattr(component, "start", 0)
        if not is_fraction(start):
            return component
        return type(component).from_config(component.get_config() | {"start": round(start * total)})
    schedule = getattr(component, "schedule", None)
    changes: dict[str, Any] = {}
    if isinstance(schedule, Schedule):
        changes["schedule"] = in_steps(schedule, total)
    elif isinstance(component, Schedule) and is_fraction(getattr(component, "steps", 1)):
        changes["steps"] = max(1, round(component.steps * total))  # type: ignore[union-attr]
    return dataclasses.replace(component, **changes) if changes else component


def _num_steps(schedule: WarmUp | Cyclical | Cosine | Exponential) -> float:
    """Return the length in steps, and reject fractions: as numbers of steps, they would end before the second step."""
    if is_fraction(schedule.steps):
        raise InputError(
            f"steps = {schedule.steps}: a fraction of all training steps, but their number is unknown outside of an "
            "experiment; pass an integer"
        )
    return schedule.steps


def is_fraction(steps: float) -> bool:
    """Return whether a length is a fraction of all steps: 1.0 is all of them, and the integer 1 is one step."""
    return steps <= 1 and not isinstance(steps, numbers.Integral)


def _check_steps(steps: float) -> None:
    if not (math.isfinite(steps) and steps > 0):
        raise InputError(f"steps = {steps}: not a valid length; pass a finite number > 0")

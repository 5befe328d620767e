"""Schedules: weights between 0 and 1 as pure functions of the step."""

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import keras
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE, Component, register
from keras_vae.core.typing import Tensor

Owner = TypeVar("Owner")


class Schedule(Component, abc.ABC):
    """What a schedule can do. It multiplies a weight β, or a learning rate."""

    kind: ClassVar[str] = "schedule"

    @abc.abstractmethod
    def __call__(self, step: Tensor) -> Tensor:
        """Return the factor at a step, counted from 0: a float32 scalar in [0, 1]."""


@register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """Always 1.

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
    """Rises linearly from 0 to 1 and stays there (Bowman et al., arXiv 1511.06349; Sønderby et al., 1602.02282).

    Args:
        steps: How many steps it rises for. An experiment may give a fraction below 1 of all its steps.

    Raises:
        InputError: `steps` is not positive.

    Example:
        >>> [float(WarmUp(steps=4)(step)) for step in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """

    steps: float = 0.1

    def __post_init__(self) -> None:
        """Refuse lengths that no training has."""
        _check_steps("warm-up", self.steps)

    def __call__(self, step: Tensor) -> Tensor:
        """Return min(1, step / steps)."""
        return ops.minimum(ops.cast(step, "float32") / _whole(self), 1.0)


@register("cyclical")
@dataclass(frozen=True)
class Cyclical(Schedule):
    """Rises from 0 to 1 and starts anew, again and again (Fu et al., arXiv 1903.10145).

    Args:
        steps: The length of a cycle. An experiment may give a fraction below 1 of all its steps.
        rise: The share of a cycle in which the weight rises; it stays at 1 for the rest.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> [float(Cyclical(steps=8)(step)) for step in (0, 2, 4, 7, 8)]
        [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    steps: float = 0.25
    rise: float = 0.5

    def __post_init__(self) -> None:
        """Refuse cycles that no training has."""
        _check_steps("cyclical", self.steps)
        if not 0 < self.rise <= 1:
            raise InputError(f"rise = {self.rise}: the rising share of a cycle must lie in (0, 1]")

    def __call__(self, step: Tensor) -> Tensor:
        """Return min(1, (step mod steps) / (rise · steps))."""
        steps = _whole(self)
        position = ops.mod(ops.cast(step, "float32"), steps)
        return ops.minimum(position / (self.rise * steps), 1.0)


@register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Rises linearly, then falls along half a cosine (Loshchilov and Hutter, arXiv 1608.03983).

    Args:
        steps: Where the fall ends. An experiment may give a fraction of all its steps; 1.0 is all of them.
        warm_up: The share of `steps` in which the factor rises from 0 to 1.
        end: The factor after the fall.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> [round(float(Cosine(steps=100, warm_up=0.1)(step)), 2) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    steps: float = 1.0
    warm_up: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        """Refuse falls that no training has."""
        _check_steps("cosine", self.steps)
        for name in ("warm_up", "end"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}: must lie in [0, 1)")

    def __call__(self, step: Tensor) -> Tensor:
        """Return the rise's step / (warm_up · steps), then end + (1 − end) · ½(1 + cos π·t)."""
        progress = ops.cast(step, "float32") / _whole(self)
        fall = ops.clip((progress - self.warm_up) / (1.0 - self.warm_up), 0.0, 1.0)
        factor = self.end + (1.0 - self.end) * 0.5 * (1.0 + ops.cos(math.pi * fall))
        return factor if self.warm_up == 0 else ops.minimum(factor, progress / self.warm_up)


@register("exponential")
@dataclass(frozen=True)
class Exponential(Schedule):
    """Falls by the same factor again and again: end^(step / steps).

    Args:
        steps: Where the factor is `end`. An experiment may give a fraction of all its steps; 1.0 is all of them.
        end: The factor there.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> [round(float(Exponential(steps=2, end=0.01)(step)), 4) for step in (0, 1, 2)]
        [1.0, 0.1, 0.01]
    """

    steps: float = 1.0
    end: float = 0.01

    def __post_init__(self) -> None:
        """Refuse falls that no training has."""
        _check_steps("exponential", self.steps)
        if not 0 < self.end <= 1:
            raise InputError(f"end = {self.end}: must lie in (0, 1]")

    def __call__(self, step: Tensor) -> Tensor:
        """Return end^(step / steps)."""
        return ops.exp(math.log(self.end) * ops.cast(step, "float32") / _whole(self))


@keras.saving.register_keras_serializable(PACKAGE)
class ScheduledRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times a schedule.

    Args:
        learning_rate: What the schedule is a factor of.
        schedule: In steps.

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
        """Return what `from_config` builds it from."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"learning_rate": self.learning_rate, "schedule": schedule}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScheduledRate":
        """Build it from what `get_config` returned."""
        return cls(config["learning_rate"], keras.saving.deserialize_keras_object(config["schedule"]))


def in_steps(owner: Owner, total: int) -> Owner:
    """Return a schedule, or a part that has one, whose lengths given as shares of all steps are whole steps.

    Args:
        owner: A schedule, or a part; one without a schedule is returned as it is.
        total: How many steps there are.

    Example:
        >>> in_steps(WarmUp(steps=0.1), total=2000)
        WarmUp(steps=200)
    """
    part: Any = owner
    if isinstance(getattr(part, "schedule", None), Schedule):
        part = dataclasses.replace(part, schedule=in_steps(part.schedule, total))
    elif isinstance(part, Schedule) and getattr(part, "steps", math.inf) <= 1:
        part = dataclasses.replace(part, steps=max(1, round(part.steps * total)))  # type: ignore[call-arg, attr-defined]
    return part


def _whole(schedule: WarmUp | Cyclical | Cosine | Exponential) -> float:
    """Return its length in steps, refusing a share of them, as which it would be over at the first."""
    if isinstance(schedule.steps, float) and schedule.steps <= 1:
        raise InputError(
            f"{type(schedule).__name__}(steps={schedule.steps}): a share of all steps, whose number only an experiment "
            "knows; pass steps as a whole number"
        )
    return schedule.steps


def _check_steps(name: str, steps: float) -> None:
    if not (math.isfinite(steps) and steps > 0):
        raise InputError(f"{name}: steps = {steps}: give a number of steps above 0, or in an experiment a share of all")

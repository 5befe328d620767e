"""Search spaces: the possible values of a setting, and their form in Optuna."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from keras_vae.core.config import ConfigModel
from keras_vae.core.errors import InputError, shown

Values = Mapping[str, Any]
"""Values of the settings of a trial, by dotted key."""


class Dimension(Protocol):
    """The possible values of one setting."""

    @property
    def candidates(self) -> Sequence[Any]:
        """Values to check before the first trial: all of them, or the limits of a range."""

    @property
    def grid(self) -> Sequence[Any] | None:
        """All values in the form of Optuna; None if they are not finitely many."""

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the value of a trial of Optuna."""

    def value(self, param: Any) -> Any:
        """Return the value of the setting, given that of Optuna."""


class Range(ConfigModel):
    """Numbers between two limits; integers if both limits are.

    Args:
        low: Smallest number.
        high: Largest number.
        log: Whether to draw the logarithm uniformly.
        step: Distance of the possible numbers; None for 1 in ranges of integers, and for any distance otherwise.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def is_integer(self) -> bool:
        """Whether the numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def candidates(self) -> Sequence[Any]:
        """The limits."""
        return [self.low, self.high]

    @property
    def grid(self) -> Sequence[Any] | None:
        """All numbers; None if there is no step."""
        step = self.step or (1 if self.is_integer and not self.log else None)
        if step is None:
            return None
        count = int(np.floor((self.high - self.low) / step + 1e-9)) + 1
        return [self.low + index * step for index in range(count)]

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the number of a trial of Optuna."""
        if self.is_integer:
            return trial.suggest_int(key, self.low, self.high, log=self.log, step=self.step or 1)
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def value(self, param: Any) -> Any:
        """Return the number."""
        return param

    def problem(self) -> str | None:
        """Return the reason why the range is invalid, and what to do; None if it is valid."""
        if not np.isfinite([self.low, self.high, self.step or 1]).all():
            return "not finite; choose finite limits"
        if not self.low < self.high:
            return "low is not below high; swap them, or remove the setting"
        if self.log and self.low <= 0:
            return "a logarithmic range contains only numbers above 0; raise low, or remove log"
        if self.log and self.step is not None:
            return "log and step exclude each other; remove one"
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            return "step is not between 0 and high − low; choose another one"
        if self.is_integer and isinstance(self.step, float):
            return "a step of integers is not an integer; write the limits as 1.0, or choose another step"
        return None


@dataclass(frozen=True)
class Choices:
    """A list of values of any type.

    Optuna stores texts, numbers and Booleans; other values are represented by their JSON.

    Args:
        values: The values.
    """

    values: tuple[Any, ...]

    @property
    def candidates(self) -> Sequence[Any]:
        """The values."""
        return self.values

    @property
    def grid(self) -> Sequence[Any] | None:
        """The values in the form of Optuna."""
        return [value if isinstance(value, str | int | float) else json.dumps(value) for value in self.values]

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the value of a trial of Optuna."""
        return self.value(trial.suggest_categorical(key, self.grid))

    def value(self, param: Any) -> Any:
        """Return the value, given that of Optuna."""
        return self.values[(self.grid or []).index(param)]


def parse_dimension(name: str, value: Any) -> Dimension:
    """Return the possible values that an entry of `[sweep.space]` describes.

    Args:
        name: The dotted name of the entry, for error messages.
        value: A list of choices, or a table with `low` and `high`.

    Raises:
        InputError: The entry is neither, or no value is possible.

    Example:
        >>> parse_dimension("sweep.space.training.epochs", {"low": 1, "high": 3}).grid
        [1, 2, 3]
    """
    if isinstance(value, Mapping):
        try:
            range_ = Range.from_tables(value)
        except InputError as error:
            raise InputError(f"{name}.{error}") from None
        if problem := range_.problem():
            raise InputError(f"{name} = {shown(value)}: {problem}")
        return range_
    if not isinstance(value, list):
        raise InputError(f"{name} = {shown(value)}: one value; pass a list of choices, or {{ low = …, high = … }}")
    if len(value) < 2:
        raise InputError(f"{name} = {shown(value)}: fewer than two choices; add some, or remove the setting")
    if len({json.dumps(choice, default=str, sort_keys=True) for choice in value}) < len(value):
        raise InputError(f"{name} = {shown(value)}: contains a choice twice; remove one")
    return Choices(tuple(value))

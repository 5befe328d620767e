"""The parts into which a long computation is divided, so that independent processes can compute them."""

import re
from dataclasses import dataclass
from typing import Any, Self

from keras_vae.core.errors import InputError, is_integer, shown


@dataclass(frozen=True)
class Part:
    """One of several parts of a computation, which processes compute independently.

    Args:
        number: From 1 to `count`.
        count: Number of parts.
    """

    number: int
    count: int

    @classmethod
    def of(cls, value: "Part | tuple[int, int] | str | None", argument: str = "part") -> Self | None:
        """Return the part that a pair, or text such as `3/8`, stands for; None for None.

        Args:
            value: The pair or text.
            argument: Its name, for messages.

        Raises:
            InputError: The value is not a part.

        Example:
            >>> Part.of("3/8")
            Part(number=3, count=8)
            >>> Part.of((9, 8))
            Traceback (most recent call last):
            keras_vae.core.errors.InputError: part = (9, 8): no such part; the parts are 1 to 8
        """
        if value is None:
            return None
        pair: Any = value
        if isinstance(value, str):
            found = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", value)
            pair = found and tuple(map(int, found.groups()))
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(map(is_integer, pair)) and pair[1] >= 1):
            example = "K/N, such as 3/8" if isinstance(value, str) else "a pair of integers, such as (3, 8)"
            raise InputError(f"{argument} = {shown(value)}: not a part; pass {example}")
        number, count = map(int, pair)
        if not 1 <= number <= count:
            raise InputError(f"{argument} = {shown(value)}: no such part; the parts are 1 to {count}")
        return cls(number, count)

    def __str__(self) -> str:
        """Return `3/8`."""
        return f"{self.number}/{self.count}"

    def select(self, num_blocks: int) -> range:
        """Return the numbers of the consecutive blocks that belong to this part.

        Example:
            >>> [list(Part(number, 3).select(7)) for number in (1, 2, 3)]
            [[0, 1], [2, 3], [4, 5, 6]]
        """
        return range((self.number - 1) * num_blocks // self.count, self.number * num_blocks // self.count)

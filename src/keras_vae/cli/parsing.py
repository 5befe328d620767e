"""Values of options that are parsed from text."""

import re
from typing import Literal

from keras_vae.core.errors import InputError


def parse_size(text: str) -> tuple[int, int]:
    """Parse `HxW` into height and width."""
    sides = text.lower().split("x")
    # Other digits, such as ², are not integers, and Python refuses to convert thousands of digits.
    height, width = (int(side) if re.fullmatch("[0-9]{1,6}", side) else 0 for side in (sides * 2)[:2])
    if len(sides) != 2 or not (height and width):
        raise InputError(f"--image-size = {text}: not a size; write height x width in pixels, such as 64x48")
    return height, width


def parse_devices(text: str) -> int | Literal["all"]:
    """Parse the value of `--devices`."""
    if text == "all":
        return "all"
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise InputError(f"--devices = {text}: not a number of devices; write a positive integer, or all")
    return int(text)

"""The `[data]` table of an experiment file."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from keras_vae.core.config import ConfigModel
from keras_vae.data.lazy import Load

Missing = Literal["refuse", "mask"]
"""Treatment of missing pixels."""


class DataConfig(ConfigModel):
    """`[data]`: the images, and the sizes of the validation and test splits.

    Args:
        source: `mnist`, `fashion_mnist`, `digits`, `sprites`, or a path to a .npz, a .npy or a folder of images.
        image_size: [height, width] to resize to, or `"keep"`.
        color: `"gray"`, `"rgb"`, or `"keep"`.
        fit: `"crop"`, `"pad"` or `"stretch"`: how images get another aspect ratio; see `Conversion`.
        background: The color behind transparent pixels; `"refuse"` rejects images with transparent pixels.
        scale: The value of white in image files of more than 8 bits per channel; `"refuse"` rejects such files.
        skip_broken: True skips files that cannot be used, and lists them.
        missing: `"refuse"` rejects NaN pixels. `"mask"` accepts missing pixels in .npz and .npy files: NaN, or False in
            the arrays `mask_train`, `mask_test`, … or `mask`. The model learns from the observed pixels.
        load: `"memory"` holds all images in memory. `"stream"` reads the images of a folder or a .npy file from disk in
            every epoch. `"auto"` streams them if they take more than a quarter of the memory.
        workers: Number of threads that read streamed images during training; 0 is the number of cores.
        validation: Size of the validation split, which is evaluated after every epoch: a number of images, or a
            fraction below 1; ignored if the source has its own validation images.
        test: Size of the test split, given in the same way; ignored if the source has its own test images.
        holdout: False trains on all images, including the test images, and holds out none for evaluation.
    """

    source: str = "mnist"
    image_size: list[Annotated[int, Field(ge=1)]] | Literal["keep"] = "keep"
    color: Literal["gray", "rgb", "keep"] = "keep"
    fit: Literal["crop", "pad", "stretch"] = "crop"
    background: str = "refuse"
    scale: float | Literal["refuse"] = "refuse"
    skip_broken: bool = False
    missing: Missing = "refuse"
    load: Load = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    validation: Annotated[int | float, Field(ge=0)] = 0.1
    test: Annotated[int | float, Field(ge=0)] = 0.1
    holdout: bool = True

    @pydantic.field_validator("image_size", mode="before")
    @classmethod
    def _check_two_sides(cls, value: Any) -> Any:
        are_sizes = (
            isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)
        )
        if not are_sizes and value != "keep":
            raise ValueError('not two sizes; pass [height, width] in pixels, or "keep"')
        return value

    @pydantic.field_validator("scale")
    @classmethod
    def _check_white(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value < float("inf"):
            raise ValueError("not a positive number; pass the value of white, such as 65535")
        return value

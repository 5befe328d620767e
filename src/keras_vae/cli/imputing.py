"""The masks and the figure of `vae impute`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading
from keras_vae.data.dataset import evenly_spaced
from keras_vae.data.validation import check_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_vae.models.imputation import ImputedImages

_MISSING_COLOR = (0.87, 0.60, 0.35)
"""Color of missing pixels in figures."""


def observed_pixels(images: NDArray[Any], path: Path | None, total: int) -> NDArray[np.bool]:
    """Return the mask of the observed pixels of images, (N, H, W, C).

    Args:
        images: Images that are evenly spaced over a source, (N, H, W, C); a masked array if pixels are missing in it.
        path: The file of `--mask`, or None.
        total: Number of images of the source.

    Raises:
        InputError: No pixel is missing, or the mask cannot be read or does not fit the images.
    """
    observed: NDArray[np.bool] = ~np.ma.getmaskarray(images)
    if path is not None:
        with reading(path):
            mask = _read_mask(path)
            size = images.shape[1:3]
            if mask.ndim == 2 and mask.shape != size:
                raise InputError(f"mask.shape = {mask.shape}: does not fit images of {size}; pass a mask of their size")
            if mask.ndim == 2:
                mask = np.repeat(mask[np.newaxis], len(images), axis=0)
            elif len(mask) == total:
                mask = mask[evenly_spaced(total, len(images))]
            else:
                raise InputError(
                    f"mask.shape = {mask.shape}: the source has {total} images; pass one mask, {size}, or {total}"
                )
            observed &= check_mask(mask, images.shape)
    if observed.all():
        raise InputError("--mask: no pixel is missing; pass the mask of the observed pixels, or images with NaN")
    return observed


def _read_mask(path: Path) -> NDArray[np.generic]:
    """Return the mask in a picture, whose light pixels are observed, or in a `.npy` or `.npz` file."""
    if path.suffix.lower() not in (".npy", ".npz"):
        from PIL import Image

        with Image.open(path) as picture:
            return np.asarray(picture.convert("L")) >= 128
    with path.open("rb") as opened:
        file = np.load(opened, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return file
        name = "mask" if "mask" in file.files or len(file.files) != 1 else file.files[0]
        if name not in file.files:
            names = ", ".join(map(printable, file.files)) or "no arrays"
            raise InputError(f"the file contains {names}; pass one array, or name it mask")
        mask: NDArray[np.generic] = file[name]
        return mask


def imputation_figure(images: NDArray[Any], imputed: "ImputedImages", interval: float, name: str) -> "Figure":
    """Return rows of original images if they are known, of observed pixels, of means, and of the interval's bounds.

    Args:
        images: Images (N, H, W, C), uint8; a masked array if missing pixels are unknown.
        imputed: The imputed images.
        interval: Probability of the interval.
        name: Name of the run, for the title.
    """
    from keras_vae.report import figures

    rows: dict[str, NDArray[Any]] = {}
    if not isinstance(images, np.ma.MaskedArray):
        rows["original"] = images
    rows["observed"] = np.where(imputed.mask, imputed.images, np.float32(np.nan))
    low, high = (f"{100 * (1 + sign * interval) / 2:.3g} % quantile" for sign in (-1, 1))
    rows |= {"imputed mean": imputed.images, low: imputed.lower, high: imputed.upper}
    rows = {title: _to_color(row) for title, row in rows.items()}
    return figures.image_rows(rows, title=f"{name}: missing pixels")


def _to_color(images: NDArray[Any]) -> NDArray[np.floating]:
    """Return images as floats in three channels, with NaN in the color of missing pixels."""
    floats = images / np.float32(255) if images.dtype == np.uint8 else images
    color = np.repeat(floats, 3 // floats.shape[-1], axis=-1)
    return np.where(np.isnan(color), np.array(_MISSING_COLOR), color).astype("float32")

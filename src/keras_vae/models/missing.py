"""Missing pixels: the masks of images, and log-probabilities of the observed pixels alone."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Tensor
from keras_vae.data.lazy import is_lazy
from keras_vae.data.validation import check_mask, find_unobserved
from keras_vae.distributions.image import ImageDistribution


def split_mask(images: Any, mask: Any, *, has_independent_channels: bool) -> tuple[Any, Array | None]:
    """Return images with zeros in place of missing values, and their mask.

    Args:
        images: (N, H, W, C), uint8 or floats, or a masked array of NumPy. Missing values may be NaN.
        mask: True for observed pixels, (N, H, W) or (N, H, W, 1), or for observed channels, (N, H, W, C); None if the
            images are complete or a masked array.
        has_independent_channels: Whether the likelihood accepts pixels of which only some channels are observed.

    Returns:
        The images and the mask, (N, H, W, C), bool. Without a mask, the images unchanged and None.

    Raises:
        InputError: The mask does not fit the images or the likelihood, or there are two masks.

    Example:
        >>> images = np.array([[0.5, np.nan]]).reshape(1, 1, 2, 1)
        >>> filled, mask = split_mask(images, ~np.isnan(images), has_independent_channels=True)
        >>> filled.ravel().tolist(), mask.ravel().tolist()
        ([0.5, 0.0], [True, False])
    """
    if isinstance(images, np.ma.MaskedArray):
        if mask is not None:
            raise InputError("mask: the images are a masked array, which contains a mask; pass only one of the two")
        mask, images = ~np.ma.getmaskarray(images), np.ma.getdata(images)
    if mask is None or images.ndim != 4:
        return images, None
    if is_lazy(images):
        raise InputError("mask: images that are read on demand have no masks; load them into memory")
    mask = check_mask(ops.convert_to_numpy(mask) if ops.is_tensor(mask) else np.asarray(mask), images.shape)
    if not has_independent_channels:
        check_whole_pixels(mask)
    return np.where(mask, images, np.zeros((), images.dtype)), mask


def has_masked_array(inputs: Any) -> bool:
    """Return whether the images among the inputs of a model are a masked array."""
    images = inputs.get("images") if isinstance(inputs, Mapping) else inputs
    return isinstance(images, np.ma.MaskedArray)


def check_whole_pixels(mask: Array) -> None:
    """Reject a mask that hides single channels of a pixel, for likelihoods whose channels depend on each other.

    Args:
        mask: (N, H, W, C), bool.

    Raises:
        InputError: A pixel has observed and missing channels.
    """
    if (mask.any(axis=-1) != mask.all(axis=-1)).any():
        raise InputError(
            "mask: hides single channels of pixels, but the channels of this likelihood depend on each other; hide "
            "whole pixels, or use a likelihood with independent channels, such as discretized-logistic with "
            "num_components = 1"
        )


def check_observed(inputs: Any) -> None:
    """Reject images without any observed pixel, from which nothing can be learned.

    Args:
        inputs: Checked inputs of a model.

    Raises:
        InputError: There are such images.
    """
    mask = inputs.get("mask") if isinstance(inputs, Mapping) else None
    if isinstance(mask, np.ndarray) and len(empty := find_unobserved(mask)):
        raise InputError(
            f"mask: {len(empty)} of {len(mask)} images have no observed pixel, first image {empty[0]}; leave them out "
            "of the training"
        )


def fill_missing(images: Tensor, mask: Any) -> tuple[Tensor, Tensor]:
    """Return images with zeros in place of missing values, and the mask with an axis of channels.

    Args:
        images: (N, H, W, C), float32.
        mask: (N, H, W) or (N, H, W, C), bool.
    """
    mask = ops.convert_to_tensor(mask)
    if keras.backend.standardize_dtype(mask.dtype) != "bool":
        raise InputError(f"mask.dtype = {mask.dtype}: not a mask; pass booleans, True for observed pixels")
    mask = mask[..., None] if len(mask.shape) == 3 else mask
    return ops.where(mask, images, 0.0), mask


def encoder_channels(image_channels: int, condition_dim: int, mask_channels: bool) -> int:
    """Return the number of channels of an encoder's inputs: of images, their mask if it is encoded, and the condition.

    Args:
        image_channels: Number of channels of the images.
        condition_dim: Size of the encoded condition.
        mask_channels: Whether the encoder receives the mask.
    """
    return image_channels * (2 if mask_channels else 1) + condition_dim


def image_channels(channels: int | None, condition_dim: int, mask_channels: bool) -> int | None:
    """Return the number of channels of images, the inverse of `encoder_channels`; None if it is unknown.

    Args:
        channels: Number of channels of the encoder's inputs.
        condition_dim: As for `encoder_channels`.
        mask_channels: As for `encoder_channels`.

    Raises:
        InputError: The encoder has no channels for a mask.
    """
    if channels is None or not mask_channels:
        return channels and channels - condition_dim
    if (channels - condition_dim) % 2:
        raise InputError(
            f"mask_channels = True: the encoder has {channels - condition_dim} channels for images and their mask; "
            "build it with twice the channels of the images"
        )
    return (channels - condition_dim) // 2


def observed_log_prob(pixels: ImageDistribution, images: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of the observed pixels of images, in nats, (…).

    Args:
        pixels: p(x|z).
        images: Images in [0, 1], (…, H, W, C), finite also where they are missing.
        mask: True for observed values, broadcastable to the images; None if all are observed.

    Raises:
        InputError: The distribution cannot leave out pixels.
    """
    if mask is None:
        return pixels.log_prob(images)
    if "mask" not in inspect.signature(pixels.log_prob).parameters:
        raise InputError(
            f"mask: {type(pixels).__name__}.log_prob(x) cannot leave out missing pixels; define log_prob(x, mask=None)"
        )
    return pixels.log_prob(images, mask)

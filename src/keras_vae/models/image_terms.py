"""Image losses of a model, and the epoch means that training reports."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_vae.components.image_losses import Decoding, ImageLoss, ImageLossTerms
from keras_vae.core.errors import InputError, require_list
from keras_vae.core.images import to_unit
from keras_vae.core.registry import check_component, describe
from keras_vae.core.typing import Shape, Tensor
from keras_vae.models.latent_maps import flatten
from keras_vae.models.missing import fill_missing

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


class Mean(keras.metrics.Mean):
    """A mean that is NaN before the first value. Keras's is 0, which would look like a perfect loss."""

    def result(self) -> Tensor:
        """Return the mean."""
        return ops.where(ops.greater(self.count, 0), super().result(), float("nan"))


def check_image_losses(losses: Any) -> list[ImageLoss]:
    """Return the image losses of a model as a list.

    Raises:
        InputError: The argument is not a list of image losses, or two of them track metrics of the same names.
    """
    require_list("image_losses", losses)
    tracked = set[str]()
    for index, loss in enumerate(losses):
        check_component(f"image_losses[{index}]", loss, ImageLoss)
        if loss is None or tracked & set(loss.metric_names):
            problem = "not an image loss" if loss is None else "a second loss of this kind"
            raise InputError(f"image_losses[{index}] = {type(loss).__name__}: {problem}; remove it")
        tracked |= set(loss.metric_names)
    return list(losses)


def build_image_losses(model: Any, image_shape: Shape) -> None:
    """Build the image losses of a model that are not built yet, for images (H, W, C).

    Raises:
        InputError: A loss is not defined for such images, or for the model's codes.
    """
    for index, loss in enumerate(model.image_losses):
        if not loss.built:
            loss.build(image_shape)
        if loss.requires_map:
            if not model.has_latent_vector or len(model.latent_shape) != 3:
                raise InputError(
                    f"image_losses[{index}] = {type(loss).__name__}: transforms the latent maps of a VAE, but this "
                    "model has none; use network = 'autoencoder', or remove it"
                )
            loss.check_map(model.latent_shape, model._geometry.factors is not None)


def count_parameters(model: "BaseVAE") -> dict[str, int]:
    """Return the numbers of trainable parameters: of the `model`, and of each image loss that has any, by its name.

    Args:
        model: The built model.
    """
    losses = {describe(loss)["name"]: _count(loss.trainable_weights) for loss in model.image_losses}
    own = _count(model.trainable_weights) - sum(losses.values())
    return {"model": own, **{name: count for name, count in losses.items() if count}}


def _count(weights: list[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def image_loss_terms(model: "BaseVAE", inputs: Any, output: Any, training: bool) -> ImageLossTerms:
    """Return the sum of a model's image losses, (N,), and the metrics of all of them.

    Images that the likelihood binarizes with new noise in every step remain gray, as the mean images are. Missing
    pixels are those of the reconstruction.

    Args:
        model: The model.
        inputs: Images (N, H, W, C), uint8 or floats in [0, 1], or a dict with `images`.
        output: Output of the model for them.
        training: Whether the call is part of a training step.
    """
    images, mask = to_unit(inputs["images"] if isinstance(inputs, Mapping) else inputs), None
    if isinstance(inputs, Mapping) and inputs.get("mask") is not None:
        images, mask = fill_missing(images, inputs["mask"])
    if not model.likelihood.requires_noise:
        images = model.likelihood.preprocess(images)
    if mask is not None:
        images = ops.where(mask, images, ops.stop_gradient(output.reconstruction))
    total, metrics = ops.zeros_like(output.terms.penalty), dict[str, Tensor]()
    balanced = iter(output.balanced)
    for loss in model.image_losses:
        reconstruction = next(balanced, output.reconstruction) if loss.is_adaptive else output.reconstruction
        decoding = {"decoding": _decoding(model, inputs, output, images, training)} if loss.requires_map else {}
        terms = loss(images, reconstruction, step=model.step, training=training, **decoding)
        total, metrics = total + terms.loss, metrics | terms.metrics
    return ImageLossTerms(total, metrics)


def _decoding(model: Any, inputs: Any, output: Any, images: Tensor, training: bool) -> Decoding:
    """Return the latent maps of a batch and their decoder; arguments as for `image_loss_terms`."""
    condition = None if model.condition is None else model.condition.encode(inputs["condition"])

    def log_likelihood(codes: Tensor, images: Tensor) -> Tensor:
        _, *image_shape = ops.shape(images)
        outputs = model._decode(flatten(codes)[:, None], condition, training, image_shape)
        return model._log_likelihood(outputs, images, None)[:, 0]

    _, *image_shape = ops.shape(images)
    codes = ops.reshape(output.z, (-1, *model._latent_shape_for(image_shape)))
    return Decoding(codes, log_likelihood, model.sampler.uniform)

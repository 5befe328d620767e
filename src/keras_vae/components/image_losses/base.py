"""Losses that compare reconstructions with images, beyond the likelihood of single pixels."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import keras

from keras_vae.core.errors import InputError
from keras_vae.core.registry import ComponentLayer
from keras_vae.core.typing import ImageShape, Shape, Tensor

WEIGHT_PREFIX = "image_loss_"
"""First part of the names of all weights of image losses, by which optimizers recognize them."""


class ImageLossTerms(NamedTuple):
    """Value of an image loss for a batch.

    Args:
        loss: Loss to add to the objective, (N,), multiplied by the weight of the loss.
        metrics: Values to track by name, as `ImageLoss.metric_names` lists them: scalars, or one value per image, (N,).
    """

    loss: Tensor
    metrics: dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The latent maps of a batch and their decoder, for losses that decode other maps.

    Args:
        codes: The sample of z from which each reconstruction was decoded, (N, rows, columns, c).
        log_likelihood: Function of maps and images that returns log p(x|z) in nats, (N,).
        uniform: Function of a shape that returns uniform noise in [0, 1).
    """

    codes: Tensor
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    uniform: Callable[[Shape], Tensor]


class ImageLoss(ComponentLayer, abc.ABC):
    """Base class of losses that any objective can add: functions of images and their reconstructions.

    They make reconstructions sharper, or codes smoother, than the likelihood of single pixels does. A model adds them
    to its `total_loss`, which is then not a bound on −log p(x). Its `negative_elbo` does not contain them. Their
    weights are trained by the model's optimizer, but they are not a part of the model: they have no weight decay and no
    moving average, and exports leave them out.

    Args:
        weight: Weight of the loss.
        **kwargs: Generic arguments of Keras layers.
    """

    kind: ClassVar[str] = "image_loss"
    metric_names: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics in `ImageLossTerms`."""
    requires_map: ClassVar[bool] = False
    """Whether `call` also receives a `Decoding` under `decoding`, which only a `VAE` with a latent map has."""

    def __init__(self, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (math.isfinite(weight) and weight > 0):
            raise InputError(f"weight = {weight}: not a valid weight; pass a finite number > 0, or leave out the loss")
        self.weight = weight

    @property
    def is_adaptive(self) -> bool:
        """Whether the gradient in the reconstruction is scaled to `weight` times that of all other losses."""
        return False

    @abc.abstractmethod
    def build(self, image_shape: ImageShape) -> None:
        """Create the weights.

        Args:
            image_shape: (H, W, C) of the images; None for a height or width that is not fixed.

        Raises:
            InputError: The loss is not defined for such images.
        """

    def check_map(self, map_shape: Shape, has_any_size: bool) -> None:
        """Reject latent maps for which the loss is not defined; by default, accept all. See `requires_map`.

        Args:
            map_shape: (rows, columns, c) of the training images.
            has_any_size: Whether the decoder also accepts maps of other sizes.

        Raises:
            InputError: The loss is not defined for such maps.
        """

    def prepare(self) -> None:
        """Load what a training or an evaluation needs and files of models do not contain; nothing by default.

        Raises:
            InputError: It does not exist.
            RunError: It cannot be loaded.
        """

    @abc.abstractmethod
    def call(self, images: Tensor, reconstruction: Tensor, step: Tensor, training: bool = False) -> ImageLossTerms:
        """Return the loss of a batch.

        Args:
            images: Images (N, H, W, C) in [0, 1].
            reconstruction: Their mean images for one sample of z each, (N, H, W, C).
            step: Training step, counted from 0.
            training: Whether the call is part of a training step. Without it, the loss must not depend on the step or
                on weights that are trained, so that validation losses of all epochs are comparable.
        """

    def add_weight(self, *args: Any, name: str, **kwargs: Any) -> keras.Variable:
        """Add a weight under a name with the prefix of image losses."""
        return super().add_weight(*args, name=WEIGHT_PREFIX + name, **kwargs)
